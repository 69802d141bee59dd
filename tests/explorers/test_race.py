"""A race: two students side by side, a bet before it, its outcome beside the bet, and stored seeds behind it."""

import json
import threading
from dataclasses import replace

import pytest
import torch
from page_of_explorer import numbers, over_the_wire, say, shown_figures

import compedu as ce
from compedu.course import LabBook
from compedu.errors import CompressionError
from compedu.explorers.figures.pictures.distillation import lanes as picture
from compedu.explorers.race import is_correct
from compedu.explorers.view import Learning, State
from compedu.methods import METHODS
from compedu.metrics import Change
from compedu.replications import races
from compedu.replications.races import StoredRace, run_race, stored_races

METHOD = ce.SoftTargetDistillation(student="lenet5(width=0.25)", epochs=3, lr=5e-3, temperature=3.0)
STORED = StoredRace(10, (2, 6), (0.2, 0.5), (0.1, 0.6), (0.5, 0.6), 20, 35, 150)


@pytest.fixture(scope="module")
def raced(pair):
    """A race that has ended, with a bet before it; not to be changed."""
    explorer = ce.explore(METHOD, *pair, race=True, predict=True)
    assert explorer.hidden and explorer.settle(60) is None and explorer.report is None
    explorer.commit([0.25, 0.75]).run().settle(300)
    yield explorer
    explorer.close()


@pytest.fixture(scope="module")
def by_themselves(pair):
    """Both students, each trained by itself."""
    return [method(*pair) for method in (replace(METHOD, weight=0.0), METHOD)]


def accuracies(networks, data) -> list[float]:
    return [ce.evaluate(network, data).correct / len(data.y_validation) for network in networks]


def drawn(explorer) -> dict:
    return {one["name"]: one for one in over_the_wire(shown_figures(explorer)["picture"])["data"]}


def test_both_lanes_end_as_each_would_by_itself(raced, by_themselves, pair):
    alone, taught = by_themselves
    assert all(torch.equal(a, b) for a, b in zip(raced.view.after.parameters(), taught.parameters(), strict=True))
    outcome = raced.view.race.outcome
    assert [outcome.alone.accuracy, outcome.taught.accuracy] == accuracies([alone, taught], pair[1])
    was, now = (ce.evaluate(network, pair[1]).is_correct for network in by_themselves)
    assert outcome.change == Change.between(was, now) and outcome.change.broke + outcome.change.fixed > 0
    assert torch.equal(is_correct(outcome.taught, raced._session.baseline), now)
    assert raced.report is outcome.taught and raced.looks == 2
    assert {repr(replace(METHOD, weight=0.0)), repr(METHOD)} == set(raced.view.seen)


def test_both_lanes_are_drawn_with_the_bet_and_where_they_ended(raced):
    race, view = raced.view.race, raced.view
    steps = 3 * 2  # epochs, batches of 64 of 96 images
    assert len(view.learning.losses) == len(race.alone.losses) == steps
    traces = drawn(raced)
    for name, learning in (("taught", view.learning), ("alone", race.alone)):
        at = numbers(traces[name]["x"])
        assert at == [step for step, _ in learning.reached] and at[-1] == steps
        assert numbers(traces[name]["y"]) == pytest.approx([100 * reached for _, reached in learning.reached], rel=1e-5)
    assert traces["your bet"]["x"] == [steps, steps] and traces["your bet"]["y"] == [25.0, 75.0]
    ends = [100 * one.accuracy for one in (race.outcome.alone, race.outcome.taught)]
    assert traces["on all images"]["y"] == pytest.approx(ends)
    low, high = (100 * end for end in race.outcome.change.interval)
    caption = raced.widget.shown["caption"].replace("\N{MINUS SIGN}", "-")
    assert caption == f"taught {ends[1]:.1f} %, alone {ends[0]:.1f} %: {low:+.1f} to {high:+.1f} points"
    assert picture.table(view)[1][-1][0] == "all images"


def test_the_bet_is_said_beside_the_outcome(raced):
    outcome = raced.view.race.outcome
    said = raced.widget.shown["message"]
    assert "You bet alone 25.0 %, taught 75.0 %: +50.0 points." in said
    assert f"alone {100 * outcome.alone.accuracy:.1f} %, taught {100 * outcome.taught.accuracy:.1f} %" in said
    apart = outcome.change.interval[0] > 0 or outcome.change.interval[1] < 0
    assert ("not distinguishable" in said) is not apart


def test_a_book_keeps_the_first_bet_and_the_first_outcome(pair, tmp_path):
    book = LabBook(tmp_path / "book.json")
    first = ce.explore(METHOD, *pair, race=True, predict=True, book=book)
    question = first.widget.shown["question"]
    assert question["values"] == ["alone", "taught"] and "alone and taught" in question["words"]
    first.commit([0.3, 0.4]).run().settle(300)
    first.close()
    again = ce.explore(METHOD, *pair, race=True, predict=True, book=book)
    again.commit([0.9, 0.9])
    assert again.view.predicted == (0.3, 0.4) and not again.hidden
    again.run().settle(300)
    again.close()
    assert [entry["value"] for entry in book.entries if entry["kind"] == "prediction"] == [[0.3, 0.4]]
    (measured,) = [entry for entry in book.entries if entry["kind"] == "measurement"]
    outcome = first.view.race.outcome
    assert measured["measured"] == [outcome.alone.accuracy, outcome.taught.accuracy]


