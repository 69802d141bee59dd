"""How to train: epochs, learning rate schedule, batch size, weight decay, seed."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How to train: epochs, peak learning rate, batch size, weight decay, seed of the order of the images.

    The learning rate rises over the first `warm_up` fraction of the steps and falls to zero along a cosine, and
    restarts in each of `cycles` equal parts of the epochs (Loshchilov and Hutter 2017, arXiv:1608.03983). How weight
    decay acts is the optimizer's, which `fit` is given. `shift` moves training images at random by up to that many
    pixels; `mirror` flips half of them horizontally.
    """

    epochs: int
    lr: float = 1e-3
    batch: int = 64
    weight_decay: float = 1e-4
    warm_up: float = 0.1
    seed: int = 0
    shift: int = 0
    mirror: bool = False
    cycles: int = 1

    def __post_init__(self):
        if self.cycles < 1 or self.epochs % self.cycles:
            raise ValueError(
                f"Recipe.cycles must divide the epochs, here {self.epochs}, into equal parts, got {self.cycles!r}"
            )

    def steps_per_epoch(self, images: int) -> int:
        """Return the steps of one pass over so many training images."""
        return math.ceil(images / self.batch)

    def smallest_batch(self, images: int) -> int:
        """Return the images of the smallest batch of an epoch: of the last one, which takes what is left."""
        return images % self.batch or self.batch

    def steps(self, images: int) -> int:
        """Return the steps of the whole training on so many training images."""
        return self.epochs * self.steps_per_epoch(images)

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate at `step` of `steps`."""
        steps //= self.cycles
        step %= steps
        rise = max(1, int(self.warm_up * steps))
        if step < rise:
            return self.lr * (step + 1) / rise
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
