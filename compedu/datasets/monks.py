"""The three MONK problems: robots of six properties, and a rule that classifies them (Thrun et al. 1991).

The rules and the numbers of training examples are published (The MONK's problems, CMU-CS-91-197), but not the random
draws of 1991. So the training examples here are drawn by a hash of our own: problems of the same kind and size, not the
same examples. They are not images, so the networks of the course cannot use them.
"""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from compedu import hashing

VALUES = (3, 3, 2, 3, 4, 2)  # head shape, body shape, smiling, holding, jacket color, tie
SIZES = {1: 124, 2: 169, 3: 122}  # training examples of each problem
NOISE = {1: 0.0, 2: 0.0, 3: 0.05}  # fraction of the training labels that are wrong


@dataclass(frozen=True, eq=False)
class Monk:
    """One problem: inputs as 17 zeros and ones for each robot, labels 0 or 1; the test set is all 432 robots."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor


def robots() -> Tensor:
    """Return the attributes a1 to a6 of all robots, counted from 1, int64 (432, 6)."""
    return torch.tensor(list(product(*(range(1, count + 1) for count in VALUES))))


def belongs(attributes: Tensor, problem: int) -> Tensor:
    """Return the labels 0 or 1, int64 (N,), that the rule of `problem` 1, 2 or 3 gives to `attributes` (N, 6).

    >>> belongs(torch.tensor([[1, 1, 1, 1, 3, 1], [1, 2, 2, 2, 1, 1]]), 1).tolist()
    [1, 1]
    """
    a1, a2, _, a4, a5, _ = attributes.T
    if problem == 1:
        rule = (a1 == a2) | (a5 == 1)
    elif problem == 2:
        rule = (attributes == 1).sum(1) == 2
    elif problem == 3:
        rule = ((a5 == 3) & (a4 == 1)) | ((a5 != 4) & (a2 != 3))
    else:
        raise ValueError(f"problem must be 1, 2 or 3, got {problem!r}: there are three MONK problems")
    return rule.long()


def one_hot(attributes: Tensor) -> Tensor:
    """Return `attributes` (N, 6) one-hot encoded, float64 (N, 17)."""
    columns = zip(attributes.T, VALUES, strict=True)
    return torch.cat([torch.eye(count, dtype=torch.float64)[column - 1] for column, count in columns], 1)


def monk(problem: int, seed: int = 0) -> Monk:
    """Return MONK `problem` 1, 2 or 3, its training examples (and in problem 3 the wrong labels) drawn by `seed`."""
    everything = robots()
    labels = belongs(everything, problem)
    start = hashing.mix(torch.tensor(1000 * seed + problem))
    order = hashing.mix(torch.arange(len(everything)) + start).argsort()
    drawn = order[: SIZES[problem]]
    given = labels[drawn]
    wrong = round(NOISE[problem] * len(drawn))  # the order is random, so the first ones are as good as any
    given[:wrong] = 1 - given[:wrong]
    x = one_hot(everything)
    return Monk(x[drawn], given, x, labels)
