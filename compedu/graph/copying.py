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
from compedu.graph.switches import PLAIN

ATOMS = frozenset(PLAIN)
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
        return _Copies(memo or {}).of(model)
    except RuntimeError as error:  # torch copies no tensor that is part of an autograd graph
        raise CompressionError(
            f"{type(model).__name__} cannot be copied: {first_line(error)}; detach the tensors that it keeps besides "
            "its parameters and buffers"
        ) from error


class _Copies(dict):
    """The memo of one `copy.deepcopy`, from the id of a value to its copy, and a faster way to fill it.

    `deepcopy` asks about every value, key and empty registry of each module: most of its time.
    """

    def __init__(self, memo: dict[int, Any]):
        super().__init__(memo)
        self._kinds: dict[type, bool] = {}  # only of this copy, so that no class is kept alive

    def of(self, value: Any) -> Any:
        """Return what `copy.deepcopy` returns for `value`, made in the same order."""
        kind = type(value)
        if kind in ATOMS or (kind is tuple and all(type(part) in ATOMS for part in value)):
            return value
        if id(value) in self:
            return self[id(value)]
        if kind is dict:
            return self._of_dictionary(value)
        if kind in (set, OrderedDict) and not value and not getattr(value, "__dict__", None):  # as most registries are
            copied = self[id(value)] = kind()
            return copied
        if isinstance(value, nn.Module) and self._is_copied_by_attributes(value):
            return self._of_module(value)
        return copy.deepcopy(value, self)

    def _of_module(self, module: nn.Module) -> nn.Module:
        copied = self[id(module)] = type(module).__new__(type(module))
        copied.__setstate__({name: self.of(part) for name, part in module.__getstate__().items()})
        return copied

    def _of_dictionary(self, value: dict) -> dict:
        copied: dict[Any, Any] = {}
        self[id(value)] = copied
        for key, part in value.items():
            copied[self.of(key)] = self.of(part)
        return copied

    def _is_copied_by_attributes(self, module: nn.Module) -> bool:
        """Return whether nothing but the attributes of `module` says how `deepcopy` copies it."""
        kind = type(module)
        if kind not in self._kinds:
            self._kinds[kind] = (
                kind.__new__ is object.__new__
                and kind not in copyreg.dispatch_table
                and not any(hasattr(kind, name) for name in OWN_WAYS)
                and all(getattr(kind, name) is getattr(nn.Module, name) for name in STANDARD_WAYS)
            )
        return self._kinds[kind] and "__deepcopy__" not in vars(module)
