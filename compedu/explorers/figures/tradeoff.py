"""Accuracy against bytes: this method's sweep, the small dense network at equal bytes, the live point, pins."""

import math
from collections.abc import Sequence

from compedu.explorers.figures.colors import CONTROL, LIVE, PINS, PREDICTION, PREVIEW
from compedu.explorers.figures.places import TEXT_SIZE
from compedu.explorers.figures.plots import LEGEND, TRADE_OFF
from compedu.explorers.main_knob import main_knob, others
from compedu.explorers.view import View
from compedu.explorers.words import bytes_text, percent
from compedu.metrics import Report
from compedu.sweeps import method_of

TITLE = "accuracy against size of the file"


def traces(view: View) -> list[dict]:
    """Return the traces of the trade-off curve; their number and kinds never change."""
    live = [view.report] if view.report is not None else []
    return [
        _line(view.controls, CONTROL, "dot", "small dense net"),
        _line(view.random_baseline, CONTROL, "dashdot", "at random")
        | {"marker": {"symbol": "x-thin", "size": 6, "line": {"width": 1.5, "color": CONTROL}}},
        _line(() if view.asked else _alike(view), PREVIEW, "dash", "stored points"),
        _prediction(view),
        _line(view.asked, LIVE, "solid", "as measured"),
        _marks([view.baseline], "square", CONTROL, "dense network"),
        *[_pin(view.pins[i : i + 1], color, "ABC"[i]) for i, color in enumerate(PINS)],
        _marks(live, "diamond", LIVE if view.measured else PREVIEW, "now"),
        _legend(view),
    ]


def _alike(view: View) -> list[Report]:
    """Return the stored points that differ from the method in the main knob alone: others are not on its curve."""
    knob = main_knob(view.method)
    if knob is None:
        return list(view.points)
    start = getattr(type(view.method)(), knob)
    kept = view.once(
        "stored", lambda: [(others(method_of(r.method, (type(view.method),)), knob, start), r) for r in view.points]
    )
    now = others(view.method, knob, start)
    return [report for same, report in kept if same == now]


def _legend(view: View) -> dict:
    """Return the legend, each name with its mark and color, in two lines that fit in any system font."""
    first = [("■", CONTROL, "dense")]
    first += [("◆", LIVE if view.measured else PREVIEW, "now")] if view.report is not None else []
    first += [("┅●", CONTROL, "small dense net")] if view.controls else []
    second = [("╍●", PREVIEW, "stored points")] if not view.asked and _alike(view) else []
    second += [("┅✕", CONTROL, "at random")] if view.random_baseline else []
    second += [("━○", PREDICTION, "predicted"), ("━●", LIVE, "measured")] if view.asked else []
    text = "<br>".join(
        "   ".join(f"<span style='color:{color}'>{mark}</span> {name}" for mark, color, name in line)
        for line in (first, second)
    )
    return {
        "type": "scatter", "mode": "text", **LEGEND.axes, "x": [0], "y": [1], "text": [text],
        "textposition": "bottom right", "textfont": {"size": TEXT_SIZE}, "hoverinfo": "skip", "cliponaxis": False,
    }  # fmt: skip


def reports_shown(view: View) -> list[Report]:
    """Return all reports in the plot."""
    live = [view.report] if view.report is not None else []
    return _sized([view.baseline, *view.controls, *view.random_baseline, *view.points, *view.asked, *view.pins, *live])


def size_axis(reports: Sequence[Report]) -> dict:
    """Return a logarithmic axis of bytes with round ends that covers `reports` and a twentieth of the largest."""
    sizes = [report.file_bytes for report in _sized(reports)]
    low = min(*sizes, max(sizes) / 20)
    high = max(sizes)
    ticks = [digit * 10**power for power in range(10) for digit in (1, 2, 5)]
    first = max(tick for tick in ticks if tick <= max(low, 1))
    last = min(tick for tick in ticks if tick >= high)
    inside = [tick for tick in ticks if first <= tick <= last]
    if len(inside) > 6:
        inside = [tick for tick in inside if str(tick)[0] == "1"]
    return {
        "type": "log", "range": [math.log10(first), math.log10(last) + 0.04], "tickvals": inside,
        "ticktext": [bytes_text(tick).replace(".0 ", " ").replace(".00 ", " ") for tick in inside],
    }  # fmt: skip


def accuracy_axis(reports: Sequence[Report]) -> dict:
    """Return a linear axis in percent with a round lower end that covers `reports`, and at least 80 to 100."""
    lowest = min(100 * report.accuracy for report in reports)
    return {"range": [max(0.0, min(80.0, 10 * math.floor((lowest - 1) / 10))), 101.0]}


def _sized(reports: Sequence[Report]) -> list[Report]:
    return [report for report in reports if report.file_bytes is not None]


def _coordinates(reports: Sequence[Report]) -> dict:
    return {
        "x": [report.file_bytes for report in reports],
        "y": [100 * report.accuracy for report in reports],
        "text": [f"{r.method or 'dense'}<br>{percent(r.accuracy)}, {bytes_text(r.file_bytes)}" for r in reports],
    }


def _line(reports: Sequence[Report], color: str, dash: str, name: str) -> dict:
    ordered = sorted(_sized(reports), key=lambda report: report.file_bytes)
    return _coordinates(ordered) | {
        "type": "scatter", "mode": "lines+markers", **TRADE_OFF.axes, "name": name,
        "line": {"color": color, "dash": dash, "width": 2},
        "marker": {"size": 5 if len(ordered) < 30 else 3, "color": color},
        "hovertemplate": "%{text}<extra>" + name + "</extra>",
    }  # fmt: skip


def _marks(reports: Sequence[Report], symbol: str, color: str, name: str) -> dict:
    shown = _sized(reports)
    return _coordinates(shown) | {
        "type": "scatter", "mode": "markers", **TRADE_OFF.axes, "name": name, "cliponaxis": False,
        "hovertemplate": "%{text}<extra>" + name + "</extra>",
        "marker": {"symbol": symbol, "size": 12, "color": color, "line": {"width": 1, "color": "#FFFFFF"}},
    }  # fmt: skip


def _pin(reports: Sequence[Report], color: str, letter: str) -> dict:
    made = _marks(reports, "star", color, f"pin {letter}")
    return made | {
        "mode": "markers+text", "text": [letter] * len(reports), "hovertext": made["text"],
        "textposition": "top center", "hovertemplate": "%{hovertext}<extra>pin " + letter + "</extra>",
    }  # fmt: skip


def _prediction(view: View) -> dict:
    pairs = sorted((report.file_bytes, 100 * said) for report, said in zip(view.asked, view.predicted, strict=False))
    return {
        "type": "scatter", "mode": "lines+markers", **TRADE_OFF.axes, "name": "your prediction",
        "x": [size for size, _ in pairs], "y": [said for _, said in pairs],
        "line": {"color": PREDICTION, "width": 2},
        "marker": {"symbol": "circle-open", "size": 8, "color": PREDICTION, "line": {"width": 2}},
        "hovertemplate": "your prediction: %{y:.1f} %<extra></extra>",
    }  # fmt: skip
