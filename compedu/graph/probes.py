"""What a graph shows of a network: which layers it only calls, so that a form can take their places."""

import torch
from torch import Tensor, nn

from compedu.errors import CompressionError, Skip
from compedu.forms.form import Geometry, Unstored
from compedu.forms.walk import outermost_forms
from compedu.graph.copying import inference_copy
from compedu.graph.own_hooks import has_hooks
from compedu.graph.trace import layer_calls, owners_read_apart, replace_module, trace


class Probe(Unstored):
    """Stands for any form in place of `layer`: equal to it only when it is called or its weight is read.

    A `blind` one is equal only when it is called, as a form that rounds its inputs; its weight is read as NaN.
    """

    def __init__(self, layer: nn.Module, blind: bool = False):
        super().__init__(Geometry.of(layer), None)
        # Not registered: a form need not have parameters of these names.
        vars(self).update(layer=layer, blind=blind, given=dict(layer._parameters))

    @property
    def weight(self) -> Tensor:
        """The weight of the layer."""
        return self.given["weight"] * torch.nan if self.blind else self.given["weight"]

    @property
    def bias(self) -> Tensor | None:
        """The bias of the layer."""
        return self.given["bias"]

    def dense(self) -> Tensor:
        """Return the weight of the layer."""
        return self.given["weight"]

    def hide_layer(self) -> None:
        """Let the layer itself return NaN until `show_layer`, where the network still reaches it by another path."""
        for name, tensor in self.given.items():
            if tensor is not None:
                nothing = nn.Parameter(tensor.detach().new_full((), torch.nan).expand_as(tensor))
                self.layer._parameters[name] = nothing

    def show_layer(self) -> None:
        """Let the layer compute what it did before."""
        self.layer._parameters.update(self.given)


def not_shown(model: nn.Module, names: list[str]) -> dict[str, str]:
    """Return those of the layers `names` that the graph does not show to be only called, with the reason."""
    sketch = _sketch(model)
    try:
        traced = trace(sketch)
    except CompressionError as error:
        return dict.fromkeys(names, f"nothing shows what the network does with it ({error})")
    calls = layer_calls(traced)
    apart = owners_read_apart(traced)
    found = {name: "the network reads its weight directly" for name in names if name in apart}
    for name in names:
        inside = next((call for call in calls if name.startswith(f"{call}.")), None)
        if inside is not None:
            found[name] = f"nothing shows what {type(sketch.get_submodule(inside)).__name__} does with it"
    for name in [name for name in names if name not in found]:
        layer = sketch.get_submodule(name)
        if has_hooks(layer):
            found[name] = "nothing shows what its forward hooks ask of it"
            continue
        try:
            replace_module(sketch, layer, Probe(hollow(layer)))
        except Skip as reason:
            found[name] = str(reason)
    if _text(sketch) == str(traced.graph):
        return found
    return dict.fromkeys(names, "with a form in its place the network takes another path")


def _sketch(model: nn.Module) -> nn.Module:
    """Return a copy of `model` for tracing, with ordinary layers without values in place of forms."""
    sketch = inference_copy(model)
    for name in outermost_forms(sketch):
        form = sketch.get_submodule(name)
        if not name:
            return hollow(form)
        replace_module(sketch, form, hollow(form))
    return sketch


def hollow(layer: nn.Module) -> nn.Module:
    """Return an ordinary layer of the geometry of a layer or form, without values."""
    geometry = Geometry.of(layer)
    bias = layer.bias
    return geometry.layer(
        torch.empty(geometry.shape, device="meta"), None if bias is None else bias.detach().to("meta")
    )


def _text(model: nn.Module) -> str | None:
    try:
        return str(trace(model).graph)
    except CompressionError:
        return None
