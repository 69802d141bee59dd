"""The Hessian of one layer's weights on some images: whole for small layers, factored and row by row for larger ones.

Whole, it is the layer's block of the generalized Gauss-Newton matrix. Where that is too large, each row of the kernel
(the weights of one output) is taken for itself with h A: A the mean of x x^T over what the layer reads, the
layer-wise Hessian of Dong, Chen, Pan (2017, arXiv:1705.07565, section 3) and Frantar, Alistarh (2022,
arXiv:2208.11580, section 3); h the curvature of the loss along an output, summed over the positions of an image,
which brings all layers to one scale (the factors of Martens, Grosse 2015, arXiv:1503.05671, section 3). h is the mean
over the rows: that of a single row hangs on the few images that the network is not sure of, and rows that these leave
alone would lose everything.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compedu.forms import Geometry
from compedu.methods.pruning.curvature import Call, backward_signals, kernel_gradients, patches
from compedu.methods.pruning.surgery import damped, damped_inverse, make_up_for, remove_greedily, surgeon_saliencies

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
        places, result = live.reshape(-1), torch.zeros(kernel.numel(), dtype=torch.float64)
        inverse = damped_inverse(self.matrix[places][:, places], damping)
        result[places] = surgeon_saliencies(kernel.reshape(-1)[places].double(), inverse)
        return result.view(kernel.shape)

    def operate(self, kernel: Tensor, live: Tensor, wanted: Tensor, damping: float) -> tuple[Tensor, Tensor]:
        """Return the kernel, and the mask of its weights, after as many of the `live` ones went as `wanted` drops.

        They go one after the other, each the cheapest then.
        """
        places, weights = live.reshape(-1), torch.zeros(kernel.numel(), dtype=torch.float64)
        inverse = damped_inverse(self.matrix[places][:, places], damping)
        left, kept = remove_greedily(kernel.reshape(-1)[places].double(), inverse, int((live & ~wanted).sum()))
        weights[places], mask = left, places.clone()
        mask[places] = kept
        return weights.view(kernel.shape), mask.view(kernel.shape)


@dataclass(frozen=True, eq=False)
class RowHessians:
    """The Hessian h A of each row of a kernel: `inputs` is A for each group (groups, n, n), `output` is h."""

    inputs: Tensor
    output: float

    def flat(self, live: Tensor) -> bool:
        """Tell whether the loss does not depend on the layer, on a group of it, or on the `live` weights of a group."""
        diagonals = self.inputs.diagonal(dim1=1, dim2=2)
        read = live.reshape(len(self.inputs), -1, self.inputs.shape[-1]).any(1)
        parts = [diagonal[columns] for diagonal, columns in zip(diagonals, read) if bool(columns.any())]
        return not min(self.output, *(float(part.sum()) for part in (*diagonals, *parts))) > 0

    def saliencies(self, kernel: Tensor, live: Tensor, damping: float) -> Tensor:
        """Return L_q for each weight of `kernel` where `live`, zero elsewhere; float64, of its shape.

        What is masked in one row counts as present in the inverse, which all rows share.
        """
        groups = kernel.reshape(len(self.inputs), -1, self.inputs.shape[-1]).double()
        inverses = torch.stack([damped_inverse(matrix, damping).diagonal() for matrix in self.inputs])
        found = self.output * groups.square() / (2 * inverses[:, None])
        return found.view(kernel.shape) * live

    def operate(self, kernel: Tensor, live: Tensor, wanted: Tensor, damping: float) -> tuple[Tensor, Tensor]:
        """Return the kernel without the weights that `wanted` drops, and the mask of those left: the others make up."""
        mask = live & wanted
        size = self.inputs.shape[-1]
        weights, kept = kernel.reshape(-1, size).double().clone(), mask.reshape(-1, size)
        matrices = [damped(matrix, damping) for matrix in self.inputs]
        for row in (~kept).any(1).nonzero().flatten().tolist():
            weights[row] = make_up_for(weights[row], matrices[row * len(matrices) // len(weights)], kept[row])
        return weights.view(kernel.shape), mask


LayerHessian = WholeHessian | RowHessians


def too_large(layer: nn.Module) -> bool:
    """Tell whether `layer` is too large for either kind of Hessian."""
    shape = Geometry.of(layer).shape
    return math.prod(shape) > WHOLE and math.prod(shape[1:]) > LONGEST


def layer_hessians(
    model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor, y: Tensor, seed: int
) -> dict[str, LayerHessian]:
    """Return the Hessian, float64, of each of `layers` that images `x` (N, ...) with labels `y` reach.

    It is whole up to `WHOLE` weights; of larger layers the curvature at the outputs is sampled by `seed`.
    """
    small = {name: layer for name, layer in layers.items() if math.prod(Geometry.of(layer).shape) <= WHOLE}
    large = {name: layer for name, layer in layers.items() if name not in small}
    found: dict[str, LayerHessian] = {}
    sums: dict[str, Tensor] = {}
    for images, signals in backward_signals(model, small, x, y, "gauss-newton", torch.Generator()):
        for name, calls in signals.items():
            rows = kernel_gradients(Geometry.of(layers[name]), calls, images).flatten(1).double()
            sums[name] = sums.get(name, 0) + rows.T @ rows
    found |= {name: WholeHessian(total / len(x)) for name, total in sums.items()}
    factors: dict[str, tuple[Tensor, float, int]] = {}
    for _, signals in backward_signals(model, large, x, y, "sampled-fisher", torch.Generator().manual_seed(seed)):
        for name, calls in signals.items():
            for call in calls:
                made = _factors(Geometry.of(layers[name]), call)
                factors[name] = tuple(map(sum, zip(factors[name], made))) if name in factors else made
    found |= {name: RowHessians(a / positions, h / len(x)) for name, (a, h, positions) in factors.items()}
    return {name: found[name] for name in layers if name in found}


def _factors(geometry: Geometry, call: Call) -> tuple[Tensor, float, int]:
    """Return over a call the sum of x x^T (groups, n, n), that of squared gradients by row, and how many positions."""
    columns, gradients = patches(geometry, call)
    joined = columns.permute(1, 2, 0, 3).flatten(2)  # (groups, n, images x positions)
    joined = joined.double()  # in single precision a lightly damped sum would not be positive definite
    return joined @ joined.mT, gradients.double().square().sum().item() / geometry.shape[0], joined.shape[-1]
