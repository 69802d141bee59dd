"""One picture for each kind of method: what it did to the network, drawn."""

from compedu.explorers.pictures import filters, grid, matrices, probabilities, spectrum, weights
from compedu.explorers.pictures.picture import Picture
from compedu.methods import Method

PICTURES: dict[str, Picture] = {
    "weights": weights.PICTURE,
    "grid": grid.PICTURE,
    "matrices": matrices.PICTURE,
    "spectrum": spectrum.PICTURE,
    "filters": filters.PICTURE,
    "probabilities": probabilities.PICTURE,
}
_OF_TOPIC = {
    "pruning": "weights", "quantization": "grid", "structural_matrix": "matrices", "low_rank": "spectrum",
    "compact_filters": "filters", "distillation": "probabilities", "training": "weights",
}  # fmt: skip


def picture_of(method: Method | type[Method]) -> Picture:
    """Return the picture that fits a method: the one it names as `picture`, or that of its topic."""
    return PICTURES[getattr(method, "picture", None) or _OF_TOPIC[method.topic]]
