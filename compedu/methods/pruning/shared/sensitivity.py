"""The sensitivity scan: the rise of the loss when one layer alone is pruned, and the budget that follows from it."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.evaluation import all_logits, refuse_probabilities
from compedu.forms import Geometry, weight_of
from compedu.graph.copying import inference_copy
from compedu.methods.calibration import calibration_set
from compedu.methods.layers import replace_layer
from compedu.methods.pruning.shared.masks import keep_largest

SPARSITIES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
HALVINGS = 50  # of the tolerated rise: far more than a rounded number of weights can resolve


def sensitivity_scan(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    scores: Mapping[str, Tensor],
    data: Dataset,
    images: int,
    sparsities: Sequence[float] = SPARSITIES,
) -> dict[str, list[float]]:
    """Return for each of `layers` the mean loss when it alone is pruned to each of `sparsities`.

    The weights of lowest `scores` go, but never the last one; the loss is measured on `images` evenly spaced training
    images (Han, Pool, Tran, Dally 2015, arXiv:1506.02626, section 5 and figure 6). `model` is untouched.
    """
    refuse_probabilities(model, data)
    x, y = calibration_set(data, images)
    losses: dict[str, list[float]] = {}
    for name, layer in layers.items():
        geometry = Geometry.of(layer)
        weight = weight_of(layer).detach()
        losses[name] = []
        for sparsity in sparsities:
            mask = keep_largest(scores[name], min(sparsity, all_but_one(weight.numel())))
            thinned = geometry.layer(weight * mask, layer.bias)
            pruned = replace_layer(inference_copy(model), name, thinned.eval())
            losses[name].append(float(data.objective.loss(all_logits(pruned, x, data), y)))
    return losses


def all_but_one(count: int) -> float:
    """Return the sparsity that leaves one of `count` weights."""
    return (count - 1) / count


def tolerated_sparsity(sparsities: Sequence[float], losses: Sequence[float], rise: float) -> float:
    """Return the largest sparsity up to which the loss stays within `rise` of the first, linearly interpolated.

    >>> tolerated_sparsity([0.0, 0.5, 0.9], [1.0, 1.1, 2.1], 0.6)
    0.7
    """
    limit = losses[0] + rise
    for (low, before), (high, after) in pairwise(zip(sparsities, losses, strict=True)):
        if after > limit:
            return low + (high - low) * (limit - before) / (after - before)
    return sparsities[-1]


def sensitivity_sparsities(
    losses: Mapping[str, Sequence[float]],
    sizes: Mapping[str, int],
    sparsity: float,
    sparsities: Sequence[float] = SPARSITIES,
) -> dict[str, float]:
    """Return for each layer its sparsity when all tolerate the same rise of the loss and the total is `sparsity`.

    Beyond the range of the scan, all layers lose the same fraction. One weight of each layer stays.
    """
    total = sum(sizes.values())
    low = 0.0
    high = 2.0 * max(max(curve) - curve[0] for curve in losses.values()) + 1e-9

    def shares(rise: float) -> dict[str, float]:
        tolerated = {name: tolerated_sparsity(sparsities, curve, rise) for name, curve in losses.items()}
        return {name: min(share, all_but_one(sizes[name])) for name, share in tolerated.items()}

    def removed(found: Mapping[str, float]) -> float:
        return sum(found[name] * sizes[name] for name in found)

    if removed(shares(high)) <= sparsity * total:
        return equal_sparsities(sizes, sparsity)
    for _ in range(HALVINGS):  # bisection: what all layers tolerate together grows with the rise
        middle = (low + high) / 2
        low, high = (low, middle) if removed(shares(middle)) > sparsity * total else (middle, high)
    found = shares(high)
    # a steep curve may jump past the total: all layers give back the same fraction of the excess
    scale = sparsity * total / removed(found) if removed(found) else 0.0
    return {name: scale * share for name, share in found.items()}


def equal_sparsities(sizes: Mapping[str, int], sparsity: float) -> dict[str, float]:
    """Return one sparsity for all layers, so that the total is `sparsity` and one weight of each layer stays.

    If a layer has too few weights for it, the others lose more. If fewer weights may stay than there are layers, all
    get `sparsity`.

    >>> equal_sparsities({"a": 2, "b": 98}, 0.9)
    {'a': 0.5, 'b': 0.9081632653061225}
    """
    full: set[str] = set()
    while free := [name for name in sizes if name not in full]:
        rest = sparsity * sum(sizes.values()) - sum(sizes[name] - 1 for name in full)
        share = rest / sum(sizes[name] for name in free)
        over = {name for name in free if share > all_but_one(sizes[name])}
        if not over:
            return {name: all_but_one(size) if name in full else share for name, size in sizes.items()}
        full |= over
    return dict.fromkeys(sizes, sparsity)
