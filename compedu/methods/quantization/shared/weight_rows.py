"""Rows of weights that share a scale, and the part of a row that its range covers."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def rows_of(tensor: Tensor, scales: str, group: int | None) -> Tensor:
    """Return weights (out, ...), or the mask of them, as rows of which each has one scale.

    `scales`: all weights are one row ("tensor"), or each output is one; with a `group`, every so many inputs of an
    output are, and the last, shorter one is filled up with zeros.
    """
    if scales == "tensor":
        return tensor.reshape(1, -1)
    rows = tensor.reshape(len(tensor), -1)
    if group is None:
        return rows
    return F.pad(rows, (0, -rows.shape[1] % group)).reshape(-1, group)


def group_of(shape: tuple[int, ...], scales: str, size: int) -> int | None:
    """Return how many inputs of weights of `shape` share a scale; None where all of an output do.

    >>> group_of((4, 100), "group", 64), group_of((4, 9), "group", 64)
    (64, None)
    """
    return size if scales == "group" and size < math.prod(shape[1:]) else None


def clipped(rows: Tensor, kept: Tensor, coverage: float, symmetric: bool) -> Tensor:
    """Return rows (rows, weights) with the weights outside of a range moved to its ends.

    Of the `kept` weights of each row, at least the share `coverage` lies inside. The range is [-r, r] with the smallest
    such r if `symmetric`; otherwise at most the share (1 - coverage) / 2 lies beyond either end. A row of which nothing
    but zeros would be left stays as it is.

    >>> row = torch.tensor([[-1.0, 0.0, 1.0, 9.0]])
    >>> clipped(row, row < 10, 0.75, True).tolist(), clipped(row, row < 10, 0.5, False).tolist()
    ([[-1.0, 0.0, 1.0, 1.0]], [[0.0, 0.0, 1.0, 1.0]])
    """
    number = kept.sum(1, keepdim=True)
    share = (1 - coverage) * number.double() * (1 + 1e-9)  # a share that fits exactly may be clipped
    if symmetric:
        last = (number - 1 - share.long()).clamp(min=0)
        end = torch.where(kept, rows.abs(), math.inf).sort(1).values.gather(1, last)
        return torch.where((number > 0) & (end > 0), rows.clamp(-end, end), rows)
    beyond = (share / 2).long()
    ordered = torch.where(kept, rows, math.inf).sort(1).values
    low = ordered.gather(1, beyond.clamp(max=rows.shape[1] - 1))
    high = ordered.gather(1, (number - 1 - beyond).clamp(min=0))
    return torch.where((number > 0) & (high > low), rows.clamp(low, high), rows)
