"""What a network is besides its tensors: which one its spec names, and the settings of its modules."""

import zlib
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from compedu import networks
from compedu.files import fitting, layers
from compedu.forms import Block, Form, outside_forms
from compedu.identity import OTHERS, own_code, plain_attributes

CALLS_PER_LAYER = 128  # torch calls, to make and initialize one layer: a convolution takes two dozen
_BARE = (nn.Identity, nn.Sequential, nn.ModuleList, nn.ModuleDict)
_SIZES = ("in_features", "out_features", "in_channels", "out_channels", "num_features", "num_parameters")


class _Bounded(TorchFunctionMode):
    """Allows at most `calls` torch calls in this thread, so that building a network of unknown size ends."""

    def __init__(self, calls: int):
        super().__init__()
        self.calls = calls

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.calls -= 1
        if self.calls < 0:
            raise ValueError("it has more layers than the file")
        return function(*args, **(kwargs or {}))


@lru_cache(maxsize=32)
def skeleton(spec: str, count: int) -> nn.Module:
    """Return the network that `spec` names, of about `count` layers at most, on the meta device.

    It is shared by all callers and must not be changed. Raises `ValueError` for a network that does not exist or is
    larger.
    """
    try:
        with torch.device("meta"), _Bounded(CALLS_PER_LAYER * (count + 4)):
            return networks.build(spec)
    except (ArithmeticError, RuntimeError, TypeError) as error:
        raise ValueError(f"{spec!r} cannot be built: {error}") from error


class Described(NamedTuple):
    """What the output of a module depends on besides its tensors and the modules inside it."""

    path: str
    kind: str
    shown: str  # its `extra_repr`, which may show what its attributes do not
    attributes: tuple[tuple[str, str], ...]


def unchanged(model: nn.Module, named: nn.Module) -> bool:
    """Return whether `model` computes as `named`, a network of this package, does, up to the values of its tensors.

    Attributes that were added to it later do not count, as no forward of this package reads them.
    """
    ours = described(model)
    theirs = described(named)
    return (
        not own_code(model)
        and len(ours) == len(theirs)
        and all(
            mine[:3] == other[:3] and set(mine.attributes) >= set(other.attributes)
            for mine, other in zip(ours, theirs, strict=True)
        )
    )


def checksums(model: nn.Module) -> tuple[int, int]:
    """Return the checksum (CRC-32) of what no part of a file tells of a network: with its hooks, and without.

    The second leaves out forward hooks and forwards set on modules: a file of a network without them can also be loaded
    into one that has them, where they stay.
    """
    found = [tuple(module) for module in described(model)]
    bare = zlib.crc32(repr(found).encode())
    return (zlib.crc32(repr(own_code(model)).encode(), bare) if own_code(model) else bare), bare


def described(model: nn.Module) -> list[Described]:
    """Return for each module what a file leaves out.

    Left out are forms and blocks with all that is inside them and layers that are rebuilt, whose settings the file
    holds, and what has none: identities and torch's own containers, also those that folding left of a batch norm.
    """
    return [
        Described(path, type(module).__qualname__, *_settings(module))
        for path, module in outside_forms(model, Block)
        if not isinstance(module, (Form, Block)) and not layers.is_made(module) and type(module) not in _BARE
    ]


def is_as_arranged(block: Block) -> bool:
    """Return whether the modules of `block` are those that its settings make, up to values and compressed layers."""
    made = layers.empty_block(type(block).__name__, block.geometry, block.settings())
    inside, wanted = ([described(child) for child in part.children()] for part in (block, made))
    return inside == wanted and list(block._modules) == list(made._modules)


def _settings(module: nn.Module) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return what a module prints of itself, and its attributes; without sizes, where their number may differ.

    Nothing of dropout counts: it acts in training alone, and iterative pruning lowers its rate.
    """
    if isinstance(module, _DropoutNd):
        return "", ()
    resizable = isinstance(module, fitting.RESIZABLE)
    left_out = (*OTHERS, *_SIZES) if resizable else OTHERS
    return "" if resizable else module.extra_repr(), plain_attributes(module, left_out)
