"""What a node of the graph is, for those that can work on codes, whether modules, functions or methods."""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from compedu.deployment.kernels.product import Window
from compedu.deployment.kernels.reorder import ReorderedChannels
from compedu.deployment.registry import runs_on_codes
from compedu.forms import Quantized
from compedu.graph.nodes import called_name, is_addition, is_relu, is_relu6, module_of
from compedu.graph.writes import Modules, is_passed, overwrites

_MOVED = {
    "chunk",
    "flatten",
    "movedim",
    "narrow",
    "permute",
    "reshape",
    "select",
    "split",
    "squeeze",
    "swapaxes",
    "transpose",
    "unbind",
    "unsqueeze",
    "view",
}
_CUT = {"chunk", "split", "unbind"}  # these return several tensors
_JOINED = (torch.cat, torch.concat, torch.concatenate, torch.stack)


def source_of(node: fx.Node) -> fx.Node:
    """Return the first input of `node`."""
    return node.all_input_nodes[0]


def integer_layer(node: fx.Node, modules: Modules) -> Quantized | None:
    """Return the layer with weights and inputs of at most 8 bits that `node` calls, or None."""
    layer = module_of(node, modules)
    return layer if isinstance(layer, Quantized) and runs_on_codes(layer) else None


def clip_of(node: fx.Node, modules: Modules) -> tuple[float, float | None] | None:
    """Return the bounds of a ReLU (0, None) or ReLU6 (0, 6); None for anything else."""
    if is_relu(node, modules):
        return 0.0, None
    return (0.0, 6.0) if is_relu6(node, modules) else None


def simplified(traced: fx.GraphModule) -> fx.GraphModule:
    """Return the graph without identities, in which readers of an overwritten tensor read what overwrote it.

    Changes `traced`.
    """
    modules = dict(traced.named_modules())
    done = set()
    for node in traced.graph.nodes:
        if is_passed(node, modules) or (node.op, node.target) == ("call_method", "contiguous"):
            node.replace_all_uses_with(source_of(node))
            traced.graph.erase_node(node)
            continue
        done.add(node)
        if overwrites(node, modules):
            source_of(node).replace_all_uses_with(node, delete_user_cb=lambda user: user not in done)
    traced.recompile()
    return traced


def passed_on(node: fx.Node, modules: Modules) -> list[fx.Node]:
    """Return the inputs of an operation that commutes with their rounding; none for other operations.

    Rounding and clipping to a grid that contains 0 are monotonic, so they commute with operations that move elements,
    concatenate them, take their maximum or, as ReLU does, clip them.
    """
    if parts := joined(node):
        return parts
    if is_moved(node, modules) or clip_of(node, modules) or max_pool(node, modules):
        return [source_of(node)]
    return []


def is_moved(node: fx.Node, modules: Modules) -> bool:
    """Return whether the result of `node` holds the elements of its first input, only rearranged."""
    if node.target is operator.getitem:
        return isinstance(node.args[1], tuple) or is_piece(node, modules)
    if node.op == "call_module":
        return type(modules[node.target]) in (nn.Flatten, nn.Unflatten, ReorderedChannels)
    return _is_function(node, modules) and called_name(node) in _MOVED


def is_piece(node: fx.Node, modules: Modules) -> bool:
    """Return whether `node` takes one of the tensors into which another node has split its input."""
    whole = source_of(node)
    return node.target is operator.getitem and _is_function(whole, modules) and called_name(whole) in _CUT


def _is_function(node: fx.Node, modules: Modules) -> bool:
    """Return whether `node` calls a method, or a function of torch's own."""
    return node.op == "call_method" or (node.op == "call_function" and hasattr(torch, called_name(node)))


def added(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Return the two nodes of which `node` is the plain sum, or None."""
    two = len(node.args) == 2 and not node.kwargs and all(isinstance(part, fx.Node) for part in node.args)
    return tuple(node.args) if is_addition(node) and two else None


def joined(node: fx.Node) -> list[fx.Node] | None:
    """Return the nodes that `node` concatenates or stacks, or None."""
    if node.target not in _JOINED:
        return None
    parts = node.args[0] if node.args else node.kwargs["tensors"]
    return list(parts) if isinstance(parts, (list, tuple)) else None


def max_pool(node: fx.Node, modules: Modules) -> Window | None:
    """Return the window of a two-dimensional max pooling, or None."""
    m = module_of(node, modules)
    if type(m) is nn.MaxPool2d:
        return _max_window(
            None,
            kernel_size=m.kernel_size,
            stride=m.stride,
            padding=m.padding,
            dilation=m.dilation,
            ceil_mode=m.ceil_mode,
            return_indices=m.return_indices,
        )
    return _read(node, (F.max_pool2d, torch.max_pool2d), _max_window)


def _read(node: fx.Node, functions: tuple[Callable, ...], reader: Callable) -> Any:
    # `reader` has the signature of the functions, so that Python itself binds positional and named arguments.
    return reader(*node.args, **node.kwargs) if node.op == "call_function" and node.target in functions else None


def _max_window(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Window | None:
    if return_indices:
        return None
    kernel = _pair(kernel_size)
    return Window(kernel, _pair(stride or kernel), _pair(padding), _pair(dilation), ceil_mode)


def _pair(value: Any) -> tuple[int, int]:
    """Return one number for both sides, or the two numbers."""
    return (value, value) if isinstance(value, int) else tuple(value)
