"""Removal of channels from groups of coupled layers; the network records which."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from compedu.compression import Removed, compression_of
from compedu.graph import ChannelGroup, Channels, Removal, find_channels
from compedu.knobs import PerLayer, knob, method
from compedu.methods.channel_method import ChannelMethod, example_input
from compedu.methods.task import Task


@method
class ChannelRemoval(ChannelMethod):
    """Remove channels from the selected groups of coupled layers; a subclass chooses which, and from which groups."""

    family: ClassVar[str] = "pruning"
    identity_settings: ClassVar[dict[str, Any]] = {"sparsity": 0.0}
    speaks_for: ClassVar[bool] = False  # whether others take over for removed channels, which then need not output zero

    sparsity: PerLayer[float] = knob(
        default=0.5,
        help="fraction of the filters (neurons) removed; p in every layer leaves about (1 - p)^2 of the weights",
        low=0,
        high=1,
        open="high",
        slider_range=(0.0, 0.9),
        per_layer=True,
    )

    @property
    def amount(self) -> PerLayer[float]:
        """The fraction of the filters that is removed."""
        return self.sparsity

    def compress(self, task: Task) -> nn.Module:
        """Remove channels from every group of coupled layers that is selected and has no obstacle."""
        channels = find_channels(task.source, example_input(task))
        groups = self.groups(task, channels, channels.breaking if self.speaks_for else ())
        return take_out(task, channels, self.removal(task, groups))

    @abstractmethod
    def removal(self, task: Task, groups: Sequence[ChannelGroup]) -> Removal:
        """Return the channels to remove from each group, by name; `task.model` may be changed to prepare for it."""


def take_out(task: Task, channels: Channels, removal: Removal) -> nn.Module:
    """Return the task's network without the channels of `removal`, which is recorded."""
    task.removed += [Removed(repr(task.method), name, tuple(sorted(gone))) for name, gone in removal.items() if gone]
    return channels.remove(task.model, removal)


def taken_out_first(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the channels that the first step of `model` to remove any removed, by group.

    Later steps number the channels of a smaller network.
    """
    records = compression_of(model).removed
    first = {}
    for record in records:
        if record.step != records[0].step or record.group in first:  # the same step again, in a smaller network
            break
        first[record.group] = record.channels
    return first
