"""Batch-norm re-estimation: the channel statistics of the batch norm after a layer, before and after."""

import numpy as np

from compedu.errors import CompressionError
from compedu.explorers.figures.colors import DENSE, LIVE
from compedu.explorers.figures.pictures.picture import SLANTED, Picture, Table, bars, layer_names, line
from compedu.explorers.figures.places import NAMED, down
from compedu.explorers.figures.plots import BELOW, MAIN
from compedu.explorers.view import View
from compedu.graph import batch_norm_pairs


def norms(view: View) -> dict[str, str]:
    """Return the batch norm of each layer that has its own, by name; empty where the network cannot be traced."""
    return view.once("norms", lambda: _norms(view))


def _norms(view: View) -> dict[str, str]:
    try:
        return dict(batch_norm_pairs(view.before))
    except CompressionError:  # without a graph it is unknown which norm reads which layer
        return {}


def statistics(view: View, layer: str) -> np.ndarray:
    """Return running means and standard deviations of the norm after `layer`, before and after, of shape (4, n)."""
    if layer not in norms(view):
        return np.zeros((4, 0), dtype=np.float32)
    networks = (view.before, view.before if view.after is None else view.after)
    found = [network.get_submodule(norms(view)[layer]) for network in networks]
    return np.stack([row for norm in found for row in (norm.running_mean.numpy(), norm.running_var.sqrt().numpy())])


def shift(view: View, layer: str) -> float:
    """Return the mean shift of a layer's channel means, in former standard deviations; 0 without a batch norm."""
    mean, deviation, now, _ = statistics(view, layer)
    return float(np.mean(np.abs(now - mean) / np.maximum(deviation, 1e-12))) if mean.size else 0.0


def main(view: View, layer: str) -> list[dict]:
    """Return the standard deviation of each channel after against before, and the line of no change."""
    _, before, _, after = statistics(view, layer)
    limit = float(max(before.max(initial=0), after.max(initial=0))) or 1.0
    return [
        line(MAIN, [0, limit], [0, limit], "unchanged", DENSE, line={"dash": "dot"}),
        line(MAIN, before, after, "channel", LIVE, mode="markers", marker={"size": 4, "color": LIVE}),
    ]


def below(view: View, layer: str) -> list[dict]:
    """Return the mean shift of each layer's channel means."""
    names = list(norms(view))
    return [bars(BELOW, names, [shift(view, name) for name in names], "means moved, in standard deviations")]


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    if layer not in norms(view):
        return f"{layer}: no batch norm of its own after it"
    return f"{layer}: means moved by {shift(view, layer):.2f} deviations"


def table(view: View) -> Table:
    """Return the mean shift of each layer's channel means."""
    rows = [
        (name, norms(view).get(name, ""), f"{shift(view, name):.3f}" if name in norms(view) else "")
        for name in layer_names(view)
    ]
    return ("layer", "batch norm after it", "means moved, in standard deviations"), rows


PICTURE = Picture(
    name="statistics",
    main=main,
    below=below,
    headings=("deviation of each channel, after against before", "means: moved by so many deviations"),
    say=say,
    table=table,
    axes={
        MAIN.xaxis: {"nticks": 5},
        MAIN.yaxis: {"nticks": 5},
        BELOW.xaxis: SLANTED,
        BELOW.yaxis: {"rangemode": "tozero", "nticks": 3, "domain": down(*NAMED)},
    },
)
