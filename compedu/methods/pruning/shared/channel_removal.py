"""Removal of channels: which groups of coupled layers may lose some, why others may not, and the removal itself."""

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
        """Return the channels to remove from each group, by name; `task.model` may be changed to prepare for it."""

    def obstacles(self, task: Task, groups: Sequence[ChannelGroup]) -> list[str]:
        """Return for each group why the method cannot choose among its channels, "" if it can."""
        return [""] * len(groups)

    def wants(self, task: Task, group: ChannelGroup, chosen: Iterable[str], obstacle: str) -> bool:
        """Tell whether a group has no `obstacle` and all its producers are selected; if not, record why."""
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
        """Return the sparsity of a group: the first that is given for one of its layers."""
        return next((v for name in group.producers if (v := value_for(self.sparsity, name)) is not None), None)


def go_together(missing: Iterable[str]) -> str:
    """Return why a layer stays whose channels are coupled with those of `missing`, which are not selected."""
    return f"its channels go with those of {', '.join(missing)}, which may not change"


def note_left_out(task: Task, channels: Channels, chosen: Iterable[str]) -> None:
    """Record the selected layers whose channels cannot be removed, with the reason."""
    for name in chosen:
        if reason := channels.why_left_out(name):
            task.skip(name, reason)


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


def example_input(task: Task) -> Tensor:
    """Return one image for the task's network: from its data, or random by the network's spec.

    Raises `CompressionError` if there is neither.
    """
    if task.example is None:
        raise CompressionError(
            f"{task.method!r} needs an image to trace the channels of {type(task.model).__name__}, which does not say "
            "the size of its images: call it as method(model, data)"
        )
    return task.example
