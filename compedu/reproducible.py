"""What a result depends on besides its inputs: the state of the random streams, and the number of threads."""

import contextlib
import random
import threading
from collections.abc import Iterator
from hashlib import sha256

import numpy as np
import torch

_one_at_a_time = threading.RLock()  # the streams belong to the process: two blocks at once would share them
_counting = threading.RLock()
_counts: list[int] = []  # torch's threads outside all blocks of `torch_threads`, then in each one that is open


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed all random numbers that are drawn on the CPU inside the block.

    Dropout as a module or a function, stochastic depth, a `torch.rand` in a network's own forward pass draw from
    torch's stream, some networks from those of NumPy and Python. All three are restored afterwards.
    """
    with _one_at_a_time:
        before = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
        try:
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
        finally:
            torch.random.set_rng_state(before[0])
            np.random.set_state(before[1])
            random.setstate(before[2])


def seed_apart(seed: int, purpose: str) -> int:
    """Return another seed, from 0 to 2^31 - 1, for draws with a `purpose` that must not repeat those of `seed` itself.

    >>> seed_apart(0, "first") == seed_apart(0, "second")
    False
    """
    return int.from_bytes(sha256(f"{seed} {purpose}".encode()).digest()[:4], "big") >> 1


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute on `count` threads inside the block: the order in which it sums depends on their number.

    Torch keeps a number for each Python thread, and one for the process, which new threads inherit. However the blocks
    of several threads interleave, the last one to close sets both to what they were before the first one. Each block
    has to close in the thread that opened it, the inner ones of a thread first.
    """
    with _counting:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        _counts.extend([count] if _counts else [before, count])
    try:
        yield
    finally:
        with _counting:
            del _counts[len(_counts) - 1 - _counts[::-1].index(count)]
            _leave(before)


def _leave(before: int) -> None:
    """Restore the number of this thread to `before`, and that of the process to the one that other blocks need."""
    if len(_counts) == 1:
        torch.set_num_threads(_counts.pop())
        return
    torch.set_num_threads(before)
    if _counts[-1] != before:  # a block of another thread is open; set from here, its number would be ours as well
        other = threading.Thread(target=torch.set_num_threads, args=(_counts[-1],))
        other.start()
        other.join()
