"""Explorers of methods that train, in a real Chromium: Run is pressed, and the figures shown are the library's."""

from types import SimpleNamespace

import pytest
from explorer_page import (
    assert_figures_follow_the_code,
    assert_pictures_can_be_chosen,
    explorer,
    named,
    one_test,
)  # fmt: skip

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize("name", named(trains=True))
def test_figures_on_the_page_are_those_computed_for_the_code_on_the_page(lab, name):
    assert_figures_follow_the_code(lab, name)


@pytest.mark.parametrize("name", named(trains=True, pictures=2))
def test_every_picture_can_be_chosen_on_the_page(lab, name):
    assert_pictures_can_be_chosen(lab, name)


def test_what_happens_to_the_page_in_one_test_does_not_reach_the_next(lab):
    before = lab.page
    with pytest.raises(AssertionError, match="lost"), one_test(lab, SimpleNamespace(testsfailed=0)):
        lab.python("opened = None")
        lab.page.evaluate("() => { document.body.innerHTML = ''; setTimeout(() => { throw new Error('lost') }) }")
        lab.page.wait_for_timeout(500)
    lab.problems.clear()
    assert lab.page is not before and before.is_closed() and lab.python("print(opened)") == "{}"
    assert explorer(lab, "FineTune").get_by_role("button", name="Run", exact=True).is_visible()
