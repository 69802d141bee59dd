"""The scale of the codes of a row of weights: of its largest weight, of least squared error, for one bit its mean."""

import torch
from torch import Tensor

# Clipping points that the search tries, as fractions of the largest weight: evenly spaced down to a half, then in
# equal ratios, for far outliers.
CLIPPINGS = tuple(1 - step / 40 for step in range(1, 20)) + tuple(0.5 * 0.85**step for step in range(20))


def sign_scale(rows: Tensor, kept: Tensor) -> Tensor:
    """Return for each row (rows, weights) the mean |w| of its `kept` weights, (rows, 1); 0 if none is kept.

    It minimizes ||w - alpha sign(w)|| (Rastegari et al. 2016, section 3.1, arXiv:1603.05279).

    >>> sign_scale(torch.tensor([[1.0, -3.0]]), torch.tensor([[True, True]])).tolist()
    [[2.0]]
    """
    return (rows.abs() * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1)


def largest_scale(rows: Tensor, top: int) -> Tensor:
    """Return for each row (rows, weights) the scale that gives its largest absolute weight the code `top`, (rows, 1).

    >>> largest_scale(torch.tensor([[0.5, -1.27]]), 127).tolist()
    [[0.009999999776482582]]
    """
    scale = rows.abs().amax(1, keepdim=True) / top
    return torch.where(scale > 0, scale, torch.ones_like(scale))  # a row of zeros has no scale of its own


def best_scale(rows: Tensor, top: int) -> Tensor:
    """Return for each row (rows, weights) a scale of small squared error ||w - scale * code||^2, (rows, 1).

    The best of several clipping points is refined by alternating: codes by rounding, then the least-squares scale
    <w, code> / <code, code> for these codes; neither step increases the error.

    >>> best_scale(torch.tensor([[1.0, 1.0, -1.0, 1.0, 1.5]]), 1).tolist()
    [[1.100000023841858]]
    """
    largest = largest_scale(rows, top)
    scale = largest
    least = squared_error(rows, largest, top)
    for clipping in CLIPPINGS:
        error = squared_error(rows, largest * clipping, top)
        scale = torch.where(error < least, largest * clipping, scale)
        least = torch.minimum(error, least)
    for _ in range(4):  # alternating least squares
        codes = rounded(rows, scale, top)
        power = (codes * codes).sum(1, keepdim=True)
        scale = torch.where(power > 0, (rows * codes).sum(1, keepdim=True) / power.clamp(min=1), scale)
    return scale


def rounded(rows: Tensor, scale: Tensor, top: int) -> Tensor:
    """Return the nearest codes in -top..top, as floats."""
    return torch.round(rows / scale).clamp_(-top, top)


def squared_error(rows: Tensor, scale: Tensor, top: int) -> Tensor:
    """Return ||w - scale * code||^2 for each row, (rows, 1)."""
    return (rows - scale * rounded(rows, scale, top)).square_().sum(1, keepdim=True)
