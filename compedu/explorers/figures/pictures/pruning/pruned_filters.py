"""Filter pruning: a layer's filters as small images, removed ones faint, and with them the next layer's inputs."""

from typing import NamedTuple

import numpy as np
import torch

from compedu.errors import CompressionError
from compedu.explorers.figures.colors import LIVE, WHITE
from compedu.explorers.figures.pictures.picture import (
    SLANTED,
    Picture,
    Table,
    first_convolution,
    heatmap,
    images_of,
    layer_names,
    montage,
    percent_text,
    shares_axis,
    shares_left,
    untouched,
)
from compedu.explorers.figures.places import UPPER, across, down, title
from compedu.explorers.figures.plots import BELOW, BESIDE, MAIN
from compedu.explorers.view import View
from compedu.forms import weight_of
from compedu.graph import find_channels
from compedu.methods.pruning.shared.channel_removal import taken_out_first

MOST = 40  # filters that are shown
READERS = 24  # outputs of the next layer that are shown
MOST_LISTED = 10  # removed filters named in the table
FADED = 0.2
WHITE_TO_BLUE = [[0.0, WHITE], [0.5, WHITE], [1.0, LIVE]]


class Channels(NamedTuple):
    """Where the filters of a layer go: the group, the channel of each filter in it, the layer that reads them, and the
    channel of each of its inputs."""

    group: str
    filters: np.ndarray
    reader: str | None
    inputs: np.ndarray | None


def main(view: View, layer: str) -> list[dict]:
    """Return the filters, strongest first, and the next layer's weights on each of them; removed ones are faint."""
    order, bank, strength = view.once(("filters", layer), lambda: _dense(view, layer))
    faint = np.isin(order, gone(view, layer))
    limit = float(np.abs(bank).max()) or 1.0
    top = float(strength.max(initial=0)) or 1.0
    return [
        heatmap(MAIN, montage(bank, ~faint), "weight", limit=limit),
        heatmap(MAIN, montage(bank, faint), "gone", limit=limit, opacity=FADED),
        heatmap(BESIDE, np.where(faint, np.nan, strength), "weights of the next layer", WHITE_TO_BLUE, top),
        heatmap(BESIDE, np.where(faint, strength, np.nan), "gone with its filter", WHITE_TO_BLUE, top, opacity=FADED),
    ]


def _dense(view: View, layer: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the filters of largest L1 norm: their indices, their images, and how strongly each is read."""
    weight = weight_of(view.before.get_submodule(layer)).detach()
    order = torch.argsort(weight.flatten(1).abs().sum(1), descending=True, stable=True)[:MOST]
    return order.numpy(), images_of(weight[order]), _strength(view, layer)[:, order.numpy()]


def _strength(view: View, layer: str) -> np.ndarray:
    """Return the reading layer's mean absolute weight, (first outputs, filters of `layer`); zeros where none reads."""
    found = channels(view).get(layer)
    if found is None or found.reader is None:
        return np.zeros((READERS, len(weight_of(view.before.get_submodule(layer)))), dtype=np.float32)
    weight = weight_of(view.before.get_submodule(found.reader)).detach()[:READERS].abs()
    weights = (weight.mean((2, 3)) if weight.ndim == 4 else weight).numpy()
    belongs = found.inputs[: weights.shape[1], None] == found.filters[None, :]  # the first group of a grouped layer
    return (weights @ belongs / np.maximum(belongs.sum(0), 1)).astype(np.float32)


def channels(view: View) -> dict[str, Channels]:
    """Return where the filters of each layer go, for the layers whose filters can be followed."""
    return view.once("channels", lambda: _channels(view))


def _channels(view: View) -> dict[str, Channels]:
    try:
        groups = find_channels(view.before, view.data.example).groups
    except CompressionError:  # without a graph the readers of a layer are unknown
        return {}
    made = {}
    for group in groups:
        read = next(((reader.layer, reader.channels.numpy()) for reader in group.readers), (None, None))
        for name in group.producers:
            made[name] = Channels(group.name, group.filters(name).numpy(), *read)
    return made


def gone(view: View, layer: str) -> np.ndarray:
    """Return the indices of the layer's removed filters, as the compressed network itself records them."""
    found = channels(view).get(layer)
    if view.after is None or found is None:
        return np.arange(0)
    return np.flatnonzero(np.isin(found.filters, taken_out_first(view.after).get(found.group, ())))


def below(view: View, layer: str) -> list[dict]:
    """Return the filters that are left in every layer, in percent of those of the dense network."""
    return shares_left(BELOW, layer_names(view), all_counts(view), "filters left", "filters of the dense network")


def all_counts(view: View) -> list[tuple[int, int]]:
    """Return the filters of all layers, in order."""
    return [filter_counts(view, name) for name in layer_names(view)]


def filter_counts(view: View, layer: str) -> tuple[int, int]:
    """Return how many filters of a layer are left, and how many the dense network has."""
    before, after = view.layer_pair(layer)
    dense = len(weight_of(before))
    return (dense if after is None else len(weight_of(after))), dense


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    left, dense = filter_counts(view, layer)
    if view.after is None:
        return untouched(layer)
    return f"{layer}: {left} of {dense} filters left"


def table(view: View) -> Table:
    """Return the filters of each layer."""
    rows = []
    for name in layer_names(view):
        left, dense = filter_counts(view, name)
        read = channels(view).get(name)
        rows.append((
            name, left, dense, percent_text(left / dense), (read and read.reader) or "",
            _listed(gone(view, name)),
        ))  # fmt: skip
    return ("layer", "filters left", "filters when dense", "share", "read by", "removed"), rows


def _listed(numbers: np.ndarray) -> str:
    """Return the first numbers, and how many others there are."""
    shown = ", ".join(map(str, numbers[:MOST_LISTED]))
    return shown if len(numbers) <= MOST_LISTED else f"{shown} and {len(numbers) - MOST_LISTED} more"


PICTURE = Picture(
    name="filters",
    main=main,
    below=below,
    headings=("strongest first; faint = gone | who reads them", "filters left in each layer, %; above: how many"),
    say=say,
    table=table,
    axes={
        MAIN.xaxis: {"domain": across(4, 196), "visible": False},
        MAIN.yaxis: {"autorange": "reversed", "scaleanchor": MAIN.x, "visible": False, "constraintoward": "top"},
        BESIDE.xaxis: {
            "domain": across(208, 300),
            "visible": True,
            "showticklabels": False,
            "ticks": "",
            "title": title("filters", 6),
        },
        BESIDE.yaxis: {"domain": down(*UPPER), "autorange": "reversed"},
        BELOW.yaxis: shares_axis(all_counts),
        BELOW.xaxis: SLANTED,
    },
    start=first_convolution,
)
