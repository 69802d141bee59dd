"""What a network is beside its numbers: which one its spec names, and the modules that hold no numbers."""

import zlib
from functools import lru_cache

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from compedu import networks
from compedu.files import layers
from compedu.forms import Form
from compedu.specs import parse

CALLS_PER_LAYER = 128  # torch calls, to make and initialise one layer: a convolution takes two dozen


class _Bounded(TorchFunctionMode):
    """Lets at most `calls` torch calls of this thread pass, so that building a network of unknown size has an end."""

    def __init__(self, calls: int):
        super().__init__()
        self.calls = calls

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.calls -= 1
        if self.calls < 0:
            raise ValueError("it has more layers than are there to fill it")
        return function(*args, **(kwargs or {}))


@lru_cache(maxsize=32)
def skeleton(spec: str, count: int) -> nn.Module:
    """Return the network that `spec` names, of about `count` layers at most, without memory for its numbers.

    It is shared by all callers and not to be changed. Raises `ValueError` for a network that does not exist or is
    larger.
    """
    try:
        with torch.device("meta"), _Bounded(CALLS_PER_LAYER * (count + 4)):
            return networks.build(spec)
    except (ArithmeticError, RuntimeError, TypeError) as error:
        raise ValueError(f"{spec!r} cannot be built: {error}") from error


def weightless(model: nn.Module) -> list[tuple[str, str]]:
    """Return path and description of each module that computes without numbers or modules of its own.

    Identities are left out, and what stands inside a form: both are in the file.
    """
    found, forms = [], []
    for path, module in model.named_modules():
        if isinstance(module, Form):
            forms.append(f"{path}." if path else "")
        elif (
            not any(module._modules.values()) and not layers.own_tensors(module) and type(module) is not nn.Identity
            and not any(path.startswith(form) for form in forms)
        ):
            found.append((path, f"{type(module).__name__}({module.extra_repr()})"))
    return found


def checksum(model: nn.Module) -> int:
    """Return a checksum (CRC-32) of `weightless(model)`."""
    return zlib.crc32(repr(weightless(model)).encode())


def image_of(spec: str) -> tuple[int, int, int]:
    """Return channels, height and width of the images that a network is built for, from its complete spec."""
    sizes = parse(spec)[1]
    return sizes["channels"], sizes["size"], sizes["size"]


def take_image(model: nn.Module) -> None:
    """Run a network of this package on one black image; raise whatever its layers raise."""
    kind = next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), torch.float32)
    with torch.no_grad():
        scores = model(torch.zeros(1, *image_of(model.spec), dtype=kind))
    if scores.shape != (1, parse(model.spec)[1]["classes"]):
        raise ValueError(f"its scores of one image have the shape {tuple(scores.shape)}")
