"""Channel pruning by any criterion: whole filters are removed, and the layers really become smaller."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from compedu.errors import CompressionError
from compedu.graph import ChannelGroup, part_of
from compedu.knobs import PerLayer, inherited, knob, method
from compedu.methods.pruning.shared.budgets import refuse_mapping_unless_uniform
from compedu.methods.pruning.shared.channel_removal import ChannelRemoval
from compedu.methods.task import Task


def smallest(scores: Tensor, count: int) -> list[int]:
    """Return the indices of the `count` smallest scores; ties give the earlier.

    >>> smallest(torch.tensor([3.0, 1.0, 2.0, 1.0]), 2)
    [1, 3]
    """
    return scores.argsort(stable=True)[:count].tolist()


def counts_over_all(scores: Sequence[Tensor], sparsity: float) -> list[int]:
    """Return how many of each group's channels are among the floor(sparsity * n) smallest of all n.

    The best channel of every group stays. Raises `ValueError` if that leaves too few to remove.

    >>> counts_over_all([torch.tensor([0.1, 0.2]), torch.tensor([0.3, 5.0, 6.0])], 0.4)
    [1, 1]
    """
    total = sum(map(len, scores))
    count = part_of(sparsity, total)
    possible = total - len(scores)
    if count > possible:
        raise ValueError(
            f"would remove {count} of {total} channels; only {possible} can go, because every layer keeps one"
        )
    guarded = torch.cat([score.index_fill(0, score.argmax(), math.inf) for score in scores])
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[smallest(guarded, count)] = True
    return [int(part.sum()) for part in chosen.split([len(score) for score in scores])]


@method
class ChannelPruning(ChannelRemoval):
    """A criterion: a subclass scores the channels of each group of coupled layers, and those of lowest score go."""

    writes: ClassVar[bool] = False

    sparsity: PerLayer[float] = inherited(ChannelRemoval, "sparsity")
    budget: str = knob(
        default="uniform", help="how the removals are allocated to the layers", choices=("uniform", "global")
    )
    round_to: int = knob(default=1, help="keep a multiple of this many filters", low=1, slider_range=(1, 16))

    def __post_init__(self):
        ChannelRemoval.__post_init__(self)
        refuse_mapping_unless_uniform(self)

    def removal(self, task: Task, groups: Sequence[ChannelGroup]) -> dict[str, list[int]]:
        """Return the channels of lowest score."""
        scores = self.scores(task, groups)
        return {
            group.name: smallest(score, group.rounded(count, self.round_to))
            for group, score, count in zip(groups, scores, self.counts(groups, scores), strict=True)
        }

    @abstractmethod
    def scores(self, task: Task, groups: Sequence[ChannelGroup]) -> list[Tensor]:
        """Return for each group the scores of its channels, (size,); the lowest go first."""

    def counts(self, groups: Sequence[ChannelGroup], scores: Sequence[Tensor]) -> list[int]:
        """Return how many channels each group loses, before `round_to`."""
        if self.budget == "uniform":
            return [part_of(self.value(group), group.size) for group in groups]
        try:
            return counts_over_all(scores, self.sparsity)
        except ValueError as error:
            raise CompressionError(f"{self!r} {error}; lower the sparsity") from error
