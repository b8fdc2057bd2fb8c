"""The documentation builds without a warning, says what it should, and fits a phone.

The pages are built without running the gallery, whose scripts are tests of their own. To look at
pages with their pictures, build them and set SKSUBNET_SITE to their folder.
"""

import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "examples" / "docs"
PHONE = {"width": 390, "height": 844}

# What newcomers looked for, and a text that they would click at.
LOOKED_FOR = {
    "saving": "saving",
    "plots": "plots",
    "GPU": "gpu",
    "size limits": "limits of size",
    "DataFrames": "frames out",
    "calibrated intervals": "intervals with a guarantee",
    "log targets": "log targets",
    "explaining": "explaining",
    "serving": "serving",
    "threads": "threads",
    "what .04 nats mean": "nats of mutual information",
    "thresholds": "threshold",
    "API reference": "api reference",
    "tutorials": "gallery",
    "changelog": "changelog",
}


class Page(HTMLParser):
    """Links with their texts, images, other files, and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: dict[str, str] = {}
        self.files: list[str] = []
        self.anchors: set[str] = set()
        self._open: str | None = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.anchors |= {named[name] for name in ("id", "name") if named.get(name)}
        if tag == "a" and named.get("href"):
            self._open = named["href"]
            self.links.setdefault(self._open, "")
        files = named.get("src"), named.get("href") if tag == "link" else None
        self.files += [name for name in files if name]

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.links[self._open] += " " + " ".join(data.split()).lower()


def target(page: Path, link: str) -> tuple[Path, str] | None:
    """File and anchor that a link leads to; ``None`` for one out of the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    return (page.parent / unquote(parts.path)).resolve() if parts.path else page, parts.fragment


def pages_of(site: Path) -> dict[Path, Page]:
    # the search page and the index of modules are made by Sphinx
    return {
        path.resolve(): Page(path) for path in site.rglob("*.html") if "_static" not in str(path)
    }


def broken(pages: dict[Path, Page]) -> list[str]:
    """Links, images and files of pages that lead nowhere."""
    found = []
    for path, page in pages.items():
        for link in [*page.links, *page.files]:
            place = target(path, link)
            if place is None:
                continue
            file, anchor = place
            known = file in pages and (not anchor or anchor in pages[file].anchors)
            if not known and not (file.is_file() and file not in pages):
                found.append(f"{path.name}: {link}")
    return found


def fetched(pages: dict[Path, Page]) -> list[str]:
    """Scripts, styles and images that a page would get from elsewhere."""
    return [
        f"{path.name}: {file}"
        for path, page in pages.items()
        for file in page.files
        if urlsplit(file).netloc
    ]


def within_two_clicks(pages: dict[Path, Page], start: Path) -> set[str]:
    """Texts of the links of the front page, and of pages that it links to."""
    front = pages[start]
    places = [target(start, link) for link in front.links]
    linked = {place[0] for place in places if place is not None and place[0] in pages}
    return {text for path in (start, *linked) for text in pages[path].links.values()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "SKSUBNET_SITE" in os.environ:
        return Path(os.environ["SKSUBNET_SITE"])
    for module in ("sphinx", "myst_parser", "numpydoc", "pydata_sphinx_theme", "sphinx_gallery"):
        pytest.importorskip(module)
    # Sphinx writes beside its sources.
    copy = tmp_path_factory.mktemp("docs")
    ignored = shutil.ignore_patterns("api", "auto_gallery", "__pycache__")
    shutil.copytree(ROOT / "examples", copy / "examples", ignore=ignored)
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, copy)
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-D", "plot_gallery=0"]
    command = [*build, str(copy / "examples" / "docs"), str(copy / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return copy / "site"


def test_the_site_builds_and_a_newcomer_finds_what_is_looked_for(site):
    pages = pages_of(site)
    assert len(pages) > 60
    assert not broken(pages)
    assert not fetched(pages)
    texts = within_two_clicks(pages, (site / "index.html").resolve())
    missing = [word for word, text in LOOKED_FOR.items() if not any(text in t for t in texts)]
    assert not missing


def test_pages_are_no_wider_than_a_phone_and_show_their_images(site):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium")
    wide, blank = {}, {}
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport=PHONE)
        for path in pages_of(site):
            tab.goto(path.as_uri())
            width = tab.evaluate("document.documentElement.scrollWidth")
            if width > PHONE["width"]:
                wide[path.name] = width
            unseen = tab.evaluate(
                "async () => { const images = [...document.images];"
                "images.forEach(image => image.loading = 'eager');"
                "await Promise.allSettled(images.map(image => image.decode()));"
                "return images.filter(image => !image.naturalWidth).map(image => image.src) }"
            )
            if unseen:
                blank[path.name] = unseen
        browser.close()
    assert not wide
    assert not blank


def test_every_public_name_is_in_the_reference_with_an_example():
    listed = set(re.findall(r"^   (\w+)$", (DOCS / "api.rst").read_text(), flags=re.MULTILINE))
    public = {
        name: getattr(module, name)
        for module in map(
            importlib.import_module,
            ("sksubnet", "sksubnet.displays", "sksubnet.distributed", "sksubnet.metrics"),
        )
        for name in module.__all__
        if not name.startswith("__")
    }
    assert listed == set(public)
    assert not [name for name, value in public.items() if ">>>" not in (value.__doc__ or "")]


def test_every_option_is_explained_and_no_other():
    text = (DOCS / "guide" / "options.rst").read_text()
    explained = set(re.findall(r"^   \* - ``(\w+)``$", text, flags=re.MULTILINE))
    options = {
        name
        for estimator in (SubnetLaplaceClassifier, SubnetLaplaceRegressor)
        for name in inspect.signature(estimator).parameters
    }
    assert explained == options
