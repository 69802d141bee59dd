"""Networks of torch's and our own code alone: what they do with their layers follows from their structure."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from compedu.forms.form import Form
from compedu.graph.own_hooks import has_own_forward
from compedu.graph.switches import standard_attributes

KNOWN = ("torch.nn.", "compedu.")
SIZES = ("in_channels", "out_channels", "in_features", "out_features", "num_features", "groups")  # besides tensors'


def runs_foreign_code(module: nn.Module) -> bool:
    """Return whether a call of `module` itself runs code that is neither torch's nor ours."""
    ours = type(module).__module__.startswith(KNOWN)
    return not ours or has_own_forward(module) or bool(module._forward_hooks or module._forward_pre_hooks)


def runs_known_code(model: nn.Module) -> bool:
    """Return whether no module of `model` runs foreign code, nor holds any that it could call."""
    return not any(runs_foreign_code(module) for module in model.modules()) and all(map(_holds_known, model.modules()))


def _holds_known(module: nn.Module) -> bool:
    return all(_is_known(value) for name, value in vars(module).items() if name not in standard_attributes())


def _is_known(value: Any) -> bool:
    """Return whether `value` consists of plain values, tensors, modules, and objects of torch's classes or ours."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, Tensor, nn.Module)):
        return True
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_known, value))
    if isinstance(value, Mapping):
        return all(_is_known(key) and _is_known(item) for key, item in value.items())
    return str(getattr(value, "__module__", "")).partition(".")[0] in ("torch", "compedu")


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
    return layers, tuple((name, tuple(t.shape), t.dtype, t.requires_grad, first[id(t)]) for name, t in tensors)
