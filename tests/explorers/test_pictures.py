"""What the pictures of the explorers and of the chapters draw and say, as plain data without a browser."""

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from toys.least_squares_rounding import LeastSquaresRounding

import compedu as ce
from compedu.datasets.drawn import morphs
from compedu.explorers import file_bar, paired_grid, timing_dots, trade_off
from compedu.explorers.figures.colors import FAMILIES, ROLES
from compedu.explorers.figures.figure import drawn as figure_of
from compedu.explorers.figures.pictures import pictures_of
from compedu.explorers.figures.pictures.distillation import confusions, morph, one_image
from compedu.explorers.figures.pictures.picture import shares_axis, shares_left, short_count
from compedu.explorers.figures.pictures.quantization import (
    block_levels,
    quantized_inputs,
    quantized_weights,
    smoothed_channels,
)
from compedu.explorers.figures.plots import MAIN
from compedu.explorers.pages.comparison import dominated, family_of
from compedu.explorers.pages.labels import Box
from compedu.explorers.pages.paired import SIDE
from compedu.explorers.panel.strip import image_bytes
from compedu.explorers.view import View
from compedu.explorers.words import accuracy_lines, bytes_text, sentence
from compedu.forms.number_formats import FORMATS
from compedu.graph.copying import whole_copy
from compedu.methods import METHODS
from compedu.methods.quantization.shared.calibration import watch
from compedu.metrics import Change, Report, measure

ARMS = ("baseline", "baseline again", "candidate")


@pytest.fixture(scope="module")
def seen(pair):
    """A function that gives the view after a method, without an explorer around it."""
    model, data = pair
    baseline = measure(model, data, speed=False)

    def look(method, **changed) -> View:
        after = method(model, data)
        report = measure(after, data, baseline=model, speed=False)
        known = {"state": "FINAL", "report": report, "after": after} | changed
        return View(data, "validation", baseline, model, method, **known)

    return look


# Quantization


@pytest.mark.parametrize("bits", (1, 2, 4, 8))
@pytest.mark.parametrize("scales", ("channel", "tensor"))
def test_the_staircase_is_the_quantizer_of_the_layer_at_every_weight(seen, bits, scales):
    view = seen(ce.LinearQuantization(bits=bits, scales=scales, clipping="mse"))
    form = view.after.conv2
    _, stairs, _ = pictures_of(ce.LinearQuantization)[0].below(view, "conv2")
    assert stairs["mode"] == "lines" and len(stairs["x"]) == len(stairs["y"]) == 2 * form.levels
    # A corner is where the form itself changes its code: just below a threshold and just above it.
    for x, low, high in zip(stairs["x"][1:-1:2], stairs["y"][1:-1:2], stairs["y"][2::2], strict=True):
        assert low < high
        for beside, code in ((x - 1e-3, low), (x + 1e-3, high)):
            form.latent.data = torch.full_like(form.latent, float(beside)) * form.scale
            assert set(form.codes().unique().tolist()) == {int(code)}


def test_codes_that_were_not_rounded_to_the_nearest_are_dots_without_a_line(seen, tmp_path):
    view = seen(LeastSquaresRounding(bits=3))
    _, dots, _ = pictures_of(LeastSquaresRounding)[0].below(view, "conv2")
    assert dots["mode"] == "markers" and len(dots["x"]) == len(dots["y"]) > 250
    view = seen(ce.LinearQuantization(bits=3))
    ce.save(view.after, tmp_path / "small.compedu")
    read = replace(view, after=ce.files.load(tmp_path / "small.compedu"), kept={})
    for one in (view, read):  # a file has the rounded weights alone: they are compared with the dense network's
        assert pictures_of(ce.LinearQuantization)[0].below(one, "conv2")[1]["mode"] == "lines"


def test_weights_whose_codes_were_chosen_are_drawn_as_they_were_before(seen):
    """GPTQ leaves latent weights that lie on the grid; the picture shows the trained ones, and their error."""
    nearest, chosen = (seen(method(bits=3, calibration_images=16)) for method in (ce.LinearQuantization, ce.GPTQ))
    layer = chosen.after.get_submodule("conv2")
    assert torch.equal(layer.latent, layer.dense()), "the case that this is about"
    gray = [quantized_weights.main(view, "conv2")[0]["y"] for view in (nearest, chosen)]
    assert np.array_equal(*gray), "the histogram of the trained weights, in the same steps"
    errors = [quantized_weights.filter_errors(view, "conv2") for view in (nearest, chosen)]
    assert bool((errors[1] >= errors[0] - 1e-3).all()) and errors[1].sum() > errors[0].sum()
    assert quantized_weights.below(chosen, "conv2")[1]["mode"] == "markers"


