"""What travels between kernel and page: numbered changes, all figures for who missed one, nothing after the end."""

import gc
import gzip
import random
import sys
import threading
import weakref

import numpy as np
import pytest
from ipywidgets.widgets import widget as registry
from page_of_explorer import Page, figures_now, numbers, over_the_wire, say, shown_figures, turn

import compedu as ce
from compedu.explorers import explore
from compedu.explorers.panel import panel as panels
from compedu.explorers.panel.changes import as_json, changed
from compedu.explorers.panel.panel import Panel

FIGURE = {"data": [{"type": "bar", "x": [1, 2]}, {"type": "scatter", "x": [], "text": "a"}], "layout": {"width": 9}}


def altered(trace: int | None = None, **properties) -> dict:
    """The figure with other properties of one trace, or of its layout; None takes a property away."""
    data, layout = [dict(one) for one in FIGURE["data"]], dict(FIGURE["layout"])
    target = layout if trace is None else data[trace]
    target.update(properties)
    for name in [name for name, value in properties.items() if value is None]:
        del target[name]
    return {"data": data, "layout": layout}


@pytest.fixture
def panel():
    """A panel with one figure, and what it was told."""
    told = []
    made = Panel({}, {"one": FIGURE, "other": FIGURE}, told.append)
    made.told = told
    yield made
    made.close()


# Changes


def test_only_what_differs_is_a_change():
    assert changed(FIGURE, altered()) == {}
    assert changed(FIGURE, altered(0, x=[1, 3])) == {"data": {"0": {"x": [1, 3]}}, "layout": {}}
    assert changed(FIGURE, altered(width=10, height=5)) == {"data": {}, "layout": {"width": 10, "height": 5}}
    assert changed(FIGURE, altered(1, text=None, name="b")) == {
        "data": {"1": {"name": "b", "text": None}},
        "layout": {},
    }


def test_another_number_of_traces_is_a_figure_of_its_own():
    fewer = {"data": FIGURE["data"][:1], "layout": FIGURE["layout"]}
    assert changed(FIGURE, fewer) == {"whole": fewer} and changed(None, FIGURE) == {"whole": FIGURE}


@pytest.mark.parametrize("kind", ["float64", "float32", "int32", "uint8", "int64", "bool", "str"])
def test_arrays_arrive_with_their_numbers_and_shape(kind):
    for values in (np.arange(6).astype(kind), np.arange(6).astype(kind).reshape(2, 3)[:, ::-1], np.zeros(0, kind)):
        assert numbers(over_the_wire(as_json({"z": values}))["z"]) == values.tolist()
    assert over_the_wire(as_json([np.float32(0.5), np.int64(3), (1, None)])) == [0.5, 3, [1, None]]


# The page follows


@pytest.mark.parametrize("cls", [ce.MagnitudePruning, ce.LinearQuantization, ce.TruncatedSVD, ce.FilterPruning],
                         ids=lambda cls: cls.__name__)  # fmt: skip
def test_changes_applied_one_after_the_other_are_the_figures_of_now(made, cls):
    explorer, draw = made(cls), random.Random(cls.__name__)
    explorer.settle(60)
    page = Page(explorer.widget)
    began = page.number
    for _ in range(12):
        name, control = draw.choice([(n, c) for n, c in explorer._controls.items() if c.places])
        turn(explorer, name, draw.randrange(len(control.places)))
        if draw.random() < 0.3:
            say(explorer, "sideways", name=draw.choice(list(explorer.widget.parts["sideways"])))
        if draw.random() < 0.3:
            say(explorer, "layer", name=draw.choice(explorer.widget.parts["layers"]))
        if draw.random() < 0.3:
            say(explorer, "picture", name=draw.choice(explorer.widget.parts["pictures"]))
        explorer.settle(60)
        assert page.figures == figures_now(explorer)
    kinds = {message["kind"] for message in page.heard}
    assert kinds == {"changes"} and page.number - began == len(page.heard) > 24, "none was missed or sent twice"


def test_what_did_not_change_is_not_sent(panel):
    page = Page(panel)
    panel.draw({"one": FIGURE, "other": altered(0, x=[5])})
    panel.draw({"one": FIGURE})
    ((message),) = page.heard
    assert message["figures"] == {"other": {"data": {"0": {"x": [5]}}, "layout": {}}} and message["number"] == 1


def test_a_page_that_missed_a_change_notices_it_by_its_number_and_is_sent_all(panel):
    page = Page(panel)
    panel.draw({"one": altered(0, x=[5])})
    page.asleep = True
    panel.draw({"one": altered(0, x=[6]), "other": altered(width=3)})
    page.asleep = False
    panel.draw({"one": altered(0, x=[7])})
    assert [message["kind"] for message in page.heard] == ["changes", "changes", "all"]
    assert page.number == 3 and page.figures == {"one": altered(0, x=[7]), "other": altered(width=3)}
    panel.draw({"one": altered(0, x=[8])})
    assert page.figures["one"] == altered(0, x=[8]) and page.heard[-1]["kind"] == "changes"


