"""Explorers of methods that train, in a real Chromium: Run is pressed, and the figures shown are the library's."""

import pytest
from explorer_page import (
    NAMES,
    TRAINING,
    WITH_PICTURES,
    assert_figures_follow_the_code,
    assert_pictures_can_be_chosen,
    explorers_lab,
)  # fmt: skip

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """The notebook of all explorers."""
    with explorers_lab(browser, tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.mark.parametrize("name", [name for name in NAMES if name in TRAINING])
def test_figures_on_the_page_are_those_computed_for_the_code_on_the_page(lab, name):
    assert_figures_follow_the_code(lab, name)


@pytest.mark.parametrize("name", [name for name in WITH_PICTURES if name in TRAINING])
def test_every_picture_can_be_chosen_on_the_page(lab, name):
    assert_pictures_can_be_chosen(lab, name)
