"""A fixed smooth dictionary: weights that vary smoothly over an image are predicted from their values at few pixels."""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from compedu.errors import CompressionError, Skip
from compedu.forms import Geometry, Predicted, weight_of
from compedu.forms.predicted import MOST_POSITIONS, RIDGES, WIDTHS, Grid, dictionary, window_of
from compedu.graph.answers import remembered
from compedu.graph.images import Image, images_read
from compedu.knobs import PerLayer, inherited, knob, method
from compedu.methods.layer_method import LayerByLayer, SelectiveMethod
from compedu.methods.layers import given_value
from compedu.methods.task import Task

NO_IMAGE = "its inputs are not, in order, the pixels of images or feature maps, so that none are neighbors"
WEAKEST = 1e-3  # of the dictionary's directions, as a share of the strongest: weaker ones would need huge numbers


def free_numbers(weight: Tensor, columns: np.ndarray) -> Tensor:
    """Return the numbers (out, channels, count) that predict `weight` (out, channels, positions) best.

    The least-squares fit by the dictionary `columns` (positions, count), of least norm among the best.

    >>> free_numbers(torch.tensor([[[1.0, 3.0]]]), np.array([[1.0], [1.0]])).tolist()
    [[[2.0]]]
    """
    targets = weight.detach().cpu().double().flatten(0, 1).T.numpy()
    found = np.linalg.lstsq(columns.astype(np.float64), targets, rcond=WEAKEST)[0]
    return torch.from_numpy(found.T.reshape(*weight.shape[:2], -1)).to(weight)


@method
class SmoothDictionary(LayerByLayer):
    r"""Predict the weights of each input channel from few free numbers, by a fixed dictionary of smooth functions.

    $W = V U$, where $U = (K_{aa} + \lambda I)^{-1} K_{a\cdot}$ predicts a function over the pixels from its values at
    the pixels $a$ (kernel ridge regression) with $k(i, j) = \exp(-\lVert i - j \rVert^2 / 2 \sigma^2)$, and $V$ is the
    least-squares fit to the trained weight. The pixels $a$ are spread evenly. A step that trains moves $V$.
    Stored: the free numbers $V$ at full precision; $U$ follows from `width`, `ridge` and the shape of the images.
    Skips: layers whose inputs have no neighbors: kernels of 1 x 1, linear layers that do not read, in order, the pixels
    of images or feature maps of at most 1,024 pixels each; layers that are already compressed. Weights are smooth where
    inputs are images, hence the first layer is the default.
    Paper: Denil, Shakibi, Dinh, Ranzato, de Freitas 2013, Predicting parameters in deep learning, arXiv:1306.0543.
    There $V$ is trained from the start; the fit to trained weights and the even spread are not from the paper.
    """

    family: ClassVar[str] = "low_rank"
    identity_settings: ClassVar[dict[str, Any] | None] = {"kept": 1.0}
    writes: ClassVar[bool] = False

    kept: PerLayer[float] = knob(
        default=0.25,
        help="free numbers of each input channel of each output, as a fraction of its pixels; at least one",
        low=0,
        high=1,
        open="low",
        slider_range=(0.02, 1),
        log=True,
        per_layer=True,
    )
    width: float = knob(
        default=2.0,
        help="width of the kernel: how far the value at a pixel tells of others",
        low=WIDTHS[0],
        high=WIDTHS[1],
        slider_range=(0.5, 8),
        log=True,
        unit="pixels",
    )
    ridge: float = knob(
        default=1e-3,
        help="what is added to the diagonal of the kernel matrix: larger values give smoother dictionaries",
        low=RIDGES[0],
        high=RIDGES[1],
        slider_range=(1e-4, 1),
        log=True,
    )
    layers: str = inherited(SelectiveMethod, "layers", default="first")

    def compress(self, task: Task) -> nn.Module:
        """Find out which linear layers read images, then replace layer by layer."""
        task.open_attentions()
        if any(Geometry.of(layer).kind == "linear" for layer in task.selection()[0].values()):
            task.decided = images_of(task)
        return LayerByLayer.compress(self, task)

    def form_for(self, task: Task, name: str, layer: nn.Module) -> Predicted:
        """Return the layer with the numbers that predict its weight best."""
        geometry = Geometry.of(layer)
        grid = grid_of(geometry, task.decided.get(name, task.decided.get("", NO_IMAGE)))
        positions = grid[0] * grid[1]
        count = max(1, round(given_value(self.kept, name) * positions))
        weight = weight_of(layer).detach()
        columns = dictionary(grid, count, self.width, self.ridge)
        values = free_numbers(weight.reshape(len(weight), -1, positions), columns)
        return Predicted(geometry, values, cast("Tensor | None", layer.bias), self.width, self.ridge, grid)


def images_of(task: Task) -> Mapping[str, Image | str]:
    """Return the images that linear layers read, by their names, or under an empty name why they are not known."""
    example = task.example
    if example is None:
        return {"": "nothing shows which of its inputs are neighboring pixels; give data"}
    try:
        return remembered(task.source, ("images",), task.model, example, lambda: images_read(task.model, example))
    except CompressionError as reason:
        return {"": f"nothing shows which of its inputs are neighboring pixels: {reason}"}


def grid_of(geometry: Geometry, read: Image | str) -> Grid:
    """Return the positions of one input channel; a linear layer has `read` an image, or the reason why not.

    Raises `Skip` where inputs have no neighbors.
    """
    if geometry.kind == "conv2d":
        height, width = window_of(geometry)
    elif isinstance(read, str):
        raise Skip(read)
    else:
        _, height, width = read
    if height * width == 1:
        raise Skip("its inputs have no neighbors: each channel is a single pixel")
    if height * width > MOST_POSITIONS:
        raise Skip(f"its images have {height} x {width} pixels; dictionaries for at most {MOST_POSITIONS} are made")
    return height, width
