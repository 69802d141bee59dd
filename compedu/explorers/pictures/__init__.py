"""The pictures of each kind of method: what it did to the network, drawn."""

from dataclasses import replace

from compedu.explorers.pictures import (
    confusions, filters, grid, inputs, loss, matrices, moves, probabilities, products, rebuilt, softness, spectrum, ties,
    weights, widths,
)  # fmt: skip
from compedu.explorers.pictures.picture import Picture
from compedu.methods import FilterPruning, FineTune, Method, SmallDense, TrainingMethod

_OF_METHOD = {FilterPruning: (filters.PICTURE,), FineTune: (moves.PICTURE,), SmallDense: (widths.PICTURE,)}
_OF_TOPIC = {
    "pruning": (weights.PICTURE,), "quantization": (grid.PICTURE, inputs.PICTURE),
    "structural_matrix": (matrices.PICTURE, products.PICTURE), "low_rank": (spectrum.PICTURE, rebuilt.PICTURE),
    "compact_filters": (ties.PICTURE,), "distillation": (probabilities.PICTURE, softness.PICTURE, confusions.PICTURE),
    "training": (moves.PICTURE,),
}  # fmt: skip


def pictures_of(method: type[Method]) -> tuple[Picture, ...]:
    """Return the pictures that fit a method, its own or those of its topic; where it trains, the loss below the first."""
    first, *others = _OF_METHOD.get(method) or _OF_TOPIC[method.topic]
    if issubclass(method, TrainingMethod) and first.below is not loss.below:
        below = ("xaxis7", "yaxis7", "xaxis8", "yaxis8")
        kept = {name: settings for name, settings in first.axes.items() if name not in below}
        first = replace(first, below=loss.below, headings=(first.headings[0], loss.HEADING), axes=kept | loss.AXES)
    return (first, *others)


__all__ = ["Picture", "pictures_of"]
