"""Plain figures of chapters: small matrices side by side with their values, and curves over a knob."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from torch import Tensor

from compedu.explorers.figures.colors import BLUE, GREEN, ORANGE, PURPLE, SIGNED, SKY, VERMILLION
from compedu.explorers.pages.standalone import StandaloneFigure, styled

CURVES = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY)
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross")  # curves never differ by color alone


def matrices(**named: Tensor) -> go.Figure:
    """Return a figure of matrices (rows, columns) side by side under their names, two decimals; zeros are blank."""
    figure = make_subplots(
        1, len(named), subplot_titles=[name.replace("_", " ") for name in named], horizontal_spacing=0.04,
        figure=StandaloneFigure(),
    )  # fmt: skip
    limit = max(float(matrix.abs().max()) for matrix in named.values()) or 1.0
    for column, (name, matrix) in enumerate(named.items(), start=1):
        shown = [[None if value == 0 else value for value in row] for row in matrix.tolist()]
        words = [["" if value is None else _short(value) for value in row] for row in shown]
        figure.add_heatmap(
            row=1, col=column, z=shown, text=words, texttemplate="%{text}", textfont={"size": 12}, colorscale=SIGNED,
            zmin=-limit, zmax=limit, showscale=False, xgap=1, ygap=1,
            hovertemplate=name + "<br>row %{y}, column %{x}: %{z}<extra></extra>",
        )  # fmt: skip
    side = 42 * max(matrix.shape[0] for matrix in named.values())
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, autorange="reversed", scaleanchor="x", constrain="domain")
    width = 30 + sum(20 + 42 * matrix.shape[1] for matrix in named.values())
    return styled(figure, width, height=60 + side, r=10, t=40, b=45)


def _short(value: float) -> str:
    """Return a number with at most two decimals: more have no room."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def curves(
    x: Sequence[float], named: Mapping[str, Sequence[float]], x_title: str, y_title: str, log: bool = False
) -> go.Figure:
    """Return a figure of curves over `x`, each with its own name, color and marker; with `log`, y is logarithmic."""
    figure = StandaloneFigure()
    for index, (name, y) in enumerate(named.items()):
        figure.add_scatter(
            x=list(x), y=list(y), name=name, mode="lines+markers",
            line={"color": CURVES[index % len(CURVES)], "width": 2},
            marker={"symbol": MARKERS[index % len(MARKERS)], "size": 8},
            hovertemplate=name + " at %{x:g}: %{y:.3g}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(xaxis_title=x_title, yaxis={"title": y_title, "type": "log" if log else "linear"})
    return styled(figure, width=640, height=340, r=10, t=40, b=45)
