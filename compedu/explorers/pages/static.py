"""The explorer on a page without a kernel: a Plotly figure with a slider over measured points."""

import html
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go

from compedu.explorers.figures import gauges, tradeoff
from compedu.explorers.figures.figure import axis, base, gauge_axes, heading, legend_axes, one_line
from compedu.explorers.figures.places import CURVE, HEIGHT, WIDTH, across, down
from compedu.explorers.figures.plots import ACCURACY, GAUGE_CAPTIONS, LEGEND, SIZE, SPEED, TRADE_OFF
from compedu.explorers.main_knob import along, main_knob
from compedu.explorers.view import State, View
from compedu.explorers.words import sentence
from compedu.metrics import Report
from compedu.sweeps import method_of

SLIDER = 84  # pixels below the plot


def page_figure(view: View, known: Iterable[Report], hidden: bool = False) -> str:
    """Return HTML of gauges and trade-off curve, with a slider over the `known` points, that loads no script.

    The page must load plotly.js itself. Where the answers are `hidden`, the HTML does not contain them either.
    """
    name = html.escape(repr(view.method))
    if hidden:
        return f"<p>{name}: the answers are hidden until a prediction is committed.</p>"
    points = along(known, view.method)
    if not points and view.report is None:
        return f"<p>{name}: nothing is measured yet.</p>"
    shown = view.report or points[0]
    start = next((index for index, point in enumerate(points) if point.method == shown.method), 0)
    figure = go.Figure(data=_traces(view, shown), layout=_layout(view))
    if len(points) > 1:
        figure.frames = [_frame(view, point, str(index)) for index, point in enumerate(points)]
        figure.layout.sliders = [_slider(view, points, start)]
        figure.layout.height = HEIGHT + SLIDER
        _lift(figure)
    plot = figure.to_html(
        full_html=False, include_plotlyjs=False, include_mathjax=False, auto_play=False,
        config={"displayModeBar": False},
    )  # fmt: skip
    return (
        f"{plot}<p>{html.escape(shown.method)}: {html.escape(sentence(shown, view.baseline, _is_own(view, shown)))}</p>"
    )


def _is_own(view: View, report: Report) -> bool:
    """Tell whether a report was measured by this explorer, speed included, rather than looked up."""
    return report is view.report and view.state == State.FINAL


def _traces(view: View, report: Report) -> list[dict]:
    state = State.FINAL if _is_own(view, report) else State.PREVIEW
    method = method_of(
        report.method, (type(view.method),)
    )  # the report's own setting, so that it does not count as nearby
    seen = replace(view, method=method, state=state, report=report, pins=[], kept={})
    return gauges.traces(seen) + tradeoff.traces(seen)


def _frame(view: View, report: Report, name: str) -> go.Frame:
    """Return what a slider position changes: the gauges, and the live point with its name in the legend."""
    made = _traces(view, report)
    moving = [*range(len(gauges.traces(view))), len(made) - 2, len(made) - 1]
    return go.Frame(name=name, traces=moving, data=[_changing(made[index]) for index in moving])


def _changing(trace: dict) -> dict:
    return {
        name: value
        for name, value in trace.items()
        if name in ("type", "x", "y", "base", "text", "error_x", "orientation")
    }


def _slider(view: View, points: tuple[Report, ...], start: int) -> dict[str, Any]:
    knob = main_knob(type(view.method))
    labels = [_value(view, point, knob) for point in points]
    move = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    steps = [{"args": [[str(index)], move], "label": label, "method": "animate"} for index, label in enumerate(labels)]
    return {
        "steps": steps, "active": start, "x": 0.01, "len": 0.98, "y": SLIDER / (HEIGHT + SLIDER), "yanchor": "top",
        "pad": {"t": 0, "b": 0, "l": 0, "r": 0}, "transition": {"duration": 0},
        "currentvalue": {"prefix": f"{knob} = ", "font": {"size": 13, "color": base(0, 0)["font"]["color"]}},
    }  # fmt: skip


def _value(view: View, point: Report, knob: str) -> str:
    value = getattr(method_of(point.method, (type(view.method),)), knob)
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _layout(view: View) -> dict[str, Any]:
    shown = tradeoff.reports_shown(view)
    return (
        base(WIDTH, HEIGHT)
        | gauge_axes(view)
        | legend_axes(40)
        | {
            TRADE_OFF.xaxis: axis(TRADE_OFF.y, across(44, WIDTH - 12)) | tradeoff.size_axis(shown),
            TRADE_OFF.yaxis: axis(TRADE_OFF.x, down(*CURVE), ticksuffix=" %", nticks=7) | tradeoff.accuracy_axis(shown),
            "shapes": [one_line()],
            "annotations": [heading(8, 108, tradeoff.TITLE)],
        }
    )


def _lift(figure: go.Figure) -> None:
    """Move everything up to make room for the slider at the bottom."""
    share = HEIGHT / (HEIGHT + SLIDER)
    foot = SLIDER / (HEIGHT + SLIDER)
    for plot in (ACCURACY, SIZE, SPEED, GAUGE_CAPTIONS, TRADE_OFF, LEGEND):
        axis_of_plot = figure.layout[plot.yaxis]
        axis_of_plot.domain = [foot + share * end for end in axis_of_plot.domain]
    for note in figure.layout.annotations:
        note.y = foot + share * note.y
