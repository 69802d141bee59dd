"""The integer engines: every code against whole-number arithmetic written down independently in numpy and float64."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import compedu.deployment
from compedu.deployment.kernels import int8
from compedu.deployment.kernels.product import Grid, Product, Window
from compedu.deployment.kernels.simulated import Simulated
from compedu.forms import ActivationQuantizer, Geometry, Quantized

CAPABILITY = int8.available()
native = pytest.mark.skipif(CAPABILITY.name != int8.NAME, reason=CAPABILITY.reason)

GEOMETRIES = {
    "linear": Geometry("linear", (30, 100)),
    "3x3": Geometry("conv2d", (16, 8, 3, 3), padding=(1, 1)),
    "one input channel": Geometry("conv2d", (20, 1, 5, 5)),
    "strided 1x1": Geometry("conv2d", (13, 8, 1, 1), stride=(2, 2)),
    "dilated": Geometry("conv2d", (6, 8, 3, 3), dilation=(2, 2), padding=(2, 2)),
    "grouped": Geometry("conv2d", (12, 4, 3, 3), padding=(1, 1), groups=2),
    "depthwise": Geometry("conv2d", (8, 1, 3, 3), padding=(1, 1), groups=8),
    "3x1": Geometry("conv2d", (10, 8, 3, 1), padding=(1, 0), stride=(2, 1)),
}


def random_product(geometry: Geometry, seed: int, **options) -> tuple[Product, torch.Tensor]:
    """Return a product with random codes, scales and bias whose outputs fill its grid, and codes to feed it with."""
    generator = torch.Generator().manual_seed(seed)
    out = geometry.shape[0]
    codes = torch.randint(-127, 128, geometry.shape, generator=generator, dtype=torch.int8)
    scales = torch.rand(1 if options.pop("per_tensor", False) else out, generator=generator) * 0.01 + 0.001
    bias = torch.randn(out, generator=generator) if options.pop("with_bias", True) else None
    source = options.pop("source", Grid(0.0173, 0))
    inside = geometry.shape[1] * geometry.groups
    shape = (5, inside) if geometry.kind == "linear" else (5, inside, 11, 9)
    x = torch.randint(0, source.top + 1, shape, generator=generator, dtype=torch.uint8)
    return Product(geometry, codes, scales, bias, source, **options), x


def exact(p: Product, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
    """Return the product's values before rounding in float64: sums of integers below 2^53, hence exact."""
    y = p.geometry.apply(x.double() - p.source.zero_point, p.codes.double(), None)
    shape = (-1,) if p.geometry.kind == "linear" else (-1, 1, 1)
    y = y * p.source.scale * p.scales.double().reshape(shape)
    y = y if p.bias is None else y + p.bias.double().reshape(shape)
    y = y if other is None else y + other
    return y.clamp(-math.inf if p.low is None else p.low, math.inf if p.high is None else p.high)


def assert_codes(codes: torch.Tensor, values: torch.Tensor, grid: Grid) -> None:
    """Assert that uint8 codes are the nearest ones, half to even; next to a tie either neighbor may stand."""
    wanted = values / grid.scale + grid.zero_point
    assert codes.dtype == torch.uint8
    distance = (codes.double() - wanted.clamp(0, grid.top)).abs()
    assert distance.max() <= 0.5 + 1e-4
    assert len(codes.unique()) > min(grid.top, 60) / 3  # the case does fill its grid


def assert_same(one: torch.Tensor, two: torch.Tensor) -> None:
    """Assert that codes agree in every element, but for one step where another processor breaks a tie otherwise."""
    if one.dtype != torch.uint8:
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)
        return
    distance = (one.int() - two.int()).abs()
    assert distance.max() <= 1 and distance.sum() <= 1e-4 * one.numel()


def grid_for(p: Product, x: torch.Tensor, zero_point: int, top: int = 255) -> Grid:
    """Return a grid that the product's outputs fill, with a few beyond its ends."""
    return Grid(torch.tensor(2.2 * exact(p, x).std().item() / (top / 2)).item(), zero_point, top)


def engines() -> list:
    return [pytest.param(int8.OneDNN, marks=native, id="onednn"), pytest.param(exact_twin, id="twin")]


def exact_twin() -> Simulated:
    return Simulated(torch.float64)


@pytest.mark.parametrize("engine", engines())
@pytest.mark.parametrize("zero_point", [0, 37])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_codes_are_the_exact_sum_rounded_to_the_grid(geometry, zero_point, engine):
    p, x = random_product(geometry, 1, source=Grid(0.0173, zero_point))
    p = Product(p.geometry, p.codes, p.scales, p.bias, p.source, grid_for(p, x, 119))
    assert_codes(engine().product(p)(x), exact(p, x), p.target)


