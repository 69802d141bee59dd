"""LAMP: scores that rank the weights of all layers together, and the masks that follow from them."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from compedu.methods.pruning.shared.masks import keep_largest

CHUNK = 2**16  # scores that are computed in double precision at once
TINY = torch.finfo(torch.float64).tiny


def lamp_scores(scores: Tensor) -> Tensor:
    """Return s_u^2 / sum of s_v^2 over the weights v of the layer no smaller than u; float64, shape of `scores`.

    The largest weight of a layer scores 1, so no layer is emptied before all others have one weight left (Lee, Park,
    Mo, Ahn, Shin 2021, arXiv:2010.07611).

    >>> lamp_scores(torch.tensor([1.0, -2.0, 2.0])).tolist()
    [0.1111111111111111, 0.5, 1.0]
    """
    squares = scores.double().reshape(-1).square()
    order = squares.argsort(stable=True)
    # The weights no smaller than u are those from u on in ascending order: a sum from the end.
    left = squares[order].flip(0).cumsum(0).flip(0)
    result = torch.empty_like(squares)
    result[order] = squares[order] / left.clamp_min(TINY)
    return result.view(scores.shape)


def lamp_masks(scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Return what `keep_largest_together` makes of the `lamp_scores` of all layers, in the memory of one more copy.

    The scores are finite, non-negative, and of one type in all layers. Within a layer, LAMP scores have the order of
    the scores, so it is enough to count how many weights each layer loses.
    """
    drop = round(sparsity * sum(score.numel() for score in scores.values()))
    counts = _drops(list(scores.values()), drop) if drop else [0] * len(scores)
    return {
        name: keep_largest(score, count / max(score.numel(), 1))
        for (name, score), count in zip(scores.items(), counts, strict=True)
    }


def _drops(scores: Sequence[Tensor], drop: int) -> list[int]:
    """Return how many of the `drop` weights of smallest LAMP score are in each layer; ties drop the earlier layer.

    The LAMP scores are ranked after rounding to the precision of `scores`, which keeps their order. Only those that
    round to the threshold are recomputed in double precision.
    """
    rounded = [_rounded(score) for score in scores]
    last = _kth_smallest(rounded, drop)
    below = [int(torch.searchsorted(codes, last)) for codes in rounded]
    ends = [int(torch.searchsorted(codes, last, right=True)) for codes in rounded]
    del rounded
    if sum(ends) == drop:
        return ends
    tied = [
        _between(*three) if three[1] < three[2] else torch.empty(0) for three in zip(scores, below, ends, strict=True)
    ]
    layer = torch.arange(len(tied)).repeat_interleave(torch.tensor([len(part) for part in tied]))
    first = torch.cat(tied).argsort(stable=True)[: drop - sum(below)]
    return (torch.tensor(below) + layer[first].bincount(minlength=len(tied))).tolist()


def _ascending(score: Tensor) -> Tensor:
    """Return the absolute values of a layer's scores, flat and ascending, in single precision at least."""
    values = score.abs().reshape(-1)
    values = values if values.dtype == torch.float64 else values.float()
    values.numpy().sort()  # in place; torch would also return an index of eight bytes each
    return values


def _lamp_backwards(values: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the LAMP scores of ascending `values` in float64, in chunks with their positions, the largest first."""
    left = torch.zeros(1, dtype=torch.float64)
    for stop in range(len(values), 0, -CHUNK):
        places = slice(max(stop - CHUNK, 0), stop)
        squares = values[places].double().square()
        sums = torch.cat([left, squares.flip(0)]).cumsum(0)
        left = sums[-1:]
        yield places, squares / sums[1:].flip(0).clamp_min(TINY)


def _rounded(score: Tensor) -> Tensor:
    """Return the ascending LAMP scores of a layer as integers of the same order: the bits of rounded floats."""
    values = _ascending(score)
    for places, lamp in _lamp_backwards(values):
        values[places] = lamp
    return values.view(torch.int64 if values.dtype == torch.float64 else torch.int32)


def _between(score: Tensor, start: int, stop: int) -> Tensor:
    """Return the LAMP scores of a layer in float64, ascending, from position `start` to before `stop`."""
    parts = []
    for places, lamp in _lamp_backwards(_ascending(score)):
        if places.start < stop and places.stop > start:
            parts.append(lamp[max(start - places.start, 0) : stop - places.start])
    return torch.cat(parts[::-1])


def _kth_smallest(ascending: Sequence[Tensor], k: int) -> int:
    """Return the k-th smallest of all non-negative integers of sorted tensors, by bisection, without a copy."""
    low = 0
    high = max(int(codes[-1]) for codes in ascending if len(codes))
    while low < high:
        middle = (low + high) // 2
        if sum(int(torch.searchsorted(codes, middle, right=True)) for codes in ascending) >= k:
            high = middle
        else:
            low = middle + 1
    return low
