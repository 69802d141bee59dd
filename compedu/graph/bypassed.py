"""Layers that a shortcut bypasses: without them the network still carries its signal."""

from torch import fx, nn

from compedu.forms.form import Form
from compedu.graph.nodes import is_addition, only_consumer
from compedu.graph.trace import layer_calls, trace

_PASSING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout, nn.Dropout2d, nn.Identity)


def bypassed_layers(model: nn.Module) -> set[str]:
    """Return the layers, called once, whose output is only added to that of another path from the input.

    Batch norm and dropout may stand between layer and addition. Where both sides of an addition end in such a layer,
    the shallower one is the shortcut and stays; of equally deep ones both stay. Raises `CompressionError` when
    `model` cannot be traced.
    """
    traced = trace(model)
    modules = dict(traced.named_modules())
    calls = layer_calls(traced)
    depth = _depths(traced)
    found = set()
    for node in traced.graph.nodes:
        sides = _summands(node)
        if len(sides) != 2 or any(depth[side] is None for side in sides):
            continue
        ends = [_layer_behind(side, modules, calls) for side in sides]
        for (side, end), (other, other_end) in (
            zip(sides, ends, strict=True),
            reversed(list(zip(sides, ends, strict=True))),
        ):
            if end is not None and (other_end is None or depth[side] > depth[other]):
                found.add(end)
    return found


def _summands(node: fx.Node) -> list[fx.Node]:
    """Return the two different nodes that `node` adds; none where it adds a number or is not an addition."""
    sides = [side for side in node.args if isinstance(side, fx.Node)] if is_addition(node) else []
    return sides if len(set(sides)) == 2 else []


def _layer_behind(node: fx.Node, modules: dict[str, nn.Module], calls: dict[str, list[fx.Node]]) -> str | None:
    """Return the layer whose output, perhaps normalized, is `node`, if nothing else reads it; else None."""
    while node.op == "call_module" and only_consumer(node) is not None:
        module = modules[node.target]
        if isinstance(module, (nn.Conv2d, nn.Linear, Form)):
            return node.target if len(calls[node.target]) == 1 else None
        if type(module) not in _PASSING:
            return None
        node = node.args[0]
    return None


def _depths(traced: fx.GraphModule) -> dict[fx.Node, int | None]:
    """Return for each node the most layers on a path from the input to it, itself included; None without a path."""
    modules = dict(traced.named_modules())
    depths: dict[fx.Node, int | None] = {}
    for node in traced.graph.nodes:
        before = [depths[source] for source in node.all_input_nodes if depths[source] is not None]
        own = node.op == "call_module" and isinstance(modules[node.target], (nn.Conv2d, nn.Linear, Form))
        depths[node] = 0 if node.op == "placeholder" else max(before) + own if before else None
    return depths
