"""The small dense network: how many filters each layer has, beside the given network; the loss during training."""

from compedu.explorers.figures.pictures.picture import SLANTED, Picture, layer_names, shares_axis, shares_left
from compedu.explorers.figures.pictures.pruning import pruned_filters
from compedu.explorers.figures.pictures.training import loss
from compedu.explorers.figures.places import ABOVE_NAMES, down
from compedu.explorers.figures.plots import MAIN
from compedu.explorers.view import View


def main(view: View, layer: str) -> list[dict]:
    """Return the filters of every layer of the small network, in percent of those of the given one."""
    return shares_left(
        MAIN, layer_names(view), trained(view), "filters of the small one", "filters of the given network"
    )


def trained(view: View) -> list[tuple[int, int]]:
    """Return the filters of every layer of the small network, none before it is trained, and of the given one."""
    return [(small if view.after is not None else 0, given) for small, given in pruned_filters.all_counts(view)]


def _axis(view: View) -> dict:
    settings = shares_axis(trained)(view)
    return settings | {"range": [0, 0.8 * settings["range"][1]], "domain": down(*ABOVE_NAMES)}  # a high plot


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    small, given = pruned_filters.filter_counts(view, layer)
    return f"{layer}: {small} of {given} filters" if view.after is not None else "no small network was trained yet"


def table(view: View):
    """Return the filters of each layer."""
    rows = [(name, *pruned_filters.filter_counts(view, name)) for name in layer_names(view)]
    return (
        ("layer", "filters", "filters of the given network"),
        [row if view.after is not None else (row[0], "", row[2]) for row in rows],
    )


PICTURE = Picture(
    name="widths",
    main=main,
    below=loss.below,
    headings=("filters, % of the given network; above: how many", loss.HEADING),
    say=say,
    table=table,
    axes={
        MAIN.xaxis: SLANTED,
        MAIN.yaxis: _axis,
    }
    | loss.AXES,
)
