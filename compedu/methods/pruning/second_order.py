"""What Optimal Brain Damage and Optimal Brain Surgeon share: the loss to second order, over images drawn by a seed."""

from collections.abc import Callable, Mapping
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from compedu import hashing
from compedu.datasets.dataset import Dataset
from compedu.evaluation import scores_of
from compedu.forms import Masked
from compedu.knobs import inherited, knob, method
from compedu.methods.method import Task
from compedu.methods.pruning.weight_pruning import WeightPruning

UNREACHED = "no training image reaches it: the loss says nothing about its weights"

_kept: WeakKeyDictionary[nn.Module, tuple[tuple, dict]] = WeakKeyDictionary()


@method
class SecondOrderPruning(WeightPruning):
    """Score weights by the loss to second order; a subclass says which part of the Hessian it takes."""

    quadratic: ClassVar[bool] = True

    calibration_images: int = inherited(
        WeightPruning, "calibration_images", help="training images that the loss is taken over"
    )
    seed: int = knob(
        0, "which training images are drawn, and which labels are sampled", low=0, high=2**31 - 1, tour=(0, 9)
    )

    @property
    def needs(self) -> str:
        """Training images, for the Hessian."""
        return "calibration"

    def remembered(
        self, task: Task, layers: Mapping[str, nn.Module], make: Callable[[Tensor, Tensor], dict], *settings: object
    ) -> dict:
        """Return what `make` gives for the drawn images and their labels; the last result for a network is kept.

        What a slider moves, such as the sparsity, needs the same Hessian again and again. `settings` are the knobs,
        beside those of this class, that `make` depends on. A result is kept as long as its network lives.
        """
        settings = (type(self), self.calibration_images, self.seed, tuple(layers), *settings)
        key = (hashing.model_digest(task.source), task.data.digest, *settings)
        if _kept.get(task.source, (None,))[0] != key:
            x, y = drawn_images(task.model, task.data, self.calibration_images, self.seed)
            _kept[task.source] = key, make(x, y)
        return _kept[task.source][1]


def drawn_images(model: nn.Module, data: Dataset, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return `count` training images, or all if there are fewer, drawn by `seed`, and their labels.

    Raises `CompressionError` when they do not fit `model`.
    """
    chosen = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(seed))[:count]
    scores_of(model, data.x_train[:1], data)
    return data.x_train[chosen], data.y_train[chosen]


def positive(scores: Tensor, layer: nn.Module) -> Tensor:
    """Return `scores` of a layer's weights: 0 for those that are masked already, above 0 for all that are left."""
    scores = scores.clamp_min(torch.finfo(scores.dtype).tiny)
    return scores * layer.mask if isinstance(layer, Masked) else scores
