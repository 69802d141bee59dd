"""Random numbers that are the same on every machine and with every library version: hashed counters."""

import hashlib

import numpy as np
import torch

from compedu.hashing import mix

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as signed 64 bits: the odd step of SplitMix64 (Steele et al., 2014)


def uniforms(count: int, *name: object) -> np.ndarray:
    """Return `count` float64 numbers in [0, 1) of the stream called `name`; a longer stream begins like a shorter.

    Number i is the hash of start + i * step, so no stream depends on another, nor on the order in which they are drawn.
    """
    digest = hashlib.sha256("|".join(map(str, name)).encode()).digest()
    start = int.from_bytes(digest[:8], "little", signed=True)
    hashed = mix(torch.arange(count, dtype=torch.int64) * _GOLDEN + start).numpy().view(np.uint64)
    return (hashed >> np.uint64(11)) * 2.0**-53


def permutation(count: int, *name: object) -> np.ndarray:
    """Return the numbers 0..count-1 in the order of the stream called `name`."""
    return np.argsort(uniforms(count, *name), kind="stable")
