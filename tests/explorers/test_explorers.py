"""Explorers without a browser: the worker, the controls, the figures as plain data, the words, the page, the whole."""

import html
import json
import re
import subprocess
import sys
import threading
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import compedu as ce
from compedu.course import LabBook
from compedu.errors import Cancelled
from compedu.explorers import Explorer, curves, explore, matrices, noise_dots, session
from compedu.explorers.figures.colors import ROLES
from compedu.explorers.figures.figure import layout, moving, traces
from compedu.explorers.figures.gauges import captions
from compedu.explorers.figures.pictures import pictures_of
from compedu.explorers.figures.pictures.distillation import confusions, temperature
from compedu.explorers.figures.pictures.low_rank import rebuilt_filters
from compedu.explorers.figures.pictures.picture import labels, layer_names
from compedu.explorers.figures.pictures.pruning import pruned_filters
from compedu.explorers.figures.pictures.quantization import quantized_inputs
from compedu.explorers.figures.pictures.structural_matrix import product_times
from compedu.explorers.figures.places import KNOBS
from compedu.explorers.figures.tradeoff import reports_shown
from compedu.explorers.panel.badge import badge
from compedu.explorers.panel.controls import as_text, controls_of
from compedu.explorers.panel.predict import asked_methods, checked
from compedu.explorers.panel.tables import html_table, layers_table
from compedu.explorers.runner import Runner
from compedu.explorers.words import bytes_text, points_text, times_text
from compedu.forms import weight_of
from compedu.knobs import knob, knobs, method
from compedu.methods import METHODS, TrainingMethod
from compedu.methods.distillation.soft_targets import soft_loss
from compedu.methods.layer_method import LayerMethod
from compedu.metrics import Latency
from compedu.sweeps import method_of
from compedu.testing.trying import quick
from compedu.training import Step


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


@pytest.fixture(scope="module", params=METHODS, ids=lambda cls: cls.__name__)
def seen(request, fitting):
    """The explorer of a method, measured once for all tests that look at it and leave it as it is."""
    explorer = explore(quick(request.param), *fitting(request.param))
    measured(explorer)
    before = standing(explorer)
    yield explorer
    assert standing(explorer) == before
    explorer.close()


@pytest.fixture(scope="module")
def looked_at(pair):
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


def before_and_after(explorer: Explorer):
    """The view as it was before anything was measured, and as it is now; what pictures need is in neither."""
    view = replace(explorer.view, kept={})
    return replace(view, state="PREVIEW", report=None, after=None, curve=[], race=[], kept={}), view


def measured(explorer: Explorer):
    """Measure an explorer's method, training it where it has to be."""
    if explorer.method.needs == "training":
        explorer.run()
    report = explorer.settle(300)
    assert explorer.state == "FINAL", explorer.view.message + explorer.view.details
    return report


# The worker


def waiting_work(started, go, done):
    """Work that begins, waits to be let go, and notes what it finished."""

    def work(request, stale):
        started.put(request)
        go.wait(30)
        if not stale():
            done.append(request)

    return work


def test_of_many_requests_only_the_newest_is_finished():
    import queue

    started, go, done = queue.Queue(), threading.Event(), []
    runner = Runner(waiting_work(started, go, done), lambda request, error: done.append(error))
    runner.request(0)
    started.get(timeout=30)
    for request in range(1, 100):
        runner.request(request)
        assert runner.pending <= 2
    go.set()
    assert runner.settle(30) and done == [99] and runner.pending == 0
    runner.close()


def test_what_is_cancelled_is_not_finished():
    import queue

    started, go, done = queue.Queue(), threading.Event(), []
    runner = Runner(waiting_work(started, go, done), lambda request, error: done.append(error))
    runner.request("cancelled")
    started.get(timeout=30)
    runner.cancel()
    go.set()
    assert runner.settle(30) and done == []
    runner.request("next")
    assert runner.settle(30) and done == ["next"]
    runner.close()


def test_settle_says_when_it_is_not_done_in_time():
    go = threading.Event()
    runner = Runner(lambda request, stale: go.wait(30), lambda request, error: None)
    runner.request(1)
    assert not runner.settle(0.05)
    go.set()
    assert runner.settle(30)
    runner.close()


def test_a_failure_is_told_and_the_worker_lives_on():
    told = []

    def work(request, stale):
        if request == "bad":
            raise RuntimeError("no such luck")
        told.append(request)

    runner = Runner(work, lambda request, error: told.append((request, str(error))))
    runner.request("bad")
    assert runner.settle(30)
    runner.request("good")
    assert runner.settle(30) and told == [("bad", "no such luck"), "good"]
    runner.close()


def test_nothing_runs_after_close():
    done = []
    runner = Runner(lambda request, stale: done.append(request), lambda request, error: None)
    runner.close()
    runner.request(1)
    assert runner.settle(5) and done == []


