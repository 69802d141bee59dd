"""Quantized activations: unsigned codes on an affine grid, rounded in the forward pass, passed through backwards."""

import torch
from torch import Tensor, nn

from compedu.forms.parts import Codes, Floats, Part


class RoundOnGrid(torch.autograd.Function):
    """Round to the grid scale * (code - zero_point), low <= code <= high; the gradient passes inside the grid only.

    The straight-through estimator of Bengio, Leonard and Courville (2013, arXiv:1308.3432) with clipping.
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        codes = torch.round(x / scale) + zero_point
        ctx.save_for_backward((codes >= low) & (codes <= high))
        return (codes.clamp(low, high) - zero_point) * scale

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None, None


class ActivationQuantizer(nn.Module):
    """Round activations to `bits`-bit unsigned codes: x is about scale * (code - zero_point), code in 0..2^bits - 1.

    `scale` is a positive float32 scalar, `zero_point` an int32 scalar that is itself a code, so that 0 is exact.
    """

    def __init__(self, scale: float | Tensor, zero_point: int | Tensor, bits: int = 8):
        super().__init__()
        self.bits = bits
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32).reshape(()).clone())
        self.register_buffer("zero_point", torch.as_tensor(zero_point, dtype=torch.int32).reshape(()).clone())

    @classmethod
    def for_range(cls, low: float, high: float, bits: int = 8) -> "ActivationQuantizer":
        """Return the quantizer whose grid covers [min(low, 0), max(high, 0)]."""
        low, high = min(low, 0.0), max(high, 0.0)
        top = 2**bits - 1
        scale = (high - low) / top or 1.0  # a tensor that is always zero needs no step
        return cls(scale, min(max(round(-low / scale), 0), top), bits)

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x` as a float tensor of whole numbers."""
        return (torch.round(x / self.scale) + self.zero_point).clamp(0, 2**self.bits - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` rounded to the grid, same shape."""
        return RoundOnGrid.apply(x, self.scale.to(x.dtype), self.zero_point, 0, 2**self.bits - 1)

    def stored(self) -> dict[str, Part]:
        """Return what a file must hold: scale and zero point."""
        return {
            "act.scale": Floats(self.scale.reshape(1), "codebook"),
            "act.zero_point": Codes(self.zero_point.reshape(1), self.bits, signed=False, role="codebook"),
        }

    def extra_repr(self) -> str:
        """Show the grid in the printed model."""
        return f"bits={self.bits}, scale={self.scale.item():.4g}, zero_point={self.zero_point.item()}"
