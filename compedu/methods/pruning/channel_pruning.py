"""Channel pruning, whatever ranks the channels: whole filters go, and the layers really become smaller."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.graph import ChannelGroup, find_channels
from compedu.knobs import knob, method, value_for
from compedu.methods.layer_method import SelectiveMethod
from compedu.methods.layers import NO_VALUE
from compedu.methods.method import Removed, Task
from compedu.methods.pruning.budgets import refuse_mapping_unless_uniform
from compedu.networks import parse


def smallest(scores: Tensor, count: int) -> list[int]:
    """Return the places of the `count` smallest scores; ties give the earlier.

    >>> smallest(torch.tensor([3.0, 1.0, 2.0, 1.0]), 2)
    [1, 3]
    """
    return scores.argsort(stable=True)[:count].tolist()


def counts_over_all(scores: Sequence[Tensor], sparsity: float) -> list[int]:
    """Return how many of each group's channels are among the floor(sparsity * n) smallest of all n.

    The best channel of every group stays. Raises `ValueError` when that leaves too few to remove.

    >>> counts_over_all([torch.tensor([0.1, 0.2]), torch.tensor([0.3, 5.0, 6.0])], 0.4)
    [1, 1]
    """
    total = sum(map(len, scores))
    count, possible = math.floor(Fraction(str(sparsity)) * total), total - len(scores)
    if count > possible:
        raise ValueError(f"would remove {count} of {total} channels; only {possible} can go, so that every layer keeps one")
    guarded = torch.cat([score.index_fill(0, score.argmax(), math.inf) for score in scores])
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[smallest(guarded, count)] = True
    return [int(part.sum()) for part in chosen.split([len(score) for score in scores])]


@method
class ChannelPruning(SelectiveMethod):
    """A criterion: a subclass scores the channels of each group of coupled layers, and those of lowest score go."""

    topic: ClassVar[str] = "pruning"
    neutral: ClassVar[dict[str, Any]] = {"sparsity": 0.0}

    sparsity: float = knob(
        0.5, "fraction of the filters taken out", low=0, high=1, open="high", tour=(0.0, 0.9), per_layer=True
    )
    budget: str = knob("uniform", "how the removals are shared out among the layers", choices=("uniform", "global"))
    round_to: int = knob(1, "keep a multiple of this many filters", low=1, tour=(1, 16))

    def __post_init__(self):
        SelectiveMethod.__post_init__(self)
        refuse_mapping_unless_uniform(self)

    def compress(self, task: Task) -> nn.Module:
        """Remove channels from every group of coupled layers that is selected."""
        channels = find_channels(task.source, example_input(task))
        chosen = task.selected_layers()
        for left, reason in channels.left_out:
            for name in chosen:
                if name == left or name.startswith(f"{left}."):  # the two layers inside a factored one
                    task.skip(name, reason)
        groups = [group for group in channels.groups if self.wants(task, group, chosen)]
        task.refuse_if_nothing_done(len(groups))
        scores = self.scores(task, groups)
        removal = {
            group.name: smallest(score, group.removable(fraction, self.round_to))
            for group, score, fraction in zip(groups, scores, self.fractions(groups, scores))
        }
        task.removed += [Removed(repr(self), name, tuple(sorted(gone))) for name, gone in removal.items() if gone]
        return channels.remove(task.model, removal)

    @abstractmethod
    def scores(self, task: Task, groups: Sequence[ChannelGroup]) -> list[Tensor]:
        """Return for each group the scores of its channels, (size,); the lowest go first, over all groups if asked."""

    def obstacle(self, task: Task, group: ChannelGroup) -> str:
        """Return why the channels of `group` cannot be scored, or nothing where they can."""
        return ""

    def wants(self, task: Task, group: ChannelGroup, chosen: Mapping[str, nn.Module]) -> bool:
        """Tell whether all layers that make the channels are meant and can be scored; note why, if not."""
        if missing := [name for name in group.producers if name not in chosen]:
            reason = f"its channels go with those of {', '.join(missing)}, which may not change"
        elif self.value(group) is None:
            reason = NO_VALUE
        else:
            reason = self.obstacle(task, group)
        for member in group.members if reason else ():
            if member.role in ("producer", "depthwise") and member.layer in chosen:
                task.skip(member.layer, reason)
        return not reason

    def value(self, group: ChannelGroup) -> float | None:
        """Return the sparsity of a group: that of the first of its layers for which one is given."""
        return next((v for name in group.producers if (v := value_for(self.sparsity, name)) is not None), None)

    def fractions(self, groups: Sequence[ChannelGroup], scores: Sequence[Tensor]) -> list[float | Fraction]:
        """Return the fraction of channels that each group loses."""
        if self.budget == "uniform":
            return [self.value(group) for group in groups]
        try:
            counts = counts_over_all(scores, self.sparsity)
        except ValueError as error:
            raise CompressionError(f"{self!r} {error}; lower the sparsity") from error
        return [Fraction(count, group.size) for count, group in zip(counts, groups)]


def example_input(task: Task) -> Tensor:
    """Return one image for the task's network: of its data, or made from the network's spec.

    Raises `CompressionError` where there is neither.
    """
    if task.data is not None:
        return task.data.example
    spec = getattr(task.model, "spec", None)
    if spec is None:
        raise CompressionError(
            f"{task.method!r} has to see an image to follow the channels of {type(task.model).__name__}, which does "
            "not say the size of its images: call it as method(model, data)"
        )
    values = parse(spec)[1]
    shape = (1, values["channels"], values["size"], values["size"])
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
