"""The ranks that one budget for all layers has to choose from, each with its weights and its loss."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import numpy as np
from torch import Tensor, nn

from compedu.forms import Geometry
from compedu.graph.copying import inference_copy
from compedu.methods.calibration import calibration_set
from compedu.methods.low_rank.shared.rank import Ranks, rank_from
from compedu.methods.low_rank.shared.svd import energy
from compedu.methods.shared_budget import Choice, Scan, loss_of, scan
from compedu.methods.task import Task

TRIED = 12  # ranks of a layer whose loss is measured, at most
LEAST = 0.02  # the smallest of them but one, as a fraction of the full rank; the smallest is rank 1


class Ranked(Protocol):
    """What is asked here of a factorization."""

    def full_ranks(self, geometry: Geometry) -> Ranks:
        """Return the ranks from which on the factors can express every weight."""
        ...

    def numbers(self, geometry: Geometry, ranks: Ranks) -> int:
        """Return how many weights the layers in sequence have."""
        ...

    def makes_smaller(self, geometry: Geometry, ranks: Ranks) -> bool:
        """Tell whether a layer can be factored at these ranks, and has fewer weights then."""
        ...

    def factored(self, layer: nn.Module, ranks: Ranks) -> nn.Module:
        """Return the layers in sequence that come closest to the weight of `layer` at these ranks."""
        ...


def as_it_is(geometry: Geometry, loss: float) -> Choice:
    """Return the choice to leave a layer as it is."""
    return Choice(None, math.prod(geometry.shape), loss)


def by_energy(method: Ranked, geometry: Geometry, values: Tensor, ranks: Iterable[int]) -> list[Choice]:
    """Return these `ranks` of a matrix, and the layer as it is; the loss is the share of the energy that is dropped.

    It is a share, not a sum of squares: the weights of a layer can be scaled by any factor that the next one undoes.
    `values` are the singular values, in descending order.
    """
    made = [Choice((rank,), method.numbers(geometry, (rank,)), 1 - energy(values, rank)) for rank in ranks]
    return [*made, as_it_is(geometry, 0.0)]


def by_loss(
    method: Ranked,
    task: Task,
    layers: Mapping[str, nn.Module],
    chosen: Callable[[str, Geometry], Iterable[Ranks]],
    images: int,
) -> Scan:
    """Return the ranks that `chosen` (name, geometry) gives for each layer, with their losses.

    A loss is measured on at most `images` images, with this layer alone factored to be closest to its weight.
    """

    def tried(name: str, layer: nn.Module) -> Iterator[tuple[Ranks, float, nn.Module]]:
        geometry = Geometry.of(layer)
        for ranks in chosen(name, geometry):
            yield ranks, method.numbers(geometry, ranks), method.factored(layer, ranks)

    return scan(task, layers, tried, images)


def rank_scan(method: Ranked, task: Task, layers: Mapping[str, nn.Module], images: int) -> Scan:
    """Return the `tried_ranks` of each layer, and the layer as it is, with their losses as `by_loss` measures them."""
    found = by_loss(method, task, layers, lambda _, geometry: tried_ranks(method, geometry), images)
    shown = calibration_set(task.data, images)
    loss = loss_of(inference_copy(task.model), task, shown, "before any layer is factored")
    choices = {name: [*made, as_it_is(Geometry.of(layers[name]), loss)] for name, made in found.choices.items()}
    return Scan(choices, found.reasons)


def tried_ranks(method: Ranked, geometry: Geometry) -> list[Ranks]:
    """Return at most `TRIED` ranks that make a layer smaller, the smallest first, at even ratios."""
    full = method.full_ranks(geometry)
    fractions = [0.0, *(LEAST ** (1 - i / (5 * TRIED)) for i in range(5 * TRIED + 1))]
    every = dict.fromkeys(tuple(rank_from(fraction, most) for most in full) for fraction in fractions)
    saving = [ranks for ranks in every if method.makes_smaller(geometry, ranks)]
    last = len(saving) - 1
    chosen = sorted({round(i * last / (TRIED - 1)) for i in range(TRIED)}) if last > 0 else range(last + 1)
    return [saving[i] for i in chosen]


def between(method: Ranked, geometry: Geometry, measured: list[Choice]) -> list[Choice]:
    """Return the `measured` choices of a layer, and the ranks between them, with losses on straight lines.

    A budget ends between two of a few measured ranks, and the rank that fits is hardly worse than the line says.
    """
    known = sorted(measured, key=lambda choice: choice.cost)
    costs = [choice.cost for choice in known]
    losses = [choice.loss for choice in known]
    full = method.full_ranks(geometry)
    every = dict.fromkeys(tuple(rank_from(i / max(full), most) for most in full) for i in range(1, max(full) + 1))
    others = {ranks: method.numbers(geometry, ranks) for ranks in every if ranks not in {one.value for one in known}}
    lines = [
        Choice(ranks, cost, float(np.interp(cost, costs, losses)))
        for ranks, cost in others.items()
        if costs[0] < cost < costs[-1] and method.makes_smaller(geometry, ranks)
    ]
    return [*measured, *lines]
