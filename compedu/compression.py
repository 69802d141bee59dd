"""The record of how a model came to be: the steps, the layers that they left, the channels that they took out."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Skipped:
    """A layer that a step left as it was, and why."""

    step: str
    layer: str
    reason: str


@dataclass(frozen=True)
class Removed:
    """Channels that a step took out of a group of coupled ones, numbered as in the network that the step was given."""

    step: str
    group: str
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Compression:
    """How a model came to be: the `repr` of each step, layers that steps could not handle, channels taken out."""

    steps: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    removed: tuple[Removed, ...] = ()


def compression_of(model: nn.Module) -> Compression:
    """Return how `model` came to be; empty for a network that no method has touched."""
    return getattr(model, "compression", Compression())