def test_at_two_bits_picture_and_sentence_say_that_nearly_all_weights_become_zero(seen):
    view = seen(ce.LinearQuantization(bits=2))
    picture, codes = pictures_of(ce.LinearQuantization)[0], view.after.fc1.codes()
    share = (codes == 0).float().mean().item()
    assert share > 0.8 and f"{share:.1%}".replace("%", " % become 0") in picture.say(view, "fc1")
    weights, _, drawn = picture.main(view, "fc1")
    assert drawn["y"][list(drawn["x"]).index(0)] == (codes == 0).sum() and drawn["text"][1] == f"{100 * share:.0f} %"
    assert sum(weights["y"]) == sum(drawn["y"]) == codes.numel()
    inside = np.asarray(weights["y"])[np.abs(weights["x"]) < 0.5].sum()
    ties = np.count_nonzero(np.abs(quantized_weights.in_steps(view, "fc1")[0]) == 0.5)  # on the edge of two bins
    assert abs(inside - drawn["y"][1]) <= ties, "a bar is as high as the bins below it together"
    assert picture.axes["yaxis"].get("type") != "log"
    both = ce.MagnitudePruning(sparsity=0.5) | ce.LinearQuantization(bits=8)
    assert "% are 0" in picture.say(seen(both), "fc1"), "weights that were pruned do not become zero"


@pytest.mark.parametrize("name", FORMATS)
def test_the_steps_of_a_block_format_are_as_unequal_as_its_values_and_lie_where_the_form_has_them(seen, name):
    view = seen(ce.BlockFormats(format=name))
    (picture,) = pictures_of(ce.BlockFormats)
    form, values = view.after.conv2, np.array(FORMATS[name].values)
    _, stairs, errors = picture.below(view, "conv2")
    assert stairs["mode"] == "lines" and np.array_equal(stairs["y"][::2], values.astype(np.float32))
    gaps = np.diff(values)
    assert name == "mxint8" or gaps.max() > 2 * gaps.min()
    for code, (x, step) in enumerate(zip(stairs["x"][1:-1:2], gaps, strict=True)):
        for beside, expected in ((x - step / 100, code), (x + step / 100, code + 1)):
            form.latent.data = (float(beside) * form.weight_scales()).detach()
            assert form.codes().unique().tolist() == [expected]
    assert len(errors["y"]) == len(form.latent)


def test_each_value_of_a_block_format_has_a_bar_where_it_is_with_the_number_of_its_weights(seen):
    for name, most in (("mxfp4", 8), ("nf4", 1)):
        view = seen(ce.BlockFormats(format=name, block=32))
        weights, clipped, drawn = block_levels.main(view, "fc1")
        form = view.after.fc1
        units = (form.latent / form.weight_scales()).detach()
        found = [int((form.dense() == value * form.weight_scales()).sum()) for value in form.level_values]
        assert np.array_equal(drawn["x"], form.level_values) and drawn["y"].tolist() == found
        assert sum(weights["y"]) == sum(drawn["y"]) == form.latent.numel()
        beyond = int((units.abs() > 7).sum()) if name == "mxfp4" else 0  # half a step beyond 6 starts the clipping
        assert sum(clipped["y"]) == beyond and (beyond > 0) == (name == "mxfp4")
        assert max(abs(weights["x"])) < most * 1.2
        share = (form.dense() == 0).float().mean().item()
        assert f"fc1: 4.{'25' if name == 'mxfp4' else '5'} bits, {100 * share:.1f} % are 0, error" in block_levels.say(
            view, "fc1"
        )


