"""Copies of networks, of their own tensors or of the same."""

import copy
import copyreg
from collections import OrderedDict
from itertools import chain
from typing import Any

from torch import Tensor, nn

from compedu.errors import CompressionError, first_line
from compedu.forms.form import Form
from compedu.forms.walk import outside_forms
from compedu.graph.known_code import runs_foreign_code

ATOMS = (type(None), bool, int, float, complex, str, bytes)
OWN_WAYS = ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__")  # of a class to be copied
STANDARD_WAYS = ("__reduce_ex__", "__reduce__", "__getstate__")


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
    try:
        return _copied(model, dict(memo or {}))
    except RuntimeError as error:  # torch copies no tensor that is part of an autograd graph
        raise CompressionError(
            f"{type(model).__name__} cannot be copied: {first_line(error)}; detach the tensors that it keeps besides "
            "its parameters and buffers"
        ) from error


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """Return what `copy.deepcopy(value, memo)` returns, in the same order.

    `deepcopy` asks about every value, key and empty registry of each module: most of its time.
    """
    if type(value) in ATOMS:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if type(value) is dict or (type(value) is OrderedDict and not value and not vars(value)):
        copied = memo[id(value)] = type(value)()
        for key in value:
            copied[_copied(key, memo)] = _copied(value[key], memo)
        return copied
    if isinstance(value, nn.Module) and _is_copied_by_attributes(value):
        kind = type(value)
        made = memo[id(value)] = kind.__new__(kind)
        made.__setstate__({name: _copied(part, memo) for name, part in value.__getstate__().items()})
        return made
    return copy.deepcopy(value, memo)


def _is_copied_by_attributes(module: nn.Module) -> bool:
    """Return whether nothing but the attributes of `module` says how `deepcopy` copies it."""
    kind = type(module)
    if kind.__new__ is not object.__new__ or kind in copyreg.dispatch_table or "__deepcopy__" in vars(module):
        return False
    return not any(hasattr(kind, name) for name in OWN_WAYS) and all(
        getattr(kind, name) is getattr(nn.Module, name) for name in STANDARD_WAYS
    )
