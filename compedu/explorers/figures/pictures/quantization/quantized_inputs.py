"""Quantization of activations: the inputs of a layer on some images, the grid that they are rounded to, the error."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compedu.explorers.figures.colors import DENSE, LIVE, VERMILLION
from compedu.explorers.figures.pictures.picture import SLANTED, Picture, Table, bars, layer_names, line, percent_text
from compedu.explorers.figures.places import NAMED, down, title
from compedu.explorers.figures.plots import BELOW, MAIN
from compedu.explorers.view import View
from compedu.forms import ActivationQuantizer
from compedu.graph.copying import inference_copy
from compedu.methods.quantization.shared.calibration import watch
from compedu.methods.quantization.smooth_quant import SmoothQuant

IMAGES = 64  # of the split, whose activations are shown
BINS = 91


def main(view: View, layer: str) -> list[dict]:
    """Return the histogram of a layer's inputs, those beyond the grid in orange, and how often each code is used."""
    x = inputs(view)[layer]
    act = quantizer(view, layer)
    counts, edges = np.histogram(x, BINS)
    middle = (edges[1:] + edges[:-1]) / 2
    width = edges[1] - edges[0]
    low, high = (-np.inf, np.inf) if act is None else ends(act)
    clipped = np.histogram(x[(x < low) | (x > high)], edges)[0]
    levels, times = (np.arange(0), np.arange(0)) if act is None else np.unique(rounded(act, x), return_counts=True)
    return [
        bars(MAIN, middle, counts.astype(np.int32), "inputs", DENSE, width=width),
        bars(MAIN, middle, clipped.astype(np.int32), "clipped inputs", VERMILLION, width=width),
        line(
            MAIN, levels.astype(np.float32), times.astype(np.int32), "inputs with this code", LIVE,
            mode="markers", marker={"size": 5, "color": LIVE},
        ),
    ]  # fmt: skip


def below(view: View, layer: str) -> list[dict]:
    """Return the relative error of each layer's rounded inputs, in percent."""
    names = layer_names(view)
    return [bars(BELOW, names, [100 * (error(view, name) or 0.0) for name in names], "error, %", VERMILLION)]


def inputs(view: View) -> dict[str, np.ndarray]:
    """Return the inputs of each layer on some images, flattened, before they are rounded.

    They are those of the dense network; where scales moved into weights, whose grids fit no inputs of the dense
    network, those of the compressed one.
    """
    after = view.after
    if after is None or not isinstance(view.method, SmoothQuant):
        return view.once("inputs", lambda: _inputs(view, view.before))
    return of_network(view, "inputs after", after, lambda: _inputs(view, after))


def of_network(view: View, key: str, network: nn.Module, make: Callable[[], Any]) -> Any:
    """Return the result of `make`, computed once for each `network`, the last of which is kept."""
    known = view.kept.get(key, (None, None))
    if known[0] is not network:
        known = (network, make())
        view.kept[key] = known
    return known[1]


def _inputs(view: View, network: nn.Module) -> dict[str, np.ndarray]:
    network = inference_copy(network)  # hooks on the given one would go with each copy that the worker runs meanwhile
    seen: dict[str, list[np.ndarray]] = {name: [] for name in layer_names(view)}
    layers = {name: network.get_submodule(name) for name in seen}
    watch(network, layers, view.data, (images(view),), lambda name, x: seen[name].append(x.numpy().reshape(-1)))
    return {name: np.concatenate(parts) if parts else np.zeros(1, dtype=np.float32) for name, parts in seen.items()}


def images(view: View) -> Tensor:
    """Return the images whose activations are shown."""
    return view.data.split(view.split)[0][:IMAGES]


def quantizer(view: View, layer: str) -> ActivationQuantizer | None:
    """Return the quantizer of a layer's inputs, or None where they stay in floating point."""
    _, after = view.layer_pair(layer)
    act = getattr(after, "act", None)
    return act if isinstance(act, ActivationQuantizer) else None


def ends(act: ActivationQuantizer) -> tuple[float, float]:
    """Return the ends of the range that is not clipped: the grid, and half a step beyond it on either side."""
    step = act.scale.item()
    zero = act.zero_point.item()
    # A code q in 0..2^bits - 1 stands for (q - zero) * step; rounding to the nearest adds half a step at either end.
    return (-zero - 0.5) * step, (2**act.bits - 1 - zero + 0.5) * step


def rounded(act: ActivationQuantizer, x: np.ndarray) -> np.ndarray:
    """Return the inputs as the layer reads them."""
    with torch.no_grad():
        return act(torch.from_numpy(x)).numpy()


def error(view: View, layer: str) -> float | None:
    """Return the distance of rounded inputs from the inputs, relative to their norm; None where none are rounded."""
    act = quantizer(view, layer)
    x = inputs(view)[layer]
    return None if act is None else float(np.linalg.norm(rounded(act, x) - x) / max(np.linalg.norm(x), 1e-12))


def clipped_share(view: View, layer: str) -> float | None:
    """Return the share of the inputs outside the range of the grid."""
    act = quantizer(view, layer)
    x = inputs(view)[layer]
    if act is None:
        return None
    low, high = ends(act)
    return float(((x < low) | (x > high)).mean())


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    act = quantizer(view, layer)
    if act is None:
        return f"{layer}: inputs stay in float (activation bits)"
    return (
        f"{layer}: inputs in {act.bits} bits, "
        f"{percent_text(clipped_share(view, layer))} clipped, error {percent_text(error(view, layer))}"
    )


def table(view: View) -> Table:
    """Return grid and error of each layer's inputs."""
    rows = []
    for name in layer_names(view):
        act = quantizer(view, name)
        step = "" if act is None else f"{act.scale.item():.4g}"
        rows.append((
            name, "float" if act is None else act.bits, step, percent_text(clipped_share(view, name)),
            percent_text(error(view, name)),
        ))  # fmt: skip
    return ("layer", "bits an input", "step", "clipped", "error of the inputs"), rows


PICTURE = Picture(
    name="inputs of the layer",
    main=main,
    below=below,
    headings=("inputs: gray = all, orange = clipped, blue = codes", "error of the inputs, %"),
    say=say,
    table=table,
    axes={
        MAIN.yaxis: {"type": "log", "dtick": 1, "exponentformat": "SI"},
        MAIN.xaxis: {"title": title("input")},
        BELOW.xaxis: SLANTED,
        BELOW.yaxis: {"nticks": 3, "rangemode": "tozero", "domain": down(*NAMED)},
    },
)
