"""Movement pruning: weights that move away from zero while training stay, however small they are."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compedu.forms import Masked
from compedu.knobs import PerLayer, inherited, method
from compedu.methods.layers import replace_layers
from compedu.methods.pruning.shared.masks import refuse_empty
from compedu.methods.pruning.shared.scheduled import RampedPruning
from compedu.methods.task import Task


class Moving(Masked):
    """A masked layer in training; `scores` accumulates how far each weight, kept or not, moved away from zero.

    The mask stays within `allowed`, the mask that the layer had before; weights outside the mask keep their values.
    """

    def __init__(self, layer: Masked):
        super().__init__(layer.geometry, layer.weight, layer.mask, layer.bias)
        self.register_buffer("allowed", layer.mask.clone())
        self.register_buffer("scores", torch.zeros_like(layer.weight))

    def dense(self) -> Tensor:
        """Return the masked weight; its gradient, if there is one, updates the scores."""
        weight = super().dense()
        if weight.requires_grad:
            weight.register_hook(self.move)
        return weight

    @torch.no_grad()
    def move(self, gradient: Tensor) -> None:
        """Lower the scores by w dL/dw' with w' = m w: dL/dm, straight through the threshold."""
        self.scores.sub_(self.latent * gradient)

    def final(self) -> Masked:
        """Return the layer without scores and without the weights outside the mask."""
        return Masked(self.geometry, self.latent, self.mask, self.bias)


@method
class MovementPruning(RampedPruning):
    r"""Keep the weights that move away from zero while training: what counts is the direction, not the size.

    $S_{ij} = -\sum_t w_{ij}\,\partial L/\partial w'_{ij}$ with $w' = m\,w$; the $n$ largest scores make the mask $m$,
    with $n$ along the cubic curve of `GradualPruning`. Pruned weights are still scored, and may come back.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; forms other than masked ones.
    Paper: Sanh, Wolf, Rush 2020, Movement pruning: adaptive sparsity by fine-tuning, arXiv:2005.07683, section 4.
    """

    sparsity: PerLayer[float] = inherited(RampedPruning, "sparsity")
    budget: str = inherited(RampedPruning, "budget", choices=("uniform", "global"))
    ramp: float = inherited(RampedPruning, "ramp")
    every: int = inherited(RampedPruning, "every", help="training steps from one update of the masks to the next")

    def train_and_prune(self, task: Task, layers: dict[str, Masked]) -> nn.Module:
        """Train, update the masks along the ramp, and return ordinary masked layers."""
        moving = {name: Moving(layer) for name, layer in layers.items()}
        model = replace_layers(task.model, moving)
        model = self.train(model, task.data, after_step=self.along_ramp(task, moving))
        return replace_layers(model, {name: layer.final() for name, layer in moving.items()})

    def scores(self, layers: Mapping[str, Moving]) -> dict[str, Tensor]:
        """Return how far each weight moved away from zero; weights that were masked before rank lowest."""
        lowest = {name: torch.finfo(layer.scores.dtype).min for name, layer in layers.items()}
        return {name: layer.scores.masked_fill(~layer.allowed, lowest[name]) for name, layer in layers.items()}

    def set_masks(self, task: Task, layers: dict[str, Moving], masks: dict[str, Tensor]) -> None:
        """Set `masks`; a weight may come back."""
        for name, mask in masks.items():
            mask = mask & layers[name].allowed
            refuse_empty(task, name, mask)
            layers[name].mask.copy_(mask)
