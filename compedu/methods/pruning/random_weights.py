"""Random pruning: the random baseline of every pruning criterion."""

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from compedu import hashing
from compedu.forms import Geometry
from compedu.knobs import PerLayer, inherited, method, seed_knob
from compedu.methods.pruning.shared.weight_pruning import WeightPruning
from compedu.methods.task import Task


def random_scores(shape: tuple[int, ...], seed: int, name: str) -> Tensor:
    """Return pseudo-random int64 scores of `shape`: they depend on `seed` and the layer's `name` alone.

    >>> random_scores((2,), 0, "conv1").tolist()
    [7470092708272261666, -3129780853681756832]
    """
    start = hashing.mix(torch.tensor(seed))
    for byte in name.encode():
        start = hashing.mix(start + byte)
    return hashing.mix(hashing.mix(torch.arange(math.prod(shape)) + start)).view(shape)


class Drawn(Mapping):
    """The random scores of layers of these shapes, drawn on access: all at once take twice the network's memory."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seed: int):
        self._shapes = shapes
        self._seed = seed

    def __getitem__(self, name: str) -> Tensor:
        return random_scores(self._shapes[name], self._seed, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


@method
class RandomPruning(WeightPruning):
    r"""Set randomly chosen weights to zero: what a criterion must beat.

    $m_{ij} = [\,h_{ij} > \tau\,]$, with $h$ an integer hash of position, layer and seed, $\tau$ its `sparsity`
    quantile.
    Stored: the kept weights at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; forms other than masked ones.
    Paper: Blalock, Gonzalez Ortiz, Frankle, Guttag 2020, What is the state of neural network pruning?,
    arXiv:2003.03033 (random pruning is among its baselines).
    """

    random_baseline: ClassVar[str] = ""
    writes: ClassVar[bool] = False

    sparsity: PerLayer[float] = inherited(WeightPruning, "sparsity")
    budget: str = inherited(WeightPruning, "budget", choices=("uniform", "erdos-renyi", "sensitivity"))
    seed: int = seed_knob("seed of the choice of weights")

    def scores(self, task: Task, layers: Mapping[str, nn.Module]) -> Mapping[str, Tensor]:
        """Return scores that do not depend on the weights."""
        return Drawn({name: Geometry.of(layer).shape for name, layer in layers.items()}, self.seed)