def test_cancel_stops_both_lanes(pair):
    explorer = ce.explore(replace(METHOD, epochs=1000), *pair, race=True)
    running = threading.Event()
    told = explorer._session._changed
    explorer._session._changed = lambda news: (told(news), explorer.view.race.alone.reached and running.set())
    say(explorer, "press", name="Run")
    assert running.wait(120) and explorer.state == State.RUNNING
    say(explorer, "press", name="Cancel")
    explorer.settle(60)
    steps = len(explorer.view.learning.losses), len(explorer.view.race.alone.losses)
    assert explorer.state == State.CANCELLED and explorer.view.race.outcome is None
    assert 0 <= steps[0] - steps[1] <= 1, "neither went on alone"
    assert not [thread for thread in threading.enumerate() if thread.name == "compedu lane"]
    explorer.close()


@pytest.mark.parametrize("cls", [cls for cls in METHODS if not cls.alone and cls.family == "distillation"])
def test_a_method_without_a_control_cannot_race(cls, pair):
    with pytest.raises(ValueError, match=f"{cls.__name__} has no control"):
        ce.explore(cls, *pair, race=True)


def test_a_race_asks_for_two_accuracies(pair):
    explorer = ce.explore(METHOD, *pair, race=True, predict=True)
    with pytest.raises(ValueError, match="2 accuracies are asked for, got 3"):
        explorer.commit([0.1, 0.2, 0.3])
    explorer.close()


def test_the_stored_seeds_of_a_method_are_drawn_behind_it_and_go_with_another_knob(pair, monkeypatch):
    def races_on(model, data):
        return lambda method: (STORED,) if method == METHOD else ()

    monkeypatch.setattr("compedu.explorers.race.races_on", races_on)
    explorer = ce.explore(METHOD, *pair, race=True)
    traces = drawn(explorer)
    assert traces["stored, alone"]["x"] == [2, 6, None] and traces["stored, alone"]["y"] == [20.0, 50.0, None]
    assert traces["stored, taught"]["y"] == [10.0, 60.0, None] and traces["stored, ahead"]["y"] == [-10.0, 10.0, None]
    assert "pale: 1 stored seeds" in explorer.widget.shown["caption"]
    explorer.set(temperature=5.0)
    assert drawn(explorer)["stored, alone"]["x"] == []
    explorer.set(temperature=METHOD.temperature)
    assert drawn(explorer)["stored, alone"]["x"] == [2, 6, None]
    explorer.close()
    other = ce.explore(METHOD, *pair, race=True, split="test")  # the stored seeds were looked at on validation images
    assert drawn(other)["stored, alone"]["x"] == []
    other.close()


def test_both_lanes_have_as_many_steps_where_a_method_trains_twice(pair):
    taught, alone = races.lanes(ce.TeacherAssistant(epochs=3))
    assert (taught.epochs, alone.epochs, alone.weight) == (3, 6, 0.0)
    assert races.lanes(METHOD)[1] == replace(METHOD, weight=0.0)
    model, data = pair
    short = replace(taught, student="lenet5(width=0.25)", epochs=1, batch=16)
    ran = run_race(short, model, data.shortened(train=32, validation=20))
    assert ran.steps[-1] == 4 and len(ran.alone) == len(ran.taught) == len(ran.steps)


def test_a_race_is_stored_and_found_again_whatever_the_seed(pair, monkeypatch, tmp_path):
    model, data = pair
    raced = replace(races.RACES[0], teacher="lenet5", data="digits", train=96, method=METHOD)
    monkeypatch.setattr(races, "shipped", lambda *parts: tmp_path.joinpath(*parts))
    monkeypatch.setattr(races, "SEEDS", (3, 4))
    monkeypatch.setattr(races, "RACES", (raced,))
    monkeypatch.setattr(races.Raced, "images", lambda self: data)
    (first, second) = races.remake(raced)
    assert (first.seed, second.seed) == (3, 4) and first.alone != second.alone
    assert first.steps == tuple(range(1, 7)) and len(first.alone) == len(first.taught) == 6
    assert first == run_race(replace(METHOD, seed=3), model, data)
    assert first.change.difference == pytest.approx(first.ends[1] - first.ends[0])
    assert stored_races(replace(METHOD, seed=9), model, data) == (first, second)
    assert stored_races(replace(METHOD, temperature=9.0), model, data) == ()
    assert stored_races(METHOD, model, data.shortened(train=90)) == ()
    raced.path.write_text(json.dumps({"key": [{"seed": 1}]}))
    with pytest.raises(CompressionError, match="does not hold races"):
        stored_races(METHOD, model, data)


def test_the_lead_is_that_of_equal_steps(pair):
    explorer = ce.explore(METHOD, *pair, race=True)
    view = explorer.view
    view.learning = Learning(10, reached=[(2, 0.3), (4, 0.5), (10, 0.8)])
    view.race.alone = Learning(10, reached=[(3, 0.2), (5, 0.4), (10, 0.6)])
    gaps = [(4, pytest.approx(0.2)), (10, pytest.approx(0.2))]
    assert picture.lead(view, view.race) == gaps, "between two looks a lane lies on a line; before its first, nowhere"
    explorer.close()
