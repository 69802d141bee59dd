"""The base of Optimal Brain Damage and Optimal Brain Surgeon: the loss to second order, on a sample of images."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compedu.datasets.objectives import CLASSIFICATION
from compedu.evaluation import refuse_misfit, refuse_probabilities
from compedu.forms import mask_of
from compedu.graph.copying import inference_copy
from compedu.graph.trace import open_attentions
from compedu.knobs import inherited, method, seed_knob
from compedu.methods.calibration import calibration_set
from compedu.methods.curvature import UNREACHED
from compedu.methods.last_result import LARGEST, last_result
from compedu.methods.pruning.shared.masks import prunable, with_masks
from compedu.methods.pruning.shared.weight_pruning import WeightPruning
from compedu.methods.task import Task


@method
class SecondOrderPruning(WeightPruning):
    """Score weights by the loss to second order; a subclass chooses the part of the Hessian."""

    quadratic: ClassVar[bool] = True
    decisive: ClassVar[tuple[str, ...]] = ("calibration_images", "seed")  # knobs that the curvatures depend on
    writes: ClassVar[bool] = False
    largest: ClassVar[int] = LARGEST  # bytes of curvatures that are kept for the next call

    calibration_images: int = inherited(
        WeightPruning, "calibration_images", help="training images that the loss is measured on"
    )
    seed: int = seed_knob("seed of the choice of training images")

    @property
    def defined_for(self) -> tuple[str, ...]:
        """Classification: the curvature is that of the cross entropy."""
        return (CLASSIFICATION,)

    @property
    def needs(self) -> str:
        """Training images, for the Hessian."""
        return "calibration"

    def compress(self, task: Task) -> nn.Module:
        """Mask every selected layer whose curvature is known."""
        layers = prunable(task)
        scores = self.scores(task, layers)
        guided = {name: layer for name, layer in layers.items() if name in scores}
        masks = self.masks(task, guided, scores)
        del scores  # as large as the network
        return with_masks(task, guided, self.operate(task, layers, masks))

    def scores(self, task: Task, layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Return the rise of the loss, in nats, for each weight; record why other layers are skipped.

        Weights that are already masked rank lowest.
        """
        scores = {}
        for portion in self.portions(layers):
            curvatures = self.curvatures(task, portion)
            for name, layer in portion.items():
                if reason := self.obstacle(layer, curvatures.get(name)):
                    task.skip(name, reason)
                else:
                    scores[name] = positive(self.rise(layer, curvatures[name]), layer)
        task.refuse_if_nothing_done(len(scores))
        return scores

    def portions(self, layers: Mapping[str, nn.Module]) -> list[Mapping[str, nn.Module]]:
        """Return `layers` in portions whose curvatures are in memory at the same time."""
        return [layers]

    def curvatures(self, task: Task, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
        """Return the curvatures by name, those of the last call if nothing that they depend on has changed."""
        decisive = tuple(getattr(self, name) for name in self.decisive)
        key = (task.digest, task.data.digest, tuple(layers), decisive)
        return last_result(
            task.source,
            f"curvatures: {type(self)}",
            key,
            lambda: self.measure_on_sample(task, layers),
            self.largest,
        )

    def measure_on_sample(self, task: Task, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
        """Return the curvatures of `layers` on the calibration images."""
        refuse_misfit(task.model, task.data)
        refuse_probabilities(task.model, task.data)
        x, y = calibration_set(task.data, self.calibration_images, self.seed)
        # Some layers of the task's network may be pruned already.
        whole = open_attentions(inference_copy(task.source))
        return self.measure(whole, {name: whole.get_submodule(name) for name in layers}, x, y)

    @abstractmethod
    def measure(self, model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor, y: Tensor) -> dict[str, Any]:
        """Return the curvature of each of `layers` on images `x` (N, ...) with labels `y`, if there is one."""

    def obstacle(self, layer: nn.Module, curvature: Any) -> str:
        """Return why `curvature`, None if there is none, cannot be used for `layer`; "" if it can."""
        return UNREACHED if curvature is None else ""

    @abstractmethod
    def rise(self, layer: nn.Module, curvature: Any) -> Tensor:
        """Return the rise of the loss, in nats, when each weight of `layer` alone is pruned, of the weight's shape."""

    def operate(self, task: Task, layers: Mapping[str, nn.Module], masks: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the final masks for some of `layers`; a subclass may also change the remaining weights."""
        return masks


def positive(scores: Tensor, layer: nn.Module) -> Tensor:
    """Return `scores` of a layer's weights: 0 for masked ones, above 0 for all others."""
    return scores.clamp_min(torch.finfo(scores.dtype).tiny) * mask_of(layer)
