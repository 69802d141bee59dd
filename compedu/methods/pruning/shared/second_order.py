"""What Optimal Brain Damage and Optimal Brain Surgeon share: the loss to second order, over images drawn by a seed."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from compedu.evaluation import refuse_misfit, refuse_probabilities
from compedu.forms import mask_of
from compedu.graph.trace import inference_copy, open_attentions
from compedu.knobs import inherited, knob, method
from compedu.methods.calibration import calibration_set
from compedu.methods.pruning.shared.masks import prunable, with_masks
from compedu.methods.pruning.shared.weight_pruning import WeightPruning
from compedu.methods.task import Task

KEPT = 2**25  # bytes of curvatures, at most, that are kept for the next call
UNREACHED = "no training image reaches it: the loss says nothing about its weights"

_kept: WeakKeyDictionary[nn.Module, tuple[tuple, dict]] = WeakKeyDictionary()


@method
class SecondOrderPruning(WeightPruning):
    """Score weights by the loss to second order; a subclass says which part of the Hessian it takes."""

    quadratic: ClassVar[bool] = True
    decisive: ClassVar[tuple[str, ...]] = ("calibration_images", "seed")  # knobs that the curvatures depend on
    writes: ClassVar[bool] = False

    calibration_images: int = inherited(
        WeightPruning, "calibration_images", help="training images that the loss is taken over"
    )
    seed: int = knob(default=0, help="which training images are drawn", low=0, high=2**31 - 1, slider_range=(0, 9))

    @property
    def needs(self) -> str:
        """Training images, for the Hessian."""
        return "calibration"

    def compress(self, task: Task) -> nn.Module:
        """Mask every selected layer whose curvature can guide this."""
        layers = prunable(task)
        scores = self.scores(task, layers)
        guided = {name: layer for name, layer in layers.items() if name in scores}
        masks = self.masks(task, guided, scores)
        del scores  # as large as the network
        return with_masks(task, guided, self.operated(task, layers, masks))

    def scores(self, task: Task, layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Return the rise of the loss, in nats, for each weight; layers whose curvature cannot be used are noted.

        Weights that are masked already come before all others.
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
        """Return the `measured` curvatures by name; the last result for a network is kept as long as this lives.

        What a slider moves, such as the sparsity, needs the same Hessian again and again. More than `KEPT` bytes are
        not kept.
        """
        decisive = tuple(getattr(self, name) for name in self.decisive)
        key = (type(self), task.digest, task.data.digest, tuple(layers), decisive)
        if _kept.get(task.source, (None,))[0] != key:
            _kept.pop(task.source, None)
            refuse_misfit(task.model, task.data)
            refuse_probabilities(task.model, task.data)
            x, y = calibration_set(task.data, self.calibration_images, self.seed)
            # Some layers of the task's network may be done already.
            whole = open_attentions(inference_copy(task.source))
            found = self.measured(whole, {n: whole.get_submodule(n) for n in layers}, x, y)
            if sum(map(size_of, found.values())) > KEPT:
                return found
            _kept[task.source] = key, found
        return _kept[task.source][1]

    @abstractmethod
    def measured(self, model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor, y: Tensor) -> dict[str, Any]:
        """Return the curvature of each of `layers` on images `x` (N, ...) with labels `y`, where there is one."""

    def obstacle(self, layer: nn.Module, curvature: Any) -> str:
        """Return why `curvature`, None where there is none, cannot be used for `layer`; "" where it can."""
        return UNREACHED if curvature is None else ""

    @abstractmethod
    def rise(self, layer: nn.Module, curvature: Any) -> Tensor:
        """Return by how much the loss rises, in nats, when each weight of `layer` goes, of the kernel's shape."""

    def operated(self, task: Task, layers: Mapping[str, nn.Module], masks: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the final masks for some of `layers`; the weights that they leave may be exchanged for others."""
        return masks


def size_of(curvature: Any) -> int:
    """Return the bytes that the tensors of a curvature take."""
    parts = [curvature] if isinstance(curvature, Tensor) else vars(curvature).values()
    return sum(part.nbytes for part in parts if isinstance(part, Tensor))


def positive(scores: Tensor, layer: nn.Module) -> Tensor:
    """Return `scores` of a layer's weights: 0 for those that are masked already, above 0 for all that are left."""
    return scores.clamp_min(torch.finfo(scores.dtype).tiny) * mask_of(layer)
