"""A real JupyterLab with explorers of a few methods in a real browser, for the benchmarks that watch the page."""

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from table import DATA

from compedu.doctor import browser_program

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))  # the tests drive the same page
from lab_page import LabPage, lab_server, notebook

START = f"import compedu as ce\nmodel, data = ce.load('lenet5', '{DATA}')\nopened = []"
CELL = "opened.append(ce.explore(ce.{name}, model, data))\nopened[-1]"
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--js-flags=--expose-gc")


@contextlib.contextmanager
def lab(names: tuple[str, ...]) -> Iterator[LabPage]:
    """Show a notebook whose first cell loads network and data, and each further one opens an explorer of `names`."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="compedu-bench-") as folder, sync_playwright() as playwright:
        Path(folder, "explorers.ipynb").write_text(json.dumps(notebook([START, *(CELL.format(name=n) for n in names)])))
        chromium = playwright.chromium.launch(executable_path=browser_program(), args=list(ARGUMENTS))
        page = chromium.new_context(viewport={"width": 1440, "height": 900}).new_page()
        with lab_server(Path(folder)) as address:
            yield LabPage(page, address, "explorers.ipynb")
        chromium.close()


def opened(page: LabPage, index: int):
    """Run a cell that opens an explorer, wait until it is drawn and at rest, and return it on the page."""
    page.run_cell(index)
    shown = page.cell(index).locator(".compedu").last
    shown.scroll_into_view_if_needed()
    shown.locator(".compedu-tradeoff .main-svg").first.wait_for(state="attached")
    page.python("opened[-1].settle(300)")
    return shown
