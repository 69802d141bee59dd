"""What a picture of a family is, and the few kinds of traces that all pictures are made of."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from compedu.explorers.colours import LIVE, SIGNED
from compedu.explorers.view import View

MAIN, BELOW = ("x4", "y4"), ("x7", "y7")  # the two places of a picture: a large one, and a small one below it


@dataclass(frozen=True)
class Picture:
    """The picture of one family: `traces(view, layer)` for both places, axes, titles, and a sentence that says it."""

    traces: Callable[[View, str], list[dict]]
    titles: tuple[str, str]
    say: Callable[[View, str], str]
    axes: dict[str, dict] = field(default_factory=dict)


def heatmap(at: tuple[str, str], values: np.ndarray, name: str, scale: list = SIGNED, limit: float | None = None) -> dict:
    """Return a heat map of a matrix (rows, columns), symmetric about zero; NaN is black: gone."""
    limit = limit or float(np.nanmax(np.abs(values), initial=1e-12))
    return {
        "type": "heatmap", "xaxis": at[0], "yaxis": at[1], "z": values, "colorscale": scale, "zmin": -limit,
        "zmax": limit, "showscale": False, "hoverongaps": False, "name": name,
        "hovertemplate": name + "<br>row %{y}, column %{x}: %{z:.3g}<extra></extra>",
    }  # fmt: skip


def line(at: tuple[str, str], x, y, name: str, colour: str = LIVE, mode: str = "lines", **style) -> dict:
    """Return a curve or, with another `mode`, points."""
    return {
        "type": "scatter", "mode": mode, "xaxis": at[0], "yaxis": at[1], "x": x, "y": y, "name": name,
        "line": {"color": colour, "width": 2} | style.pop("line", {}), "marker": {"color": colour, "size": 7},
        "showlegend": False, "hovertemplate": name + ": %{y:.3g}<extra></extra>",
    } | style  # fmt: skip


def bars(at: tuple[str, str], x, y, name: str, colour: str | list = LIVE, **style) -> dict:
    """Return upright bars."""
    return {
        "type": "bar", "xaxis": at[0], "yaxis": at[1], "x": x, "y": y, "name": name, "showlegend": False,
        "marker": {"color": colour, "line": {"width": 0}}, "hovertemplate": "%{x}: %{y:.3g}<extra>" + name + "</extra>",
    } | style  # fmt: skip


def shrunk(matrix: np.ndarray, most: int = 96) -> np.ndarray:
    """Return at most `most` rows and columns of a matrix, evenly picked: a screen has no more pixels for it."""
    rows = np.linspace(0, matrix.shape[0] - 1, min(most, matrix.shape[0])).round().astype(int)
    columns = np.linspace(0, matrix.shape[1] - 1, min(most, matrix.shape[1])).round().astype(int)
    return matrix[np.ix_(rows, columns)]


def as_matrix(kernel) -> np.ndarray:
    """Return a kernel (out, in, ...) as a matrix (out, everything else)."""
    array = kernel.detach().float().cpu().numpy()
    return array.reshape(array.shape[0], -1)
