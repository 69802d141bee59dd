"""The three gauges as pure data: accuracy with its interval, bytes by what they are for, speed with its spread."""

import math

from compedu.explorers.colours import DENSE, LIVE, PALE, PREVIEW, ROLES
from compedu.explorers.view import View
from compedu.explorers.words import accuracy_text, size_text, speed_text

HEIGHT = 3  # rows
NEVER_BELOW = 0.5  # the accuracy axis starts at this share of the lower of the two accuracies


def traces(view: View) -> list[dict]:
    """Return the traces of the three gauges; their number and kinds never change."""
    return [_captions(view), *_accuracy(view), *_size(view), *_speed(view)]


def _colour(view: View) -> str:
    return LIVE if view.measured else PREVIEW


def _captions(view: View) -> dict:
    report = view.report
    texts = ["", "", ""]
    if report is not None:
        texts = [accuracy_text(report), size_text(report, view.baseline), speed_text(report)]
    names = ("Accuracy", "Size", "Speed")
    return {
        "type": "scatter", "mode": "text", "xaxis": "x6", "yaxis": "y6", "x": [0, 0, 0], "y": [2.38, 1.38, 0.38],
        "text": [f"<b>{name}</b> {text}" for name, text in zip(names, texts)], "textposition": "middle right",
        "textfont": {"size": 12}, "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip


def _accuracy(view: View) -> list[dict]:
    dense, report = view.baseline, view.report
    low, high = (100 * end for end in dense.accuracy_interval)
    band = _bar("x", "y", [high - low], [low], PALE, "dense network, 95 % interval")
    if report is None:
        return [band, _dot("x", "y", [], [], [], _colour(view), "this network")]
    value = 100 * report.accuracy
    below, above = (100 * end for end in report.accuracy_interval)
    dot = _dot("x", "y", [value], [above - value], [value - below], _colour(view), "this network, 95 % interval")
    return [band, dot]


def _size(view: View) -> list[dict]:
    dense, report = view.baseline, view.report
    ghost = _bar("x2", "y2", [dense.file_bytes or 0], [0], PALE, "dense network", width=1.5)
    roles = (report.size_by_role if report is not None else None) or {}
    made, start = [], 0
    for role, colour in ROLES.items():
        count = roles.get(role, 0)
        made.append(_bar("x2", "y2", [count], [start], colour, role, width=0.9))
        start += count
    coded = [report.coded_bytes] if report is not None and report.coded_bytes is not None else []
    tick = {
        "type": "scatter", "mode": "markers", "xaxis": "x2", "yaxis": "y2", "x": coded, "y": [0] * len(coded),
        "marker": {"symbol": "line-ns", "size": 22, "line": {"width": 3, "color": DENSE}}, "showlegend": False,
        "hovertemplate": "entropy-coded: %{x:,} bytes<extra></extra>",
    }  # fmt: skip
    return [ghost, *made, tick]


def _speed(view: View) -> list[dict]:
    timing = view.report.latency if view.report is not None else None
    if timing is None:
        return [_bar("x3", "y3", [], [], PALE, "A/A"), _dot("x3", "y3", [], [], [], LIVE, "speed")]
    low, high = timing.a_a_interval
    band = _bar("x3", "y3", [math.log10(high) - math.log10(low)], [math.log10(low)], PALE, "the dense network against itself")
    value, (below, above) = timing.speed_up, timing.interval
    at = math.log10(value)
    dot = _dot("x3", "y3", [at], [math.log10(above) - at], [at - math.log10(below)], LIVE, "speed ratio, 95 % interval")
    return [band, dot]


def _bar(x: str, y: str, length: list, base: list, colour: str, name: str, width: float = 1.6) -> dict:
    return {
        "type": "bar", "orientation": "h", "xaxis": x, "yaxis": y, "x": length, "y": [0] * len(length), "base": base,
        "width": width, "marker": {"color": colour, "line": {"width": 0}}, "showlegend": False,
        "hovertemplate": name + ": %{x:.5~s}<extra></extra>",
    }  # fmt: skip


def _dot(x: str, y: str, value: list, above: list, below: list, colour: str, name: str) -> dict:
    return {
        "type": "scatter", "mode": "markers", "xaxis": x, "yaxis": y, "x": value, "y": [0] * len(value),
        "marker": {"size": 12, "color": colour, "symbol": "diamond"}, "showlegend": False,
        "error_x": {
            "type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 2, "width": 6,
            "color": colour,
        },
        "hovertemplate": name + "<extra></extra>",
    }  # fmt: skip
