"""Predict before you see: what is asked, what stays hidden, which prediction counts, and how it is drawn."""

import html
import itertools
import re
from dataclasses import replace

import pytest
from page_of_explorer import over_the_wire, say, trace

import compedu as ce
from compedu.course import LabBook
from compedu.explorers.pages.still import still_form
from compedu.explorers.panel.predict import COUNT, asked_methods, checked, largest_gap, positions, question
from compedu.explorers.view import State
from compedu.knobs import knobs
from compedu.metrics import Report
from compedu.sweeps import stored_points


def points_of(accuracies: dict[float, float], of: Report) -> list[Report]:
    """Reports of magnitude pruning with these accuracies at these sparsities."""
    return [
        replace(of, method=repr(ce.MagnitudePruning(sparsity=sparsity)), correct=round(of.seen * accuracy))
        for sparsity, accuracy in accuracies.items()
    ]


def test_nothing_is_told_before_a_prediction_is_committed(made):
    explorer = made(ce.MagnitudePruning, predict=True)
    assert explorer.settle(60) is None and explorer.report is None and explorer.hidden
    question = over_the_wire(explorer.widget.shown["question"])
    assert question["knob"] == "sparsity" and len(question["values"]) == len(question["places"]) == COUNT
    assert question["dense"] == explorer.view.baseline.accuracy and question["chance"] == 0.1
    assert "hidden until a prediction" in still_form(explorer.view, [], explorer.hidden)["text/html"]