def test_the_picture_of_a_block_format_without_one_draws_the_weights_alone(seen):
    view = seen(ce.BlockFormats(format="mxfp4", block=32, layers="conv2"))
    weights, _, drawn = block_levels.main(view, "fc1")
    assert sum(weights["y"]) == view.before.fc1.weight.numel() and len(drawn["x"]) == 0
    assert block_levels.say(view, "fc1") == "fc1: not quantized"
    rows = {row[0]: row for row in block_levels.table(view)[1]}
    assert rows["fc1"][1] == "float" and rows["conv2"][1:3] == ("4.26", "15 of 15")


def test_inputs_beyond_the_grid_are_counted_one_by_one(seen):
    view = seen(ce.LinearQuantization(bits=8, activation_bits=3, coverage=0.9, calibration_images=32))
    _, clipped, _ = quantized_inputs.main(view, "conv2")
    share = quantized_inputs.clipped_share(view, "conv2")
    assert share > 0 and sum(clipped["y"]) == round(share * quantized_inputs.inputs(view)["conv2"].size)


def test_the_inputs_are_those_of_one_pass_whatever_else_runs_the_network_meanwhile(pair, monkeypatch):
    """The worker probes a copy of the same network in float64 while a picture is drawn."""
    model, data = pair
    view = View(data, "validation", measure(model, data, speed=False), model, ce.LinearQuantization())
    alone = quantized_inputs.inputs(replace(view, kept={}))
    running = []

    def busy(network, layers, data, batches, note):
        def noted(name, x):
            if not running:
                running.append(name)
                whole_copy(model).double()(batches[0].double())  # hooks of the given network would go with it
            note(name, x)

        watch(network, layers, data, batches, noted)

    monkeypatch.setattr(quantized_inputs, "watch", busy)
    found = quantized_inputs.inputs(replace(view, kept={}))
    assert running and {name: (x.dtype, len(x)) for name, x in found.items()} == {
        name: (x.dtype, len(x)) for name, x in alone.items()
    }


def test_inputs_whose_scales_moved_are_drawn_as_the_layer_gets_them(seen, pair):
    """The grid fits them, and not the inputs of the dense network."""
    for alpha in (0.2, 0.8):
        view = seen(ce.SmoothQuant(alpha=alpha, activation_bits=4))
        got = []
        handle = view.after.conv2.register_forward_pre_hook(lambda layer, inputs, got=got: got.append(inputs[0]))
        with torch.no_grad():
            view.after(pair[1].x_validation[: quantized_inputs.IMAGES])
        handle.remove()
        assert np.array_equal(quantized_inputs.inputs(view)["conv2"], got[0].numpy().reshape(-1))
        assert quantized_inputs.clipped_share(view, "conv2") < 0.01
        moved = replace(view, after=None)
        assert quantized_inputs.inputs(moved)["conv2"].max() > 1.5 * got[0].max(), "the dense network's are others"
        again = replace(view, after=seen(ce.SmoothQuant(alpha=0.5)).after)
        assert not np.array_equal(quantized_inputs.inputs(again)["conv2"], got[0].numpy().reshape(-1))


def test_the_range_of_each_channel_is_drawn_before_and_after(seen, pair):
    view, picture = seen(ce.SmoothQuant(alpha=1.0)), pictures_of(ce.SmoothQuant)[0]
    assert picture is smoothed_channels.PICTURE
    model, data = pair
    with torch.no_grad():
        x = model.pool1(model.relu1(model.conv1(data.x_validation[: quantized_inputs.IMAGES])))
    largest = [float(x[:, j].max()) for j in range(x.shape[1])]
    dense, smoothed = picture.main(view, "conv2")
    assert list(dense["y"]) == pytest.approx(sorted((100 * one / max(largest) for one in largest), reverse=True))
    assert min(smoothed["y"]) > 60 > min(dense["y"]), "at alpha = 1 all channels have the same range, but for images"
    before, after = picture.below(view, "conv2")
    order = np.argsort(-np.array(largest), kind="stable")
    for drawn, weight in ((before, model.conv2.weight), (after, view.after.conv2.latent)):
        by_channel = np.array([weight[:, j].abs().max().item() for j in order])
        assert list(drawn["y"]) == pytest.approx(100 * by_channel / by_channel.max())
    medians = [np.median(trace["y"]) for trace in (dense, smoothed)]
    assert picture.say(view, "conv2") == f"conv2: median channel at {medians[1]:.1f} %, dense {medians[0]:.1f} %"
    untouched = replace(view, after=None)
    assert picture.main(untouched, "conv2")[1]["y"].size == 0 and "dense" not in picture.say(untouched, "conv2")


