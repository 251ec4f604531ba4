"""Sphinx settings for the site; `docs/publish.py` uses them."""

from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.ext.napoleon import Config, GoogleDocstring

project = "SPINet"
author = "the authors of this re-implementation"
html_title = "SPINet, taken apart"
extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx.ext.apidoc", "sphinx.ext.autodoc"]
include_patterns = ["index.md", "notebooks/*.ipynb", "**.md", "api/*.rst"]
exclude_patterns = ["docs/course.md", "api/modules.rst"]  # course.md is the index

# the reference is generated from docstrings, one page per subpackage or module
apidoc_modules = [
    {
        "path": "../spinet",
        "destination": "api",
        "exclude_patterns": ["../spinet/cli.py", "**/__main__.py"],  # docs/commands.md documents the commands
        "max_depth": 1,
        "automodule_options": {"members"},
    }
]
apidoc_module_first = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "ignore-module-all": True}
autodoc_preserve_defaults = True
default_role = "literal"  # docstrings have code in `single` backticks

myst_enable_extensions = ["dollarmath", "amsmath", "html_image"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # papermill has executed them; a failing notebook stops the build
nb_mime_priority_overrides = [
    # a page shows the flipbook or the image of an interactive figure: it has no kernel for widgets
    ("html", "application/vnd.jupyter.widget-view+json", None),
]

suppress_warnings = [
    "misc.highlighting_failure",  # partial docstrings from `source`
    "ref.python",  # a short name in an annotation may have several targets
]

html_theme = "sphinx_book_theme"
html_theme_options = {
    "navbar_persistent": [],  # the search field is in the side bar
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "use_issues_button": False,
}
html_context = {"default_mode": "light"}
html_favicon = str(Path(__file__).with_name("favicon.svg"))
html_copy_source = False
html_show_copyright = False
# the site has all its files. MathJax is one file of the package sphinx-mathjax-offline; the package's extension
# would copy 24 MB
_mathjax = Path(find_spec("sphinx-mathjax-offline").origin).with_name("static") / "mathjax" / "tex-svg-full.js"
html_static_path = [str(_mathjax), str(Path(__file__).with_name("site.css"))]
html_css_files = ["site.css"]
mathjax_path = "tex-svg-full.js"


def setup(app):
    app.connect("autodoc-process-docstring", sections)
    app.connect("doctree-read", without_values)


def sections(app, what, name, obj, options, lines):
    """Turns Google-style sections into fields, except for variables: there napoleon would read "a: b" as a type."""
    if what not in {"data", "attribute"}:
        lines[:] = GoogleDocstring(lines, Config(napoleon_use_ivar=True), app, what, name, obj, options).lines()


def without_values(app, doctree):
    """Removes the values of variables, and the machine-dependent part of default paths."""
    for node in list(doctree.findall(addnodes.desc_annotation)):
        if node.astext().startswith(" = "):
            node.parent.remove(node)
    root = f"{Path(__file__).resolve().parents[1]}/"
    for node in list(doctree.findall(nodes.Text)):
        if root in node and "default_value" in node.parent.get("classes", []):
            node.parent.replace(node, nodes.Text(node.replace(root, "")))
