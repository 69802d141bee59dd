"""What every test starts from: one torch thread, no files of the user, live explorers; their order; the browser."""

import atexit
import os
import shutil
import tempfile

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

from compedu.doctor import BROWSERS  # noqa: E402

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

LONG = (
    "test_site", "test_grading", "test_notebooks", "test_torchvision_networks", "test_laws", "test_explorers",
    "test_browser_training", "test_browser", "test_zoo", "test_phenomena", "test_sweeps", "test_course_mutants",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Long files come first, so that no process works on one when all others have nothing left to do."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where a browser is required, a browser test that skips has failed."""
    report = yield
    skipped = report.skipped and not hasattr(report, "wasxfail")
    if skipped and "browser" in item.keywords and os.environ.get("COMPEDU_REQUIRE_BROWSER") == "1":
        report.outcome = "failed"
        report.longrepr = f"COMPEDU_REQUIRE_BROWSER=1, yet this browser test was skipped: {call.excinfo.value}"
    return report


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium of this machine, driven by Playwright, for the tests of one file."""
    program = os.environ.get("COMPEDU_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
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
