"""Quantization: the weights on their grid, the staircase from weight to code, the error of each filter."""

import numpy as np

from compedu.explorers.figures.colours import DENSE, LIVE, VERMILLION
from compedu.explorers.figures.pictures.picture import (
    BELOW,
    BESIDE,
    MAIN,
    Picture,
    Table,
    as_matrix,
    bars,
    dense_matrix,
    layer_names,
    line,
    percent_text,
)  # fmt: skip
from compedu.explorers.figures.places import LEFT, across
from compedu.explorers.view import View
from compedu.forms import Coded, kernel_of
from compedu.metrics import costs

BINS = 91
SAMPLE = 300


def main(view: View, layer: str) -> list[dict]:
    """Return the histogram of the weights in steps of their grid, its clipped ends, and how often each code is used."""
    steps, codes, top = in_steps(view, layer)
    reach = max(top + 0.5, float(np.abs(steps).max()))
    counts, edges = np.histogram(steps, BINS, (-reach, reach))
    middle, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    clipped = np.where(np.abs(middle) > top + 0.5, counts, 0)
    used, times = (np.arange(0), np.arange(0)) if codes is None else np.unique(codes, return_counts=True)
    return [
        bars(MAIN, middle, counts.astype(np.int32), "weights", DENSE, width=width),
        bars(MAIN, middle, clipped.astype(np.int32), "clipped weights", VERMILLION, width=width),
        line(
            MAIN, used.astype(np.int32), times.astype(np.int32), "weights with this code", LIVE,
            mode="markers", marker={"size": 5, "color": LIVE},
        ),
    ]  # fmt: skip


def below(view: View, layer: str) -> list[dict]:
    """Return code against weight for a sample of weights, and the relative error of each filter."""
    steps, codes, _top = in_steps(view, layer)
    order = np.argsort(steps[:: max(1, len(steps) // SAMPLE)])
    some = steps[:: max(1, len(steps) // SAMPLE)][order]
    stairs = some if codes is None else codes[:: max(1, len(steps) // SAMPLE)][order]
    reach = float(np.abs(some).max(initial=1.0))
    errors = filter_errors(view, layer)
    return [
        line(BELOW, [-reach, reach], [-reach, reach], "unchanged", DENSE, line={"dash": "dot", "width": 1}),
        line(BELOW, some, stairs.astype(np.float32), "code", LIVE, line={"shape": "hv"}),
        bars(BESIDE, np.arange(len(errors), dtype=np.int32), errors, "error, %", VERMILLION),
    ]


def in_steps(view: View, layer: str) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Return all weights of a layer as multiples of the grid's step, their codes, and the largest code.

    Without a grid the largest weight counts as 127 steps, and there are no codes.
    """
    _, after = view.layer_pair(layer)
    dense = dense_matrix(view, layer)
    if not isinstance(after, Coded) or as_matrix(after.latent).shape != dense.shape:
        return (dense / np.abs(dense).max() * 127).reshape(-1), None, 127
    scale = after.scale.detach().cpu().numpy().reshape(-1, 1)
    latent = as_matrix(after.latent)  # batch normalization may have been folded in
    return (latent / scale).reshape(-1), as_matrix(after.codes()).reshape(-1), after.top


def filter_errors(view: View, layer: str) -> np.ndarray:
    """Return the distance of each filter from the one that was rounded, relative to that, in percent."""
    _, after = view.layer_pair(layer)
    if not isinstance(after, Coded):
        return np.zeros(len(dense_matrix(view, layer)), dtype=np.float32)
    latent, made = as_matrix(after.latent), as_matrix(kernel_of(after))
    return (100 * np.linalg.norm(latent - made, axis=1) / np.maximum(np.linalg.norm(latent, axis=1), 1e-12)).astype(
        np.float32
    )


def kernel_error(after: Coded) -> str:
    """Return how far the codes are from the weights that were rounded, batch normalization folded in, in percent."""
    return percent_text(costs.relative_error(after.dense().detach(), after.latent.detach())) or "unknown"


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    _, after = view.layer_pair(layer)
    if not isinstance(after, Coded):
        return f"{layer}: not quantized"
    used, possible = _used(after)
    return f"{layer}: {after.bits} bits, {used} of {possible} codes used, error {kernel_error(after)}"


def _used(layer: Coded) -> tuple[int, int]:
    return len(np.unique(layer.codes().numpy())), 2**layer.bits - (layer.bits > 1)


def table(view: View) -> Table:
    """Return bits, codes and error of each layer."""
    rows = []
    for name in layer_names(view):
        _, after = view.layer_pair(name)
        if isinstance(after, Coded):
            used, possible = _used(after)
            inputs = getattr(after.act, "bits", "float")
            rows.append((name, after.bits, f"{used} of {possible}", kernel_error(after), inputs))
        else:
            rows.append((name, "float", "", "", "float"))
    return ("layer", "bits a weight", "codes used", "error of the kernel", "bits an input"), rows


PICTURE = Picture(
    "weights", main, below,
    ("weights in grid steps: orange = clipped, blue = codes", "code against weight | filters' errors, %"),
    say, table,
    {
        "yaxis4": {"type": "log", "dtick": 1, "exponentformat": "SI"},
        "xaxis7": {"domain": across(LEFT[0], 190), "nticks": 5}, "yaxis7": {"nticks": 3},
        "xaxis8": {"visible": True, "nticks": 3},
        "yaxis8": {"visible": True, "nticks": 3, "rangemode": "tozero", "side": "right"},
    },
)  # fmt: skip
