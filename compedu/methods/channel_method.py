"""Methods that change whole channels: which groups of coupled layers are changed together, and why others stay."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence

from torch import Tensor

from compedu.errors import CompressionError
from compedu.graph import ChannelGroup, Channels
from compedu.knobs import PerLayer, method, value_for
from compedu.methods.layer_method import SelectiveMethod
from compedu.methods.layers import NO_VALUE
from compedu.methods.task import Task


@method
class ChannelMethod(SelectiveMethod):
    """Change channels of the selected groups of coupled layers; a subclass says how, and by which knob."""

    @property
    @abstractmethod
    def amount(self) -> PerLayer[float]:
        """The knob that says how much changes, for all layers or by layer."""

    def groups(self, task: Task, channels: Channels, further: Sequence[ChannelGroup] = ()) -> list[ChannelGroup]:
        """Return the groups that are selected and have no obstacle; record why other layers stay.

        `further` groups may be changed besides those of `channels`. Raises `CompressionError` where no group is left.
        """
        chosen = task.selected_layers()
        within = {maker.layer for group in further for maker in group.makers}
        note_left_out(task, channels, [name for name in chosen if name not in within])
        candidates = (*channels.groups, *further)
        found = zip(candidates, self.obstacles(task, candidates), strict=True)
        groups = [group for group, obstacle in found if self.wants(task, group, chosen, obstacle)]
        task.refuse_if_nothing_done(len(groups))
        return groups

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
        """Return the amount for a group: the first that is given for one of its layers."""
        return next((v for name in group.producers if (v := value_for(self.amount, name)) is not None), None)


def go_together(missing: Iterable[str]) -> str:
    """Return why a layer stays whose channels are coupled with those of `missing`, which are not selected."""
    return f"its channels go with those of {', '.join(missing)}, which may not change"


def note_left_out(task: Task, channels: Channels, chosen: Iterable[str]) -> None:
    """Record the selected layers whose channels cannot be changed, with the reason."""
    for name in chosen:
        if reason := channels.why_left_out(name):
            task.skip(name, reason)


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
