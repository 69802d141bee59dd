"""One budget of weights for all layers of a network: which of them gets which rank."""

import math
from typing import TYPE_CHECKING, cast

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
LEAST = 0.02  # the smallest of them, as a fraction of the full rank


def shared_ranks(method: "Factorization", task: Task) -> dict[str, Ranks | None]:
    """Return the ranks of each layer that `method` selects in the network of `task`; None leaves a layer as it is.

    Together the layers keep at most as many weights as with the method's `rank`, a fraction, in each of them, where a
    layer in which this would save nothing counts as it is.
    """
    layers = {name: layer for name, layer in task.selection()[0].items() if not method.obstacle(layer)}
    if not layers:
        return {}
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
        choices = last_result(task.source, "ranks", key, lambda: by_loss(method, task, layers))
    return shared_out(choices, most, "weights")


def kept_numbers(method: "Factorization", geometry: Geometry) -> int:
    """Return how many weights a layer has at the fraction `method.rank` of its full ranks: as now, if not fewer."""
    fraction = cast(float, method.rank)  # a budget for all layers refuses ranks by layer
    ranks = tuple(rank_from(fraction, full) for full in method.full_ranks(geometry))
    return min(method.numbers(geometry, ranks), math.prod(geometry.shape))


def by_energy(method: "SpectralFactorization", weight: Tensor, geometry: Geometry) -> list[Choice]:
    """Return every rank that saves, and the layer as it is; the loss is the share of the energy that is dropped.

    It is a share, not a sum of squares: the weights of a layer can be scaled by any factor that the next one undoes.
    """
    (values,) = method.spectra(weight)
    ranks = [(rank,) for rank in range(1, math.ceil(method.break_even(geometry)))]
    made = [Choice(rank, method.numbers(geometry, rank), 1 - energy(values, rank[0])) for rank in ranks]
    return [*made, Choice(None, math.prod(geometry.shape), 0.0)]


def by_loss(method: "Factorization", task: Task, layers: dict[str, nn.Module]) -> dict[str, list[Choice]]:
    """Return at most `TRIED` ranks of each layer that save, and the layer as it is, with measured losses.

    The loss is the cross-entropy on evenly spaced training images, with this layer alone factored.
    """
    refuse_probabilities(task.model, task.data)
    images = calibration_set(task.data, method.calibration_images)
    name, layer = next(iter(layers.items()))
    as_it_is = loss_with(task, name, layer, images)
    scanned = {}
    for name, layer in layers.items():
        geometry = Geometry.of(layer)
        tried = [
            Choice(ranks, method.numbers(geometry, ranks), loss_with(task, name, method.factored(layer, ranks), images))
            for ranks in tried_ranks(method, geometry)
        ]
        scanned[name] = [*tried, Choice(None, math.prod(geometry.shape), as_it_is)]
    return scanned


def tried_ranks(method: "Factorization", geometry: Geometry) -> list[Ranks]:
    """Return at most `TRIED` ranks that make a layer smaller, at even ratios of the full ranks."""
    full = method.full_ranks(geometry)
    dense = math.prod(geometry.shape)
    fractions = [LEAST ** (1 - i / (5 * TRIED)) for i in range(5 * TRIED + 1)]
    every = dict.fromkeys(tuple(rank_from(fraction, most) for most in full) for fraction in fractions)
    saving = [ranks for ranks in every if method.numbers(geometry, ranks) < dense]
    last = len(saving) - 1
    chosen = sorted({round(i * last / (TRIED - 1)) for i in range(TRIED)}) if last > 0 else range(last + 1)
    return [saving[i] for i in chosen]
