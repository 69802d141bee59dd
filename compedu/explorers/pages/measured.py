"""What one report measured, as figures: the bytes of its file by purpose, and all rounds of its timing as dots."""

import statistics
from collections.abc import Sequence

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from compedu.explorers.figures.colors import DENSE, GRAY, LIVE, ROLES, TEXT
from compedu.explorers.pages.comparison import names_of
from compedu.explorers.pages.standalone import StandaloneFigure, styled
from compedu.explorers.words import bytes_text, percent, verdict_text
from compedu.metrics import Latency, Report
from compedu.metrics.accuracy import Interval
from compedu.metrics.latency import BASELINE, BASELINE_AGAIN, CANDIDATE, median_interval, ratios

ROW = 46  # pixels
WIDTH = 760
TOLD = 0.09  # a part of a bar with at least this share of the longest one has room for its own share in percent
FAR = 2.5  # times the largest median, where the axis ends: a few slow rounds would press all others together
ARMS = ((BASELINE, "dense network", DENSE), (BASELINE_AGAIN, "dense, again", DENSE), (CANDIDATE, "this network", LIVE))
Row = tuple[str, list[float], Interval, str]  # name, one value a round, interval of their median, color


def file_bar(reports: Report | Sequence[Report]) -> go.Figure:
    """Return the figure of what the bytes of one or several files are for, a bar each, to one scale.

    Raises `ValueError` for a report without the sizes, as of a measurement that is not complete.
    """
    rows = [reports] if isinstance(reports, Report) else list(reports)
    roles = [_roles(report) for report in rows]
    sizes = [sum(of.values()) for of in roles]
    longest = max(sizes)
    figure = StandaloneFigure()
    for role, (color, label) in ROLES.items():
        parts = [(of.get(role, 0), size) for of, size in zip(roles, sizes, strict=True)]
        counts = [count for count, _ in parts]
        figure.add_bar(
            x=counts, y=list(range(len(rows))), orientation="h", name=label, showlegend=any(counts),
            marker={"color": color, "line": {"width": 0.5, "color": GRAY}}, width=0.6,
            text=[percent(count / size, 0) if count >= TOLD * longest else "" for count, size in parts],
            textposition="inside", insidetextanchor="middle", textangle=0, textfont={"size": 12},
            customdata=[f"{percent(count / size)} of {bytes_text(size)}" for count, size in parts],
            hovertemplate=label + ": %{x:,} bytes, %{customdata}<extra></extra>",
        )  # fmt: skip
    ends = [
        {"x": size, "y": row, "text": bytes_text(size), "xanchor": "left", "xshift": 4, "showarrow": False}
        for row, size in enumerate(sizes)
    ]
    figure.update_layout(
        barmode="stack", annotations=ends, legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom",
        "traceorder": "normal", "itemclick": False, "itemdoubleclick": False},
        xaxis={"title": "bytes of the packed file", "range": [0, 1.16 * longest], "exponentformat": "SI"},
        yaxis={"tickvals": list(range(len(rows))), "ticktext": names_of(rows), "autorange": "reversed",
               "automargin": True, "showgrid": False, "zeroline": False},
    )  # fmt: skip
    return styled(figure, WIDTH, height=84 + ROW * len(rows), l=10, t=34)


def _roles(report: Report) -> dict[str, int]:
    if not report.size_by_role:
        raise ValueError(
            f"file_bar: the report of {report.method or 'the dense network'} has no bytes by purpose; measure the "
            "network to the end first"
        )
    return report.size_by_role


