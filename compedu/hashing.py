"""Hashes: an integer hash of our own, for values that files rely on, and digests that identify weights and data."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

VERSION = 1  # part of every model file that relies on this hash


def mix(values: Tensor) -> Tensor:
    """Scramble int64 `values` of any shape with the 64-bit finalizer of MurmurHash3 (Appleby 2011); same shape back."""
    values = values ^ _shift_right(values, 33)
    values = values * -49064778989728563  # 0xFF51AFD7ED558CCD as a signed 64-bit integer
    values = values ^ _shift_right(values, 33)
    values = values * -4265267296055464877  # 0xC4CEB9FE1A85EC53
    return values ^ _shift_right(values, 33)


def _shift_right(values: Tensor, bits: int) -> Tensor:
    return (values >> bits) & ((1 << (64 - bits)) - 1)  # torch shifts int64 arithmetically; the mask makes it logical


def signs(count: int, seed: int) -> Tensor:
    """Return `count` pseudo-random signs, float32 of -1 and +1, the same on every machine for the same `seed`."""
    start = mix(torch.tensor(seed, dtype=torch.int64) + 0x9E3779B9)
    return 1.0 - 2.0 * (mix(torch.arange(count) + start) & 1).float()


def uniform(count: int, *seeds: int) -> Tensor:
    """Return `count` pseudo-random numbers of [0, 1), float64, the same on every machine for the same `seeds`."""
    start = torch.tensor(0, dtype=torch.int64)
    for seed in seeds:
        start = mix(start + seed + 0x9E3779B9)
    return _shift_right(mix(torch.arange(count) + start), 11).double() * 2.0**-53


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a hexadecimal digest of names, types, shapes and bytes of `tensors`: the identity of weights or data."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def model_digest(model: nn.Module) -> str:
    """Return the digest of all parameters and buffers of `model`."""
    return tensors_digest(model.state_dict())
