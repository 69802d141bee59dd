"""Low rank: the dense filters of a layer beside those rebuilt from the factors; the rank of every layer."""

from dataclasses import replace

import numpy as np

from compedu.explorers.figures.colors import VERMILLION
from compedu.explorers.figures.pictures.low_rank import singular_values, weights_left
from compedu.explorers.figures.pictures.picture import (
    SLANTED,
    Picture,
    first_convolution,
    heatmap,
    images_of,
    layer_names,
    line,
    montage,
    percent_text,
    relative_error,
    shares_axis,
    shares_left,
    short_names,
    weight_after,
)
from compedu.explorers.figures.plots import BELOW, MAIN
from compedu.explorers.view import View
from compedu.forms import weight_of
from compedu.methods.low_rank.shared.rank import break_even

MOST = 16  # filters shown of either kind
COLUMNS = 4


def main(view: View, layer: str) -> list[dict]:
    """Return the first filters of the dense layer on the left, the same of the factored one on the right."""
    dense = images_of(weight_of(view.layer_pair(layer)[0]).detach()[:MOST])
    weight = weight_after(view, layer)
    made = np.full_like(dense, np.nan) if weight is None and view.after is not None else dense
    made = made if weight is None else images_of(weight[:MOST])
    every = np.ones(len(dense), dtype=bool)
    left = montage(dense, every, COLUMNS)
    right = montage(made, every, COLUMNS)
    gap = np.full((len(left), 1 + dense.shape[2] // 2), np.nan, dtype=np.float32)
    return [
        heatmap(MAIN, np.concatenate([left, gap, right], axis=1), "weight", limit=float(np.abs(dense).max()) or 1.0)
    ]


def ranks(view: View) -> list[tuple[int, int]]:
    """Return rank and full rank of each layer."""
    names = layer_names(view)
    return [(singular_values.rank_of(view, name), min(singular_values.shape(view, name))) for name in names]


def below(view: View, layer: str) -> list[dict]:
    """Return each layer's rank in percent of its full rank, and the rank at which the factors save nothing."""
    names = layer_names(view)
    shapes = [singular_values.shape(view, name) for name in names]
    even = [100 * break_even(*shape) / min(shape) for shape in shapes]
    marks = {"symbol": "line-ew", "size": 26, "line": {"width": 2, "color": VERMILLION}}
    return [
        *shares_left(BELOW, names, ranks(view), "rank", "full rank"),
        line(BELOW, short_names(names), even, "break-even rank, %", VERMILLION, mode="markers", marker=marks),
    ]


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    if singular_values.factor_count(view, layer) not in (0, 2):
        return singular_values.factoring(view, layer)
    rank = singular_values.rank_of(view, layer)
    full = min(singular_values.shape(view, layer))
    return (
        f"{layer}: rank {rank} of {full}, error of the filters {percent_text(relative_error(view, layer)) or 'unknown'}"
    )


PICTURE = Picture(
    name="filters and ranks",
    main=main,
    below=below,
    headings=(
        "filters: left dense, right rebuilt from the factors",
        "rank, % of full; above: rank; orange: break-even",
    ),
    say=say,
    table=singular_values.table,
    axes={
        MAIN.xaxis: {"visible": False},
        MAIN.yaxis: {"autorange": "reversed", "scaleanchor": MAIN.x, "visible": False, "constraintoward": "top"},
        BELOW.yaxis: shares_axis(ranks),
        BELOW.xaxis: SLANTED,
    },
    start=first_convolution,
)

# For factors whose ranks are not those of one matrix.
WITH_WEIGHTS = replace(
    PICTURE,
    name="filters and weights",
    below=weights_left.below,
    headings=(PICTURE.headings[0], weights_left.HEADING),
    say=weights_left.say,
    table=weights_left.table,
    axes={**PICTURE.axes, BELOW.yaxis: weights_left.AXIS},
    start=weights_left.largest_convolution,
)
