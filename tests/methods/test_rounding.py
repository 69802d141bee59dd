"""GPTQ against exact least squares, AdaRound against brute force, and what both promise: no row worse than nearest."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

import compedu as ce
from compedu.explorers.main_knob import main_knob
from compedu.methods.input_moments import damped, input_moments
from compedu.methods.quantization import gptq
from compedu.methods.quantization.adaround import learned_codes, pull, rectified_sigmoid, start
from compedu.methods.quantization.gptq import gptq_codes
from compedu.methods.quantization.shared.calibrated_rounding import Levels

BOTH = [ce.GPTQ, ce.AdaRound]


def layer(rows: int, n: int, seed: int, bits: int = 3) -> tuple[torch.Tensor, torch.Tensor, Levels]:
    """A row-wise random layer (1, rows, n) with correlated inputs: weights, second moments, levels."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(1, rows, n, generator=generator, dtype=torch.float64)
    inputs = torch.randn(200, n, generator=generator, dtype=torch.float64)
    inputs = inputs + 2 * inputs.mean(1, keepdim=True) + 0.5
    second = (inputs.T @ inputs / len(inputs))[None]
    top = max(2 ** (bits - 1) - 1, 1)
    scale = (weights.abs().amax(2, keepdim=True) / top).expand_as(weights)
    end = torch.full_like(weights, top)
    return weights, second, Levels(scale, torch.ones_like(weights, dtype=torch.bool), -end, end, bits == 1)


def error(weights: torch.Tensor, second: torch.Tensor, levels: Levels, codes: torch.Tensor) -> torch.Tensor:
    change = weights - levels.values(codes)
    return ((change @ second) * change).sum(2)


def exact(weights: torch.Tensor, hessian: torch.Tensor, levels: Levels) -> torch.Tensor:
    """Round one column after another; before each, solve for all later ones anew from the trained weights."""
    codes = torch.zeros_like(weights)
    n = weights.shape[2]
    for row in range(weights.shape[1]):
        trained, matrix = weights[0, row], hessian[0]
        for j in range(n):
            fixed = levels.values(codes)[0, row, :j] - trained[:j]
            rest = trained[j:] - torch.linalg.solve(matrix[j:, j:], matrix[j:, :j] @ fixed)
            column = levels.nearest(rest[0].reshape(1, 1).expand(1, weights.shape[1]), j)
            codes[0, row, j] = column[0, row]
    return codes


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("block", [128, 3])
def test_gptq_is_exact_least_squares_column_by_column(monkeypatch, bits, block):
    monkeypatch.setattr(gptq, "BLOCK", block)
    for seed in range(4):
        weights, second, levels = layer(3, 7, seed, bits)
        assert torch.equal(gptq_codes(weights, second, levels), exact(weights, second, levels))


@pytest.mark.parametrize(
    "cls", [*BOTH, ce.LinearQuantization, ce.LearnedStepQuantization], ids=lambda cls: cls.__name__
)
def test_the_main_slider_of_every_quantization_is_its_bits(cls):
    assert main_knob(cls) == "bits"


def test_gptq_beats_rounding_to_nearest_on_correlated_inputs():
    worse = 0
    for seed in range(20):
        weights, second, levels = layer(8, 24, seed)
        ours = error(weights, second, levels, gptq_codes(weights, second, levels)).sum()
        worse += bool(ours >= error(weights, second, levels, levels.nearest(weights)).sum())
    assert worse == 0


def test_the_order_of_rounding_changes_what_is_rounded_but_not_what_a_code_means():
    model, data = ce.load("lenet5", "digits")
    stored = ce.GPTQ(bits=2, order="stored", layers="fc2")(model, data)
    sorted_ = ce.GPTQ(bits=2, layers="fc2")(model, data)
    one, other = (network.get_submodule("fc2").codes() for network in (stored, sorted_))
    nearest = ce.LinearQuantization(bits=2, layers="fc2")(model).get_submodule("fc2")
    assert torch.equal(stored.get_submodule("fc2").scale, nearest.scale) and not torch.equal(one, other)
    for codes in (one, other):
        assert (codes == nearest.codes()).float().mean() > 0.6, "most weights are still rounded to a neighbor"


def test_adaround_comes_near_the_best_of_all_roundings():
    """Twelve weights can be rounded up or down in 4,096 ways."""
    for seed in range(5):
        weights, second, levels = layer(1, 12, seed)
        down = (weights / levels.scale).floor().clamp(levels.low, levels.high - 1)
        ways = torch.tensor(list(itertools.product((0.0, 1.0), repeat=12)), dtype=torch.float64)
        all_ways = levels.changed(lambda tensor: tensor.expand(1, 4096, 12))
        every = error(weights.expand(1, 4096, 12), second, all_ways, down + ways)
        best, usual = every.min(), error(weights, second, levels, levels.nearest(weights)).sum()
        found = error(weights, second, levels, learned_codes(weights, second, levels, 500, 30.0)).sum()
        assert found <= best + 0.2 * (usual - best) + 1e-9, (seed, float(best), float(found), float(usual))
        assert found >= best - 1e-9


