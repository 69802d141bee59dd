"""Explorers under random moves: whatever is typed or turned, text, knobs and figures are of one method, or it says why.

Everything runs in this thread and without timing, so that a seed gives the same moves and the same answers.
"""

import random
from dataclasses import replace
from functools import partial

import pytest
from page_of_explorer import Page, figures_now, fill, over_the_wire, say, turn

import compedu as ce
from compedu.course import LabBook
from compedu.explorers import explore, session
from compedu.explorers.panel.predict import COUNT
from compedu.knobs import knobs
from compedu.metrics import measure

CLASSES = (ce.MagnitudePruning, ce.LinearQuantization, ce.TruncatedSVD, ce.FilterPruning, ce.BlockCirculantProjection)
MOVES = 40  # of each explorer
WORDS = ("0.5", "-1", "1e400", "nan", "8", "True", "None", "'all'", "'fc1'", "'nosuch'", "{'*': 0.5}", "{}", "[]", "''",
         "{[]: 1}", "()", "b'x'", "9" * 30, "f(x)", "'\\0'")  # fmt: skip
TYPED = ("", "0.5", "much", "conv*=0.3,*=0.9", "=", "fc1=", "nan", "inf", "-0.0", "12", "1" * 400, "\N{SNOWMAN}")


@pytest.fixture(scope="module")
def pair():
    """A small network that was not trained, and a few digits: what it says does not matter here."""
    return ce.build("lenet300(width=0.05)"), ce.load_data("digits").shortened(train=40, validation=30, test=10)


@pytest.fixture
def made(pair, monkeypatch):
    """A maker of explorers that work in this thread and take no time."""
    monkeypatch.setenv("COMPEDU_SYNC", "1")
    monkeypatch.setattr(session, "measure", partial(untimed, measure))
    opened = []

    def make(method, images=pair[1], **options):
        opened.append(explore(method, pair[0], images, **options))
        return opened[-1]

    yield make
    for explorer in opened:
        explorer.close()


def untimed(measure, *given, **options):
    return measure(*given, **options | {"speed": False})


def expression(draw, cls, depth=2):
    """Text for the code line: often the class with some of its knobs, sometimes several in a row, or nonsense."""
    if depth and draw.random() < 0.3:
        return f"{expression(draw, cls, depth - 1)} {draw.choice('||+,')} {expression(draw, cls, depth - 1)}"
    name = cls.__name__ if draw.random() < 0.8 else draw.choice(["FineTune", "Pipeline", "nosuch", "", "print"])
    chosen = draw.sample(sorted(knobs(cls)), k=draw.randint(0, min(2, len(knobs(cls)))))
    chosen += draw.choices(["nosuch", "steps", "self"], k=draw.random() < 0.1)
    values = (f"{name}={value_text(draw, cls, name)}" for name in chosen)
    text = f"{name}({', '.join(values)})"
    return text if draw.random() < 0.9 else text[: draw.randint(0, len(text))]


def value_text(draw, cls, name):
    declared = knobs(cls).get(name)
    if declared is None or draw.random() < 0.3:
        return draw.choice(WORDS)
    return repr(draw.choice([declared.default, *declared.points(5)]))


def turned(draw, explorer):
    """Move one control of the page as a learner could."""
    parts = draw.choice(explorer.widget.parts["knobs"])
    if parts["places"] and draw.random() < 0.5:
        turn(explorer, parts["name"], draw.randrange(len(parts["places"])))
    else:
        fill(explorer, parts["name"], draw.choice(parts["choices"] or TYPED))


def said_in_code(draw, explorer):
    say(explorer, "code", text=expression(draw, type(explorer.method)))


def set_by_name(draw, explorer):
    cls = type(explorer.method)
    name = draw.choice([*knobs(cls), "nosuch"])
    value = draw.choice([None, "much", 0.5, 10**40, float("nan"), {}, {"*": 0.5}, [], object(), True, -0.0, b"x"])
    try:
        explorer.set(**{name: value})
    except ValueError as error:
        assert name in str(error)


