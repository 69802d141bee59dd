"""Pruned weights: a mask keeps some of them; the others are zero and stay zero in training."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compedu.forms import declared
from compedu.forms.form import Geometry, LatentForm
from compedu.forms.parts import Floats, Part, Positions


class Masked(LatentForm):
    """A dense layer that keeps only the weights where `mask`, boolean, of the weight's shape, is true.

    `latent` holds the weights that training moves, also those outside the mask, which nothing reads.
    A file holds the kept weights and their positions (Han et al. 2016, section 2, arXiv:1510.00149).
    """

    def __init__(self, geometry: Geometry, weight: Tensor, mask: Tensor, bias: Tensor | None):
        super().__init__(geometry, torch.where(mask, weight.detach(), torch.zeros_like(weight)), bias)
        self.register_buffer("mask", mask.clone())

    def dense(self) -> Tensor:
        """Return the weight with zeros where the mask is false."""
        return self.latent * self.mask

    @torch.no_grad()
    def clear(self) -> None:
        """Set the latent weights outside the mask to zero: an optimizer's momentum still moves them."""
        self.latent.copy_(torch.where(self.mask, self.latent, torch.zeros_like(self.latent)))

    def stored_weight(self) -> dict[str, Part]:
        """Return the kept weights, and their positions unless all are kept."""
        return {"weight": Floats(self.latent.detach()[self.mask])} | positions(self.mask)

    def kept_weights(self) -> Tensor:
        """Return the mask."""
        return self.mask

    @classmethod
    def check_declared(cls, geometry: Geometry, settings: Mapping[str, Any], parts: declared.Parts) -> torch.dtype:
        """Check the kept weights and their positions."""
        declared.only(settings)
        declared.only(parts, "weight", "positions", "bias")
        shape = declared.shape_of(parts, "weight")
        declared.kept(geometry.shape, parts, "weight", shape)
        return declared.bias(parts, "bias", geometry.shape[0], declared.floats(parts, "weight", shape))

    @classmethod
    def restore(cls, geometry: Geometry, settings: dict[str, Any], parts: dict[str, Tensor]) -> "Masked":
        """Rebuild the layer; without positions all weights are kept."""
        mask = mask_from(parts, geometry.shape)
        weight = parts["weight"].new_zeros(geometry.shape)
        weight[mask] = parts["weight"]
        return cls(geometry, weight, mask, parts.get("bias"))


def mask_of(layer: nn.Module) -> Tensor:
    """Return which weights of a layer or form are kept, boolean, of the weight's shape: all, unless it is masked."""
    return layer.mask if isinstance(layer, Masked) else torch.ones(Geometry.of(layer).shape, dtype=torch.bool)


def positions(mask: Tensor) -> dict[str, Part]:
    """Return the positions of the weights that `mask` keeps, as a part; nothing when it keeps all."""
    if bool(mask.all()):
        return {}
    return {"positions": Positions(mask.reshape(-1).nonzero().squeeze(1), mask.numel())}


def mask_from(parts: dict[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """Return the mask that `positions` stored, of `shape`."""
    if "positions" not in parts:
        return torch.ones(shape, dtype=torch.bool)
    mask = torch.zeros(shape, dtype=torch.bool)
    mask.view(-1)[parts["positions"]] = True
    return mask
