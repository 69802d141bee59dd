"""Low-rank layers: two ordinary layers in sequence that stand for one dense kernel."""

from typing import Any

import torch
from torch import Tensor, nn

from compedu.forms.form import Form, Geometry, kernel_of
from compedu.forms.parts import Part


class Factored(Form):
    """Two layers `first` and `second`, linear of rank r, or a vertical and a horizontal convolution through r channels.

    The dense kernel is second @ first, or sum over r of second[n, r, 0, j] * first[r, c, i, 0] (Tai et al. 2016,
    section 3, arXiv:1511.06067). Both are ordinary layers that further methods may compress; the bias is `second`'s.
    Where `second` rounds its inputs, the two are no longer one dense layer: `dense()` leaves that rounding out, and
    each of them equals its own dense layer.
    """

    def __init__(self, geometry: Geometry, first: nn.Module, second: nn.Module):
        super().__init__(geometry, None)
        self.first, self.second = first, second

    @property
    def rank(self) -> int:
        """The number of channels between the two layers."""
        return Geometry.of(self.first).shape[0]

    def dense(self) -> Tensor:
        """Return the kernel that the two layers mean together."""
        first, second = kernel_of(self.first), kernel_of(self.second)
        if self.geometry.kind == "linear":
            return second @ first
        return torch.einsum("nrj,rci->ncij", second[:, :, 0, :], first[:, :, :, 0])

    def dense_bias(self) -> Tensor | None:
        """Return the bias of the second layer."""
        return self.second.dense_bias() if isinstance(self.second, Form) else self.second.bias

    @property
    def bias(self) -> Tensor | None:
        """The bias of the second layer."""
        return self.dense_bias()

    def forward(self, input: Tensor) -> Tensor:
        """Run the two layers one after the other."""
        return self.second(self.first(self.act(input)))

    def stored_kernel(self) -> dict[str, Part]:
        """Return nothing of its own: a file stores `first` and `second` as the layers they are."""
        return {}

    @classmethod
    def restore(cls, geometry: Geometry, settings: dict[str, Any], parts: dict[str, Tensor]) -> "Factored":
        """Rebuild the layer around two empty places that the file's entries for `first` and `second` fill."""
        return cls(geometry, nn.Identity(), nn.Identity())

    def macs(self, positions: int) -> int:
        """Return the multiply-accumulates of both layers, at equal numbers of positions."""
        return positions * (kernel_of(self.first).numel() + kernel_of(self.second).numel())
