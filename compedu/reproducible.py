"""What a result depends on beside its inputs: where the streams of random numbers stand, how many threads compute."""

import contextlib
import random
import threading
from collections.abc import Iterator

import numpy as np
import torch

_alone = threading.RLock()  # the streams are one for the process: two blocks at once would draw from each other's


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let everything inside the block that draws random numbers on the CPU draw them by `seed` alone.

    Dropout as a module or a function, stochastic depth, a `torch.rand` in a network's own forward pass draw from
    torch's stream, some networks from those of NumPy and Python. All three stand afterwards where they stood before.
    """
    with _alone:
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


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute on `count` threads inside the block: the order in which it sums hangs on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
