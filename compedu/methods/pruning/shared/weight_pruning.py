"""Pruning of single weights: a criterion scores them, a budget allocates the zeros to layers, a mask applies them."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from compedu.hashing import tensors_digest
from compedu.knobs import PerLayer, knob, method
from compedu.methods.calibration import calibration_knob
from compedu.methods.last_result import last_result
from compedu.methods.layer_method import SelectiveMethod
from compedu.methods.pruning.shared.budgets import BUDGETS, budget_masks, refuse_mapping_unless_uniform
from compedu.methods.pruning.shared.masks import prunable, with_masks
from compedu.methods.pruning.shared.sensitivity import sensitivity_scan, sensitivity_sparsities
from compedu.methods.task import Task


@method
class WeightPruning(SelectiveMethod):
    """A criterion: a subclass scores the weights of each layer, and those of lowest score become zero."""

    family: ClassVar[str] = "pruning"
    random_baseline: ClassVar[str] = "RandomPruning"
    identity_settings: ClassVar[dict[str, Any]] = {"sparsity": 0.0}
    quadratic: ClassVar[bool] = False  # whether scores grow with the square of a weight, which LAMP squares itself

    sparsity: PerLayer[float] = knob(
        default=0.8,
        help="fraction of the weights set to zero",
        low=0,
        high=1,
        open="high",
        slider_range=(0.0, 0.99),
        per_layer=True,
    )
    budget: str = knob(
        default="uniform", help="how the zeros are allocated to the layers", choices=(*BUDGETS, "sensitivity")
    )
    calibration_images: int = calibration_knob("training images for what depends on data, such as budget='sensitivity'")

    def __post_init__(self):
        super().__post_init__()
        refuse_mapping_unless_uniform(self)

    @property
    def needs(self) -> str:
        """Weights alone; for the sensitivity scan training images."""
        return "calibration" if self.budget == "sensitivity" else "weights"

    def compress(self, task: Task) -> nn.Module:
        """Mask every selected layer."""
        layers = prunable(task)
        return with_masks(task, layers, self.masks(task, layers, self.scores(task, layers)))

    @abstractmethod
    def scores(self, task: Task, layers: Mapping[str, nn.Module]) -> Mapping[str, Tensor]:
        """Return for each layer the score of each weight, of the weight's shape; the lowest go first.

        A criterion with negative scores must exclude the budget "lamp", which squares them.
        """

    def masks(self, task: Task, layers: Mapping[str, nn.Module], scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the masks by the budget."""
        if self.budget == "lamp" and self.quadratic:
            scores = {name: score.sqrt() for name, score in scores.items()}
        if self.budget != "sensitivity":
            return budget_masks(self.budget, scores, self.sparsity)
        key = (task.digest, task.data.digest, tensors_digest(scores), self.calibration_images)
        losses = last_result(
            task.source,
            "sensitivity",
            key,
            lambda: sensitivity_scan(task.model, layers, scores, task.data, self.calibration_images),
        )
        sizes = {name: score.numel() for name, score in scores.items()}
        return budget_masks("uniform", scores, sensitivity_sparsities(losses, sizes, self.sparsity))
