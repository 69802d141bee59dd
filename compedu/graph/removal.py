"""Surgery on single layers: choosing among their channels, and zeroing some in place."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compedu.graph.coupling import INPUT, OUTPUT, is_depthwise


def choose_in_layer(layer: nn.Module, chosen: Mapping[str, Tensor]) -> None:
    """Give a Conv2d, Linear, batch norm or PReLU, in place, the channels `chosen` of those that it has.

    `chosen` maps "output" and "input" to channel numbers of that side, in their new order, some perhaps repeated; batch
    norm, PReLU and depthwise convolutions have only an output side. The weights that read a repeated channel are
    divided by the number of its copies, so that their sum is unchanged (Chen et al. 2016,
    arXiv:1511.05641, section 2.1).
    """
    if OUTPUT in chosen:
        _choose_outputs(layer, chosen[OUTPUT])
    if INPUT in chosen:
        _choose_inputs(layer, chosen[INPUT])


def silence_layer(layer: nn.Module, removed: Tensor) -> None:
    """Make the output channels under the boolean mask exactly zero in place, for a layer whose input is zero there."""
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean"):
            tensor = getattr(layer, name, None)
            if tensor is not None:
                tensor[removed] = 0


def _choose_outputs(layer: nn.Module, chosen: Tensor) -> None:
    for name in ("weight", "bias"):
        _select(layer, name, 0, chosen)
    if isinstance(layer, nn.Linear):
        layer.out_features = len(chosen)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(chosen)
    elif not isinstance(layer, nn.Conv2d):
        for name in ("running_mean", "running_var"):
            _select(layer, name, 0, chosen)
        layer.num_features = len(chosen)
    else:
        if is_depthwise(layer):
            layer.in_channels = layer.groups = len(chosen)
        layer.out_channels = len(chosen)


def _choose_inputs(layer: nn.Linear | nn.Conv2d, chosen: Tensor) -> None:
    if isinstance(layer, nn.Linear):
        layer.in_features = len(chosen)
        columns = chosen
    else:
        # Every group chooses the same places, so those of the first group are the columns of the weight.
        layer.in_channels = len(chosen)
        columns = chosen[: len(chosen) // layer.groups]
    _select(layer, "weight", 1, columns)
    copies = columns.bincount()[columns]
    weight = layer.get_parameter("weight")
    if bool((copies > 1).any()):
        with torch.no_grad():
            weight /= copies.to(weight).view(1, -1, *[1] * (weight.ndim - 2))


def _select(layer: nn.Module, name: str, dim: int, chosen: Tensor) -> None:
    old = getattr(layer, name, None)
    if old is None:
        return
    new = old.detach().index_select(dim, chosen.to(old.device))
    setattr(layer, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
