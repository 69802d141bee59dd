"""Vertical-horizontal factorization: a convolution becomes a column of filters followed by a row of filters."""

from torch import Tensor

from compedu.methods.low_rank.shared.svd import factors


def unfolded(weight: Tensor) -> Tensor:
    """Return the weight (N, C, height, width) as the matrix (C * height, N * width) of Tai et al. (2016, section 3).

    >>> unfolded(torch.arange(4.0).view(2, 1, 1, 2)).tolist()
    [[0.0, 1.0, 2.0, 3.0]]
    """
    n, c, height, width = weight.shape
    return weight.permute(1, 2, 0, 3).reshape(c * height, n * width)


def vertical_horizontal(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the vertical (rank, C, height, 1) and the horizontal (N, rank, 1, width) weight closest to `weight`.

    In sequence they act as sum over r of horizontal[n, r, 0, j] * vertical[r, c, i, 0]; no such pair has a smaller
    squared error (Tai et al. 2016, arXiv:1511.06067, theorem 1).
    """
    n, c, height, width = weight.shape
    left, right = factors(unfolded(weight), rank)
    vertical = left.T.reshape(rank, c, height, 1)
    return vertical, right.reshape(rank, n, width).permute(1, 0, 2).unsqueeze(2)
