"""One budget of weights for all layers of a network: which of them gets which rank."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import numpy as np
from torch import Tensor, nn

from compedu.evaluation import refuse_probabilities
from compedu.forms import Geometry, weight_of
from compedu.knobs import knobs
from compedu.methods.calibration import calibration_set
from compedu.methods.last_result import last_result
from compedu.methods.low_rank.shared.rank import Ranks, rank_from
from compedu.methods.low_rank.shared.svd import energy
from compedu.methods.shared_budget import Choice, loss_with, shared_out
from compedu.methods.task import Task

if TYPE_CHECKING:
    from compedu.methods.low_rank.shared.factorization import Factorization
    from compedu.methods.low_rank.shared.spectral import SpectralFactorization

SHARED = ("singular values", "sensitivity")  # budgets for all layers together
TRIED = 12  # ranks of a layer whose loss is measured, at most
LEAST = 0.02  # the smallest of them but one, as a fraction of the full rank; the smallest is rank 1


def shared_ranks(method: "Factorization", task: Task) -> dict[str, Ranks | str]:
    """Return the ranks of each layer that `method` selects in the network of `task`, or the reason why it stays.

    Together the layers keep at most as many weights as with the method's `rank`, a fraction, in each of them, where a
    layer in which this would save nothing counts as it is. Layers that the method will leave alone have no share.
    """
    layers = {name: layer for name, layer in task.selection()[0].items() if not method.obstacle(layer)}
    reasons = method.left_alone(task, layers)
    layers = {name: layer for name, layer in layers.items() if name not in reasons}
    if not layers:
        return dict(reasons)
    geometries = {name: Geometry.of(layer) for name, layer in layers.items()}
    most = sum(kept_numbers(method, geometry) for geometry in geometries.values())
    if method.budget == "singular values":
        spectral = cast("SpectralFactorization", method)
        choices = {
            name: by_energy(spectral, weight_of(layer).detach(), geometries[name]) for name, layer in layers.items()
        }
    else:
        settings = tuple(getattr(method, name) for name in knobs(method) if name not in ("rank", "budget", "energy"))
        key = (type(method), settings, task.digest, task.data.digest)
        scanned = last_result(task.source, "ranks", key, lambda: by_loss(method, task, layers, tried_ranks))
        equal = by_loss(method, task, layers, equal_ranks)  # so that one budget has them to choose as well
        choices = {name: between(method, geometries[name], [*scanned[name], *equal[name]]) for name in layers}
    stays = f"one budget for all layers ({method.budget}) leaves it as it is"
    return reasons | {name: ranks or stays for name, ranks in shared_out(choices, most, "weights").items()}


def kept_numbers(method: "Factorization", geometry: Geometry) -> int:
    """Return how many weights a layer has at the fraction `method.rank` of its full ranks: as now, if not fewer."""
    kept = [method.numbers(geometry, ranks) for ranks in equal_ranks(method, geometry)]
    return kept[0] if kept else math.prod(geometry.shape)


def equal_ranks(method: "Factorization", geometry: Geometry) -> list[Ranks]:
    """Return the ranks at the fraction `method.rank` of the full ones, if they make a layer smaller."""
    fraction = cast(float, method.rank)  # a budget for all layers refuses ranks by layer
    ranks = tuple(rank_from(fraction, full) for full in method.full_ranks(geometry))
    return [ranks] if makes_smaller(method, geometry, ranks) else []


def makes_smaller(method: "Factorization", geometry: Geometry, ranks: Ranks) -> bool:
    """Tell whether a layer can be factored at these ranks, and has fewer weights then."""
    fewer = method.numbers(geometry, ranks) < math.prod(geometry.shape)
    return fewer and not method.impossible(geometry, ranks)


def by_energy(method: "SpectralFactorization", weight: Tensor, geometry: Geometry) -> list[Choice]:
    """Return every rank that saves, and the layer as it is; the loss is the share of the energy that is dropped.

    It is a share, not a sum of squares: the weights of a layer can be scaled by any factor that the next one undoes.
    """
    (values,) = method.spectra(weight)
    ranks = [(rank,) for rank in range(1, math.ceil(method.break_even(geometry)))]
    made = [Choice(rank, method.numbers(geometry, rank), 1 - energy(values, rank[0])) for rank in ranks]
    return [*made, Choice(None, math.prod(geometry.shape), 0.0)]


def by_loss(
    method: "Factorization", task: Task, layers: dict[str, nn.Module], tried: Callable[..., list[Ranks]]
) -> dict[str, list[Choice]]:
    """Return the ranks of each layer that `tried` (method, geometry) names, and the layer as it is, with losses.

    The loss is the cross-entropy on evenly spaced training images, with this layer alone factored to be closest to its
    weight.
    """
    refuse_probabilities(task.model, task.data)
    images = calibration_set(task.data, method.calibration_images)
    name, layer = next(iter(layers.items()))
    as_it_is = loss_with(task, name, layer, images)
    scanned = {}
    for name, layer in layers.items():
        geometry = Geometry.of(layer)
        found = [
            Choice(ranks, method.numbers(geometry, ranks), loss_with(task, name, method.factored(layer, ranks), images))
            for ranks in tried(method, geometry)
        ]
        scanned[name] = [*found, Choice(None, math.prod(geometry.shape), as_it_is)]
    return scanned


def tried_ranks(method: "Factorization", geometry: Geometry) -> list[Ranks]:
    """Return at most `TRIED` ranks that make a layer smaller, the smallest first, at even ratios."""
    full = method.full_ranks(geometry)
    fractions = [0.0, *(LEAST ** (1 - i / (5 * TRIED)) for i in range(5 * TRIED + 1))]
    every = dict.fromkeys(tuple(rank_from(fraction, most) for most in full) for fraction in fractions)
    saving = [ranks for ranks in every if makes_smaller(method, geometry, ranks)]
    last = len(saving) - 1
    chosen = sorted({round(i * last / (TRIED - 1)) for i in range(TRIED)}) if last > 0 else range(last + 1)
    return [saving[i] for i in chosen]


def between(method: "Factorization", geometry: Geometry, measured: list[Choice]) -> list[Choice]:
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
        if costs[0] < cost < costs[-1] and makes_smaller(method, geometry, ranks)
    ]
    return [*measured, *lines]
