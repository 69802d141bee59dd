"""What a picture of a family is, and the few kinds of traces that all pictures consist of."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from compedu.explorers.figures.colors import DENSE, LIVE, SIGNED
from compedu.explorers.figures.places import NAMED, down
from compedu.explorers.figures.plots import Plot
from compedu.explorers.view import View
from compedu.explorers.words import percent
from compedu.forms import Block, FormFacts, weight_of
from compedu.methods.layers import compressible
from compedu.metrics import costs

MOST_COUNTED = 9  # layers whose counts fit above their bars
SHARE_TICKS = 3  # at most so many steps on an axis of shares, which is low
GROWING = {"rangemode": "tozero", "nticks": 5}  # a vertical axis from zero to whatever there is
# Names of layers below bars: horizontal where there is room for them, else slanted.
SLANTED = {"autotickangles": [0, 45]}

Table = tuple[tuple[str, ...], list[tuple]]
Counts = Sequence[tuple[int, int]]  # of each layer, after and before


def largest_layer(model: nn.Module) -> str:
    """Return the name of the compressible layer with the most weights."""
    layers, _ = compressible(model)
    return max(layers, key=lambda name: weight_of(layers[name]).numel())


def first_convolution(model: nn.Module) -> str:
    """Return the first convolution, or the largest layer of a network without one."""
    layers, _ = compressible(model)
    return next((name for name, layer in layers.items() if weight_of(layer).ndim == 4), largest_layer(model))


@dataclass(frozen=True)
class Picture:
    """One picture of a method: traces for the main plot and for those below it, and the same as a sentence and a table.

    `name` is the learner's choice in a list. `main`, `below` and `say` take the view and the shown layer, `table`
    covers all layers. `headings` explain colors and axes, `axes` are settings of the plots' axes, or functions that
    return them for a view, `start` chooses the first layer.
    `black` says whether black shows where nothing is drawn; `lively`, whether the picture follows the knobs even before
    the network does. `prepare` computes on the worker what takes long, and asks regularly whether it is still wanted.
    """

    name: str
    main: Callable[[View, str], list[dict]]
    below: Callable[[View, str], list[dict]]
    headings: tuple[str, str]
    say: Callable[[View, str], str]
    table: Callable[[View], Table]
    axes: Mapping[str, dict | Callable[[View], dict]] = field(default_factory=dict)
    start: Callable[[nn.Module], str] = largest_layer
    images: Callable[[View], list[dict[str, Any]]] = lambda view: []
    black: bool = False
    lively: bool = False
    prepare: Callable[[View, Callable[[], bool]], None] | None = None

    def caption(self, view: View, layer: str) -> str:
        """Return the sentence of `say` with the layer's short name, so that it fits the width of the picture."""
        return self.say(view, layer).replace(
            layer, dict(zip(layer_names(view), short_names(layer_names(view)), strict=True))[layer]
        )

    def traces(self, view: View, layer: str) -> list[dict]:
        """Return the traces of all plots, always in the same order and number."""
        return [*self.main(view, layer), *self.below(view, layer)]


def heatmap(at: Plot, values: np.ndarray, name: str, scale: list = SIGNED, limit: float | None = None, **style) -> dict:
    """Return a heat map of a matrix (rows, columns), symmetric about zero; NaN is not drawn."""
    limit = limit or float(np.nanmax(np.abs(values), initial=1e-12))
    return {
        "type": "heatmap", **at.axes, "z": with_gaps(values), "colorscale": scale,
        "zmin": -limit, "zmax": limit, "showscale": False, "hoverongaps": False, "name": name,
        "hovertemplate": name + "<br>row %{y}, column %{x}: %{z:.3g}<extra></extra>",
    } | style  # fmt: skip


def images_of(weight: Tensor) -> np.ndarray:
    """Return the mean of each filter over its input channels, (out, height, width); a linear layer's as squares."""
    if weight.ndim == 4:
        return weight.mean(1).numpy()
    side = int(weight.shape[1] ** 0.5)
    return weight[:, : side * side].reshape(len(weight), side, side).numpy()


