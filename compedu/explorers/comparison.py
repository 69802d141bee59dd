"""Many methods on the same two axes: accuracy against bytes, with what is beaten drawn open."""

from collections.abc import Sequence

import plotly.graph_objects as go

from compedu.explorers.colours import DENSE, LIVE, TEXT
from compedu.explorers.words import bytes_text
from compedu.metrics import Report


def beaten(report: Report, others: Sequence[Report]) -> bool:
    """Tell whether another report is at least as good in accuracy and bytes, and better in one of them."""
    return any(
        other.accuracy >= report.accuracy and other.file_bytes <= report.file_bytes
        and (other.accuracy, -other.file_bytes) != (report.accuracy, -report.file_bytes)
        for other in others
    )  # fmt: skip


def trade_off(reports: Sequence[Report], baseline: Report) -> go.Figure:
    """Return the figure of all `reports` against the dense network `baseline`; open marks are beaten by another one."""
    figure = go.Figure()
    for report in reports:
        symbol = "diamond-open" if beaten(report, reports) else "diamond"
        figure.add_scatter(**_point(report, LIVE, symbol), text=[report.method.split("(")[0]], mode="markers+text")
    figure.add_scatter(**_point(baseline, DENSE, "square"), text=["dense"], mode="markers+text")
    figure.update_layout(
        width=760, height=380, margin={"l": 60, "r": 20, "t": 10, "b": 50}, showlegend=False,
        xaxis={"type": "log", "title": "bytes of the file (log)", "tickformat": "~s"}, yaxis={"title": "accuracy, %"},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"color": TEXT},
    )  # fmt: skip
    return figure


def _point(report: Report, colour: str, symbol: str) -> dict:
    low, high = report.accuracy_interval
    return {
        "x": [report.file_bytes], "y": [100 * report.accuracy], "textposition": "bottom center",
        "marker": {"size": 12, "color": colour, "symbol": symbol, "line": {"width": 2}},
        "error_y": {
            "type": "data", "symmetric": False, "array": [100 * (high - report.accuracy)],
            "arrayminus": [100 * (report.accuracy - low)], "thickness": 1,
        },
        "hovertemplate": f"{report.method}<br>{report.accuracy:.1%}, {bytes_text(report.file_bytes)}<extra></extra>",
    }  # fmt: skip
