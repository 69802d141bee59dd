"""The figures of an explorer as plain data: gauges, and for Plotly the family's picture and the trade-off curve."""

from typing import Any, TypeAlias

from compedu.explorers.figures import gauges, tradeoff
from compedu.explorers.figures.axes import axis, base
from compedu.explorers.figures.colors import BLACK
from compedu.explorers.figures.pictures import Picture
from compedu.explorers.figures.places import HEIGHT, LEFT, LOWER, RIGHT_END, UPPER, WIDTH, across, down
from compedu.explorers.figures.plots import BELOW, BESIDE, MAIN
from compedu.explorers.view import View

Figure: TypeAlias = dict[str, Any]  # "data" and "layout", as Plotly takes them


def moving(view: View) -> dict[str, Figure]:
    """Return the figures that follow every move of a knob, by name: the gauges and the trade-off curve."""
    return gauges.figures(view) | {"tradeoff": tradeoff.figure(view)}


def drawn(view: View, picture: Picture, layer: str) -> Figure:
    """Return the figure of the picture, which follows the network."""
    return {"data": picture.traces(view, layer), "layout": picture_layout(view, picture)}


def picture_layout(view: View, picture: Picture) -> dict[str, Any]:
    """Return the layout of a picture: it depends on the dense network, and where layers outgrow it, on them."""
    axes = picture_axes()
    for name, settings in picture.axes.items():
        axes[name] = axes[name] | (settings(view) if callable(settings) else settings)
    below = round(HEIGHT * (1 - axes[BELOW.yaxis]["domain"][1])) - 22
    return base(WIDTH, HEIGHT) | axes | {
        "annotations": _headings(below, picture.headings[1]),
        "shapes": [BLACK_GROUND] if picture.black else [], "images": picture.images(view),
    }  # fmt: skip


def _headings(top: float, text: str) -> list[dict[str, Any]]:
    """Return a heading in one piece, or in two, "left | right", where a second plot stands beside the first."""
    return [heading(x, top, part) for x, part in zip((0, RIGHT_END[0] - 4), text.split(" | "), strict=False) if part]


def picture_axes() -> dict[str, Any]:
    """Return the axes of the picture's plots."""
    return {
        MAIN.xaxis: axis(MAIN.y, across(*LEFT)), MAIN.yaxis: axis(MAIN.x, down(*UPPER)),
        BELOW.xaxis: axis(BELOW.y, across(*LEFT)), BELOW.yaxis: axis(BELOW.x, down(*LOWER)),
        BESIDE.xaxis: axis(BESIDE.y, across(*RIGHT_END), visible=False),
        BESIDE.yaxis: axis(BESIDE.x, down(*LOWER), visible=False),
    }  # fmt: skip


def heading(x: float, top: float, text: str) -> dict[str, Any]:
    """Return a line of text with its upper left corner at this pixel of the picture."""
    return {
        "x": x / WIDTH, "y": 1 - top / HEIGHT, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "top",
        "showarrow": False, "text": text, "align": "left",
    }  # fmt: skip


BLACK_GROUND = {  # shows through a picture where weights were removed
    "type": "rect", "xref": f"{MAIN.x} domain", "yref": f"{MAIN.y} domain", "x0": 0, "x1": 1, "y0": 0, "y1": 1,
    "fillcolor": BLACK, "line": {"width": 0}, "layer": "below",
}  # fmt: skip
