"""Magnitude pruning: the weights of smallest absolute value become zero."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.forms import Form, Geometry, Masked, kernel_of
from compedu.knobs import knob, method, value_for
from compedu.methods.layer_method import SelectiveMethod
from compedu.methods.layers import NO_VALUE, replace_layer
from compedu.methods.method import Method, Task


def keep_largest(scores: Tensor, sparsity: float) -> Tensor:
    """Return a boolean mask of the shape of `scores` without the round(sparsity * n) smallest; ties drop the earlier.

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


@method
class MagnitudePruning(SelectiveMethod):
    r"""Set the weights of smallest absolute value to zero, in each layer or in the whole network.

    $m_{ij} = [\,|w_{ij}| > \tau\,]$, with the threshold $\tau$ at the `sparsity` quantile of $|w|$.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; forms other than masked ones.
    Paper: Han, Pool, Tran, Dally 2015, Learning both weights and connections, arXiv:1506.02626, section 3.
    """

    topic: ClassVar[str] = "pruning"
    chance: ClassVar[str] = "RandomPruning"
    neutral: ClassVar[dict[str, Any]] = {"sparsity": 0.0}

    sparsity: float = knob(
        0.8, "fraction of the weights set to zero", low=0, high=1, open="high", tour=(0.0, 0.99), per_layer=True
    )
    scope: str = knob("layer", "where the ranking happens", choices=("layer", "global"))

    def __post_init__(self):
        SelectiveMethod.__post_init__(self)
        refuse_mapping_when_global(self)

    def compress(self, task: Task) -> nn.Module:
        """Mask every selected layer."""
        layers = prunable(task)
        kernels = {name: kernel_of(layer).detach() for name, layer in layers.items()}
        if self.scope == "global":
            masks = keep_largest_together({name: kernel.abs() for name, kernel in kernels.items()}, self.sparsity)
        else:
            sparsities = {name: value_for(self.sparsity, name) for name in kernels}
            masks = {name: keep_largest(kernels[name].abs(), s) for name, s in sparsities.items() if s is not None}
        return with_masks(task, layers, masks)


def refuse_mapping_when_global(method: Method) -> None:
    """Raise `ValueError` when the knob `sparsity` differs by layer although all layers are ranked together."""
    if method.scope == "global" and not isinstance(method.sparsity, (int, float)):
        raise ValueError(
            f"{type(method).__name__}.sparsity must be one number when scope is 'global', got {method.sparsity!r}"
        )


def prunable(task: Task) -> dict[str, nn.Module]:
    """Return the selected layers that a mask can be put on; other forms are skipped by name."""
    layers = {}
    for name, layer in task.selected_layers().items():
        if isinstance(layer, Form) and not isinstance(layer, Masked):
            task.skip(name, f"is already compressed ({type(layer).__name__}); prune before that step")
        else:
            layers[name] = layer
    task.refuse_if_nothing_done(len(layers))
    return layers


def keep_largest_together(scores: dict[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Return masks as `keep_largest` does, with all layers' `scores` ranked together."""
    mask = keep_largest(torch.cat([score.reshape(-1) for score in scores.values()]), sparsity)
    pieces = mask.split([score.numel() for score in scores.values()])
    return {name: piece.view(score.shape) for (name, score), piece in zip(scores.items(), pieces)}


def with_masks(task: Task, layers: dict[str, nn.Module], masks: dict[str, Tensor]) -> nn.Module:
    """Return the network with `masks` on its layers; a mask that is already there stays in force."""
    for name, layer in layers.items():
        if name not in masks:
            task.skip(name, NO_VALUE)
            continue
        mask = masks[name] & layer.mask if isinstance(layer, Masked) else masks[name]
        if not bool(mask.any()) and math.prod(mask.shape) > 0:
            raise CompressionError(
                f"{task.method!r} would leave no weight in {name} (shape {tuple(mask.shape)}); lower the sparsity or "
                f"exclude the layer with layers='-{name}'"
            )
        form = Masked(Geometry.of(layer), kernel_of(layer), mask, layer.bias)
        task.model = replace_layer(task.model, name, form)
    task.refuse_if_nothing_done(len(masks))
    return task.model
