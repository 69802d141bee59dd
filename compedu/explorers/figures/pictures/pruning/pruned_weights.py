"""Pruning: the weight matrix with removed weights black, the histogram with the cut, the share each layer keeps."""

import numpy as np

from compedu.explorers.figures.colors import DENSE, LIVE
from compedu.explorers.figures.pictures.picture import (
    SLANTED,
    Picture,
    Table,
    as_matrix,
    bars,
    dense_matrix,
    heatmap,
    labels,
    layer_names,
    percent_text,
    shrunk,
    untouched,
)
from compedu.explorers.figures.pictures.pruning.left_weights import left_weights
from compedu.explorers.figures.places import HIGHER, LEFT, NAMED, across, down
from compedu.explorers.figures.plots import BELOW, BESIDE, MAIN
from compedu.explorers.view import View

BINS = 41
MOST_LABELED = 4  # layers whose percentages fit above their bars


def main(view: View, layer: str) -> list[dict]:
    """Return the matrix without the removed weights."""
    dense, limit = view.once(("weights", layer), lambda: _thinned(dense_matrix(view, layer)))
    kept = _mask(view, layer)
    return [heatmap(MAIN, dense if kept is None else np.where(shrunk(kept), dense, np.nan), "weight", limit=limit / 2)]


def _thinned(dense: np.ndarray) -> tuple[np.ndarray, float]:
    return shrunk(dense), float(np.abs(dense).max())


def below(view: View, layer: str) -> list[dict]:
    """Return histograms of all weights in gray and of the kept ones in color, and the share that each layer keeps."""
    middle, every = view.once(("histogram", layer), lambda: _histogram(dense_matrix(view, layer)))
    kept = _mask(view, layer)
    left = every if kept is None else _counts(dense_matrix(view, layer)[kept], middle)
    names = layer_names(view)
    width = middle[1] - middle[0]
    shares = [100 * kept_count(view, name)[0] / kept_count(view, name)[1] for name in names]
    return [
        bars(BELOW, middle, every, "all weights", DENSE, width=width),
        bars(BELOW, middle, left, "kept weights", LIVE, width=width),
        bars(BESIDE, names, shares, "kept, %", LIVE, **labels(shares, MOST_LABELED)),
    ]


def _histogram(dense: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    limit = float(np.abs(dense).max())
    middle = (np.arange(BINS) + 0.5) / BINS * 2 * limit - limit
    return middle, _counts(dense, middle)


def _counts(values: np.ndarray, middle: np.ndarray) -> np.ndarray:
    step = middle[1] - middle[0]
    return np.histogram(values, BINS, (middle[0] - step / 2, middle[-1] + step / 2))[0].astype(np.int32)


def _mask(view: View, layer: str) -> np.ndarray | None:
    """Return which weights of a layer are kept; None where it was not pruned."""
    left = left_weights(view, layer)
    return None if left is None else as_matrix(left)


def kept_count(view: View, layer: str) -> tuple[int, int]:
    """Return how many weights of a layer are kept, and how many it had."""
    kept = _mask(view, layer)
    size = dense_matrix(view, layer).size
    return (size if kept is None else int(np.count_nonzero(kept))), size


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    kept, size = kept_count(view, layer)
    if view.after is None:
        return untouched(layer)
    return f"{layer}: {kept:,} of {size:,} weights left ({100 * kept / size:.1f} %)"


def table(view: View) -> Table:
    """Return the weight counts of each layer, kept and dense."""
    rows = [
        (
            name, *(f"{n:,}" for n in kept_count(view, name)),
            percent_text(kept_count(view, name)[0] / kept_count(view, name)[1]),
        )
        for name in layer_names(view)
    ]  # fmt: skip
    return ("layer", "weights left", "weights", "share left"), rows


PICTURE = Picture(
    name="weights",
    main=main,
    below=below,
    headings=(
        "black = gone, blue = positive, orange = negative",
        "weights: gray = all, blue = left | left by layer, %",
    ),
    say=say,
    table=table,
    axes={
        MAIN.xaxis: {"visible": False},
        MAIN.yaxis: {"autorange": "reversed", "visible": False},
        BELOW.yaxis: {"nticks": 3, "exponentformat": "SI", "rangemode": "tozero", "domain": down(*HIGHER)},
        BELOW.xaxis: {"domain": across(LEFT[0], 190), "nticks": 5},
        BESIDE.xaxis: {"visible": True} | SLANTED,
        BESIDE.yaxis: {"range": [0, 115], "domain": down(*NAMED)},
    },
    black=True,
)
