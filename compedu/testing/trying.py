"""A method as the laws try it: short, with every knob moved, on the networks that it takes."""

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor, nn

from compedu import hashing
from compedu.errors import CompressionError, MeaningChanged
from compedu.knobs import LARGEST, Knob, knobs
from compedu.methods import Method
from compedu.testing.networks import NETWORKS, data, normalized, plain

QUICK = {"epochs": 1, "calibration_images": 16, "steps": 10}  # knobs that decide how long a call takes
LONG = ("epochs", "rounds", "steps")  # the longest call that these allow never ends


def quick(cls: type[Method], **given) -> Method:
    """The method with its defaults, or with what it declares to be tried with, but short."""
    return cls(**{name: value for name, value in QUICK.items() if name in knobs(cls)} | cls.tried_with | given)


def points(declared: Knob) -> list:
    """Two legal values beside the default: the ends of what is worth showing."""
    spread = [value for value in declared.points() if value != declared.default]
    return spread[:: max(1, len(spread) - 1)][:2]


def ends(declared: Knob) -> list:
    """The legal values at the ends of a knob's range; where a fraction has none, the ends of what a float can be."""
    if declared.choices or declared.type not in (int, float):
        return []
    tried = (declared.low, declared.high, 5e-324, 1 - 2**-53, 2**70, 1.7976931348623157e308, LARGEST)
    return list({repr(value): value for value in tried if declared.allows(value)}.values())


def variants(cls: type[Method]) -> Iterator[Method]:
    """The quick method, and each of its knobs moved; knobs that cost time stay."""
    yield quick(cls)
    for name, declared in knobs(cls).items():
        for value in () if name in QUICK else points(declared):
            yield quick(cls, **{name: value})


@cache
def compressed(method: Method, make: Callable[[], nn.Module] = plain) -> nn.Module | None:
    """What `method` makes of a network, or None where it refuses, by name; not to be changed."""
    try:
        return method(make(), data())
    except CompressionError as refusal:
        assert type(method).__name__ in str(refusal) and not isinstance(refusal, MeaningChanged), refusal
        return None


def suited(cls: type[Method]) -> tuple[Callable[[], nn.Module], ...]:
    """The networks that the laws try `cls` on: those of `NETWORKS` that it takes.

    It takes a convolutional network, one without batch norms too unless it declares that it needs some.
    """
    found = tuple(make for make in NETWORKS if compressed(quick(cls), make) is not None)
    assert normalized in found and (plain in found) != cls.needs_batch_norm
    return found


def logits(model: nn.Module) -> Tensor:
    """The scores of the validation images."""
    with torch.inference_mode():
        return model.eval()(data().x_validation)


def state(model: nn.Module) -> dict:
    """All that a careless method could change of a model: tensors, modes, attributes, hooks."""
    return {
        "tensors": hashing.model_digest(model),
        "gradients": [(name, p.requires_grad, p.grad) for name, p in model.named_parameters()],
        "modules": [(name, type(m), m.training, sorted(m.__dict__)) for name, m in model.named_modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
    }


@contextlib.contextmanager
def refused(kind: type[Exception], pattern: str = "") -> Iterator[list[str]]:
    """Assert that the block raises `kind` with a message in which `pattern` is found; the yielded list gets it."""
    messages: list[str] = []
    try:
        yield messages
    except kind as error:
        assert re.search(pattern, str(error)), f"{pattern!r} is not in {str(error)!r}"
        messages.append(str(error))
    assert messages, f"nothing raised {kind.__name__}"
