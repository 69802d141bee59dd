"""The Hessian of one layer's weights on some images: whole for small layers, factored and row by row for larger ones.

Whole, it is the layer's block of the generalized Gauss-Newton matrix. Where that is too large, each row of the kernel
(the weights of one output) is taken for itself with h A: A the mean of x x^T over what the layer reads, the
layer-wise Hessian of Dong, Chen, Pan (2017, arXiv:1705.07565, section 3) and Frantar, Alistarh (2022,
arXiv:2208.11580, section 3), which knows nothing of the loss; h brings all layers to one scale: with it the second
derivatives along all weights of the layer have the sum that they have in the generalized Gauss-Newton matrix. h is the
same for all rows: that of a single row hangs on the few images that the network is not sure of, and rows that these
leave alone would lose everything.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compedu.forms import Geometry
from compedu.methods.input_moments import MomentSum
from compedu.methods.pruning.shared.curvature import (
    Call,
    backward_signals,
    squared_gradients,
    weight_gradients,
)
from compedu.methods.pruning.shared.surgery import (
    damped,
    damped_inverse,
    make_up_for,
    remove_greedily,
    surgeon_saliencies,
)

WHOLE = 1024  # weights of a layer up to which its Hessian is used whole
LONGEST = 2048  # weights of a row: the inverse for longer ones takes too long


@dataclass(frozen=True, eq=False)
class WholeHessian:
    """The Hessian (n, n) of all n weights of a layer's kernel."""

    matrix: Tensor

    def flat(self, live: Tensor) -> bool:
        """Tell whether the loss does not depend on the weights that are `live`."""
        return not float(self.matrix.diagonal()[live.reshape(-1)].sum()) > 0

    def saliencies(self, kernel: Tensor, live: Tensor, damping: float) -> Tensor:
        """Return L_q for each weight of `kernel` where `live`, zero elsewhere; float64, of its shape."""
        places = live.reshape(-1)
        result = torch.zeros(kernel.numel(), dtype=torch.float64)
        inverse = damped_inverse(self.matrix[places][:, places], damping)
        result[places] = surgeon_saliencies(kernel.reshape(-1)[places].double(), inverse)
        return result.view(kernel.shape)

    def operate(self, kernel: Tensor, live: Tensor, wanted: Tensor, damping: float) -> tuple[Tensor, Tensor]:
        """Return the kernel, and the mask of its weights, after as many of the `live` ones went as `wanted` drops.

        They go one after the other, each the cheapest then.
        """
        places = live.reshape(-1)
        weights = torch.zeros(kernel.numel(), dtype=torch.float64)
        inverse = damped_inverse(self.matrix[places][:, places], damping)
        left, kept = remove_greedily(kernel.reshape(-1)[places].double(), inverse, int((live & ~wanted).sum()))
        weights[places] = left
        mask = places.clone()
        mask[places] = kept
        return weights.view(kernel.shape), mask.view(kernel.shape)


@dataclass(frozen=True, eq=False)
class RowHessians:
    """The Hessian h A of each row of a kernel: `inputs` is A for each group (groups, n, n), `scale` is h."""

    inputs: Tensor
    scale: float

    def flat(self, live: Tensor) -> bool:
        """Tell whether the loss does not depend on the layer, on a group of it, or on the `live` weights of a group."""
        diagonals = self.inputs.diagonal(dim1=1, dim2=2)
        read = live.reshape(len(self.inputs), -1, self.inputs.shape[-1]).any(1)
        parts = [diagonal[columns] for diagonal, columns in zip(diagonals, read, strict=True) if bool(columns.any())]
        return not min(self.scale, *(float(part.sum()) for part in (*diagonals, *parts))) > 0

    def saliencies(self, kernel: Tensor, live: Tensor, damping: float) -> Tensor:
        """Return L_q for each weight of `kernel` where `live`, zero elsewhere; float64, of its shape.

        What is masked in one row counts as present in the inverse, which all rows share.
        """
        groups = kernel.reshape(len(self.inputs), -1, self.inputs.shape[-1]).double()
        inverses = torch.stack([damped_inverse(matrix, damping).diagonal() for matrix in self.inputs])
        found = self.scale * groups.square() / (2 * inverses[:, None])
        return found.view(kernel.shape) * live

    def operate(self, kernel: Tensor, live: Tensor, wanted: Tensor, damping: float) -> tuple[Tensor, Tensor]:
        """Return the kernel without the weights that `wanted` drops, and the mask of those left: the others make up."""
        mask = live & wanted
        size = self.inputs.shape[-1]
        weights = kernel.reshape(-1, size).double().clone()
        kept = mask.reshape(-1, size)
        matrices = [damped(matrix, damping) for matrix in self.inputs]
        for row in (~kept).any(1).nonzero().flatten().tolist():
            weights[row] = make_up_for(weights[row], matrices[row * len(matrices) // len(weights)], kept[row])
        return weights.view(kernel.shape), mask


LayerHessian = WholeHessian | RowHessians


def too_large(layer: nn.Module) -> bool:
    """Tell whether `layer` is too large for either kind of Hessian."""
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

    It is whole up to `WHOLE` weights; for larger layers it is that of the rows. Both take one backward pass a class.
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
    """Adds up the products of the gradients of single images for a whole kernel."""

    def __init__(self, geometry: Geometry):
        self.geometry = geometry
        self.total = 0

    def add(self, calls: list[Call], images: int) -> None:
        rows = weight_gradients(self.geometry, calls, images).flatten(1).double()
        self.total = self.total + rows.T @ rows

    def mean(self, images: int) -> WholeHessian:
        return WholeHessian(self.total / images)


class _RowSums:
    """Adds up x x^T over what a layer reads, once for the same images, and the squared gradients for its kernel."""

    def __init__(self, geometry: Geometry):
        self.geometry = geometry
        self.inputs = MomentSum(geometry)
        self.squares = 0.0
        self.seen: Tensor | None = None

    def add(self, calls: list[Call], images: int) -> None:
        self.squares += squared_gradients(self.geometry, calls, images).double().sum().item()
        if calls[0][0] is self.seen:
            return  # another class of the same images
        self.seen = calls[0][0]
        for read, _ in calls:
            self.inputs.add(read)

    def mean(self, images: int) -> RowHessians:
        inputs = self.inputs.moments().second
        rows = self.geometry.shape[0] // len(inputs)  # of a group
        read = rows * float(inputs.diagonal(dim1=1, dim2=2).sum())
        return RowHessians(inputs, self.squares / images / read if read else 0.0)
