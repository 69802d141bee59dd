"""Transferred filters: a small set of base filters from which the rest follows by a fixed transformation."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compedu.forms import declared
from compedu.forms.form import Form, Geometry
from compedu.forms.parts import Floats, Part


class CReLUFilters(Form):
    """A convolution whose second half of filters is the negative of the first: followed by ReLU it is CReLU.

    `base` has shape (out / 2, in, height, width), without groups; the output is [y, -y] with y = base * x + bias
    (Shang et al. 2016, section 2, arXiv:1603.05201).
    """

    def __init__(self, geometry: Geometry, base: Tensor, base_bias: Tensor | None):
        super().__init__(geometry, None)
        self.base = nn.Parameter(base.detach().clone())
        self.base_bias = None if base_bias is None else nn.Parameter(base_bias.detach().clone())

    def dense_bias(self) -> Tensor | None:
        """Return the bias of all filters: that of the base and its negative."""
        return None if self.base_bias is None else torch.cat([self.base_bias, -self.base_bias])

    @property
    def bias(self) -> Tensor | None:
        """The bias of all filters."""
        return self.dense_bias()

    def dense(self) -> Tensor:
        """Return all filters: the base and its negative."""
        return torch.cat([self.base, -self.base])

    def forward(self, input: Tensor) -> Tensor:
        """Run the base filters once and append the negative of their output."""
        y = self.geometry.apply(self.act(input), self.base, self.base_bias)
        return torch.cat([y, -y], dim=1)

    def stored_weight(self) -> dict[str, Part]:
        """Return the base filters and their bias."""
        parts: dict[str, Part] = {"base": Floats(self.base.detach())}
        if self.base_bias is not None:
            parts["base_bias"] = Floats(self.base_bias.detach(), "bias")
        return parts

    def stored_entries(self) -> Tensor:
        """Return the first half of the filters."""
        stored = torch.zeros(self.geometry.shape, dtype=torch.bool)
        stored[: len(self.base)] = True
        return stored

    @classmethod
    def check_declared(cls, geometry: Geometry, settings: Mapping[str, Any], parts: declared.Parts) -> torch.dtype:
        """Check the base filters and their bias."""
        declared.only(settings)
        declared.only(parts, "base", "base_bias")
        out, *rest = geometry.shape
        paired = geometry.kind == "conv2d" and geometry.groups == 1 and out % 2 == 0
        declared.need(paired, "only an ungrouped convolution of an even number of filters has pairs of them")
        return declared.bias(parts, "base_bias", out // 2, declared.floats(parts, "base", (out // 2, *rest)))

    @classmethod
    def restore(cls, geometry: Geometry, settings: dict[str, Any], parts: dict[str, Tensor]) -> "CReLUFilters":
        """Rebuild the layer."""
        return cls(geometry, parts["base"], parts.get("base_bias"))

    def macs(self, positions: int) -> int:
        """Return the multiply-accumulates of the base filters: half of the dense layer's."""
        return positions * self.base.numel()
