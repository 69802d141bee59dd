"""CReLU: the filters of a convolution, the stored ones bright and their negatives faint; the loss while it trains."""

import numpy as np

from compedu.explorers.figures.pictures.picture import (
    MAIN,
    Picture,
    Table,
    heatmap,
    layer_names,
    percent_text,
    untouched,
)
from compedu.explorers.figures.pictures.pruning.pruned_filters import first_convolution, images_of, montage
from compedu.explorers.figures.pictures.training import loss
from compedu.explorers.view import View
from compedu.forms import CReLUFilters, kernel_of

MOST, COLUMNS, COPY = 40, 10, 0.4


def main(view: View, layer: str) -> list[dict]:
    """Return the filters of the layer: those of the dense network, or the stored half above and its negatives below."""
    before, after = view.layer_pair(layer)
    bank = images_of(kernel_of(before if after is None else after).detach())
    tied = np.arange(len(bank)) >= stored_filters(view, layer)[0]
    shown = np.concatenate([np.flatnonzero(~tied)[: MOST // (1 + tied.any())], np.flatnonzero(tied)[: MOST // 2]])
    limit = float(np.abs(bank).max()) or 1.0
    return [
        heatmap(MAIN, montage(bank[shown], ~tied[shown], COLUMNS), "weight", limit=limit),
        heatmap(
            MAIN, montage(bank[shown], tied[shown], COLUMNS), "negative of a stored filter", limit=limit, opacity=COPY
        ),
    ]


def stored_filters(view: View, layer: str) -> tuple[int, int]:
    """Return how many filters of a layer are stored, and how many it has."""
    before, after = view.layer_pair(layer)
    count = len(kernel_of(before))
    return (len(after.base) if isinstance(after, CReLUFilters) else count), count


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    stored, count = stored_filters(view, layer)
    if view.after is None:
        return untouched(layer)
    return f"{layer}: {count} filters, " + (
        "all stored" if stored == count else f"{stored} stored, {count - stored} negatives"
    )


def table(view: View) -> Table:
    """Return the stored filters of each layer."""
    counts = [(name, *stored_filters(view, name)) for name in layer_names(view)]
    return (
        ("layer", "filters stored", "filters", "share"),
        [(n, stored, count, percent_text(stored / count)) for n, stored, count in counts],
    )


PICTURE = Picture(
    "filters", main, loss.below, ("filters: bright = stored, faint = negatives of these", loss.HEADING), say, table,
    {
        "xaxis4": {"visible": False},
        "yaxis4": {"autorange": "reversed", "scaleanchor": "x4", "visible": False, "constraintoward": "top"},
    } | loss.AXES,
    start=first_convolution,
)  # fmt: skip
