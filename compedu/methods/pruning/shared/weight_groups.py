"""Groups of weights: filters, input channels, columns of the product, whole layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compedu.forms import Geometry
from compedu.graph import INPUT, OUTPUT, ChannelGroup, Member


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups 0..count-1 of the weights of one or more layers.

    `labels[layer]` holds the number of each weight's group, -1 for weights in none; its shape is that of the layer's
    weight, or 1 along dimensions over which the label is constant. `sizes` (count,) are the numbers of weights.
    """

    labels: Mapping[str, Tensor]
    sizes: Tensor

    @classmethod
    def of(cls, labels: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], count: int) -> "Groups":
        """Return the groups that `labels` define in weights of `shapes`."""
        ones = {name: torch.ones(()).expand(shapes[name]) for name in labels}
        return cls(labels, group_totals(ones, labels, count))

    @property
    def count(self) -> int:
        """The number of groups."""
        return len(self.sizes)


def group_totals(values: Mapping[str, Tensor], labels: Mapping[str, Tensor], count: int) -> Tensor:
    """Return the sum of `values`, one per weight of the layers in `labels`, for each group; (count,)."""
    total = next(iter(values.values())).new_zeros(count)
    for name, label in labels.items():
        sums = values[name].sum_to_size(label.shape)
        inside = label >= 0
        total = total.index_add(0, label[inside], sums[inside])
    return total


def channel_labels(member: Member, geometry: Geometry) -> Tensor:
    """Return the channel index of each weight, broadcastable to the weight; -1 for weights of no channel.

    `member` produces or reads the channels; the inputs of a grouped convolution are those of all its groups in order.
    """
    out, inputs, *window = geometry.shape
    if member.side == OUTPUT:
        return member.channels.view(geometry.per_output)
    of_group = member.channels.view(geometry.groups, inputs)
    rows = of_group if geometry.groups == 1 else of_group.repeat_interleave(out // geometry.groups, 0)
    return rows.view(len(rows), inputs, *[1] * len(window))


def members_with_weights(group: ChannelGroup, side: str) -> tuple[Member, ...]:
    """Return the members of `group` whose weights produce its channels (`side` is OUTPUT) or read them (INPUT)."""
    return group.readers if side == INPUT else group.makers


def channel_groups(found: Sequence[ChannelGroup], layers: Mapping[str, Geometry], side: str) -> Groups:
    """Return the groups of weights that produce (`side` is OUTPUT) or read (INPUT) one channel each.

    The channels of `found` are numbered one group after another; `layers` gives the geometry of every layer that has
    such weights.
    """
    labels: dict[str, Tensor] = {}
    start = 0
    for group in found:
        for member in members_with_weights(group, side):
            own = channel_labels(member, layers[member.layer])
            label = torch.where(own >= 0, own + start, -1)
            labels[member.layer] = torch.maximum(labels.get(member.layer, label), label)
        start += group.size
    return Groups.of(labels, {name: layers[name].shape for name in labels}, start)


def kept_with_channels(
    layer: str, geometry: Geometry, groups: Sequence[ChannelGroup], removed: Mapping[str, Sequence[int]]
) -> Tensor:
    """Return a boolean mask over the weight of `layer`: what stays when `removed`, channels by group, are removed."""
    kept = torch.ones(geometry.shape, dtype=torch.bool)
    for group in groups:
        gone = torch.tensor(removed.get(group.name, ()), dtype=torch.long)
        for member in group.makers + group.readers:
            if member.layer == layer:
                kept &= ~torch.isin(channel_labels(member, geometry), gone)
    return kept


def column_labels(geometry: Geometry) -> Tensor:
    """Return for each weight its column in the layer's matrix product: one input, for all filters that read it.

    For a convolution that is one kernel position in one input channel, a column of the im2col matrix (Lebedev,
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


def labeled_groups(labels: Mapping[str, Tensor], layers: Mapping[str, Geometry]) -> tuple[Groups, list[int]]:
    """Return the groups of all layers, numbered layer by layer, and their number in each layer."""
    counts = [int(label.max()) + 1 for label in labels.values()]
    starts = [sum(counts[:place]) for place in range(len(counts))]
    shifted = {name: label + start for (name, label), start in zip(labels.items(), starts, strict=True)}
    return Groups.of(shifted, {name: layers[name].shape for name in labels}, sum(counts)), counts
