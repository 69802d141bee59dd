"""Predict before you see: what is asked, what stays hidden, which prediction counts, and how it is drawn."""

import html
import itertools
from dataclasses import replace

import pytest
from page_of_explorer import over_the_wire, say, trace

import compedu as ce
from compedu.course import LabBook
from compedu.explorers.pages.still import still_form
from compedu.explorers.panel.predict import COUNT, asked_methods, checked, interesting, largest_gap, positions
from compedu.explorers.view import State
from compedu.knobs import knobs
from compedu.metrics import Report
from compedu.sweeps import method_of, stored_points


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


def test_a_cliff_cannot_be_passed_in_a_straight_line(looked_at):
    """Where accuracy falls at once, more of the stored points are asked about than where it is level."""
    of = looked_at(ce.MagnitudePruning(sparsity=0.5)).view.baseline
    sparsities = [round(0.05 * i, 2) for i in range(20)]
    falling = {sparsity: 0.98 if sparsity < 0.7 else max(0.1, 0.98 - 8 * (sparsity - 0.7)) for sparsity in sparsities}
    chosen = interesting(points_of(falling, of), "sparsity", ce.MagnitudePruning)
    places = [method_of(report.method).sparsity for report in chosen]
    assert len(places) <= COUNT and places == sorted(places) and (places[0], places[-1]) == (0.0, 0.95)
    on_the_cliff = [place for place in places if 0.65 <= place <= 0.85]
    assert len(on_the_cliff) >= 3, places
    level = interesting(points_of(dict.fromkeys(sparsities, 0.98), of), "sparsity", ce.MagnitudePruning)
    steps = [later - one for one, later in itertools.pairwise(method_of(report.method).sparsity for report in level)]
    assert len(level) == COUNT and max(steps) - min(steps) <= 0.05 + 1e-9, "evenly where nothing happens"


@pytest.mark.parametrize("cls", [ce.MagnitudePruning, ce.TruncatedSVD], ids=lambda cls: cls.__name__)
def test_the_settings_asked_about_are_stored_points_where_there_are_enough(cls):
    model, data = ce.load("lenet5", "digits")
    points, *_ = stored_points(cls, model, data, "validation")
    asked = asked_methods(cls(), True, points)
    known = {report.method for report in points}
    assert len(points) >= COUNT and 3 <= len(asked) <= COUNT and all(repr(one) in known for one in asked)
    assert len(set(map(repr, asked))) == len(asked)


def test_no_two_handles_stand_at_one_place():
    """The stored students at temperatures 9.5 and 10 are one question."""
    points, *_ = stored_points(ce.SoftTargetDistillation, *ce.load("lenet5", "glyphs"), "validation")
    asked = asked_methods(ce.SoftTargetDistillation(), True, points)
    places = positions([method.temperature for method in asked], knobs(ce.SoftTargetDistillation)["temperature"])
    assert len(places) == 5
    assert all(later - one > 0.03 for one, later in itertools.pairwise(places)), places


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
