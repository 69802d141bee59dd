"""Surgery on single layers: taking channels out, and silencing them in place."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compedu.graph.coupling import INPUT, OUTPUT, is_depthwise


def shrink_layer(layer: nn.Module, removed: Mapping[str, Tensor]) -> None:
    """Take channels out of a Conv2d, Linear, batch norm or PReLU in place.

    `removed` maps "output" and "input" to a boolean mask over the layer's channels on that side, true where removed;
    batch norm, PReLU and depthwise convolutions have an output side only.
    """
    kept = {side: (~mask).nonzero().flatten() for side, mask in removed.items()}
    if OUTPUT in kept:
        _shrink_outputs(layer, kept[OUTPUT])
    if INPUT in kept:
        _shrink_inputs(layer, kept[INPUT])


def silence_layer(layer: nn.Module, removed: Tensor) -> None:
    """Make the output channels under the boolean mask exactly zero in place, for a layer whose input is zero there."""
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean"):
            tensor = getattr(layer, name, None)
            if tensor is not None:
                tensor[removed] = 0


def _shrink_outputs(layer: nn.Module, kept: Tensor) -> None:
    for name in ("weight", "bias"):
        _select(layer, name, 0, kept)
    if isinstance(layer, nn.Linear):
        layer.out_features = len(kept)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(kept)
    elif not isinstance(layer, nn.Conv2d):
        for name in ("running_mean", "running_var"):
            _select(layer, name, 0, kept)
        layer.num_features = len(kept)
    else:
        if is_depthwise(layer):
            layer.in_channels = layer.groups = len(kept)
        layer.out_channels = len(kept)


def _shrink_inputs(layer: nn.Module, kept: Tensor) -> None:
    if isinstance(layer, nn.Linear):
        layer.in_features = len(kept)
        _select(layer, "weight", 1, kept)
        return
    # Every group keeps the same places, so those of the first group are the columns of the kernel that stay.
    layer.in_channels = len(kept)
    _select(layer, "weight", 1, kept[: len(kept) // layer.groups])


def _select(layer: nn.Module, name: str, dim: int, kept: Tensor) -> None:
    old = getattr(layer, name, None)
    if old is None:
        return
    new = old.detach().index_select(dim, kept.to(old.device))
    setattr(layer, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
