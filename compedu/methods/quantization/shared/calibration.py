"""Calibration: the range of the inputs of each layer on some training images."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.evaluation import logits_of
from compedu.methods.calibration import calibration_set
from compedu.methods.hooks import hooked

BATCH = 64
BINS = 2048  # of the histogram of each layer's inputs: a step of 8-bit codes is eight bins wide


def covering_range(counts: Tensor, low: float, high: float, coverage: float) -> tuple[float, float]:
    """Return the smallest range of whole bins that leaves out at most the share (1 - coverage) / 2 on either side.

    `counts` is a histogram (bins,) of equal bins over [low, high].

    >>> covering_range(torch.tensor([1.0, 0.0, 98.0, 1.0]), 0.0, 4.0, 0.98)
    (2.0, 3.0)
    """
    outside = counts.double().sum() * (1 - coverage) / 2 * (1 + 1e-9)  # a share that fits exactly may be clipped
    below = int((counts.double().cumsum(0) <= outside).sum())
    above = int((counts.double().flip(0).cumsum(0) <= outside).sum())
    width = (high - low) / len(counts)
    return low + below * width, high - above * width


def input_ranges(
    model: nn.Module, layers: Mapping[str, nn.Module], data: Dataset, images: int, coverage: float
) -> dict[str, tuple[float, float]]:
    """Return for each of `layers` the range of its inputs on at most `images` training images, evenly spaced.

    With `coverage` 1 it spans the smallest to the largest input; below 1 it is `covering_range` of a histogram.
    Layers that the images do not reach are left out. Raises `CompressionError` when images and network do not fit, and
    when a layer gets values that are not finite.
    """
    batches = calibration_set(data, images)[0].split(BATCH)
    ranges: dict[str, tuple[float, float]] = {}

    def widen(name: str, x: Tensor) -> None:
        low, high = map(float, x.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CompressionError(
                f"layer {name!r} gets values from {low} to {high} on the images of {data.name!r}; codes need finite "
                "ones: look for an operation before it that grows without bound or divides by zero"
            )
        before = ranges.get(name, (low, high))
        ranges[name] = min(before[0], low), max(before[1], high)

    watch(model, layers, data, batches, widen)
    if coverage == 1:
        return ranges
    counts = {name: torch.zeros(BINS, dtype=torch.float64) for name in ranges}  # float32 cannot count beyond 2^24

    def count(name: str, x: Tensor) -> None:
        counts[name] += torch.histc(x.float(), BINS, *ranges[name])

    watch(model, layers, data, batches, count)
    return {name: covering_range(counts[name], *ranges[name], coverage) for name in ranges}


def watch(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    data: Dataset,
    batches: tuple[Tensor, ...],
    note: Callable[[str, Tensor], None],
) -> None:
    """Run `model` over `batches` and call `note(name, input)` for each call of one of `layers`."""
    with hooked(layers, before=lambda name, layer, inputs: note(name, inputs[0])):
        for batch in batches:
            logits_of(model, batch, data)
