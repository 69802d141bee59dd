"""The three gauges as pure data: accuracy with its interval, bytes by role, speed with its spread."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

from compedu.explorers.figures.axes import byte_ticks
from compedu.explorers.figures.colors import DENSE, GRAY, LIVE, PALE, PREVIEW, ROLES
from compedu.explorers.figures.places import GAUGE
from compedu.explorers.view import State, View
from compedu.explorers.words import accuracy_lines, percent, size_lines, speed_lines

NAMES = {"accuracy": "accuracy", "size": "size of the file", "speed": "speed"}
SPEEDS = (0.1, 10.0)  # ends of the speed axis; ratios beyond are drawn at the end, as an arrow
SPEED_TICKS = (0.1, 0.25, 0.5, 1, 2, 4, 10)
SPEED_NAMES = ("0.1×", "¼×", "½×", "1×", "2×", "4×", "10×")

Mark: TypeAlias = dict[str, Any]


def figures(view: View) -> dict[str, dict[str, Any]]:
    """Return the gauges by name, drawn by `panel/gauges.js`: "data" are marks, "layout" is the size and the axis.

    Number and kinds of the marks never change.
    """
    end = 1.02 * (view.baseline.file_bytes or 1)
    axes = {
        "accuracy": {"range": [0, 100], "ticks": [[share, f"{share} %"] for share in (0, 25, 50, 75, 100)]},
        "size": {"range": [0, end], "ticks": byte_ticks(end)},
        "speed": {"range": [-1, 1], "ticks": list(zip(map(math.log10, SPEED_TICKS), SPEED_NAMES, strict=True))},
    }
    drawn = {"accuracy": _accuracy(view), "size": _size(view), "speed": _speed(view)}
    room = dict(zip(("width", "height"), GAUGE, strict=True))
    return {name: {"data": marks, "layout": room | axes[name]} for name, marks in drawn.items()}


def captions(view: View) -> tuple[tuple[str, ...], ...]:
    """Return the lines below each gauge's name: the figure, then its details."""
    report = view.report
    if report is None:
        return (("…", why_nothing(view) or "not measured yet"),) * 3
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


def why_nothing(view: View) -> str:
    """Return in words why there will be no figures for the knobs as they are, or nothing where there may be."""
    if view.state != State.ERROR:
        return ""
    return f"{'refused' if view.refused else 'failed'}: the message says why"


def _color(view: View) -> str:
    return LIVE if view.measured else PREVIEW


def _accuracy(view: View) -> list[Mark]:
    dense = view.baseline
    report = view.report
    marks = [
        _bar([100 * end for end in dense.accuracy_interval], PALE, "dense network: 95 % interval"),
        _tick(100 * dense.accuracy, DENSE, f"dense network: {percent(dense.accuracy)}", 2),
    ]
    if report is None:
        return [*marks, _dot(None, [], _color(view), "")]
    interval = [100 * end for end in report.accuracy_interval]
    return [*marks, _dot(100 * report.accuracy, interval, _color(view), f"this network: {percent(report.accuracy)}")]


def _size(view: View) -> list[Mark]:
    dense = view.baseline
    report = view.report
    roles = (report.size_by_role if report is not None else None) or {}
    made = [_bar([0, dense.file_bytes or 0], PALE, f"dense network: {dense.file_bytes or 0:,} bytes", 0.95)]
    start = 0
    for role, (color, name) in ROLES.items():
        count = roles.get(role, 0)
        bar = _bar([start, start + count] if count else [], color, f"{name}: {count:,} bytes", 0.55)
        made.append(bar | {"opacity": 1 if view.measured else 0.6})
        start += count
    coded = None if report is None else report.entropy_coded_bytes
    return [*made, _tick(coded, DENSE, "" if coded is None else f"entropy-coded: {coded:,} bytes", 3)]


def _speed(view: View) -> list[Mark]:
    timing = view.report.latency if view.report is not None and view.measured else None
    if timing is None or timing.speed_up_interval is None or timing.speed_up is None:
        return [_one_line(), _bar([], PALE, ""), _elsewhere(view), _dot(None, [], LIVE, "")]
    band = [_exponent(end) for end in timing.a_a_interval or ()]
    beyond = not SPEEDS[0] <= timing.speed_up <= SPEEDS[1]
    symbol = "diamond" if not beyond else "right" if timing.speed_up > 1 else "left"
    whisker = [_exponent(end) for end in timing.speed_up_interval]
    dot = _dot(_exponent(timing.speed_up), whisker, LIVE, f"dense time / this time: {timing.speed_up:.2f}×", symbol)
    alike = _bar(band, PALE, f"the dense network against itself: {timing.a_a:.2f}×")
    return [_one_line(), alike, _elsewhere(view), dot]


def _one_line() -> Mark:
    return _tick(0, GRAY, "equally fast", 2) | {"height": 1}


def _elsewhere(view: View) -> Mark:
    """Return the ghost of the stored speed: measured on another machine, at rest, and not the learner's."""
    timing = view.stored_latency
    if timing is None or timing.speed_up is None:
        return _dot(None, [], GRAY, "", "open")
    said = f"stored, not of your machine: {timing.speed_up:.2f}×"
    return _dot(_exponent(timing.speed_up), [], GRAY, said, "open")


def _exponent(ratio: float) -> float:
    return math.log10(min(max(ratio, SPEEDS[0]), SPEEDS[1]))


def _bar(ends: Sequence[float], color: str, said: str, height: float = 0.8) -> Mark:
    """Return a bar from one end to the other, or none without ends; `height` is a share of the gauge's."""
    return {"kind": "bar", "x": list(ends), "color": color, "said": said, "height": height}


def _tick(at: float | None, color: str, said: str, width: int) -> Mark:
    """Return a vertical line of `width` pixels, or none."""
    return {"kind": "tick", "x": [] if at is None else [at], "color": color, "said": said, "width": width}


def _dot(at: float | None, whisker: Sequence[float], color: str, said: str, symbol: str = "diamond") -> Mark:
    """Return a dot with the ends of its whisker, or none; symbols: diamond, open, left, right."""
    return {
        "kind": "dot", "x": [] if at is None else [at], "whisker": list(whisker), "color": color, "said": said,
        "symbol": symbol,
    }  # fmt: skip