@native
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize(
    "options",
    [{"low": 0.0}, {"with_bias": False}, {"per_tensor": True}, {"low": 0.0, "high": 1.5}, {"source": Grid(0.02, 128)}],
    ids=["relu", "no bias", "one scale", "relu6", "shifted input"],
)
def test_native_codes_equal_the_twin_but_for_broken_ties(geometry, options):
    for seed, top in ((1, 255), (2, 255), (3, 15), (4, 3)):
        p, x = random_product(geometry, seed, **options)
        zero_point = 0 if "low" in options else (top + 1) // 2
        p = Product(p.geometry, p.codes, p.scales, p.bias, p.source, grid_for(p, x, zero_point, top), p.low, p.high)
        assert_same(int8.OneDNN().product(p)(x), exact_twin().product(p)(x))


@native
@pytest.mark.skipif(torch.cpu._is_amx_tile_supported(), reason="oneDNN may choose other layouts for AMX tiles")
@pytest.mark.parametrize("zero_points", [(0, 37), (37, 0)], ids=str)
@pytest.mark.parametrize(
    "geometry, side",
    [
        (Geometry("conv2d", (64, 32, 1, 1)), 32),  # images of 7 x 7 would have other weights
        (Geometry("conv2d", (48, 24, 3, 3), padding=(1, 1)), 9),
        (Geometry("conv2d", (24, 1, 3, 3), padding=(1, 1), groups=24), 10),
    ],
    ids=["1x1", "3x3", "depthwise"],
)
def test_no_call_converts_the_weights_to_another_layout(geometry, side, zero_points, capfd):
    side += zero_points[0]  # a size of its own: torch remembers layouts by size
    for zero_point in zero_points:
        p, _ = random_product(geometry, 12, source=Grid(0.0173, zero_point))
        run = int8.OneDNN().product(p)
        for images in (1, 5):
            x = torch.zeros(images, geometry.shape[1] * geometry.groups, side, side, dtype=torch.uint8)
            x = x.contiguous(memory_format=torch.channels_last)
            run(x)
            capfd.readouterr()
            with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
                run(x)
            log = capfd.readouterr().out
            assert "exec,cpu,convolution" in log and "exec,cpu,reorder" not in log


@native
def test_a_layer_that_meets_images_of_many_sizes_computes_the_same():
    p, _ = random_product(GEOMETRIES["3x3"], 13)
    run = int8.OneDNN().product(p)
    for side in (4, 9, 5, 6, 7, 8, 10, 11, 12, 13, 4):
        x = torch.randint(0, 256, (2, 8, side, side), generator=torch.Generator().manual_seed(side), dtype=torch.uint8)
        assert_same(run(x.contiguous(memory_format=torch.channels_last)), exact_twin().product(p)(x))