def test_a_page_that_has_all_figures_is_sent_nothing(panel):
    page = Page(panel)
    page.ask()
    panel.draw({"one": altered(0, x=[5])})
    page.ask()
    assert len(page.heard) == 1 and panel.told == []


def test_a_page_that_opens_begins_with_the_figures_of_now(panel):
    panel.draw({"one": altered(0, x=[5])})
    page = Page(panel)
    assert page.number == 1 and page.figures == {"one": altered(0, x=[5]), "other": FIGURE}
    assert panel.get_state("shown") == {"shown": {}}, "other states carry no figures"


def test_the_library_is_sent_on_request_and_is_plotlys_own(panel):
    sent = []
    panel.send = lambda message, buffers=None: sent.append((message, buffers))
    panel._on_message(panel, {"kind": "library"}, [])
    ((message, (library,)),) = sent
    assert message == {"kind": "library"} and gzip.decompress(library) == panels.PLOTLY.read_bytes()
    assert len(over_the_wire(panel.get_state()["_esm"])) < 100_000, "the library is not part of every explorer's state"


def test_what_a_page_says_is_told_and_an_unknown_kind_is_an_error(panel, made):
    panel._on_message(panel, {"kind": "knob", "name": "x"}, [])
    assert panel.told == [{"kind": "knob", "name": "x"}]
    with pytest.raises(KeyError, match="nonsense"):
        say(made(ce.MagnitudePruning), "nonsense")


def test_every_numbered_message_is_confirmed_whatever_comes_of_it(made):
    """A page sends a slider's next place once the kernel has heard the one before."""
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    explorer.settle(60)
    sent = Page(explorer.widget).heard
    say(explorer, "file", serial=1)  # which changes nothing that is shown
    assert explorer.widget.shown["heard"] == 1
    assert sent[-1]["kind"] == "file" and sent[-1]["name"] == "MagnitudePruning.csv"
    assert sent[-1]["text"] == explorer.csv
    with pytest.raises(ValueError, match="conv9"):
        say(explorer, "layer", name="conv9", serial=2)
    assert explorer.widget.shown["heard"] == 2
    turn(explorer, "sparsity", 30, serial=9)
    say(explorer, "sideways", name="the main knob", serial=3)  # of a second page, which counts for itself
    assert explorer.widget.shown["heard"] == 9


def test_no_drawing_is_lost_while_pages_ask(panel):
    """What a page says comes in on another thread than what a measurement draws."""
    sent, done = [], threading.Event()
    panel.send = lambda message, buffers=None: sent.append((message["kind"], message["number"]))

    def asking() -> None:
        while not done.is_set():
            panel._on_message(panel, {"kind": "have", "number": -1}, [])

    asker = threading.Thread(target=asking)
    asker.start()
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-6)
        for value in range(300):
            panel.draw({"one": altered(0, x=[value])})
    finally:
        sys.setswitchinterval(before)
        done.set()
        asker.join()
    assert [number for kind, number in sent if kind == "changes"] == list(range(1, 301))
    assert "all" in dict(sent)


def test_an_answer_is_never_overtaken_by_what_is_drawn_meanwhile(panel):
    """A page that hears of a change and then of all figures before it would go back to an old one."""
    sent, drawers = [], []

    def send(message: dict, buffers=None) -> None:
        if message["kind"] == "all":  # on its way, while another thread draws
            drawers.append(threading.Thread(target=panel.draw, args=({"one": altered(0, x=[5])},)))
            drawers[0].start()
            drawers[0].join(1)
        sent.append((message["kind"], message["number"]))

    panel.send = send
    panel._on_message(panel, {"kind": "have", "number": -1}, [])
    drawers[0].join()
    assert sent == [("all", 0), ("changes", 1)]


# The end


def test_a_closed_explorer_leaves_no_widget_and_no_memory(pair, measured):
    before = set(registry._instances)
    explorer = explore(ce.MagnitudePruning(sparsity=0.5), *pair)
    measured(explorer)
    assert set(registry._instances) - before, "an open explorer is registered"
    report = explorer.report
    session = explorer._session
    networks = [weakref.ref(one) for one in (explorer.view.after, session.baseline, session.baseline.deployed)]
    kept = [weakref.ref(one) for one in (explorer, explorer.widget, explorer.view)]
    thread = session.runner.thread
    explorer.close()
    assert set(registry._instances) == before
    if thread is not None:  # it ends when idle
        thread.join(30)
    gc.collect()
    assert [one() for one in networks] == [None] * 3, "a notebook holds what its cells ended with"
    assert explorer.report == report and explorer.csv
    del explorer, session
    gc.collect()
    assert [one() for one in kept] == [None] * 3


def test_a_closed_explorer_hears_and_draws_nothing(pair, measured):
    explorer = explore(ce.MagnitudePruning(sparsity=0.5), *pair)
    report = measured(explorer)
    widget, figures = explorer.widget, shown_figures(explorer)
    explorer.close()
    turn(explorer, "sparsity", 90)
    assert explorer.settle(10) == report, "what a page says is not heard"
    explorer.set(sparsity=0.9)
    assert over_the_wire(widget.drawn)["figures"] == figures, "what is set is not drawn"
