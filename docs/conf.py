"""Sphinx settings of the site: executed chapters as pages that need neither a kernel nor a network."""

import re
import shutil
from importlib.metadata import version as installed
from pathlib import Path

from compedu.explorers.panel.panel import PLOTLY, STYLE, page_script

project = "compedu"
author = "The compedu authors"
copyright = "2026, The compedu authors"
version = release = installed("compedu")

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["build.py", "_static"]

# build.py has executed the chapters. A page shows the HTML form of an explorer: a plot with a slider.
nb_execution_mode = "off"
nb_mime_priority_overrides = [("html", "text/html", 1), ("html", "application/vnd.jupyter.widget-view+json", None)]
nb_ipywidgets_js = {}
nb_output_stderr = "remove"
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3

# MathJax is vendored. Its menu is off because its entries load further files.
mathjax_path = "vendor/mathjax/tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}
myst_update_mathjax = True

# The API reference comes from docstrings, which are Markdown, with `names` and $formulas$, as in the other pages.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"imported-members": True, "show-inheritance": True}
python_use_unqualified_type_names = True

html_theme = "sphinx_book_theme"
html_title = "compedu"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"use_download_button": False, "show_navbar_depth": 1, "home_page_in_toc": True}


def load_plotly_where_needed(app, pagename, templatename, context, doctree):
    """Only pages with a plot load plotly.js, which is 5 MB; not deferred, because a plot's own script needs it."""
    body = context.get("body", "")
    if "plotly-graph-div" in body or "compedu-page" in body:
        app.add_js_file("plotly.min.js", priority=100)
    if "compedu-page" in body:
        app.add_js_file("explorer.js", loading_method="defer")
        app.add_css_file("explorer.css")


def copy_scripts(app, exception):
    """One copy of plotly's own browser library, and of the explorers' scripts and style, for the whole site."""
    if exception is None:
        static = Path(app.outdir) / "_static"
        shutil.copyfile(PLOTLY, static / PLOTLY.name)
        (static / "explorer.js").write_text(page_script(), encoding="utf-8")
        (static / "explorer.css").write_text(STYLE, encoding="utf-8")


def as_restructured_text(app, what, name, obj, options, lines):
    """Turn a docstring in Markdown into reStructuredText, which autodoc reads, line by line; doctests stay."""
    for place, line in enumerate(lines):
        if not line.lstrip().startswith(">>>"):
            line = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line)
            line = re.sub(r"\$([^$]+)\$", r":math:`\1`", line)
            # A star in front of a word would begin emphasis; in what is set as code or formula it may stay.
            lines[place] = re.sub(r"(`+[^`]+`+)|\*(?=\S)", lambda found: found[1] or r"\*", line)


def setup(app):
    app.connect("autodoc-process-docstring", as_restructured_text)
    app.connect("html-page-context", load_plotly_where_needed)
    app.connect("build-finished", copy_scripts)
