"""What an integer product is: codes in, integer sums, codes out; every engine computes exactly this."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from compedu.forms import ActivationQuantizer, Geometry, Quantized

_ROUNDING = 1.5 * 2**23  # float32 numbers near it are integers, and the lowest byte of this one is zero


@dataclass(frozen=True)
class Grid:
    """The values scale * (code - zero_point) of unsigned codes 0..top, kept as uint8."""

    scale: float
    zero_point: int
    top: int = 255

    @classmethod
    def of(cls, act: ActivationQuantizer) -> "Grid":
        """Return the grid of an activation quantizer of at most 8 bits."""
        return cls(act.scale.item(), int(act.zero_point), 2**act.bits - 1)

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of float32 values x, none of them NaN, as `ActivationQuantizer.codes` does."""
        steps = torch.div(x, self.scale).clamp_(-self.zero_point, self.top - self.zero_point)
        # The addition rounds half to even and leaves the code in the lowest byte: faster than rounding and casting.
        codes = steps.add_(_ROUNDING).view(torch.int32).to(torch.uint8)
        return codes.add_(self.zero_point) if self.zero_point else codes

    def rounded(self, x: Tensor) -> Tensor:
        """Return the codes of float32 values in the engines' order: times 1 / scale, plus zero-point, half to even."""
        codes = x * (torch.ones(()) / self.scale) + self.zero_point
        return codes.round_().clamp_(0, self.top).to(torch.uint8)


@dataclass(frozen=True, eq=False)
class Product:
    """A linear layer or convolution on codes: clip(scales * source.scale * sum + bias), rounded to `target`.

    sum = codes * (input - source.zero_point), with `codes` int8 of `geometry.shape`; `scales` float32 of shape (1,) or
    (out,); `bias` float32 (out,) or None. Without `target` the result stays float32. `adds`: a second input, float32
    of the output's shape, is added; the result is then float32 too (Jacob et al. 2018, section 2.2, arXiv:1712.05877).
    """

    geometry: Geometry
    codes: Tensor
    scales: Tensor
    bias: Tensor | None
    source: Grid
    target: Grid | None = None
    low: float | None = None
    high: float | None = None
    adds: bool = False

    @classmethod
    def of(cls, layer: Quantized, source: Grid, **options) -> "Product":
        """Return the product that a quantized layer computes on inputs on the grid `source`."""
        bias = None if layer.bias is None else layer.bias.detach().float().clone()
        scales = layer.scale.detach().float().reshape(-1).clone()
        return cls(layer.geometry, layer.codes().contiguous(), scales, bias, source, **options)

    def bounds(self) -> tuple[float | None, float | None]:
        """Return the bounds of the float32 result before rounding: those asked for and, below 8 bits, the grid's.

        An eight-bit grid ends where uint8 does.
        """
        if self.target is None or self.target.top == 255:
            return self.low, self.high
        scale = self.target.scale
        zero_point = self.target.zero_point
        top = self.target.top
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return max(low, -zero_point * scale), min(high, (top - zero_point) * scale)

    def sums_fit(self) -> bool:
        """Return whether every sum, partial ones included, fits in a signed 32-bit integer for any input."""
        # |sum of code * x| <= top * sum of |code|, also of any part of it.
        sums = self.codes.flatten(1).abs().sum(1, dtype=torch.int64)
        return not len(sums) or int(sums.max()) * self.source.top < 2**31

    def output_shape(self, shape: torch.Size) -> torch.Size:
        """Return the shape of a convolution's output for an input of `shape` (N, in, height, width)."""
        g = self.geometry
        sides = (
            (shape[i + 2] + 2 * g.padding[i] - g.dilation[i] * (g.shape[i + 2] - 1) - 1) // g.stride[i] + 1
            for i in (0, 1)
        )
        return torch.Size((shape[0], g.shape[0], *sides))


@dataclass(frozen=True)
class Window:
    """A pooling window."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False
