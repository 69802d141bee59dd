"""Quantization: the histogram of the weights under their grid, and the staircase from weight to code."""

import numpy as np

from compedu.explorers.colours import DENSE, LIVE, VERMILLION
from compedu.explorers.pictures.picture import BELOW, MAIN, Picture, as_matrix, bars, line
from compedu.explorers.view import View
from compedu.forms import Coded, kernel_of

BINS = 81


def traces(view: View, layer: str) -> list[dict]:
    """Return dense histogram, clipped tails, the grid with its counts, and rounded against original weights."""
    before, after = view.layer_pair(layer)
    dense = as_matrix(kernel_of(before)).reshape(-1)
    limit = float(np.abs(dense).max())
    edges = np.linspace(-limit, limit, BINS + 1)
    middle, every = (edges[1:] + edges[:-1]) / 2, np.histogram(dense, edges)[0]
    rounded = as_matrix(kernel_of(after)).reshape(-1) if isinstance(after, Coded) else dense
    same = len(rounded) == len(dense)
    levels, counts = np.unique(rounded, return_counts=True) if isinstance(after, Coded) else (dense[:0], dense[:0])
    top = np.abs(rounded).max() if isinstance(after, Coded) else limit
    clipped = np.where(np.abs(middle) > top, every, 0)
    shown = np.argsort(dense)[:: max(1, len(dense) // 400)]
    stairs = rounded[shown] if same else dense[shown]
    if len(levels) > 300:  # scales differ from channel to channel: the union of all grids is no picture
        levels, counts = levels[:0], counts[:0]
    return [
        bars(MAIN, middle, every, "weights", DENSE, width=edges[1] - edges[0]),
        bars(MAIN, middle, clipped, "clipped weights", VERMILLION, width=edges[1] - edges[0]),
        line(MAIN, levels, counts, "grid", LIVE, mode="markers"),
        line(BELOW, dense[shown], dense[shown], "unchanged", DENSE),
        line(BELOW, dense[shown], stairs, "rounded", LIVE, mode="markers", marker={"size": 3, "color": LIVE}),
    ]


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    _, after = view.layer_pair(layer)
    if not isinstance(after, Coded):
        return f"{layer}: not quantized."
    codes = after.codes()
    error = (kernel_of(view.before.get_submodule(layer)) - after.dense()) if codes.shape == after.dense().shape else None
    used = len(codes.unique())
    text = f"{layer}: {used} of {2**after.bits - (after.bits > 1)} codes of {after.bits} bits are used"
    return text + ("." if error is None else f"; the largest rounding error is {error.abs().max().item():.3g}.")


PICTURE = Picture(
    traces,
    ("weights (grey), clipped (red), grid (blue)", "rounded weight against weight"),
    say,
    {"yaxis4": {"type": "log", "title": {"text": "count"}}, "xaxis7": {"title": {"text": "weight"}}},
)