def timing_dots(latency: Latency) -> go.Figure:
    """Return the figure of all rounds of a timing: the time of each arm, and the two ratios that are judged.

    A dot is one round, a bar the 95 % interval of the median. The dense network against itself is the A/A arm. Raises
    `ValueError` for a `Latency` without its rounds, as of a stored report, or without a baseline.
    """
    rounds = latency.rounds_ms
    if rounds is None or BASELINE not in rounds:
        what = "rounds, as it was read from a file" if rounds is None else "baseline"
        raise ValueError(f"timing_dots: this timing has no {what}; measure again with a baseline, here and now")
    figure = make_subplots(1, 2, column_widths=[0.5, 0.5], horizontal_spacing=0.17, figure=StandaloneFigure())
    draws = torch.Generator().manual_seed(0)
    times = [(name, list(rounds[arm]), median_interval(list(rounds[arm])), color) for arm, name, color in ARMS]
    again, other = (ratios(list(rounds[BASELINE]), list(rounds[arm])) for arm in (BASELINE_AGAIN, CANDIDATE))
    judged = [
        ("dense /<br>dense, again", again, median_interval(again), DENSE),
        ("dense /<br>this network", other, median_interval(other), LIVE),
    ]
    titles = f"time of {latency.batch_size} images, ms", f"ratio in the same round: {verdict_text(latency)}"
    for column, (rows, title) in enumerate(zip((times, judged), titles, strict=True), start=1):
        _panel(figure, column, rows, title, draws)
    figure.add_shape(
        type="line", xref="x2", yref="y2 domain", x0=1, x1=1, y0=0, y1=1,
        line={"color": GRAY, "width": 1, "dash": "dot"},
    )  # fmt: skip
    figure.update_layout(showlegend=False)
    return styled(figure, WIDTH, height=60 + ROW * len(ARMS), l=100)


def _panel(figure: go.Figure, column: int, rows: Sequence[Row], title: str, draws: torch.Generator) -> None:
    """Draw the dots of each row, and below them their median with its interval."""
    end = FAR * max(statistics.median(values) for _, values, _, _ in rows)
    longest = max(max(values) for _, values, _, _ in rows)
    low = min(min(values) for _, values, _, _ in rows)
    for row, (name, values, interval, color) in enumerate(rows):
        plain = name.replace("<br>", " ")
        figure.add_scatter(row=1, col=column, **_dots(values, row, end, color, plain, draws))
        figure.add_scatter(row=1, col=column, **_interval(values, interval, row, plain))
    far = "; ▸ beyond" if longest > end else ""
    figure.update_xaxes(title=title + far, range=[0.94 * low, 1.03 * min(end, longest)], row=1, col=column)
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=[name for name, *_ in rows], range=[len(rows) - 0.5, -0.5],
        showgrid=False, zeroline=False, row=1, col=column,
    )  # fmt: skip


def _dots(values: Sequence[float], row: int, end: float, color: str, name: str, draws: torch.Generator) -> dict:
    """Return one dot for each value, spread over the height of a row; those beyond `end` at the end, as triangles."""
    heights = row - 0.1 + 0.44 * (torch.rand(len(values), generator=draws) - 0.5)
    beyond = [value > end for value in values]
    return {
        "x": [min(value, end) for value in values], "y": heights.tolist(), "mode": "markers", "name": name,
        "customdata": list(values), "hovertemplate": name + ": %{customdata:.3g}<extra></extra>",
        "marker": {"size": [9 if far else 5 for far in beyond], "color": color, "opacity": 0.6,
                   "symbol": ["triangle-right" if far else "circle" for far in beyond]},
    }  # fmt: skip


def _interval(values: Sequence[float], ends: Interval, row: int, name: str) -> dict:
    middle = statistics.median(values)
    return {
        "x": [middle], "y": [row + 0.3], "mode": "markers", "name": f"median of {name}",
        "marker": {"symbol": "diamond", "size": 8, "color": TEXT},
        "error_x": {"type": "data", "symmetric": False, "array": [ends[1] - middle], "arrayminus": [middle - ends[0]],
                    "color": TEXT, "thickness": 2, "width": 5},
        "hovertemplate": f"median of {name}: {middle:.3g}, {ends[0]:.3g} to {ends[1]:.3g}<extra></extra>",
    }  # fmt: skip
