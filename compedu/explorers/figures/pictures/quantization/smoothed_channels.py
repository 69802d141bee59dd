"""Smoothing: the range of each input channel of a layer, in its inputs and in its weights, before and after."""

import numpy as np
from torch import nn

from compedu.explorers.figures.colors import DENSE, LIVE
from compedu.explorers.figures.pictures.picture import Picture, Table, bars, layer_names
from compedu.explorers.figures.pictures.quantization.quantized_inputs import images, of_network
from compedu.explorers.figures.pictures.quantization.quantized_weights import folded
from compedu.explorers.figures.places import title
from compedu.explorers.figures.plots import BELOW, MAIN, Plot
from compedu.explorers.view import View
from compedu.explorers.words import percent
from compedu.forms import Form, Geometry, weight_of
from compedu.graph.rescaling import largest_by_input
from compedu.methods.quantization.smooth_quant import largest_inputs

PERCENT = {"range": [0, 105], "tickvals": [0, 50, 100]}


def main(view: View, layer: str) -> list[dict]:
    """Return the largest input of each channel in percent of the layer's, in descending order of the dense network's.

    One scale serves all channels: one at 1 % has the use of 1 % of the codes.
    """
    return _pair(MAIN, "input", input_shares(view, layer), descending(view, layer))


def below(view: View, layer: str) -> list[dict]:
    """Return the largest weight of each channel in percent of the layer's, in the same order."""
    return _pair(BELOW, "weight", weight_shares(view, layer), descending(view, layer))


def _pair(at: Plot, of: str, shares: tuple[np.ndarray, np.ndarray | None], order: np.ndarray) -> list[dict]:
    before, after = shares
    places = np.arange(len(order), dtype=np.int32)
    shown = np.arange(0) if after is None else places
    smoothed = np.zeros(0) if after is None else after[order]
    return [
        bars(at, places, before[order], f"largest {of}, dense", DENSE, width=1),
        bars(at, shown, smoothed, f"largest {of}, smoothed", LIVE, width=0.5),
    ]


def descending(view: View, layer: str) -> np.ndarray:
    """Return the input channels of a layer in descending order of their largest input in the dense network."""
    return np.argsort(-input_shares(view, layer)[0], kind="stable")


def input_shares(view: View, layer: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the largest input of each channel, in percent of the layer's: dense, and smoothed before rounding."""
    before = view.once("largest inputs", lambda: _largest_inputs(view, view.before))[layer]
    after = view.after
    if after is None:
        return _of_largest(before), None
    return _of_largest(before), _of_largest(
        of_network(view, "largest inputs after", after, lambda: _largest_inputs(view, after))[layer]
    )


def _largest_inputs(view: View, network: nn.Module) -> dict[str, np.ndarray]:
    layers = {name: network.get_submodule(name) for name in layer_names(view)}
    found = largest_inputs(network, layers, view.data, images(view))
    return {name: found[name].numpy() if name in found else np.zeros(1) for name in layers}


def weight_shares(view: View, layer: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the largest weight of each channel, in percent of the layer's: dense, and smoothed before rounding."""
    _, after = view.layer_pair(layer)
    before = _largest_weights(folded(view).get_submodule(layer))
    return before, None if after is None else _largest_weights(after)


def _largest_weights(layer: nn.Module) -> np.ndarray:
    latent = layer.weights_before_rounding() if isinstance(layer, Form) else None
    weight = weight_of(layer) if latent is None else latent
    return _of_largest(largest_by_input(weight, Geometry.of(layer)).numpy())


def _of_largest(values: np.ndarray) -> np.ndarray:
    return (100 * values / max(float(values.max()), 1e-30)).astype(np.float32)


def _medians(shares: tuple[np.ndarray, np.ndarray | None]) -> tuple[str, str]:
    before, after = (None if one is None else percent(float(np.median(one)) / 100) for one in shares)
    return before or "", after or ""


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    before, after = _medians(input_shares(view, layer))
    return f"{layer}: median channel at {after}, dense {before}" if after else f"{layer}: median channel at {before}"


def table(view: View) -> Table:
    """Return the median over the channels of each layer."""
    names = layer_names(view)
    rows = [(name, *_medians(input_shares(view, name)), *_medians(weight_shares(view, name))) for name in names]
    return ("layer", "inputs, dense", "inputs, smoothed", "weights, dense", "weights, smoothed"), rows


PICTURE = Picture(
    name="range of the channels",
    main=main,
    below=below,
    headings=(
        "largest input by channel, %: gray = dense, blue = smoothed",
        "largest weight by channel, % (the same colors)",
    ),
    say=say,
    table=table,
    axes={
        MAIN.xaxis: {"title": title("channel")},
        MAIN.yaxis: PERCENT,
        BELOW.yaxis: PERCENT,
    },
)
