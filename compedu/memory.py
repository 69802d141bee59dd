"""Memory that is no longer used, given back to the system."""

import ctypes
import ctypes.util
import gc
import sys


def give_back() -> None:
    """Collect unreachable objects, and return freed memory to the system, which glibc otherwise keeps for later."""
    gc.collect()
    if sys.platform != "linux":
        return
    library = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(library), "malloc_trim", None) if library else None
    if trim is not None:  # other C libraries, such as musl, have none
        trim(0)
