"""The Hessian of one layer's weights on some images: whole for small layers, row by row for larger ones.

Whole, it is the layer's block of the generalized Gauss-Newton matrix. If that is too large, each row of the weight (the
weights of one output) is treated separately with h A: A is the mean of x x^T over the inputs of the layer, the
layer-wise Hessian of Dong, Chen, Pan (2017, arXiv:1705.07565, section 3) and Frantar, Alistarh (2022,
arXiv:2208.11580, section 3), which does not depend on the loss; h brings all layers to one scale: it gives the layer's
Hessian the trace that it has in the generalized Gauss-Newton matrix. h is the same for all rows: that of a single row
would depend on the few images that the network is not sure of, and rows without any would lose everything.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from compedu.forms import Geometry
from compedu.methods.curvature import (
    Call,
    backward_signals,
    squared_gradients,
    weight_gradients,
)
from compedu.methods.input_moments import MomentSum, damped
from compedu.methods.pruning.shared.surgery import (
    damped_inverse,
    make_up_for,
    remove_greedily,
    surgeon_saliencies,
)

WHOLE = 1024  # weights of a layer up to which its Hessian is used whole
LONGEST = 2048  # weights of a row: inverting larger matrices takes too long


@dataclass(frozen=True, eq=False)
class WholeHessian:
    """The Hessian (n, n) of all n weights of a layer."""

    matrix: Tensor

    def flat(self, live: Tensor) -> bool:
        """Tell whether the loss does not depend on the weights that are `live`."""
        return not float(self.matrix.diagonal()[live.reshape(-1)].sum()) > 0

    def saliencies(self, weight: Tensor, live: Tensor, damping: float) -> Tensor:
        """Return L_q for each weight of `weight` where `live`, zero elsewhere; float64, of its shape."""
        places = live.reshape(-1)
        result = torch.zeros(weight.numel(), dtype=torch.float64)
        inverse = damped_inverse(self.matrix[places][:, places], damping)
        result[places] = surgeon_saliencies(weight.reshape(-1)[places].double(), inverse)
        return result.view(weight.shape)

    def operate(self, weight: Tensor, live: Tensor, wanted: Tensor, damping: float) -> tuple[Tensor, Tensor]:
        """Return the weight, and its mask, after as many of the `live` weights are pruned as `wanted` drops.

        They go one by one, each the cheapest at its time.
        """
        places = live.reshape(-1)
        values = torch.zeros(weight.numel(), dtype=torch.float64)
        inverse = damped_inverse(self.matrix[places][:, places], damping)
        left, kept = remove_greedily(weight.reshape(-1)[places].double(), inverse, int((live & ~wanted).sum()))
        values[places] = left
        mask = places.clone()
        mask[places] = kept
        return values.view(weight.shape), mask.view(weight.shape)


@dataclass(frozen=True, eq=False)
class RowHessians:
    """The Hessian h A of each row of a weight: `inputs` is A for each group (groups, n, n), `scale` is h."""

    inputs: Tensor
    scale: float
    diagonals: dict[float, Tensor] = field(default_factory=dict)  # of the inverse, at the last damping

    def flat(self, live: Tensor) -> bool:
        """Tell whether the loss does not depend on the layer, on a group of it, or on the `live` weights of a group."""
        diagonals = self.inputs.diagonal(dim1=1, dim2=2)
        read = live.reshape(len(self.inputs), -1, self.inputs.shape[-1]).any(1)
        parts = [diagonal[columns] for diagonal, columns in zip(diagonals, read, strict=True) if bool(columns.any())]
        return not min(self.scale, *(float(part.sum()) for part in (*diagonals, *parts))) > 0

    def saliencies(self, weight: Tensor, live: Tensor, damping: float) -> Tensor:
        """Return L_q for each weight of `weight` where `live`, zero elsewhere; float64, of its shape.

        Weights that are masked in one row count as present in the inverse, which all rows share.
        """
        groups = weight.reshape(len(self.inputs), -1, self.inputs.shape[-1]).double()
        found = self.scale * groups.square() / (2 * self.inverse_diagonals(damping)[:, None])
        return found.view(weight.shape) * live

    def inverse_diagonals(self, damping: float) -> Tensor:
        """Return the diagonal of the damped inverse of A for each group, (groups, n); found once while it is asked."""
        found = self.diagonals.get(damping)  # once: another thread may prune the same network
        if found is None:
            found = torch.stack([damped_inverse(matrix, damping).diagonal() for matrix in self.inputs])
            self.diagonals.clear()
            self.diagonals[damping] = found
        return found

    def operate(self, weight: Tensor, live: Tensor, wanted: Tensor, damping: float) -> tuple[Tensor, Tensor]:
        """Return the weight pruned to `wanted`, with the others compensating, and the resulting mask."""
        mask = live & wanted
        rows = weight.reshape(len(self.inputs), -1, self.inputs.shape[-1]).double()
        kept = mask.reshape(rows.shape)
        made = [
            make_up_for(group, damped(matrix, damping), here)
            for group, matrix, here in zip(rows, self.inputs, kept, strict=True)
        ]
        return torch.stack(made).view(weight.shape), mask


LayerHessian = WholeHessian | RowHessians


def too_large(layer: nn.Module) -> bool:
    """Tell whether `layer` is too large for both kinds of Hessian."""
    shape = Geometry.of(layer).shape
    return math.prod(shape) > WHOLE and math.prod(shape[1:]) > LONGEST


def hessian_bytes(layer: nn.Module) -> int:
    """Return how much memory the Hessian of `layer` takes."""
    geometry = Geometry.of(layer)
    weights = math.prod(geometry.shape)
    row = math.prod(geometry.shape[1:])
    return 8 * (weights**2 if weights <= WHOLE else geometry.groups * row**2)


def layer_hessians(model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor, y: Tensor) -> dict[str, LayerHessian]:
    """Return the Hessian, float64, of each of `layers` that images `x` (N, ...) with labels `y` reach.

    It is whole up to `WHOLE` weights; for larger layers it is that of the rows. Both take one backward pass per class.
    """
    sums: dict[str, _WholeSum | _RowSums] = {}
    for images, signals in backward_signals(model, layers, x, y, "gauss-newton", torch.Generator()):
        for name, calls in signals.items():
            if name not in sums:
                geometry = Geometry.of(layers[name])
                sums[name] = (_WholeSum if math.prod(geometry.shape) <= WHOLE else _RowSums)(geometry)
            sums[name].add(calls, images)
    return {name: sums[name].mean(len(x)) for name in layers if name in sums}


class _WholeSum:
    """Accumulates the outer products of the per-image gradients of a whole weight."""

    def __init__(self, geometry: Geometry):
        self.geometry = geometry
        self.total = 0

    def add(self, calls: list[Call], images: int) -> None:
        rows = weight_gradients(self.geometry, calls, images).flatten(1).double()
        self.total = self.total + rows.T @ rows

    def mean(self, images: int) -> WholeHessian:
        return WholeHessian(self.total / images)


class _RowSums:
    """Accumulates x x^T over the inputs of a layer, once per image, and the squared gradients of its weight."""

    def __init__(self, geometry: Geometry):
        self.geometry = geometry
        self.inputs = MomentSum(geometry)
        self.squares = 0.0
        self.seen: Tensor | None = None

    def add(self, calls: list[Call], images: int) -> None:
        self.squares += squared_gradients(self.geometry, calls, images).double().sum().item()
        if calls[0][0] is self.seen:
            return  # another direction of the same images
        self.seen = calls[0][0]
        for read, _ in calls:
            self.inputs.add(read)

    def mean(self, images: int) -> RowHessians:
        inputs = self.inputs.moments().second
        rows = self.geometry.shape[0] // len(inputs)  # of a group
        # h is the trace of the Gauss-Newton block over that of one A per row.
        read = rows * float(inputs.diagonal(dim1=1, dim2=2).sum())
        return RowHessians(inputs, self.squares / images / read if read else 0.0)
