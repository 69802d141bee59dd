"""Masks: which weights stay, by score; how a mask is applied to a layer, and tightened in training."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compedu.errors import CompressionError, Skip
from compedu.forms import Form, Geometry, Masked, mask_of, weight_of
from compedu.knobs import value_for
from compedu.methods.layers import NO_VALUE, replace_layer
from compedu.methods.task import Task

EMPTIED = "has no weight left: an earlier step emptied it"


def keep_largest(scores: Tensor, sparsity: float) -> Tensor:
    """Return a boolean mask, of the shape of `scores`, without the round(sparsity * n) smallest; ties drop the earlier.

    >>> keep_largest(torch.tensor([3.0, 1.0, 2.0, 4.0]), 0.5).tolist()
    [True, False, False, True]
    """
    drop = round(sparsity * scores.numel())
    mask = torch.ones(scores.numel(), dtype=torch.bool)
    if drop > 0:
        flat = scores.reshape(-1)
        threshold = flat.kthvalue(drop).values
        mask[flat < threshold] = False
        ties = (flat == threshold).nonzero().squeeze(1)
        mask[ties[: drop - int((~mask).sum())]] = False
    return mask.view(scores.shape)


def keep_largest_together(scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Return masks as `keep_largest` does, with all layers' `scores` ranked together, in the memory of one copy."""
    drop = round(sparsity * sum(score.numel() for score in scores.values()))
    if drop == 0:
        return {name: torch.ones(score.shape, dtype=torch.bool) for name, score in scores.items()}
    threshold = kth_smallest(scores.values(), drop)
    masks = {name: score >= threshold for name, score in scores.items()}
    ties = drop - sum(mask.numel() - int(mask.sum()) for mask in masks.values())
    for name, score in scores.items():
        equal = (score == threshold).reshape(-1).nonzero().squeeze(1)[:ties]
        masks[name].view(-1)[equal] = False
        ties -= len(equal)
    return masks


def kth_smallest(scores: Iterable[Tensor], k: int) -> Tensor:
    """Return the k-th smallest of all `scores`, counted from 1, in the memory of one copy of them."""
    values = torch.cat([score.reshape(-1) for score in scores])
    values = values.float() if values.dtype == torch.bfloat16 else values  # numpy has no such type
    values.numpy().partition(k - 1)
    return values[k - 1].clone()


def prunable(task: Task) -> dict[str, nn.Module]:
    """Return the selected layers that can be masked; other forms and emptied layers are skipped by name."""
    task.open_attentions()
    layers = {}
    for name, layer in task.selected_layers().items():
        if isinstance(layer, Form) and not isinstance(layer, Masked):
            task.skip(name, f"is already compressed ({type(layer).__name__}); prune before that step")
        elif isinstance(layer, Masked) and not bool(layer.mask.any()):
            task.skip(name, EMPTIED)
        else:
            layers[name] = layer
    task.refuse_if_nothing_done(len(layers))
    return layers


def with_masks(task: Task, layers: dict[str, nn.Module], masks: dict[str, Tensor]) -> nn.Module:
    """Return the network with `masks` on its layers; existing masks stay in force.

    Raises `CompressionError` where no layer can be replaced.
    """
    done = 0
    for name, layer in layers.items():
        if name not in masks:
            task.skip(name, NO_VALUE)
            continue
        mask = masks[name] & mask_of(layer)
        refuse_empty(task, name, mask)
        form = Masked(Geometry.of(layer), weight_of(layer), mask, layer.bias)
        try:
            task.model = replace_layer(task.model, name, form)
            done += 1
        except Skip as reason:
            task.skip(name, str(reason))
    task.refuse_if_nothing_done(done)
    return task.model


def layers_with_value(task: Task, layers: dict[str, nn.Module], value: Any) -> dict[str, nn.Module]:
    """Return those of `layers` that a per-layer `value` covers; the others are skipped by name."""
    given = {}
    for name, layer in layers.items():
        if value_for(value, name) is None:
            task.skip(name, NO_VALUE)
        else:
            given[name] = layer
    return given


def masked_layers(task: Task, layers: dict[str, nn.Module]) -> dict[str, Masked]:
    """Mask each of `layers` in the task's network without dropping anything; return by name those that took a mask."""
    with_masks(task, layers, {name: mask_of(layer) for name, layer in layers.items()})
    masked = {name: task.model.get_submodule(name) for name in layers}
    return {name: layer for name, layer in masked.items() if isinstance(layer, Masked)}


def tighten(task: Task, layers: dict[str, Masked], masks: dict[str, Tensor]) -> None:
    """Drop the weights outside `masks` from masked `layers`, in place; existing masks stay in force."""
    for name, layer in layers.items():
        mask = masks[name] & layer.mask
        refuse_empty(task, name, mask)
        layer.mask.copy_(mask)
        layer.clear()


def refuse_empty(task: Task, name: str, mask: Tensor) -> None:
    """Raise `CompressionError` for a mask that leaves a layer without any weight."""
    if not bool(mask.any()) and math.prod(mask.shape) > 0:
        raise CompressionError(
            f"{task.method!r} would leave no weight in {name} (shape {tuple(mask.shape)}); lower the sparsity or "
            f"exclude the layer with layers='-{name}'"
        )
