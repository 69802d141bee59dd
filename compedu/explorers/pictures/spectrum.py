"""Low rank: singular values with the cut, and the two factors as rectangles whose area is their parameters."""

import numpy as np

from compedu.explorers.colours import DENSE, LIVE, VERMILLION
from compedu.explorers.pictures.picture import BELOW, MAIN, Picture, line
from compedu.explorers.view import View
from compedu.forms import Factored, kernel_of


def unfolded(layer) -> np.ndarray:
    """Return a kernel as the matrix that is factored: (out, in), or (in * height, out * width) of a convolution."""
    kernel = kernel_of(layer).detach()
    if kernel.ndim == 4:
        kernel = kernel.permute(1, 2, 0, 3).reshape(kernel.shape[1] * kernel.shape[2], -1)
    return kernel.float().cpu().numpy()


def traces(view: View, layer: str) -> list[dict]:
    """Return all singular values, the kept ones, and the rectangles."""
    before, after = view.layer_pair(layer)
    matrix = unfolded(before)
    values = np.linalg.svd(matrix, compute_uv=False)
    rank = after.rank if isinstance(after, Factored) else len(values)
    m, n = matrix.shape
    larger = isinstance(after, Factored) and rank * (m + n) >= m * n
    count = np.arange(1, len(values) + 1)
    colour = VERMILLION if larger else LIVE
    return [
        line(MAIN, count, values, "singular value", DENSE),
        line(MAIN, count[:rank], values[:rank], "kept", colour, fill="tozeroy"),
        _rectangle(0, 0, n, m, DENSE, "dense"),
        _rectangle(1.15 * n, 0, rank, m, colour, "first factor", larger),
        _rectangle(1.2 * n + rank, m - rank, n, rank, colour, "second factor", larger),
    ]


def _rectangle(x: float, y: float, width: float, height: float, colour: str, name: str, hatched: bool = False) -> dict:
    made = line(
        BELOW, [x, x + width, x + width, x, x], [y, y, y + height, y + height, y], name, colour, fill="toself",
        hoverinfo="text", text=f"{name}: {width:.0f} x {height:.0f} = {width * height:,.0f} parameters",
    )  # fmt: skip
    del made["hovertemplate"]
    return made | {"fillpattern": {"shape": "/" if hatched else "", "fgcolor": colour}}


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    before, after = view.layer_pair(layer)
    matrix = unfolded(before)
    if not isinstance(after, Factored):
        return f"{layer}: not factored; full rank {min(matrix.shape)}."
    m, n = matrix.shape
    squares = np.linalg.svd(matrix, compute_uv=False) ** 2
    energy = squares[: after.rank].sum() / squares.sum()
    text = f"{layer}: rank {after.rank} of {min(m, n)} keeps {energy:.1%} of the energy"
    return f"{text}; {after.rank * (m + n):,} parameters instead of {m * n:,} (break-even at rank {m * n / (m + n):.1f})."


PICTURE = Picture(
    traces,
    ("singular values: kept ones filled", "dense, and the two factors: area = parameters"),
    say,
    {
        "xaxis4": {"title": {"text": "rank"}}, "yaxis4": {"rangemode": "tozero"},
        "xaxis7": {"visible": False}, "yaxis7": {"visible": False},
    },
)  # fmt: skip
