"""One worker thread: the newest request wins, older ones stop when they next check, `settle` waits for the last."""

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from compedu.memory import trim

Work = Callable[[Any, Callable[[], bool]], None]

PATIENCE_S = 30.0  # how long the end of the interpreter waits for a worker
# How long a worker waits for the next request; then its thread ends. Each living thread has a heap of its own in glibc,
# and the next one takes it over: so explorers at rest share one.
IDLE_S = 0.3
_alive: "weakref.WeakSet[Runner]" = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """End all workers: a thread that still computes during interpreter shutdown would crash it."""
    for runner in list(_alive):
        runner.close()
        thread = runner.thread  # one that ends by itself meanwhile takes its name away
        if thread is not None:
            thread.join(PATIENCE_S)


class Runner:
    """Runs `work(request, stale)` for the newest request only; `on_error(request, error, stale)` gets what it raises.

    `stale()` becomes true when a newer request arrives or the runner is cancelled: the work then stops by itself and
    publishes nothing more. With the environment variable COMPEDU_SYNC=1, `request` does the work before it returns,
    without a thread.
    """

    def __init__(self, work: Work, on_error: Callable[[Any, BaseException, Callable[[], bool]], None]):
        self._work = work
        self._on_error = on_error
        self._lock = threading.Condition()
        self._number = 0  # of the newest request; a worker whose number differs is stale
        self._waiting: tuple[int, Any] | None = None
        self._busy = False
        self.thread: threading.Thread | None = None
        self._closed = False
        _alive.add(self)

    def request(self, request: Any) -> None:
        """Submit `request`; it supersedes whatever is waiting or running."""
        with self._lock:
            if self._closed:
                return
            self._number += 1
            self._waiting = (self._number, request)
            self._lock.notify_all()
            at_once = os.environ.get("COMPEDU_SYNC") == "1"
            if not at_once and self.thread is None:
                self.thread = threading.Thread(target=self._loop, name="compedu explorer", daemon=True)
                self.thread.start()
        if at_once:
            self._take()

    def cancel(self) -> None:
        """Make whatever is waiting or running stale."""
        with self._lock:
            self._number += 1
            self._waiting = None
            self._lock.notify_all()

    def settle(self, timeout: float = 60.0) -> bool:
        """Wait until nothing is waiting or running; return False if that takes more than `timeout` seconds."""
        with self._lock:
            return self._lock.wait_for(lambda: self._waiting is None and not self._busy, timeout)

    def close(self) -> None:
        """Stop the worker permanently."""
        with self._lock:
            self._closed = True
        self.cancel()

    @property
    def pending(self) -> int:
        """How many requests are waiting or running: never more than two."""
        with self._lock:
            return (self._waiting is not None) + self._busy

    def _loop(self) -> None:
        while True:
            with self._lock:
                asked = self._lock.wait_for(lambda: self._waiting is not None or self._closed, IDLE_S)
                if self._closed or not asked:
                    self.thread = None  # under the lock: the next request starts another one
                    break
            self._take()
        trim()

    def _take(self) -> None:
        """Process the waiting request, if there still is one."""
        with self._lock:
            if self._waiting is None:
                return
            number, request = self._waiting
            self._waiting = None
            self._busy = True

        def stale() -> bool:
            return number != self._number

        try:
            self._work(request, stale)
        except Exception as error:
            if not stale():
                self._on_error(request, error, stale)
        finally:
            with self._lock:
                self._busy = False
                self._lock.notify_all()
