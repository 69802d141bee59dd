"""Low rank: singular values with the cut, and the two factors as rectangles whose areas are their parameters."""

from typing import cast

import numpy as np
import torch

from compedu.explorers.figures.colors import DENSE, LIVE, VERMILLION
from compedu.explorers.figures.pictures.picture import (
    GROWING,
    Picture,
    Table,
    facts_of,
    kind_now,
    layer_names,
    line,
    percent_text,
    relative_error,
    weight_after,
)
from compedu.explorers.figures.places import title
from compedu.explorers.figures.plots import BELOW, MAIN
from compedu.explorers.view import View
from compedu.forms import FormFacts, weight_of
from compedu.methods.low_rank.shared.matrix import as_matrix
from compedu.methods.low_rank.shared.rank import break_even
from compedu.methods.low_rank.shared.svd import energy, svd

CLOSE = 1e-4  # of the energy: half precision and rounding in float32 change less


def main(view: View, layer: str) -> list[dict]:
    """Return all singular values of the dense weight, and the kept ones filled."""
    values = spectrum(view, layer)
    kept = kept_values(view, layer)
    color = _color(view, layer)
    count = np.arange(1, len(values) + 1, dtype=np.int32)
    filled = {"fill": "tozeroy", "fillpattern": _pattern(view, layer)}
    return [
        line(MAIN, count, values, "singular value", DENSE),
        line(MAIN, count[: len(kept)], kept, "kept", color, **filled),
    ]


def kept_values(view: View, layer: str) -> np.ndarray:
    """Return the singular values of a layer as it is now: the largest of the dense ones where just these are kept.

    Factors that were fitted otherwise, or trained, have singular values of their own; a block has no dense weight,
    hence no values.
    """
    made = weight_after(view, layer)
    if factor_count(view, layer) == 0 or is_truncated(view, layer):
        return spectrum(view, layer)[: rank_of(view, layer)]
    return np.zeros(0, dtype=np.float32) if made is None else svd(as_matrix(made))[1].numpy()


def is_truncated(view: View, layer: str) -> bool:
    """Tell whether a layer consists of two factors whose product is the truncated decomposition of the dense weight.

    No other matrix of this rank is as close.
    """
    if factor_count(view, layer) != 2:
        return False
    error = relative_error(view, layer)
    dropped = 1 - energy(torch.from_numpy(spectrum(view, layer)), rank_of(view, layer))
    return error is not None and abs(error**2 - dropped) < CLOSE


def factor_count(view: View, layer: str) -> int:
    """Return how many factors a layer consists of: 0 for an ordinary one, 1 where form or block do not state it."""
    form = facts_of(view, layer)
    return 0 if form is None else max(1, len(form.factors))


def spectrum(view: View, layer: str) -> np.ndarray:
    """Return the singular values of a layer's dense weight, in descending order."""
    return view.once(("spectrum", layer), lambda: svd(_dense(view, layer))[1].numpy())


def _dense(view: View, layer: str) -> torch.Tensor:
    return as_matrix(weight_of(view.layer_pair(layer)[0]).detach())


def shape(view: View, layer: str) -> tuple[int, int]:
    """Return rows and columns of the matrix that is factored."""
    return tuple(_dense(view, layer).shape)


def rank_of(view: View, layer: str) -> int:
    """Return the current rank of a layer: the smallest number of channels between its factors, or its full rank."""
    form = facts_of(view, layer)
    return min(shape(view, layer)) if form is None or not form.ranks else min(form.ranks)


def is_larger(view: View, layer: str) -> bool:
    """Tell whether the factors hold more numbers than the matrix."""
    rows, columns = shape(view, layer)
    if factor_count(view, layer) == 2:
        return rank_of(view, layer) >= break_even(rows, columns)
    return factor_count(view, layer) > 0 and facts_of(view, layer).free_numbers() >= rows * columns


def _color(view: View, layer: str) -> str:
    return VERMILLION if is_larger(view, layer) else LIVE


def _pattern(view: View, layer: str) -> dict:
    return {"shape": "/" if is_larger(view, layer) else "", "fgcolor": _color(view, layer), "size": 6}


