"""Clusters of equal size: models and clusters are fitted in turn, as in k-means; no cluster is larger than another."""

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

STARTS = 8
ROUNDS = 100  # of fitting and assigning; each keeps more than the one before, so that far fewer are needed

Gains: TypeAlias = Callable[[Tensor], Tensor]  # of clusters: what the model of each keeps of each item


def equal_clusters(alike: Tensor, count: int, gains: Gains) -> Tensor:
    """Return `count` clusters of equal size that keep most, (count, items / count): the numbers of their items.

    `gains` fits a model to each of the clusters that it is given, and says what each of them keeps of each item. Models
    and clusters are fitted in turn (k-means, Lloyd 1982), each time to the best clusters of equal size. The best of
    `STARTS` starts counts: each begins at items that resemble each other least, by `alike` (items, items). Nothing is
    drawn at random. Items, and clusters by their first ones, are in ascending order. `count` must divide the items.
    """
    return max((_refined(start, gains) for start in _starts(alike, count)), key=lambda found: found[0])[1]


def assigned(gains: Tensor) -> Tensor:
    """Return the clusters of equal size with the largest sum of `gains` (items, clusters), an assignment problem.

    >>> assigned(torch.tensor([[0.9, 0.1], [0.8, 0.7], [0.7, 0.2], [0.6, 0.5]])).tolist()
    [[0, 2], [1, 3]]
    """
    items, count = gains.shape
    size = items // count
    places = linear_sum_assignment(gains.repeat_interleave(size, 1).numpy(), maximize=True)[1]
    clusters = (torch.from_numpy(places) // size).argsort(stable=True).view(count, size)
    return clusters[clusters[:, 0].argsort()]


def _refined(clusters: Tensor, gains: Gains) -> tuple[float, Tensor]:
    """Return what the models keep of all items, and the clusters, once neither changes for the better."""
    most = -math.inf
    best = clusters
    for _ in range(ROUNDS):
        found = gains(clusters)
        kept = float(found.T.gather(1, clusters).sum())
        if kept <= most + 1e-12 * abs(most):
            break
        most = kept
        best = clusters
        clusters = assigned(found)
    return most, best


def _starts(alike: Tensor, count: int) -> Iterator[Tensor]:
    """Yield clusters around items that are unlike each other; each start has another first item."""
    items = len(alike)
    for start in range(min(STARTS, items)):
        chosen = [start * items // min(STARTS, items)]
        nearest = alike[:, chosen[0]].clone()
        while len(chosen) < count:
            nearest[chosen[-1]] = math.inf
            chosen.append(int(nearest.argmin()))
            nearest = torch.maximum(nearest, alike[:, chosen[-1]])
        yield assigned(alike[:, chosen])
