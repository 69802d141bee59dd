"""Low rank: singular values with the cut, and the two factors as rectangles whose area is their parameters."""

import numpy as np
import torch

from compedu.explorers.figures.colours import DENSE, LIVE, VERMILLION
from compedu.explorers.figures.pictures.picture import BELOW, MAIN, Picture, Table, layer_names, line, percent_text
from compedu.explorers.figures.places import title
from compedu.explorers.view import View
from compedu.forms import Factored, kernel_of
from compedu.methods.low_rank.shared.rank import break_even
from compedu.methods.low_rank.shared.svd import energy, svd
from compedu.methods.low_rank.truncated_svd import as_matrix


def main(view: View, layer: str) -> list[dict]:
    """Return all singular values of the dense kernel, and the kept ones filled."""
    values = spectrum(view, layer)
    rank = rank_of(view, layer)
    colour = _colour(view, layer)
    count = np.arange(1, len(values) + 1, dtype=np.int32)
    return [
        line(MAIN, count, values, "singular value", DENSE),
        line(MAIN, count[:rank], values[:rank], "kept", colour, fill="tozeroy", fillpattern=_pattern(view, layer)),
    ]


def spectrum(view: View, layer: str) -> np.ndarray:
    """Return the singular values of a layer's dense kernel, in descending order."""
    return view.once(("spectrum", layer), lambda: svd(_dense(view, layer))[1].numpy())


def _dense(view: View, layer: str) -> torch.Tensor:
    return as_matrix(kernel_of(view.layer_pair(layer)[0]).detach())


def shape(view: View, layer: str) -> tuple[int, int]:
    """Return rows and columns of the matrix that is factored."""
    return tuple(_dense(view, layer).shape)


def rank_of(view: View, layer: str) -> int:
    """Return the rank that a layer has now: its full one where it is not factored."""
    _, after = view.layer_pair(layer)
    return after.rank if isinstance(after, Factored) else min(shape(view, layer))


def is_larger(view: View, layer: str) -> bool:
    """Tell whether the two factors hold more numbers than the matrix."""
    rows, columns = shape(view, layer)
    return isinstance(view.layer_pair(layer)[1], Factored) and rank_of(view, layer) >= break_even(rows, columns)


def _colour(view: View, layer: str) -> str:
    return VERMILLION if is_larger(view, layer) else LIVE


def _pattern(view: View, layer: str) -> dict:
    return {"shape": "/" if is_larger(view, layer) else "", "fgcolor": _colour(view, layer), "size": 6}


def below(view: View, layer: str) -> list[dict]:
    """Return the matrix and its two factors, drawn to one scale."""
    (rows, columns), rank = shape(view, layer), rank_of(view, layer)
    factored = isinstance(view.layer_pair(layer)[1], Factored)
    gap = 0.12 * columns
    colour = _colour(view, layer)
    pattern = _pattern(view, layer)
    first = (columns + gap, 0, rank, rows) if factored else None
    second = (columns + 2 * gap + rank, rows - rank, columns, rank) if factored else None
    return [
        _rectangle((0, 0, columns, rows), DENSE, "dense", {"shape": "", "fgcolor": DENSE, "size": 6}),
        _rectangle(first, colour, "a factor", pattern), _rectangle(second, colour, "a factor", pattern),
    ]  # fmt: skip


def _rectangle(corner: tuple[float, ...] | None, colour: str, name: str, pattern: dict) -> dict:
    x, y, width, height = corner or (0, 0, 0, 0)
    made = line(
        BELOW, [x, x + width, x + width, x, x] if corner else [], [y, y, y + height, y + height, y] if corner else [],
        name, colour, fill="toself", fillpattern=pattern, hoveron="fills", hoverinfo="text",
        text=f"{name}: {height:.0f} × {width:.0f} = {width * height:,.0f} numbers",
    )  # fmt: skip
    del made["hovertemplate"]
    return made


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    full = min(shape(view, layer))
    rank = rank_of(view, layer)
    if not isinstance(view.layer_pair(layer)[1], Factored):
        return f"{layer}: not factored, rank {full}"
    kept = energy(torch.from_numpy(spectrum(view, layer)), rank)
    return f"{layer}: rank {rank} of {full}, {100 * kept:.1f} % of the energy" + (
        ", larger!" if is_larger(view, layer) else ""
    )


def table(view: View) -> Table:
    """Return rank, energy and numbers of each layer."""
    made = []
    for name in layer_names(view):
        (rows, columns), rank = shape(view, name), rank_of(view, name)
        factored = isinstance(view.layer_pair(name)[1], Factored)
        kept = energy(torch.from_numpy(spectrum(view, name)), rank) if factored else 1.0
        held = rank * (rows + columns) if factored else rows * columns
        made.append((
            name, rank, min(rows, columns), percent_text(kept), f"{held:,}", f"{rows * columns:,}",
            f"{break_even(rows, columns):.1f}",
        ))  # fmt: skip
    return ("layer", "rank", "full rank", "energy kept", "numbers", "numbers when dense", "break-even rank"), made


PICTURE = Picture(
    "singular values", main, below,
    ("singular values: filled = kept, hatched orange = larger", "dense, and its factors: area = numbers"), say, table,
    {
        "xaxis4": {"title": title("rank")}, "yaxis4": {"rangemode": "tozero", "nticks": 5},
        "xaxis7": {"visible": False}, "yaxis7": {"visible": False, "scaleanchor": "x7"},
    },
)  # fmt: skip