def test_a_committed_prediction_is_drawn_with_what_is_measured(made):
    explorer = made(ce.MagnitudePruning, predict=True)
    said = [0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    assert explorer.commit(said).settle(120) is not None and not explorer.hidden
    asked = asked_methods(ce.MagnitudePruning(), True, ())
    assert [report.method for report in explorer.view.asked] == [repr(one) for one in asked]
    predicted, measured = trace(explorer, "predicted"), trace(explorer, "asked")
    assert predicted["y"] == pytest.approx([100 * value for value in said])
    assert measured["y"] == pytest.approx([100 * report.accuracy for report in explorer.view.asked])
    assert predicted["x"] == measured["x"] == [one.sparsity for one in asked], "drawn where it was predicted"
    assert explorer.widget.shown["question"] is None
    legend = explorer.widget.shown["legend"]
    assert {"measured here", "as measured"} < {name for *_, name in legend}
    assert len({(mark, color) for mark, color, _ in legend}) == len(legend), "each kind has a mark of its own"
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td>", explorer.widget.panes["Points"]["html"])
    assert len({method for _, method in rows}) == len(rows) == len(explorer.view.seen) + 1, "each point once"
    assert {"as measured, measured here", "now, measured here"} <= {names for names, _ in rows}
    gaps = [abs(value - report.accuracy) for value, report in zip(said, explorer.view.asked, strict=True)]
    message = explorer.widget.shown["message"]
    assert "Largest surprise" in message and f"({100 * max(gaps):.1f} points apart)" in message
    explorer.commit([0.1] * COUNT)
    assert explorer.view.predicted == tuple(said)


def test_the_page_commits_numbers_only(made):
    explorer = made(ce.LinearQuantization, predict="bits")
    count = len(explorer.widget.shown["question"]["values"])
    for values in ([0.5] * (count - 1), [0.5] * (count - 1) + [1.5], [0.5] * (count - 1) + ["0.5"]):
        with pytest.raises(ValueError, match="accurac"):
            say(explorer, "commit", values=values)
        assert explorer.hidden and explorer.widget.shown["question"] is not None
    say(explorer, "commit", values=[0.1] * count)
    assert explorer.view.predicted == (0.1,) * count and explorer.widget.shown["question"] is None


def test_a_commit_where_nothing_is_asked_is_refused(made):
    with pytest.raises(ValueError, match="asks for no prediction; open it with predict=True"):
        say(made(ce.MagnitudePruning), "commit", values=[0.5] * COUNT)


def test_the_book_keeps_prediction_and_measurement_and_the_first_stands(made, tmp_path):
    book = LabBook(tmp_path / "book.json")
    first = made(ce.MagnitudePruning, predict=True, book=book)
    first.commit([0.9] * COUNT).settle(120)
    kinds = [entry["kind"] for entry in book.entries]
    assert kinds == ["prediction", "measurement"] and book.entries[1]["predicted"] == [0.9] * COUNT
    assert book.entries[1]["measured"] == [report.accuracy for report in first.view.asked]
    second = made(ce.MagnitudePruning, predict=True, book=book)
    assert not second.hidden and second.view.predicted == (0.9,) * COUNT
    second.settle(120)
    assert second.widget.shown["question"] is None and second.state == State.FINAL


def test_a_recorded_prediction_keeps_the_points_that_it_was_asked_about(made, tmp_path):
    """An earlier version asked about other points between the same ends."""
    book = LabBook(tmp_path / "book.json")
    first = made(ce.MagnitudePruning, predict=True, book=book)
    title, ends = first._prediction._title, [repr(first._prediction.settings[i]) for i in (0, -1)]
    codes = [ends[0], repr(ce.MagnitudePruning(sparsity=0.2)), ends[1]]
    book.write("prediction", title, value=[0.9, 0.8, 0.1], settings=codes, unit="accuracy")
    again = made(ce.MagnitudePruning, predict=True, book=book)
    again.settle(120)
    assert again.state == State.FINAL and [report.method for report in again.view.asked] == codes
    assert again.view.predicted_there == (0.9, 0.8, 0.1)


def test_of_equally_large_surprises_the_first_is_told(looked_at):
    of = looked_at(ce.MagnitudePruning(sparsity=0.5)).view.baseline
    asked = points_of({0.1: 0.5, 0.2: 0.5, 0.3: 0.76}, of)
    assert "MagnitudePruning(sparsity=0.1) gives 50.0 %, you said 76.0 % (26.0 points" in largest_gap(
        (0.76, 0.76, 0.76), asked
    )


def test_a_prediction_that_cannot_be_asked_is_refused_by_name(made):
    with pytest.raises(ValueError, match="no such knob with a slider range; it has: sparsity"):
        made(ce.MagnitudePruning, predict="budget")
    with pytest.raises(ValueError, match="FineTune trains, and no points of it are stored"):
        made(ce.FineTune, predict=True)
    with pytest.raises(ValueError, match="7 accuracies are asked for, got 2"):
        checked([0.1, 0.2], COUNT)
    for wrong in (90, -0.1, True, "0.5", None, float("nan")):
        with pytest.raises(ValueError, match=r"prediction 1 must be an accuracy in \[0, 1\], got"):
            checked([wrong], 1)


@pytest.mark.parametrize("fall", [0.1, 0.7, 0.95])
def test_the_places_asked_about_do_not_tell_where_the_curve_falls(looked_at, fall):
    of = looked_at(ce.MagnitudePruning(sparsity=0.5)).view.baseline
    sparsities = [round(0.05 * i, 2) for i in range(20)]
    falling = {sparsity: 0.98 if sparsity < fall else 0.1 for sparsity in sparsities}
    asked = asked_methods(ce.MagnitudePruning(), True, points_of(falling, of))
    assert [method.sparsity for method in asked] == [0.0, 0.15, 0.3, 0.45, 0.65, 0.8, 0.95]


@pytest.mark.parametrize("method", [
    ce.TruncatedSVD(rank=0.1, budget="singular values"), ce.TruncatedSVD(), ce.CPDecomposition(), ce.GradualPruning(),
    ce.MagnitudePruning(), ce.LinearQuantization(), ce.AdaRound(), ce.SmallDense(), ce.FixedPointTraining(),
    ce.SoftTargetDistillation(), ce.BlockCirculantProjection(),
], ids=lambda method: type(method).__name__)  # fmt: skip
def test_no_handle_touches_another_and_the_ends_are_asked_about(method):
    """Of the stored students at temperatures 9.5 and 10, one is asked about."""
    model, data = ce.load("lenet5", "glyphs")
    points, *_ = stored_points(type(method), model, data, "validation")
    asked = question(asked_methods(method, True, points), True, points[0], 20)
    places = asked["places"]
    gaps = [later - one for one, later in itertools.pairwise(places)]
    assert 5 <= len(places) <= COUNT + 1 and min(gaps) >= 0.06, gaps
    assert places[0] == 0 and places[-1] == pytest.approx(1)
    assert method.needs == "training" or max(gaps) < 1.7 / (COUNT - 1), gaps


def test_few_stored_points_are_no_curve_to_ask_about_where_measuring_is_quick(looked_at):
    of = looked_at(ce.MagnitudePruning(sparsity=0.5)).view.baseline
    crowded = points_of({0.8 + i / 1000: 0.5 for i in range(10)} | {0.0: 0.9}, of)
    asked = asked_methods(ce.MagnitudePruning(), True, crowded)
    assert [method.sparsity for method in asked] == knobs(ce.MagnitudePruning)["sparsity"].points(COUNT)


@pytest.mark.parametrize("cls", [ce.MagnitudePruning, ce.TruncatedSVD], ids=lambda cls: cls.__name__)
def test_the_settings_asked_about_are_stored_points_where_there_are_enough(cls):
    model, data = ce.load("lenet5", "digits")
    points, *_ = stored_points(cls, model, data, "validation")
    asked = asked_methods(cls(), True, points)
    known = {report.method for report in points}
    assert len(points) >= COUNT and 3 <= len(asked) <= COUNT and all(repr(one) in known for one in asked)
    assert len(set(map(repr, asked))) == len(asked)


def test_places_of_a_question_are_those_of_the_slider():
    declared = knobs(ce.SoftTargetDistillation)["temperature"]
    assert declared.log and positions(list(declared.slider_range), declared) == pytest.approx([0, 1])
    low, high = declared.slider_range
    assert positions([(low * high) ** 0.5], declared) == pytest.approx([0.5])
    straight = knobs(ce.MagnitudePruning)["sparsity"]
    assert positions([sum(straight.slider_range) / 2], straight) == pytest.approx([0.5])


def test_a_setting_that_gives_no_network_has_no_answer_and_is_named(made):
    explorer = made(ce.TruncatedSVD(rank=0.25, layers="-first,-last"), predict=True)
    count = len(explorer.widget.shown["question"]["values"])
    explorer.settle(120)
    assert explorer.state == "FINAL", explorer.view.message
    explorer.commit([0.5] * count).settle(120)
    refused = "TruncatedSVD(rank=0.75, layers='-first,-last')"
    assert list(explorer._session.without_network) == [refused]
    assert len(explorer.view.asked) == len(explorer.view.predicted_there) == count - 1
    said = html.unescape(explorer.widget.shown["message"])
    assert f"No network comes of {refused}" in said and "Largest surprise" in said
    explorer.set(rank=0.75)
    assert explorer.settle(120) is None and explorer.state == State.ERROR
    explorer.set(allow_larger=True).settle(120)
    assert explorer.state == State.FINAL
    said = html.unescape(explorer.widget.shown["message"])
    assert "No network" not in said and "Largest surprise" in said, "what was told before the knob moved"


def test_a_method_without_training_is_asked_about_with_its_own_other_knobs(made):
    of = made(ce.TruncatedSVD).view.baseline
    stored = [replace(of, method=repr(ce.TruncatedSVD(rank=rank / 20, layers="-first,-last"))) for rank in range(1, 15)]
    own = ce.TruncatedSVD(rank=0.1, layers="fc1")
    assert {method.layers for method in asked_methods(own, True, stored)} == {"fc1"}
    same = ce.TruncatedSVD(rank=0.3, layers="-first,-last")
    assert {repr(method) for method in asked_methods(same, True, stored)} <= {report.method for report in stored}
