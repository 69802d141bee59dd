"""Curvature of the loss: per-image gradients at a layer, and the second derivative along each of its weights.

The mean cross entropy of a network with logits z has, for its weights w, the generalized Gauss-Newton matrix
G = mean over images of J^T (diag(p) - p p^T) J with J = dz/dw and p = softmax(z). Where z is piecewise linear in each
single weight (ReLU, max pooling, batch norm in evaluation mode), the diagonal of G is the diagonal of the Hessian
itself: what G leaves out is the second derivative of z along one weight, which is then zero.
"""

import math
from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compedu.forms import Geometry, precise
from compedu.forms.form import input_of
from compedu.knobs import knob
from compedu.methods.hooks import hooked
from compedu.methods.input_moments import input_columns
from compedu.reproducible import seeded

UNREACHED = "no training image reaches it: the loss does not depend on its weights"
CURVATURES = ("gauss-newton", "empirical-fisher", "sampled-fisher")
VALUES = 2**16  # of the input images that run at once: it bounds the memory
GRADIENTS = 2**24  # values of the per-image gradients of one weight that are held at once: likewise
Call = tuple[Tensor, Tensor]  # the input of a layer, and the gradient of its output


def curvature_knob() -> Any:
    """Declare a field of a method as its estimate of the curvature."""
    return knob(
        default="gauss-newton",
        help="the second derivative of the loss: exact where the network is piecewise linear (gauss-newton), or "
        "squared gradients, for true labels (empirical-fisher) or drawn ones (sampled-fisher)",
        choices=CURVATURES,
    )


def softmax_root(logits: Tensor) -> Tensor:
    """Return S (N, classes, classes), float64, with S S^T = diag(p) - p p^T for p = softmax(logits).

    That product is the Hessian of the cross entropy with respect to `logits` (N, classes) (Schraudolph 2002, Fast
    curvature matrix-vector products for second-order gradient descent).

    >>> softmax_root(torch.zeros(1, 2)).round(decimals=4)[0].tolist()
    [[0.3536, -0.3536], [-0.3536, 0.3536]]
    """
    p = logits.double().softmax(1)
    # S = diag(sqrt p) - p sqrt(p)^T, because sqrt(p) has norm 1: the cross terms of S S^T leave one p p^T.
    return torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None, :]


def directions(logits: Tensor, labels: Tensor, curvature: str, generator: torch.Generator) -> Tensor:
    """Return gradients (count, N, classes) at the logits; backpropagated, squared and summed they give the curvature.

    "gauss-newton": the columns of `softmax_root`, one for each class; "empirical-fisher": the gradient of the loss for
    the true `labels`; "sampled-fisher": the same for labels drawn from the network's own prediction.
    """
    if curvature == "gauss-newton":
        return softmax_root(logits).permute(2, 0, 1)
    p = logits.double().softmax(1)
    if curvature == "sampled-fisher":
        labels = p.multinomial(1, generator=generator).squeeze(1)
    return (p - F.one_hot(labels, p.shape[1]))[None]


