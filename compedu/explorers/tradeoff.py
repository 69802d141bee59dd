"""Accuracy against bytes: this method's sweep, the small dense network at equal bytes, the live point, pins."""

from compedu.explorers.colours import CONTROL, LIVE, PINS, PREDICTION, PREVIEW
from compedu.explorers.view import View
from compedu.explorers.words import bytes_text
from compedu.metrics import Report


def traces(view: View) -> list[dict]:
    """Return the traces of the trade-off curve; their number and kinds never change."""
    live = [view.report] if view.report is not None else []
    return [
        _line(_sized(view.controls), CONTROL, "dot", "small dense networks, trained from scratch"),
        _line(_sized(view.points), PREVIEW, "dash", "this method (stored sweep)"),
        _prediction(view.prediction),
        _marks([view.baseline], "square", CONTROL, "the dense network"),
        *[_marks(view.pins[i : i + 1], "star", colour, f"pin {'ABC'[i]}") for i, colour in enumerate(PINS)],
        _marks(live, "diamond", LIVE if view.measured else PREVIEW, "now"),
    ]


def _sized(reports: list[Report] | tuple[Report, ...]) -> list[Report]:
    """Keep the reports that know their size, in the order of the sweep: the order of the knob."""
    return [report for report in reports if report.file_bytes is not None]


def _coordinates(reports: list[Report]) -> dict:
    return {
        "x": [report.file_bytes for report in reports],
        "y": [100 * report.accuracy for report in reports],
        "text": [f"{report.method}<br>{report.accuracy:.1%}, {bytes_text(report.file_bytes)}" for report in reports],
    }


def _line(reports: list[Report], colour: str, dash: str, name: str) -> dict:
    return _coordinates(reports) | {
        "type": "scatter", "mode": "lines+markers", "xaxis": "x5", "yaxis": "y5", "name": name, "showlegend": True,
        "line": {"color": colour, "dash": dash, "width": 2}, "marker": {"size": 5, "color": colour},
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _marks(reports: list[Report], symbol: str, colour: str, name: str) -> dict:
    return _coordinates(_sized(reports)) | {
        "type": "scatter", "mode": "markers", "xaxis": "x5", "yaxis": "y5", "name": name, "showlegend": False,
        "marker": {"symbol": symbol, "size": 13, "color": colour, "line": {"width": 1, "color": "#FFFFFF"}},
        "hovertemplate": name + "<br>%{text}<extra></extra>",
    }  # fmt: skip


def _prediction(points: tuple[tuple[float, float], ...]) -> dict:
    return {
        "type": "scatter", "mode": "lines+markers", "xaxis": "x5", "yaxis": "y5", "name": "your prediction",
        "x": [size for size, _ in points], "y": [100 * accuracy for _, accuracy in points], "showlegend": bool(points),
        "line": {"color": PREDICTION, "width": 2}, "marker": {"symbol": "circle-open", "size": 8, "color": PREDICTION},
        "hovertemplate": "your prediction: %{y:.1f} %<extra></extra>",
    }  # fmt: skip
