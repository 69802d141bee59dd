"""What forms with rounded weights share: latent weights, a scale, a mask, and scales that hold for blocks of inputs."""

import math

import torch
from torch import Tensor

from compedu.forms.activation import Scaled
from compedu.forms.form import Geometry, LatentForm


def blocks_shape(shape: tuple[int, ...], block: int) -> tuple[int, int]:
    """Return the shape (out, blocks) of one number for each `block` consecutive inputs of weights of `shape`.

    >>> blocks_shape((4, 2, 3, 3), 8)
    (4, 3)
    """
    return shape[0], -(-math.prod(shape[1:]) // block)


def over_blocks(values: Tensor, shape: tuple[int, ...], block: int) -> Tensor:
    """Return for each weight of `shape` the number of its block; `values` is (out, blocks), the last may be shorter.

    >>> over_blocks(torch.tensor([[1, 2]]), (1, 3), 2)
    tensor([[1, 1, 2]])
    """
    return values[:, torch.arange(math.prod(shape[1:]), device=values.device) // block].reshape(shape)


class Rounded(Scaled, LatentForm):
    """A dense layer whose `latent` weights, which fine-tuning moves, are rounded to what codes and a `scale` express.

    Weights outside an optional `mask` are exactly zero.
    """

    mask: Tensor

    def __init__(self, geometry: Geometry, weight: Tensor, scale: Tensor, bias: Tensor | None, mask: Tensor | None):
        super().__init__(geometry, weight.detach().clone(), bias)
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool) if mask is None else mask.clone())

    def weights_before_rounding(self) -> Tensor:
        """Return the latent weights."""
        return self.latent

    def kept_weights(self) -> Tensor:
        """Return the mask."""
        return self.mask
