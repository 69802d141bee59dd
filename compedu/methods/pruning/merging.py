"""Neuron merging: of two similar neurons one is removed and the other takes over its outgoing weights. No data."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, fx, nn

from compedu.graph import ChannelGroup, path_obstacle, trace
from compedu.graph.folding import folded_weight
from compedu.knobs import PerLayer, inherited, method
from compedu.methods.pruning.shared.channel_removal import ChannelRemoval
from compedu.methods.task import Task


def merging_saliencies(incoming: Tensor, outgoing: Tensor) -> Tensor:
    """Return s_ij = mean(a_j^2) ||W_i - W_j||^2 (n, n): the cost of replacing neuron j by i; infinite for i = j.

    `incoming` W is (n, d), the weights and bias of each neuron, `outgoing` a is (n, m) (Srinivas, Babu 2015, section
    3).

    >>> merging_saliencies(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]])).tolist()
    [[inf, 36.0], [4.0, inf]]
    """
    squares = incoming.square().sum(1)
    distances = (squares[:, None] + squares[None, :] - 2 * incoming @ incoming.T).clamp_min(0)
    return distances.fill_diagonal_(torch.inf) * outgoing.square().mean(1).clamp_min(torch.finfo(outgoing.dtype).tiny)


def merge_neurons(incoming: Tensor, outgoing: Tensor, count: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return the outgoing weights (n, m) after `count` greedy merges, and the pairs (kept, removed).

    a_i becomes a_i + a_j and a_j zero; saliencies that changed are recomputed (Srinivas, Babu 2015, section 3).
    """
    outgoing = outgoing.clone()
    pairs = []
    distances = merging_saliencies(incoming, torch.ones_like(outgoing[:, :1]))
    power = outgoing.square().mean(1).clamp_min(torch.finfo(outgoing.dtype).tiny)
    # s_ij is a distance times the power of j: for each j the nearest i suffices, and only the power changes in a merge.
    least, nearest = distances.min(0)
    for _ in range(count):
        j = int((power * least).argmin())
        i = int(nearest[j])
        pairs.append((i, j))
        outgoing[i] += outgoing[j]
        outgoing[j] = 0
        power[i] = outgoing[i].square().mean().clamp_min(torch.finfo(outgoing.dtype).tiny)
        distances[j] = torch.inf
        distances[:, j] = torch.inf
        least[j] = torch.inf
        stale = (nearest == j).nonzero().flatten()
        least[stale], nearest[stale] = distances[:, stale].min(0)
    return outgoing, pairs


def by_channel(weight: Tensor, channels: Tensor) -> Tensor:
    """Return a copy of the weights of `weight` (out, in, ...) that read each channel, (size, weights)."""
    inputs = weight.detach()[:, channels.argsort(stable=True)]
    return inputs.unflatten(1, (int(channels.max()) + 1, -1)).transpose(0, 1).flatten(1)


def put_by_channel(weight: Tensor, channels: Tensor, values: Tensor) -> None:
    """Write `values` (size, weights), in the order of `by_channel`, into `weight` (out, in, ...)."""
    shape = (len(values), weight.shape[0], -1, *weight.shape[2:])
    with torch.no_grad():
        weight[:, channels.argsort(stable=True)] = values.view(shape).transpose(0, 1).flatten(1, 2).to(weight.dtype)


def obstacle(model: nn.Module, traced: fx.GraphModule, group: ChannelGroup) -> str:
    """Return why the neurons of `group` cannot be merged, "" if they can."""
    if len(group.makers) > 1:
        return f"its neurons are produced by {', '.join(maker.layer for maker in group.makers)} together"
    if group.activations or len(group.normalizations) > 1:
        return "its neurons pass an activation or several normalizations with parameters of their own"
    plain = group.makers + group.readers
    if any(getattr(model.get_submodule(member.layer), "groups", 1) > 1 for member in plain):
        return "it, or a layer that reads it, is grouped"
    if any(bool((member.channels < 0).any()) for member in plain):
        return "its neurons go different ways, or are concatenated with those of other layers"
    maker = group.makers[0]
    if len(maker.channels.unique()) < len(maker.channels):
        return "several of its filters produce one channel together, as with gates or maxout"
    if not group.readers:
        return "no layer reads it"
    return path_obstacle(traced, maker.layer, [reader.layer for reader in group.readers])


def incoming_weights(model: nn.Module, group: ChannelGroup) -> Tensor:
    """Return the incoming weights and bias of each neuron, float64 (size, d); a following batch norm is folded in."""
    maker = group.makers[0]
    layer = model.get_submodule(maker.layer)
    weight = layer.weight.detach()
    bias = None if layer.bias is None else layer.bias.detach()
    for norm in group.normalizations:  # double precision from there on; a conversion here would hold one copy more
        weight, bias = folded_weight(weight, bias, model.get_submodule(norm.layer))
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    rows = torch.cat([weight.flatten(1), bias[:, None]], 1).detach().double()
    del weight
    return rows[maker.channels.argsort()]


def merge(model: nn.Module, group: ChannelGroup, count: int) -> list[int]:
    """Merge `count` neurons of `group` into others in place, so that nothing reads them any more; return them."""
    weights = [model.get_submodule(reader.layer).weight for reader in group.readers]
    parts = [
        by_channel(weight, reader.channels).double() for weight, reader in zip(weights, group.readers, strict=True)
    ]
    widths = [part.shape[1] for part in parts]
    outgoing = torch.cat(parts, 1)
    del parts  # in double precision those of a large layer take as much memory as half of a network
    merged, pairs = merge_neurons(incoming_weights(model, group), outgoing, count)
    for weight, reader, values in zip(weights, group.readers, merged.split(widths, 1), strict=True):
        put_by_channel(weight, reader.channels, values)
    return [removed for _, removed in pairs]


@method
class NeuronMerging(ChannelRemoval):
    r"""Remove neurons (or filters) that do nearly what another one does, and let that one take over their weights.

    $s_{ij} = \mathrm{E}(a_j^2)\,\lVert W_i - W_j \rVert^2$ with $W$ the incoming weights and bias of a neuron,
    $a$ its outgoing weights; the pair of smallest $s_{ij}$ goes first: $a_i \leftarrow a_i + a_j$, and $j$ is removed.
    A batch norm after the layer counts as part of $W$.
    Stored: the smaller layers, dense, at full precision.
    Skips: the layers that produce the network's output; neurons whose outputs are added to or concatenated with others,
    or reach their readers through an operation that does not treat all neurons separately and alike; grouped layers;
    forms of any kind. A network without model.spec, which gives the size of its images, is traced on one image: pass
    data too.
    Paper: Srinivas, Babu 2015, Data-free parameter pruning for deep neural networks, arXiv:1507.06149, section 3.
    """

    speaks_for: ClassVar[bool] = True

    sparsity: PerLayer[float] = inherited(ChannelRemoval, "sparsity")

    def obstacles(self, task: Task, groups: Sequence[ChannelGroup]) -> list[str]:
        """Return for each group why its neurons cannot be merged, "" if they can."""
        traced = trace(task.source)
        return [obstacle(task.source, traced, group) for group in groups]

    def removal(self, task: Task, groups: Sequence[ChannelGroup]) -> dict[str, list[int]]:
        """Merge neurons of every group in the task's network; return those that nothing reads any more."""
        return {group.name: merge(task.model, group, group.removable(self.value(group))) for group in groups}