def test_a_program_that_ends_while_an_explorer_measures_ends_in_peace():
    """The lines of the README as a script: the worker is told to stop, and waited for."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    program = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1].replace('"glyphs"', '"digits"')
    assert "ce.explore(" in program
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "accuracy" in done.stdout


def test_in_synchronous_mode_a_request_is_done_when_it_returns(monkeypatch):
    monkeypatch.setenv("COMPEDU_SYNC", "1")
    threads = []
    runner = Runner(lambda request, stale: threads.append(threading.current_thread()), lambda request, error: None)
    runner.request(1)
    assert threads == [threading.main_thread()]


# The controls


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_every_knob_has_a_control_with_its_name_help_and_value(cls):
    for name, control in controls_of(cls(), lambda: None).items():
        declared = knobs(cls)[name]
        assert control.value == getattr(cls(), name)
        assert name.replace("_", " ") in control.label.value and declared.unit in control.label.value
        assert (control.slider is not None) == (declared.slider_range is not None and not declared.choices)


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_every_stop_of_every_slider_is_a_legal_value_inside_the_range_worth_showing(cls):
    for name, declared in knobs(cls).items():
        stops = declared.stops()
        assert stops == sorted(set(stops)) and all(declared.allows(stop) for stop in stops), name
        if stops:
            assert (stops[0], stops[-1]) == pytest.approx(declared.slider_range) and 2 < len(stops) < 130


def test_a_moved_slider_moves_its_field_and_tells_once():
    told = []
    control = controls_of(ce.MagnitudePruning(), lambda: told.append(1))["sparsity"]
    control.slider.value = control.places.index(0.25)
    assert (control.value, control.field.value, told) == (0.25, "0.25", [1])


def test_a_field_takes_values_beyond_the_range_that_the_slider_shows():
    control = controls_of(ce.MagnitudePruning(), lambda: None)["sparsity"]
    control.field.value = "0.9995"
    assert control.value == 0.9995 and control.slider.value == control.slider.max


def test_a_value_between_two_stops_is_not_rounded_to_a_stop():
    control = controls_of(ce.SoftTargetDistillation(temperature=3.33), lambda: None)["temperature"]
    assert control.value == 3.33 and control.field.value == 3.33


def test_a_student_that_is_a_method_is_shown_as_text_and_replaced_by_words():
    student = ce.MagnitudePruning(sparsity=0.9)
    control = controls_of(ce.SoftTargetDistillation(student=student), lambda: None)["student"]
    assert control.value == student and control.field.value == "MagnitudePruning(sparsity=0.9)"
    control.field.value = "lenet5(width=0.2)"
    assert control.value == "lenet5(width=0.2)"


def test_a_field_reads_values_per_layer_and_ranks():
    sparsity = controls_of(ce.MagnitudePruning(), lambda: None)["sparsity"]
    sparsity.field.value = "conv*=0.3,*=0.9"
    assert sparsity.value == {"conv*": 0.3, "*": 0.9} and as_text(sparsity.value) == "conv*=0.3,*=0.9"
    rank = controls_of(ce.TruncatedSVD(), lambda: None)["rank"]
    rank.field.value = "12"
    assert rank.value == 12 and type(rank.value) is int


def test_a_text_that_is_no_value_is_refused_by_name():
    control = controls_of(ce.MagnitudePruning(), lambda: None)["sparsity"]
    control.field.value = "much"
    with pytest.raises(ValueError, match="sparsity must be .*'much'.*fraction"):
        _ = control.value


# Figures, words and tables


def test_the_figures_shown_are_those_that_the_library_computes(seen, fitting):
    explorer, report, (model, data) = seen, seen.report, fitting(type(seen.method))
    assert method_of(repr(explorer.method)) == explorer.method
    again = ce.measure(method_of(repr(explorer.method))(model, data), data, baseline=model, speed=False)
    counts = (again.correct, again.file_bytes, again.entropy_coded_bytes, again.size_by_role, again.change)
    assert (report.correct, report.file_bytes, report.entropy_coded_bytes, report.size_by_role, report.change) == counts
    shown = explorer._screen.figure.widget
    said = " ".join(shown.data[0].text + shown.data[1].text)
    for figure in (f"{100 * again.accuracy:.1f} %", f"{again.correct} of {again.total};", bytes_text(again.file_bytes)):
        assert figure in said
    bars = [trace for trace in shown.data if trace.xaxis == "x2" and trace.type == "bar"][1:]
    assert {role: int(bar.x[0]) for role, bar in zip(ROLES, bars, strict=True) if bar.x[0]} == again.size_by_role
    live = next(trace for trace in shown.data if trace.name == "now")
    assert (live.x[0], live.y[0]) == (again.file_bytes, pytest.approx(100 * again.accuracy))


def test_traces_keep_their_number_and_kinds_whatever_is_shown(seen):
    empty, view = before_and_after(seen)
    for picture in pictures_of(type(seen.method)):
        before = picture.table(view)
        if picture.prepare is not None:
            picture.prepare(view, lambda: False)
        for layer in layer_names(view):
            kinds = [[(t["type"], t["xaxis"]) for t in traces(v, picture, layer)] for v in (empty, view)]
            assert kinds[0] == kinds[1]
            assert any(word in picture.say(view, layer) for word in (layer, "teacher", "circulant", "FFT"))
        for head, rows in (before, picture.table(view)):
            assert rows and all(len(row) == len(head) for row in rows)


def test_numbers_in_words_carry_units():
    assert [bytes_text(n) for n in (812, 41_234, 999_960, 1_204_000)] == ["812 B", "41.2 kB", "1.00 MB", "1.20 MB"]
    assert points_text(-0.106) == "\N{MINUS SIGN}10.6 points" and points_text(0.006) == "+0.6 points"
    assert times_text(14.53) == "14.5 times smaller than" and times_text(0.5) == "2.0 times larger than"
    assert times_text(1.03) == "3 % smaller than" and times_text(0.97) == "3 % larger than"
    assert times_text(1) == "as large as"


def test_the_speed_of_a_stored_point_is_never_shown(looked_at):
    explorer = looked_at(ce.MagnitudePruning(sparsity=0.5))
    report = explorer.report
    assert report.latency is not None
    preview = replace(explorer.view, state="PREVIEW")
    assert captions(preview)[2] == ("…", "not measured here yet")
    said = captions(explorer.view)[2]
    assert said[0].startswith(("faster", "slower", "not", "withheld")) or said[0].split("× ")[1] in ("faster", "slower")
    assert said[1].startswith(f"{report.latency.speed_up:.2f}×")
    assert [len(t["x"]) for t in moving(preview) if t["xaxis"] == "x3"] == [0, 0]


def test_the_axes_hold_every_point(looked_at):
    explorer = looked_at(ce.FilterPruning(sparsity=0.9))
    shown = explorer._screen.figure.widget.layout
    low, high = (10**end for end in shown.xaxis5.range)
    for report in reports_shown(explorer.view):
        assert low <= report.file_bytes <= high and shown.yaxis5.range[0] <= 100 * report.accuracy <= 101


def test_the_filters_drawn_as_gone_are_those_that_are_gone(looked_at, pair):
    explorer = looked_at(ce.FilterPruning(sparsity=0.6))
    view = explorer.view
    for layer in ("conv1", "conv2", "fc1"):
        dense, small = (weight_of(part).detach() for part in view.layer_pair(layer))
        left = np.setdiff1d(np.arange(len(dense)), pruned_filters.gone(view, layer))
        assert len(left) == len(small) < len(dense)
        inputs = pruned_filters.gone(view, {"conv2": "conv1"}.get(layer)) if layer == "conv2" else []
        kept = np.setdiff1d(np.arange(dense.shape[1]), inputs)
        if layer != "fc1":
            assert torch.equal(dense[left][:, kept], small)
    bright, faint = (np.array(t["z"], dtype=float) for t in pictures_of(ce.FilterPruning)[0].main(view, "conv1")[:2])
    assert np.isfinite(faint).sum() == 25 * len(pruned_filters.gone(view, "conv1"))
    assert not (np.isfinite(bright) & np.isfinite(faint)).any()


def test_what_is_left_of_each_layer_stands_in_numbers_above_its_bar(looked_at):
    view = looked_at(ce.FilterPruning(sparsity=0.6)).view
    (weights, *_), (filters, *_) = (pictures_of(cls) for cls in (ce.MagnitudePruning, ce.FilterPruning))
    shares = [float(row[3].removesuffix(" %")) for row in weights.table(view)[1]]
    assert weights.below(view, "conv1")[2]["text"] == ["all" if share > 99.5 else f"{share:.0f}" for share in shares]
    assert filters.below(view, "conv1")[0]["text"] == [str(row[1]) for row in filters.table(view)[1]]
    assert labels([1.0] * 10, most=9)["text"] == [""] * 10


def sizes_of(node) -> list:
    """All font sizes in a figure."""
    if isinstance(node, dict):
        fonts = [value["size"] for key, value in node.items() if key.endswith("font") and "size" in value]
        return fonts + [size for value in node.values() for size in sizes_of(value)]
    return [size for value in node for size in sizes_of(value)] if isinstance(node, (list, tuple)) else []


def test_no_text_of_a_figure_is_smaller_than_12_pixels(seen):
    for view, picture in product(before_and_after(seen), pictures_of(type(seen.method))):
        found = sizes_of([layout(view, picture), *traces(view, picture, layer_names(view)[0])])
        assert found and min(found) >= 12


def test_a_table_keeps_figure_and_unit_together_and_long_lists_short(looked_at):
    explorer = looked_at(ce.FilterPruning(sparsity=0.6))
    removed = {row[0]: row[-1] for row in pictures_of(ce.FilterPruning)[0].table(explorer.view)[1]}
    numbers, more = removed["fc1"].split(" and ")
    assert more == f"{len(pruned_filters.gone(explorer.view, 'fc1')) - 10} more" and numbers.count(",") == 9
    assert "40.0&nbsp;%" in html_table(("share",), [("40.0 %",)], "")


def test_products_that_no_formula_counts_stand_below_the_macs_in_the_words_of_the_report(looked_at):
    explorer = looked_at(ce.TruncatedSVD())
    report = explorer.view.report
    assert report.layers and "not counted" not in layers_table(report)
    report = replace(report, uncounted=("_trilinear in a<b>", "_fft_r2c in the network itself"))
    said = "not counted: _trilinear in a<b>, _fft_r2c in the network itself"
    assert f">{html.escape(said)}</p>" in layers_table(report)
    assert " ".join(said.replace(":", "").split()) in " ".join(str(report).split())


def test_figures_that_stand_alone_show_no_buttons(monkeypatch):
    shown = []
    monkeypatch.setattr("plotly.io.show", lambda figure, **options: shown.append(options["config"]))
    figures = [
        curves([0, 1], {"a": [1, 2]}, "x", "y"), matrices(a=torch.eye(2)),
        noise_dots(torch.ones(9) > 0, (3,), repeats=2),
    ]  # fmt: skip
    for figure in figures:
        figure.show()
        assert min(sizes_of(figure.to_dict())) >= 12
    assert shown == [{"displayModeBar": False}] * 3


def test_the_layout_has_room_on_a_small_screen(made):
    explorer = made(ce.MagnitudePruning)
    shown = layout(explorer.view, pictures_of(ce.MagnitudePruning)[0])
    assert KNOBS + shown["width"] <= 848 and shown["height"] <= 400  # what JupyterLab leaves of 1280 pixels


# The explorer as a whole


def test_a_move_is_previewed_from_points_measured_before_then_measured(made):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    measured(explorer)
    states = []
    told = explorer._session._changed
    explorer._session._changed = lambda news: (told(news), states.append((explorer.state, explorer.view.report)))
    explorer.set(sparsity=0.52)
    assert explorer.settle(60).method == "MagnitudePruning(sparsity=0.52)"
    assert next(state for state, _ in states) == "PREVIEW" and states[0][1].method == "MagnitudePruning(sparsity=0.5)"
    assert [state for state, _ in states][-1] == "FINAL" and "MEASURING" in [state for state, _ in states]


def test_a_point_far_along_the_knob_is_not_shown_for_another(made):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    measured(explorer)
    previews = []
    told = explorer._session._changed
    explorer._session._changed = lambda news: (
        told(news), previews.append((badge(explorer.view)[0], captions(explorer.view)[0], explorer.view.report))
    )  # fmt: skip
    explorer.set(sparsity=0.9).settle(60)
    assert previews[0] == ("NOT MEASURED", ("…", "not measured yet"), None)
    previews.clear()
    explorer.set(sparsity=0.89).settle(60)
    assert previews[0][0] == "PREVIEW, nearby" and "nearest point" in previews[0][1][1]
    previews.clear()
    explorer.set(sparsity=0.89, budget="global").settle(60)  # as near along the slider, but another curve
    assert previews[0][2] is None


def test_before_a_run_badge_and_caption_say_that_the_picture_is_the_dense_network(made):
    explorer = made(ce.GradualPruning(sparsity=0.9, epochs=1))
    view, picture = explorer.view, explorer._screen.picture
    assert badge(view)[0] == "NOT RUN" and ">NOT RUN<" in explorer._screen.state.value
    for shown in pictures_of(ce.GradualPruning) + pictures_of(ce.FilterPruning) + pictures_of(ce.CReLU):
        assert shown.say(view, "conv1") == "conv1 of the dense network, none compressed yet"
    stored = replace(view.baseline, method=repr(view.method))
    assert badge(replace(view, report=stored))[0] == "STORED, not run"
    near = replace(view.baseline, method="GradualPruning(sparsity=0.91, epochs=1)")
    for state, word in (("PREVIEW", "PREVIEW, nearby"), ("RUNNING", "RUNNING"), ("CANCELLED", "CANCELLED")):
        seen = replace(view, report=near, state=state)
        assert badge(seen)[0] == word and captions(seen)[0][0].startswith("≈")
    measured(explorer)
    assert "weights left" in picture.say(view, "conv1")


def test_a_step_that_ends_after_the_cancel_does_not_say_running_again(made, pair):
    explorer = made(ce.FineTune(epochs=1))
    explorer.cancel()
    stale = iter([False, True])  # cancelled while the step was being shown
    with pytest.raises(Cancelled):
        explorer._session._on_step(Step(1, 2, 0.5, pair[0]), lambda: next(stale))
    assert explorer.state == "CANCELLED" and explorer.view.curve == []


def test_the_knob_of_images_is_in_front_only_where_images_matter(made):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    screen, images = explorer._screen, explorer._controls["calibration_images"].widget
    assert images in screen._rest.children and images not in screen._front.children
    explorer.set(budget="sensitivity", calibration_images=16).settle(60)
    assert images in screen._front.children and images not in screen._rest.children
    assert len(screen._front.children) + len(screen._rest.children) == len(explorer._controls)


def test_an_illegal_value_is_shown_and_the_next_move_goes_on(made):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    measured(explorer)
    explorer._controls["sparsity"].field.value = "1.5"
    assert explorer.state == "ERROR"
    assert re.search(
        r"MagnitudePruning.sparsity must be a number from 0 to below 1.*got 1.5", explorer._screen.message.value
    )
    explorer._controls["sparsity"].field.value = "0.6"
    assert measured(explorer).method == "MagnitudePruning(sparsity=0.6)" and explorer._screen.message.value == ""


def test_an_exception_inside_a_method_is_shown_with_class_message_and_traceback(made):
    explorer = made(Breaking(share=0.5))
    assert explorer.settle(60) is None and explorer.state == "ERROR"
    shown = explorer._screen.message.value
    assert "ZeroDivisionError: broken &lt;on purpose&gt;" in shown and "Traceback" in shown and "<details>" in shown


def test_set_refuses_what_the_method_refuses_and_unknown_knobs(made):
    explorer = made(ce.MagnitudePruning)
    with pytest.raises(ValueError, match="no knob 'bits'; it has: sparsity, budget, calibration_images, layers"):
        explorer.set(bits=3)
    with pytest.raises(ValueError, match="sparsity must be"):
        explorer.set(sparsity=2.0)


def test_the_code_line_moves_the_knobs(made):
    explorer = made(ce.TruncatedSVD)
    explorer._screen.code.value = "TruncatedSVD(rank={'fc1': 0.1, 'conv2': 0.3}, layers='fc1 conv2')"
    assert explorer.method == ce.TruncatedSVD(rank={"fc1": 0.1, "conv2": 0.3}, layers="fc1 conv2")
    assert explorer._controls["rank"].field.value == "fc1=0.1,conv2=0.3"
    explorer._screen.code.value = "TruncatedSVD(rank=7, bits=1)"
    assert explorer.state == "ERROR" and "no knob" in explorer.view.message


def test_a_cancelled_training_leaves_the_network_and_says_so(made, pair):
    before = {name: value.clone() for name, value in pair[0].state_dict().items()}
    explorer = made(ce.SoftTargetDistillation(epochs=1000))
    running = threading.Event()
    told = explorer._session._changed
    explorer._session._changed = lambda news: (told(news), len(explorer.view.curve) > 1 and running.set())
    explorer.run()
    assert running.wait(120) and explorer.state == "RUNNING" and not explorer._screen.buttons["Cancel"].disabled
    assert explorer._screen.progress.max > explorer._screen.progress.value > 0
    explorer.cancel()
    explorer.settle(60)
    assert explorer.state == "CANCELLED" and "untouched" in explorer._screen.message.value
    assert all(torch.equal(before[name], value) for name, value in pair[0].state_dict().items())


def test_the_loss_is_drawn_while_a_method_trains(made):
    explorer = made(ce.FineTune(epochs=3))
    measured(explorer)
    curve = next(t for t in explorer._screen.figure.widget.data if t.name == "loss")
    assert len(curve.y) == len(explorer.view.curve) == 6
    assert curve.y[-1] == pytest.approx(explorer.view.curve[-1], rel=1e-5)
    race = next(t for t in explorer._screen.figure.widget.data if t.name == "accuracy, %")
    view = explorer.view
    x, y = (part[: session.WATCHED] for part in view.data.split(view.split))
    reached = (view.after(x).argmax(1) == y).float().mean().item()
    assert race.x[-1] == 6 and race.y[-1] == pytest.approx(100 * reached)  # the last step is the network that is shown
    explorer.run().settle(300)
    assert view.before_it[0] == pytest.approx(view.curve) and view.before_it[1][-1] == view.race[-1]


def test_the_run_button_follows_what_the_knobs_need(made):
    explorer = made(ce.CReLU(epochs=1))
    assert explorer.state == "PREVIEW" and explorer._screen._training.layout.display is None
    explorer.set(epochs=0)
    assert explorer.settle(60) is not None and explorer.state == "FINAL"
    assert explorer._screen._training.layout.display == "none"


def test_pins_reset_and_csv(made):
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    for sparsity in (0.5, 0.6, 0.7, 0.9):
        explorer.set(sparsity=sparsity).settle(60)
        explorer.pin()
    assert [report.method[-4:-1] for report in explorer.pins] == ["0.6", "0.7", "0.9"]
    lines = explorer.csv.splitlines()
    assert lines[0].startswith("method,model,data,split,correct") and len(lines) == 5
    assert explorer.looks == 4 and "looks: 4" in explorer._screen.about.value
    assert explorer.reset().settle(60).method == "MagnitudePruning(sparsity=0.5)" and explorer.pins == ()


def test_two_hundred_random_moves_leave_no_error_no_queue_and_the_last_position(made):
    explorer = made(ce.MagnitudePruning)
    control = explorer._controls["sparsity"]
    moves = torch.randint(len(control.places), (200,), generator=torch.Generator().manual_seed(3)).tolist()
    threads = threading.active_count()
    for place in moves:
        control.slider.value = place
        assert explorer._session.runner.pending <= 2 and explorer.state != "ERROR"
    report = explorer.settle(120)
    assert method_of(report.method).sparsity == control.places[moves[-1]] and explorer.state == "FINAL"
    assert threading.active_count() <= threads and explorer._session.runner.pending == 0
    assert all(seen.newly_wrong is None for seen in explorer._session.seen.values())


def test_the_state_that_a_page_asks_for_again_is_that_of_now(looked_at):
    explorer = looked_at(ce.MagnitudePruning(sparsity=0.9))
    drawing = explorer._screen.figure.widget
    state = drawing.get_state()
    assert state["_widget_data"][0]["text"] == list(drawing.data[0].text)
    assert state["_widget_data"][0]["text"][0].startswith(f"{100 * explorer.report.accuracy:.1f} %")


def test_a_message_to_the_page_leaves_no_gap(made):
    explorer = made(ce.MagnitudePruning(sparsity=0.9))
    measured(explorer)
    sent = []
    drawing = explorer._screen.figure.widget
    drawing._send_update_msg = lambda style, axes, traces: sent.append((style, traces))
    explorer._screen.figure.refresh()
    ((style, indices),) = sent
    assert indices and all(len(values) == len(indices) for values in style.values())
    assert all(
        value is None or isinstance(value, (list, dict, str, float, int, bool, np.ndarray))
        for v in style.values()
        for value in v
    )


def test_no_drawing_is_lost_while_the_page_answers(made, monkeypatch):
    """What a page says comes in on another thread than what a measurement draws."""
    explorer = made(ce.MagnitudePruning(sparsity=0.9))
    measured(explorer)
    drawing = explorer._screen.figure.widget
    said = {"_js2py_traceDeltas": {"trace_deltas": [{"uid": str(i), "x": [0.0] * 50} for i in range(50)]}}
    drawn, sent, asked, done = [], [], 200, threading.Event()
    monkeypatch.setattr(drawing, "_send", lambda message, **buffers: sent.append(message["state"]))
    answers = threading.Thread(target=lambda: [drawing.set_state(said) for _ in iter(done.is_set, True)])
    answers.start()
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-6)
        for i in range(asked):
            drawing.draw({0: {"x": [i]}}, {})
            drawn.append([i])
    finally:
        sys.setswitchinterval(before)
        done.set()
        answers.join()
    updates = [state["_py2js_update"] for state in sent if state.get("_py2js_update")]
    assert [update["style_data"]["x"][0] for update in updates] == drawn


# Predict before you see


def test_nothing_is_told_before_a_prediction_is_committed(made):
    explorer = made(ce.MagnitudePruning, predict=True)
    assert explorer.settle(60) is None and explorer.report is None and explorer.hidden
    assert explorer._screen.right.layout.display == "none"
    assert "hidden until a prediction" in explorer._repr_mimebundle_()["text/html"]


def test_a_committed_prediction_is_drawn_with_what_is_measured(made):
    explorer = made(ce.MagnitudePruning, predict=True)
    said = [0.9, 0.8, 0.7, 0.6, 0.5]
    assert explorer.commit(said).settle(120) is not None and not explorer.hidden
    asked = asked_methods(ce.MagnitudePruning(), True, ())
    assert [report.method for report in explorer.view.asked] == [repr(one) for one in asked]
    drawn = {t.name: t for t in explorer._screen.figure.widget.data if t.name in ("your prediction", "as measured")}
    assert sorted(drawn["your prediction"].y) == pytest.approx([50, 60, 70, 80, 90])
    assert (
        sorted(drawn["as measured"].x)
        == sorted(drawn["your prediction"].x)
        == sorted(r.file_bytes for r in explorer.view.asked)
    )
    assert "Largest surprise" in explorer._screen.message.value
    explorer.commit([0.1] * 5)
    assert explorer.view.predicted == tuple(said)


def test_the_questions_on_the_screen_take_numbers_only(made):
    explorer = made(ce.LinearQuantization, predict="bits")
    questions = explorer._screen.questions.children[0]
    fields = [row.children[1] for row in questions.children[1:-2]]
    button, problem = questions.children[-2:]
    for field, text in zip(fields, ("10", "20,5", "", "40 %", "150"), strict=True):
        field.value = text
    button.click()
    assert explorer.hidden and "answer 3, 5" in problem.value
    fields[2].value, fields[4].value = "30", "50"
    button.click()
    assert explorer.view.predicted == pytest.approx((0.1, 0.205, 0.3, 0.4, 0.5))


def test_the_book_keeps_prediction_and_measurement_and_the_first_stands(made, tmp_path):
    book = LabBook(tmp_path / "book.json")
    first = made(ce.MagnitudePruning, predict=True, book=book)
    first.commit([0.9] * 5).settle(120)
    kinds = [entry["kind"] for entry in book.entries]
    assert kinds == ["prediction", "measurement"] and book.entries[1]["predicted"] == [0.9] * 5
    second = made(ce.MagnitudePruning, predict=True, book=book)
    assert not second.hidden and second.view.predicted == (0.9,) * 5


def test_a_prediction_that_cannot_be_asked_is_refused_by_name(made):
    with pytest.raises(ValueError, match="no such knob with a slider range; it has: sparsity"):
        made(ce.MagnitudePruning, predict="budget")
    with pytest.raises(ValueError, match="FineTune trains, and no points of it are stored"):
        made(ce.FineTune, predict=True)
    with pytest.raises(ValueError, match="5 accuracies are asked for, got 2"):
        checked([0.1, 0.2], 5)
    with pytest.raises(ValueError, match=r"prediction 1 must be an accuracy in \[0, 1\], got 90"):
        checked([90], 1)


# The page without a kernel


class Addresses(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href")]


def figure_of(page: str) -> tuple[list, dict, list]:
    """Return data, layout and frames of the Plotly figure in a page."""
    start = page.index("Plotly.newPlot(")
    decoder, place, parts = json.JSONDecoder(), page.index("[", page.index(",", start)), []
    for _ in range(2):
        part, place = decoder.raw_decode(page, place)
        parts.append(part)
        place = min(index for index in (page.find("{", place), page.find("[", place)) if index >= 0)
    frames = decoder.raw_decode(page, page.index("[", page.index("addFrames")))[0] if "addFrames" in page else []
    return *parts, frames


def test_the_page_moves_without_a_kernel_and_without_an_address(made, monkeypatch):
    monkeypatch.setenv("COMPEDU_SYNC", "1")
    explorer = made(ce.MagnitudePruning(sparsity=0.5))
    page = explorer._repr_mimebundle_()["text/html"]
    assert Addresses(page).found == [] and not re.search(r"https?://(?!www\.w3\.org|plot\.ly)", page)
    _, shape, frames = figure_of(page)
    steps = shape["sliders"][0]["steps"]
    assert len(steps) == len(frames) >= 9 and steps[shape["sliders"][0]["active"]]["label"] == "0.5"
    texts = {frame["data"][0]["text"][0] for frame in frames}
    assert len(texts) > 3 and repr(explorer.method) in page
    assert not any("≈" in text for text in texts), "each stop of the slider shows its own point"


def test_a_stored_page_holds_the_sweep_that_is_shipped():
    explorer = explore(ce.LinearQuantization, *ce.load("lenet5", "digits"))
    try:
        explorer.settle(120)
        assert len(explorer.view.points) == 8 and len(explorer.view.controls) >= 5
        _, shape, frames = figure_of(explorer._repr_mimebundle_()["text/html"])
        assert [step["label"] for step in shape["sliders"][0]["steps"]] == list("12345678") and len(frames) == 8
    finally:
        explorer.close()


# A method that nobody has heard of


@method
class Rounded(LayerMethod):
    """Round weights to a step: a method written in this test."""

    family: ClassVar[str] = "quantization"
    identity_settings: ClassVar = None
    step: float = knob(default=0.1, help="distance of two levels", low=0, high=1, open="low", slider_range=(0.05, 0.5))

    def compress_layer(self, name: str, layer: nn.Module) -> nn.Module:
        """Return the layer with rounded weights."""
        with torch.no_grad():
            layer.weight.copy_((layer.weight / self.step).round() * self.step)
        return layer


@method
class Breaking(LayerMethod):
    """Fail inside: a method written in this test."""

    family: ClassVar[str] = "pruning"
    share: float = knob(default=0.5, help="some share", low=0, high=1, slider_range=(0.0, 1.0))

    def compress_layer(self, name: str, layer: nn.Module) -> nn.Module:
        """Fail."""
        raise ZeroDivisionError("broken <on purpose>")


def test_a_new_method_has_an_explorer_at_once(made, pair):
    explorer = made(Rounded)
    report = measured(explorer)
    assert explorer._controls["step"].slider is not None and explorer._screen.code.value == "Rounded()"
    explorer._controls["step"].slider.value = explorer._controls["step"].slider.max
    later = measured(explorer)
    assert later.method == "Rounded(step=0.5)" and later.correct < report.correct
    assert later.correct == ce.measure(Rounded(step=0.5)(*pair), pair[1], speed=False).correct


def test_a_network_that_was_compressed_before_can_be_explored(pair):
    pruned = ce.MagnitudePruning(sparsity=0.5)(*pair)
    explorer = explore(ce.LinearQuantization(bits=4), pruned, pair[1])
    try:
        assert measured(explorer).method == "LinearQuantization(bits=4)"
    finally:
        explorer.close()


def test_methods_that_train_have_a_loss_curve_below_their_picture():
    for cls in METHODS:
        assert ("loss" in pictures_of(cls)[0].headings[1]) == issubclass(cls, TrainingMethod)


def test_all_that_a_figure_sends_is_json(seen):
    for view, picture in product(before_and_after(seen), pictures_of(type(seen.method))):
        for trace in picture.traces(view, layer_names(view)[0]):
            # arrays of one dimension travel as bytes; all others as lists, in which JSON has no NaN
            lists = {name: np.asarray(value).tolist() for name, value in trace.items() if np.ndim(value) != 1}
            assert json.dumps(lists, allow_nan=False)


# Several pictures


def test_every_picture_of_a_method_can_be_chosen_and_follows_the_knobs(seen):
    explorer = seen  # this test changes the picture that it shows
    for name, picture in explorer._screen.choice.options:
        explorer._screen.choice.value = picture
        explorer.settle(120)
        figure = explorer._screen.figure
        assert figure.widget in explorer._screen.right.children and picture.name == name
        shown = traces(explorer.view, picture, explorer._screen.layer.value)
        assert [trace.type for trace in figure.widget.data] == [trace["type"] for trace in shown]
        said = picture.caption(explorer.view, explorer._screen.layer.value)
        assert figure.widget.data[len(moving(explorer.view))].text == (said,)
        assert len(said) <= 54, "the caption reaches into the curve beside it"
        assert all(len(text) <= 58 for text in picture.headings)


def test_what_a_picture_needs_is_computed_by_the_worker_once(made):
    explorer = made(ce.BlockCirculantProjection)
    measured(explorer)
    matrix, time = (picture for _, picture in explorer._screen.choice.options)
    assert product_times.timed(explorer.view) == {}
    explorer._screen.choice.value = time
    explorer.settle(120)
    found = product_times.timed(explorer.view)
    assert tuple(found) == product_times.SIDES and all(one.rounds >= 9 and one.a_a_interval for one in found.values())
    explorer._screen.choice.value = matrix
    explorer._screen.choice.value = time
    explorer.settle(120)
    assert all(product_times.timed(explorer.view)[side] is one for side, one in found.items())
    assert explorer._screen.figure.widget.data[len(moving(explorer.view)) + 1].x == product_times.SIDES


def test_the_crossing_is_the_side_from_which_on_the_transform_stays_faster():
    def latency(speed_up: float, spread: float) -> Latency:
        around = (speed_up - spread, speed_up + spread)
        return Latency(1.0, (1.0, 1.0), 1, 1, 9, 1.0, speed_up, around, 1.0, (0.9, 1.1))

    found = {
        16: latency(0.2, 0.1), 32: latency(1.5, 0.1), 64: latency(1.1, 0.3), 128: latency(2.0, 0.2),
        256: latency(4.0, 0.2),
    }  # fmt: skip
    assert product_times.crossing(found) == 128
    assert product_times.crossing({16: latency(0.2, 0.1)}) is None


def test_the_gradient_that_is_drawn_is_that_of_the_soft_loss():
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(40, 7, generator=draw, dtype=torch.float64) for _ in range(2))
    for t in (0.7, 1.0, 5.0):
        logits = student.clone().requires_grad_()
        (len(logits) * soft_loss(logits, teacher, t)).backward()  # the loss is a mean over images
        assert temperature.gradient_norm(student, teacher, t) * t**2 == pytest.approx(
            logits.grad.norm(dim=1).mean().item()
        )
        said = torch.distributions.Categorical(logits=teacher / t).entropy().mean().item() / np.log(2)
        assert temperature.entropy(teacher, t) == pytest.approx(said)


def test_the_confusions_are_those_of_the_networks():
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [5.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    labels = torch.tensor([0, 0, 2, 2])
    wrong = confusions.mistakes(logits, labels, 3)
    assert wrong[0, 1] == 0.5 and wrong[2, 0] == 0.5 and wrong[0, 2] == 0 and np.isnan(np.diag(wrong)).all()
    soft = confusions.doubts(logits, labels, 3, 2.0)
    assert soft[0, 1] == pytest.approx(torch.softmax(logits[:2] / 2, 1)[:, 1].mean().item())


def test_the_inputs_drawn_are_those_that_the_layer_gets_and_rounds(looked_at, pair):
    explorer = looked_at(ce.LinearQuantization(bits=4, activation_bits=3, calibration_images=16))
    view = explorer.view
    x = pair[1].x_validation[: quantized_inputs.IMAGES]
    hidden = pair[0].pool1(pair[0].relu1(pair[0].conv1(x))).detach().numpy().reshape(-1)
    assert np.array_equal(quantized_inputs.inputs(view)["conv2"], hidden)
    act = view.after.conv2.act
    codes = act.codes(torch.from_numpy(hidden))
    beyond = ((torch.from_numpy(hidden) / act.scale + act.zero_point) > 7.5).float().mean().item()
    assert quantized_inputs.clipped_share(view, "conv2") == pytest.approx(beyond, abs=1e-4)
    counted = quantized_inputs.PICTURE.main(view, "conv2")[2]
    assert sum(counted["y"]) == hidden.size and len(counted["x"]) == len(codes.unique())


def test_the_rebuilt_filters_are_those_of_the_compressed_layer(looked_at):
    explorer = looked_at(ce.TruncatedSVD(rank=0.5))
    view = explorer.view
    (shown,) = rebuilt_filters.PICTURE.main(view, "conv1")
    page = np.array(shown["z"], dtype=float)
    assert np.allclose(page[:5, :5], weight_of(view.before.conv1)[0, 0].detach(), atol=1e-6)
    right = page.shape[1] - (4 * 6 - 1)
    assert np.allclose(page[:5, right : right + 5], weight_of(view.after.conv1)[0, 0].detach(), atol=1e-6)
    full, rank, even = rebuilt_filters.PICTURE.below(view, "conv1")
    assert all(r <= f for r, f in zip(rank["y"], full["y"], strict=True))
    assert all(r < e for r, e in list(zip(rank["y"], even["y"], strict=True))[:3])
