"""The trade-off curve: its axes hold every point, earlier curves stay, and a trail is of one curve."""

import math
from dataclasses import replace

import pytest
from page_of_explorer import say, shown_figures, trace

import compedu as ce
from compedu.explorers import explore
from compedu.explorers.figures import sideways, tradeoff
from compedu.explorers.figures.tradeoff import reports_shown
from compedu.explorers.main_knob import along, main_knob, on_curve_of, on_one_curve
from compedu.explorers.view import Sideways, State
from compedu.sweeps import method_of


@pytest.fixture(scope="module")
def stored():
    """A function: the explorer of a method on the whole digits, of which sweeps are shipped; opened, not measured."""
    opened = {}

    def look(cls):
        if cls not in opened:
            opened[cls] = explore(cls, *ce.load("lenet5", "digits"))
            opened[cls].settle(120)
        return opened[cls]

    yield look
    for explorer in opened.values():
        explorer.close()


def drawn_points(figure: dict) -> set:
    """Place and accuracy of every mark in the plot."""
    return {point for one in figure["data"] for point in zip(one["x"], one["y"], strict=True)}


@pytest.mark.parametrize("cls", [ce.MagnitudePruning, ce.LinearQuantization, ce.SoftTargetDistillation],
                         ids=lambda cls: cls.__name__)  # fmt: skip
def test_every_axis_draws_all_known_points_that_have_a_place_and_holds_them(stored, cls):
    view = stored(cls).view
    trains = view.method.needs == "training"
    curve = [report for report in view.points if trains or on_one_curve(view.method, method_of(report.method))]
    assert len(curve) > 3 and len(view.controls) > 3
    for choice in sideways.choices(view):
        seen = replace(view, sideways=choice, kept={})
        figure = tradeoff.figure(seen)
        axis, (low, high) = figure["layout"]["xaxis"], sorted(figure["layout"]["xaxis"]["range"])
        shown = drawn_points(figure)
        for report in (*curve, *view.controls):
            place = sideways.place(seen, report)
            assert place is not None or choice in (Sideways.KNOB, Sideways.TIME)
            if place is None:
                continue
            assert (place, 100 * report.accuracy) in shown, (choice, report.method)
            assert low <= (math.log10(place) if axis["type"] == "log" else place) <= high, (choice, report.method)


@pytest.mark.parametrize("layers, first", [("conv2", Sideways.KNOB), ("fc1", Sideways.SIZE), ("-last", Sideways.SIZE)])
def test_the_curve_of_a_small_part_of_the_network_begins_over_the_knob(stored, layers, first):
    view = stored(ce.MagnitudePruning).view
    assert sideways.first_choice(replace(view, method=ce.TruncatedSVD(layers=layers), points=[], kept={})) == first


def test_the_axes_hold_every_point(looked_at):
    explorer = looked_at(ce.FilterPruning(sparsity=0.9))
    shown = shown_figures(explorer)["tradeoff"]["layout"]
    low, high = sorted(10**end for end in shown["xaxis"]["range"])
    for report in reports_shown(explorer.view):
        assert low <= report.file_bytes <= high and shown["yaxis"]["range"][0] <= 100 * report.accuracy <= 101


@pytest.mark.parametrize("cls", [ce.MagnitudePruning, ce.LinearQuantization], ids=lambda cls: cls.__name__)
def test_the_axis_of_sizes_runs_backward_exactly_where_more_of_the_knob_is_smaller(stored, cls):
    view = replace(stored(cls).view, sideways=Sideways.SIZE, kept={})
    knob = main_knob(cls)
    ordered = sorted(along(view.points, view.method), key=lambda one: getattr(method_of(one.method), knob))
    smaller = ordered[-1].file_bytes < ordered[0].file_bytes
    assert smaller == (cls is ce.MagnitudePruning)
    left, right = tradeoff.figure(view)["layout"]["xaxis"]["range"]
    assert (left > right) == smaller
    assert ("smaller to the right" in sideways.title(view)) == smaller


def test_without_points_the_axis_of_sizes_runs_forward(looked_at):
    view = replace(looked_at(ce.FilterPruning(sparsity=0.9)).view, points=(), kept={})
    left, right = tradeoff.figure(view)["layout"]["xaxis"]["range"]
    assert left < right and "to the right" not in sideways.title(view)


