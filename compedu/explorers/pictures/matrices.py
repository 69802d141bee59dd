"""Structural matrices: the dense matrix, its projection and the difference; free numbers and copies."""

import numpy as np

from compedu.explorers.colours import DENSE, LIVE
from compedu.explorers.pictures.picture import BELOW, MAIN, Picture, as_matrix, bars, heatmap
from compedu.explorers.view import View
from compedu.forms import BlockCirculant, kernel_of

SIDE = 40  # the top left corner that is shown


def traces(view: View, layer: str) -> list[dict]:
    """Return three matrices side by side, and the numbers stored beside the numbers meant."""
    before, after = view.layer_pair(layer)
    dense = _corner(before)
    made = _corner(after) if after is not None else dense
    gap = np.full((len(dense), 2), np.nan)
    beside = np.concatenate([dense, gap, made, gap, dense - made], axis=1)
    counts = _counts(before, after)
    return [
        heatmap(MAIN, beside, "weight", limit=float(np.abs(dense).max()) / 2),
        bars(BELOW, ["dense", "this form"], counts, "numbers stored", [DENSE, LIVE], text=counts, textposition="auto"),
    ]


def _corner(layer) -> np.ndarray:
    kernel = kernel_of(layer)
    return as_matrix(kernel if kernel.ndim == 2 else kernel[:, :, 0, 0])[:SIDE, :SIDE]


def _counts(before, after) -> list[int]:
    dense = kernel_of(before).numel()
    return [dense, after.columns.numel() if isinstance(after, BlockCirculant) else dense]


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    before, after = view.layer_pair(layer)
    dense, free = _counts(before, after)
    kernel = kernel_of(before)
    left = 1.0 if after is None else float(((kernel - kernel_of(after)).norm() / kernel.norm()).detach())
    return f"{layer}: {free:,} free numbers stand for {dense:,}; the projection misses {left:.0%} of the matrix's norm."


PICTURE = Picture(
    traces,
    ("dense | projected | difference (a corner)", "numbers stored in the layer"),
    say,
    {"yaxis4": {"autorange": "reversed"}},
)
