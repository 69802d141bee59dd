"""The survey's baseline networks, small enough for a CPU, built from a spec such as "lenet5(width=0.5)"."""

import inspect
from collections.abc import Callable

import torch
from torch import nn

from compedu.networks.inception import inception
from compedu.networks.lenet5 import lenet5
from compedu.networks.lenet300 import lenet300
from compedu.networks.mobilenet import mobilenet
from compedu.networks.resnet import resnet
from compedu.networks.vgg import vgg
from compedu.networks.vit import vit
from compedu.reproducible import seeded
from compedu.specs import parse, text

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    make.__name__: make for make in (lenet300, lenet5, vgg, resnet, inception, mobilenet, vit)
}
# upper limits of knobs, far beyond what these networks need, yet built within a second
MOST = 99_999
MOST_BLOCKS = 100
MOST_WEIGHTS = 2**28  # a gigabyte in single precision


def build(spec: str, *, seed: int = 0, **defaults) -> nn.Module:
    """Return a freshly initialized network from its `spec`, "name" or "name(knob=value, ...)"; `seed` sets the weights.

    `defaults` fill knobs that the spec leaves open. The network carries its complete spec as `model.spec`. Raises
    `ValueError` for a name or knob that does not exist, for a value that is not positive, and, before anything is
    allocated, for a network that is too large.
    """
    name, given = parse(spec)
    if name not in NETWORKS:
        raise ValueError(f"no network is called {name!r}; there are: {', '.join(NETWORKS)}")
    known = inspect.signature(NETWORKS[name]).parameters
    for knob, value in given.items():
        if knob not in known:
            raise ValueError(f"{name} has no knob {knob!r}; it has: {', '.join(known)}")
        whole = isinstance(known[knob].default, int)
        most = MOST_BLOCKS if knob == "blocks" else MOST
        if type(value) not in ((int,) if whole else (int, float)) or not 0 < value <= most:
            kind = "whole number" if whole else "number"
            raise ValueError(f"{name}.{knob} must be a positive {kind}, got {value!r}; the largest is {most}")
    values = (
        {knob: parameter.default for knob, parameter in known.items()}
        | {knob: value for knob, value in defaults.items() if knob in known}
        | given
    )
    with torch.device("meta"):
        weights = sum(parameter.numel() for parameter in NETWORKS[name](**values).parameters())
    if weights > MOST_WEIGHTS:
        raise ValueError(f"{text(name, values)} has {weights:,} weights; at most {MOST_WEIGHTS:,} are built")
    with seeded(seed):
        model = NETWORKS[name](**values)
    model.spec = text(name, values)
    return model.eval()
