"""Quantized weights: small integers times a scale; the latent weights are trained through the rounding."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from compedu.forms import declared
from compedu.forms.activation import RoundOnGrid, Scaled
from compedu.forms.form import Geometry, LatentForm
from compedu.forms.masked import mask_from, positions
from compedu.forms.parts import Codes, Floats, Part

MOST_BITS = 8  # codes are of type int8
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}  # weights in half precision have scales in float32


def top_code(bits: int) -> int:
    """Return the largest code of so many bits: that of two's complement, the lowest being left out; 1 for one bit.

    >>> top_code(8), top_code(1)
    (127, 1)
    """
    return max(2 ** (bits - 1) - 1, 1)


class Quantized(Scaled, LatentForm):
    """A dense layer with weight scale * code, code in -(2^(bits-1) - 1) .. 2^(bits-1) - 1, or -1 and +1 for one bit.

    `scale` is float32, a single one or one per output channel, of shape (out, 1, ...). Weights outside an optional
    `mask` are exactly zero. `latent` holds the latent weights that fine-tuning moves (Jacob et al. 2018, section 3,
    arXiv:1712.05877).
    """

    mask: Tensor

    def __init__(
        self,
        geometry: Geometry,
        weight: Tensor,
        scale: Tensor,
        bits: int,
        bias: Tensor | None,
        mask: Tensor | None = None,
    ):
        super().__init__(geometry, weight.detach().clone(), bias)
        self.bits = bits
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool) if mask is None else mask.clone())

    @property
    def top(self) -> int:
        """The largest code."""
        return top_code(self.bits)

    def codes(self) -> Tensor:
        """Return the codes, int8, of the weight's shape."""
        if self.bits == 1:
            codes = torch.where(self.latent.detach() < 0, -1, 1)
        else:
            codes = torch.round(self.latent.detach().to(self.precise) / self.scale).clamp(-self.top, self.top)
        return (codes * self.mask).to(torch.int8)

    @property
    def precise(self) -> torch.dtype:
        """The precision in which weights are divided by the scale: half precision would round the quotient."""
        return torch.promote_types(self.latent.dtype, torch.float32)

    def dense(self) -> Tensor:
        """Return scale * code; gradients reach the latent weights by the straight-through estimator."""
        weight = self.latent.to(self.precise)
        if self.bits == 1:
            rounded = SignTimesScale.apply(weight, self.scale)
        else:
            rounded = RoundOnGrid.apply(weight, self.scale, torch.zeros_like(self.scale), -self.top, self.top)
        return (rounded * self.mask).to(self.latent.dtype)

    def stored_weight(self) -> dict[str, Part]:
        """Return the codes of the kept weights, their positions unless all are kept, and the scales."""
        kept = self.codes()[self.mask]
        codes = Codes((kept + 1) // 2, 1, signed=False) if self.bits == 1 else Codes(kept, self.bits, signed=True)
        return {"codes": codes} | positions(self.mask) | {"scale": Floats(self.scale, "codebook")}

    def settings(self) -> dict[str, Any]:
        """Return the bit-width of the weights, and their type when decoded where it is not that of the scales."""
        own = str(self.latent.dtype).removeprefix("torch.")
        return {"bits": self.bits} | ({"dtype": own} if self.latent.dtype != self.scale.dtype else {})

    @property
    def levels(self) -> int:
        """How many values a code has: two for one bit, else all but the lowest of two's complement."""
        return 2**self.bits - (self.bits > 1)

    @property
    def grid_step(self) -> Tensor:
        """The scale."""
        return self.scale

    def weights_before_rounding(self) -> Tensor:
        """Return the latent weights."""
        return self.latent

    def kept_weights(self) -> Tensor:
        """Return the mask."""
        return self.mask

    @classmethod
    def check_declared(cls, geometry: Geometry, settings: Mapping[str, Any], parts: declared.Parts) -> torch.dtype:
        """Check the codes of the kept weights, their positions and their scales."""
        declared.only(settings, "bits", "dtype")
        declared.only(parts, "codes", "positions", "scale", "bias")
        bits = settings.get("bits")
        fits = type(bits) is int and 1 <= bits <= MOST_BITS
        declared.need(fits, f"weights of {bits!r} bits; allowed are 1 to {MOST_BITS}")
        declared.kept(geometry.shape, parts, "codes", declared.codes(parts, "codes", bits, bits > 1))
        dtype = declared.floats(parts, "scale", (), geometry.per_output)
        if "dtype" in settings:
            declared.need(settings["dtype"] in HALVES, f"weights of the type {settings['dtype']!r}")
            dtype = HALVES[settings["dtype"]]
        return declared.bias(parts, "bias", geometry.shape[0], dtype)

    @classmethod
    def restore(cls, geometry: Geometry, settings: dict[str, Any], parts: dict[str, Tensor]) -> "Quantized":
        """Rebuild the layer; the latent weights are the rounded ones."""
        mask = mask_from(parts, geometry.shape)
        scale = parts["scale"]
        kept = parts["codes"].to(parts["scale"].dtype)
        codes = scale.new_zeros(geometry.shape)
        codes[mask] = 2 * kept - 1 if settings["bits"] == 1 else kept
        weight = (codes * scale).to(HALVES[settings["dtype"]] if "dtype" in settings else scale.dtype)
        return cls(geometry, weight, scale, settings["bits"], parts.get("bias"), mask)

    def extra_repr(self) -> str:
        """Show shape and bit-width in the printed model."""
        return f"{super().extra_repr()}, bits={self.bits}"


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