def below(view: View, layer: str) -> list[dict]:
    """Return the matrix and its two factors, drawn to one scale."""
    (rows, columns) = shape(view, layer)
    rank = rank_of(view, layer)
    gap = 0.12 * columns
    color = _color(view, layer)
    pattern = _pattern(view, layer)
    first = second = None
    if factor_count(view, layer) == 2:
        first = (columns + gap, 0, rank, rows)
        second = (columns + 2 * gap + rank, rows - rank, columns, rank)
    elif factor_count(view, layer):  # no two rectangles would show these factors truthfully
        first = (columns + gap, 0, facts_of(view, layer).free_numbers() / rows, rows)
    return [
        _rectangle((0, 0, columns, rows), DENSE, "dense", {"shape": "", "fgcolor": DENSE, "size": 6}),
        _rectangle(first, color, "a factor", pattern), _rectangle(second, color, "a factor", pattern),
    ]  # fmt: skip


def _rectangle(corner: tuple[float, ...] | None, color: str, name: str, pattern: dict) -> dict:
    x, y, width, height = corner or (0, 0, 0, 0)
    made = line(
        BELOW, [x, x + width, x + width, x, x] if corner else [], [y, y, y + height, y + height, y] if corner else [],
        name, color, fill="toself", fillpattern=pattern, hoveron="fills", hoverinfo="text",
        text=f"{name}: {height:.0f} × {width:.4g} = {width * height:,.0f} numbers",
    )  # fmt: skip
    del made["hovertemplate"]
    return made


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    full = min(shape(view, layer))
    rank = rank_of(view, layer)
    if factor_count(view, layer) == 0:
        return f"{layer}: not factored, rank {full}"
    if factor_count(view, layer) != 2:
        return factoring(view, layer)
    if not is_truncated(view, layer):
        return f"{layer}: rank {rank} of {full}, error {percent_text(relative_error(view, layer)) or 'unknown'}"
    kept = energy(torch.from_numpy(spectrum(view, layer)), rank)
    return f"{layer}: rank {rank} of {full}, {100 * kept:.1f} % of the energy" + (
        ", larger!" if is_larger(view, layer) else ""
    )


def factoring(view: View, layer: str) -> str:
    """Describe a layer that is not two factors: how many factors it has, and which share of the numbers."""
    form = cast(FormFacts, facts_of(view, layer))
    kind = f"{len(form.factors)} factors" if form.factors else kind_now(view, layer)
    rows, columns = shape(view, layer)
    error = percent_text(relative_error(view, layer))
    left = percent_text(form.free_numbers() / (rows * columns))
    return f"{layer}: {kind}, {left} of the numbers" + (f", error {error}" if error else "")


def table(view: View) -> Table:
    """Return rank, energy and parameter counts of each layer."""
    made = []
    for name in layer_names(view):
        (rows, columns) = shape(view, name)
        rank = rank_of(view, name)
        count = factor_count(view, name)
        form = facts_of(view, name)
        kept = 1.0 if count == 0 else None
        if is_truncated(view, name):
            kept = energy(torch.from_numpy(spectrum(view, name)), rank)
        held = rows * columns if form is None else rank * (rows + columns) if count == 2 else form.free_numbers()
        ranks = ", ".join(map(str, form.ranks or ("unknown",))) if count not in (0, 2) else rank
        made.append((
            name, ranks, min(rows, columns), percent_text(kept), f"{held:,}", f"{rows * columns:,}",
            f"{break_even(rows, columns):.1f}",
        ))  # fmt: skip
    return ("layer", "rank", "full rank", "energy kept", "numbers", "numbers when dense", "break-even rank"), made


PICTURE = Picture(
    name="singular values",
    main=main,
    below=below,
    headings=("singular values: filled = kept, hatched = larger", "dense, and its factors: area = numbers"),
    say=say,
    table=table,
    axes={
        MAIN.xaxis: {"title": title("rank")},
        MAIN.yaxis: GROWING,
        BELOW.xaxis: {"visible": False},
        BELOW.yaxis: {"visible": False, "scaleanchor": BELOW.x},
    },
)
