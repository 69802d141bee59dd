"""Methods that choose among the layers of a network, and those that see one layer alone."""

from abc import abstractmethod
from typing import ClassVar

from torch import nn

from compedu.errors import Skip
from compedu.forms import Form
from compedu.knobs import knob, method
from compedu.methods.layers import replace_layer, works_only_when_called
from compedu.methods.method import Method
from compedu.methods.task import Task


@method
class SelectiveMethod(Method):
    """A method that is applied to chosen layers."""

    layers: str = knob(
        default="all",
        help="which layers: names, patterns, all, conv, linear, first, last, early, late; a minus sign excludes",
    )


@method
class LayerByLayer(SelectiveMethod):
    """A method that replaces the selected layers by forms, one by one, and records why others stay."""

    accepts: ClassVar[tuple[type[Form], ...]] = ()  # forms that may be compressed further

    def compress(self, task: Task) -> nn.Module:
        """Replace every layer of `chosen` that can be compressed."""
        task.open_attentions()
        done = 0
        layers = self.chosen(task)
        read_apart: dict[str, str] | None = None  # searched for only when needed
        for name, layer in layers.items():
            try:
                if reason := self.obstacle(layer):
                    raise Skip(reason)
                made = self.form_for(task, name, layer)
                if works_only_when_called(made):
                    read_apart = task.obstacles(layers, rounding=True) if read_apart is None else read_apart
                    refuse_read_apart(made, read_apart.get(name))
                task.model = replace_layer(task.model, name, made)
                done += 1
            except Skip as reason:
                task.skip(name, str(reason))
        task.refuse_if_nothing_done(done)
        return task.model

    def chosen(self, task: Task) -> dict[str, nn.Module]:
        """Return the layers to be replaced by name, in the order of replacement."""
        return task.selected_layers()

    def obstacle(self, layer: nn.Module) -> str:
        """Return why `layer` cannot be replaced by any form, "" if it can."""
        if isinstance(layer, Form) and not isinstance(layer, self.accepts):
            return f"is already compressed ({type(layer).__name__}); put {type(self).__name__} before that step"
        return ""

    @abstractmethod
    def form_for(self, task: Task, name: str, layer: nn.Module) -> nn.Module:
        """Return the compressed form of `layer` in `task`, or raise `Skip` with the reason why it stays."""


@method
class LayerMethod(LayerByLayer):
    """A method that sees one layer alone: subclasses turn an ordinary layer (or a form they accept) into a form."""

    def form_for(self, task: Task, name: str, layer: nn.Module) -> nn.Module:
        """Return what `compress_layer` makes of `layer`."""
        return self.compress_layer(name, layer)

    @abstractmethod
    def compress_layer(self, name: str, layer: nn.Module) -> nn.Module:
        """Return the compressed form of `layer`, or raise `Skip` with the reason why it stays."""


def refuse_read_apart(layer: nn.Module, reason: str | None) -> None:
    """Raise `Skip` if, for the given reason, `layer` would be read otherwise than by calling it."""
    if reason is not None:
        raise Skip(f"a {type(layer).__name__} works only where it is called: {reason}")