def test_the_rectified_sigmoid_starts_where_it_is_told_and_its_pull_is_a_derivative():
    share = torch.tensor([0.0, 0.1, 0.5, 0.99, 1.0], dtype=torch.float64)
    assert torch.allclose(rectified_sigmoid(start(share)), share)
    h = torch.tensor([0.05, 0.3, 0.8], dtype=torch.float64, requires_grad=True)
    for beta in (2.0, 5.0, 20.0):
        (expected,) = torch.autograd.grad((1 - (2 * h - 1).abs() ** beta).sum(), h)
        assert torch.allclose(pull(h.detach(), beta), expected)


@pytest.mark.parametrize("cls", BOTH, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_no_row_is_worse_than_rounded_to_nearest(cls, bits):
    model, data = ce.load("lenet5", "digits")
    data = data.shortened(train=64)
    settings = {"bits": bits, "layers": "conv1"}
    ours = cls(**settings, calibration_images=64)(model, data).get_submodule("conv1")
    nearest = ce.LinearQuantization(**settings)(model).get_submodule("conv1")
    trained = model.get_submodule("conv1")
    moments = input_moments(model, "conv1", trained, data, 64)
    rows = [moments.row_errors(moments.rows(trained.weight - form.dense())) for form in (ours, nearest)]
    assert torch.equal(ours.scale, nearest.scale)
    assert bool((rows[0] <= rows[1] * (1 + 1e-6)).all()) and bool((rows[0] < rows[1]).any())


def pruned_layer(seed: int, rows: int, n: int) -> tuple[torch.Tensor, torch.Tensor, Levels]:
    """A layer of which a third of the weights is pruned."""
    weights, second, levels = layer(rows, n, seed)
    kept = torch.rand(weights.shape, generator=torch.Generator().manual_seed(seed)) > 0.34
    return weights * kept, second, replace(levels, kept=kept)


def test_pruned_weights_have_the_code_0_and_the_others_make_up_for_what_they_would_have_become():
    for seed in range(4):
        weights, second, levels = pruned_layer(seed, 3, 9)
        codes = gptq_codes(weights, second, levels)
        assert torch.equal(codes, exact(weights, second, levels)) and not codes[~levels.kept].any()
        weights, second, levels = pruned_layer(seed, 1, 12)
        learned = learned_codes(weights, second, levels, 300, 30.0)
        assert not learned[~levels.kept].any()
        places = levels.kept[0, 0].nonzero().flatten()
        down = (weights / levels.scale).floor().clamp(levels.low, levels.high - 1)
        tried = []
        for ups in itertools.product((0.0, 1.0), repeat=len(places)):
            codes = down * levels.kept
            codes[0, 0, places] += torch.tensor(ups, dtype=codes.dtype)
            tried.append(error(weights, second, levels, codes).item())
        usual = error(weights, second, levels, levels.nearest(weights)).item()
        found = error(weights, second, levels, learned).item()
        assert min(tried) - 1e-9 <= found <= min(tried) + 0.2 * (usual - min(tried)) + 1e-9


def test_what_is_rounded_is_not_written_to_and_groups_do_not_mix():
    parts = [layer(1, 6, seed) for seed in range(3)]
    weights, second = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    scale, kept, low, high = (
        torch.cat([getattr(part[2], name) for part in parts]) for name in ("scale", "kept", "low", "high")
    )
    levels = Levels(scale, kept, low, high)
    before = weights.clone()
    for round_all in (gptq_codes, lambda *given: learned_codes(*given, 50, 30.0)):
        together = round_all(weights, second, levels)
        assert torch.equal(weights, before)
        for group, (alone, moments, own) in enumerate(parts):
            assert torch.equal(together[group], round_all(alone, moments, own)[0]), group


@pytest.mark.parametrize("cls", BOTH, ids=lambda cls: cls.__name__)
def test_groups_of_a_depthwise_layer_are_rounded_with_their_own_inputs(cls):
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=4), nn.Flatten(), nn.Linear(8 * 26 * 26, 10)
    )
    for parameter in network.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    _, data = ce.load("lenet5", "digits")
    data = data.shortened(train=32)
    form = cls(bits=2, layers="2", calibration_images=32)(network.eval(), data).get_submodule("2")
    moments = input_moments(network, "2", network[2], data, 32)
    assert moments.second.shape == (4, 9, 9)
    change = moments.rows((network[2].weight - form.dense()).detach())
    plain = ce.LinearQuantization(bits=2, layers="2")(network).get_submodule("2")
    usual = moments.rows((network[2].weight - plain.dense()).detach())
    assert float(moments.row_errors(change).sum()) < float(moments.row_errors(usual).sum())


def test_moments_of_dead_inputs_can_be_damped():
    unit = torch.eye(3, dtype=torch.float64)
    assert torch.equal(damped(torch.stack([0 * unit, 4 * unit]), 0.5), torch.stack([0.5 * unit, 6 * unit]))
