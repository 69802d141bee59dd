"""Part of a layer is rounded to one bit: what several errors say about it beforehand, and how far the loss then rises.

A subset is a block: the weights between half of a layer's outputs and half of its inputs, both drawn. All blocks of a
layer hold equally many weights; otherwise every error would grow with their number, as the loss does, and all errors
would rank the blocks alike. Nor is the draw tilted toward any error: each differs among the blocks as it does among the
outputs and inputs of a trained layer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.evaluation import all_logits
from compedu.forms import weight_of
from compedu.graph import fold_batch_norm
from compedu.methods import LinearQuantization
from compedu.methods.calibration import calibration_set
from compedu.methods.curvature import curvature_diagonals, softmax_root
from compedu.methods.input_moments import InputMoments, input_moments

MATRIX = "matrix error"
DIAGONAL = "diagonal of the curvature"
OUTPUTS = "outputs of the layer"
SECOND_ORDER = "second-order term of the loss"
WEIGHED = (DIAGONAL, OUTPUTS, SECOND_ORDER)  # the errors that look beyond the matrix
ERRORS = (MATRIX, *WEIGHED)
CALIBRATION = 512  # training images that the errors but the first are estimated from
SHARE = 0.5  # of the outputs, and of the inputs, that a block spans


def block(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Return a mask of the shape of `weight` (out, ...): `SHARE` of the rows by `SHARE` of the columns, both drawn."""
    rows, columns = (_drawn(size, generator) for size in weight.flatten(1).shape)
    return (rows[:, None] & columns).reshape(weight.shape)


def _drawn(size: int, generator: torch.Generator) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.randperm(size, generator=generator)[: max(1, round(SHARE * size))]] = True
    return mask


def second_order(model: nn.Module, name: str, change: Tensor, x: Tensor) -> float:
    """Return 1/2 d^T G d in nats for a `change` d of the weight of layer `name`, with G of the images `x` (N, ...).

    G is the generalized Gauss-Newton matrix of `methods.curvature`, with all its elements: the logits
    are differentiated once, along d.
    """

    def logits(weight: Tensor) -> Tensor:
        return torch.func.functional_call(model, {f"{name}.weight": weight}, (x,))

    trained = weight_of(model.get_submodule(name)).detach()
    found, moved = cast("tuple[Tensor, Tensor]", torch.autograd.functional.jvp(logits, trained, change))
    along = softmax_root(found).mT @ moved.double()[..., None]
    return float(along.square().sum() / (2 * len(x)))


@contextmanager
def changed(layer: nn.Module, change: Tensor) -> Iterator[None]:
    """Add `change` to the weight of `layer` while the context lasts."""
    weight = weight_of(layer)
    trained = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.add_(change)
        yield
    finally:
        with torch.no_grad():
            weight.copy_(trained)


def losses(model: nn.Module, data: Dataset, images: int) -> Tensor:
    """Return the loss of each of the first `images` test images, float64."""
    logits = all_logits(model, data.x_test[:images], data)
    return F.cross_entropy(logits, data.y_test[:images], reduction="none").double()


@dataclass(frozen=True, eq=False)
class Known:
    """What is known about a layer before anything is rounded, from calibration images `x` (N, ...) alone.

    `curvature` has the shape of the layer's weight.
    """

    model: nn.Module
    name: str
    x: Tensor
    curvature: Tensor
    moments: InputMoments

    def errors(self, change: Tensor) -> tuple[float, ...]:
        """Return the `ERRORS` of a `change` of the weight, of its shape."""
        squares = change.double().square()
        return (
            float(squares.sum()),
            float((self.curvature * squares).sum() / 2),
            self.moments.output_error(change),
            second_order(self.model, self.name, change, self.x),
        )


def known(model: nn.Module, names: Sequence[str], data: Dataset) -> list[Known]:
    """Return what is known about the layers `names` of a network in evaluation mode."""
    x, y = calibration_set(data, CALIBRATION)
    layers = {name: model.get_submodule(name) for name in names}
    curvatures = curvature_diagonals(model, layers, x, y, "gauss-newton")
    return [
        Known(model, name, x, curvatures[name], input_moments(model, name, layer, data, CALIBRATION))
        for name, layer in layers.items()
    ]


def errors_and_rises(
    trained: nn.Module, data: Dataset, names: Sequence[str], subsets: int, images: int, seed: int
) -> dict[str, Tensor]:
    """Return for each of the layers `names` the `ERRORS` of its subsets and their rises, (subsets, errors + 2).

    The rises of the mean loss, in nats, are those on the even and on the odd ones of the first `images` test images.
    Batch normalization is folded first, as by `LinearQuantization`, which says how far each weight moves.
    """
    model = fold_batch_norm(trained).eval()
    binary = LinearQuantization(bits=1)(model)
    before = losses(model, data, images)
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for one in known(model, names, data):
        layer = model.get_submodule(one.name)
        whole = weight_of(binary.get_submodule(one.name)).detach() - weight_of(layer).detach()
        rows = []
        for _ in range(subsets):
            change = whole * block(whole, generator)
            errors = one.errors(change)
            with changed(layer, change):
                rise = losses(model, data, images) - before
            rows.append((*errors, float(rise[::2].mean()), float(rise[1::2].mean())))
        found[one.name] = torch.tensor(rows, dtype=torch.float64)
    return found


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Return Spearman's rank correlation of two vectors.

    >>> rank_correlation(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([0.1, 0.2, 0.3]))
    1.0
    """
    from scipy import stats

    ranks = torch.stack([torch.from_numpy(stats.rankdata(values.numpy())) for values in (one, other)])
    return float(torch.corrcoef(ranks)[0, 1])
