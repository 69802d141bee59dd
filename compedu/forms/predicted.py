"""Predicted weights: a few numbers for each input channel, and a fixed smooth dictionary that gives the others."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from compedu.forms import declared
from compedu.forms.form import Form, Geometry
from compedu.forms.parts import Floats, Part

Grid: TypeAlias = tuple[int, int]  # height and width of the positions of one input channel

MOST_POSITIONS = 1024  # a dictionary has up to this many numbers squared, and a file holds none of them
WIDTHS = (0.1, 100.0)  # of the kernel, in positions
RIDGES = (1e-5, 1.0)


def spread_positions(grid: Grid, count: int) -> np.ndarray:
    """Return `count` positions of a `grid`, flat and sorted, far from each other: each next one is the farthest.

    The first is the middle; of several that are equally far the first in order (Gonzalez 1985, Clustering to minimize
    the maximum intercluster distance).

    >>> spread_positions((3, 3), 5).tolist()
    [0, 2, 4, 6, 8]
    """
    height, width = grid
    rows, columns = np.divmod(np.arange(height * width), width)
    chosen = [height // 2 * width + width // 2]
    nearest = np.full(height * width, height**2 + width**2)
    for _ in range(count - 1):
        last = chosen[-1]
        nearest = np.minimum(nearest, (rows - rows[last]) ** 2 + (columns - columns[last]) ** 2)
        chosen.append(int(nearest.argmax()))
    return np.sort(chosen)


@lru_cache(maxsize=16)
def dictionary(grid: Grid, count: int, width: float, ridge: float) -> np.ndarray:
    """Return the dictionary (positions, count), float32, that predicts all positions of `grid` from `count` of them.

    Kernel ridge regression with k(i, j) = exp(-|i - j|^2 / (2 width^2)), from values at the positions a:
    k(., a) (k(a, a) + ridge I)^-1. With all positions there is nothing to predict: the values are the weights.
    The array is shared and must not be changed.
    """
    positions = grid[0] * grid[1]
    if count == positions:
        return np.eye(positions, dtype=np.float32)
    rows, columns = np.divmod(np.arange(positions), grid[1])
    chosen = spread_positions(grid, count)
    apart = (rows[:, None] - rows[chosen]) ** 2 + (columns[:, None] - columns[chosen]) ** 2
    kernel = np.exp(-apart / (2 * width**2))
    smoothing = kernel[chosen] + ridge * np.eye(count)
    # Solved in float64 and rounded to float32 for layers of every precision: a file gives back the same weights.
    return np.linalg.solve(smoothing, kernel.T).T.astype(np.float32, order="C")


class Predicted(Form):
    """A weight whose values at all positions of an input channel are predicted from `values`, fewer free numbers.

    `values` is (out, channels, count). The positions are the kernel window of a convolution, or the pixels of the
    images of shape `grid` that a linear layer reads, channel after channel. The dictionary follows from the settings
    alone (Denil et al. 2013, arXiv:1306.0543).
    """

    def __init__(
        self, geometry: Geometry, values: Tensor, bias: Tensor | None, width: float, ridge: float, grid: Grid | None
    ):
        super().__init__(geometry, bias)
        self.values = nn.Parameter(values.detach().clone())
        self.width = width
        self.ridge = ridge
        self.grid = window_of(geometry) if grid is None else grid

    def dense(self) -> Tensor:
        """Return the dense weight: the dictionary times the free numbers."""
        made = dictionary(self.grid, self.values.shape[2], self.width, self.ridge)
        return (self.values @ torch.from_numpy(made).to(self.values).T).reshape(self.geometry.shape)

    def stored_weight(self) -> dict[str, Part]:
        """Return the free numbers."""
        return {"values": Floats(self.values.detach())}

    def settings(self) -> dict[str, Any]:
        """Return width and ridge of the regression, and the shape of the images that a linear layer reads."""
        grid = {"grid": self.grid} if self.geometry.kind == "linear" else {}
        return {"width": self.width, "ridge": self.ridge} | grid

    @classmethod
    def check_declared(cls, geometry: Geometry, settings: Mapping[str, Any], parts: declared.Parts) -> torch.dtype:
        """Check the settings of the dictionary, whose size they bound, and the free numbers."""
        linear = geometry.kind == "linear"
        declared.only(settings, "width", "ridge", *(("grid",) if linear else ()))
        declared.only(parts, "values", "bias")
        for name, (low, high) in (("width", WIDTHS), ("ridge", RIDGES)):
            value = settings.get(name)
            allowed = f"allowed are floats from {low} to {high}"
            declared.need(type(value) is float and low <= value <= high, f"a {name} of {value!r}; {allowed}")
        out, inside = geometry.shape[:2]
        grid = settings.get("grid", (0, 0)) if linear else window_of(geometry)
        declared.need(isinstance(grid, tuple) and min(grid) >= 1, f"images of shape {grid!r}")
        positions = grid[0] * grid[1]
        declared.need(positions <= MOST_POSITIONS, f"{positions} positions; at most {MOST_POSITIONS} are predicted")
        declared.need(not linear or inside % positions == 0, f"images of {positions} pixels among {inside} inputs")
        shape = declared.shape_of(parts, "values")
        fits = len(shape) == 3 and 1 <= shape[2] <= positions
        declared.need(fits, f"'values' has the shape {shape} for {positions} positions")
        channels = inside // positions if linear else inside
        return declared.bias(parts, "bias", out, declared.floats(parts, "values", (out, channels, shape[2])))

    @classmethod
    def restore(cls, geometry: Geometry, settings: dict[str, Any], parts: dict[str, Tensor]) -> "Predicted":
        """Rebuild the layer."""
        bias = parts.get("bias")
        return cls(geometry, parts["values"], bias, settings["width"], settings["ridge"], settings.get("grid"))

    def extra_repr(self) -> str:
        """Show shape, positions and settings in the printed model."""
        rows, columns = self.grid
        count = self.values.shape[2]
        free = f"{count} of {rows} x {columns} positions"
        return f"{super().extra_repr()}, {free}, width={self.width}, ridge={self.ridge}"


def window_of(geometry: Geometry) -> Grid:
    """Return the kernel window of a convolution."""
    return geometry.shape[2], geometry.shape[3]
