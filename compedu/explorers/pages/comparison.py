"""Many methods on the same two axes, accuracy against bytes; dominated points are open, the control arm is a line."""

from collections.abc import Sequence

import plotly.graph_objects as go

from compedu.explorers.figures.colors import DENSE, LIVE
from compedu.explorers.figures.sideways import size_axis
from compedu.explorers.pages.standalone import StandaloneFigure, styled
from compedu.explorers.words import bytes_text
from compedu.metrics import Report


def dominated(report: Report, others: Sequence[Report]) -> bool:
    """Tell whether another report is at least as good in accuracy and bytes, and better in one of them."""
    return any(
        other.accuracy >= report.accuracy and other.file_bytes <= report.file_bytes
        and (other.accuracy, -other.file_bytes) != (report.accuracy, -report.file_bytes)
        for other in others
    )  # fmt: skip


def trade_off(reports: Sequence[Report], baseline: Report, controls: Sequence[Report] = ()) -> go.Figure:
    """Return the figure of all `reports` against the dense network `baseline`; open marks are dominated by another one.

    `controls` are small dense networks trained from scratch, as a gray line: whatever lies below it can be had
    without compression.
    """
    figure = StandaloneFigure()
    line = sorted(controls, key=lambda report: report.file_bytes)
    figure.add_scatter(
        x=[report.file_bytes for report in line], y=[100 * report.accuracy for report in line], mode="lines+markers",
        line={"color": DENSE, "dash": "dot", "width": 2}, marker={"size": 5}, name="small dense nets",
        hovertemplate="small dense net: %{y:.1f} %<extra></extra>",
    )  # fmt: skip
    for index, report in enumerate(sorted(reports, key=lambda report: report.file_bytes)):
        symbol = "diamond-open" if dominated(report, reports) else "diamond"
        name = " + ".join(step.split("(")[0] for step in report.method.split(" | "))
        figure.add_scatter(
            **_point(report, LIVE, symbol, "bottom center" if index % 2 else "top center"),
            text=[name],
            mode="markers+text",
        )
    figure.add_scatter(**_point(baseline, DENSE, "square", "middle right"), text=["dense"], mode="markers+text")
    shown = [*reports, baseline, *controls]
    axis = size_axis(shown)
    low, high = axis["range"]
    figure.update_layout(
        showlegend=False,
        xaxis=axis | {"title": "size of the file", "range": [low - 0.1, high + 0.15]},
        yaxis={"title": "accuracy, %", "range": [max(0.0, 100 * min(report.accuracy for report in shown) - 8), 104]},
    )  # fmt: skip
    return styled(figure, width=820, height=420, b=50)


def _point(report: Report, color: str, symbol: str, place: str) -> dict:
    low, high = report.accuracy_interval
    return {
        "x": [report.file_bytes], "y": [100 * report.accuracy], "textposition": place, "cliponaxis": False,
        "marker": {"size": 12, "color": color, "symbol": symbol, "line": {"width": 2}},
        "error_y": {
            "type": "data", "symmetric": False, "array": [100 * (high - report.accuracy)],
            "arrayminus": [100 * (report.accuracy - low)], "thickness": 1,
        },
        "hovertemplate": f"{report.method}<br>{report.accuracy:.1%}, {bytes_text(report.file_bytes)}<extra></extra>",
    }  # fmt: skip
