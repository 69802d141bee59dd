"""Builds the site without a network: executes the chapters, removes their solutions, and runs Sphinx.

python docs/build.py SITE [--notebooks FOLDER] [--fast] [--executed FOLDER]
"""

import argparse
import shutil
import sys
from pathlib import Path

import nbformat
import plotly.io
from sphinx.cmd.build import main as sphinx

from compedu.execution import execute, is_executed
from compedu.methods.card import cards
from compedu.release import chapters, without_solutions

DOCS = Path(__file__).resolve().parent
FIGURE = "application/vnd.plotly.v1+json"  # how a notebook stores a plain plotly figure; a page needs HTML
CONTENTS = {  # captions of the table of contents, and the pages below each, where there are any
    "Chapters": ("chapters/*.ipynb",),
    "Galleries": ("chapters/gallery/*.ipynb",),
    "Reference": ("methods.md", "api.md", "glossary.md"),
    "For teachers and developers": ("instructor*.md", "contributing.md", "architecture*.md"),
}


def build_site(notebooks, site, fast=False, executed=None) -> int:
    """Build the site of the `notebooks` into `site`, emptied first; returns Sphinx's exit code, warnings failing.

    The executed chapters and the sources of the pages are in a folder beside it, whose name ends in "-work". Copies in
    the folder `executed`, such as those of the last build, are reused where chapter and profile are unchanged; all
    other chapters are executed.
    """
    site = Path(site).resolve()
    work = site.with_name(site.name + "-work")
    pages = work / "pages"
    for old in (site, pages, work / "learner", work / "doctrees"):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("__pycache__", "build.py"))
    for name in chapters(notebooks):
        source = Path(notebooks) / name
        copy = Path(executed) / name if executed else None
        if copy and is_executed(copy, source, fast):
            print(f"reusing the executed {name}", flush=True)
        else:
            print(f"executing {name}", flush=True)
            copy = work / "executed" / name
            scratch = work / "learner" / name.parent
            scratch.mkdir(parents=True, exist_ok=True)
            execute(source, copy, fast=fast, folder=scratch)
        write_page(copy, pages / "chapters" / name)
    (pages / "methods.md").write_text(cards(), encoding="utf-8")
    write_contributing(pages)
    write_contents(pages)
    return sphinx(["-q", "-W", "--keep-going", "-b", "html", "-d", str(work / "doctrees"), str(pages), str(site)])


def write_page(executed, page):
    """Write an executed chapter as the site shows it: no solutions, no cell of a fast profile, figures as HTML."""
    notebook = without_solutions(nbformat.read(executed, as_version=4), executed, keep_outputs=True)
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata.tags.append("remove-cell")
        for output in cell.get("outputs", []):
            figure = output.get("data", {}).pop(FIGURE, None)
            if figure is not None:
                page_form = plotly.io.to_html(figure, include_plotlyjs=False, full_html=False, auto_play=False)
                output.data.setdefault("text/html", page_form)
    page.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, page)


def write_contributing(pages):
    """Add CONTRIBUTING.md to the pages; links between it and docs/ are those of one folder there."""
    text = (DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (pages / "contributing.md").write_text(text.replace("](docs/", "]("), encoding="utf-8")
    for page in pages.glob("*.md"):
        linked = page.read_text(encoding="utf-8").replace("](../CONTRIBUTING.md)", "](contributing.md)")
        page.write_text(linked, encoding="utf-8")


def write_contents(pages):
    """Add the table of contents to the first page; Sphinx's own patterns warn where no page matches."""
    lines = []
    for caption, patterns in CONTENTS.items():
        found = [path.relative_to(pages) for pattern in patterns for path in sorted(pages.glob(pattern))]
        if found:
            entries = [path.with_suffix("").as_posix() for path in found]
            lines += ["", "```{toctree}", f":caption: {caption}", ":maxdepth: 1", "", *entries, "```"]
    with open(pages / "index.md", "a", encoding="utf-8") as index:
        index.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the site of the chapters.")
    parser.add_argument("site")
    parser.add_argument("--notebooks", default=DOCS.parent / "notebooks")
    parser.add_argument("--fast", action="store_true", help="run the chapters in their fast profile")
    parser.add_argument("--executed", help="a folder of executed chapters: those that are up to date are reused")
    arguments = parser.parse_args()
    sys.exit(build_site(arguments.notebooks, arguments.site, arguments.fast, arguments.executed))
