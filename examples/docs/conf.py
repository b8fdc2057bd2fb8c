"""Settings of the documentation: ``sphinx-build -W -b html examples/docs OUTPUT``."""

import os
import re
import warnings
from pathlib import Path
from typing import Any

import sksubnet

HERE = Path(__file__).parent

project = "sksubnet"
author = "the sksubnet developers"
version = release = sksubnet.__version__
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["**.ipynb", "auto_gallery/*.py"]
templates_path = ["templates"]
default_role = "code"

html_theme = "pydata_sphinx_theme"
html_title = f"sksubnet {version}"
html_static_path = ["static"]
html_css_files = ["narrow.css"]
html_copy_source = html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "navigation_with_keys": False,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": []}
project_copyright = "the sksubnet developers, BSD-3-Clause"

# numpydoc's own list would repeat what the template of a class shows
numpydoc_show_class_members = False
autosummary_generate = True
# what scikit-learn's base classes bring is told there
autodoc_default_options = {
    "exclude-members": "get_metadata_routing, set_fit_request, set_predict_request, "
    "set_score_request, set_partial_fit_request, cv",
}
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "gallery"),
    "gallery_dirs": "auto_gallery",
    "within_subsection_order": "FileNameSortKey",
    "doc_module": ("sksubnet",),
    "backreferences_dir": "auto_gallery/used",
    "reference_url": {"sksubnet": None},
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "min_reported_time": 5,
    "matplotlib_animations": False,
    "plot_gallery": "True",
    "write_computation_times": False,
}

os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore", message="X does not have valid feature names")


def without_foreign_labels(
    _app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]
) -> None:
    """Leave the text of references to scikit-learn's user guide, and of its formulas.

    Its guide is not part of this site, and formulas would need a script from elsewhere.
    """
    for k, line in enumerate(lines):
        without = re.sub(r":ref:`([^`<]*?)\s*<[^`>]*>`", r"\1", line)
        lines[k] = re.sub(r":math:`([^`]*)`", r"``\1``", without)


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", without_foreign_labels)
