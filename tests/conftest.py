"""What every test starts from: one torch thread, no files of the user, live explorers; their order; the browser."""

import atexit
import os
import shutil
import tempfile
from collections import defaultdict
from itertools import chain

if "PYTEST_XDIST_WORKER" not in os.environ or "COMPEDU_TESTS" not in os.environ:
    os.environ["COMPEDU_TESTS"] = tempfile.mkdtemp(prefix="compedu-tests-")
    atexit.register(shutil.rmtree, os.environ["COMPEDU_TESTS"], ignore_errors=True)
# The processes of a run share images, which are the same whoever draws them, but not networks that a test trained.
os.environ["COMPEDU_CACHE"] = os.path.join(os.environ["COMPEDU_TESTS"], "cache")
os.makedirs(os.environ["COMPEDU_CACHE"], exist_ok=True)  # confined submissions see it, and may read it
os.environ["COMPEDU_WEIGHTS"] = os.path.join(os.environ["COMPEDU_TESTS"], f"weights-{os.getpid()}")
os.environ.pop("COMPEDU_SYNC", None)
os.environ["OMP_NUM_THREADS"] = "1"  # for processes that tests start

import pytest  # noqa: E402
import torch  # noqa: E402

from compedu.doctor import browser_program  # noqa: E402

torch.set_num_threads(1)

# A closed network must look like one: without these, Chromium asks its maker's hosts at every start.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)

COUNTED = pytest.StashKey[float]()  # processor time until the last report of this process

LONG = (  # test_site executes the chapters that test_notebooks looks at later
    "test_site", "test_grading", "test_laws", "test_torchvision_networks", "test_browser",
    "test_figures_of_methods", "test_panel", "test_explorer", "test_pages",
    "test_browser_training", "test_zoo", "test_phenomena", "test_sweeps", "test_course_mutants", "test_notebooks",
)  # fmt: skip


def pytest_addoption(parser):
    """Options of our own."""
    parser.addoption("--parts", action="store_true", help="show the seconds that each file of tests took")
    parser.addoption("--exhaustive", action="store_true", help="run the tests marked 'exhaustive' as well")


def processor_seconds() -> float:
    """Processor time of this process and of all that it started and waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def pytest_collection_finish(session):
    """Processor time is counted from here: what collecting took is no test's."""
    session.config.stash[COUNTED] = processor_seconds()


def pytest_terminal_summary(terminalreporter, config):
    """The seconds of each file, the longest first; with several processes, of all of them together."""
    if not config.getoption("--parts"):
        return
    parts = defaultdict(lambda: [0.0, 0.0])
    for report in chain(*terminalreporter.stats.values()):
        if hasattr(report, "processor_seconds"):
            part = parts[report.nodeid.partition("::")[0]]
            part[0] += report.processor_seconds
            part[1] += report.duration
    terminalreporter.section("seconds of each file: processor, wall clock")
    parts["all"] = [sum(column) for column in zip(*parts.values(), strict=True)] or [0.0, 0.0]
    for name, (processor, wall) in sorted(parts.items(), key=lambda part: part[1], reverse=True):
        terminalreporter.line(f"{processor:8.1f} {wall:8.1f}  {name}")


def pytest_collection_modifyitems(config, items):
    """Long files come first, so that no process works on one when all others have nothing left to do."""
    if not config.getoption("--exhaustive"):
        left_out = [item for item in items if "exhaustive" in item.keywords]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What a test took is told; where a browser is required, a browser test that skips has failed."""
    report = yield
    now = processor_seconds()
    report.processor_seconds = now - item.config.stash[COUNTED]
    item.config.stash[COUNTED] = now
    skipped = report.skipped and not hasattr(report, "wasxfail")
    if skipped and "browser" in item.keywords and os.environ.get("COMPEDU_REQUIRE_BROWSER") == "1":
        report.outcome = "failed"
        report.longrepr = f"COMPEDU_REQUIRE_BROWSER=1, yet this browser test was skipped: {call.excinfo.value}"
    return report


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium of this machine, driven by Playwright, for the tests of one file."""
    program = browser_program()
    if program is None:
        pytest.skip("no Chromium on this machine: install it, or name its program in COMPEDU_CHROMIUM")
    from playwright.sync_api import sync_playwright

    # For one file only: while Playwright runs, this thread has a running event loop, which nbclient cannot work beside.
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A fresh page, 1280x900 pixels, in a profile of its own."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(240_000)  # milliseconds; a machine at work on other things is no failure
    yield context.new_page()
    context.close()
