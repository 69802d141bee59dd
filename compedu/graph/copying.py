"""Copies of networks, of their own tensors or of the same."""

import copy
from collections import OrderedDict
from functools import cache
from itertools import chain
from typing import Any

from torch import Tensor, nn

from compedu.errors import CompressionError, first_line
from compedu.forms.form import Form
from compedu.forms.walk import outside_forms
from compedu.graph.known_code import runs_foreign_code

ATOMS = (type(None), bool, int, float, complex, str, bytes)
REGISTRIES = (OrderedDict, set)  # most of those that a module has, of hooks above all, are empty


def shared_copy(model: nn.Module, tensors: dict[int, Tensor] | None = None) -> nn.Module:
    """Return a copy of `model` with its own modules but the same tensors, into which nothing may write.

    `tensors` maps the id of a parameter or buffer to the tensor that takes its place in the copy. Buffers into which
    code may write that is neither torch's nor ours, as a counter of calls, are copied: those of a module that runs such
    code, and of all modules inside it but forms.
    """
    foreign = filter(runs_foreign_code, model.modules())
    inside = (part for module in foreign for _, part in outside_forms(module) if not isinstance(part, Form))
    written = {id(buffer) for part in inside for buffer in part.buffers(recurse=False)}
    shared = {id(p): p for p in model.parameters()}
    shared |= {id(b): b for b in model.buffers() if id(b) not in written}
    return whole_copy(model, shared | (tensors or {}))


def inference_copy(model: nn.Module, tensors: dict[int, Tensor] | None = None) -> nn.Module:
    """Return a `shared_copy` in evaluation mode."""
    return shared_copy(model, tensors).eval()


def with_own_tensors(model: nn.Module, other: nn.Module) -> nn.Module:
    """Return `model` with tensors of its own in place of those that share memory with `other`."""
    theirs = {tensor.untyped_storage().data_ptr() for tensor in chain(other.parameters(), other.buffers())}
    kept = [t for t in chain(model.parameters(), model.buffers()) if t.untyped_storage().data_ptr() not in theirs]
    return whole_copy(model, {id(tensor): tensor for tensor in kept})


def whole_copy(model: nn.Module, memo: dict[int, Tensor] | None = None) -> nn.Module:
    """Return a deep copy of `model`, but for tensors whose id is in `memo`; `CompressionError` where torch has none."""
    copies: dict[int, Any] = dict(memo or {})
    # What `deepcopy` does with a module, but without asking about each of its attributes: that takes most of the time.
    plain = [module for module in model.modules() if _is_copied_by_attributes(type(module))]
    copies |= {id(module): type(module).__new__(type(module)) for module in plain}
    try:
        for module in reversed(plain):  # those inside before those that hold them
            state = module.__getstate__()
            copies[id(module)].__setstate__({name: _copied(value, copies) for name, value in state.items()})
        return copy.deepcopy(model, copies)
    except RuntimeError as error:  # torch copies no tensor that is part of an autograd graph
        raise CompressionError(
            f"{type(model).__name__} cannot be copied: {first_line(error)}; detach the tensors that it keeps besides "
            "its parameters and buffers"
        ) from error


@cache
def _is_copied_by_attributes(kind: type[nn.Module]) -> bool:
    """Return whether `deepcopy` copies a module of this class attribute by attribute."""
    standard = (
        getattr(kind, name) is getattr(nn.Module, name) for name in ("__reduce_ex__", "__reduce__", "__getstate__")
    )
    return not hasattr(kind, "__deepcopy__") and all(standard)


def _copied(value: Any, copies: dict[int, Any]) -> Any:
    """Return the deep copy of an attribute; `copies` maps ids to what was copied before, and is extended."""
    if type(value) in ATOMS:
        return value
    if id(value) in copies:
        return copies[id(value)]
    if type(value) is dict or (type(value) in REGISTRIES and not value):
        copied = type(value)()
        copies[id(value)] = copied
        for key in value:
            copied[key] = _copied(value[key], copies)
        return copied
    return copy.deepcopy(value, copies)
