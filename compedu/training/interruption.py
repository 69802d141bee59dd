"""Ctrl-C and SIGTERM take effect between two steps, where the state of a training is consistent."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def interrupt_between_steps() -> Iterator[Callable[[], None]]:
    """Hold back Ctrl-C (SIGINT) and SIGTERM inside the block; the yielded function raises them as `KeyboardInterrupt`.

    Call it where the state is consistent.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # signals reach the main thread only
        return
    received: list[int] = []
    before = {
        ending: signal.signal(ending, lambda number, frame: received.append(number))
        for ending in (signal.SIGINT, signal.SIGTERM)
    }

    def raise_if_received() -> None:
        if received:
            raise KeyboardInterrupt

    try:
        yield raise_if_received
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)
