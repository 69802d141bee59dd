"""An exercise of chapter 07: one budget of weights, shared out among the layers of a network as ranks."""

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from compedu.course.answers import called
from compedu.course.hints import refuse_other_names
from compedu.evaluation import Evaluation, evaluate
from compedu.forms import Geometry, weight_of
from compedu.methods.low_rank.shared.matrix import matrix_shape
from compedu.methods.low_rank.shared.rank import rank_from
from compedu.methods.low_rank.shared.rank_budget import rank_scan
from compedu.methods.low_rank.shared.svd import rank_of_energy
from compedu.methods.low_rank.truncated_svd import TruncatedSVD
from compedu.methods.task import Task
from compedu.metrics.accuracy import Change
from compedu.networks.shipped import trained
from compedu.pairs import load_data

Ranks = dict[str, int | None]  # by layer; None is the layer as it is

LAYERS = ("conv1", "conv2", "fc1", "fc2")
SHARED = ("conv2", "fc1")  # the only ones that the rivals factor: conv1 and fc2 have few ranks, and need all of them
FRACTIONS = ((0.03, 0.05), (0.06, 0.09))  # of the full ranks: the two limits are what a rival takes there
FACTOR = 16.0  # by which one layer is scaled, and the next one back; a power of two, so that nothing is rounded
SCAN = TruncatedSVD(layers="all", calibration_images=512)


def layer_tables(factor: float = 1.0) -> dict[str, dict[str, Any]]:
    """Return what the exercise says of each layer of lenet5 for glyphs, where conv2 is scaled by `factor`.

    "shape": rows and columns of the matrix whose rank is reduced; "values": its singular values, a tensor in float64,
    in descending order; "losses": pairs of a rank and the loss with this layer alone at that rank, the mean
    cross-entropy in nats on 512 training images, the last of them [None, loss of the network as it is]. Ranks between
    are not measured.
    """
    network = scaled(factor)
    tables = {}
    for name in LAYERS:
        weight = weight_of(network.get_submodule(name)).detach()
        (values,) = SCAN.spectra(weight)
        shape = list(matrix_shape(_geometry(name)))
        losses = [list(pair) for pair in _losses()[name]]
        tables[name] = {"shape": shape, "values": values.double(), "losses": losses}
    return tables


def scaled(factor: float) -> nn.Module:
    """Return lenet5 for glyphs with conv2 multiplied by `factor` > 0 and fc1 divided by it: it computes the same.

    ReLU and pooling pass a positive factor on (Nagel, van Baalen, Blankevoort, Welling 2019, arXiv:1906.04721,
    section 4.1).
    """
    network = trained("lenet5", "glyphs")
    with torch.no_grad():
        for tensor in network.get_submodule("conv2").parameters():
            tensor.mul_(factor)
        weight_of(network.get_submodule("fc1")).div_(factor)
    return network


@cache
def _geometry(name: str) -> Geometry:
    return Geometry.of(trained("lenet5", "glyphs").get_submodule(name))


@cache
def _losses() -> dict[str, tuple[tuple[int | None, float], ...]]:
    """Return ranks and losses by layer: those of the trained network, which scaling leaves as they are."""
    network = trained("lenet5", "glyphs").eval()
    layers = {name: network.get_submodule(name) for name in LAYERS}
    task = Task(SCAN, network, load_data("glyphs"), network)
    scanned = rank_scan(SCAN, task, layers, SCAN.calibration_images)
    return {
        name: tuple((None if one.value is None else one.value[0], one.loss) for one in choices)
        for name, choices in scanned.choices.items()
    }


def weights(ranks: Mapping[str, int | None]) -> int:
    """Return how many weights the layers have at these ranks, biases left out."""
    return sum(_weights(name, rank) for name, rank in ranks.items())


def _weights(name: str, rank: int | None) -> int:
    geometry = _geometry(name)
    return math.prod(geometry.shape) if rank is None else SCAN.numbers(geometry, (rank,))


def equal_fractions(fraction: float) -> Ranks:
    """Return the same fraction of the full rank in conv2 and fc1, the other layers as they are."""
    ranks = {name: rank_from(fraction, SCAN.full_ranks(_geometry(name))[0]) for name in SHARED}
    return {name: ranks.get(name) for name in LAYERS}


def equal_energies(limit: int) -> Ranks:
    """Return the ranks that keep the same share of the energy in conv2 and fc1, the largest share within the limit."""
    tables = layer_tables()

    def at(share: float) -> Ranks:
        return {name: rank_of_energy(tables[name]["values"], share) if name in SHARED else None for name in LAYERS}

    shares = [thousandth / 1000 for thousandth in range(1, 1000)]
    return max((at(share) for share in shares if weights(at(share)) <= limit), key=weights)


