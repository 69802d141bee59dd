"""Explorers under random moves: whatever is typed or turned, text, knobs and figures are of one method, or it says why.

Everything runs in this thread and without timing, so that a seed gives the same moves and the same answers.
"""

import random
from dataclasses import replace
from functools import partial

import pytest
from ipywidgets import Checkbox, Dropdown

import compedu as ce
from compedu.course import LabBook
from compedu.explorers import explore, session
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
    """Move one widget of the screen as a learner could."""
    control = draw.choice(list(explorer._controls.values()))
    if control.slider is not None and draw.random() < 0.5:
        control.slider.value = draw.randint(0, control.slider.max)
    elif isinstance(control.field, Dropdown):
        control.field.value = draw.choice(control.field.options)
    elif isinstance(control.field, Checkbox):
        control.field.value = not control.field.value
    elif isinstance(control.field.value, str):
        control.field.value = draw.choice(TYPED)
    else:
        control.field.value = draw.choice([0, 1, -1, 10**6, type(control.field.value)(3.0)])


def said_in_code(draw, explorer):
    explorer._screen.code.value = expression(draw, type(explorer.method))


def set_by_name(draw, explorer):
    cls = type(explorer.method)
    name = draw.choice([*knobs(cls), "nosuch"])
    value = draw.choice([None, "much", 0.5, 10**40, float("nan"), {}, {"*": 0.5}, [], object(), True, -0.0, b"x"])
    try:
        explorer.set(**{name: value})
    except ValueError as error:
        assert name in str(error)


def looked_at(draw, explorer):
    screen = explorer._screen
    chosen = draw.choice([screen.choice, screen.layer])
    options = [option[1] if isinstance(option, tuple) else option for option in chosen.options]
    chosen.value = draw.choice(options)
    screen.tabs.selected_index = draw.randrange(len(screen.tabs.children))


def pressed(draw, explorer):
    explorer._screen.buttons[draw.choice(["Cancel", "Reset", "Pin"])].click()


KINDS = (turned, turned, said_in_code, said_in_code, said_in_code, set_by_name, looked_at, pressed)


def check_one_method(explorer):
    """Text, knobs and figures are of one method; where they could not be, the explorer says why and shows no figure."""
    view, screen = explorer.view, explorer._screen
    gauges = screen.figure.widget.data[:2]
    shown = " ".join(gauges[0].text + gauges[1].text)
    assert type(explorer.method) is type(explorer._start)
    if view.state == "ERROR":
        assert view.message and view.report is None and explorer.report is None
        assert "measured yet" in shown
        return
    assert screen.code.value == screen.browser.code == repr(explorer.method)
    assert (view.message == "") == (screen.message.value == "") == (view.state != "CANCELLED")
    values = {name: control.value for name, control in explorer._controls.items()}
    assert type(explorer.method)(**values) == explorer.method
    if view.state == "FINAL":
        assert explorer.report.method == repr(explorer.method) and not view.nearby
        assert f"{explorer.report.correct} of {explorer.report.seen}" in shown


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_after_any_moves_text_knobs_and_figures_are_of_one_method(made, cls):
    explorer, draw, states = made(cls), random.Random(cls.__name__), []
    for _ in range(MOVES):
        draw.choice(KINDS)(draw, explorer)
        check_one_method(explorer)
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
    explorer._screen.code.value = text
    assert explorer.state == "ERROR" and explorer.report is None
    assert "turns the knobs of one method" in explorer._screen.message.value and explorer._screen.code.value == text
    assert repr(explorer.method) == before
    explorer._screen.code.value = "MagnitudePruning(sparsity=0.9)"
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
    explorer.commit([0.1] * 5)
    assert made(ce.MagnitudePruning, images=one, predict=True, book=book).view.predicted == (0.1,) * 5
    assert made(ce.MagnitudePruning, images=other, predict=True, book=book).hidden
