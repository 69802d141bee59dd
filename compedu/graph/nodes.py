"""What a single node of a graph is: which operation it calls, who reads it."""

import operator
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import fx, nn

_RELU_FUNCTIONS = (F.relu, F.relu_, torch.relu, torch.relu_)
_RELU_METHODS = ("relu", "relu_")
_ADDING_FUNCTIONS = (operator.add, operator.iadd, torch.add)
_ADDING_METHODS = ("add", "add_")
_ASKED = ("size", "dim", "numel", "ndimension", "shape", "ndim")
OVERWRITING_OPERATORS = (
    "iadd",
    "iand",
    "ifloordiv",
    "ilshift",
    "imatmul",
    "imod",
    "imul",
    "ior",
    "ipow",
    "irshift",
    "isub",
    "itruediv",
    "ixor",
)


def only_consumer(node: fx.Node) -> fx.Node | None:
    """Return the one node that reads `node`, or None where there are several or none."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def called_name(node: fx.Node) -> str:
    """Return the name of the module, function or method that `node` calls."""
    return node.target if isinstance(node.target, str) else node.target.__name__


def module_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> nn.Module | None:
    """Return the module that `node` calls, or None."""
    return modules[node.target] if node.op == "call_module" else None


def is_relu(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Return whether `node` is a rectified linear unit, as a module, a function or a method."""
    return type(module_of(node, modules)) is nn.ReLU or _calls(node, _RELU_FUNCTIONS, _RELU_METHODS)


def is_relu6(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Return whether `node` is a ReLU bounded by 6, as a module or a function."""
    return type(module_of(node, modules)) is nn.ReLU6 or node.target in (F.relu6, torch.ops.aten.relu6)


def is_addition(node: fx.Node) -> bool:
    """Return whether `node` adds, as an operator, a function or a method."""
    return _calls(node, _ADDING_FUNCTIONS, _ADDING_METHODS)


def is_question(node: fx.Node) -> bool:
    """Return whether `node` only asks for the shape of its input."""
    if node.op == "call_method":
        return node.target in _ASKED
    return node.target is getattr and node.args[1] in _ASKED


def _calls(node: fx.Node, functions: tuple, methods: tuple[str, ...]) -> bool:
    return (node.op == "call_function" and node.target in functions) or (
        node.op == "call_method" and node.target in methods
    )
