"""Low rank: the dense filters of a layer beside those rebuilt from the factors; the rank of every layer."""

import numpy as np

from compedu.explorers.figures.colors import DENSE, LIVE, VERMILLION
from compedu.explorers.figures.pictures.low_rank import singular_values
from compedu.explorers.figures.pictures.picture import (
    SLANTED,
    Picture,
    bars,
    heatmap,
    layer_names,
    line,
    log_bars,
    percent_text,
    relative_error,
    short_names,
    weight_after,
)
from compedu.explorers.figures.pictures.pruning.pruned_filters import first_convolution, images_of, montage
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


def below(view: View, layer: str) -> list[dict]:
    """Return each layer's full rank, its current rank, and the rank at which the factors are as large as the matrix."""
    names = layer_names(view)
    full = [min(singular_values.shape(view, name)) for name in names]
    even = [break_even(*singular_values.shape(view, name)) for name in names]
    marks = {"symbol": "line-ew", "size": 26, "line": {"width": 2, "color": VERMILLION}}
    return [
        bars(BELOW, names, full, "full rank", DENSE, width=0.8),
        bars(BELOW, names, [singular_values.rank_of(view, name) for name in names], "rank", LIVE, width=0.5),
        line(BELOW, short_names(names), even, "break-even rank", VERMILLION, mode="markers", marker=marks),
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
        "gray = full rank, blue = rank, orange = break-even",
    ),
    say=say,
    table=singular_values.table,
    axes={
        MAIN.xaxis: {"visible": False},
        MAIN.yaxis: {"autorange": "reversed", "scaleanchor": MAIN.x, "visible": False, "constraintoward": "top"},
        BELOW.yaxis: log_bars(lambda view: max(min(singular_values.shape(view, name)) for name in layer_names(view))),
        BELOW.xaxis: SLANTED,
    },
    start=first_convolution,
)
