"""Structural matrices: the dense matrix, its projection and the difference; free numbers bright, copies faint."""

import numpy as np
from torch import Tensor

from compedu.explorers.figures.pictures.picture import (
    SLANTED,
    Picture,
    Table,
    as_matrix,
    dense_matrix,
    facts_of,
    heatmap,
    layer_names,
    percent_text,
    relative_error,
    shares_axis,
    shares_left,
    weight_after,
)
from compedu.explorers.figures.plots import BELOW, MAIN
from compedu.explorers.view import View
from compedu.forms import weight_of

SIDE = 32  # the upper left corner that is shown
PALE_COPY = 0.35


def main(view: View, layer: str) -> list[dict]:
    """Return three corners side by side; in the projected matrix only the stored numbers are bright."""
    dense = _corner(weight_of(view.layer_pair(layer)[0]))
    weight = weight_after(view, layer)
    made = dense if weight is None else _corner(weight)
    gap = np.full((len(dense), max(1, dense.shape[1] // 16)), np.nan)
    form = facts_of(view, layer)
    stored = None if form is None else form.stored_entries()
    copies = np.zeros_like(made, dtype=bool) if stored is None else ~_corner(stored)
    nothing = np.full_like(dense, np.nan)
    limit = 2.5 * float(dense.std())
    bright = np.concatenate([dense, gap, np.where(copies, np.nan, made), gap, dense - made], axis=1)
    pale = np.concatenate([nothing, gap, np.where(copies, made, np.nan), gap, nothing], axis=1)
    return [heatmap(MAIN, bright, "weight", limit=limit), heatmap(MAIN, pale, "copy", limit=limit, opacity=PALE_COPY)]


def _corner(weight: Tensor) -> np.ndarray:
    return as_matrix(weight if weight.ndim == 2 else weight[:, :, 0, 0])[:SIDE, :SIDE]


def below(view: View, layer: str) -> list[dict]:
    """Return how many numbers of each layer are stored, in percent of those of the dense one."""
    return shares_left(BELOW, layer_names(view), all_numbers(view), "numbers stored", "dense")


def all_numbers(view: View) -> list[tuple[int, int]]:
    """Return the numbers of all layers, in order."""
    return [numbers(view, name) for name in layer_names(view)]


def numbers(view: View, layer: str) -> tuple[int, int]:
    """Return how many free numbers of a layer's weight are stored, and how many the dense one has."""
    form = facts_of(view, layer)
    dense = dense_matrix(view, layer).size
    return (dense if form is None else form.free_numbers()), dense


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    free, dense = numbers(view, layer)
    return f"{layer}: {free:,} of {dense:,} numbers, error {percent_text(relative_error(view, layer)) or 'unknown'}"


def table(view: View) -> Table:
    """Return stored numbers and error of each layer."""
    rows = [
        (name, *(f"{n:,}" for n in numbers(view, name)), percent_text(relative_error(view, name)))
        for name in layer_names(view)
    ]
    return ("layer", "numbers stored", "weights", "error of the weights"), rows


PICTURE = Picture(
    name="matrix",
    main=main,
    below=below,
    headings=(
        "a corner: dense, projected (copies faint), difference",
        "numbers stored, % of dense; above: how many",
    ),
    say=say,
    table=table,
    axes={
        MAIN.yaxis: {"autorange": "reversed", "visible": False},
        MAIN.xaxis: {"visible": False},
        BELOW.yaxis: shares_axis(all_numbers),
        BELOW.xaxis: SLANTED,
    },
)
