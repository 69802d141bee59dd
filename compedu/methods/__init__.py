"""All methods, in the order of the chapters: this tuple is the table of contents of the course."""

from compedu.compression import Skipped, compression_of
from compedu.methods.calibrated_method import CalibratedMethod
from compedu.methods.compact_filters.crelu import CReLU
from compedu.methods.distillation.attention_transfer import AttentionTransfer
from compedu.methods.distillation.bayesian_dark_knowledge import BayesianDarkKnowledge
from compedu.methods.distillation.contrastive import ContrastiveDistillation
from compedu.methods.distillation.controls import controls
from compedu.methods.distillation.decoupled import DecoupledDistillation
from compedu.methods.distillation.fit_nets import FitNets
from compedu.methods.distillation.label_smoothing import LabelSmoothing
from compedu.methods.distillation.logit_matching import LogitMatching
from compedu.methods.distillation.model_compression import ModelCompression
from compedu.methods.distillation.net2deeper import Net2Deeper
from compedu.methods.distillation.net2wider import Net2Wider
from compedu.methods.distillation.neuron_selection import NeuronSelection
from compedu.methods.distillation.random_teacher import RandomTeacher
from compedu.methods.distillation.relational import RelationalDistillation
from compedu.methods.distillation.similarity_preserving import SimilarityPreserving
from compedu.methods.distillation.soft_targets import SoftTargetDistillation
from compedu.methods.distillation.teacher_assistant import TeacherAssistant
from compedu.methods.layer_method import LayerByLayer, LayerMethod, SelectiveMethod
from compedu.methods.low_rank.biclustered import BiclusteredSVD
from compedu.methods.low_rank.canonical_polyadic import CPDecomposition
from compedu.methods.low_rank.low_rank_adapters import LowRankAdapters
from compedu.methods.low_rank.low_rank_training import LowRankTraining
from compedu.methods.low_rank.monochromatic import MonochromaticFilters
from compedu.methods.low_rank.separable_filters import SeparableFilters
from compedu.methods.low_rank.smooth_dictionary import SmoothDictionary
from compedu.methods.low_rank.truncated_svd import TruncatedSVD
from compedu.methods.low_rank.tucker import TuckerDecomposition
from compedu.methods.method import FAMILIES, Method, Pipeline
from compedu.methods.pruning.biased_weight_decay import BiasedWeightDecay
from compedu.methods.pruning.brain_damage import OptimalBrainDamage
from compedu.methods.pruning.brain_surgeon import OptimalBrainSurgeon
from compedu.methods.pruning.filters import FilterPruning
from compedu.methods.pruning.gradual import GradualPruning
from compedu.methods.pruning.hard_concrete import HardConcretePruning
from compedu.methods.pruning.iterative import IterativePruning
from compedu.methods.pruning.lottery_ticket import LotteryTicket
from compedu.methods.pruning.magnitude import MagnitudePruning
from compedu.methods.pruning.merging import NeuronMerging
from compedu.methods.pruning.movement import MovementPruning
from compedu.methods.pruning.patterns import PatternPruning
from compedu.methods.pruning.random_filters import RandomFilterPruning
from compedu.methods.pruning.random_weights import RandomPruning
from compedu.methods.pruning.regularized_pruning import RegularizedPruning
from compedu.methods.pruning.structured_sparsity import StructuredSparsity
from compedu.methods.quantization.adaround import AdaRound
from compedu.methods.quantization.block_formats import BlockFormats
from compedu.methods.quantization.entropy_constrained import EntropyConstrainedQuantization
from compedu.methods.quantization.fixed_point import FixedPoint, FixedPointTraining
from compedu.methods.quantization.gptq import GPTQ
from compedu.methods.quantization.learned_steps import LearnedStepQuantization
from compedu.methods.quantization.linear import LinearQuantization
from compedu.methods.quantization.smooth_quant import SmoothQuant
from compedu.methods.replace_then_train import ReplaceThenTrain
from compedu.methods.structural_matrix.block_circulant import BlockCirculantProjection
from compedu.methods.training.batch_norm import BatchNormReestimation
from compedu.methods.training.fine_tune import FineTune
from compedu.methods.training.small_dense import SmallDense
from compedu.methods.training_method import TrainingMethod

METHODS: tuple[type[Method], ...] = (
    MagnitudePruning,
    RandomPruning,
    PatternPruning,
    IterativePruning,
    GradualPruning,
    RegularizedPruning,
    StructuredSparsity,
    MovementPruning,
    HardConcretePruning,
    OptimalBrainDamage,
    OptimalBrainSurgeon,
    NeuronMerging,
    BiasedWeightDecay,
    LotteryTicket,
    FilterPruning,
    RandomFilterPruning,
    LinearQuantization,
    GPTQ,
    AdaRound,
    LearnedStepQuantization,
    EntropyConstrainedQuantization,
    FixedPoint,
    FixedPointTraining,
    BlockFormats,
    SmoothQuant,
    BlockCirculantProjection,
    TruncatedSVD,
    SeparableFilters,
    TuckerDecomposition,
    CPDecomposition,
    LowRankTraining,
    MonochromaticFilters,
    BiclusteredSVD,
    SmoothDictionary,
    LowRankAdapters,
    CReLU,
    SoftTargetDistillation,
    TeacherAssistant,
    ModelCompression,
    LogitMatching,
    FitNets,
    AttentionTransfer,
    RelationalDistillation,
    SimilarityPreserving,
    ContrastiveDistillation,
    DecoupledDistillation,
    Net2Wider,
    Net2Deeper,
    NeuronSelection,
    BayesianDarkKnowledge,
    LabelSmoothing,
    RandomTeacher,
    FineTune,
    BatchNormReestimation,
    SmallDense,
)


def find(name: str) -> type[Method]:
    """Return the method called `name`; `ValueError` lists the known names."""
    for method in METHODS:
        if method.__name__.lower() == name.replace("-", "").replace("_", "").lower():
            return method
    raise ValueError(f"no method is called {name!r}; there are: {', '.join(method.__name__ for method in METHODS)}")


__all__ = [
    "METHODS",
    "FAMILIES",
    "CalibratedMethod",
    "LayerByLayer",
    "LayerMethod",
    "Method",
    "Pipeline",
    "ReplaceThenTrain",
    "SelectiveMethod",
    "Skipped",
    "TrainingMethod",
    "compression_of",
    "controls",
    "find",
] + [method.__name__ for method in METHODS]
