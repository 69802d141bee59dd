"""Number formats: values decoded bit by bit, rounding by trying every value, scales by the specification's words."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from compedu.errors import Skip
from compedu.forms import BlockFloats, Geometry
from compedu.forms.block_floats import RoundToValues
from compedu.forms.number_formats import FORMATS, PowerOfTwo, two_to
from compedu.methods.quantization.block_formats import block_scales

MX = [name for name in FORMATS if name != "nf4"]
FLOATS = {"mxfp4": (2, 1), "mxfp6_e2m3": (2, 3), "mxfp6_e3m2": (3, 2), "mxfp8_e4m3": (4, 3), "mxfp8_e5m2": (5, 2)}


def is_number(name: str, pattern: int) -> bool:
    """Whether a pattern without its sign stands for a number, by the tables of the specification (section 5.3)."""
    return {"mxfp8_e4m3": pattern != 0b1111111, "mxfp8_e5m2": pattern < 0b1111100}.get(name, True)


def patterns(name: str) -> dict[int, Fraction]:
    """All bit patterns of an element that stand for numbers, decoded field by field, with their values."""
    if name == "mxint8":  # two's complement with six bits behind the point; -2 is left out, as sections 5.3.4 allows
        return {code & 0xFF: Fraction(code, 64) for code in range(-127, 128)}
    exponent_bits, mantissa_bits = FLOATS[name]
    found = {}
    for pattern in range(2 ** (exponent_bits + mantissa_bits)):
        if is_number(name, pattern):
            written = f"{pattern:0{exponent_bits + mantissa_bits}b}"
            exponent, mantissa = int(written[:exponent_bits], 2), written[exponent_bits:]
            lead, power = ("0", 1) if exponent == 0 else ("1", exponent)
            significand = sum(Fraction(int(bit), 2**place) for place, bit in enumerate(lead + mantissa))
            value = significand * Fraction(2) ** (power - (2 ** (exponent_bits - 1) - 1))
            found[pattern] = value
            found[pattern | 1 << exponent_bits + mantissa_bits] = -value
    return found


def quantized_block(name: str, block: list[float]) -> list[float]:
    """One block, rounded as section 6.3 says: exact, and by trying every value."""
    values = patterns(name)
    top = max(values.values())
    largest = max(abs(Fraction(weight)) for weight in block)
    exponent = next((e for e in range(200, -400, -1) if Fraction(2) ** e <= largest), -400)
    exponent -= next(e for e in range(20, -20, -1) if Fraction(2) ** e <= top)
    scale = Fraction(2) ** max(exponent, -127)

    def nearest(weight: float) -> float:
        wanted = Fraction(weight) / scale
        least = min(abs(value - wanted) for value in values.values())
        tied = [pattern for pattern, value in values.items() if abs(value - wanted) == least]
        even = [pattern for pattern in tied if pattern % 2 == 0]
        return float(values[(even or tied)[0]] * scale)

    return [nearest(weight) for weight in block]


def in_format(weight: torch.Tensor, name: str, block: int) -> BlockFloats:
    geometry = Geometry("linear", tuple(weight.shape))
    return BlockFloats(geometry, weight, block_scales(weight, geometry, FORMATS[name], block), name, block, None)


@pytest.mark.parametrize("name", MX)
def test_the_values_are_those_of_all_bit_patterns(name):
    assert list(map(Fraction, FORMATS[name].values)) == sorted(set(patterns(name).values()))
    assert len(FORMATS[name].values) <= 2 ** FORMATS[name].bits


def test_the_largest_values_are_those_that_the_specification_prints():
    tops = {"mxfp4": 6, "mxfp6_e2m3": 7.5, "mxfp6_e3m2": 28, "mxfp8_e4m3": 448, "mxfp8_e5m2": 57344, "mxint8": 127 / 64}
    smallest = {"mxfp4": 0.5, "mxfp6_e2m3": 0.125, "mxfp6_e3m2": 0.0625, "mxfp8_e4m3": 2**-9, "mxfp8_e5m2": 2**-16}
    assert {name: FORMATS[name].top for name in MX} == tops
    assert {name: FORMATS[name].values[FORMATS[name].zero + 1] for name in smallest} == smallest
    assert {name: form.bits for name, form in FORMATS.items()} == {
        "nf4": 4, "mxfp4": 4, "mxfp6_e2m3": 6, "mxfp6_e3m2": 6, "mxfp8_e4m3": 8, "mxfp8_e5m2": 8, "mxint8": 8,
    }  # fmt: skip


@pytest.mark.parametrize("name", MX)
@pytest.mark.parametrize("size", [1.0, 1e-3, 3e38, 1e-36, 1e-40])
def test_weights_become_what_trying_every_value_finds(name, size):
    """Random weights, multiples of a quarter of the smallest step (ties), zeros, single weights, short last blocks."""
    draw = torch.Generator().manual_seed(0)
    random = torch.randn(4, 21, generator=draw) * (size / 6)
    ties = torch.randint(-255, 256, (4, 21), generator=draw) * (2.0 ** math.floor(math.log2(size)) / 256)
    weight = torch.cat([random, ties, torch.zeros(1, 21)])
    weight[0, 8:16] = 0
    for rows, block in ((weight, 8), (weight[:2, :1], 8), (weight[:1], 1), (weight[4:6], 1000)):
        found = in_format(rows, name, block).dense()
        for row, made in zip(rows.tolist(), found.tolist(), strict=True):
            for start in range(0, len(row), block):
                assert made[start : start + block] == quantized_block(name, row[start : start + block])


@pytest.mark.parametrize("name, dtype", [("mxfp8_e4m3", torch.float8_e4m3fn), ("mxfp8_e5m2", torch.float8_e5m2)])
def test_eight_bit_floats_are_those_of_torch(name, dtype):
    numbers = FORMATS[name]
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(20000, generator=draw) * 2.0 ** torch.randint(-18, 16, (20000,), generator=draw)
    middles = (numbers.table(torch.float32)[1:] + numbers.table(torch.float32)[:-1]) / 2
    x = torch.cat([x[x.abs() <= numbers.top], middles, middles * (1 + 2**-20), middles * (1 - 2**-20)])
    assert torch.equal(numbers.table(torch.float32)[numbers.nearest(x)], x.to(dtype).float())
    assert torch.equal(numbers.table(torch.float64)[numbers.nearest(x.double())], x.to(dtype).double())


# bitsandbytes/functional.py, get_4bit_type("nf4"), by the paper's authors; Dettmers et al. 2023, appendix E, alike.
PUBLISHED = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


def test_normal_floats_are_the_published_ones():
    numbers = FORMATS["nf4"]
    assert np.allclose(numbers.values, PUBLISHED, rtol=0, atol=2e-7) and (numbers.bits, numbers.block) == (4, 64)
    assert numbers.values[0] == -1 and numbers.values[7] == 0 and numbers.values[15] == 1


def test_normal_floats_are_nearest_to_the_largest_weight_times_a_published_value():
    weight = torch.randn(5, 150, generator=torch.Generator().manual_seed(1))
    form = in_format(weight, "nf4", 64)
    for row, codes, made in zip(weight, form.codes(), form.dense().detach(), strict=True):
        for start in (0, 64, 128):
            part = row[start : start + 64].numpy()
            scale = np.abs(part).max().astype(np.float16).astype(np.float64)
            distances = np.abs(part[:, None] - scale * np.array(PUBLISHED))
            assert np.array_equal(codes[start : start + 64], distances.argmin(1))
            assert np.allclose(made[start : start + 64], scale * np.array(PUBLISHED)[distances.argmin(1)], atol=1e-6)


# Scales at their ends


def test_powers_of_two_are_exact_as_numbers_and_as_exponents():
    exponents = torch.arange(-149, 128)
    assert two_to(exponents).tolist() == [2.0**e for e in range(-149, 128)]
    scale = two_to(torch.arange(-127, 128))
    part = PowerOfTwo().part(scale)
    assert part.tensor.tolist() == list(range(255)) and (part.bits, part.signed, part.role) == (8, False, "codebook")
    assert torch.equal(PowerOfTwo().read(part.tensor), scale)


@pytest.mark.parametrize("name", FORMATS)
def test_blocks_of_zeros_and_those_below_the_smallest_scale_have_that_one(name):
    smallest = 2.0**-24 if name == "nf4" else 2.0**-127
    weight = torch.tensor([[0.0, 0.0], [1e-45, -1e-45], [smallest, smallest / 300]])
    form = in_format(weight, name, 2)
    assert form.scale[:2].flatten().tolist() == [smallest] * 2
    assert not form.dense()[:2].any() and form.dense()[2].tolist() == [smallest, pytest.approx(0, abs=smallest / 99)]


@pytest.mark.parametrize("name", FORMATS)
def test_a_weight_above_the_largest_scale_is_refused(name):
    top = FORMATS[name].top
    limit = 65504.0 if name == "nf4" else math.ldexp(1.0, 128 + math.floor(math.log2(top)))
    fits = torch.tensor([[limit, 1.0]] if name == "nf4" else [[limit * (1 - 2**-50), 1.0]], dtype=torch.float64)
    form = in_format(fits, name, 2)
    assert form.dense()[0, 0] == top * form.scale[0, 0].double() and form.dense().isfinite().all()
    with pytest.raises(Skip, match="its largest weight .* needs a scale above (65504|2\\^127), the largest"):
        in_format(fits * 1.001, name, 2)


@pytest.mark.parametrize("name", MX)
def test_the_largest_single_precision_weight_has_a_code(name):
    most = torch.finfo(torch.float32).max
    assert in_format(torch.tensor([[most, -most]]), name, 2).dense().isfinite().all()


# Training


@pytest.mark.parametrize("name", FORMATS)
def test_the_gradient_passes_straight_through_where_no_weight_is_clipped(name):
    numbers = FORMATS[name]
    values = np.array(numbers.values)
    ends = values[0] - np.diff(values)[0] / 2, values[-1] + np.diff(values)[-1] / 2
    units = torch.tensor([ends[0] * 1.01, ends[0] * 0.99, *values, 0.3 * ends[1], ends[1] * 0.99, ends[1] * 1.01])
    weight, scale = (units * 0.25).requires_grad_(), torch.full_like(units, 0.25)
    RoundToValues.apply(weight, scale, numbers).sum().backward()
    assert weight.grad.tolist() == [0.0] + [1.0] * (len(units) - 2) + [0.0]


def test_a_weight_that_is_no_number_stays_none():
    form = in_format(torch.ones(2, 4), "mxfp4", 4)
    form.latent.data[0, 1] = math.nan
    assert form.dense().isnan().sum() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", FORMATS)
def test_half_precision_weights_become_those_of_the_same_numbers_in_single_precision(name, dtype):
    layer = nn.Linear(40, 8)
    weight = torch.randn(8, 40, generator=torch.Generator().manual_seed(0)).mul(1e-3).to(dtype)
    half, single = (in_format(given, name, 16) for given in (weight, weight.float()))
    assert half.scale.dtype == torch.float32 and torch.equal(half.scale, single.scale)
    assert torch.equal(half.codes(), single.codes()) and torch.equal(half.dense(), single.dense().to(dtype))
    assert half.dense().dtype == dtype and half(layer.weight.detach().to(dtype)).isfinite().all()
    assert torch.equal(single.half().scale, half.scale), "a network made half afterwards keeps its scales"