def montage(bank: np.ndarray, which: np.ndarray, columns: int = 8) -> np.ndarray:
    """Return the images of `which` side by side with gaps; NaN where nothing is drawn."""
    _, height, width = bank.shape
    page = np.full((-(-len(bank) // columns) * (height + 1) - 1, columns * (width + 1) - 1), np.nan, dtype=np.float32)
    for index in np.flatnonzero(which):
        top = index // columns * (height + 1)
        left = index % columns * (width + 1)
        page[top : top + height, left : left + width] = bank[index]
    return page


def with_gaps(values: np.ndarray) -> list[list[float | None]]:
    """Return a matrix as rows with None for NaN, which JSON lacks: a message with NaN would not reach the page."""
    return np.where(np.isnan(values), None, values.astype(np.float64).round(6)).tolist()


def line(at: Plot, x, y, name: str, color: str = LIVE, mode: str = "lines", **style) -> dict:
    """Return a curve or, with another `mode`, points."""
    return {
        "type": "scatter", "mode": mode, **at.axes, "x": x, "y": y, "name": name,
        "line": {"color": color, "width": 2} | style.pop("line", {}), "marker": {"color": color, "size": 7},
        "hovertemplate": name + ": %{y:.3g}<extra></extra>",
    } | style  # fmt: skip


def bars(at: Plot, x, y, name: str, color: str | list = LIVE, **style) -> dict:
    """Return vertical bars over numbers or names; names of layers are shortened as long as they stay distinct."""
    x = short_names(x) if len(x) and isinstance(x[0], str) else x
    return {
        "type": "bar", **at.axes, "x": x, "y": y, "name": name,
        "marker": {"color": color, "line": {"width": 0}}, "hovertemplate": "%{x}: %{y:.3g}<extra>" + name + "</extra>",
    } | style  # fmt: skip


def labels(shares: Sequence[float], most: int, unit: str = "") -> dict[str, Any]:
    """Return the settings that write `shares`, in percent, above the bars, or nothing above more than `most` bars.

    A full share reads "all": several "100" side by side would overlap. A `unit` follows each number, after a space.
    """
    words = [("all" if share > 99.5 else f"{share:.0f} {unit}".rstrip()) for share in shares]
    return written(words if len(shares) <= most else [""] * len(shares))


def written(text: Sequence[str]) -> dict[str, Any]:
    """Return the settings that write a `text` above each bar, horizontally, even beyond the axes."""
    return {
        "text": list(text), "textposition": "outside", "textangle": 0, "constraintext": "none", "cliponaxis": False,
    }  # fmt: skip


def untouched(layer: str) -> str:
    """Return the sentence about a layer while there is no compressed network to show."""
    return f"{layer} of the dense network, none compressed yet"


def unfactored(view: View, layer: str) -> str:
    """Return the sentence about a layer that is not factored: no network is compressed yet, or the layer stays."""
    return untouched(layer) if view.after is None else f"{layer}: not factored"


def short_names(names: Sequence[str]) -> list[str]:
    """Return the part of each name after its last dot, or the full names where the short ones would not be distinct.

    >>> short_names(["features.conv1_1", "fc"]), short_names(["a.conv", "b.conv"])
    (['conv1_1', 'fc'], ['a.conv', 'b.conv'])
    """
    last = [name.rpartition(".")[2] for name in names]
    return last if len(set(last)) == len(set(names)) else list(names)


def _shares(counts: Counts) -> list[float]:
    return [100 * left / max(dense, 1) for left, dense in counts]


def shares_axis(counted: Callable[[View], Counts]) -> Callable[[View], dict]:
    """Return the settings of the axis of `shares_left`, in percent, with room for a line of text above the bars.

    Below 100 % it does not move with the knobs; it grows where a layer has become larger than the dense one.
    """

    def settings(view: View) -> dict:
        top = max(100.0, *_shares(counted(view)))
        step = 50 * 2 ** max(0, math.ceil(math.log2(top / (SHARE_TICKS * 50))))
        return {"range": [0, 1.5 * top], "tickvals": list(range(0, int(top) + 1, step)), "domain": down(*NAMED)}

    return settings


def shares_left(at: Plot, names: Sequence[str], counts: Counts, after: str, before: str) -> list[dict]:
    """Return two bars for each of `names`, one inside the other, for `counts` (after, before), labeled by two words.

    The outer one is 100 %, so that a halving looks like one in small layers and in large ones; the count after is
    written above the higher of both, where there is room.
    """
    shares = _shares(counts)
    told = [f"{left:,} of {dense:,}, {share:.1f} %" for (left, dense), share in zip(counts, shares, strict=True)]
    text = [short_count(left) if len(counts) <= MOST_COUNTED else "" for left, _ in counts]
    hover = {"hovertext": told, "hovertemplate": f"%{{x}}: %{{hovertext}}<extra>{after}</extra>"}
    outer = [word if share <= 100 else "" for word, share in zip(text, shares, strict=True)]
    inner = [word if share > 100 else "" for word, share in zip(text, shares, strict=True)]
    return [
        bars(at, names, [100] * len(counts), before, DENSE, width=0.8, **written(outer), **hover),
        bars(at, names, shares, after, LIVE, width=0.5, **written(inner), **hover),
    ]


def short_count(count: int) -> str:
    """Return a count in at most four characters up to a million, rounded.

    >>> [short_count(count) for count in (50, 1250, 156_500, 999_600, 2_359_296)]
    ['50', '1.2k', '156k', '1.0M', '2.4M']
    """
    for power, letter in ((1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * power:
            scaled = count / power
            return f"{scaled:.1f}{letter}" if scaled < 9.95 else f"{scaled:.0f}{letter}"
    return str(count)


def shrunk(matrix: np.ndarray, most: int = 96) -> np.ndarray:
    """Return at most `most` evenly spaced rows and columns of a matrix: a screen has no more pixels for it."""
    rows = np.linspace(0, matrix.shape[0] - 1, min(most, matrix.shape[0])).round().astype(int)
    columns = np.linspace(0, matrix.shape[1] - 1, min(most, matrix.shape[1])).round().astype(int)
    return matrix[np.ix_(rows, columns)]


def as_matrix(tensor) -> np.ndarray:
    """Return a weight or mask (out, in, ...) as a matrix (out, everything else)."""
    array = tensor.detach().cpu().numpy()
    return array.reshape(array.shape[0], -1)


def layer_names(view: View) -> list[str]:
    """Return the names of the dense network's compressible layers, in order."""
    return view.once("layers", lambda: list(compressible(view.before)[0]))


def dense_matrix(view: View, layer: str) -> np.ndarray:
    """Return the dense weight of a layer as a matrix."""
    return view.once(("matrix", layer), lambda: as_matrix(weight_of(view.layer_pair(layer)[0])))


def weight_after(view: View, layer: str) -> Tensor | None:
    """Return the dense weight of a layer as it is now; None where the layer was removed, or is a block and has none."""
    _, after = view.layer_pair(layer)
    return None if after is None or isinstance(after, Block) else weight_of(after).detach()


def facts_of(view: View, layer: str) -> FormFacts | None:
    """Return the form or block that a layer has become; None for an ordinary or removed layer."""
    _, after = view.layer_pair(layer)
    return after if isinstance(after, FormFacts) else None


def kind_now(view: View, layer: str) -> str:
    """Return the class name of a layer as it is now."""
    return type(view.layer_pair(layer)[1]).__name__


def relative_error(view: View, layer: str) -> float | None:
    """Return the relative distance of the layer's weight from the dense one (Frobenius norm); None if shapes differ."""
    before, after = view.layer_pair(layer)
    made = weight_after(view, layer)
    if made is None:
        return 0.0 if after is None else None
    return costs.relative_error(made, weight_of(before).detach())


def percent_text(share: float | None) -> str:
    """Return a share in percent, or an empty string for None."""
    return "" if share is None else percent(share)
