"""Pictures of single methods against other ways to the same numbers, and what a picture has the worker compute."""

import html
from dataclasses import replace

import numpy as np
import pytest
import torch
from page_of_explorer import say, shown_figures

import compedu as ce
from compedu.columns import html_table
from compedu.explorers.figures.colors import LIVE, ORANGE, VERMILLION
from compedu.explorers.figures.pictures import pictures_of
from compedu.explorers.figures.pictures.distillation import confusions, temperature
from compedu.explorers.figures.pictures.low_rank import channel_spectra, rebuilt_filters, terms
from compedu.explorers.figures.pictures.picture import labels
from compedu.explorers.figures.pictures.pruning import pruned_filters
from compedu.explorers.figures.pictures.quantization import quantized_inputs
from compedu.explorers.figures.pictures.structural_matrix import product_times
from compedu.explorers.panel.tables import layers_table
from compedu.forms import weight_of
from compedu.methods.distillation.soft_targets import soft_loss
from compedu.metrics import Latency


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


def test_what_a_picture_needs_is_computed_by_the_worker_once(made, measured):
    explorer = made(ce.BlockCirculantProjection)
    measured(explorer)
    matrix, time = explorer._screen.pictures
    assert product_times.timed(explorer.view) == {}
    say(explorer, "picture", name=time)
    explorer.settle(120)
    found = product_times.timed(explorer.view)
    assert tuple(found) == product_times.SIDES and all(one.rounds >= 9 and one.a_a_interval for one in found.values())
    say(explorer, "picture", name=matrix)
    say(explorer, "picture", name=time)
    explorer.settle(120)
    assert all(product_times.timed(explorer.view)[side] is one for side, one in found.items())
    assert tuple(shown_figures(explorer)["picture"]["data"][0]["x"]) == product_times.SIDES


def test_a_layer_that_stays_in_a_factored_network_is_not_called_the_dense_network(looked_at, pair):
    tucker, cp = (looked_at(one(rank=0.3, layers="conv2")) for one in (ce.TuckerDecomposition, ce.CPDecomposition))
    for picture, explorer in ((channel_spectra.PICTURE, tucker), (terms.PICTURE, cp)):
        assert picture.say(explorer.view, "fc1") == "fc1: not factored"
        before = replace(explorer.view, after=None)
        assert picture.say(before, "fc1") == "fc1 of the dense network, none compressed yet"


def test_the_spectra_of_inputs_and_outputs_are_drawn_with_their_own_ranks(looked_at, pair):
    view = looked_at(ce.TuckerDecomposition(rank=0.3, layers="conv2")).view
    weight = pair[0].conv2.weight.detach().double().numpy()
    inputs, _, outputs, _ = channel_spectra.main(view, "conv2")
    for axis, drawn, kept in ((1, inputs, 6), (0, outputs, 15)):
        expected = np.linalg.svd(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1), compute_uv=False)
        np.testing.assert_allclose(drawn["y"], expected)
        filled = channel_spectra.main(view, "conv2")[1 if axis else 3]
        assert len(filled["y"]) == kept and filled["line"]["color"] == (ORANGE if axis else LIVE)


@pytest.mark.parametrize("rank", [{"conv2": 1}, {"conv2": 30}], ids=["one", "thirty"])
def test_terms_are_orange_where_their_squares_are_more_than_twice_that_of_their_sum(looked_at, rank):
    view = looked_at(ce.CPDecomposition(rank=rank, layers="conv2")).view
    norms = terms.term_norms(view, "conv2").astype(float)
    sum_of_them = weight_of(view.layer_pair("conv2")[1]).detach().double().norm().item()
    times = (norms**2).sum() / sum_of_them**2
    assert f"squares {times:.1f}x the sum's" in terms.say(view, "conv2")
    assert terms.main(view, "conv2")[0]["marker"]["color"] == (VERMILLION if times > 2 else LIVE)
    assert (times > 2) == (rank["conv2"] == 30)


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