def test_the_axis_is_chosen_on_the_page_and_an_unknown_one_is_refused(made, measured):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    report = measured(explorer)
    places = {"size of the file": report.file_bytes, "the main knob": 0.5, "multiply-accumulates": report.macs,
              "time of a batch, measured here": report.latency.latency_ms}  # fmt: skip
    assert list(explorer.widget.parts["sideways"]) == list(places)
    for name, place in places.items():
        say(explorer, "sideways", name=name)
        assert trace(explorer, "now")["x"] == [place] and explorer.widget.shown["sideways"] == name
    with pytest.raises(ValueError, match="price"):
        say(explorer, "sideways", name="price")
    assert explorer.widget.shown["sideways"] == name


def test_what_is_no_fraction_is_left_off_the_axis_of_fractions_in_words(made, measured):
    explorer = made(ce.TruncatedSVD(rank=0.1, layers="fc1"))
    measured(explorer)
    say(explorer, "sideways", name="the main knob")
    ends = shown_figures(explorer)["tradeoff"]["layout"]["xaxis"]["range"]
    for rank, why in ((25, "rank 25 is not a fraction"), ({"fc1": 0.2}, "rank is given by layer")):
        explorer.set(rank=rank).settle(60)
        assert explorer.state == State.FINAL
        assert trace(explorer, "now")["x"] == [] and trace(explorer, "trail")["x"] == [0.1]
        assert shown_figures(explorer)["tradeoff"]["layout"]["xaxis"]["range"] == ends
        assert f"now: {why}, so not on this axis" in [name for *_, name in explorer.widget.shown["legend"]]
        assert explorer.widget.shown["knobs"]["rank"]["place"] is None
    say(explorer, "sideways", name="size of the file")
    assert trace(explorer, "now")["x"] == [explorer.report.file_bytes] and len(trace(explorer, "trail")["x"]) == 3
    assert "now" in [name for *_, name in explorer.widget.shown["legend"]]


@pytest.mark.parametrize(("method", "value"), [
    (ce.FilterPruning(sparsity=0.5), 0.95), (ce.LinearQuantization(bits=4), 12),
    (ce.TruncatedSVD(rank=0.1, layers="fc1", allow_larger=True), 0.9), (ce.SoftTargetDistillation(), 30.0),
], ids=lambda value: type(value).__name__)  # fmt: skip
def test_the_axis_of_the_knob_reaches_a_value_beyond_the_slider(looked_at, method, value):
    explorer = looked_at(ce.MagnitudePruning(sparsity=0.5))
    cls, knob = type(method), main_knob(method)
    beyond = replace(explorer.report, method=repr(replace(method, **{knob: value})))
    inside = replace(explorer.view, method=method, sideways=Sideways.KNOB, report=None, seen={}, points=(), kept={})
    seen = replace(inside, report=beyond, kept={})
    before, after = (tradeoff.figure(view)["layout"]["xaxis"] for view in (inside, seen))
    place = math.log10(value) if after["type"] == "log" else value
    assert before["range"][1] < place < after["range"][1] and after["range"][0] <= before["range"][0], cls


def test_curves_are_told_apart_where_a_value_does_not_go_with_their_other_knobs(looked_at):
    """One budget for all layers takes no whole number as rank, but it is known that its curve is another one."""
    of = looked_at(ce.MagnitudePruning(sparsity=0.5)).report
    whole, same = ce.TruncatedSVD(rank=25), ce.TruncatedSVD(rank=0.3)
    shared = [ce.TruncatedSVD(rank=rank, budget="singular values") for rank in (0.1, 0.2)]
    points = [replace(of, method=repr(method)) for method in (*shared, same, whole)]
    assert on_one_curve(whole, same) and not on_one_curve(whole, shared[0]) and not on_one_curve(shared[0], whole)
    assert [report.method for report in on_curve_of(whole, points)] == [repr(same), repr(whole)]
    assert [report.method for report in along(points, whole)] == [repr(same), repr(whole)]
    assert [report.method for report in along(points, shared[0])] == list(map(repr, shared))


