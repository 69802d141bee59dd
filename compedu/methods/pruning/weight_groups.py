"""The structures that weights form: filters, input channels, columns of the product, whole layers."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from compedu.forms import Geometry
from compedu.graph import ChannelGroup
from compedu.methods.pruning.group_lasso import Groups

MAKERS, READERS = ("producer", "depthwise"), ("consumer",)  # roles of the layers in a channel group


def channel_labels(channels: Tensor, geometry: Geometry, roles: Sequence[str]) -> Tensor:
    """Return the number of each weight's channel, to broadcast against the kernel; -1 for weights of no channel.

    `channels` are the numbers of the layer's filters (`roles` are MAKERS) or of its inputs (READERS), from all
    groups of a grouped convolution one after another.
    """
    out, inputs, *kernel = geometry.shape
    if roles is MAKERS:
        return channels.view(geometry.per_output)
    of_group = channels.view(geometry.groups, inputs)
    rows = of_group if geometry.groups == 1 else of_group.repeat_interleave(out // geometry.groups, 0)
    return rows.view(len(rows), inputs, *[1] * len(kernel))


def channel_groups(found: Sequence[ChannelGroup], layers: Mapping[str, Geometry], roles: Sequence[str]) -> Groups:
    """Return the groups of weights that make or read one channel each, channels of `found` one after another.

    `layers` gives the geometry of every layer that has one of the `roles`.
    """
    labels: dict[str, Tensor] = {}
    start = 0
    for group in found:
        for member in group.members:
            if member.role in roles:
                own = torch.where(member.channels >= 0, member.channels + start, -1)
                label = channel_labels(own, layers[member.layer], roles)
                labels[member.layer] = torch.maximum(labels.get(member.layer, label), label)
        start += group.size
    return Groups.of(labels, {name: layers[name].shape for name in labels}, start)


def column_labels(geometry: Geometry) -> Tensor:
    """Return the number of each weight's column in the product that a layer is: one input of all filters that read it.

    For a convolution that is one place of the kernel in one input channel, a column of the im2col matrix (Lebedev,
    Lempitsky 2016, arXiv:1506.02515, section 3; Wen et al. 2016, arXiv:1608.03665, section 3.2, "filter shape").
    """
    out, *column = geometry.shape
    rows = 1 if geometry.groups == 1 else out
    of_group = torch.arange(rows) * geometry.groups // rows
    size = torch.Size(column).numel()
    return (of_group.unsqueeze(1) * size + torch.arange(size)).view(rows, *column)


def layer_labels(geometry: Geometry) -> Tensor:
    """Return the labels that make a whole layer one group."""
    return torch.zeros([1] * len(geometry.shape), dtype=torch.long)


def labelled_groups(labels: Mapping[str, Tensor], layers: Mapping[str, Geometry]) -> tuple[Groups, list[int]]:
    """Return the groups of all layers, numbered one layer after another, and how many each layer has."""
    counts = [int(label.max()) + 1 for label in labels.values()]
    starts = [sum(counts[:place]) for place in range(len(counts))]
    shifted = {name: label + start for (name, label), start in zip(labels.items(), starts)}
    return Groups.of(shifted, {name: layers[name].shape for name in labels}, sum(counts)), counts
