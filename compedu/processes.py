"""Processes that work for another one: they end when it ends, and it says so when one of them was killed."""

import multiprocessing
import os
import threading
import time

KILLED = "a worker process was killed, from outside or by the system because memory ran out: try fewer workers"


def end_with_parent() -> None:
    """Let this worker process end when the one that started it has ended: a killed process cannot tell its workers.

    It looks once a second for another parent, which the system gives an orphan everywhere but on Windows.
    """
    parent = multiprocessing.parent_process().pid

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, name="compedu worker", daemon=True).start()
