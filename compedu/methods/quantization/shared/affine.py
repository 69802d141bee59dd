"""The affine grid of a row of weights: a scale and a zero-point, of its range or of least squared error."""

import torch
from torch import Tensor

from compedu.methods.quantization.shared.scales import CLIPPINGS


def affine_grid(low: Tensor, high: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return scale and zero-point of the grid of 2^bits levels over [min(low, 0), max(high, 0)], of the shape of `low`.

    The zero-point is a code itself, so that 0 is exact (Jacob et al. 2018, section 2.1, arXiv:1712.05877).

    >>> [grid.item() for grid in affine_grid(torch.tensor(-1.0), torch.tensor(2.0), 2)]
    [1.0, 1.0]
    """
    low = low.clamp(max=0)
    high = high.clamp(min=0)
    top = 2**bits - 1
    scale = high / top - low / top  # each part by itself: their difference may be too large for the type
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # a row of zeros has no scale of its own
    return scale, torch.round(-low / scale).clamp(0, top)


def best_affine_grid(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return for each row (rows, weights) the scale and zero-point of least squared error among several ranges.

    Tried are the whole range, and ranges whose lower, upper or both ends are drawn towards 0.
    """
    low, high = rows.aminmax(dim=1, keepdim=True)
    scale, zero_point = affine_grid(low, high, bits)
    least = affine_error(rows, scale, zero_point, bits)
    for clipping in CLIPPINGS:
        for ends in ((low * clipping, high), (low, high * clipping), (low * clipping, high * clipping)):
            tried = affine_grid(*ends, bits)
            error = affine_error(rows, *tried, bits)
            better = error < least
            scale = torch.where(better, tried[0], scale)
            zero_point = torch.where(better, tried[1], zero_point)
            least = torch.minimum(error, least)
    return scale, zero_point


def affine_error(rows: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """Return ||w - scale * (code - zero_point)||^2 for each row, (rows, 1)."""
    codes = (torch.round(rows / scale) + zero_point).clamp_(0, 2**bits - 1)
    return (rows - scale * (codes - zero_point)).square_().sum(1, keepdim=True)
