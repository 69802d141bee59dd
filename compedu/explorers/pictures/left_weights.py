"""Which weights of a layer a pruned network still has: those that its mask keeps, or whose channels are still there."""

import torch
from torch import Tensor

from compedu.explorers.view import View
from compedu.forms import Geometry, Masked
from compedu.graph import find_channels
from compedu.methods.method import compression_of
from compedu.methods.pruning.weight_groups import MAKERS, READERS, channel_labels


def left_weights(view: View, layer: str) -> Tensor | None:
    """Return a boolean mask over the dense layer's kernel, or None where nothing was taken from it."""
    before, after = view.layer_pair(layer)
    if isinstance(after, Masked):
        return after.mask
    records = compression_of(view.after).removed if view.after is not None else ()
    if not records:
        return None
    geometry, left = Geometry.of(before), torch.ones(Geometry.of(before).shape, dtype=torch.bool)
    first = {record.group: record.channels for record in records if record.step == records[0].step}
    for group in find_channels(view.before, view.data.example).groups:
        gone = torch.tensor(first.get(group.name, ()), dtype=torch.long)
        for member in group.members:
            if member.layer == layer and member.role in MAKERS + READERS:
                roles = READERS if member.role in READERS else MAKERS
                left &= ~torch.isin(channel_labels(member.channels, geometry, roles), gone)
    return left
