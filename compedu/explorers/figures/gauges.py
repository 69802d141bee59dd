"""The three gauges as pure data: accuracy with its interval, bytes by role, speed with its spread."""

import math
from typing import Any

from compedu.explorers.figures.axes import axis, base, byte_ticks
from compedu.explorers.figures.colors import DENSE, GRAY, LIVE, PALE, PREVIEW, ROLES
from compedu.explorers.figures.places import GAUGE
from compedu.explorers.view import View
from compedu.explorers.words import accuracy_lines, size_lines, speed_lines

NAMES = {"accuracy": "accuracy", "size": "size of the file", "speed": "speed"}
SPEEDS = (0.1, 10.0)  # ends of the speed axis; ratios beyond are drawn at the end, as an arrow
SPEED_TICKS = (0.1, 0.25, 0.5, 1, 2, 4, 10)
SPEED_NAMES = ["0.1×", "¼×", "½×", "1×", "2×", "4×", "10×"]
ONE_LINE = {  # where both networks are equally fast
    "type": "line", "xref": "x", "yref": "y", "x0": 0, "x1": 0, "y0": -1, "y1": 1, "line": {"color": GRAY, "width": 2},
}  # fmt: skip


def figures(view: View) -> dict[str, dict[str, Any]]:
    """Return the figures of the three gauges by name; number and kinds of their traces never change."""
    ghost = 1.02 * (view.baseline.file_bytes or 1)
    drawn = {"accuracy": _accuracy(view), "size": _size(view), "speed": _speed(view)}
    axes = {
        "accuracy": {"range": [0, 100], "ticksuffix": " %", "tickvals": [0, 25, 50, 75, 100]},
        "size": {"range": [0, ghost], **byte_ticks(ghost)},
        "speed": {"range": [-1, 1], "tickvals": list(map(math.log10, SPEED_TICKS)), "ticktext": SPEED_NAMES},
    }
    return {
        name: {"data": traces, "layout": _layout(axes[name], [ONE_LINE] if name == "speed" else [])}
        for name, traces in drawn.items()
    }


def _layout(xaxis: dict[str, Any], shapes: list) -> dict[str, Any]:
    bars = {"range": [-1, 1], "visible": False}
    return base(*GAUGE, l=16, r=16, t=0, b=21) | {
        "xaxis": axis("y", **xaxis), "yaxis": axis("x", **bars), "shapes": shapes,
    }  # fmt: skip


def captions(view: View) -> tuple[tuple[str, ...], ...]:
    """Return the lines below each gauge's name: the figure, then its details."""
    report = view.report
    if report is None:
        return (("…", "not measured yet"),) * 3
    if view.nearby:  # its counts and interval would be mistaken for those of the current setting
        accuracy = accuracy_lines(report)[0]
        size = size_lines(report, view.baseline)[0]
        return (
            (f"≈ {accuracy}", "of the nearest point measured"),
            (f"≈ {size}", "of the nearest point measured"),
            speed_lines(report, False, view.stored_latency),
        )
    speed = speed_lines(report, view.measured, view.stored_latency)
    return accuracy_lines(report), size_lines(report, view.baseline), speed


def _color(view: View) -> str:
    return LIVE if view.measured else PREVIEW


def _accuracy(view: View) -> list[dict]:
    dense = view.baseline
    report = view.report
    low, high = (100 * end for end in dense.accuracy_interval)
    band = _bar([high - low], [low], PALE, "dense network: 95 % interval")
    line = _tick([100 * dense.accuracy], DENSE, "dense network: %{x:.1f} %", 2)
    if report is None:
        return [band, line, _dot([], [], [], _color(view), "")]
    value = 100 * report.accuracy
    below, above = (100 * end for end in report.accuracy_interval)
    return [
        band,
        line,
        _dot([value], [above - value], [value - below], _color(view), "this network: %{x:.1f} %"),
    ]


def _size(view: View) -> list[dict]:
    dense = view.baseline
    report = view.report
    ghost = _bar([dense.file_bytes or 0], [0], PALE, "dense network: %{x:,} bytes", width=1.9)
    roles = (report.size_by_role if report is not None else None) or {}
    made = []
    start = 0
    for role, (color, name) in ROLES.items():
        count = roles.get(role, 0)
        bar = _bar([count], [start], color, f"{name}: %{{x:,}} bytes", width=1.1)
        made.append(bar | {
            "marker": {"color": color, "line": {"width": 0.5, "color": GRAY}},
            "opacity": 1 if view.measured else 0.6,
        })  # fmt: skip
        start += count
    coded = [report.entropy_coded_bytes] if report is not None and report.entropy_coded_bytes is not None else []
    return [ghost, *made, _tick(coded, DENSE, "entropy-coded: %{x:,} bytes", 3)]


def _speed(view: View) -> list[dict]:
    timing = view.report.latency if view.measured else None
    if timing is None or timing.speed_up_interval is None:
        return [_bar([], [], PALE, ""), _elsewhere(view), _dot([], [], [], LIVE, "")]
    low, high = map(_exponent, timing.a_a_interval)
    band = _bar([high - low], [low], PALE, f"the dense network against itself: {timing.a_a:.2f}×")
    at, below, above = map(_exponent, (timing.speed_up, *timing.speed_up_interval))
    dot = _dot([at], [above - at], [at - below], LIVE, f"dense time / this time: {timing.speed_up:.2f}×")
    beyond = not SPEEDS[0] <= timing.speed_up <= SPEEDS[1]
    symbol = "diamond" if not beyond else "triangle-right" if timing.speed_up > 1 else "triangle-left"
    return [band, _elsewhere(view), dot | {"marker": dot["marker"] | {"symbol": symbol}}]


def _elsewhere(view: View) -> dict:
    """Return the ghost of the stored speed: measured on another machine, at rest, and not the learner's."""
    timing = view.stored_latency
    ratio = [] if timing is None else [_exponent(timing.speed_up)]
    said = "" if timing is None else f"stored, not of your machine: {timing.speed_up:.2f}×"
    ghost = _tick(ratio, GRAY, said, 2)
    return ghost | {"marker": ghost["marker"] | {"symbol": "diamond-open", "size": 13}}


def _exponent(ratio: float) -> float:
    return math.log10(min(max(ratio, SPEEDS[0]), SPEEDS[1]))


def _bar(length: list, base: list, color: str, name: str, width: float = 1.6) -> dict:
    return {
        "type": "bar", "orientation": "h", "x": length, "y": [0] * len(length), "base": base, "width": width,
        "marker": {"color": color, "line": {"width": 0, "color": GRAY}},
        "hovertemplate": name + "<extra></extra>",
    }  # fmt: skip


def _tick(at: list, color: str, name: str, thickness: int) -> dict:
    return {
        "type": "scatter", "mode": "markers", "x": at, "y": [0] * len(at),
        "marker": {"symbol": "line-ns", "size": 18, "line": {"width": thickness, "color": color}},
        "hovertemplate": name + "<extra></extra>",
    }  # fmt: skip


def _dot(value: list, above: list, below: list, color: str, name: str) -> dict:
    return {
        "type": "scatter", "mode": "markers", "x": value, "y": [0] * len(value),
        "marker": {"size": 11, "color": color, "symbol": "diamond", "line": {"width": 1, "color": "#FFFFFF"}},
        "cliponaxis": False, "hovertemplate": name + "<extra></extra>",
        "error_x": {
            "type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 2, "width": 5,
            "color": color,
        },
    }  # fmt: skip
