"""However busy the machine is: each explorer that opens, and each picture that is chosen, is drawn completely."""

import contextlib
import subprocess
import sys

import pytest
from explorer_page import NAMES, assert_all_is_drawn

from compedu.explorers.figures.pictures import pictures_of
from compedu.methods import METHODS

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NAME = "LinearQuantization"
SLOWER = 4  # times


@contextlib.contextmanager
def busy(lab):
    """Keep a processor occupied, and slow the page down."""
    session = lab.page.context.new_cdp_session(lab.page)
    session.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    burning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        burning.kill()
        burning.wait()
        session.send("Emulation.setCPUThrottlingRate", {"rate": 1})


LOTS = [pytest.param(30, id=f"30, lot {lot}", marks=pytest.mark.exhaustive) for lot in range(10)]


@pytest.mark.parametrize("count", [5, *LOTS])
def test_no_opening_and_no_choice_of_a_picture_leaves_a_figure_blank(lab, count):
    pictures = [picture.name for picture in pictures_of(METHODS[NAMES.index(NAME)])]
    index = NAMES.index(NAME) + 1
    with busy(lab):
        for turn in range(count):
            lab.run_cell(index)
            shown = lab.cell(index).locator(".compedu").last
            shown.scroll_into_view_if_needed()
            assert_all_is_drawn(lab, shown, NAME)
            chosen = pictures[(turn + 1) % len(pictures)]
            shown.get_by_label("picture", exact=True).select_option(label=chosen)
            heard = f"print(opened[{NAME!r}].widget.shown['picture'] == {chosen!r})"
            while lab.python(heard) != "True":
                lab.page.wait_for_timeout(20)
            assert_all_is_drawn(lab, shown, NAME)
            lab.python(f"opened[{NAME!r}].close()")
