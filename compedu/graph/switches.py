"""What the control flow of a forward pass may depend on besides values: classes of modules, attributes, hooks."""

from collections.abc import Mapping
from functools import cache, partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from compedu.forms.activation import ActivationQuantizer
from compedu.forms.form import Form

# Sizes, which follow from the shapes of tensors, and the record of how a network was compressed.
_NO_SWITCHES = frozenset(
    (
        "in_channels",
        "out_channels",
        "in_features",
        "out_features",
        "num_features",
        "num_parameters",
        "groups",
        "compression",
    )
)
_OURS = ("torch", "compedu")  # of objects from here only the class counts
PLAIN = (type(None), bool, int, float, complex, str, bytes)  # values without parts


def switches_of(model: nn.Module) -> tuple:
    """Return what decides by which path `model` reaches its layers; equal for copies, and it keeps no network alive."""
    names = {id(module): name for name, module in model.named_modules()}
    return tuple((name, kind_of(module), _attributes(module, names)) for name, module in model.named_modules())


def kind_of(module: nn.Module) -> type | str:
    """Return what `module` has in common with its copies: its class, or its code where each copy has its own class."""
    return module.code if isinstance(module, fx.GraphModule) else type(module)


def _attributes(module: nn.Module, names: Mapping[int, str]) -> tuple:
    """Return the hooks of `module` and the attributes that its class or the user gave it; a form's own are values."""
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    carried = module.carried if isinstance(module, Form) else () if type(module) is ActivationQuantizer else None
    own = {
        name: value
        for name, value in sorted(vars(module).items())  # torch's LSTM gives a copy another order
        if name not in standard_attributes() and (name in carried if carried is not None else name not in _NO_SWITCHES)
    }
    return _value(hooks, names, ()), _value(own, names, ())


@cache
def standard_attributes() -> frozenset[str]:
    """Return the names of the attributes that every module has."""
    return frozenset(vars(nn.Module()))


def _value(value: Any, names: Mapping[int, str], around: tuple[int, ...]) -> Any:
    """Return what stands for `value` in a comparison; `names` are those of modules, `around` what contains it."""
    if isinstance(value, (*PLAIN, np.generic)):
        return type(value), repr(value)
    if isinstance(value, nn.Module):
        return type(value), names.get(id(value))
    if isinstance(value, (type, BuiltinFunctionType)):
        return repr(value)
    if id(value) in around:
        return "around"
    return type(value), _parts(value, names, (*around, id(value)))


def _parts(value: Any, names: Mapping[int, str], around: tuple[int, ...]) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), str(value.dtype)
    if isinstance(value, (list, tuple)):
        return tuple(_value(item, names, around) for item in value)
    if isinstance(value, (set, frozenset)):
        return frozenset(_value(item, names, around) for item in value)
    if isinstance(value, Mapping):
        return tuple((_value(key, names, around), _value(item, names, around)) for key, item in value.items())
    if isinstance(value, MethodType):
        return _value(value.__func__, names, around), _value(value.__self__, names, around)
    if isinstance(value, partial):
        return _value([value.func, value.args, value.keywords], names, around)
    if isinstance(value, FunctionType):
        return value.__code__, _value(seen_by(value), names, around)
    if type(value).__module__.partition(".")[0] in _OURS:
        return repr(value) if type(value).__name__ in ("dtype", "device") else None
    return _value(dict(sorted(vars(value).items())), names, around) if hasattr(value, "__dict__") else None


def seen_by(function: FunctionType) -> list[Any]:
    """Return what each call of `function` sees besides its arguments: what it closes over, and its defaults."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    return [cells, function.__defaults__, function.__kwdefaults__]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  only whether it can be read
    except ValueError:  # a name to which its function has not assigned yet
        return False
    return True