# What is left of each layer


@pytest.mark.parametrize(
    ("method", "place"),
    [
        (ce.FilterPruning(sparsity=0.6), 0), (ce.BlockCirculantProjection(block=2), 0),
        (ce.TruncatedSVD(rank=0.25), 1), (ce.SmallDense(width=0.5, epochs=1), 0),
    ],
)  # fmt: skip
def test_bars_of_layers_are_shares_of_the_dense_layer_on_a_linear_axis(seen, method, place):
    view, picture = seen(method), pictures_of(type(method))[place]
    drawn = [trace for trace in picture.traces(view, "conv2") if trace["type"] == "bar" and "hovertext" in trace]
    dense, left = drawn
    rows = [[int(str(row[column]).replace(",", "")) for column in (1, 2)] for row in picture.table(view)[1]]
    assert list(left["y"]) == pytest.approx([100 * after / before for after, before in rows])
    assert set(dense["y"]) == {100} and any(share < 55 for share in left["y"])
    assert left["hovertext"][1].startswith(f"{rows[1][0]:,} of {rows[1][1]:,}, ")
    assert dense["text"] == [short_count(after) for after, _ in rows]
    axis = picture.axes[left["yaxis"].replace("y", "yaxis")](view)
    assert axis.get("type") != "log" and axis["tickvals"] == [0, 50, 100] and axis["range"][1] >= 120


@pytest.mark.parametrize("place", [0, 1])
def test_a_layer_larger_than_the_dense_one_fits_with_its_count_above_it(looked_at, place):
    view = looked_at(ce.CPDecomposition(rank=1.0, layers="conv2", allow_larger=True)).view
    figure = figure_of(view, pictures_of(ce.CPDecomposition)[place], "conv2")
    dense, left = (trace for trace in figure["data"] if trace["type"] == "bar" and "hovertext" in trace)
    axis = figure["layout"][left["yaxis"].replace("y", "yaxis")]
    assert left["y"] == [100, 160, 100, 100] and axis["range"] == [0, 240] and axis["tickvals"] == [0, 100]
    assert [bool(text) for text in left["text"]] == [False, True, False, False] == [not text for text in dense["text"]]


@pytest.mark.parametrize(("left", "ticks"), [(1, [0, 50, 100]), (150, [0, 50, 100, 150]), (700, [0, 400])])
def test_the_axis_of_shares_grows_with_what_is_larger_than_dense(left, ticks):
    axis = shares_axis(lambda view: [(40, 100), (left, 100)])(None)
    assert axis["tickvals"] == ticks and axis["range"] == [0, 1.5 * max(100, left)]


def test_the_axis_below_the_norms_of_terms_says_that_it_counts_terms(looked_at):
    view = looked_at(ce.CPDecomposition(rank=1.0, layers="conv2", allow_larger=True)).view
    layout = figure_of(view, pictures_of(ce.CPDecomposition)[0], "conv2")["layout"]
    assert layout[MAIN.xaxis]["title"]["text"] == "term"


def test_counts_above_bars_are_left_out_where_they_would_overlap():
    dense, _ = shares_left(MAIN, [f"l{i}" for i in range(10)], [(1, 2)] * 10, "left", "dense")
    assert dense["text"] == [""] * 10
    assert shares_left(MAIN, ["a"], [(0, 0)], "left", "dense")[1]["y"] == [0]


# A difference of accuracies


def test_a_difference_never_stands_without_its_interval_and_the_sentence_gives_the_verdict(seen):
    report = seen(ce.LinearQuantization(bits=8)).report
    for counts, shown, verdict in (
        ((9, 3), "\N{MINUS SIGN}0.6 points (\N{MINUS SIGN}1.3 to +0.1)", ": not distinguishable from the dense"),
        ((90, 3), "\N{MINUS SIGN}8.7 points (\N{MINUS SIGN}10.5 to \N{MINUS SIGN}6.9)", ": distinguishable from"),
    ):  # fmt: skip
        changed = replace(report, change=Change(*counts, 1000))
        assert accuracy_lines(changed)[2] == shown
        said = sentence(changed, report)
        assert f"{shown}; broke {counts[0]}, fixed {counts[1]}{verdict}" in said
    alone = replace(report, change=None)
    assert len(accuracy_lines(alone)) == 2 and "broke" not in sentence(alone, report)


