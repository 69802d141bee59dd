"""Pruning: the weight matrix with the gone weights black, and the histogram with the cut."""

import numpy as np

from compedu.explorers.colours import DENSE, LIVE
from compedu.explorers.pictures.picture import BELOW, MAIN, Picture, as_matrix, bars, heatmap, shrunk
from compedu.explorers.view import View
from compedu.forms import Masked, kernel_of

BINS = 41


def traces(view: View, layer: str) -> list[dict]:
    """Return the matrix and the two histograms: all weights in grey, the kept ones in colour."""
    before, after = view.layer_pair(layer)
    dense = as_matrix(kernel_of(before))
    kept = kept_mask(dense, after)
    limit = float(np.abs(dense).max())
    edges = np.linspace(-limit, limit, BINS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    every, left = (np.histogram(values, edges)[0] for values in (dense, dense[kept]))
    return [
        heatmap(MAIN, shrunk(np.where(kept, dense, np.nan)), "weight", limit=limit / 2),
        bars(BELOW, middle, every, "all weights", DENSE, width=edges[1] - edges[0]),
        bars(BELOW, middle, left, "kept weights", LIVE, width=edges[1] - edges[0]),
    ]


def kept_mask(dense: np.ndarray, after) -> np.ndarray:
    """Return which weights of a layer are left: all of them where it was not pruned."""
    if isinstance(after, Masked):
        return as_matrix(after.mask).astype(bool)
    return np.ones(dense.shape, dtype=bool)


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    before, after = view.layer_pair(layer)
    kept = kept_mask(as_matrix(kernel_of(before)), after)
    return f"{layer}: {int(kept.sum()):,} of {kept.size:,} weights are left ({kept.mean():.1%})."


PICTURE = Picture(
    traces,
    ("weights: black = gone, blue = positive, red = negative", "histogram: grey = all, blue = kept"),
    say,
    {"yaxis4": {"autorange": "reversed"}, "xaxis7": {"title": {"text": "weight"}}, "yaxis7": {"type": "log"}},
)
