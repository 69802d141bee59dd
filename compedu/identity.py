"""What a network is beside its numbers, as far as it can be read off it, and digests that tell networks apart."""

from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

import torch
from torch import nn

from compedu import networks
from compedu.forms import Form
from compedu.hashing import model_digest, tensors_digest

OTHERS = ("training", "spec")  # attributes that decide nothing about what a network computes


class Described(NamedTuple):
    """What decides about the output of a module beside its tensors and the modules inside of it."""

    path: str
    kind: str
    shown: str  # its `extra_repr`, which may show what its attributes do not
    attributes: tuple[tuple[str, str], ...]


def identity(model: nn.Module) -> str:
    """Return a digest of what decides about the outputs of `model`: numbers, layers, settings, hooks by their place.

    A network of this package that is as its spec says is known by its numbers alone, whatever torch prints of it.
    """
    numbers = model_digest(model)
    if _as_named(model):
        return numbers
    kept = model.state_dict().keys()
    others = {name: tensor for name, tensor in model.named_buffers() if name not in kept}
    return sha256(f"{numbers}|{tensors_digest(others)}|{structure_digest(model)}".encode()).hexdigest()[:16]


def structure_digest(model: nn.Module) -> str:
    """Return a digest of the layers of `model`, of what these are set to, and of where hooks of the user's run."""
    forms = [
        (path, form.geometry, form.settings()) for path, form in model.named_modules() if isinstance(form, Form)
    ]
    return sha256(repr([_described(model), forms, own_code(model)]).encode()).hexdigest()[:16]


def _as_named(model: nn.Module) -> bool:
    spec = getattr(model, "spec", None)
    return isinstance(spec, str) and not own_code(model) and _described(model) == _named(spec)


@lru_cache(maxsize=32)
def _named(spec: str) -> list[tuple] | None:
    """Return the description of the network that `spec` names; None where it names nothing."""
    try:
        with torch.device("meta"):
            return _described(networks.build(spec))
    except ValueError:
        return None


def _described(model: nn.Module) -> list[tuple]:
    return [
        (path, type(module).__qualname__, module.extra_repr(), plain_attributes(module, OTHERS))
        for path, module in model.named_modules()
    ]


def plain_attributes(module: nn.Module, left_out: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return the public attributes of `module` that are plain values, and these as texts, in order of their names."""
    known = [
        (name, _plain(value)) for name, value in sorted(vars(module).items())
        if name not in left_out and not name.startswith("_")
    ]
    return tuple(pair for pair in known if pair[1] is not None)


def _plain(value: Any) -> str | None:
    """Return a value as a text that is the same in every process, a function by its name; None for any other object."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        texts = list(map(_plain, value))
        return None if None in texts else f"({', '.join(texts)})"
    if isinstance(value, dict):
        return _plain([*value.items()])
    return getattr(value, "__qualname__", None)


def own_code(model: nn.Module) -> list[tuple[str, ...]]:
    """Return the modules at which the user's hooks run, or a forward of the user's, and which of these."""
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    found = (
        (path, *(kind for kind in kinds if getattr(module, kind)), *({"forward"} & vars(module).keys()))
        for path, module in model.named_modules()
    )
    return [entry for entry in found if len(entry) > 1]
