"""Quantized activations: unsigned codes on an affine grid, rounded in the forward pass, passed through backward."""

import math

import torch
from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.forms.parts import Codes, Floats, Part


class RoundOnGrid(torch.autograd.Function):
    """Round to the grid scale * (code - zero_point), low <= code <= high; the gradient passes inside the grid only.

    The straight-through estimator of Bengio, Leonard and Courville (2013, arXiv:1308.3432) with clipping. A scale that
    requires a gradient gets that of the learned step size (Esser et al. 2020, arXiv:1902.08153, equations 3 and 5);
    there x counts as clipped from the last code on, not only where it would be rounded to a further one.
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        codes = grid_codes(x, scale, zero_point)
        if not ctx.needs_input_grad[1]:
            ctx.save_for_backward((codes >= low) & (codes <= high))
            return codes.clamp_(low, high).sub_(zero_point).mul_(scale).to(x.dtype)  # in place: no further tensors
        steps = codes.clamp_(low, high).sub_(zero_point)
        place = x.to(torch.promote_types(x.dtype, scale.dtype)) / scale + zero_point
        inside = (place > low) & (place < high)
        # d/ds of s round(x / s) is round(x / s) - x / s, with the rounding passed through; outside, the last code.
        ctx.save_for_backward(inside, torch.where(inside, steps + zero_point - place, steps), scale)
        return (steps * scale).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        inside, *learned = ctx.saved_tensors
        along = None
        if learned:
            slopes, scale = learned
            along = (gradient * slopes).sum_to_size(scale.shape)
        return gradient * inside, along, None, None, None


def grid_codes(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Return x / scale + zero_point rounded, not clipped: integers in the precision of `scale` or a better one.

    Half precision can represent neither the scales of small activations nor the codes of large ones.
    """
    return torch.round(x.to(torch.promote_types(x.dtype, scale.dtype)) / scale) + zero_point


class Scaled(nn.Module):
    """A module with a `scale` that half precision would round or lose: it stays in single precision or better."""

    scale: Tensor

    def learn_scale(self, learn: bool) -> None:
        """Make the scale a parameter, which training changes, or a buffer, which it leaves as it is."""
        value = self.scale.detach().clone()
        del self.scale
        if learn:
            self.scale = nn.Parameter(value)
        else:
            self.register_buffer("scale", value)

    def _apply(self, fn, recurse=True):
        before = self.scale.detach().clone()  # of a parameter, the values are replaced in place
        super()._apply(fn, recurse)
        if self.scale.dtype.itemsize < 4:
            learned = isinstance(self.scale, nn.Parameter)
            self.scale = nn.Parameter(before.to(self.scale.device)) if learned else before.to(self.scale.device)
        return self


class ActivationQuantizer(Scaled):
    """Round activations to `bits`-bit unsigned codes: x is about scale * (code - zero_point), code in 0..2^bits - 1.

    `scale` is a positive float32 scalar, `zero_point` an int32 scalar that is itself a code, so that 0 is exact.
    """

    zero_point: Tensor

    def __init__(self, scale: float | Tensor, zero_point: int | Tensor, bits: int = 8):
        super().__init__()
        self.bits = bits
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32).reshape(()).clone())
        self.register_buffer("zero_point", torch.as_tensor(zero_point, dtype=torch.int32).reshape(()).clone())

    @classmethod
    def for_range(cls, low: float, high: float, bits: int = 8) -> "ActivationQuantizer":
        """Return the quantizer whose grid covers [min(low, 0), max(high, 0)]."""
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CompressionError(
                f"activations from {low} to {high} have no grid: its ends must be finite; look for the layer before "
                "them whose values grow without bound"
            )
        low = min(low, 0.0)
        high = max(high, 0.0)
        top = 2**bits - 1
        # A tensor that is always zero needs no step; a step below the smallest normal float32 would round all to zero.
        scale = max((high - low) / top, torch.finfo(torch.float32).tiny) if high > low else 1.0
        return cls(scale, min(max(round(-low / scale), 0), top), bits)

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x`, integers in a float tensor."""
        return grid_codes(x, self.scale, self.zero_point).clamp(0, 2**self.bits - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` rounded to the grid, same shape."""
        return RoundOnGrid.apply(x, self.scale, self.zero_point, 0, 2**self.bits - 1)

    def stored(self) -> dict[str, Part]:
        """Return what a file must hold: scale and zero-point."""
        return {
            "act.scale": Floats(self.scale.reshape(1), "codebook"),
            "act.zero_point": Codes(self.zero_point.reshape(1), self.bits, signed=False, role="codebook"),
        }

    def extra_repr(self) -> str:
        """Show the grid in the printed model."""
        return f"bits={self.bits}, scale={self.scale.item():.4g}, zero_point={self.zero_point.item()}"
