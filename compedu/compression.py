"""The record of how a model was made: the steps, the layers that they skipped, the channels that they removed."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Skipped:
    """A layer that a step left unchanged, and why."""

    step: str
    layer: str
    reason: str


@dataclass(frozen=True)
class Removed:
    """Channels that a step removed from a group of coupled layers, numbered as in the step's input network."""

    step: str
    group: str
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Compression:
    """How a model was made: the `repr` of each step, the layers that steps skipped, the channels that they removed."""

    steps: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    removed: tuple[Removed, ...] = ()


def compression_of(model: nn.Module) -> Compression:
    """Return how `model` was made; empty for a network that no method has touched."""
    return getattr(model, "compression", Compression())
