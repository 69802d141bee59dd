"""Quantized weights: small integers times a scale; the latent weights are trained through the rounding."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from compedu.forms import declared
from compedu.forms.activation import RoundOnGrid
from compedu.forms.form import Geometry
from compedu.forms.masked import mask_from, positions
from compedu.forms.parts import Codes, Floats, Part
from compedu.forms.rounded import Rounded, blocks_shape, over_blocks

MOST_BITS = 16  # of a code in a file
INT8_BITS = 8
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}  # weights in half precision have scales in float32


def top_code(bits: int) -> int:
    """Return the largest code of so many bits: that of two's complement, the lowest being left out; 1 for one bit.

    >>> top_code(8), top_code(1)
    (127, 1)
    """
    return max(2 ** (bits - 1) - 1, 1)


def spread(values: Tensor, shape: tuple[int, ...], group: int | None) -> Tensor:
    """Return `values`, one for each scale of weights of `shape`, so that they broadcast against the weights.

    With a `group`, `values` are of shape (out, groups): one for so many inputs in a row.
    """
    return values if group is None else over_blocks(values, shape, group)


class Quantized(Rounded):
    """A dense layer with weight scale * code, code in -(2^(bits-1) - 1) .. 2^(bits-1) - 1, or -1 and +1 for one bit.

    With a `zero_point` the grid is affine: code + zero_point in 0 .. 2^bits - 1. `scale` (float32) and `zero_point`
    (int32) are a single number, one per output channel, of shape (out, 1, ...), or with a `group` one for so many
    inputs of each output, of shape (out, groups). Weights outside an optional `mask` are exactly zero. `latent` holds
    the latent weights that fine-tuning moves (Jacob et al. 2018, section 3, arXiv:1712.05877).
    """

    zero_point: Tensor | None

    def __init__(
        self,
        geometry: Geometry,
        weight: Tensor,
        scale: Tensor,
        bits: int,
        bias: Tensor | None,
        mask: Tensor | None = None,
        *,
        zero_point: Tensor | None = None,
        group: int | None = None,
    ):
        super().__init__(geometry, weight, scale, bias, mask)
        self.bits = bits
        self.group = group
        self.register_buffer("zero_point", None if zero_point is None else zero_point.to(torch.int32).clone())

    @property
    def signs(self) -> bool:
        """Whether there are only the codes -1 and +1."""
        return self.bits == 1 and self.zero_point is None

    @property
    def fits_int8(self) -> bool:
        """Whether integer products can take the codes as they are: int8, with one scale for an output."""
        return self.bits <= INT8_BITS and self.zero_point is None and self.group is None

    @property
    def code_range(self) -> tuple[Tensor, Tensor]:
        """The smallest and the largest code, broadcast against the weight."""
        if self.zero_point is None:
            top = torch.tensor(top_code(self.bits), device=self.scale.device)
            return -top, top
        zero_point = spread(self.zero_point, self.geometry.shape, self.group)
        return -zero_point, 2**self.bits - 1 - zero_point

    def codes(self) -> Tensor:
        """Return the codes, of the weight's shape: int8, or int32 where that is too small."""
        weight = self.latent.detach()
        if self.signs:
            codes = torch.where(weight < 0, -1, 1)
        else:
            codes = torch.round(weight.to(self.precise) / self.grid_step).clamp(*self.code_range)
        wide = self.bits > INT8_BITS or self.zero_point is not None
        return (codes * self.mask).to(torch.int32 if wide else torch.int8)

    @property
    def precise(self) -> torch.dtype:
        """The precision in which weights are divided by the scale: half precision would round the quotient."""
        return torch.promote_types(self.latent.dtype, torch.float32)

    def dense(self) -> Tensor:
        """Return scale * code; gradients reach the latent weights by the straight-through estimator."""
        weight = self.latent.to(self.precise)
        step = self.grid_step
        if self.signs:
            rounded = SignTimesScale.apply(weight, step)
        elif self.zero_point is None:
            top = top_code(self.bits)
            rounded = RoundOnGrid.apply(weight, step, torch.zeros_like(step), -top, top)
        else:
            zero_point = spread(self.zero_point, self.geometry.shape, self.group)
            rounded = RoundOnGrid.apply(weight, step, zero_point, 0, 2**self.bits - 1)
        return (rounded * self.mask).to(self.latent.dtype)

    def stored_weight(self) -> dict[str, Part]:
        """Return the codes of the kept weights, their positions unless all are kept, scales and zero-points."""
        kept = self.codes()[self.mask]
        scale: dict[str, Part] = {"scale": Floats(self.scale, "codebook")}
        if self.signs:
            codes = Codes((kept + 1) // 2, 1, signed=False)
        elif self.zero_point is None:
            codes = Codes(kept, self.bits, signed=True)
        else:
            zero_point = spread(self.zero_point, self.geometry.shape, self.group).expand_as(self.mask)
            codes = Codes(kept + zero_point[self.mask], self.bits, signed=False)
            scale["zero_point"] = Codes(self.zero_point, self.bits, signed=False, role="codebook")
        return {"codes": codes} | positions(self.mask) | scale

    def settings(self) -> dict[str, Any]:
        """Return the bits of a weight, the inputs of a group, and the type of the weights if not that of the scales."""
        own = str(self.latent.dtype).removeprefix("torch.")
        group = {} if self.group is None else {"group": self.group}
        return {"bits": self.bits} | group | ({"dtype": own} if self.latent.dtype != self.scale.dtype else {})

    @property
    def levels(self) -> int:
        """How many values a code has: all, but for the lowest of two's complement from two bits on."""
        return 2**self.bits - (self.bits > 1 and self.zero_point is None)

    @property
    def grid_step(self) -> Tensor:
        """The scale, broadcast against the weight."""
        return spread(self.scale, self.geometry.shape, self.group)

    @classmethod
    def check_declared(cls, geometry: Geometry, settings: Mapping[str, Any], parts: declared.Parts) -> torch.dtype:
        """Check the codes of the kept weights, their positions, their scales and zero-points."""
        declared.only(settings, "bits", "dtype", "group")
        declared.only(parts, "codes", "positions", "scale", "zero_point", "bias")
        bits = settings.get("bits")
        if type(bits) is not int or not 1 <= bits <= MOST_BITS:
            raise ValueError(f"weights of {bits!r} bits; allowed are 1 to {MOST_BITS}")
        signed = bits > 1 and "zero_point" not in parts
        declared.kept(geometry.shape, parts, "codes", declared.codes(parts, "codes", bits, signed))
        shapes = [(), geometry.per_output]
        if "group" in settings:
            shapes = [_grouped(geometry.shape, settings["group"])]
        dtype = declared.floats(parts, "scale", *shapes)
        if "zero_point" in parts:
            shape = declared.codes(parts, "zero_point", bits, False)
            declared.need(
                shape == declared.shape_of(parts, "scale"), f"zero-points of the shape {shape} beside the scales"
            )
        if "dtype" in settings:
            declared.need(settings["dtype"] in HALVES, f"weights of the type {settings['dtype']!r}")
            dtype = HALVES[settings["dtype"]]
        return declared.bias(parts, "bias", geometry.shape[0], dtype)

    @classmethod
    def restore(cls, geometry: Geometry, settings: dict[str, Any], parts: dict[str, Tensor]) -> "Quantized":
        """Rebuild the layer; the latent weights are the rounded ones."""
        mask = mask_from(parts, geometry.shape)
        scale = parts["scale"]
        group = settings.get("group")
        kept = parts["codes"].to(scale.dtype)
        zero_point = parts.get("zero_point")
        if zero_point is not None:
            kept = kept - spread(zero_point.to(scale.dtype), geometry.shape, group).expand(geometry.shape)[mask]
        codes = scale.new_zeros(geometry.shape)
        codes[mask] = 2 * kept - 1 if settings["bits"] == 1 and zero_point is None else kept
        weight = codes * spread(scale, geometry.shape, group)
        weight = weight.to(HALVES[settings["dtype"]] if "dtype" in settings else scale.dtype)
        bias = parts.get("bias")
        return cls(geometry, weight, scale, settings["bits"], bias, mask, zero_point=zero_point, group=group)

    def extra_repr(self) -> str:
        """Show shape, bits of a weight and kind of grid in the printed model."""
        affine = "" if self.zero_point is None else ", affine"
        group = "" if self.group is None else f", group={self.group}"
        return f"{super().extra_repr()}, bits={self.bits}{affine}{group}"


def _grouped(shape: tuple[int, ...], group: Any) -> tuple[int, int]:
    """Return the shape of the scales of weights of `shape`, one for each `group` of inputs, or raise `ValueError`."""
    inputs = math.prod(shape[1:])
    fits = type(group) is int and 1 <= group < inputs
    declared.need(fits, f"groups of {group!r} inputs; allowed are 1 to {inputs - 1}")
    return blocks_shape(shape, group)


class SignTimesScale(torch.autograd.Function):
    """Return scale * sign(weight), sign(0) = +1; where |weight| <= 1 the gradient passes, as that of sign is 0.

    The straight-through estimator of Courbariaux, Hubara et al. (2016, arXiv:1602.02830, section 1.3), with the scale
    of Rastegari et al. (2016, arXiv:1603.05279, section 3.1), which is not trained.
    """

    @staticmethod
    def forward(ctx, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight.abs() <= 1)
        return torch.where(weight < 0, -scale, scale)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (inside,) = ctx.saved_tensors
        return gradient * inside, None
