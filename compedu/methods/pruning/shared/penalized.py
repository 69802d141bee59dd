"""Training under a penalty that pulls weights to zero, and pruning of the smallest afterwards."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.forms import Masked
from compedu.knobs import inherited, knob, method
from compedu.methods.layer_method import SelectiveMethod
from compedu.methods.pruning.shared.budgets import BUDGETS, budget_masks, refuse_emptying
from compedu.methods.pruning.shared.masks import masked_layers, prunable, tighten
from compedu.methods.pruning.shared.weight_pruning import WeightPruning
from compedu.methods.task import Task
from compedu.methods.training_method import TrainingMethod
from compedu.training import Recipe


def proximal_hook(shrink: Callable[[float], None], strength: float, recipe: Recipe, images: int) -> dict[str, Any]:
    """Return the hook of `fit` that calls `shrink` after each step, with that step's learning rate times `strength`."""
    steps = recipe.steps(images)

    @torch.no_grad()
    def after_step(model: nn.Module, step: int) -> None:
        shrink(strength * recipe.rate(step, steps))

    return {"after_step": after_step}


def nonzero_masks(budget: str, weights: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Return masks that drop the smallest |w|, allocated by `budget_masks`, and every weight that is zero."""
    scores = {name: weight.detach().abs() for name, weight in weights.items()}
    return {name: mask & (scores[name] > 0) for name, mask in budget_masks(budget, scores, sparsity).items()}


@method
class PenalizedPruning(SelectiveMethod, TrainingMethod):
    """Train under a penalty, then mask the smallest weights; a subclass defines the penalty and its step."""

    family: ClassVar[str] = "pruning"

    sparsity: float = inherited(
        WeightPruning, "sparsity", default=0.9, help="smallest fraction of the weights set to zero", per_layer=False
    )
    budget: str = inherited(WeightPruning, "budget", default="lamp", choices=BUDGETS)
    strength: float = knob(
        default=1e-3, help="weight of the penalty relative to the loss", low=0, slider_range=(1e-6, 1e-2), log=True
    )

    def compress(self, task: Task) -> nn.Module:
        """Train the selected layers under the penalty, then mask them."""
        layers = masked_layers(task, prunable(task))
        refuse_emptying(task, layers, self.budget, self.sparsity)
        model = self.train(task.model, task.data, **self.hooks(task, layers))
        weights = {name: layer.dense() for name, layer in layers.items()}
        if empty := [name for name, weight in weights.items() if not bool(weight.any())]:
            raise CompressionError(
                f"{self!r} left no weight in {', '.join(empty)}: the penalty made them all zero; lower the strength"
            )
        tighten(task, layers, nonzero_masks(self.budget, weights, self.sparsity))
        return model

    def hooks(self, task: Task, layers: Mapping[str, Masked]) -> dict[str, Any]:
        """Return the hooks of `fit` that apply the penalty: in the loss by default."""
        weights = [layer.latent for layer in layers.values()]
        return {"penalty": lambda model: self.strength * sum(self.penalty_of(weight) for weight in weights)}

    @abstractmethod
    def penalty_of(self, weight: Tensor) -> Tensor:
        """Return the penalty on one layer's weights, without `strength`, as a differentiable scalar."""
