"""Checks of chapter 03: a quantizer, the gradient that passes straight through it, a file of 4 bits for each weight."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compedu import files
from compedu.course.answers import called, file_content, kind_of
from compedu.course.submitted import network_of, points_lost
from compedu.networks.shipped import trained

EIGHTH = 1 / 8  # of the dense file: 4 bits of 32; codes of 4 bits alone take it, and leave nothing for the scales
FLOATS = 0.4  # of the dense file: more than this has no file whose weights are codes of up to 8 bits
CHARACTERS = 1000  # newly drawn for each measurement of a file: mobilenet takes its time
CLOSE = 1e-4  # relative to the largest value: answers may compute in single precision, and in another order


def quantizer(function: Callable[[Tensor, int], Tensor], seed: int) -> str:
    """Check a function (weights, bits) -> the weights rounded to 2^bits - 1 levels, of which the largest is one."""
    for weights, bits in _layers(np.random.default_rng(seed)):
        top = 2 ** (bits - 1) - 1
        scale = float(weights.abs().max()) / top
        given = _tensor(called(function, weights.clone(), bits), weights, f"{bits} bits")
        told = f"{tuple(weights.shape)} weights at {bits} bits: "
        largest = weights.abs().argmax()
        kept = float(given.reshape(-1)[largest] - weights.reshape(-1)[largest])
        assert abs(kept) <= CLOSE * top * scale, (
            f"{told}the weight of largest absolute value is {weights.reshape(-1)[largest]:.4g} and becomes "
            f"{given.reshape(-1)[largest]:.4g}. It should be a level itself: which code does it get, and what is the "
            "scale then?"
        )
        codes = given / scale
        assert float((codes - codes.round()).abs().max()) <= CLOSE * top, (
            f"{told}your values are not whole multiples of one scale, {scale:.4g}. It serves the whole tensor, and "
            "zero is a level"
        )
        assert float(codes.abs().max()) <= top + CLOSE * top, (
            f"{told}you use the code {float(codes.abs().max()):.0f}; {bits} bits allow -{top} to {top}"
        )
        far = float((given - weights).abs().max()) / scale
        assert far <= 0.5 + CLOSE * top, (
            f"{told}a weight moves by {far:.2f} scales; to the nearest level it would move by at most a half"
        )
    return "one scale for all, zero is a level, no weight moves by more than half of it"


def _layers(rng: np.random.Generator) -> list[tuple[Tensor, int]]:
    """Return weights and bits: of several shapes, with the largest weight on either side, without ties."""
    found = []
    for shape, bits, sign in (((7,), 3, 1), ((4, 6), 2, -1), ((3, 2, 3, 3), 4, -1), ((5, 8), 8, 1), ((40,), 5, -1)):
        weights = rng.normal(0, rng.uniform(0.05, 2.0), shape)
        flat = weights.reshape(-1)
        flat[rng.integers(len(flat))] = sign * 1.3 * np.abs(flat).max()
        scale = np.abs(flat).max() / (2 ** (bits - 1) - 1)
        parts = flat / scale - np.floor(flat / scale)
        flat[np.abs(parts - 0.5) < 0.02] += 0.05 * scale  # away from the middle between two levels
        found.append((torch.from_numpy(weights.astype(np.float32)), bits))
    return found


def straight_through(function: Callable[[Tensor, float, int], Any], seed: int) -> str:
    """Check a function (x, scale, top) -> values rounded to codes -top..top, and their straight-through gradient."""
    rng = np.random.default_rng(seed)
    for top in (1, 3, 7):
        scale = float(rng.uniform(0.05, 3.0))
        # Inside, exactly on the last level, beyond it but still rounded to it, and clipped; on both sides.
        ends = np.array([top, top + 0.4, top + 0.6, top + 5.0])
        x = np.concatenate([rng.uniform(-top - 0.4, top + 0.4, 9), ends, -ends, [0.0]])
        x = x[np.abs(x - np.floor(x) - 0.5) > 0.02]
        given = torch.from_numpy((x * scale).astype(np.float32))
        answer = called(function, given.clone(), scale, top)
        assert isinstance(answer, (tuple, list)) and len(answer) == 2, (
            f"return two tensors, the values and the gradient, not a {kind_of(answer)}"
        )
        values, gradient = (_tensor(one, given, name) for one, name in zip(answer, ("values", "gradient"), strict=True))
        codes = torch.round(given / scale)
        wanted = codes.clamp(-top, top) * scale
        places = given / scale
        where = f"top {top}: at x / scale = {{:.2f}} your"
        _compare(values, wanted, places, f"{where} value is {{:.4g}}, not {{:.4g}}")
        hint = "It is 1 where x is rounded and 0 where it is clipped; what is rounded to the last code is not clipped"
        _compare(gradient, (codes.abs() <= top).float(), places, f"{where} gradient is {{:.4g}}. {hint}")
    return "the rounding passes the gradient, the clipping does not"


def _tensor(answer: Any, given: Tensor, name: str) -> Tensor:
    """Return an answer as a tensor of the shape of `given`, float64, or raise an `AssertionError` with a hint."""
    assert isinstance(answer, (Tensor, np.ndarray, list, tuple)), (
        f"{name}: return a tensor of the same shape, not a {kind_of(answer)}"
    )
    made = torch.as_tensor(answer).detach()
    assert not made.is_complex(), f"{name}: return real numbers"
    made = made.double()
    assert made.shape == given.shape, f"{name}: {tuple(given.shape)} were given, you return {tuple(made.shape)}"
    assert bool(made.isfinite().all()), f"{name}: not all of your numbers are finite"
    return made


def _compare(found: Tensor, wanted: Tensor, places: Tensor, hint: str) -> None:
    """Raise an `AssertionError` with a hint, filled with place, found and wanted value, where an answer is off."""
    off = (found - wanted.double()).abs()
    worst = int(off.argmax())
    within = CLOSE * max(1.0, float(wanted.abs().max()))
    assert float(off[worst]) <= within, hint.format(*(float(one[worst]) for one in (places, found, wanted)))


def four_bits(answer: str, seed: int) -> str:
    """Check a file of mobilenet for glyphs: at most an eighth of the dense bytes, one point lost on new characters."""
    path, content = file_content(answer)
    share = len(content) / len(files.model_bytes(trained("mobilenet", "glyphs")))
    small = network_of(path, content, "mobilenet")
    told = f"the file has {share:.1%} of the dense network's bytes, allowed are {EIGHTH:.1%}"
    assert share <= FLOATS, (
        f"{told}. Are its weights stored as numbers of 32 bits, though rounded? A layer that holds codes writes codes: "
        "save the network that the method returns"
    )
    assert share <= EIGHTH, (
        f"{told}: 4 bits for each weight, with everything else that the file holds. ce.files.inspect shows what that "
        "is. Which layers can do with fewer bits? And do all codes occur equally often?"
    )
    lost = points_lost(small, "mobilenet", seed, CHARACTERS)
    assert lost <= 1, (
        f"the file is small enough ({share:.1%}), but loses {lost:.1f} points on new characters; allowed is 1. How "
        "different are the ranges of the filters that share a scale? Which layers suffer most from fewer bits?"
    )
    return f"{share:.1%} of the bytes, {lost:.1f} points lost on new characters"


CHECKS = (quantizer, straight_through, four_bits)
