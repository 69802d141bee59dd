"""What a node of the graph is, for those nodes that have a meaning on codes; modules, functions and methods alike."""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from compedu.deployment.kernels.product import Window
from compedu.forms import ActivationQuantizer, Coded
from compedu.graph.nodes import is_addition, is_relu, module_of

Modules = dict[str, nn.Module]

_PASSED = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
_RESHAPED = {"flatten", "view", "reshape", "squeeze", "unsqueeze"}
_OVERWRITING = (operator.iadd, operator.isub, operator.imul, operator.itruediv, F.relu_, torch.relu_)
_ASKED = {"size", "dim", "numel", "ndimension"}


def source_of(node: fx.Node) -> fx.Node:
    """Return the first input of `node`."""
    return node.all_input_nodes[0]


def integer_layer(node: fx.Node, modules: Modules) -> Coded | None:
    """Return the coded layer with quantized inputs that `node` calls, or None."""
    layer = module_of(node, modules)
    return layer if isinstance(layer, Coded) and isinstance(layer.act, ActivationQuantizer) else None


def clip_of(node: fx.Node, modules: Modules) -> tuple[float, float | None] | None:
    """Return the bounds of a ReLU (0, None) or ReLU6 (0, 6); None for anything else."""
    if is_relu(node, modules):
        return 0.0, None
    bounded = type(module_of(node, modules)) is nn.ReLU6 or node.target in (F.relu6, torch.ops.aten.relu6)
    return (0.0, 6.0) if bounded else None


def is_passed(node: fx.Node, modules: Modules) -> bool:
    """Return whether the output of `node` is its input: identities, and dropout, which is off at inference."""
    return type(module_of(node, modules)) in _PASSED or (node.op, node.target) == ("call_method", "contiguous")


def simplified(traced: fx.GraphModule) -> fx.GraphModule:
    """Return the graph without identities, in which readers of an overwritten tensor read what overwrote it.

    Changes `traced`.
    """
    modules, done = dict(traced.named_modules()), set()
    for node in traced.graph.nodes:
        if is_passed(node, modules):
            node.replace_all_uses_with(source_of(node))
            traced.graph.erase_node(node)
            continue
        done.add(node)
        if overwrites(node, modules):
            source_of(node).replace_all_uses_with(node, delete_user_cb=lambda user: user not in done)
    traced.recompile()
    return traced


def is_reshape(node: fx.Node, modules: Modules) -> bool:
    """Return whether `node` only gives its first input another shape."""
    if node.op == "call_method":
        return node.target in _RESHAPED
    return type(module_of(node, modules)) is nn.Flatten or node.target in (torch.flatten, torch.reshape, torch.squeeze)


def is_question(node: fx.Node) -> bool:
    """Return whether `node` only asks for the shape of its input."""
    if node.op == "call_method":
        return node.target in _ASKED
    return node.target is getattr and node.args[1] in ("shape", "ndim")


def overwrites(node: fx.Node, modules: Modules) -> bool:
    """Return whether `node` writes its result over its first input, which later readers then see."""
    flag = getattr(module_of(node, modules), "inplace", False) or node.kwargs.get("inplace", False)
    method = node.op == "call_method" and node.target.endswith("_") and not node.target.endswith("__")
    return bool(flag) or method or node.target in _OVERWRITING


def added(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Return the two nodes whose plain sum `node` is, or None."""
    two = len(node.args) == 2 and not node.kwargs and all(isinstance(part, fx.Node) for part in node.args)
    return tuple(node.args) if is_addition(node) and two else None


def joined(node: fx.Node) -> list[fx.Node] | None:
    """Return the nodes that `node` concatenates, or None."""
    if node.target not in (torch.cat, torch.concat, torch.concatenate):
        return None
    parts = node.args[0] if node.args else node.kwargs["tensors"]
    return list(parts) if isinstance(parts, (list, tuple)) else None


def max_pool(node: fx.Node, modules: Modules) -> Window | None:
    """Return the window of a two-dimensional max pooling, or None."""
    m = module_of(node, modules)
    if type(m) is nn.MaxPool2d:
        return _max_window(None, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices)
    return _read(node, (F.max_pool2d, torch.max_pool2d), _max_window)


def average_pool(node: fx.Node, modules: Modules) -> Window | None:
    """Return the window of a two-dimensional average pooling that always divides by the window's size, or None."""
    m = module_of(node, modules)
    if type(m) is nn.AvgPool2d:
        return _average_window(
            None, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
        )
    return _read(node, (F.avg_pool2d,), _average_window)


def is_image_average(node: fx.Node, modules: Modules) -> bool:
    """Return whether `node` averages each channel over the whole image and keeps four dimensions."""
    m = module_of(node, modules)
    if type(m) is nn.AdaptiveAvgPool2d:
        return _is_one(None, m.output_size)
    return bool(_read(node, (F.adaptive_avg_pool2d,), _is_one))


def _read(node: fx.Node, functions: tuple[Callable, ...], reader: Callable) -> Any:
    # `reader` has the signature of the functions, so Python itself sorts positional and named arguments.
    return reader(*node.args, **node.kwargs) if node.op == "call_function" and node.target in functions else None


def _max_window(
    input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
) -> Window | None:
    if return_indices:
        return None
    kernel = _pair(kernel_size)
    return Window(kernel, _pair(stride or kernel), _pair(padding), _pair(dilation), ceil_mode)


def _average_window(
    input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
) -> Window | None:
    if ceil_mode or divisor_override is not None or (not count_include_pad and _pair(padding) != (0, 0)):
        return None
    kernel = _pair(kernel_size)
    return Window(kernel, _pair(stride or kernel), _pair(padding))


def _is_one(input, output_size) -> bool:
    return output_size in (1, (1, 1), [1, 1])


def _pair(value: Any) -> tuple[int, int]:
    """Return one number for both sides, or the two numbers."""
    return (value, value) if isinstance(value, int) else tuple(value)