@native
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_native_values_equal_the_twin_without_a_target_grid(geometry):
    p, x = random_product(geometry, 5, low=0.0)
    assert_same(int8.OneDNN().product(p)(x), exact_twin().product(p)(x))
    assert torch.allclose(int8.OneDNN().product(p)(x).double(), exact(p, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("engine", engines())
@pytest.mark.parametrize("geometry", [name for name in GEOMETRIES if name != "linear"])
def test_a_shortcut_is_added_to_the_values(engine, geometry):
    p, x = random_product(GEOMETRIES[geometry], 6, low=0.0)
    other = torch.randn(exact(p, x).shape, generator=torch.Generator().manual_seed(7))
    y = engine().product(replace(p, adds=True))(x, other.clone())
    assert y.dtype == torch.float32
    wanted = (exact(replace(p, low=None), x) + other).clamp(min=0)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-5, atol=1e-5)


def test_the_linear_product_is_plain_whole_number_arithmetic():
    p, x = random_product(GEOMETRIES["linear"], 8, source=Grid(0.5, 3), per_tensor=True, with_bias=False)
    sums = (x.numpy().astype(np.int64) - 3) @ p.codes.numpy().astype(np.int64).T
    assert np.allclose(exact_twin().product(p)(x).numpy(), sums * 0.5 * p.scales.item(), rtol=1e-6)


@pytest.mark.parametrize("size, weight, fits", [(66_311, 127, True), (66_312, 127, False), (8_421_504, -1, True)])
def test_sums_that_might_not_fit_in_32_bits_are_known(size, weight, fits):
    geometry = Geometry("linear", (2, size))
    codes = torch.zeros(geometry.shape, dtype=torch.int8)
    codes[1] = weight
    assert (size * abs(weight) * 255 < 2**31) is fits
    assert Product(geometry, codes, torch.ones(1), None, Grid(1.0, 0)).sums_fit() is fits


@native
def test_the_largest_sum_that_fits_is_exact():
    geometry = Geometry("linear", (1, 66_311))
    for weight, zero_point in ((127, 0), (-127, 0), (127, 255), (-127, 255)):
        p = Product(
            geometry, torch.full(geometry.shape, weight, dtype=torch.int8), torch.ones(1), None, Grid(1.0, zero_point)
        )
        for code in (0, 255):
            x = torch.full((1, 66_311), code, dtype=torch.uint8)
            assert int8.OneDNN().product(p)(x).item() == torch.tensor(66_311.0 * weight * (code - zero_point))


@native
def test_the_largest_codes_do_not_saturate():
    geometry = Geometry("conv2d", (16, 64, 3, 3))
    p = Product(geometry, torch.full(geometry.shape, 127, dtype=torch.int8), torch.ones(1), None, Grid(1.0, 0))
    x = torch.full((1, 64, 4, 4), 255, dtype=torch.uint8)
    assert (int8.OneDNN().product(p)(x) == 64 * 9 * 127 * 255).all()


@pytest.mark.parametrize("bits", range(2, 9))
def test_grid_codes_are_those_of_the_activation_quantizer(bits):
    act = ActivationQuantizer.for_range(-1.3, 2.9, bits)
    grid, x = Grid.of(act), torch.randn(10_000, generator=torch.Generator().manual_seed(bits))
    assert torch.equal(grid.codes(x).float(), act.codes(x))
    assert torch.equal((grid.codes(x).float() - grid.zero_point) * grid.scale, act(x))


def test_codes_are_rounded_half_to_even_and_cut_off_at_the_ends_of_the_grid():
    grid = Grid(0.5, 3, 15)
    x = torch.tensor([-1e30, -math.inf, -1.75, -1.5, -0.75, -0.25, 0.0, 0.25, 0.75, 5.75, 6.25, 1e30, math.inf])
    assert grid.codes(x).tolist() == [0, 0, 0, 0, 1, 3, 3, 3, 5, 15, 15, 15, 15]


def test_a_product_of_a_coded_layer_means_what_the_layer_means():
    geometry = GEOMETRIES["3x3"]
    weight = torch.randn(geometry.shape, generator=torch.Generator().manual_seed(9))
    layer = Quantized(geometry, weight, torch.full(geometry.per_output, 0.02), 8, torch.arange(16.0))
    layer.act = ActivationQuantizer.for_range(0.0, 3.0)
    x = torch.rand(2, 8, 7, 7, generator=torch.Generator().manual_seed(10)) * 3
    grid = Grid.of(layer.act)
    y = exact_twin().product(Product.of(layer, grid))(grid.codes(x))
    assert torch.allclose(y, layer(x), rtol=1e-4, atol=1e-4)


WINDOWS = {
    "2x2": Window((2, 2), (2, 2), (0, 0)),
    "3x3 overlapping": Window((3, 3), (2, 2), (0, 0)),
    "padded": Window((3, 3), (2, 2), (1, 1)),
    "ceil": Window((3, 3), (2, 2), (0, 0), (1, 1), True),
    "dilated": Window((2, 2), (1, 1), (0, 0), (2, 2)),
    "tall": Window((3, 1), (2, 1), (0, 0)),
}


@pytest.mark.parametrize("engine", engines())
@pytest.mark.parametrize("channels", [3, 32, 50])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_max_pooling_of_codes_is_max_pooling_of_numbers(engine, channels, window):
    x = torch.randint(0, 256, (2, channels, 13, 10), generator=torch.Generator().manual_seed(11), dtype=torch.uint8)
    x = x.contiguous(memory_format=torch.channels_last)
    y = F.max_pool2d(x.double(), window.kernel, window.stride, window.padding, window.dilation, window.ceil_mode)
    assert torch.equal(engine().max_pool(window)(x).double(), y)


def test_without_vnni_the_engine_is_simulated_and_the_reason_is_given(monkeypatch):
    monkeypatch.setattr(int8, "has_vnni", lambda: False)
    found = int8.available.__wrapped__()
    assert found.name == "simulated" and "VNNI" in found.reason


def test_saturating_products_are_found_out(monkeypatch):
    monkeypatch.setattr(int8, "has_vnni", lambda: True)
    monkeypatch.setattr(int8, "sums_exactly", lambda: False)
    found = int8.available.__wrapped__()
    assert found.name == "simulated" and "saturate" in found.reason


def test_only_one_file_names_the_operators_of_onednn():
    folder = Path(compedu.deployment.__file__).parent.parent
    sources = {path.name: path.read_text() for path in folder.rglob("*.py")}
    assert {name for name, text in sources.items() if "ops.onednn" in text or "ops.quantized" in text} == {"int8.py"}