# Distillation


def test_a_student_of_an_earlier_run_is_called_so_wherever_it_is_drawn(seen):
    made = ce.SoftTargetDistillation(student="lenet5(width=0.1)", temperature=3.0, epochs=1)
    now = seen(made, state="FINAL")
    moved = replace(now, method=replace(made, temperature=9.0), state="PREVIEW", kept={})
    assert moved.stale and not now.stale and not replace(moved, method=made).stale
    assert not replace(moved, after=None).stale, "no student is not one of an earlier run"
    for view, t in ((now, 3), (moved, 9)):
        for picture in (one_image.PICTURE, confusions.PICTURE):
            confusions.prepare(view, lambda: False)
            names = [trace["name"] for trace in picture.main(view, "fc1")]
            told = [picture.say(view, "fc1"), *picture.table(view)[0], *names]
            assert any("earlier run" in text for text in names) == view.stale
            assert ("earlier run" in told[0]) == ("earlier run" in told[4]) == view.stale
            assert sum(f"T = {t}" in text for text in told) >= 3 and len(told[0]) <= 54
    colors = [one_image.main(view, "fc1")[1]["marker"]["color"] for view in (now, moved)]
    assert colors[0] != colors[1]


def test_the_percentages_of_an_image_are_softened_as_they_say(seen):
    view = seen(ce.SoftTargetDistillation(student="lenet5(width=0.1)", temperature=4.0, epochs=1))
    one_image.probabilities(view)
    chosen, logits = view.kept["doubtful"]
    truth = int(view.data.split("validation")[1][chosen])
    percent = 100 * torch.softmax(logits / 4, 0)[truth].item()
    assert one_image.PICTURE.say(view, "fc1").startswith(
        f"{view.data.classes[truth]} at T = 4: teacher {percent:.0f} %, student "
    )


# All methods on the same axes


@pytest.fixture(scope="module")
def reported(seen):
    """A function that gives a report with the figures that a test needs."""
    report = seen(ce.LinearQuantization(bits=8)).report

    def made(method, share, size, macs=1000) -> Report:
        return replace(report, method=method, correct=round(1000 * share), seen=1000, file_bytes=size, macs=macs)

    return made


def drawn_marks(figure) -> dict:
    """The mark of each method, by the name of its trace."""
    return {trace.name: trace.marker for trace in figure.data if trace.error_y.array is not None}


def test_a_mark_is_open_where_anything_in_the_figure_beats_it_the_controls_included(reported):
    taught = reported("SoftTargetDistillation()", 0.80, 167_000)
    few, more = reported("", 0.98, 2_600_000), reported("LinearQuantization(bits=4)", 0.98, 330_000)
    larger = reported("TruncatedSVD(rank=0.9, allow_larger=True)", 0.97, 3_000_000)
    for controls, symbol in (((), "star"), ((reported("", 0.92, 135_000),), "star-open")):
        marks = drawn_marks(trade_off([taught, more, larger], few, controls))
        assert marks[taught.method].symbol == symbol
        assert marks[more.method].symbol == "diamond" and marks[larger.method].symbol == "triangle-up-open"
    alike = reported("MagnitudePruning(sparsity=0.5)", 0.80, 167_000)
    assert not dominated(taught, [taught, alike]), "as good on both axes is not better"
    assert dominated(taught, [replace(alike, correct=801)]) and dominated(taught, [replace(alike, file_bytes=166_999)])


def test_every_family_has_its_own_color_and_marker_and_a_line_in_the_legend(reported):
    assert {cls.family for cls in METHODS} <= set(FAMILIES)
    colors, symbols, names = zip(*FAMILIES.values(), strict=True)
    assert len(set(colors)) == len(set(symbols)) == len(set(names)) == len(FAMILIES)
    for text, family in (
        ("MagnitudePruning(sparsity=0.5)", "pruning"), ("BlockCirculantProjection() | FineTune(epochs=2)",
        "structural_matrix"), ("FineTune()", "training"), ("TruncatedSVD() | LinearQuantization()", "combined"),
        ("SoftTargetDistillation(student=MagnitudePruning() | TruncatedSVD())", "distillation"), ("Mine()", "combined"),
    ):  # fmt: skip
        report = reported(text, 0.9, 1000)
        figure = trade_off([report], reported("", 0.98, 2000))
        assert family_of(report) == family and drawn_marks(figure)[text].color == FAMILIES[family][0]
        assert [trace.name for trace in figure.data if trace.showlegend is not False] == [FAMILIES[family][2]]


