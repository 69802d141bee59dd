"""Worker processes: they end when their parent ends, and the parent reports when one of them was killed."""

import multiprocessing
import os
import threading
import time

KILLED = "a worker process was killed, from outside or by the system because memory ran out: try fewer workers"


def end_with_parent() -> None:
    """Let this worker process end when its parent has ended: a killed parent cannot tell its workers.

    It checks once a second whether its parent has changed, as that of an orphan does everywhere but on Windows.
    """
    parent = multiprocessing.parent_process().pid

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, name="compedu worker", daemon=True).start()
