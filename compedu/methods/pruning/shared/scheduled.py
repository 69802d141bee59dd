"""Pruning while training: masks are tightened at chosen steps, and training continues inside them."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor, nn

from compedu.forms import Masked
from compedu.knobs import PerLayer, inherited, knob, method
from compedu.methods.layer_method import SelectiveMethod
from compedu.methods.pruning.shared.budgets import BUDGETS, budget_masks, refuse_emptying, refuse_mapping_unless_uniform
from compedu.methods.pruning.shared.masks import layers_with_value, masked_layers, prunable, tighten
from compedu.methods.pruning.shared.schedules import cubic_sparsity, ramp_hook
from compedu.methods.pruning.shared.weight_pruning import WeightPruning
from compedu.methods.task import Task
from compedu.methods.training_method import TrainingMethod


@method
class ScheduledPruning(SelectiveMethod, TrainingMethod):
    """Pruning in small steps while the network trains; a subclass decides when, and how far.

    By default the smallest weights go, and pruned weights stay zero.
    """

    family: ClassVar[str] = "pruning"

    sparsity: PerLayer[float] = inherited(
        WeightPruning, "sparsity", default=0.9, help="fraction of the weights set to zero in the end"
    )
    budget: str = inherited(WeightPruning, "budget", choices=BUDGETS)

    def __post_init__(self):
        super().__post_init__()
        refuse_mapping_unless_uniform(self)

    def compress(self, task: Task) -> nn.Module:
        """Mask the selected layers, then train while the masks are tightened."""
        layers = masked_layers(task, layers_with_value(task, prunable(task), self.sparsity))
        refuse_emptying(task, layers, self.budget, self.sparsity)
        return self.train_and_prune(task, layers)

    @abstractmethod
    def train_and_prune(self, task: Task, layers: dict[str, Masked]) -> nn.Module:
        """Train the task's network and call `prune` by the schedule."""

    def prune(self, task: Task, layers: dict[str, Masked], present: Callable[[float], float]) -> None:
        """Update the masks: `present` maps a final sparsity to the one that the schedule has reached."""
        target = self.sparsity
        now = {name: present(s) for name, s in target.items()} if isinstance(target, Mapping) else present(target)
        self.set_masks(task, layers, budget_masks(self.budget, self.scores(layers), now))

    def scores(self, layers: Mapping[str, Masked]) -> dict[str, Tensor]:
        """Return for each layer the score of each weight, of the weight's shape; the lowest go first."""
        return {name: layer.dense().detach().abs() for name, layer in layers.items()}

    def set_masks(self, task: Task, layers: dict[str, Masked], masks: dict[str, Tensor]) -> None:
        """Drop the weights outside `masks`."""
        tighten(task, layers, masks)


@method
class RampedPruning(ScheduledPruning):
    """Pruning every few steps, along a cubic curve; a subclass trains with the hook of `along_ramp`."""

    sparsity: PerLayer[float] = inherited(ScheduledPruning, "sparsity")
    budget: str = inherited(ScheduledPruning, "budget")
    ramp: float = knob(
        default=0.6,
        help="fraction of the training after which the final sparsity is reached",
        low=0,
        high=1,
        open="low",
        slider_range=(0.1, 1),
    )
    every: int = knob(
        default=10,
        help="training steps from one pruning to the next",
        low=1,
        slider_range=(1, 100),
        log=True,
        unit="steps",
    )

    def along_ramp(self, task: Task, layers: dict[str, Masked]) -> Callable[[nn.Module, int], None]:
        """Return the hook of `fit` that prunes `layers` along the ramp, every few steps."""
        last = max(1, round(self.ramp * self.recipe.steps(len(task.data.x_train))))

        def prune(progress: float) -> None:
            self.prune(task, layers, lambda final: cubic_sparsity(final, progress))

        return ramp_hook(prune, last, self.every)
