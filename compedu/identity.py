"""The identity of a network: digests of its tensors and of the rest of it, as far as that can be read off it."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from hashlib import sha256
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compedu import networks
from compedu.forms import Form
from compedu.graph.switches import seen_by, standard_attributes, switches_of
from compedu.hashing import model_digest, tensors_digest

EMPTY = "()"
OTHERS = ("training", "spec")  # attributes that do not affect what a network computes


def identity(model: nn.Module) -> str:
    """Return a digest of everything in `model` that affects its outputs and its training.

    That is its tensors, layers and their settings, attributes, which parameters train, what is shared, and the code of
    classes, forwards and hooks that are neither torch's nor ours, but not of the functions that these call. A network
    of this package that is as its spec says is identified by its tensors alone, however torch prints it.
    """
    values = model_digest(model)
    if _as_named(model):
        return values
    kept = model.state_dict().keys()
    others = {name: tensor for name, tensor in model.named_buffers() if name not in kept}
    for path, module in model.named_modules():
        own = {name: value for name, value in vars(module).items() if name not in standard_attributes()}
        hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
        others |= dict(_held(own, f"{path}|", ())) | dict(_held(hooks, f"{path}|hooks", ()))
    return sha256(f"{values}|{tensors_digest(others)}|{structure_digest(model)}".encode()).hexdigest()[:16]


def _held(value: Any, path: str, around: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors and arrays in `value` with the paths to them: in containers, functions and objects of others.

    `around` holds the ids of what contains it. Those in sets have no order, and do not count.
    """
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, np.ndarray):
        content = repr(value.tolist()).encode() if value.dtype.hasobject else value.tobytes()
        yield f"{path} {value.dtype.str} {value.shape}", torch.from_numpy(np.frombuffer(content, np.uint8).copy())
    elif id(value) not in around and not isinstance(value, (nn.Module, type)):
        for name, part in _parts(value):
            yield from _held(part, f"{path}.{name}", (*around, id(value)))


def _parts(value: Any) -> Iterable[tuple[Any, Any]]:
    """Return names and values of what `value` consists of or, if it is a function, what its calls can see."""
    if isinstance(value, Mapping):  # other keys than names may be written differently in each process
        return ((key if isinstance(key, (str, int)) else place, value[key]) for place, key in enumerate(value))
    if isinstance(value, (list, tuple)):
        return enumerate(value)
    if isinstance(value, MethodType):
        return enumerate((value.__self__, value.__func__))
    if isinstance(value, partial):
        return enumerate((value.func, value.args, value.keywords))
    if isinstance(value, FunctionType):
        return enumerate(seen_by(value))
    foreign = type(value).__module__.partition(".")[0] not in ("torch", "compedu", "builtins")
    return vars(value).items() if foreign and hasattr(value, "__dict__") else ()


def structure_digest(model: nn.Module) -> str:
    """Return the part of `identity` that does not depend on the values of tensors."""
    first: dict[int, str] = {}
    same = [(path, first.setdefault(id(part), path)) for path, part in model.named_modules(remove_duplicate=False)]
    trained = [
        (name, p.requires_grad, first.setdefault(id(p), name))
        for name, p in model.named_parameters(remove_duplicate=False)
    ]
    forms = [(path, form.geometry, form.settings()) for path, form in model.named_modules() if isinstance(form, Form)]
    written = [same, trained, forms, _described(model), _text(switches_of(model))]
    return sha256(repr(written).encode()).hexdigest()[:16]


def _as_named(model: nn.Module) -> bool:
    spec = getattr(model, "spec", None)
    plain = isinstance(spec, str) and not own_code(model) and all(p.requires_grad for p in model.parameters())
    return plain and _described(model) == _named(spec)


@lru_cache(maxsize=32)
def _named(spec: str) -> list[tuple] | None:
    """Return the description of the network that `spec` names, or None if there is none."""
    try:
        with torch.device("meta"):
            return _described(networks.build(spec))
    except ValueError:
        return None


def _described(model: nn.Module) -> list[tuple]:
    return [
        (path, _text(type(module)), module.extra_repr(), plain_attributes(module, OTHERS))
        for path, module in model.named_modules()
    ]


def _text(value: Any) -> str:
    """Return a string for what `switches_of` found, the same in every process: code by content, not by address."""
    if isinstance(value, CodeType):
        inside = [_text(part) for part in value.co_consts]
        return f"code({value.co_code.hex()}, {value.co_names}, {inside})"
    if isinstance(value, type):
        name = f"{value.__module__}.{value.__qualname__}"
        if name.startswith(("torch.", "compedu.", "builtins.")):
            return name
        functions = (part for kind in value.__mro__ for part in vars(kind).values() if isinstance(part, FunctionType))
        own = [_text(f.__code__) for f in functions if not (f.__module__ or "").startswith(("torch.", "builtins"))]
        return f"{name}({own})"
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(_text, value)))}}}"
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(_text, value))})"
    return repr(value)


def plain_attributes(module: nn.Module, left_out: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return the public attributes of `module` that are plain values, with these as strings, sorted by name.

    Empty lists and dictionaries do not count: forward passes fill some with tensors, as a cache.
    """
    known = [
        (name, _plain(value))
        for name, value in sorted(vars(module).items())
        if name not in left_out and not name.startswith("_")
    ]
    return tuple(pair for pair in known if pair[1] not in (None, EMPTY))


def _plain(value: Any) -> str | None:
    """Return a value as a string that is the same in every process, a function by its name; None for other objects."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        parts = list(map(_plain, value))
        return None if None in parts else f"({', '.join(parts)})"
    if isinstance(value, dict):
        return _plain([*value.items()])
    return getattr(value, "__qualname__", None)


def own_code(model: nn.Module) -> list[tuple[str, ...]]:
    """Return the modules that run hooks of the user, or a forward of the user, each with which of these it has."""
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    found = (
        (path, *(kind for kind in kinds if getattr(module, kind)), *({"forward"} & vars(module).keys()))
        for path, module in model.named_modules()
    )
    return [entry for entry in found if len(entry) > 1]
