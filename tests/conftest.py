"""What every test starts from: one torch thread, a cache folder of its own, live explorers; and the browser."""

import atexit
import os
import shutil
import tempfile

os.environ["COMPEDU_CACHE"] = tempfile.mkdtemp(prefix="compedu-cache-")
os.environ["COMPEDU_WEIGHTS"] = os.path.join(os.environ["COMPEDU_CACHE"], "weights")
atexit.register(shutil.rmtree, os.environ["COMPEDU_CACHE"], ignore_errors=True)
os.environ.pop("COMPEDU_SYNC", None)
os.environ["OMP_NUM_THREADS"] = "1"  # for processes that tests start

import pytest  # noqa: E402
import torch  # noqa: E402

from compedu.doctor import BROWSERS  # noqa: E402

torch.set_num_threads(1)

# A closed network must look like one: without these, Chromium asks its maker's hosts at every start.
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage")


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
