"""A larger network that starts as the given one: the weights and the channels of every layer, beside those before."""

from compedu.explorers.figures.colors import DENSE, LIVE
from compedu.explorers.figures.pictures.picture import (
    GROWING,
    MOST_COUNTED,
    SLANTED,
    Picture,
    Table,
    bars,
    layer_names,
    short_count,
    untouched,
    written,
)
from compedu.explorers.figures.places import ABOVE_NAMES, down
from compedu.explorers.figures.plots import BELOW, MAIN, Plot
from compedu.explorers.view import View
from compedu.forms import Block, free_numbers_of, weight_of


def main(view: View, layer: str) -> list[dict]:
    """Return the weights of every layer of the larger network, in percent of those of the given one."""
    return _beside(MAIN, view, [weights(view, name) for name in layer_names(view)], "weights")


def below(view: View, layer: str) -> list[dict]:
    """Return the channels that every layer makes, in percent of those of the given network."""
    return _beside(BELOW, view, [channels(view, name) for name in layer_names(view)], "channels")


def _beside(at: Plot, view: View, counts: list[tuple[int, int]], what: str) -> list[dict]:
    shares = [100 * after / before for after, before in counts]
    told = [f"{after:,} for {before:,}, {share:.0f} %" for (after, before), share in zip(counts, shares, strict=True)]
    text = [short_count(after) if len(counts) <= MOST_COUNTED else "" for after, _ in counts]
    hover = {"hovertext": told, "hovertemplate": f"%{{x}}: %{{hovertext}}<extra>{what}</extra>"}
    names = layer_names(view)
    return [
        bars(at, names, [100] * len(names), f"{what} of the given network", DENSE, width=0.8, **hover),
        bars(at, names, shares, f"{what} of the larger network", LIVE, width=0.5, **written(text), **hover),
    ]


def weights(view: View, layer: str) -> tuple[int, int]:
    """Return how many weights a layer has now, with those of the layers put behind it, and how many it had."""
    before, after = view.layer_pair(layer)
    dense = weight_of(before).numel()
    return (dense if after is None else free_numbers_of(after)), dense


def channels(view: View, layer: str) -> tuple[int, int]:
    """Return how many channels a layer makes now, and how many it made."""
    before, after = view.layer_pair(layer)
    dense = len(weight_of(before))
    if after is None:
        return dense, dense
    return (after.geometry.shape[0] if isinstance(after, Block) else len(weight_of(after))), dense


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    if view.after is None:
        return untouched(layer)
    made, given = weights(view, layer)
    wide, narrow = channels(view, layer)
    return f"{layer}: {made / given:.3g} times the weights, {wide / narrow:.3g} times the channels"


def table(view: View) -> Table:
    """Return weights and channels of each layer, now and before."""
    rows = [(name, *weights(view, name), *channels(view, name)) for name in layer_names(view)]
    head = ("layer", "weights", "weights of the given network", "channels", "channels of the given network")
    return head, [row if view.after is not None else (row[0], "", row[2], "", row[4]) for row in rows]


PICTURE = Picture(
    name="larger layers",
    main=main,
    below=below,
    headings=("weights, % of the given network; above: how many", "channels, % of the given network"),
    say=say,
    table=table,
    axes={
        MAIN.xaxis: SLANTED,
        MAIN.yaxis: GROWING | {"domain": down(*ABOVE_NAMES)},
        BELOW.xaxis: SLANTED,
        BELOW.yaxis: GROWING,
    },
)
