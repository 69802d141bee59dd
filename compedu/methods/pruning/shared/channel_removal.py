"""Channels that leave the network: which groups of coupled layers may lose some, what is noted of others, the cut."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from compedu.compression import Removed, compression_of
from compedu.errors import CompressionError
from compedu.graph import ChannelGroup, Channels, Removal, find_channels
from compedu.knobs import PerLayer, knob, method, value_for
from compedu.methods.layer_method import SelectiveMethod
from compedu.methods.layers import NO_VALUE
from compedu.methods.task import Task


@method
class ChannelRemoval(SelectiveMethod):
    """Take channels out of the selected groups of coupled layers; a subclass says which, and of which groups it can."""

    family: ClassVar[str] = "pruning"
    identity_settings: ClassVar[dict[str, Any]] = {"sparsity": 0.0}
    speaks_for: ClassVar[bool] = False  # whether others take over from what goes, so that it need not be silent first

    sparsity: PerLayer[float] = knob(
        default=0.5,
        help="share of the filters (neurons) taken out; p from every layer leaves about (1 - p)^2 of the weights",
        low=0,
        high=1,
        open="high",
        slider_range=(0.0, 0.9),
        per_layer=True,
    )

    def compress(self, task: Task) -> nn.Module:
        """Remove channels from every group of coupled layers that is selected and has no obstacle."""
        channels = find_channels(task.source, example_input(task))
        chosen = task.selected_layers()
        spoken_for = channels.breaking if self.speaks_for else ()
        within = {maker.layer for group in spoken_for for maker in group.makers}
        note_left_out(task, channels, [name for name in chosen if name not in within])
        candidates = (*channels.groups, *spoken_for)
        found = zip(candidates, self.obstacles(task, candidates), strict=True)
        groups = [group for group, obstacle in found if self.wants(task, group, chosen, obstacle)]
        task.refuse_if_nothing_done(len(groups))
        return take_out(task, channels, self.removal(task, groups))

    @abstractmethod
    def removal(self, task: Task, groups: Sequence[ChannelGroup]) -> Removal:
        """Return the channels of each group that go, by the group's name; `task.model` may be prepared for that."""

    def obstacles(self, task: Task, groups: Sequence[ChannelGroup]) -> list[str]:
        """Return for each group why the method cannot choose among its channels, or nothing where it can."""
        return [""] * len(groups)

    def wants(self, task: Task, group: ChannelGroup, chosen: Iterable[str], obstacle: str) -> bool:
        """Tell whether a group has no `obstacle` and all layers that make its channels are meant; note why, if not."""
        reason = obstacle
        if not reason and (missing := [name for name in group.producers if name not in chosen]):
            reason = go_together(missing)
        if not reason and self.value(group) is None:
            reason = NO_VALUE
        for maker in group.makers if reason else ():
            if maker.layer in chosen:
                task.skip(maker.layer, reason)
        return not reason

    def value(self, group: ChannelGroup) -> float | None:
        """Return the sparsity of a group: that of the first of its layers for which one is given."""
        return next((v for name in group.producers if (v := value_for(self.sparsity, name)) is not None), None)


def go_together(missing: Iterable[str]) -> str:
    """Return why a layer stays whose channels the layers `missing`, which are not chosen, would lose too."""
    return f"its channels go with those of {', '.join(missing)}, which may not change"


def note_left_out(task: Task, channels: Channels, chosen: Iterable[str]) -> None:
    """Note the chosen layers whose channels cannot be taken out, with the reason."""
    for name in chosen:
        if reason := channels.why_left_out(name):
            task.skip(name, reason)


def take_out(task: Task, channels: Channels, removal: Removal) -> nn.Module:
    """Return the task's network without the channels of `removal`, which is put on record."""
    task.removed += [Removed(repr(task.method), name, tuple(sorted(gone))) for name, gone in removal.items() if gone]
    return channels.remove(task.model, removal)


def taken_out_first(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the channels that the first step to do so took out on the way to `model`, by group.

    Later steps count in a smaller network.
    """
    records = compression_of(model).removed
    first = {}
    for record in records:
        if record.step != records[0].step or record.group in first:  # the same step again, in a smaller network
            break
        first[record.group] = record.channels
    return first


def example_input(task: Task) -> Tensor:
    """Return one image for the task's network: of its data, or made from the network's spec.

    Raises `CompressionError` where there is neither.
    """
    if task.example is None:
        raise CompressionError(
            f"{task.method!r} has to see an image to follow the channels of {type(task.model).__name__}, which does "
            "not say the size of its images: call it as method(model, data)"
        )
    return task.example
