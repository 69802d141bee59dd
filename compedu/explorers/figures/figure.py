"""The one figure of an explorer: gauges on top, the family's picture on the left, the trade-off curve on the right."""

import math
import threading
from typing import Any

import numpy as np
import plotly.graph_objects as go

from compedu.explorers.figures import gauges, tradeoff
from compedu.explorers.figures.colors import BLACK, GRAY, TEXT
from compedu.explorers.figures.drawing import Drawing
from compedu.explorers.figures.pictures import Picture
from compedu.explorers.figures.places import (
    CURVE,
    GAUGES,
    HEIGHT,
    LEFT,
    LOWER,
    RIGHT,
    RIGHT_END,
    TEXT_SIZE,
    UPPER,
    WIDTH,
    across,
    down,
)
from compedu.explorers.figures.plots import (
    ACCURACY,
    BELOW,
    BESIDE,
    GAUGE_CAPTIONS,
    LEGEND,
    MAIN,
    PICTURE_CAPTION,
    SIZE,
    SPEED,
    TRADE_OFF,
)
from compedu.explorers.view import View
from compedu.explorers.words import bytes_text

FONT = "Arial, Liberation Sans, Helvetica, sans-serif"  # narrow where the system has one of the first
LINES = "rgba(140, 140, 140, 0.5)"


def traces(view: View, picture: Picture, layer: str) -> list[dict]:
    """Return all traces of the figure, always in the same order and number."""
    return moving(view) + drawn(view, picture, layer)


def moving(view: View) -> list[dict]:
    """Return the traces that follow every move of a knob: gauges and trade-off curve."""
    return gauges.traces(view) + tradeoff.traces(view)


def drawn(view: View, picture: Picture, layer: str) -> list[dict]:
    """Return the traces of the picture, with its caption; they follow the network."""
    caption = {
        "type": "scatter", "mode": "text", **PICTURE_CAPTION.axes, "x": [0], "y": [0], "hoverinfo": "skip",
        "text": [picture.caption(view, layer)], "textposition": "middle right", "textfont": {"size": TEXT_SIZE},
        "showlegend": False, "cliponaxis": False,
    }  # fmt: skip
    return [caption, *picture.traces(view, layer)]


def layout(view: View, picture: Picture) -> dict[str, Any]:
    """Return the layout: it depends on the dense network and the picture, never on the knob."""
    shown = tradeoff.reports_shown(view)
    axes = (
        gauge_axes(view)
        | picture_axes()
        | {
            TRADE_OFF.xaxis: axis(TRADE_OFF.y, across(*RIGHT)) | tradeoff.size_axis(shown),
            TRADE_OFF.yaxis: axis(TRADE_OFF.x, down(*CURVE), ticksuffix=" %", nticks=7) | tradeoff.accuracy_axis(shown),
        }
        | legend_axes(RIGHT[0] - 46)
    )
    for name, settings in picture.axes.items():
        axes[name] = axes[name] | (settings(view) if callable(settings) else settings)
    above = UPPER[0] - 18
    below = round(HEIGHT * (1 - axes[BELOW.yaxis]["domain"][1])) - 22
    heads = [*_headings(above, picture.headings[0]), *_headings(below, picture.headings[1])]
    return base(WIDTH, HEIGHT) | axes | {
        "annotations": [*heads, heading(RIGHT[0] - 40, UPPER[0] - 34, tradeoff.TITLE)],
        "shapes": [one_line(), *([BLACK_GROUND] if picture.black else [])], "images": picture.images(view),
    }  # fmt: skip


def _headings(top: float, text: str) -> list[dict[str, Any]]:
    """Return a heading in one piece, or in two, "left | right", where a second plot stands beside the first."""
    return [heading(x, top, part) for x, part in zip((0, RIGHT_END[0] - 4), text.split(" | "), strict=False) if part]


