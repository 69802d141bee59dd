"""Filter criteria: the score of each channel in a group of coupled layers.

Criteria of filters are means over weights, so that layers of different fan-in, and layers that produce a channel
together, can be compared.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compedu.datasets.objectives import CLASSES, Objective
from compedu.errors import CompressionError
from compedu.forms import precise
from compedu.graph import INPUT, ChannelGroup
from compedu.methods.hooks import hooked
from compedu.reproducible import seeded

BATCH = 64


def mean_absolute(weight: Tensor) -> Tensor:
    """Return the mean |w| of each filter of `weight` (out, ...): (out,) (Li et al. 2017, arXiv:1608.08710, section 3).

    >>> mean_absolute(torch.tensor([[1.0, -2.0], [3.0, 0.0]])).tolist()
    [1.5, 1.5]
    """
    return weight.flatten(1).abs().mean(1)


def mean_square(weight: Tensor) -> Tensor:
    """Return the mean w^2 of each filter of `weight` (out, ...): (out,), the order of the l2 norms (ibid., section 4).

    >>> mean_square(torch.tensor([[1.0, -2.0], [3.0, 0.0]])).tolist()
    [2.5, 4.5]
    """
    return weight.flatten(1).square().mean(1)


def mean_distance(weight: Tensor) -> Tensor:
    """Return the mean distance of each filter of `weight` (out, ...) to the others, over the root of its size: (out,).

    The filter with the smallest sum of distances is closest to the geometric median of the layer, and the others can
    replace it: it goes first (He, Liu, Wang, Hu, Yang 2019, arXiv:1811.00250, section 3.3).

    >>> mean_distance(torch.tensor([[0.0], [1.0], [5.0]])).tolist()
    [3.0, 2.5, 4.5]
    """
    rows = weight.flatten(1).double()  # double: cdist of large layers takes differences of products
    distances = torch.cdist(rows, rows)
    return distances.sum(1) / (max(1, len(rows) - 1) * rows.shape[1] ** 0.5)


def filter_scores(model: nn.Module, group: ChannelGroup, criterion: Callable[[Tensor], Tensor]) -> Tensor:
    """Return for each channel of `group` the mean of `criterion` over the filters that produce it, (size,).

    Filters are weighted by their number of weights.
    """
    totals = torch.zeros(())
    counts = torch.zeros(())
    for name in group.producers:
        weight = precise(model.get_submodule(name).weight.detach())
        sizes = weight.new_full((len(weight),), weight[0].numel())
        totals = totals + group.totals(group.filters(name), sizes * criterion(weight))
        counts = counts + group.totals(group.filters(name), sizes)
    return totals / counts


def group_scores(model: nn.Module, group: ChannelGroup) -> Tensor:
    """Return for each channel of `group` the sum of |w| over all weights that go with it, over their mean, (size,).

    These are the filters, depthwise filters and batch-norm scales that produce it, and the weights that read it,
    without biases and shifts. The average channel of every group scores 1 (Fang, Ma, Song, Mi, Wang 2023, DepGraph:
    Towards any structural pruning, arXiv:2301.12900, section 3.3; as `GroupMagnitudeImportance(p=1)` of torch-pruning).
    """
    totals = torch.zeros(group.size)
    for member in group.members:
        layer = model.get_submodule(member.layer)
        if isinstance(layer, nn.PReLU) or layer.weight is None:  # a slope contributes nothing to its channel
            continue
        weights = precise(layer.weight.detach().abs())
        sums = sums_by_input(layer, weights) if member.side == INPUT else weights.reshape(len(weights), -1).sum(1)
        totals = totals + group.totals(member.channels, sums)
    return totals / (float(totals.mean()) or 1.0)  # if all are zero, all score the same


def sums_by_input(layer: nn.Conv2d | nn.Linear, weights: Tensor) -> Tensor:
    """Return for each input channel of `layer` the sum of those `weights` (shaped as its own) that read it, (inputs,).

    >>> sums_by_input(nn.Conv2d(4, 4, 1, groups=2), torch.arange(8.0).view(4, 2, 1, 1)).tolist()
    [2.0, 4.0, 10.0, 12.0]
    """
    groups = getattr(layer, "groups", 1)
    return weights.reshape(groups, len(weights) // groups, weights.shape[1], -1).sum((1, 3)).flatten()


def batch_norm_scores(model: nn.Module, group: ChannelGroup) -> Tensor | None:
    """Return for each channel of `group` the mean |gamma| over its batch norms, (size,); None if one has no scale.

    Scales are compared between layers as they are: batch norms normalize their outputs to one scale (Liu et al. 2017,
    Learning efficient convolutional networks through network slimming, arXiv:1708.06519, section 3).
    """
    totals = torch.zeros(group.size)
    counts = torch.zeros(group.size)
    for norm in group.normalizations:
        scale = model.get_submodule(norm.layer).weight
        if scale is not None:
            totals = totals + group.totals(norm.channels, scale.detach().abs())
            counts = counts + group.totals(norm.channels, torch.ones_like(scale))
    return totals / counts if bool((counts > 0).all()) else None


def taylor_scores(
    model: nn.Module, groups: Sequence[ChannelGroup], x: Tensor, y: Tensor, objective: Objective = CLASSES
) -> list[Tensor]:
    """Return for each group the mean over images of |first-order change of the loss without a channel|, (size,).

    The change is the sum over positions of activation times gradient, over all layers that read the channel; the scores
    of each group are divided by their l2 norm (Molchanov, Tyree, Karras, Aila, Kautz 2017, arXiv:1611.06440, sections
    2.2 and 2.3). x are images (N, ...), y their labels (N,), the loss is that of `objective`; `model` is in evaluation
    mode and stays unchanged.
    """
    readers = {reader.layer: model.get_submodule(reader.layer) for group in groups for reader in group.readers}
    sums = [torch.zeros(group.size) for group in groups]
    for images, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
        found = loss_derivatives(model, readers, images, labels, objective)
        for place, group in enumerate(groups):
            read = [reader for reader in group.readers if reader.layer in found]
            if read:  # otherwise nothing reads these channels, and the loss does not change
                change = sum(group.totals(reader.channels, found[reader.layer].T) for reader in read)
                sums[place] = sums[place] + change.abs().sum(1)
    return [F.normalize(total / len(x), dim=0) for total in sums]


def loss_derivatives(
    model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor, y: Tensor, objective: Objective = CLASSES
) -> dict[str, Tensor]:
    """Return d(loss of image n) / d(factor on input channel c) at factor 1 for each of `layers` that runs, (N, C).

    The loss is that of `objective`, by default the cross entropy in nats. Raises `CompressionError` for a layer whose
    inputs are not one per image, and for an objective that gives single images no loss.
    """
    factors: dict[str, Tensor] = {}

    def multiply(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen = inputs[0]
        if len(seen) != len(x):
            raise CompressionError(
                f"{name} gets {len(seen)} inputs for {len(x)} images, so the losses of single images cannot be told "
                "apart; choose a criterion that needs no gradient"
            )
        dim = seen.ndim - 1 if isinstance(layer, nn.Linear) else 1
        factors[name] = seen.new_ones(len(seen), seen.shape[dim]).requires_grad_()
        shape = [size if place in (0, dim) else 1 for place, size in enumerate(seen.shape)]
        return seen * factors[name].view(shape), *inputs[1:]

    with hooked(layers, before=multiply), torch.enable_grad(), seeded(0):
        loss = objective.losses(model(x), y).sum()
        slopes = torch.autograd.grad(loss, list(factors.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(factors, slopes, strict=True))
