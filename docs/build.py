"""Builds the site without a network: executes the chapters, removes their solutions, and runs Sphinx.

python docs/build.py SITE [--notebooks FOLDER] [--fast] [--executed FOLDER] [--workers NUMBER]
"""

import argparse
import os
import re
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nbformat
import plotly.io
from sphinx.cmd.build import main as sphinx

from compedu.execution import environment, execute, is_executed
from compedu.methods.card import cards
from compedu.processes import end_with_parent
from compedu.release import chapters, without_solutions

DOCS = Path(__file__).resolve().parent
# A prediction: its line for the learner, and the number that the page was made with.
PREDICTION = re.compile(
    r"^(?P<blank>(?P<name>\w+) = \.\.\.).*\n### BEGIN SOLUTION\n(?P<given>(?P=name) = \S+)\n### END SOLUTION$",
    re.MULTILINE,
)
EXAMPLE = "this page's; commit yours in your copy"
FIGURE = "application/vnd.plotly.v1+json"  # how a notebook stores a plain plotly figure; a page needs HTML
CONTENTS = {  # captions of the table of contents, and the pages below each, where there are any
    "Chapters": ("chapters/*.ipynb",),
    "Galleries": ("chapters/gallery/*.ipynb",),
    "Reference": ("methods.md", "api.md", "glossary.md"),
    "For teachers and developers": ("instructor*.md", "contributing.md", "architecture*.md"),
}


def build_site(notebooks, site, fast=False, executed=None, workers=None) -> int:
    """Build the site of the `notebooks` into `site`, emptied first; returns Sphinx's exit code, warnings failing.

    The executed chapters and the sources of the pages are in a folder beside it, whose name ends in "-work". Copies in
    the folder `executed`, such as those of the last build, are reused where chapter, profile and package are unchanged;
    all other chapters are executed, by as many processes at once as `workers` says, by default as there is room for.
    """
    site = Path(site).resolve()
    work = site.with_name(site.name + "-work")
    pages = work / "pages"
    for old in (site, pages, work / "learner", work / "doctrees"):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("__pycache__", "build.py"))
    copies = {name: Path(executed, name) if executed else None for name in chapters(notebooks)}
    missing = []
    for name, copy in copies.items():
        if copy and is_executed(copy, Path(notebooks, name), fast):
            print(f"reusing the executed {name}", flush=True)
        else:
            copies[name] = work / "executed" / name
            missing.append((name, Path(notebooks, name), copies[name], work / "learner" / name.parent))
    execute_all(missing, fast, room_for(len(missing)) if workers is None else workers)
    for name, copy in copies.items():
        write_page(copy, pages / "chapters" / name)
    (pages / "methods.md").write_text(cards(), encoding="utf-8")
    write_contributing(pages)
    write_contents(pages)
    print(f"writing the pages into {site}", flush=True)
    return sphinx(["-q", "-W", "--keep-going", "-b", "html", "-d", str(work / "doctrees"), str(pages), str(site)])


def room_for(chapters) -> int:
    """How many chapters to execute at once: one for every two processors that are free, as they time networks."""
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, min(chapters, int((os.cpu_count() or 1) - busy) // 2))


def execute_all(missing, fast, workers):
    """Execute chapters, in so many processes; each is a tuple of name, source, executed copy and folder to run in."""
    if workers == 1:
        for chapter in missing:
            execute_one(*chapter, fast, "line")
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), end_with_parent) as pool:
        for running in [pool.submit(execute_one, *chapter, fast, "log") for chapter in missing]:
            running.result()


def execute_one(name, source, copy, folder, fast, progress):
    """Execute one chapter on one thread, and say what it took.

    More threads would wait for each other on a busy machine, at full load, and sum in another order on each machine.
    """
    print(f"executing {name}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic(), processor_seconds()
    with environment(OMP_NUM_THREADS="1"):
        execute(source, copy, fast=fast, folder=folder, progress=progress)
    wall, processor = time.monotonic() - start[0], processor_seconds() - start[1]
    print(f"executed {name} in {wall:.0f} s, of which {processor:.0f} s of the processor", flush=True)


def processor_seconds() -> float:
    """Seconds of the processor that this process and the kernels that it has ended took."""
    return sum(os.times()[:4])


def write_page(executed, page):
    """Write an executed chapter as the site shows it: no solutions, no cell of a fast profile, figures as HTML.

    A prediction is no solution, and the sentences below it tell it: it is shown.
    """
    notebook = nbformat.read(executed, as_version=4)
    predictions = [PREDICTION.search(cell.source) if "predict(" in cell.source else None for cell in notebook.cells]
    notebook = without_solutions(notebook, executed, keep_outputs=True)
    for cell, prediction in zip(notebook.cells, predictions, strict=True):
        if prediction:
            blank = re.compile(rf"^{re.escape(prediction['blank'])}.*$", re.MULTILINE)
            cell.source = blank.sub(f"{prediction['given']}  # {EXAMPLE}", cell.source)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata.tags.append("remove-cell")
        if prints_sentences(cell):
            cell.metadata.setdefault("tags", []).append("sentences")
        for output in cell.get("outputs", []):
            figure = output.get("data", {}).pop(FIGURE, None)
            if figure is not None:
                page_form = plotly.io.to_html(figure, include_plotlyjs=False, full_html=False, auto_play=False)
                output.data.setdefault("text/html", page_form)
    page.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, page)


def prints_sentences(cell) -> bool:
    """Whether a cell prints text without columns, which a narrow page may wrap (_static/site.css)."""
    printed = [output.text for output in cell.get("outputs", []) if output.output_type == "stream"]
    return bool(printed) and not any("  " in text for text in printed)


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
    parser.add_argument("--workers", type=int, help="chapters executed at once (default: as there are free processors)")
    arguments = parser.parse_args()
    sys.exit(build_site(arguments.notebooks, arguments.site, arguments.fast, arguments.executed, arguments.workers))