def base(width: int, height: int) -> dict[str, Any]:
    """Return what all layouts share: no margins, so that positions are pixels, and no background color."""
    return {
        "template": go.layout.Template(), "width": width, "height": height,
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0, "pad": 0},
        "font": {"size": TEXT_SIZE, "color": TEXT, "family": FONT},
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "barmode": "overlay", "showlegend": False,
        "bargap": 0.1, "hovermode": "closest", "dragmode": False, "uirevision": "keep",
    }  # fmt: skip


def gauge_axes(view: View) -> dict[str, Any]:
    """Return the axes of the three gauges and of their captions."""
    bars = down(64, 78)
    ghost = 1.02 * (view.baseline.file_bytes or 1)
    speeds = {
        "tickvals": [-1, -0.602, -0.301, 0, 0.301, 0.602, 1],
        "ticktext": ["0.1×", "¼×", "½×", "1×", "2×", "4×", "10×"],
    }
    made = {
        ACCURACY.xaxis: axis(
            ACCURACY.y, across(*GAUGES[0]), range=[0, 100], ticksuffix=" %", tickvals=[0, 25, 50, 75, 100]
        ),
        SIZE.xaxis: axis(SIZE.y, across(*GAUGES[1]), range=[0, ghost], **byte_ticks(ghost)),
        SPEED.xaxis: axis(SPEED.y, across(*GAUGES[2]), range=[-1, 1], **speeds),
        # The gauges begin at 0, 1 and 2.
        GAUGE_CAPTIONS.xaxis: axis(GAUGE_CAPTIONS.y, across(GAUGES[0][0], GAUGES[2][0]), range=[0, 2], visible=False),
        GAUGE_CAPTIONS.yaxis: axis(GAUGE_CAPTIONS.x, down(0, 60), range=[0, 60], visible=False),
    }
    for gauge in (ACCURACY, SIZE, SPEED):
        made[gauge.yaxis] = axis(gauge.x, bars, range=[-1, 1], visible=False)
    return made


def legend_axes(left: float) -> dict[str, Any]:
    """Return the axes of the legend below the trade-off curve: text, as plotly's own legend would shift the plot."""
    return {
        LEGEND.xaxis: axis(LEGEND.y, across(left, WIDTH), range=[0, 1], visible=False),
        LEGEND.yaxis: axis(LEGEND.x, down(CURVE[1] + 26, HEIGHT), range=[0, 1], visible=False),
    }


def byte_ticks(end: float) -> dict[str, Any]:
    """Return about four round ticks from 0 to `end` bytes, with units."""
    power = 10 ** math.floor(math.log10(end / 2))
    step = max(digit * power for digit in (1, 2, 5) if digit * power <= end / 2)
    ticks = [int(step * i) for i in range(int(end / step) + 1)]
    return {
        "tickvals": ticks,
        "ticktext": [bytes_text(tick).replace(".0 ", " ").replace("0 MB", " MB") for tick in ticks],
    }


def picture_axes() -> dict[str, Any]:
    """Return the axes of the picture's plots and of its caption."""
    return {
        MAIN.xaxis: axis(MAIN.y, across(*LEFT)), MAIN.yaxis: axis(MAIN.x, down(*UPPER)),
        BELOW.xaxis: axis(BELOW.y, across(*LEFT)), BELOW.yaxis: axis(BELOW.x, down(*LOWER)),
        BESIDE.xaxis: axis(BESIDE.y, across(*RIGHT_END), visible=False),
        BESIDE.yaxis: axis(BESIDE.x, down(*LOWER), visible=False),
        PICTURE_CAPTION.xaxis: axis(PICTURE_CAPTION.y, across(0, LEFT[1]), range=[0, 1], visible=False),
        PICTURE_CAPTION.yaxis: axis(
            PICTURE_CAPTION.x, down(UPPER[0] - 34, UPPER[0] - 18), range=[-1, 1], visible=False
        ),
    }  # fmt: skip


