"""Methods that choose among the layers of a network, and those that see one layer alone."""

from abc import abstractmethod
from typing import ClassVar

from torch import nn

from compedu.errors import Skip
from compedu.forms import Block, Form
from compedu.knobs import knob, method
from compedu.methods.layers import replace_layer
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
class LayerMethod(SelectiveMethod):
    """A method that sees one layer alone: subclasses turn an ordinary layer (or a form they accept) into a form."""

    accepts: ClassVar[tuple[type[Form], ...]] = ()  # forms that may be compressed further

    def compress(self, task: Task) -> nn.Module:
        """Replace every selected layer that can be handled; the reasons of the others are noted."""
        task.open_attentions()
        done = 0
        layers = task.selected_layers()
        read_apart: dict[str, str] | None = None  # looked for where it matters
        for name, layer in layers.items():
            if isinstance(layer, Form) and not isinstance(layer, self.accepts):
                kind, own = type(layer).__name__, type(self).__name__
                task.skip(name, f"is already compressed ({kind}); put {own} before that step")
                continue
            try:
                made = self.compress_layer(name, layer)
                if works_only_when_called(made):
                    read_apart = task.obstacles(layers, rounding=True) if read_apart is None else read_apart
                    refuse_read_apart(made, read_apart.get(name))
                task.model = replace_layer(task.model, name, made)
                done += 1
            except Skip as reason:
                task.skip(name, str(reason))
        task.refuse_if_nothing_done(done)
        return task.model

    @abstractmethod
    def compress_layer(self, name: str, layer: nn.Module) -> nn.Module:
        """Return the compressed form of `layer`, or raise `Skip` with the reason why it stays."""


def works_only_when_called(layer: nn.Module) -> bool:
    """Return whether no weight says what `layer` computes: a block has none, a scaled output is more than a product."""
    return isinstance(layer, Block) or (isinstance(layer, Form) and layer.scales_output)


def refuse_read_apart(layer: nn.Module, reason: str | None) -> None:
    """Raise `Skip` where there is a reason why `layer` would not only be called in its place."""
    if reason is not None:
        raise Skip(f"a {type(layer).__name__} works only where it is called: {reason}")
