"""Grids of weights: affine against torch's own, groups against rows of their own, percentiles, up to 16 bits."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import compedu as ce
from compedu.forms import Quantized
from compedu.methods.quantization.shared.affine import affine_error, affine_grid, best_affine_grid
from compedu.methods.quantization.shared.weight_rows import clipped

EVERY = [ce.LinearQuantization, ce.GPTQ, ce.AdaRound]


@pytest.fixture(scope="module")
def data():
    return ce.load_data("digits").shortened(train=300)


@pytest.fixture(scope="module")
def lenet5():
    return ce.build("lenet5(width=0.25)")


def skewed(rows=5, n=90, seed=0):
    """A linear layer whose weights are mostly positive."""
    layer = nn.Linear(n, rows)
    layer.weight.data = torch.randn(rows, n, generator=torch.Generator().manual_seed(seed)) + 2
    return layer


def rounded(layer, **knobs):
    return ce.LinearQuantization(**knobs)(nn.Sequential(layer))[0]


@pytest.mark.parametrize("bits", [2, 3, 5, 8, 12, 16])
@pytest.mark.parametrize("clipping", ["max", "percentile", "mse"])
def test_affine_weights_agree_with_torch_fake_quantization(bits, clipping):
    layer = skewed()
    form = rounded(layer, bits=bits, grid="affine", clipping=clipping)
    scale = form.scale.reshape(-1)
    zero = form.zero_point.reshape(-1)
    expected = torch.fake_quantize_per_channel_affine(layer.weight.detach(), scale, zero, 0, 0, 2**bits - 1)
    apart = (form.dense() - expected).abs() / form.scale
    assert apart.max() <= 1.001  # torch multiplies by 1 / scale: a weight between two levels may go either way
    assert (apart > 0.01).float().mean() < (0.01 if bits < 12 else 0.1)
    assert zero.min() >= 0 and zero.max() < 2**bits


def test_an_affine_grid_wins_where_weights_lie_on_one_side_and_a_symmetric_one_does_not_waste_its_sign():
    layer = skewed()
    error = {
        grid: (rounded(layer, bits=4, grid=grid).dense() - layer.weight).norm() for grid in ("symmetric", "affine")
    }
    assert error["affine"] < 0.75 * error["symmetric"]


def test_zero_is_exact_on_an_affine_grid_so_pruned_weights_stay_zero():
    pruned = ce.MagnitudePruning(sparsity=0.7)(nn.Sequential(skewed()))
    form = ce.LinearQuantization(bits=3, grid="affine")(pruned)[0]
    assert torch.equal(form.dense()[~form.mask], torch.zeros(int((~form.mask).sum())))
    assert (form.dense() == 0).float().mean() >= 0.7


def test_each_group_of_inputs_is_rounded_as_a_row_of_its_own():
    layer = skewed(n=100)
    form = rounded(layer, bits=3, scales="group", group_size=32, grid="affine", clipping="mse")
    assert form.scale.shape == (5, 4)
    for index, part in enumerate(layer.weight.detach().split(32, dim=1)):
        alone = nn.Linear(part.shape[1], 5)
        alone.weight.data = part.clone()
        own = rounded(alone, bits=3, grid="affine", clipping="mse")
        torch.testing.assert_close(form.dense()[:, 32 * index : 32 * index + 32], own.dense())
    assert torch.equal(rounded(layer, bits=3, scales="group", group_size=100).dense(), rounded(layer, bits=3).dense())


def test_groups_save_weights_beside_an_outlier():
    layer = skewed(n=128)
    layer.weight.data[:, 7] = 80.0
    error = {
        scales: (rounded(layer, bits=4, scales=scales, group_size=16).dense() - layer.weight).norm()
        for scales in ("channel", "group")
    }
    assert error["group"] < 0.5 * error["channel"]


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_clipped_range_holds_the_share_that_was_asked_for_and_no_smaller_one_does(coverage, symmetric):
    rows = torch.randn(6, 251, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    kept = torch.rand(6, 251, generator=torch.Generator().manual_seed(2)) < 0.8
    made = clipped(rows * kept, kept, coverage, symmetric)
    for row, mask, end in zip(rows.numpy(), kept.numpy(), made.numpy(), strict=True):
        values = row[mask]
        n = len(values)
        if symmetric:
            radius = np.quantile(np.abs(values), (math.ceil(coverage * n - 1e-9) - 1) / (n - 1))
            low, high = -radius, radius
        else:
            out = math.floor((1 - coverage) / 2 * n + 1e-9)
            low, high = np.sort(values)[out], np.sort(values)[n - 1 - out]
        np.testing.assert_allclose(end[mask], np.clip(values, low, high))


@pytest.mark.parametrize(
    "coverage, n, place", [(0.58, 150, 63), (0.61, 300, 117), (0.928, 375, 27), (0.906, 2500, 235)]
)
def test_a_share_that_fits_exactly_is_clipped(coverage, n, place):
    rows = torch.arange(1, n + 1.0)[None]
    end = clipped(rows, rows > 0, coverage, True).max()
    assert end == n - place


@pytest.mark.parametrize("grid", ["symmetric", "affine"])
def test_a_row_whose_percentile_is_zero_keeps_its_range(grid):
    weight = torch.zeros(1, 200)
    weight[0, 3] = 0.4
    layer = nn.Linear(200, 1)
    layer.weight.data = weight
    form = rounded(layer, bits=4, grid=grid, clipping="percentile", weight_coverage=0.98)
    torch.testing.assert_close(form.dense(), weight)


def test_the_best_affine_range_is_no_worse_than_the_whole_one_and_near_the_best_of_many():
    rows = torch.randn(8, 200, generator=torch.Generator().manual_seed(3)) ** 3 + 1
    low, high = rows.aminmax(dim=1, keepdim=True)
    found = affine_error(rows, *best_affine_grid(rows, 3), 3)
    assert (found <= affine_error(rows, *affine_grid(low, high, 3), 3)).all()
    tried = [
        affine_error(rows, *affine_grid(low * a / 40, high * b / 40, 3), 3) for a in range(1, 41) for b in range(1, 41)
    ]
    assert (found <= torch.stack(tried).amin(0) * 1.15).all()


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("knobs", [{"grid": "affine"}, {"scales": "group", "group_size": 32}])
def test_every_grid_is_saved_in_its_bits_loaded_and_deployed(method, knobs, lenet5, data, tmp_path):
    made = method(bits=3, **knobs)(lenet5, data)
    ce.save(made, tmp_path / "made.compedu")
    again = ce.load_model(tmp_path / "made.compedu")
    x = data.x_validation[:20]
    assert torch.equal(made(x), again(x))
    torch.testing.assert_close(ce.deploy(made)(x), made(x), rtol=1e-4, atol=1e-4)
    forms = [form for form in made.modules() if isinstance(form, Quantized)]
    bits = sum(3 * form.latent.numel() + (32 + 3) * form.scale.numel() for form in forms)
    rest = 2000 + 4 * sum(form.bias.numel() for form in forms)
    assert 0.6 * bits / 8 < (tmp_path / "made.compedu").stat().st_size < bits / 8 + rest


@pytest.mark.parametrize("method", [ce.GPTQ, ce.AdaRound])
@pytest.mark.parametrize("knobs", [{"grid": "affine"}, {"scales": "group", "group_size": 32}])
def test_rounding_by_the_inputs_gains_on_every_grid(method, knobs, lenet5, data):
    nearest = ce.LinearQuantization(bits=2, **knobs)(lenet5)
    chosen = method(bits=2, **knobs)(lenet5, data)
    x = data.x_train[:200]
    wanted = lenet5(x)
    error = [(model(x) - wanted).norm() for model in (nearest, chosen)]
    assert error[1] < 0.8 * error[0]


def test_sixteen_bits_keep_the_weights_to_five_digits():
    layer = skewed()
    for grid in ("symmetric", "affine"):
        form = rounded(layer, bits=16, grid=grid)
        step = layer.weight.abs().max() / 2**15
        assert (form.dense() - layer.weight).abs().max() < 0.6 * step
        assert form.codes().abs().max() > 2**14


def test_affine_weights_and_rounded_inputs_run_in_float_and_say_so(lenet5, data):
    small = ce.LinearQuantization(grid="affine", activation_bits=8)(lenet5, data)
    kernels = ce.deploy(small).kernels
    assert all("inputs rounded in float32" in kernel for kernel in kernels.values()), kernels
    torch.testing.assert_close(ce.deploy(small)(data.x_train[:9]), small(data.x_train[:9]), rtol=1e-3, atol=1e-3)
    assert any("int8" in k for k in ce.deploy(ce.LinearQuantization(activation_bits=8)(lenet5, data)).kernels.values())


def test_an_affine_grid_of_one_bit_is_refused():
    with pytest.raises(ce.CompressionError, match=r"affine grid of 1 bit.*symmetric"):
        rounded(skewed(), bits=1, grid="affine")


@pytest.mark.parametrize("knobs", [{"grid": "affine"}, {"scales": "group", "group_size": 2}])
@pytest.mark.parametrize("weight", [torch.zeros(2, 5), torch.full((2, 5), 1e-42), torch.full((2, 1), 0.3)])
def test_zero_subnormal_and_single_weights_have_an_exact_or_finite_result(knobs, weight):
    layer = nn.Linear(weight.shape[1], 2)
    layer.weight.data = weight
    form = rounded(layer, bits=4, **knobs)
    assert torch.isfinite(form.dense()).all()
    assert (form.dense() - weight).abs().max() <= weight.abs().max() / 7 + 1e-45