def looked_at(draw, explorer):
    kind, parts = draw.choice([("picture", "pictures"), ("layer", "layers"), ("sideways", "sideways")])
    say(explorer, kind, name=draw.choice(list(explorer.widget.parts[parts])))


def pressed(draw, explorer):
    say(explorer, "press", name=draw.choice(["Cancel", "Reset", "Pin"]))


KINDS = (turned, turned, said_in_code, said_in_code, said_in_code, set_by_name, looked_at, pressed)


def check_one_method(explorer):
    """Text, knobs and figures are of one method; where they could not be, the explorer says why and shows no figure."""
    view, shown = explorer.view, over_the_wire(explorer.widget.shown)
    assert type(explorer.method) is type(explorer._start) and shown["state"] == view.state
    if view.state == "ERROR":
        assert view.message and shown["message"] and view.report is None and explorer.report is None
        assert all("refused" in lines[1] for lines in shown["gauges"].values())
        return
    assert shown["code"] == repr(explorer.method) and shown["typed"] is None
    assert (view.message == "") == (shown["message"] == "") == (view.state != "CANCELLED")
    values = {name: control.value for name, control in explorer._controls.items()}
    assert type(explorer.method)(**values) == explorer.method
    if view.state == "FINAL":
        assert explorer.report.method == repr(explorer.method) and not view.nearby
        assert shown["gauges"]["accuracy"][1].startswith(f"{explorer.report.correct} of {explorer.report.seen};")
        assert repr(explorer.method) in explorer.widget.panes["In words"]["html"].replace("&#x27;", "'")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_after_any_moves_text_knobs_and_figures_are_of_one_method(made, cls):
    explorer, draw, states = made(cls), random.Random(cls.__name__), []
    page = Page(explorer.widget)
    for _ in range(MOVES):
        draw.choice(KINDS)(draw, explorer)
        check_one_method(explorer)
        assert page.figures == figures_now(explorer)
        states.append(explorer.state)
    assert states.count("FINAL") > 5 and states.count("ERROR") > 5
    last = explorer.reset().settle()
    alone = ce.measure(explorer.method(explorer.view.before, explorer.view.data), explorer.view.data, speed=False)
    assert (last.correct, last.file_bytes) == (alone.correct, alone.file_bytes)


@pytest.mark.parametrize(
    "text",
    [
        "MagnitudePruning(sparsity=0.5) | MagnitudePruning(sparsity=0.9)",
        "MagnitudePruning() | MagnitudePruning() | MagnitudePruning()",
    ],
)
def test_several_methods_in_the_code_line_are_refused_and_the_next_text_goes_on(made, text):
    explorer = made(ce.MagnitudePruning(sparsity=0.7))
    before = explorer.report.method
    say(explorer, "code", text=text)
    assert explorer.state == "ERROR" and explorer.report is None
    shown = explorer.widget.shown
    assert "turns the knobs of one method" in shown["message"] and shown["typed"] == text
    assert repr(explorer.method) == before
    say(explorer, "code", text="MagnitudePruning(sparsity=0.9)")
    assert explorer.state == "FINAL" and explorer.report.method == "MagnitudePruning(sparsity=0.9)"


def test_several_methods_have_no_explorer(pair):
    several = ce.MagnitudePruning(sparsity=0.5) | ce.LinearQuantization()
    for refused in (several, ce.Pipeline):
        with pytest.raises(
            ValueError, match="an explorer turns the knobs of one method, and .* is a pipeline of [0-9]+; compress"
        ):
            explore(refused, *pair)


def test_a_prediction_is_of_the_images_it_was_made_for_whatever_they_are_called(made, pair, tmp_path):
    book, (_, data) = LabBook(tmp_path / "book.json"), pair
    one, other = (replace(data, name="my.npz", origin="", x_validation=data.x_validation * sign) for sign in (1, -1))
    explorer = made(ce.MagnitudePruning, images=one, predict=True, book=book)
    explorer.commit([0.1] * COUNT)
    assert made(ce.MagnitudePruning, images=one, predict=True, book=book).view.predicted == (0.1,) * COUNT
    assert made(ce.MagnitudePruning, images=other, predict=True, book=book).widget.shown["question"] is not None
