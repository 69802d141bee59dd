"""Which weights of a layer a pruned network keeps: those inside its mask, or those of the remaining channels."""

from torch import Tensor

from compedu.explorers.view import View
from compedu.forms import FormFacts, Geometry
from compedu.graph import find_channels
from compedu.methods.pruning.shared.channel_removal import taken_out_first
from compedu.methods.pruning.shared.weight_groups import kept_with_channels


def left_weights(view: View, layer: str) -> Tensor | None:
    """Return a boolean mask over the dense layer's weight, or None where nothing was removed from it."""
    before, after = view.layer_pair(layer)
    kept = after.kept_weights() if isinstance(after, FormFacts) else None
    if kept is not None:
        return kept
    removed = {} if view.after is None else taken_out_first(view.after)
    if not removed:
        return None
    groups = find_channels(view.before, view.data.example).groups
    return kept_with_channels(layer, Geometry.of(before), groups, removed)
