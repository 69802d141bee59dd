"""The three gauges as pure data: accuracy with its interval, bytes by role, speed with its spread."""

import math

from compedu.explorers.figures.colors import DENSE, GRAY, LIVE, PALE, PREVIEW, ROLES
from compedu.explorers.figures.places import TEXT_SIZE
from compedu.explorers.figures.plots import ACCURACY, GAUGE_CAPTIONS, SIZE, SPEED, Plot
from compedu.explorers.view import View
from compedu.explorers.words import accuracy_lines, size_lines, speed_lines

NAMES = ("accuracy", "size of the file", "speed")
SPEEDS = (0.1, 10.0)  # ends of the speed axis; ratios beyond are drawn at the end, as an arrow


def traces(view: View) -> list[dict]:
    """Return the traces of the three gauges; their number and kinds never change."""
    return [*_captions(view), *_accuracy(view), *_size(view), *_speed(view)]


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
            speed_lines(report, False),
        )
    return accuracy_lines(report), size_lines(report, view.baseline), speed_lines(report, view.measured)


def _captions(view: View) -> list[dict]:
    lines = captions(view)
    names = [f"<span style='font-size:{TEXT_SIZE}px'>{name}</span>" for name in NAMES]
    accuracy, size, speed = (_headline(said[0]) for said in lines)
    large = [f"{accuracy} {names[0]}", f"{size} {names[1]}", f"{names[2]} {speed}"]  # "speed not distinguishable"
    small = ["<br>".join(said[1:]) for said in lines]
    return [_text(large, 54, 19), _text(small, 31, TEXT_SIZE)]


def _headline(said: str) -> str:
    """Return a headline; a verdict in words is set smaller than a figure."""
    return said if said[:1] in "0123456789≈…" else f"<span style='font-size:14px'>{said}</span>"


def _text(texts: list[str], y: float, size: int) -> dict:
    return {
        "type": "scatter", "mode": "text", **GAUGE_CAPTIONS.axes, "x": [0, 1, 2], "y": [y] * 3, "text": texts,
        "textposition": "bottom right", "textfont": {"size": size}, "hoverinfo": "skip",
        "cliponaxis": False,
    }  # fmt: skip


def _color(view: View) -> str:
    return LIVE if view.measured else PREVIEW


def _accuracy(view: View) -> list[dict]:
    dense = view.baseline
    report = view.report
    low, high = (100 * end for end in dense.accuracy_interval)
    band = _bar(ACCURACY, [high - low], [low], PALE, "dense network: 95 % interval")
    line = _tick(ACCURACY, [100 * dense.accuracy], DENSE, "dense network: %{x:.1f} %", 2)
    if report is None:
        return [band, line, _dot(ACCURACY, [], [], [], _color(view), "")]
    value = 100 * report.accuracy
    below, above = (100 * end for end in report.accuracy_interval)
    return [
        band,
        line,
        _dot(ACCURACY, [value], [above - value], [value - below], _color(view), "this network: %{x:.1f} %"),
    ]


def _size(view: View) -> list[dict]:
    dense = view.baseline
    report = view.report
    ghost = _bar(SIZE, [dense.file_bytes or 0], [0], PALE, "dense network: %{x:,} bytes", width=1.9)
    roles = (report.size_by_role if report is not None else None) or {}
    made = []
    start = 0
    for role, (color, name) in ROLES.items():
        count = roles.get(role, 0)
        bar = _bar(SIZE, [count], [start], color, f"{name}: %{{x:,}} bytes", width=1.1)
        made.append(bar | {
            "marker": {"color": color, "line": {"width": 0.5, "color": GRAY}},
            "opacity": 1 if view.measured else 0.6,
        })  # fmt: skip
        start += count
    coded = [report.entropy_coded_bytes] if report is not None and report.entropy_coded_bytes is not None else []
    return [ghost, *made, _tick(SIZE, coded, DENSE, "entropy-coded: %{x:,} bytes", 3)]


def _speed(view: View) -> list[dict]:
    timing = view.report.latency if view.measured else None
    if timing is None or timing.speed_up_interval is None:
        return [_bar(SPEED, [], [], PALE, ""), _dot(SPEED, [], [], [], LIVE, "")]
    low, high = map(_exponent, timing.a_a_interval)
    band = _bar(SPEED, [high - low], [low], PALE, f"the dense network against itself: {timing.a_a:.2f}×")
    at, below, above = map(_exponent, (timing.speed_up, *timing.speed_up_interval))
    dot = _dot(SPEED, [at], [above - at], [at - below], LIVE, f"dense time / this time: {timing.speed_up:.2f}×")
    beyond = not SPEEDS[0] <= timing.speed_up <= SPEEDS[1]
    symbol = "diamond" if not beyond else "triangle-right" if timing.speed_up > 1 else "triangle-left"
    return [band, dot | {"marker": dot["marker"] | {"symbol": symbol}}]


def _exponent(ratio: float) -> float:
    return math.log10(min(max(ratio, SPEEDS[0]), SPEEDS[1]))


def _bar(gauge: Plot, length: list, base: list, color: str, name: str, width: float = 1.6) -> dict:
    return gauge.axes | {
        "type": "bar", "orientation": "h", "x": length, "y": [0] * len(length), "base": base, "width": width,
        "marker": {"color": color, "line": {"width": 0, "color": GRAY}},
        "hovertemplate": name + "<extra></extra>",
    }  # fmt: skip


def _tick(gauge: Plot, at: list, color: str, name: str, thickness: int) -> dict:
    return gauge.axes | {
        "type": "scatter", "mode": "markers", "x": at, "y": [0] * len(at),
        "marker": {"symbol": "line-ns", "size": 18, "line": {"width": thickness, "color": color}},
        "hovertemplate": name + "<extra></extra>",
    }  # fmt: skip


def _dot(gauge: Plot, value: list, above: list, below: list, color: str, name: str) -> dict:
    return gauge.axes | {
        "type": "scatter", "mode": "markers", "x": value, "y": [0] * len(value),
        "marker": {"size": 11, "color": color, "symbol": "diamond", "line": {"width": 1, "color": "#FFFFFF"}},
        "cliponaxis": False, "hovertemplate": name + "<extra></extra>",
        "error_x": {
            "type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 2, "width": 5,
            "color": color,
        },
    }  # fmt: skip
