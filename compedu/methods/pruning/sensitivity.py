"""The sensitivity scan: how much the loss rises when one layer alone is pruned, and the budget that follows from it."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.evaluation import all_scores
from compedu.forms import Geometry, kernel_of
from compedu.graph.trace import inference_copy
from compedu.methods.calibration import calibration_set
from compedu.methods.layers import replace_layer
from compedu.methods.pruning.masks import keep_largest

SPARSITIES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
HALVINGS = 50  # of the tolerated rise: far below what a rounded number of weights can show


def sensitivity_scan(
    model: nn.Module, layers: Mapping[str, nn.Module], scores: Mapping[str, Tensor], data: Dataset, images: int,
    sparsities: Sequence[float] = SPARSITIES,
) -> dict[str, list[float]]:
    """Return for each of `layers` the mean loss (nats) when it alone loses each of `sparsities` of its weights.

    The weights of lowest `scores` go; the loss is that on `images` training images, evenly spaced (Han, Pool, Tran,
    Dally 2015, arXiv:1506.02626, section 3.3 and figure 6). `model` is untouched.
    """
    x, y = calibration_set(data, images)
    losses: dict[str, list[float]] = {}
    for name, layer in layers.items():
        geometry, kernel = Geometry.of(layer), kernel_of(layer).detach()
        losses[name] = []
        for sparsity in sparsities:
            thinned = geometry.layer(kernel * keep_largest(scores[name], sparsity), layer.bias)
            pruned = replace_layer(inference_copy(model), name, thinned.eval())
            losses[name].append(float(F.cross_entropy(all_scores(pruned, x, data), y)))
    return losses


def tolerated_sparsity(sparsities: Sequence[float], losses: Sequence[float], rise: float) -> float:
    """Return the largest sparsity up to which the loss stays within `rise` of the first, between points along a line.

    >>> tolerated_sparsity([0.0, 0.5, 0.9], [1.0, 1.1, 2.1], 0.6)
    0.7
    """
    limit = losses[0] + rise
    for (low, before), (high, after) in pairwise(zip(sparsities, losses)):
        if after > limit:
            return low + (high - low) * (limit - before) / (after - before)
    return sparsities[-1]


def sensitivity_sparsities(
    losses: Mapping[str, Sequence[float]], sizes: Mapping[str, int], sparsity: float,
    sparsities: Sequence[float] = SPARSITIES,
) -> dict[str, float]:
    """Return for each layer what it loses when all tolerate one rise of the loss, so that `sparsity` of all weights go.

    Beyond what the scan covers, all layers lose alike.
    """
    total, low, high = sum(sizes.values()), 0.0, 2.0 * max(max(curve) - curve[0] for curve in losses.values()) + 1e-9

    def shares(rise: float) -> dict[str, float]:
        return {name: tolerated_sparsity(sparsities, curve, rise) for name, curve in losses.items()}

    def removed(found: Mapping[str, float]) -> float:
        return sum(found[name] * sizes[name] for name in found)

    if removed(shares(high)) <= sparsity * total:
        return dict.fromkeys(losses, sparsity)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if removed(shares(middle)) > sparsity * total else (middle, high)
    found = shares(high)
    # a step of a curve may be crossed at once: what is too much is given back alike
    scale = sparsity * total / removed(found) if removed(found) else 0.0
    return {name: scale * share for name, share in found.items()}
