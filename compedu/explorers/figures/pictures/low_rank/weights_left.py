"""Low rank: how many weights each layer has left, whatever its factors are, in percent of those when dense."""

from collections.abc import Callable
from typing import TypeAlias

from torch import nn

from compedu.explorers.figures.pictures.low_rank import singular_values
from compedu.explorers.figures.pictures.picture import (
    GROWING,
    SLANTED,
    Picture,
    Table,
    facts_of,
    largest_layer,
    layer_names,
    percent_text,
    relative_error,
    shares_axis,
    shares_left,
)
from compedu.explorers.figures.places import ABOVE_NAMES, down, title
from compedu.explorers.figures.plots import BELOW, MAIN
from compedu.explorers.view import View
from compedu.forms import weight_of
from compedu.methods.layers import compressible

HEADING = "weights left, % of dense; above: how many"
Drawn: TypeAlias = Callable[[View, str], list[dict]]


def counts(view: View, layer: str) -> tuple[int, int]:
    """Return how many weights a layer has now, and when dense."""
    rows, columns = singular_values.shape(view, layer)
    form = facts_of(view, layer)
    return (rows * columns if form is None else form.free_numbers()), rows * columns


def all_counts(view: View) -> list[tuple[int, int]]:
    """Return the counts of all layers, in order."""
    return [counts(view, name) for name in layer_names(view)]


AXIS = shares_axis(all_counts)


def below(view: View, layer: str) -> list[dict]:
    """Return the weights that each layer has left, in percent of its own."""
    return shares_left(BELOW, layer_names(view), all_counts(view), "weights", "dense")


def say(view: View, layer: str) -> str:
    """Say in words how many weights a layer has left, and how far it is from the dense one."""
    left, dense = counts(view, layer)
    return f"{layer}: {percent_text(left / dense)} of its weights, error {percent_text(relative_error(view, layer))}"


def table(view: View) -> Table:
    """Return channels between the factors, weights and error of each layer."""
    rows = []
    for name in layer_names(view):
        form = facts_of(view, name)
        ranks = "" if form is None else ", ".join(map(str, form.ranks or ("unknown",)))
        left, dense = counts(view, name)
        rows.append((name, ranks, f"{left:,}", f"{dense:,}", percent_text(relative_error(view, name))))
    return ("layer", "channels between factors", "weights", "weights when dense", "error"), rows


def over_weights(name: str, main: Drawn, heading: str, said: Callable[[View, str], str], across: str) -> Picture:
    """Return a picture of convolutions whose upper plot is `main` over `below`, the weights that each layer has left.

    `across` is the title of the horizontal axis of `main`.
    """
    return Picture(
        name=name,
        main=main,
        below=below,
        headings=(heading, HEADING),
        say=said,
        table=table,
        axes={
            MAIN.xaxis: {"title": title(across)},
            MAIN.yaxis: GROWING | {"domain": down(*ABOVE_NAMES)},  # the title needs the room of a line
            BELOW.yaxis: AXIS,
            BELOW.xaxis: SLANTED,
        },
        start=largest_convolution,
    )


def largest_convolution(model: nn.Module) -> str:
    """Return the convolution with the most weights, or the largest layer of a network without one."""
    sizes = {name: weight_of(layer).shape for name, layer in compressible(model)[0].items()}
    wide = {name: shape.numel() for name, shape in sizes.items() if len(shape) == 4 and shape[2:].numel() > 1}
    return max(wide, key=wide.__getitem__) if wide else largest_layer(model)
