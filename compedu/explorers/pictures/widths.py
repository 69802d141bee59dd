"""The small dense network: how many filters each layer has, beside the given network; the loss while it is trained."""

from compedu.explorers.colours import DENSE, LIVE
from compedu.explorers.pictures import filters, loss
from compedu.explorers.pictures.picture import MAIN, Picture, bars, layer_names, log_bars
from compedu.explorers.view import View


def main(view: View, layer: str) -> list[dict]:
    """Return the filters of every layer, of the given and of the small network."""
    names = layer_names(view)
    counts = [filters.filter_counts(view, name) for name in names]
    return [
        bars(MAIN, names, [dense for _, dense in counts], "filters of the given network", DENSE, width=0.8),
        bars(MAIN, names, [small if view.after is not None else 0 for small, _ in counts], "filters of the small one", LIVE, width=0.5),
    ]


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    small, given = filters.filter_counts(view, layer)
    return f"{layer}: {small} of {given} filters" if view.after is not None else "no small network was trained yet"


def table(view: View):
    """Return the filters of each layer."""
    rows = [(name, *filters.filter_counts(view, name)) for name in layer_names(view)]
    return ("layer", "filters", "filters of the given network"), [row if view.after is not None else (row[0], "", row[2]) for row in rows]


PICTURE = Picture(
    "widths", main, loss.below, ("filters: grey = given network, blue = small one", loss.HEADING), say, table,
    {"yaxis4": log_bars(lambda view: max(filters.filter_counts(view, name)[1] for name in layer_names(view)))} | loss.AXES,
)  # fmt: skip