def backward_signals(
    model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor, y: Tensor, curvature: str, generator: torch.Generator
) -> Iterator[tuple[int, dict[str, list[Call]]]]:
    """Yield the size of a batch of `x`, and for each of `layers` its calls, once for each of `directions`.

    A call is the input of the layer, and the gradient of one direction at its output; layers that the images do not
    reach are left out. `x` is (N, ...), `y` (N,); the network must be in evaluation mode, where images are independent.
    Images run one by one if a layer also reads something that they share, such as a positional embedding.
    """
    at_once = min(len(x), max(1, VALUES // x[0].numel()))
    if at_once > 1 and not _tells_images_apart(model, layers, x):
        at_once = 1
    for images, labels in zip(x.split(at_once), y.split(at_once), strict=True):
        logits, calls = _forward(model, layers, images)
        outputs = [output for found in calls.values() for _, output in found]
        for direction in directions(logits.detach(), labels, curvature, generator) if outputs else ():
            gradients = iter(
                torch.autograd.grad(
                    logits,
                    outputs,
                    direction.to(logits.dtype),
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )
            )
            yield len(images), {name: [(read, next(gradients)) for read, _ in found] for name, found in calls.items()}


def _tells_images_apart(model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor) -> bool:
    """Tell whether each layer reads twice as many rows for two images as for one."""
    one, two = (
        {name: [len(read) for read, _ in found] for name, found in _forward(model, layers, x[:count])[1].items()}
        for count in (1, 2)
    )
    return two == {name: [2 * rows for rows in found] for name, found in one.items()}


def _forward(model: nn.Module, layers: Mapping[str, nn.Module], images: Tensor) -> tuple[Tensor, dict[str, list[Call]]]:
    """Return the logits of `images`, with their graph, and for each layer the input and output of each call."""
    calls: dict[str, list[Call]] = {}

    def keep(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        read = input_of(layer, inputs[0])
        # Copies, because the network may go on to change both in place.
        calls.setdefault(name, []).append((precise(read.detach().clone()), output))
        return output.clone()

    with hooked(layers, after=keep), torch.inference_mode(False), torch.enable_grad(), seeded(0):
        return model(images.detach().clone().requires_grad_().clone()), calls


def patches(geometry: Geometry, call: Call) -> Call:
    """Return the inputs at each position of a layer, (M, groups, inputs, positions), and the gradients of its outputs.

    These are (M, groups, outputs, positions). Inputs and outputs are those of one group; a linear layer has one group.
    The gradient of the weight is the product of both.
    """
    columns = input_columns(geometry, call[0])
    gradient = precise(call[1])
    if geometry.kind == "linear":
        return columns, gradient.reshape(len(gradient), 1, -1, gradient.shape[-1]).mT
    return columns, gradient.reshape(len(gradient), geometry.groups, -1, columns.shape[-1])


def weight_gradients(geometry: Geometry, calls: list[Call], images: int) -> Tensor:
    """Return the gradient of each of `images` for the weight of one layer, (images, *shape)."""

    def of_one(call: Call) -> Tensor:
        columns, gradients = patches(geometry, call)
        made = (gradients @ columns.mT).reshape(images, -1, *geometry.shape)
        return made.sum(1) if made.shape[1] > 1 else made.squeeze(1)  # an image may be several rows of a batch

    return reduce(Tensor.add_, map(of_one, calls))


def squared_gradients(geometry: Geometry, calls: list[Call], images: int) -> Tensor:
    """Return the sum over the images of the squared gradients for the weight of one layer, of the weight's shape."""
    if geometry.kind == "linear" and len(calls) == 1 and calls[0][0].shape[:-1] == (images,):
        read, gradient = calls[0]
        return (
            precise(gradient).square().mT @ read.square()
        )  # each gradient is one product: its square is that of both factors
    at_once = max(1, GRADIENTS // math.prod(geometry.shape))
    total = torch.zeros(())
    for start in range(0, images, at_once):
        count = min(at_once, images - start)
        total = total + weight_gradients(geometry, of_images(calls, images, start, count), count).square_().sum(0)
    return total


def of_images(calls: list[Call], images: int, start: int, count: int) -> list[Call]:
    """Return the part of `calls` for `count` of all `images`, from image `start` on."""
    rows = [len(read) // images for read, _ in calls]
    return [
        (read[start * size : (start + count) * size], gradient[start * size : (start + count) * size])
        for (read, gradient), size in zip(calls, rows, strict=True)
    ]


def curvature_diagonals(
    model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor, y: Tensor, curvature: str, seed: int = 0
) -> dict[str, Tensor]:
    """Return for each of `layers` that images `x` (N, ...) with labels `y` reach the curvature along each weight.

    "gauss-newton" is the diagonal of G above, which equals the true Fisher matrix, at the cost of one backward pass per
    class; "sampled-fisher" estimates it without bias by one pass, with labels drawn by `seed` (Martens 2020,
    arXiv:1412.1193); "empirical-fisher" is the mean squared gradient of single images with their own labels, which
    differs wherever the network errs.
    """
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, Tensor] = {}
    for images, signals in backward_signals(model, layers, x, y, curvature, generator):
        for name, calls in signals.items():
            sums[name] = sums.get(name, 0) + squared_gradients(Geometry.of(layers[name]), calls, images)
    return {name: total / len(x) for name, total in sums.items()}
