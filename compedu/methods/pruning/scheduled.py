"""Pruning while training: masks are tightened at chosen steps, and training goes on inside them."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import nn

from compedu.forms import Masked
from compedu.knobs import inherited, method
from compedu.methods.layer_method import SelectiveMethod
from compedu.methods.method import Task
from compedu.methods.pruning.budgets import BUDGETS, budget_masks, refuse_emptying, refuse_mapping_unless_uniform
from compedu.methods.pruning.masks import masked_layers, tighten
from compedu.methods.pruning.weight_pruning import WeightPruning
from compedu.methods.training_method import TrainingMethod


@method
class ScheduledPruning(SelectiveMethod, TrainingMethod):
    """Magnitude pruning in small portions while the network trains; a subclass says when, and how far."""

    topic: ClassVar[str] = "pruning"

    sparsity: float = inherited(
        WeightPruning, "sparsity", default=0.9, help="fraction of the weights that is zero in the end"
    )
    budget: str = inherited(WeightPruning, "budget", choices=BUDGETS)

    def __post_init__(self):
        super().__post_init__()
        refuse_mapping_unless_uniform(self)

    def compress(self, task: Task) -> nn.Module:
        """Put masks on the selected layers, then train while they are tightened."""
        layers = masked_layers(task, self.sparsity)
        refuse_emptying(task, layers, self.budget, self.sparsity)
        return self.train_and_prune(task, layers)

    @abstractmethod
    def train_and_prune(self, task: Task, layers: dict[str, Masked]) -> nn.Module:
        """Train the task's network and call `prune` where the schedule says so."""

    def prune(self, task: Task, layers: dict[str, Masked], present: Callable[[float], float]) -> None:
        """Tighten the masks: `present` maps a final sparsity to the one that the schedule has reached."""
        target = self.sparsity
        now = {name: present(s) for name, s in target.items()} if isinstance(target, Mapping) else present(target)
        scores = {name: layer.dense().detach().abs() for name, layer in layers.items()}
        tighten(task, layers, budget_masks(self.budget, scores, now))
