"""The explorer's form for a page without a kernel: a Plotly figure with a slider over the stored sweep."""

import html

import plotly.graph_objects as go

from compedu.explorers import gauges, tradeoff
from compedu.explorers.figure import layout
from compedu.explorers.pictures.picture import Picture
from compedu.explorers.view import View
from compedu.explorers.words import sentence
from compedu.metrics import Report

HEIGHT = 430


def page_figure(view: View) -> str:
    """Return HTML that draws gauges and trade-off curve with a slider over `view.points`, without any script address.

    The page must load plotly.js itself. Without stored points the sentence of the shown report stands alone.
    """
    points = list(view.points)
    if not points:
        said = "no point was measured yet" if view.report is None else sentence(view.report, view.baseline)
        return f"<p>{html.escape(repr(view.method))}: {html.escape(said)}</p>"
    frames = [go.Frame(data=_traces(view, report), name=str(index)) for index, report in enumerate(points)]
    shape = layout(view, Picture(lambda view, layer: [], ("", ""), lambda view, layer: ""))
    steps = [
        {
            "args": [[str(index)], {"mode": "immediate", "frame": {"duration": 0, "redraw": True}}],
            "label": report.method, "method": "animate",
        }
        for index, report in enumerate(points)
    ]  # fmt: skip
    for axis in ("xaxis4", "yaxis4", "xaxis7", "yaxis7"):
        shape.pop(axis)
    shape |= {
        "annotations": [], "xaxis5": shape["xaxis5"] | {"domain": [0, 1]}, "height": HEIGHT,
        "yaxis5": shape["yaxis5"] | {"domain": [0.18, 0.5]}, "legend": {"x": 0, "y": 0.53, "orientation": "h"},
        "sliders": [{"steps": steps, "active": 0, "y": 0.08, "currentvalue": {"prefix": "", "font": {"size": 13}}, "len": 1.0}],
    }  # fmt: skip
    figure = go.Figure(data=_traces(view, points[0]), layout=shape, frames=frames)
    return figure.to_html(full_html=False, include_plotlyjs=False, include_mathjax=False, config={"displayModeBar": False})


def _traces(view: View, report: Report) -> list[dict]:
    shown = View(
        data=view.data, baseline=view.baseline, before=view.before, method=view.method, state="PREVIEW", report=report,
        points=view.points, controls=view.controls,
    )  # fmt: skip
    return gauges.traces(shown) + tradeoff.traces(shown)
