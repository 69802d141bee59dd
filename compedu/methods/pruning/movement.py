"""Movement pruning: weights that move away from zero while training stay, however small they are."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from compedu.forms import Masked
from compedu.knobs import inherited, method, value_for
from compedu.methods.layer_method import SelectiveMethod
from compedu.methods.layers import replace_layer
from compedu.methods.method import Task
from compedu.methods.pruning.budgets import budget_masks, refuse_emptying, refuse_mapping_unless_uniform
from compedu.methods.pruning.gradual import GradualPruning, cubic_sparsity
from compedu.methods.pruning.masks import masked_layers, refuse_empty
from compedu.methods.pruning.scheduled import ScheduledPruning
from compedu.methods.training_method import TrainingMethod


class Moving(Masked):
    """A masked layer in training; `scores` says of each weight, kept or not, how far it moved away from zero.

    The mask chooses within `allowed`, the mask that the layer had before; weights outside the mask are remembered.
    """

    def __init__(self, layer: Masked):
        super().__init__(layer.geometry, layer.weight, layer.mask, layer.bias)
        self.register_buffer("allowed", layer.mask.clone())
        self.register_buffer("scores", torch.zeros_like(layer.weight))

    def dense(self) -> Tensor:
        """Return the masked kernel; its gradient, where one comes, moves the scores."""
        kernel = super().dense()
        if kernel.requires_grad:
            kernel.register_hook(self.move)
        return kernel

    @torch.no_grad()
    def move(self, gradient: Tensor) -> None:
        """Lower the scores by w dL/dw', where w' = m w: dL/dm with the threshold taken for straight."""
        self.scores.sub_(self.weight * gradient)

    def final(self) -> Masked:
        """Return the layer as it is without scores and without the weights outside the mask."""
        return Masked(self.geometry, self.weight, self.mask, self.bias)


@method
class MovementPruning(SelectiveMethod, TrainingMethod):
    r"""Keep the weights that move away from zero while training: what counts is the direction, not the size.

    $S_{ij} = -\sum_t w_{ij}\,\partial L/\partial w'_{ij}$ with $w' = m\,w$; the $n$ largest scores make the mask $m$,
    with $n$ along the cubic curve of `GradualPruning`. A pruned weight goes on being scored, and may come back.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; forms other than masked ones.
    Paper: Sanh, Wolf, Rush 2020, Movement pruning: adaptive sparsity by fine-tuning, arXiv:2005.07683, section 4.
    """

    topic: ClassVar[str] = "pruning"

    sparsity: float = inherited(ScheduledPruning, "sparsity")
    budget: str = inherited(ScheduledPruning, "budget", choices=("uniform", "global"))
    ramp: float = inherited(GradualPruning, "ramp")
    every: int = inherited(GradualPruning, "every", help="training steps from one choice of masks to the next")

    def __post_init__(self):
        super().__post_init__()
        refuse_mapping_unless_uniform(self)

    def compress(self, task: Task) -> nn.Module:
        """Train, choose the masks anew every few steps, and leave plain masked layers behind."""
        layers = {name: Moving(layer) for name, layer in masked_layers(task, self.sparsity).items()}
        refuse_emptying(task, layers, self.budget, self.sparsity)
        for name, layer in layers.items():
            task.model = replace_layer(task.model, name, layer)
        last = max(1, round(self.ramp * self.recipe.steps(len(task.data.x_train))))

        def after_step(model: nn.Module, step: int) -> None:
            done = step + 1
            if done == last or (done < last and done % self.every == 0):
                self.choose(task, layers, done / last)

        model = self.train(task.model, task.data, after_step=after_step)
        for name, layer in layers.items():
            model = replace_layer(model, name, layer.final())
        return model

    def choose(self, task: Task, layers: dict[str, Moving], progress: float) -> None:
        """Set the masks to the highest scores, as many as the schedule leaves."""
        lowest = {name: torch.finfo(layer.scores.dtype).min for name, layer in layers.items()}
        scores = {name: layer.scores.masked_fill(~layer.allowed, lowest[name]) for name, layer in layers.items()}
        targets = {name: cubic_sparsity(value_for(self.sparsity, name), progress) for name in layers}
        now = targets if self.budget == "uniform" else next(iter(targets.values()))
        for name, mask in budget_masks(self.budget, scores, now).items():
            mask = mask & layers[name].allowed
            refuse_empty(task, name, mask)
            layers[name].mask.copy_(mask)