def axis(anchor: str, domain: list[float], **settings: Any) -> dict[str, Any]:
    """Return an axis in the style that all of them share."""
    return {
        "domain": domain, "anchor": anchor, "showgrid": False, "zeroline": False, "linecolor": LINES, "showline": True,
        "ticks": "outside", "ticklen": 3, "tickcolor": LINES, "title": {"text": ""},
        "fixedrange": True, "automargin": False,
    } | settings  # fmt: skip


def heading(x: float, top: float, text: str) -> dict[str, Any]:
    """Return a line of text with its upper left corner at this pixel."""
    return {
        "x": x / WIDTH, "y": 1 - top / HEIGHT, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "top",
        "showarrow": False, "text": text, "align": "left",
    }  # fmt: skip


def one_line() -> dict[str, Any]:
    """Return the line at speed ratio 1."""
    return {
        "type": "line", "xref": SPEED.x, "yref": SPEED.y, "x0": 0, "x1": 0, "y0": -1, "y1": 1,
        "line": {"color": GRAY, "width": 2},
    }  # fmt: skip


BLACK_GROUND = {  # shows through a picture where weights were removed
    "type": "rect", "xref": f"{MAIN.x} domain", "yref": f"{MAIN.y} domain", "x0": 0, "x1": 1, "y0": 0, "y1": 1,
    "fillcolor": BLACK, "line": {"width": 0}, "layer": "below",
}  # fmt: skip


class LiveFigure:
    """The figure on the screen; only what differs in a new view is sent to the page."""

    def __init__(self, view: View, picture: Picture, layer: str):
        self._picture = picture
        self._shown = traces(view, picture, layer)
        self._ends = _ends(view)
        self._changed: dict[int, set[str]] = {}  # all that has changed since construction
        self._one_at_a_time = threading.Lock()  # measurements and requests of the page draw on different threads
        self.widget = Drawing({"data": self._shown, "layout": layout(view, picture)})
        self.widget._config = self.widget._config | {"displayModeBar": False, "displaylogo": False}

    def show(self, view: View, layer: str | None = None) -> None:
        """Draw the view; the picture only if a `layer` is given."""
        made = moving(view)
        if layer is not None:
            made += drawn(view, self._picture, layer)
        with self._one_at_a_time:
            changes = {
                index: changed
                for index, (old, new) in enumerate(zip(self._shown, made, strict=False))
                if (changed := {name: value for name, value in new.items() if not _equal(old.get(name), value)})
            }
            for index, changed in changes.items():
                self._changed.setdefault(index, set()).update(changed)
            self._shown[: len(made)] = made
            self.widget.draw(changes, self._wider(view))

    def refresh(self) -> None:
        """Send all changes again: a page that has just drawn the figure may have missed some while loading."""
        with self._one_at_a_time:
            changes = {
                index: {name: self._shown[index][name] for name in names} for index, names in self._changed.items()
            }
            self.widget.draw(changes, self.widget.ends)

    def _wider(self, view: View) -> dict[str, dict]:
        """Return wider axes of the trade-off curve where a point lies outside; they never shrink."""
        low, floor = _ends(view)
        if low >= self._ends[0] and floor >= self._ends[1]:
            return {}
        self._ends = min(low, self._ends[0]), min(floor, self._ends[1])
        shown = tradeoff.reports_shown(view)
        return {TRADE_OFF.xaxis: tradeoff.size_axis(shown), TRADE_OFF.yaxis: {"range": [self._ends[1], 101.0]}}


def _ends(view: View) -> tuple[float, float]:
    """Return the lower ends of both axes of the trade-off curve."""
    shown = tradeoff.reports_shown(view)
    return tradeoff.size_axis(shown)["range"][0], tradeoff.accuracy_axis(shown)["range"][0]


def _equal(old: Any, new: Any) -> bool:
    if isinstance(old, np.ndarray) or isinstance(new, np.ndarray):
        same = isinstance(old, np.ndarray) and isinstance(new, np.ndarray) and old.shape == new.shape
        return same and np.array_equal(old, new, equal_nan=old.dtype.kind == "f")
    return old == new
