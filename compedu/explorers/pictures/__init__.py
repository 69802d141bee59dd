"""One picture for each kind of method: what it did to the network, drawn."""

from dataclasses import replace

from compedu.explorers.pictures import filters, grid, loss, matrices, moves, probabilities, spectrum, ties, weights, widths
from compedu.explorers.pictures.picture import Picture
from compedu.methods import FilterPruning, FineTune, Method, SmallDense, TrainingMethod

_OF_METHOD = {FilterPruning: filters.PICTURE, FineTune: moves.PICTURE, SmallDense: widths.PICTURE}
_OF_TOPIC = {
    "pruning": weights.PICTURE, "quantization": grid.PICTURE, "structural_matrix": matrices.PICTURE,
    "low_rank": spectrum.PICTURE, "compact_filters": ties.PICTURE, "distillation": probabilities.PICTURE,
    "training": moves.PICTURE,
}  # fmt: skip


def picture_of(method: type[Method]) -> Picture:
    """Return the picture that fits a method: its own or that of its topic; the loss below it where the method trains."""
    picture = _OF_METHOD.get(method) or _OF_TOPIC[method.topic]
    if not issubclass(method, TrainingMethod) or picture.below is loss.below:
        return picture
    kept = {name: settings for name, settings in picture.axes.items() if name not in ("xaxis7", "yaxis7", "xaxis8", "yaxis8")}
    return replace(picture, below=loss.below, headings=(picture.headings[0], loss.HEADING), axes=kept | loss.AXES)


__all__ = ["Picture", "picture_of"]
