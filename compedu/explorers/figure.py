"""The one figure of an explorer: gauges on top, the family's picture on the left, the trade-off curve on the right."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from compedu.explorers import gauges, tradeoff
from compedu.explorers.colours import GREY
from compedu.explorers.pictures import Picture
from compedu.explorers.view import View

WIDTH, HEIGHT = 640, 400
FONT = 12
LINES = "rgba(140, 140, 140, 0.35)"


def traces(view: View, picture: Picture, layer: str) -> list[dict]:
    """Return all traces of the figure, always in the same order and number."""
    return gauges.traces(view) + tradeoff.traces(view) + picture.traces(view, layer)


def layout(view: View, picture: Picture) -> dict[str, Any]:
    """Return the layout: it depends on the dense network and the picture, never on the knob."""
    dense_bytes = view.baseline.file_bytes or 1
    floor = 100 * max(0.0, min(0.5, view.baseline.accuracy - 0.5))
    rows = [(0.885, 0.925), (0.755, 0.795), (0.625, 0.665)]
    axes: dict[str, Any] = {
        "xaxis": _axis([0, 1], "y", range=[0, 100], ticksuffix=" %", nticks=6),
        "xaxis2": _axis([0, 1], "y2", range=[0, 1.05 * dense_bytes], nticks=6, ticksuffix="B", tickformat="~s"),
        "xaxis3": _axis(
            [0, 1], "y3", range=[-1, 1], tickvals=[-1, -0.602, -0.301, 0, 0.301, 0.602, 1],
            ticktext=["0.1×", "¼×", "½×", "1×", "2×", "4×", "10×"],
        ),
        "xaxis6": _axis([0, 1], "y6", range=[0, 1], visible=False),
        "yaxis6": _axis([0.6, 1.0], "x6", range=[0, 3], visible=False),
        "xaxis4": _axis([0, 0.43], "y4"), "yaxis4": _axis([0.24, 0.5], "x4"),
        "xaxis7": _axis([0, 0.43], "y7"), "yaxis7": _axis([0.0, 0.12], "x7"),
        "xaxis5": _axis([0.53, 1], "y5", type="log", title={"text": "file, bytes (log)"}, tickformat="~s"),
        "yaxis5": _axis([0.0, 0.43], "x5", title={"text": "accuracy, %"}, range=[floor, 101]),
    }  # fmt: skip
    for number, domain in zip(("", "2", "3"), rows):
        axes[f"yaxis{number}"] = _axis(list(domain), f"x{number}", range=[-1, 1], visible=False)
    for name, settings in picture.axes.items():
        axes[name] = axes[name] | settings
    return axes | {
        "width": WIDTH, "height": HEIGHT, "margin": {"l": 46, "r": 10, "t": 6, "b": 34}, "barmode": "overlay",
        "font": {"size": FONT, "color": GREY}, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest", "uirevision": "keep", "showlegend": True,
        "legend": {"x": 0.53, "y": 0.5, "xanchor": "left", "yanchor": "bottom", "orientation": "v", "font": {"size": 11}},
        "annotations": [_title(0, 0.5, picture.titles[0]), _title(0, 0.125, picture.titles[1])],
        "shapes": [_one_line()],
    }  # fmt: skip


def _axis(domain: list[float], anchor: str, **settings: Any) -> dict[str, Any]:
    return {
        "domain": domain, "anchor": anchor, "showgrid": False, "zeroline": False, "linecolor": LINES, "showline": True,
        "ticks": "outside", "tickcolor": LINES, "title": {"text": "", "standoff": 4}, "tickfont": {"size": 11},
    } | settings  # fmt: skip


def _title(x: float, y: float, text: str) -> dict[str, Any]:
    return {
        "x": x, "y": y, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom", "showarrow": False,
        "text": text, "font": {"size": 11},
    }  # fmt: skip


def _one_line() -> dict[str, Any]:
    """A line at speed ratio 1."""
    return {"type": "line", "xref": "x3", "yref": "y3", "x0": 0, "x1": 0, "y0": -1, "y1": 1, "line": {"color": GREY}}


class LiveFigure:
    """A `FigureWidget` that is brought to a new view by changing only what differs."""

    def __init__(self, view: View, picture: Picture, layer: str):
        self._shown = traces(view, picture, layer)
        self.widget = go.FigureWidget({"data": self._shown, "layout": layout(view, picture)})
        self.widget._config = self.widget._config | {"displayModeBar": False, "displaylogo": False}

    def show(self, made: list[dict]) -> None:
        """Draw `made`, as `traces` returned it."""
        with self.widget.batch_update():
            for trace, old, new in zip(self.widget.data, self._shown, made, strict=True):
                if changed := {name: value for name, value in new.items() if not _equal(old.get(name), value)}:
                    trace.update(changed, overwrite=True)
        self._shown = made


def _equal(old: Any, new: Any) -> bool:
    if isinstance(old, np.ndarray) or isinstance(new, np.ndarray):
        return isinstance(old, np.ndarray) and isinstance(new, np.ndarray) and np.array_equal(old, new, equal_nan=True)
    return old == new
