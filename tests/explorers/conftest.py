"""The notebook of all explorers for tests in a browser: one server, one page and one kernel for each file of tests."""

import pytest
from explorer_page import explorers_lab, one_test


@pytest.fixture(scope="module")
def lab_of_file(browser, tmp_path_factory):
    """The notebook of all explorers."""
    with explorers_lab(browser, tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture
def lab(lab_of_file, request):
    """The notebook of all explorers; what happens to it in one test does not reach the next."""
    with one_test(lab_of_file, request.session) as lab:
        yield lab
