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
RESIDENT = "import gc; gc.collect(); print(open('/proc/self/status').read().split('VmRSS:')[1].split()[0])"
WIDGETS = "from ipywidgets.widgets.widget import _instances; print(len(_instances))"
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--js-flags=--expose-gc")


@contextlib.contextmanager
def lab(names: tuple[str, ...], *cells: str) -> Iterator[LabPage]:
    """Show a notebook whose first cell loads network and data; each further one opens an explorer of `names`.

    Behind them are `cells` of other code.
    """
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="compedu-bench-") as folder, sync_playwright() as playwright:
        Path(folder, "explorers.ipynb").write_text(
            json.dumps(notebook([START, *(CELL.format(name=n) for n in names), *cells]))
        )
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


def renderers() -> list[int]:
    """Return the processes in which pages of a browser run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            said = path.read_bytes()
        except OSError:  # it has ended
            continue
        found += [int(path.parent.name)] if b"--type=renderer" in said else []
    return found


def memory(page: LabPage, rest_ms: int) -> tuple[int, ...]:
    """Return page, heap and kernel in MB and the number of widgets, once garbage is collected and all is quiet."""
    page.python("any(one.settle(300) for one in opened)")
    page.page.context.new_cdp_session(page.page).send("HeapProfiler.collectGarbage")
    page.page.wait_for_timeout(rest_ms)
    resident = max(int(Path(f"/proc/{one}/status").read_text().split("VmRSS:")[1].split()[0]) for one in renderers())
    heap = page.page.evaluate("performance.memory.usedJSHeapSize")
    kernel = int(page.python(RESIDENT))
    return round(resident / 1024), round(heap / 1e6), round(kernel / 1024), int(page.python(WIDGETS))
