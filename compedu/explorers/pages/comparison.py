"""Many methods on the same two axes, accuracy against bytes; beaten points are open, the control arm is a line."""

import ast
import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import plotly.graph_objects as go

from compedu.explorers.figures.colors import DENSE, FAMILIES, TEXT
from compedu.explorers.figures.sideways import size_axis
from compedu.explorers.pages.labels import Box, along, around, leader, placed
from compedu.explorers.pages.standalone import StandaloneFigure, styled
from compedu.explorers.words import bytes_text
from compedu.methods import METHODS
from compedu.metrics import Report

WIDTH = 820  # pixels
HEIGHT = 462
MARGINS = {"l": 60, "r": 20, "t": 56, "b": 66}
MARK = 12  # diameter of a mark
ABOVE = 0.12  # room for names above 100 %, as a share of the axis below it
LONGEST = 30  # characters of a line of a name
KEY = "open: another mark, the dense network or a small dense network is at least as good on both axes"


class Cost(NamedTuple):
    """What the horizontal axis shows: its title, the figure of a report, and that figure with its unit."""

    title: str
    figure: str
    text: Callable[[float], str]

    def of(self, report: Report) -> int:
        """Return the figure of `report`; raise `ValueError` where it was not measured."""
        value = getattr(report, self.figure)
        if value is None:
            raise ValueError(
                f"trade_off: {report.method or report.model!r} has no {self.figure}; measure it to the end first"
            )
        return value


COSTS = {
    "size": Cost("size of the file", "file_bytes", bytes_text),
    "macs": Cost("multiply-accumulates for one image", "macs", "{:,} multiply-accumulates".format),
}


def dominated(report: Report, others: Sequence[Report], cost: str = "size") -> bool:
    """Tell whether another report is at least as good in accuracy and `cost` ("size", "macs"), and better in one."""
    own = COSTS[cost].of(report)
    return any(
        other.accuracy >= report.accuracy and COSTS[cost].of(other) <= own
        and (other.accuracy, COSTS[cost].of(other)) != (report.accuracy, own)
        for other in others
    )  # fmt: skip


def trade_off(
    reports: Sequence[Report], baseline: Report, controls: Sequence[Report] = (), by: str = "size"
) -> go.Figure:
    """Return the figure of all `reports` against the dense network `baseline`; open marks are beaten by another one.

    `controls` are small dense networks trained from scratch, as a gray line: whatever lies below it can be had
    without compression. They and the dense network beat others as well. `by` is the horizontal axis: "size" of the file
    or "macs". Colors and markers are the families'. Raises `ValueError` for another axis, or a report without a figure
    on it.
    """
    if by not in COSTS:
        raise ValueError(f"trade_off: by must be one of {', '.join(map(repr, COSTS))}, got {by!r}")
    shown = [*reports, baseline, *controls]
    figure = StandaloneFigure()
    figure.add_scatter(**_controls(controls, by))
    for report in sorted(reports, key=COSTS[by].of):
        color, symbol, _ = FAMILIES[family_of(report)]
        figure.add_scatter(**_mark(report, by, color, symbol + "-open" * dominated(report, shown, by)))
    figure.add_scatter(**_mark(baseline, by, DENSE, "square"))
    for family, (color, symbol, name) in FAMILIES.items():
        if any(family_of(report) == family for report in reports):
            figure.add_scatter(
                x=[None], y=[None], mode="markers", name=name, marker={"size": MARK, "color": color, "symbol": symbol}
            )
    low = max(0.0, 100 * min(report.accuracy for report in shown) - 8)
    ends = [low, 100 + ABOVE * (100 - low)]
    axis = _cost_axis(shown, by)
    figure.update_layout(
        xaxis=axis, yaxis={"title": "accuracy, %", "range": ends, "automargin": False},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "itemclick": False, "itemdoubleclick": False},
    )  # fmt: skip
    figure.update_layout(annotations=_names((axis["range"], ends), reports, baseline, controls, by))
    styled(figure, WIDTH, HEIGHT, **MARGINS)
    return figure.update_layout(margin={"autoexpand": False})


def steps_of(report: Report) -> list[tuple[str, str]]:
    """Return class and full text of each step of a report's method; empty where no method was applied."""
    tree = ast.parse(report.method, mode="eval").body if report.method else None
    found = []
    while isinstance(tree, ast.BinOp):
        found.insert(0, tree.right)
        tree = tree.left
    calls = ([tree] if tree is not None else []) + found
    return [
        (call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else "", ast.unparse(call))
        for call in calls
    ]


def family_of(report: Report) -> str:
    """Return the family of a report's method, a key of `FAMILIES`; steps that only train count where no others are."""
    families = {cls.__name__: cls.family for cls in METHODS}
    found = {families.get(name, "combined") for name, _ in steps_of(report)}
    found = found - {"training"} or found
    return found.pop() if len(found) == 1 else "combined"


