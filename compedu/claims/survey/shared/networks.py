"""What several claims are tested on: a dense network trained on drawn characters, and its accuracy."""

from functools import lru_cache

from torch import nn

from compedu import datasets
from compedu.datasets.dataset import Dataset
from compedu.evaluation import evaluate
from compedu.metrics import costs
from compedu.networks.fitting import network_for
from compedu.specs import text
from compedu.training import Recipe, fit

CHOICES = 2000  # validation images, where settings are chosen


@lru_cache(maxsize=4)
def glyphs(train: int, validation: int = CHOICES, targets: str = "class") -> Dataset:
    """Return glyphs with these targets, fewer training and validation images; all test images stay."""
    return datasets.load(text("glyphs", {"targets": targets})).shortened(train=train, validation=validation)


def dense_network(network: str, data: Dataset, epochs: int, seed: int) -> nn.Module:
    """Return `network` trained on `data`; the `seed` sets the initialization and the order of the images."""
    model = network_for(network, data, seed=seed)
    fit(model, data, Recipe(epochs, 4e-3, weight_decay=1e-2, shift=1, seed=seed))
    return model


@lru_cache(maxsize=1)  # methods do not change it, and the settings of a network follow one another
def same_dense_network(network: str, train: int, epochs: int, seed: int) -> nn.Module:
    """Return the dense network that several settings start from, trained on `train` glyphs."""
    return dense_network(network, glyphs(train), epochs, seed)


def parameters(model: nn.Module) -> int:
    """Return the number of parameters; of pruned layers the weights that are kept."""
    return sum(costs.parameters(model).values())


def accuracy(model: nn.Module, data: Dataset, split: str = "test") -> float:
    """Return the accuracy in percent."""
    found = evaluate(model, data, split)
    return 100 * found.correct / found.seen
