"""Number formats of a few bits: the values of their codes, and the kind of scale that a block of numbers shares."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import torch
from torch import Tensor

from compedu.errors import Skip
from compedu.forms import declared
from compedu.forms.parts import Codes, Floats, Part


class Scale(ABC):
    """What a block of numbers is divided by before they are rounded, and how a file holds it; always positive."""

    @abstractmethod
    def of(self, largest: Tensor, top: float) -> Tensor:
        """Return the scale, float32, of blocks with these largest absolute values, for a format up to `top`.

        Blocks too small for the smallest scale, also those of zeros, have that one. Raises `Skip` where one is too
        large for the largest.
        """

    @abstractmethod
    def part(self, scale: Tensor) -> Part:
        """Return what a file holds of scales."""

    @abstractmethod
    def check(self, parts: declared.Parts, name: str, shape: tuple[int, ...]) -> None:
        """Raise `ValueError` unless a file declares the part `name` as scales of this shape."""

    @abstractmethod
    def read(self, part: Tensor) -> Tensor:
        """Return the scales that the tensor of a part stands for; raise `ValueError` for one that is no scale."""


class PowerOfTwo(Scale):
    """E8M0: an exponent of eight bits, 2^-127 to 2^127 (OCP Microscaling Formats 1.0, 2023, section 5.4.1)."""

    BIAS = 127
    LAST = 254  # the code 255 stands for NaN

    def of(self, largest: Tensor, top: float) -> Tensor:
        """Return 2^(floor(log2 largest) - floor(log2 top)): the specification, section 6.3."""
        exponent = floor_log2(largest) - int(floor_log2(torch.tensor(top)))
        exponent = torch.where(largest > 0, exponent, -self.BIAS).clamp(min=-self.BIAS)
        if bool((exponent > self.BIAS).any()):
            raise Skip(f"its largest weight {float(largest.max()):.3g} needs a scale above 2^{self.BIAS}, the largest")
        return two_to(exponent)

    def part(self, scale: Tensor) -> Codes:
        """Return the biased exponents."""
        return Codes(floor_log2(scale) + self.BIAS, 8, signed=False, role="codebook")

    def check(self, parts: declared.Parts, name: str, shape: tuple[int, ...]) -> None:
        """Check the exponents."""
        found = declared.codes(parts, name, 8, signed=False)
        declared.need(found == shape, f"{name!r} has the shape {found} instead of {shape}")

    def read(self, part: Tensor) -> Tensor:
        """Return the powers of two."""
        declared.need(not bool((part > self.LAST).any()), f"a scale of NaN, the exponent {self.LAST + 1}")
        return two_to(part - self.BIAS)


class HalfPrecision(Scale):
    """A float16 number, 2^-24 to 65504."""

    LEAST = 2.0**-24

    def of(self, largest: Tensor, top: float) -> Tensor:
        """Return largest / top, rounded to float16."""
        scale = (largest / top).to(torch.float16)
        if bool(scale.isinf().any()):
            raise Skip(f"its largest weight {float(largest.max()):.3g} needs a scale above 65504, the largest")
        return scale.float().clamp(min=self.LEAST)

    def part(self, scale: Tensor) -> Floats:
        """Return the scales in float16, which they are numbers of."""
        return Floats(scale.to(torch.float16), "codebook")

    def check(self, parts: declared.Parts, name: str, shape: tuple[int, ...]) -> None:
        """Check the numbers."""
        dtype = declared.floats(parts, name, shape)
        declared.need(dtype == torch.float16, f"{name!r} is of {dtype} instead of float16")

    def read(self, part: Tensor) -> Tensor:
        """Return the scales in float32."""
        usable = part.isfinite() & (part > 0)
        declared.need(bool(usable.all()), "a scale that is not a positive number")
        return part.float()


@dataclass(frozen=True)
class NumberFormat:
    """The format `name`: each number is one of `values`, in order, a code of `bits` bits, times the scale of its block.

    `block` is how many numbers share a scale in the source of the format. One of the values is 0.
    """

    name: str
    bits: int
    block: int
    values: tuple[float, ...]
    scale: Scale

    @property
    def zero(self) -> int:
        """The code of the value 0."""
        return self.values.index(0.0)

    @property
    def top(self) -> float:
        """The largest value."""
        return self.values[-1]

    def table(self, dtype: torch.dtype) -> Tensor:
        """Return the values of the codes."""
        return torch.tensor(self.values, dtype=dtype)

    def nearest(self, x: Tensor) -> Tensor:
        """Return the codes of the values nearest to `x`, int64; beyond the ends, those of the ends.

        A tie goes to the code an even number of places from that of 0: in a floating-point format that is the even
        mantissa, as IEEE 754 rounds.
        """
        return torch.bucketize(x.detach(), _thresholds(self, x.dtype), right=True)

    def in_range(self, x: Tensor) -> Tensor:
        """Return where `x` is rounded, not clipped: up to half a step beyond the ends, as on a uniform grid."""
        low = self.values[0] - (self.values[1] - self.values[0]) / 2
        high = self.values[-1] + (self.values[-1] - self.values[-2]) / 2
        return (x >= low) & (x <= high)


@lru_cache(maxsize=32)
def _thresholds(numbers: NumberFormat, dtype: torch.dtype) -> Tensor:
    """Return the least number of `dtype` that has each code, but for the first."""
    values = numbers.table(torch.float64)
    middle = ((values[1:] + values[:-1]) / 2).to(dtype)
    upper_is_even = (torch.arange(1, len(values)) - numbers.zero) % 2 == 0
    return torch.where(upper_is_even, middle, torch.nextafter(middle, torch.tensor(math.inf, dtype=dtype)))


def floor_log2(x: Tensor) -> Tensor:
    """Return floor(log2 x) of positive numbers, exactly, int32.

    >>> floor_log2(torch.tensor([1.0, 7.9, 8.0, 1e-45])).tolist()
    [0, 2, 3, -149]
    """
    return torch.frexp(x).exponent - 1  # x = m 2^e with m in [1/2, 1)


def two_to(exponent: Tensor) -> Tensor:
    """Return 2^exponent in float32, from -149 to 127: by its bits, as a power function may be off by the last one."""
    return (exponent.long() + 1023 << 52).view(torch.float64).float()


def minifloat(exponent_bits: int, mantissa_bits: int, reserved: int = 0) -> tuple[float, ...]:
    """Return the values of a floating-point format with a sign, a bias of 2^(exponent bits - 1) - 1, and subnormals.

    The last `reserved` patterns of either sign stand for infinity or NaN. Both zeros count as one.

    >>> minifloat(2, 1)[7:]
    (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    """
    bias = 2 ** (exponent_bits - 1) - 1
    positive = []
    for pattern in range(1, 2 ** (exponent_bits + mantissa_bits) - reserved):
        exponent, fraction = divmod(pattern, 2**mantissa_bits)
        hidden = 0 if exponent == 0 else 2**mantissa_bits  # subnormal numbers have no leading one
        positive.append((hidden + fraction) * 2.0 ** (max(exponent, 1) - bias - mantissa_bits))
    return (*(-value for value in reversed(positive)), 0.0, *positive)


def normal_float() -> tuple[float, ...]:
    """Return the 16 values of NormalFloat: quantiles of the normal distribution, divided by the largest.

    Eight are evenly spaced in probability from 1/2 to 1 - delta, and seven from delta to below 1/2, delta being the
    mean of 1/32 and 1/30, so that 0 is one of them (Dettmers et al. 2023, section 3, with the values in appendix E;
    those of the authors' code differ by at most 2e-7, as it rounds delta).
    """
    half = 0.5 - (1 / 32 + 1 / 30) / 2
    quantile = NormalDist().inv_cdf
    positive = [quantile(0.5 + half * step / 8) for step in range(1, 9)]
    negative = [-quantile(0.5 + half * step / 7) for step in range(7, 0, -1)]
    return tuple(value / positive[-1] for value in (*negative, 0.0, *positive))


FORMATS: dict[str, NumberFormat] = {
    numbers.name: numbers
    for numbers in (
        NumberFormat("nf4", 4, 64, normal_float(), HalfPrecision()),
        NumberFormat("mxfp4", 4, 32, minifloat(2, 1), PowerOfTwo()),
        NumberFormat("mxfp6_e2m3", 6, 32, minifloat(2, 3), PowerOfTwo()),
        NumberFormat("mxfp6_e3m2", 6, 32, minifloat(3, 2), PowerOfTwo()),
        NumberFormat("mxfp8_e4m3", 8, 32, minifloat(4, 3, reserved=1), PowerOfTwo()),
        NumberFormat("mxfp8_e5m2", 8, 32, minifloat(5, 2, reserved=4), PowerOfTwo()),
        NumberFormat("mxint8", 8, 32, tuple(code / 64 for code in range(-127, 128)), PowerOfTwo()),
    )
}
