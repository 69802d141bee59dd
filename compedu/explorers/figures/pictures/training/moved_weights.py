"""Fine-tuning: how far the weights of a layer moved, and the loss during training."""

import numpy as np

from compedu.explorers.figures.colors import DENSE, LIVE
from compedu.explorers.figures.pictures.picture import (
    Picture,
    Table,
    as_matrix,
    dense_matrix,
    layer_names,
    line,
    percent_text,
    relative_error,
)
from compedu.explorers.figures.pictures.training import loss
from compedu.explorers.figures.plots import MAIN
from compedu.explorers.view import View
from compedu.forms import weight_of

SAMPLE = 700


def main(view: View, layer: str) -> list[dict]:
    """Return the weight after against the weight before for a sample, and the line of no change."""
    _, after = view.layer_pair(layer)
    dense = dense_matrix(view, layer).reshape(-1)
    made = dense if after is None else as_matrix(weight_of(after)).reshape(-1)
    pick = np.linspace(0, dense.size - 1, min(SAMPLE, dense.size)).astype(int)
    limit = float(np.abs(dense).max())
    return [
        line(MAIN, [-limit, limit], [-limit, limit], "unchanged", DENSE, line={"dash": "dot"}),
        line(
            MAIN, dense[pick], made[pick] if made.shape == dense.shape else dense[pick], "weight", LIVE,
            mode="markers", marker={"size": 3, "color": LIVE},
        ),
    ]  # fmt: skip


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    moved = relative_error(view, layer)
    return (
        f"{layer}: not trained yet"
        if view.after is None
        else f"{layer}: moved by {percent_text(moved) or 'unknown'} of its norm"
    )


def table(view: View) -> Table:
    """Return how far the weights of each layer moved."""
    return (
        ("layer", "moved, of its norm"),
        [(name, percent_text(relative_error(view, name))) for name in layer_names(view)],
    )


PICTURE = Picture(
    name="weights",
    main=main,
    below=loss.below,
    headings=("weight after training against weight before", loss.HEADING),
    say=say,
    table=table,
    axes={MAIN.xaxis: {"nticks": 5}, MAIN.yaxis: {"nticks": 5}} | loss.AXES,
)
