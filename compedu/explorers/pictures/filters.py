"""Filters: the bank of a convolution, with what is tied or removed; and how many are left in each layer."""

import numpy as np
import torch

from compedu.explorers.colours import DENSE, LIVE
from compedu.explorers.pictures.picture import BELOW, MAIN, Picture, bars, heatmap
from compedu.explorers.view import View
from compedu.forms import CReLUFilters, kernel_of
from compedu.methods.layers import compressible

COLUMNS = 10


def traces(view: View, layer: str) -> list[dict]:
    """Return the filters of a layer as thumbnails (what is gone is black), and the filters left in every layer."""
    before, after = view.layer_pair(layer)
    bank = _bank(kernel_of(after if isinstance(after, CReLUFilters) else before))
    gone = _removed(before, after)
    if gone is not None:
        bank[gone] = np.nan
    layers, _ = compressible(view.before)
    names = list(layers)
    dense = [kernel_of(module).shape[0] for module in layers.values()]
    return [
        heatmap(MAIN, _montage(bank), "weight", limit=float(np.nanmax(np.abs(bank), initial=1e-12))),
        bars(BELOW, names, dense, "filters of the dense network", DENSE),
        bars(BELOW, names, [_free(view, name) for name in names], "free filters left", LIVE),
    ]


def _bank(kernel: torch.Tensor) -> np.ndarray:
    """Return the mean over the input channels of each filter: (out, height, width); rows of a linear layer are cut."""
    array = kernel.detach().float().cpu().numpy()
    if array.ndim == 2:
        side = max(1, min(8, int(array.shape[1] ** 0.5)))
        return array[:, : side * side].reshape(len(array), side, side).copy()
    return array.mean(axis=1)


def _montage(bank: np.ndarray) -> np.ndarray:
    count, height, width = bank.shape
    count = min(count, 60)
    rows = -(-count // COLUMNS)
    page = np.zeros((rows * (height + 1), COLUMNS * (width + 1)))
    for index in range(count):
        top, left = (index // COLUMNS) * (height + 1), (index % COLUMNS) * (width + 1)
        page[top : top + height, left : left + width] = bank[index]
    return page


def _removed(before, after) -> np.ndarray | None:
    """Return which filters of a layer are not found in the smaller layer any more; None where none was removed."""
    if after is None or not hasattr(after, "weight"):
        return None
    large, small = kernel_of(before).detach(), kernel_of(after).detach()
    if len(small) == len(large):
        return None
    norms = large.flatten(1).abs().sum(1)
    gone = np.zeros(len(large), dtype=bool)
    gone[torch.argsort(norms)[: len(large) - len(small)].numpy()] = True
    return gone


def _free(view: View, name: str) -> int:
    _, after = view.layer_pair(name)
    if after is None:
        return 0
    return len(after.base) if isinstance(after, CReLUFilters) else len(kernel_of(after))


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    before = kernel_of(view.before.get_submodule(layer)).shape[0]
    return f"{layer}: {_free(view, layer)} free filters instead of {before}."


PICTURE = Picture(
    traces,
    ("filters of the layer: black = removed", "filters: grey = dense, blue = left"),
    say,
    {"yaxis4": {"autorange": "reversed", "visible": False}, "xaxis4": {"visible": False}},
)