def _controls(controls: Sequence[Report], by: str) -> dict:
    line = sorted(controls, key=COSTS[by].of)
    return {
        "x": [COSTS[by].of(report) for report in line], "y": [100 * report.accuracy for report in line],
        "mode": "lines+markers", "line": {"color": DENSE, "dash": "dot", "width": 2}, "marker": {"size": 5},
        "name": "small dense networks", "showlegend": bool(controls),
        "hovertemplate": "small dense network: %{y:.1f} %<extra></extra>",
    }  # fmt: skip


def _mark(report: Report, by: str, color: str, symbol: str) -> dict:
    low, high = report.accuracy_interval
    cost = COSTS[by]
    return {
        "x": [cost.of(report)], "y": [100 * report.accuracy], "mode": "markers", "cliponaxis": False,
        "name": report.method or "dense network", "showlegend": False,
        "marker": {"size": MARK, "color": color, "symbol": symbol, "line": {"width": 2, "color": color}},
        "error_y": {
            "type": "data", "symmetric": False, "array": [100 * (high - report.accuracy)],
            "arrayminus": [100 * (report.accuracy - low)], "thickness": 1.5, "width": 0, "color": color,
        },
        "hovertemplate": f"{report.method or 'dense network'}<br>{report.accuracy:.1%}, {cost.text(cost.of(report))}"
        "<extra></extra>",
    }  # fmt: skip


def _cost_axis(shown: Sequence[Report], by: str) -> dict:
    """Return the logarithmic axis, with room at its ends for marks, and the key of open marks below its title."""
    if by == "size":
        axis = size_axis(shown)
    else:
        ends = [math.log10(pick(COSTS[by].of(report) for report in shown)) for pick in (min, max)]
        axis = {"type": "log", "range": ends, "exponentformat": "SI", "dtick": 1 if ends[1] - ends[0] > 1 else "D1"}
    low, high = axis["range"]
    title = f"{COSTS[by].title}<br><span style='font-size:12px'>{KEY}</span>"
    return axis | {"title": title, "range": [low - 0.1, high + 0.15], "automargin": False}


def _names(
    ends: tuple[Sequence[float], Sequence[float]],
    reports: Sequence[Report],
    baseline: Report,
    controls: Sequence[Report],
    by: str,
) -> list[dict]:
    """Return the names of the marks as annotations beside them, those farther away with a thin line to their mark."""

    def pixel(report: Report, share: float | None = None) -> tuple[float, float]:
        values = math.log10(COSTS[by].of(report)), 100 * (report.accuracy if share is None else share)
        x, y = ((value - low) / (high - low) for value, (low, high) in zip(values, ends, strict=True))
        return MARGINS["l"] + x * _INSIDE[0], MARGINS["t"] + (1 - y) * _INSIDE[1]

    named = [*reports, baseline]
    marks = [pixel(report) for report in named]
    line = [pixel(report) for report in sorted(controls, key=COSTS[by].of)]
    taken = [around(x, y, MARK / 2 + 2) for x, y in marks]
    taken += [box for start, end in pairwise(line) for box in along(start, end)]
    for report in named:
        low, high = report.accuracy_interval
        taken += along(pixel(report, low), pixel(report, high))
    area = Box(MARGINS["l"] + 2, MARGINS["t"] + 2, WIDTH - 4, HEIGHT - MARGINS["b"] - 2)
    texts = [*names_of(reports), "dense"]
    boxes = placed(marks, texts, taken, area)
    return [
        _name(report, text, mark, box, by)
        for report, text, mark, box in zip(named, texts, marks, boxes, strict=True)
        if box is not None
    ]


_INSIDE = (WIDTH - MARGINS["l"] - MARGINS["r"], HEIGHT - MARGINS["t"] - MARGINS["b"])  # of the axes, in pixels


def _name(report: Report, text: str, mark: tuple[float, float], box: Box, by: str) -> dict:
    x, y = (there - here for there, here in zip(box.middle, mark, strict=True))
    made = {
        "text": text, "x": math.log10(COSTS[by].of(report)), "y": 100 * report.accuracy, "xanchor": "center",
        "yanchor": "middle", "borderpad": 0, "captureevents": False,
    }  # fmt: skip
    if not leader(mark, box):
        return made | {"showarrow": False, "xshift": x, "yshift": -y}
    line = {"arrowhead": 0, "arrowwidth": 1, "arrowcolor": TEXT, "standoff": MARK / 2 + 1}
    return made | {"showarrow": True, "ax": x, "ay": y} | line


def names_of(reports: Sequence[Report]) -> list[str]:
    """Return a short name of each report's method, with its knobs where another report has the same name."""
    short = [tuple(name for name, _ in steps_of(report)) or ("dense network",) for report in reports]
    count = Counter(short)
    full = [tuple(text for _, text in steps_of(report)) or ("dense network",) for report in reports]
    chosen = [one if count[one] == 1 else long for one, long in zip(short, full, strict=True)]
    return [
        "<br>".join(("+ " * (i > 0) + text)[:LONGEST] + "…" * (len(text) > LONGEST) for i, text in enumerate(steps))
        for steps in chosen
    ]
