"""Trying a loaded network on an image: how much each operation gives is known before it runs, and bounded."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compedu.specs import image_of, parse

aten = torch.ops.aten
CONVOLUTION = aten.convolution.default
# They give what they get: asking what else they give would take most of the time.
AS_MANY = {aten.relu.default, aten.gelu.default, aten.native_batch_norm.default, aten.native_layer_norm.default}


class TooMuch(Exception):
    """An operation of a trial takes more `numbers` than are allowed; it did not run."""

    def __init__(self, numbers: int):
        super().__init__(f"an operation takes {numbers:,} numbers")
        self.numbers = numbers


class Counted(TorchDispatchMode):
    """Counts how many numbers each operation of this thread takes, before it runs; `most` is the largest count.

    They are what the operation gives or, of a convolution, its unfolded input if that is more. Raises `TooMuch` for
    more than `allowed`.
    """

    def __init__(self, allowed: float):
        super().__init__()
        self.allowed = allowed
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in AS_MANY:
            return func(*args, **kwargs)
        try:
            made = _without_values(func, args, kwargs)
        except Exception:  # an operation whose result depends on values, or whose arguments do not fit: it raises below
            made = None
        self.count(_numbers(func, args, made))
        given = func(*args, **kwargs)
        if made is None:
            self.count(_numbers(func, args, given))
        return given

    def count(self, numbers: int) -> None:
        """Take note of an operation of so many `numbers`, or raise `TooMuch`."""
        self.most = max(self.most, numbers)
        if numbers > self.allowed:
            raise TooMuch(numbers)


def take_image(model: nn.Module, allowed: float = math.inf) -> None:
    """Run a network of this package on one black image; raise what its layers raise, and as `Counted` does."""
    spec = cast(str, model.spec)
    kind = next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), torch.float32)
    with torch.no_grad(), Counted(allowed):
        logits = model(torch.zeros(1, *image_of(spec), dtype=kind))
    if logits.shape != (1, parse(spec)[1]["classes"]):
        raise ValueError(f"its logits for one image have the shape {tuple(logits.shape)}")


def take_batch(model: nn.Module, example: Tensor, allowed: float) -> None:
    """Run `model` on the batch `example`; raise what it raises, and as `Counted` does."""
    with torch.no_grad(), Counted(allowed):
        model(example)


def most_numbers(model: nn.Module, example: Tensor) -> int:
    """Return how many numbers the largest operation of `model` takes on `example`, by running it."""
    with torch.no_grad(), Counted(math.inf) as counted:
        model(example)
    return counted.most


def _without_values(func: OpOverload, args: tuple, kwargs: dict) -> Any:
    """Return what `func` gives, as tensors that have only a shape."""

    def hollow(tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")

    args, kwargs = pytree.tree_map_only(Tensor, hollow, (args, kwargs))
    if any(argument.name == "device" for argument in func._schema.arguments):
        kwargs = kwargs | {"device": torch.device("meta")}
    return func(*args, **kwargs)


def _numbers(func: OpOverload, args: tuple, made: Any) -> int:
    given = sum(tensor.numel() for tensor in pytree.tree_leaves(made) if isinstance(tensor, Tensor))
    if func is CONVOLUTION and given:
        # Where no faster way is known, as in double precision, every window becomes a column of its own.
        weight = args[1]
        windows = made.numel() // made.shape[1]
        return max(given, weight[0].numel() * args[8] * windows)
    return given
