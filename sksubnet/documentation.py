"""Where the documentation is, for the diagrams of estimators."""

SITE = "https://sksubnet.readthedocs.io/en/stable"


class Documented:
    """Mixin: the diagram of an estimator links to its page of the reference."""

    _doc_link_module = "sksubnet"
    _doc_link_template = SITE + "/api/sksubnet.{estimator_name}.html"
