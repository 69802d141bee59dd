"""Networks of torch's and our own code alone: what they do with their layers follows from their structure."""

from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from compedu.forms.form import Form
from compedu.graph.own_hooks import has_own_forward
from compedu.graph.switches import PLAIN, standard_attributes

KNOWN = ("torch.nn.", "compedu.")
SIZES = ("in_channels", "out_channels", "in_features", "out_features", "num_features", "groups")  # besides tensors'


def runs_foreign_code(module: nn.Module) -> bool:
    """Return whether a call of `module` itself runs code that is neither torch's nor ours."""
    kind = type(module)
    ours = kind.__module__.startswith(KNOWN) and _is_ours(getattr(kind.forward, "__module__", None))
    return not ours or has_own_forward(module) or bool(module._forward_hooks or module._forward_pre_hooks)


def runs_known_code(model: nn.Module) -> bool:
    """Return whether no module of `model` runs foreign code, nor holds any that it could call."""
    if _global_forward_hooks or _global_forward_pre_hooks:
        return False
    modules = frozenset(map(id, model.modules()))
    return not any(map(runs_foreign_code, model.modules())) and all(
        _holds_known(module, modules) for module in model.modules()
    )


def _holds_known(module: nn.Module, modules: frozenset[int]) -> bool:
    tensors = (*module._parameters.values(), *module._buffers.values())
    own = (value for name, value in vars(module).items() if name not in standard_attributes())
    return all(_is_known(value, modules) for value in (*tensors, *own))


def _is_known(value: Any, modules: frozenset[int]) -> bool:
    """Return whether `value` consists of plain values, tensors, `modules` (by id), and functions of torch or ours."""
    if isinstance(value, PLAIN):
        return True
    if isinstance(value, Tensor):
        return type(value) in (Tensor, nn.Parameter)  # other classes may compute what they like
    if isinstance(value, nn.Module):
        return id(value) in modules or runs_known_code(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(_is_known(item, modules) for item in value)
    if isinstance(value, Mapping):
        return all(_is_known(key, modules) and _is_known(item, modules) for key, item in value.items())
    if isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        return _is_ours(value.__module__)
    return type(value) in (torch.dtype, torch.device) or type(value).__module__.startswith("compedu.")


def _is_ours(module: str | None) -> bool:
    return (module or "").startswith((*KNOWN, "torch._C.", "torch.functional"))


def structure_of(model: nn.Module) -> tuple:
    """Return shapes, types and sharing of all tensors of `model`, the sizes of its layers, the geometries of forms."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    first: dict[int, int] = {}
    for place, (_, tensor) in enumerate(tensors):
        first.setdefault(id(tensor), place)
    layers = tuple(
        (name, tuple(vars(module).get(size) for size in SIZES), module.geometry if isinstance(module, Form) else None)
        for name, module in model.named_modules()
    )
    described = (
        (name, tuple(tensor.shape), tensor.dtype, tensor.device, tensor.requires_grad, first[id(tensor)])
        for name, tensor in tensors
    )
    return layers, tuple(described)