def boxes_of(figure) -> tuple[list[Box], list[Box], list[Box]]:
    """Names, marks and points of the gray line as rectangles in pixels, from axes, traces and annotations alone."""
    shape, margin = figure.layout, figure.layout.margin
    width, height = shape.width - margin.l - margin.r, shape.height - margin.t - margin.b

    def pixel(x, y):
        (low, high), (bottom, top) = shape.xaxis.range, shape.yaxis.range
        return margin.l + (x - low) / (high - low) * width, margin.t + (top - y) / (top - bottom) * height

    names, marks = [], []
    for note in shape.annotations:
        x, y = pixel(note.x, note.y)
        x, y = (x + note.ax, y + note.ay) if note.showarrow else (x + note.xshift, y - note.yshift)
        lines = note.text.split("<br>")
        half = 7 * max(map(len, lines)) / 2, 14 * len(lines) / 2
        names.append(Box(x - half[0], y - half[1], x + half[0], y + half[1]))
    for trace in figure.data:
        if trace.error_y.array is not None:
            x, y = pixel(np.log10(trace.x[0]), trace.y[0])
            marks.append(Box(x - 6, y - 6, x + 6, y + 6))
    line = [pixel(np.log10(x), y) for x, y in zip(figure.data[0].x, figure.data[0].y, strict=True)]
    shares = np.linspace(0, 1, 50)
    spots = [(1 - s) * np.array(start) + s * np.array(end) for start, end in pairwise(line) for s in shares]
    return names, marks, [Box(x - 1, y - 1, x + 1, y + 1) for x, y in spots]


def test_no_name_is_printed_over_another_or_over_a_mark(reported):
    draw = torch.Generator().manual_seed(1)
    rows = [(f"LinearQuantization(bits={i + 1})", 0.97 + 0.01 * torch.rand(1, generator=draw).item()) for i in range(8)]
    near = [reported(text, share, 200_000 + 9_000 * i) for i, (text, share) in enumerate(rows)]
    above = [reported(text, 0.99 - 0.02 * i, 300_000) for i, (text, _) in enumerate(rows)]
    for reports in (near[:2], near, above, [replace(one, file_bytes=300_000, correct=970) for one in near[:4]]):
        controls = [reported("", share, size) for share, size in ((0.7, 8_000), (0.92, 100_000), (0.97, 400_000))]
        figure = trade_off(reports, reported("", 0.98, 500_000), controls)
        names, marks, line = boxes_of(figure)
        assert len(marks) == len(reports) + 1 and len(names) >= 2
        assert not any(one.overlaps(other) for one, other in combinations(names, 2))
        assert not any(name.overlaps(mark) for name in names for mark in [*marks, *line])
        assert all(name.left >= 0 and name.right <= figure.layout.width and name.top >= 0 for name in names)
        assert figure == trade_off(reports, reported("", 0.98, 500_000), controls), "equal reports, equal places"
    assert len(boxes_of(trade_off(near[:2], near[-1]))[0]) == 3, "where there is room, every mark has its name"


def test_a_name_that_had_to_move_has_a_line_to_its_mark(reported):
    reports = [reported(f"LinearQuantization(bits={i})", 0.97, 200_000 + 6000 * i) for i in range(1, 6)]
    notes = trade_off(reports, reported("", 0.98, 400_000)).layout.annotations
    assert any(note.showarrow for note in notes) and any(not note.showarrow for note in notes)
    assert all(abs(note.xshift or 0) < 120 and abs(note.yshift or 0) < 30 for note in notes if not note.showarrow)


