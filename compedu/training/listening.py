"""Listeners of a training: they are called after every step, and cancel the training by raising."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace

from torch import nn


@dataclass(frozen=True)
class Step:
    """One finished step of training: its number, the number of steps, the loss of its batch, the network as it is."""

    done: int
    steps: int
    loss: float
    model: nn.Module


_listener: ContextVar[Callable[[Step], None] | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def listening(listener: Callable[[Step], None]) -> Iterator[None]:
    """Call `listener` after every training step inside the block; it cancels the training by raising `Cancelled`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextlib.contextmanager
def counted(before: int, steps: int) -> Iterator[None]:
    """Report a training inside the block as part of a longer one: `before` of `steps` were done when it began."""
    listener = _listener.get()
    if listener is None:
        yield
        return
    with listening(lambda step: listener(replace(step, done=before + step.done, steps=steps))):
        yield


def tell(step: Step) -> None:
    """Call the listener, if there is one."""
    if (listener := _listener.get()) is not None:
        listener(step)
