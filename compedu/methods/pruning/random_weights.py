"""Random pruning: the control arm of every pruning criterion."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compedu import hashing
from compedu.forms import Geometry
from compedu.knobs import knob, method, value_for
from compedu.methods.layer_method import SelectiveMethod
from compedu.methods.method import Task
from compedu.methods.pruning.magnitude import keep_largest, prunable, with_masks


def random_scores(shape: tuple[int, ...], seed: int, name: str) -> Tensor:
    """Return pseudo-random int64 scores of `shape`: they depend on `seed` and the layer's `name` alone, everywhere.

    >>> random_scores((2,), 0, "conv1").tolist()
    [7470092708272261666, -3129780853681756832]
    """
    start = hashing.mix(torch.tensor(seed))
    for letter in name.encode():
        start = hashing.mix(start + letter)
    return hashing.mix(hashing.mix(torch.arange(math.prod(shape)) + start)).view(shape)


@method
class RandomPruning(SelectiveMethod):
    r"""Set randomly chosen weights to zero in each layer: what a criterion must beat.

    $m_{ij} = [\,h_{ij} > \tau\,]$, with $h$ an integer hash of place, layer and seed, $\tau$ its `sparsity` quantile.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; forms other than masked ones.
    Paper: Blalock, Gonzalez Ortiz, Frankle, Guttag 2020, What is the state of neural network pruning?,
    arXiv:2003.03033 (random pruning is among its baselines).
    """

    topic: ClassVar[str] = "pruning"
    neutral: ClassVar[dict[str, Any]] = {"sparsity": 0.0}

    sparsity: float = knob(
        0.8, "fraction of the weights set to zero", low=0, high=1, open="high", tour=(0.0, 0.99), per_layer=True
    )
    seed: int = knob(0, "which weights are drawn", low=0, high=2**31, tour=(0, 9))

    def compress(self, task: Task) -> nn.Module:
        """Mask every selected layer."""
        layers = prunable(task)
        sparsities = {name: value_for(self.sparsity, name) for name in layers}
        masks = {
            name: keep_largest(random_scores(Geometry.of(layers[name]).shape, self.seed, name), sparsity)
            for name, sparsity in sparsities.items()
            if sparsity is not None
        }
        return with_masks(task, layers, masks)