def test_the_horizontal_axis_can_be_the_multiplications(reported):
    small = reported("CReLU()", 0.9, 2000, macs=500)
    figure = trade_off([small], reported("", 0.98, 2000, macs=900), by="macs")
    assert figure.data[1].x == (500,) and "multiply-accumulates" in figure.layout.xaxis.title.text
    assert drawn_marks(figure)["CReLU()"].symbol == "triangle-down"
    assert dominated(small, [reported("", 0.9, 5000, macs=400)], "macs")
    with pytest.raises(ValueError, match="by must be one of 'size', 'macs', got 'time'"):
        trade_off([small], small, by="time")
    with pytest.raises(ValueError, match=r"'CReLU\(\)' has no macs; measure it to the end"):
        trade_off([replace(small, macs=None)], small, by="macs")


# What one report measured


@pytest.fixture(scope="module")
def timed(pair):
    """The report of a pruned network, with its speed and the images whose answer changed."""
    model, data = pair
    return measure(ce.MagnitudePruning(sparsity=0.9)(model, data), data, baseline=model)


def test_the_bars_of_a_file_are_its_bytes_by_purpose_to_one_scale(seen, timed):
    dense = seen(ce.LinearQuantization(bits=8)).baseline
    figure = file_bar([dense, timed])
    parts = {trace.name: trace.x for trace in figure.data}
    for place, report in enumerate((dense, timed)):
        shown = {name: x[place] for name, x in parts.items() if x[place]}
        assert shown == {ROLES[role][1]: count for role, count in report.size_by_role.items()}
        assert sum(shown.values()) == report.file_bytes
        assert figure.layout.annotations[place].text == bytes_text(report.file_bytes)
    assert figure.layout.yaxis.ticktext == ("dense network", "MagnitudePruning")
    share = f"{100 * timed.size_by_role['indices'] / timed.file_bytes:.0f} %"
    assert {trace.name: trace.text for trace in file_bar(timed).data}["indices"] == (share,)
    with pytest.raises(ValueError, match="file_bar: the report of MagnitudePruning.* measure the network to the end"):
        file_bar(replace(timed, size_by_role=None))


def test_the_grid_shows_the_images_whose_answer_changed_with_both_answers(pair, timed):
    figure = paired_grid(timed, pair[1])
    broke, fixed = (trace.hovertext or () for trace in figure.data)
    assert timed.change.broke > 24 >= len(broke) and len(figure.layout.images) == len(broke) + len(fixed)
    assert len(broke) == 24 and len(fixed) == min(24, timed.change.fixed)
    flip, names = timed.newly_wrong[0], pair[1].classes
    assert broke[0].startswith(f"image {flip.image} is {names[flip.true]}: the dense network says {names[flip.before]}")
    assert figure.data[0].text[0] == f"{names[flip.before]} → {names[flip.after]}"
    told = [note.text for note in figure.layout.annotations]
    assert told[0] == f"<b>broke {timed.change.broke}</b>: right before, the first 24 of them"
    assert f"p = {timed.change.p_value:.2g}" in told[2] and "; distinguishable from the dense network" in told[2]
    source = image_bytes(pair[1], timed.split, flip.image, SIDE)
    assert figure.layout.images[0].source == source
    few = replace(timed, newly_wrong=timed.newly_wrong[:2], newly_right=())
    assert [len(trace.x) for trace in paired_grid(few, pair[1]).data] == [2, 0]
    assert paired_grid(few, pair[1]).layout.height < figure.layout.height


def test_a_grid_without_images_or_of_other_data_is_refused(pair, timed):
    with pytest.raises(ValueError, match="lists no images; allowed is a complete one with a baseline: measure again"):
        paired_grid(replace(timed, newly_wrong=None), pair[1])
    with pytest.raises(ValueError, match=r"is of 'digits\[96/150/10\]', the data are 'digits\[96/40/10\]'; give the"):
        paired_grid(timed, pair[1].shortened(validation=40))