def test_zero_is_left_off_a_logarithmic_axis_in_words(looked_at):
    explorer = looked_at(ce.MagnitudePruning(sparsity=0.5))
    method = ce.HardConcretePruning(strength=0)
    report = replace(explorer.report, method=repr(method))
    view = replace(
        explorer.view, method=method, report=report, points=(), random_baseline=(), sideways=Sideways.KNOB, kept={}
    )
    view.seen = {}
    assert sideways.place(view, report) is None
    assert "now: strength 0 is not on this logarithmic axis" in [name for *_, name in tradeoff.legend(view)]


def test_the_curve_before_another_knob_moved_stays(made, measured):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    measured(explorer)
    for sparsity in (0.6, 0.7):
        explorer.set(sparsity=sparsity).settle(60)
    uniform = trace(explorer, "trail")
    assert len(uniform["x"]) == 3 and trace(explorer, "earlier")["x"] == []
    explorer.set(budget="global").settle(60)
    assert explorer.view.earlier == ce.MagnitudePruning(sparsity=0.7)
    assert [trace(explorer, "earlier")[axis] for axis in "xy"] == [uniform[axis] for axis in "xy"]
    assert trace(explorer, "trail")["x"] == [explorer.report.file_bytes]
    assert "before the last change" in [name for *_, name in explorer.widget.shown["legend"]]
    explorer.set(sparsity=0.8).settle(60)
    assert explorer.view.earlier.budget == "uniform" and len(trace(explorer, "trail")["x"]) == 2


def test_the_legend_names_what_is_drawn_and_nothing_else(stored):
    explorer = stored(ce.SoftTargetDistillation)
    view = explorer.view
    named = {name for *_, name in tradeoff.legend(view)}
    drawn = {one["name"] for one in tradeoff.traces(view) if one["x"]}
    assert named == drawn | ({"now"} & named) and "student alone" in named and "as measured" not in named


def test_the_dense_network_is_a_line_over_the_knob_and_a_point_elsewhere(looked_at):
    view = looked_at(ce.MagnitudePruning(sparsity=0.5)).view
    for choice in sideways.choices(view):
        seen = replace(view, sideways=choice)
        dense = next(one for one in tradeoff.traces(seen) if one["meta"] == "dense")
        assert set(dense["y"]) == {100 * view.baseline.accuracy}
        assert (len(dense["x"]) == 2) == (choice == Sideways.KNOB)


def test_the_time_of_a_stored_point_is_never_drawn(stored):
    view = replace(stored(ce.LinearQuantization).view, sideways=Sideways.TIME)
    here = {one.method for one in view.seen.values()}
    assert len(here) == 1 and all(sideways.place(view, one) is None for one in view.points if one.method not in here)
    assert len(drawn_points(tradeoff.figure(view))) == 2  # the dense network and what was measured here


def test_points_of_a_training_carry_their_intervals(stored):
    view = stored(ce.SoftTargetDistillation).view
    assert view.method.needs == "training"
    made = next(one for one in tradeoff.traces(view) if one["meta"] == "stored")
    assert made["mode"] == "markers" and len(made["x"]) > 1
    by_accuracy = {100 * one.accuracy: one.accuracy_interval for one in view.points}
    for y, above, below in zip(made["y"], made["error_y"]["array"], made["error_y"]["arrayminus"], strict=True):
        assert (y - below, y + above) == pytest.approx(tuple(100 * end for end in by_accuracy[y]))


def test_a_class_of_a_training_method_opens_on_its_stored_setting(stored):
    explorer = stored(ce.SoftTargetDistillation)
    known = {one.method for one in explorer.view.points}
    assert repr(explorer.method) in known and repr(ce.SoftTargetDistillation()) not in known
    assert explorer.view.report is not None and explorer.view.report.method == repr(explorer.method)
    assert explorer.state == State.PREVIEW and explorer.widget.shown["badge"] == "STORED, not run"
    assert explorer.reset().view.report.method == repr(explorer.method)


def test_a_training_method_that_is_given_with_values_opens_on_them():
    given = ce.SoftTargetDistillation(temperature=3.0, epochs=1)
    explorer = explore(given, *ce.load("lenet5", "digits"))
    try:
        assert explorer.method == given
    finally:
        explorer.close()
