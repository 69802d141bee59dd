"""Moments of the inputs of a layer: E[x x^T] and E[x] over images and kernel positions.

The squared output error of a change of the weight is a quadratic form in E[x x^T]: this is all that Optimal Brain
Surgeon, GPTQ, AdaRound and data-aware factorizations use of the images.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError, Skip
from compedu.evaluation import logits_of
from compedu.forms import Geometry, precise
from compedu.forms.form import input_of
from compedu.methods.calibration import calibration_set
from compedu.methods.hooks import hooked

BATCH = 64  # images that run at once
COLUMNS = 2**22  # values of the im2col columns that are held at once: with the batch size it bounds the memory
LARGEST = 2**29  # bytes of the moments of one layer
UNREACHED = "no calibration image reaches it"


@dataclass(frozen=True, eq=False)
class InputMoments:
    """Moments of the vectors x that the rows of a weight are multiplied by, float64.

    `second` is E[x x^T], (groups, n, n), `mean` is E[x], (groups, n), for the n = in / groups * height * width weights
    of a row in the order of `weight.flatten(1)`; `count` is the number of vectors: images times positions. A linear
    layer has one group.
    """

    second: Tensor
    mean: Tensor
    count: int

    def rows(self, weight: Tensor) -> Tensor:
        """Return `weight` as the rows of each group, (groups, rows, n), which go with `second[group]`."""
        return weight.reshape(len(self.second), -1, self.second.shape[-1])

    def output_error(self, change: Tensor) -> float:
        """Return E[||change x||^2], summed over the outputs, for a `change` of the weight, of the weight's shape."""
        return float(self.row_errors(self.rows(change)).sum())

    def row_errors(self, changes: Tensor) -> Tensor:
        """Return E[(d^T x)^2] for each change d of a row, (groups, rows), of `changes` (groups, rows, n)."""
        changes = changes.double()
        return ((changes @ self.second) * changes).sum(2)  # d^T E[x x^T] d


def damped(matrices: Tensor, damping: float) -> Tensor:
    """Return A + damping m I for each of `matrices` A (..., n, n): m is the mean of its diagonal, or 1 if that is 0.

    >>> damped(torch.tensor([[2.0, 1.0], [1.0, 4.0]]), 0.5).tolist()
    [[3.5, 1.0], [1.0, 5.5]]
    """
    result = matrices.clone()
    diagonal = result.diagonal(dim1=-2, dim2=-1)
    mean = diagonal.mean(-1, keepdim=True)
    diagonal += damping * torch.where(mean == 0, torch.ones_like(mean), mean)
    return result


class MomentSum:
    """Accumulates the moments of the inputs of a layer of `geometry`."""

    def __init__(self, geometry: Geometry):
        self.geometry = geometry
        self.second: Tensor | int = 0
        self.total: Tensor | int = 0
        self.count = 0

    def add(self, read: Tensor) -> None:
        """Add the inputs of one call, (M, in) or (M, in, height, width)."""
        joined = input_columns(self.geometry, read).permute(1, 2, 0, 3).flatten(2)  # (groups, n, images x positions)
        joined = joined.double()  # in single precision a lightly damped sum would not be positive definite
        self.second += joined @ joined.mT  # a number at first, then in place
        self.total += joined.sum(2)
        self.count += joined.shape[-1]

    def moments(self) -> InputMoments:
        """Return the moments of all inputs that were added."""
        return InputMoments(self.second / self.count, self.total / self.count, self.count)


def input_columns(geometry: Geometry, read: Tensor) -> Tensor:
    """Return the inputs at each position of a layer (im2col), (M, groups, inputs of a group, positions)."""
    if geometry.kind == "linear":
        return read.reshape(len(read), 1, -1, read.shape[-1]).mT
    columns = F.unfold(read, geometry.shape[2:], geometry.dilation, geometry.padding, geometry.stride)
    return columns.reshape(len(read), geometry.groups, -1, columns.shape[-1])


def input_moments(model: nn.Module, name: str, layer: nn.Module, data: Dataset, images: int) -> InputMoments:
    """Return the moments of the inputs of `layer`, called `name` in `model`, for at most `images` training images.

    They are evenly spaced, and pass through the network as it is now, batch by batch, so that memory is bounded. Raises
    `Skip` for a layer that no image reaches, or whose moments would take too much memory, and
    `CompressionError` for inputs that are not finite.
    """
    geometry = Geometry.of(layer)
    if reason := moments_too_large(geometry):
        raise Skip(reason)
    total = MomentSum(geometry)

    def add(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for read in portions(geometry, input_of(layer, inputs[0])):
            total.add(read)

    with hooked({name: layer}, before=add):
        run(model, data, images)
    if total.count == 0:
        raise Skip(UNREACHED)
    moments = total.moments()
    if not bool(moments.second.isfinite().all()):
        raise CompressionError(
            f"layer {name!r} reads values that are not finite, or too large to be squared, on the images of "
            f"{data.name!r}: look for an operation before it that grows without bound or divides by zero"
        )
    return moments


def moments_too_large(geometry: Geometry) -> str:
    """Say why the moments of the inputs of a layer would take too much memory, "" if they do not."""
    needed = 8 * geometry.groups * math.prod(geometry.shape[1:]) ** 2
    if needed <= LARGEST:
        return ""
    return f"the moments of its inputs would take {needed / 2**20:.0f} MiB, more than {LARGEST / 2**20:.0f}"


def portions(geometry: Geometry, read: Tensor) -> Iterator[Tensor]:
    """Yield the inputs of one call in parts whose columns have at most `COLUMNS` values, or of one image."""
    unbatched = 1 if geometry.kind == "linear" else 3
    read = precise(read if read.ndim > unbatched else read[None])
    places = math.prod(read.shape[1:]) * (1 if geometry.kind == "linear" else math.prod(geometry.shape[2:]))
    yield from read.split(max(1, COLUMNS // places))


def in_order_of_execution(
    model: nn.Module, layers: Mapping[str, nn.Module], data: Dataset, images: int
) -> dict[str, nn.Module]:
    """Return `layers` in the order in which at most `images` training images reach them; the others come last."""
    reached: dict[str, nn.Module] = {}

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        reached.setdefault(name, layer)

    with hooked(layers, before=note):
        run(model, data, images)
    return reached | dict(layers)


@torch.inference_mode()
def run(model: nn.Module, data: Dataset, images: int) -> None:
    """Run `model` over at most `images` training images, evenly spaced, batch by batch."""
    for batch in calibration_set(data, images)[0].split(BATCH):
        logits_of(model, batch, data)