def test_every_round_of_a_timing_is_a_dot_and_the_ratios_are_those_that_are_judged(timed):
    latency = timed.latency
    figure = timing_dots(latency)
    times = [trace for trace in figure.data if trace.xaxis == "x" and len(trace.x) > 1]
    judged = [trace for trace in figure.data if trace.xaxis == "x2" and len(trace.x) > 1]
    assert [trace.customdata for trace in times] == [latency.rounds_ms[arm] for arm in ARMS]
    assert {len(trace.customdata) for trace in [*times, *judged]} == {latency.rounds}
    medians = [trace for trace in figure.data if trace.xaxis == "x2" and len(trace.x) == 1]
    for trace, middle, (low, high) in zip(
        medians, (latency.a_a, latency.speed_up), (latency.a_a_interval, latency.speed_up_interval), strict=True
    ):
        assert trace.x == (middle,) and trace.error_x.array == pytest.approx((high - middle,))
        assert trace.error_x.arrayminus == pytest.approx((middle - low,))
    slow = {arm: (*values[:-1], 100 * max(values)) for arm, values in latency.rounds_ms.items()}
    one = next(trace for trace in timing_dots(replace(latency, rounds_ms=slow)).data if len(trace.x) > 1)
    assert one.marker.symbol[-1] == "triangle-right" and one.x[-1] < one.customdata[-1]
    assert latency.verdict.split(":")[0] in figure.layout.xaxis2.title.text or "×" in figure.layout.xaxis2.title.text


def test_a_stored_report_keeps_no_rounds_and_says_so(timed):
    assert "rounds_ms" not in timed.as_dict()["latency"] and "rounds_ms" not in repr(timed.latency)
    stored = Report.from_dict(timed.as_dict())
    assert stored == timed and stored.latency.rounds_ms is None
    with pytest.raises(ValueError, match="has no rounds, as it was read from a file; measure again"):
        timing_dots(stored.latency)
    alone = replace(timed.latency, rounds_ms={"candidate": timed.latency.rounds_ms["candidate"]})
    with pytest.raises(ValueError, match="has no baseline; measure again"):
        timing_dots(alone)


# A morph


def test_a_morph_shows_the_truth_and_both_softened_answers_at_the_temperature():
    model, data = ce.load("lenet5", "glyphs")
    data = data.shortened(train=64, validation=40, test=10)
    baseline = measure(model, data, speed=False)
    method = ce.SoftTargetDistillation(student="lenet5(width=0.25)", epochs=1, temperature=5.0)
    view = View(data, "validation", baseline, model, method)
    assert [one["y"] for one in morph.main(view, "")] == [[], [], []] and "being drawn" in morph.say(view, "")
    morph.prepare(view, lambda: False)
    view.after = method(model, data)
    images, _ = morphs("O", "Q", morph.STAGES, morph.HANDS)
    half = images[morph.HALF]
    teacher, student = ((torch.softmax(network(half) / 5.0, 1)).mean(0) for network in (model, view.after))
    drawn = morph.main(view, "")
    assert drawn[0]["y"] == pytest.approx(teacher.tolist(), abs=1e-5)
    assert drawn[1]["y"] == pytest.approx(student.tolist(), abs=1e-5)
    assert drawn[2]["x"] == ["O", "Q"] and drawn[2]["y"] == [0.5, 0.5]
    along = {one["name"]: one["y"] for one in morph.below(view, "")}
    assert along["true"][0] == 0 and along["true"][4] == 0.5 and along["true"][-1] == 1
    second = data.classes.index("Q")
    assert along["teacher"][4] == pytest.approx(teacher[second].item(), abs=1e-5)
    assert along["student"][4] == pytest.approx(student[second].item(), abs=1e-5)
    bits = -(torch.softmax(model(half) / 5.0, 1) * torch.log2(torch.softmax(model(half) / 5.0, 1))).sum(1).mean()
    assert f"T = 5: teacher {bits:.2f} bits" in morph.say(view, "")
    assert morph.table(view)[1][4][:2] == ("0.5", "0.500")


def test_a_morph_is_of_glyphs_alone(pair):
    model, data = pair
    view = View(data, "validation", measure(model, data, speed=False), model, ce.SoftTargetDistillation())
    morph.prepare(view, lambda: False)
    assert morph.say(view, "") == "teacher on O to Q: with glyphs only"
    assert morph.table(view)[1] == [("with glyphs only", "", "", "")]
    assert all(len(one["x"]) == 0 for one in (*morph.main(view, ""), *morph.below(view, "")))
    drawn = ce.load_data("glyphs").shortened(train=20, validation=20, test=10)
    assert morph.drawable(replace(view, data=drawn))
    for name in ("glyphs(classes=('C', 'O', 'Q'))", "glyphs(label_noise=0.1)"):  # of which other truths hold
        assert not morph.drawable(replace(view, data=replace(drawn, name=name)))
