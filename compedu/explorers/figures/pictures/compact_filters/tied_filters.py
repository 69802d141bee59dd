"""CReLU: the filters of a convolution, stored ones bright and their negatives faint; the loss during training."""

import numpy as np

from compedu.explorers.figures.pictures.picture import (
    Picture,
    Table,
    facts_of,
    first_convolution,
    heatmap,
    images_of,
    kind_now,
    layer_names,
    montage,
    percent_text,
    untouched,
    weight_after,
)
from compedu.explorers.figures.pictures.training import loss
from compedu.explorers.figures.plots import MAIN
from compedu.explorers.view import View
from compedu.forms import weight_of

MOST = 40
COLUMNS = 10
COPY = 0.4


def main(view: View, layer: str) -> list[dict]:
    """Return the filters of the layer: those of the dense network, or the stored half above and its negatives below."""
    made = weight_after(view, layer)
    bank = images_of(weight_of(view.layer_pair(layer)[0]).detach() if made is None else made)
    tied = ~stored_rows(view, layer, len(bank))
    shown = np.concatenate([np.flatnonzero(~tied)[: MOST // (1 + tied.any())], np.flatnonzero(tied)[: MOST // 2]])
    limit = float(np.abs(bank).max()) or 1.0
    return [
        heatmap(MAIN, montage(bank[shown], ~tied[shown], COLUMNS), "weight", limit=limit),
        heatmap(
            MAIN, montage(bank[shown], tied[shown], COLUMNS), "negative of a stored filter", limit=limit, opacity=COPY
        ),
    ]


def stored_rows(view: View, layer: str, count: int) -> np.ndarray:
    """Return which of the `count` filters of a layer are stored, not copies; all where the form does not state it."""
    form = facts_of(view, layer)
    stored = None if form is None else form.stored_entries()
    return np.ones(count, dtype=bool) if stored is None else stored.flatten(1).any(1).numpy()


def stored_filters(view: View, layer: str) -> tuple[int | None, int]:
    """Return how many filters of a layer are stored (None where its form does not state it), and how many it had."""
    count = len(weight_of(view.layer_pair(layer)[0]))
    form = facts_of(view, layer)
    if form is not None and form.stored_entries() is None:
        return None, count
    return int(stored_rows(view, layer, count).sum()), count


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    stored, count = stored_filters(view, layer)
    if view.after is None:
        return untouched(layer)
    if stored is None:
        weights = weight_of(view.layer_pair(layer)[0]).numel()
        numbers = facts_of(view, layer).free_numbers()
        return f"{layer}: {kind_now(view, layer)}, {numbers:,} numbers in place of {weights:,} weights"
    return f"{layer}: {count} filters, " + (
        "all stored" if stored == count else f"{stored} stored, {count - stored} negatives"
    )


def table(view: View) -> Table:
    """Return the filter counts of each layer, stored and dense."""
    counts = [(name, *stored_filters(view, name)) for name in layer_names(view)]
    return (
        ("layer", "filters stored", "filters", "share"),
        [
            (name, "unknown", count, "") if stored is None else (name, stored, count, percent_text(stored / count))
            for name, stored, count in counts
        ],
    )


PICTURE = Picture(
    name="filters",
    main=main,
    below=loss.below,
    headings=("filters: bright = stored, faint = negatives of these", loss.HEADING),
    say=say,
    table=table,
    axes={
        MAIN.xaxis: {"visible": False},
        MAIN.yaxis: {"autorange": "reversed", "scaleanchor": MAIN.x, "visible": False, "constraintoward": "top"},
    }
    | loss.AXES,
    start=first_convolution,
)
