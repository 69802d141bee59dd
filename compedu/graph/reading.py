"""Reading the coupling of a network's channels from its graph."""

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from compedu.errors import CompressionError, first_line
from compedu.forms.form import Form
from compedu.forms.walk import outside_forms
from compedu.graph.copying import inference_copy
from compedu.graph.coupling import INPUT, OUTPUT, Coupling, is_depthwise
from compedu.graph.following import Follower, Shapes
from compedu.graph.norms import is_batch_norm
from compedu.graph.trace import (
    is_plain,
    layer_calls,
    owners_read_apart,
    replace_module,
    shared_weights,
    trace,
)
from compedu.reproducible import seeded

MOST_IMAGES = 2  # of the example: enough to tell the dimension of the batch from one of size 1


def read_coupling(model: nn.Module, traced: fx.GraphModule, example: Tensor) -> Coupling:
    """Return the coupling of the channels of `model`, as far as they can be removed; arguments as of `followed`."""
    coupling, graphs = followed(model, traced, example)
    _pin_special_layers(coupling, model, graphs)
    _tie_grouped_convolutions(coupling, model)
    return coupling


def followed(
    model: nn.Module, traced: fx.GraphModule, example: Tensor, kind: Callable[..., Follower] = Follower
) -> tuple[Coupling, list[fx.GraphModule]]:
    """Return what a `kind` of follower finds in `model`, which is untouched, and the graphs in which it does.

    `traced` is the graph of `model`, `example` a batch of inputs, of which only the shape matters. Raises
    `CompressionError` with the reason when the network does not run on such inputs, or cannot be traced in training
    mode although layers need that.
    """
    # Layers outside the inference graph, such as auxiliary heads, read channels in training: that forward counts too.
    called = layer_calls(traced)
    training = any(name not in called and is_plain(layer) for name, layer in outside_forms(model))
    graphs = [traced, trace(model, training=True)] if training else [traced]
    coupling = Coupling()
    for graph in graphs:
        try:
            with torch.inference_mode(False), torch.enable_grad(), seeded(0):
                _follow(kind, model, graph, (min(len(example), MOST_IMAGES), *example.shape[1:]), coupling)
        except Exception as error:  # a forward pass may raise anything
            raise CompressionError(_refusal(model, example, graph is not traced, error)) from error
    return coupling, graphs


def _follow(
    kind: Callable[..., Follower], model: nn.Module, graph: fx.GraphModule, shape: tuple[int, ...], coupling: Coupling
) -> None:
    source = torch.empty(shape, dtype=_dtype(model), device="meta")
    shapes = Shapes(graph, _skeleton(model))
    with torch.device("meta"):
        shapes.run(source)
    kind(graph, model, shapes.of, coupling).run(source)


def _skeleton(model: nn.Module) -> nn.Module:
    """Return a copy of `model` without values, on the meta device, with ordinary layers in place of forms."""
    tensors = {id(p): nn.Parameter(p.detach().to("meta"), p.is_floating_point()) for p in model.parameters()}
    skeleton = inference_copy(model, tensors | {id(b): b.to("meta") for b in model.buffers()})
    for _, layer in list(outside_forms(skeleton)):
        if isinstance(layer, Form):
            weight = torch.empty(layer.geometry.shape, dtype=_dtype(model), device="meta")
            replace_module(skeleton, layer, layer.geometry.layer(weight, None))
    return skeleton


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _refusal(model: nn.Module, example: Tensor, training: bool, error: Exception) -> str:
    mode = " in training mode, which its layers outside the inference graph need," if training else ""
    return (
        f"the channels of {type(model).__name__} cannot be followed{mode} on an input of shape "
        f"{tuple(example.shape)} ({type(error).__name__}: {first_line(error)}). Give an example of another shape; "
        "methods that work layer by layer still apply to this network."
    )


def _pin_special_layers(coupling: Coupling, model: nn.Module, graphs: list[fx.GraphModule]) -> None:
    tied = set(shared_weights(model))
    calls = [layer_calls(graph) for graph in graphs]
    apart = set().union(*map(owners_read_apart, graphs))
    for name in dict.fromkeys(name for name, _ in coupling.ids):  # in order of execution
        layer = model.get_submodule(name)
        uses = max(len(called.get(name, ())) for called in calls)
        if uses > 1:
            reason = f"{name!r} is used {uses} times"
        elif name in tied:
            reason = f"{name!r} shares a parameter with another layer"
        elif name in apart:
            reason = f"the tensors of {name!r} are also read directly"
        elif isinstance(layer, Form):
            reason = f"{name!r} is already compressed ({type(layer).__name__}): change its channels before that"
        elif not is_plain(layer) and not is_batch_norm(layer) and type(layer) is not nn.PReLU:
            reason = f"{name!r} is a {type(layer).__name__}, not a plain Conv2d, Linear or batch norm"
        else:
            continue
        for side in (OUTPUT, INPUT):
            if (name, side) in coupling.ids:
                coupling.pin(torch.from_numpy(coupling.ids[name, side]), reason)


def _tie_grouped_convolutions(coupling: Coupling, model: nn.Module) -> None:
    """Tie the channels at the same place in every group, so that all groups of a convolution stay equally wide."""
    for (name, _), ids in coupling.ids.items():
        layer = model.get_submodule(name)
        if isinstance(layer, nn.Conv2d) and layer.groups > 1 and not is_depthwise(layer):
            coupling.hold(torch.from_numpy(ids.reshape(layer.groups, -1)), 0)
