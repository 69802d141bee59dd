"""Explorers for tests without a browser, measured once for those that only look; one notebook for those with one."""

from dataclasses import replace

import pytest
from explorer_page import explorers_lab, one_test

import compedu as ce
from compedu.explorers import Explorer, explore
from compedu.explorers.view import Learning
from compedu.methods import METHODS
from compedu.testing.trying import quick


@pytest.fixture(scope="module")
def pair():
    """A trained network, and digits enough to see it right and wrong."""
    model, data = ce.load("lenet5", "digits")
    return model, data.shortened(train=96, validation=150, test=10)


@pytest.fixture(scope="module")
def fitting(pair):
    """A function that gives a method class a trained network it takes, with images: one with batch norms if need be."""
    with_norms = []

    def choose(cls):
        if cls is not ce.BatchNormReestimation:
            return pair
        if not with_norms:
            model, data = ce.load("vgg", "glyphs")
            with_norms.append((model, data.shortened(train=32, validation=40, test=10)))
        return with_norms[0]

    return choose


@pytest.fixture
def made(fitting):
    """A maker of explorers that are closed afterwards."""
    opened = []

    def make(what, **options) -> Explorer:
        opened.append(explore(what, *fitting(what if isinstance(what, type) else type(what)), **options))
        return opened[-1]

    yield make
    for explorer in opened:
        explorer.close()


@pytest.fixture(scope="module")
def measured():
    """A function that measures an explorer's method, training it where it has to be."""

    def measure(explorer: Explorer):
        if explorer.method.needs == "training":
            explorer.run()
        report = explorer.settle(300)
        assert explorer.state == "FINAL", explorer.view.message + explorer.view.details
        return report

    return measure


@pytest.fixture(scope="module", params=METHODS, ids=lambda cls: cls.__name__)
def seen(request, fitting, measured):
    """The explorer of a method, measured once for all tests that look at it and leave it as it is."""
    explorer = explore(quick(request.param), *fitting(request.param))
    measured(explorer)
    before = standing(explorer)
    yield explorer
    assert standing(explorer) == before
    explorer.close()


@pytest.fixture(scope="module")
def looked_at(pair, measured):
    """A function that gives the explorer of a method with its knobs, measured once for all tests that look at it."""
    opened = {}

    def look(method) -> Explorer:
        if method not in opened:
            explorer = explore(method, *pair)
            measured(explorer)
            opened[method] = explorer, standing(explorer)
        return opened[method][0]

    yield look
    for explorer, before in opened.values():
        assert standing(explorer) == before
        explorer.close()


def standing(explorer: Explorer) -> tuple:
    """What a test that only looks leaves as it was."""
    controls = {name: control.value for name, control in explorer._controls.items()}
    return explorer.method, controls, explorer.state, explorer.report, explorer.pins, explorer.looks, explorer.csv


@pytest.fixture(scope="module")
def before_and_after():
    """A function: the view before anything was measured, and as it is now; what pictures need is in neither."""

    def views(explorer: Explorer) -> tuple:
        view = replace(explorer.view, kept={})
        return replace(view, state="PREVIEW", report=None, after=None, learning=Learning(), kept={}), view

    return views


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