def rank_budget(function: Callable[[dict[str, dict[str, Any]], int], Ranks], seed: int) -> str:
    """Check a function (tables, limit) -> a rank for each layer, or None, for which lenet5 on glyphs works well.

    It is given what `layer_tables` returns, and how many weights the four layers may have. On all validation images
    the network of these ranks must be better, beyond the paired interval, than two others of at most as many weights:
    the same fraction of the full rank in conv2 and fc1, and the same share of their energy; conv1 and fc2 stay as they
    are in both. There are two limits, and two scalings of conv2 and fc1 that leave what the network computes as it is.
    """
    rng = np.random.default_rng(seed)
    factors = rng.permutation([FACTOR, 1 / FACTOR])
    said = []
    for (least, most), factor in zip(FRACTIONS, factors.tolist(), strict=True):
        fair = equal_fractions(rng.uniform(least, most))
        limit = weights(fair)
        ranks = _answered(function, factor, limit)
        found = _evaluated(ranks, factor)
        for other, name in ((fair, "equal fractions of the full ranks"), (equal_energies(limit), "equal energies")):
            rival = _evaluated(other)
            if Change.between(rival.is_correct, found.is_correct).interval[0] > 0:
                continue
            told = (
                f"at most {limit:,} weights, conv2 scaled by {factor:g} and fc1 by {1 / factor:g}: your ranks "
                f"{_shown(ranks)} are right on {_accuracy(found)}, {name} ({_shown(other)}) on {_accuracy(rival)}"
            )
            raise AssertionError(f"{told}. {_question(function, ranks, limit)}")
        said.append(f"{_accuracy(found)} with {weights(ranks):,} of {limit:,} weights")
    return f"{' and '.join(said)}, better than equal fractions and equal energies"


def _answered(function: Any, factor: float, limit: int) -> Ranks:
    """Return the ranks that a learner's function gives; those that are none, or too many, get a hint."""
    said = called(function, layer_tables(factor), limit)
    refuse_other_names(said, LAYERS, "ranks")
    ranks = {name: _rank(name, said[name]) for name in LAYERS}
    total = weights(ranks)
    assert total <= limit, (
        f"your ranks {_shown(ranks)} take {total:,} weights, and the limit is {limit:,}. What does one rank of a layer "
        "take, and what a layer that stays as it is?"
    )
    return ranks


def _rank(name: str, said: Any) -> int | None:
    if said is None:
        return None
    assert type(said) in (int, float) and said == said // 1 and said >= 1, (
        f"{name}: a rank is a whole number from 1 on, or None for the layer as it is, not {said!r:.40}"
    )
    full = SCAN.full_ranks(_geometry(name))[0]
    dense = _weights(name, None)
    assert said <= full, f"{name}: rank {said!r:.40} is above the full rank, which is {full}"
    rank = int(said)
    made = _weights(name, rank)
    assert made < dense, (
        f"{name}: at rank {rank} its two factors have {made:,} weights, the layer itself {dense:,}. Where factors are "
        "not smaller, None leaves the layer as it is, without any error"
    )
    return rank


def _evaluated(ranks: Ranks, factor: float = 1.0) -> Evaluation:
    factored = {name: rank for name, rank in ranks.items() if rank is not None}
    method = TruncatedSVD(rank=factored, layers=" ".join(factored))
    return evaluate(method(scaled(factor)), load_data("glyphs"))


def _question(function: Any, ranks: Ranks, limit: int) -> str:
    """Return a question that leads further: about scales, about small layers, or about what a weight is worth."""
    if called(function, layer_tables(), limit) != ranks:
        return (
            "You give other ranks for the network before it was scaled, though both compute the same. What should the "
            "error of a layer be divided by, so that its scale no longer matters?"
        )
    factored = [name for name in LAYERS if name not in SHARED and ranks[name] is not None]
    if factored:
        few = weights(dict.fromkeys(factored))
        every = weights(dict.fromkeys(LAYERS))
        return (
            f"You factor {' and '.join(factored)}, {few:,} of the {every:,} weights. How does the loss change from one "
            "of their ranks to the next, and to None? It need not fall at every step: look further than one"
        )
    return (
        "The same share of the energy, or of the rank, says neither what a layer matters for the loss nor how many "
        "weights a rank takes. By how much does the loss fall for each further weight in each layer?"
    )


def _accuracy(found: Evaluation) -> str:
    return f"{found.correct / found.seen:.1%}"


def _shown(ranks: Ranks) -> str:
    return ", ".join(f"{name} {'as it is' if rank is None else rank}" for name, rank in ranks.items())


CHECKS = (rank_budget,)
