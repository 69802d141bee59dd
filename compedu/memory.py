"""Memory that is no longer used, given back to the system."""

import ctypes
import ctypes.util
import functools
import gc
import sys
from collections.abc import Callable


def give_back() -> None:
    """Collect unreachable objects, and return freed memory to the system, which glibc otherwise keeps for later."""
    gc.collect()
    trim()


def trim() -> None:
    """Return freed memory to the system."""
    call = _malloc_trim()
    if call is not None:
        call(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's function; None on other systems and with other C libraries, such as musl."""
    library = ctypes.util.find_library("c") if sys.platform == "linux" else None
    return getattr(ctypes.CDLL(library), "malloc_trim", None) if library else None
