"""The pictures of each kind of method: what it did to the network, drawn."""

from dataclasses import replace

from compedu.explorers.figures.pictures.compact_filters import tied_filters
from compedu.explorers.figures.pictures.distillation import (
    confusions,
    lanes,
    larger_layers,
    morph,
    one_image,
    temperature,
)
from compedu.explorers.figures.pictures.low_rank import channel_spectra, rebuilt_filters, singular_values, terms
from compedu.explorers.figures.pictures.picture import Picture
from compedu.explorers.figures.pictures.pruning import pruned_filters, pruned_weights
from compedu.explorers.figures.pictures.quantization import (
    block_levels,
    quantized_inputs,
    quantized_weights,
    smoothed_channels,
)
from compedu.explorers.figures.pictures.structural_matrix import product_times, structured_matrices
from compedu.explorers.figures.pictures.training import layer_widths, loss, moved_statistics, moved_weights
from compedu.explorers.figures.plots import BELOW, BESIDE
from compedu.methods import (
    BatchNormReestimation,
    BayesianDarkKnowledge,
    BiclusteredSVD,
    BlockFormats,
    CPDecomposition,
    FilterPruning,
    FineTune,
    LabelSmoothing,
    LogitMatching,
    Method,
    MonochromaticFilters,
    Net2Deeper,
    Net2Wider,
    NeuronMerging,
    RandomFilterPruning,
    RandomTeacher,
    SeparableFilters,
    SmallDense,
    SmoothQuant,
    StructuredSparsity,
    TrainingMethod,
    TuckerDecomposition,
)  # fmt: skip
from compedu.methods.distillation.shared.feature_distillation import FeatureDistillation

LANES = lanes.PICTURE  # of a race
_OF_METHOD = {
    FilterPruning: (pruned_filters.PICTURE,), RandomFilterPruning: (pruned_filters.PICTURE,),
    NeuronMerging: (pruned_filters.PICTURE,), BlockFormats: (block_levels.PICTURE,),
    BatchNormReestimation: (moved_statistics.PICTURE,), FineTune: (moved_weights.PICTURE,),
    SmoothQuant: (smoothed_channels.PICTURE, quantized_inputs.PICTURE, quantized_weights.PICTURE),
    SeparableFilters: (rebuilt_filters.WITH_WEIGHTS,), CPDecomposition: (terms.PICTURE, rebuilt_filters.WITH_WEIGHTS),
    TuckerDecomposition: (channel_spectra.PICTURE, rebuilt_filters.WITH_WEIGHTS),
    MonochromaticFilters: (rebuilt_filters.WITH_WEIGHTS,), BiclusteredSVD: (rebuilt_filters.WITH_WEIGHTS,),
    FeatureDistillation: (one_image.PICTURE, confusions.PICTURE),
    LogitMatching: (one_image.PICTURE, confusions.PICTURE),
    BayesianDarkKnowledge: (one_image.PICTURE, confusions.PICTURE),
    LabelSmoothing: (one_image.PICTURE, confusions.PICTURE),
    RandomTeacher: (one_image.PICTURE, confusions.PICTURE),
    SmallDense: (layer_widths.PICTURE,), StructuredSparsity: (pruned_weights.PICTURE, pruned_filters.PICTURE),
    Net2Wider: (larger_layers.PICTURE,), Net2Deeper: (larger_layers.PICTURE,),
}  # fmt: skip
_OF_FAMILY = {
    "pruning": (pruned_weights.PICTURE,),
    "quantization": (quantized_weights.PICTURE, quantized_inputs.PICTURE),
    "structural_matrix": (structured_matrices.PICTURE, product_times.PICTURE),
    "low_rank": (singular_values.PICTURE, rebuilt_filters.PICTURE),
    "compact_filters": (tied_filters.PICTURE,),
    "distillation": (one_image.PICTURE, temperature.PICTURE, morph.PICTURE, confusions.PICTURE),
    "training": (moved_weights.PICTURE,),
}  # fmt: skip


def pictures_of(method: type[Method]) -> tuple[Picture, ...]:
    """Return the pictures of a method, where it trains with the loss below the first.

    They are its own, those of the nearest class that it is made from, or those of its family.
    """
    known = (kind for kind in method.__mro__ if kind in _OF_METHOD)
    nearest = next(known, None)
    first, *others = _OF_FAMILY[method.family] if nearest is None else _OF_METHOD[nearest]
    if issubclass(method, TrainingMethod) and first.below is not loss.below:
        below = (BELOW.xaxis, BELOW.yaxis, BESIDE.xaxis, BESIDE.yaxis)
        kept = {name: settings for name, settings in first.axes.items() if name not in below}
        first = replace(first, below=loss.below, headings=(first.headings[0], loss.HEADING), axes=kept | loss.AXES)
    return (first, *others)


__all__ = ["LANES", "Picture", "pictures_of"]
