"""The one protocol: a method is a frozen value whose fields are its knobs; calling it maps a model to a new model."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError, Skip
from compedu.forms import ActivationQuantizer, Form
from compedu.graph.answers import remembered, share_answers
from compedu.graph.own_hooks import refuse_recomputed_weights
from compedu.graph.replacement import differing_forms, obstacles
from compedu.graph.trace import open_attentions, shared_copy, whole_copy, with_own_tensors
from compedu.identity import identity
from compedu.knobs import changed_knobs, knobs, method, settle_knobs
from compedu.layout import put_in_usual_order
from compedu.methods.layers import check_patterns, compressible, selected
from compedu.specs import image_of
from compedu.usable import refuse_unusable

TOPICS = {  # the survey's families, with the sub-families of the first; keys are the folders of compedu/methods
    "pruning": "Parameter pruning and sharing: pruning and sharing",
    "quantization": "Parameter pruning and sharing: quantization and binarization",
    "structural_matrix": "Parameter pruning and sharing: structural matrix",
    "low_rank": "Low-rank factorization",
    "compact_filters": "Transferred and compact convolutional filters",
    "distillation": "Knowledge distillation",
    "training": "Steps and controls",
}
NEEDS = ("weights", "calibration", "training")


@dataclass(frozen=True)
class Skipped:
    """A layer that a step left as it was, and why."""

    step: str
    layer: str
    reason: str


@dataclass(frozen=True)
class Removed:
    """Channels that a step took out of a group of coupled ones, numbered as in the network that the step was given."""

    step: str
    group: str
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Compression:
    """How a model came to be: the `repr` of each step, layers that steps could not handle, channels taken out."""

    steps: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    removed: tuple[Removed, ...] = ()


def compression_of(model: nn.Module) -> Compression:
    """Return how `model` came to be; empty for a network that no method has touched."""
    return getattr(model, "compression", Compression())


@method
class Method(ABC):
    """Maps a trained model to a compressed copy. Subclasses declare knobs, `topic`, `neutral` and `compress`."""

    topic: ClassVar[str]
    version: ClassVar[int] = 1  # raised when the same knobs give another model: cached points become invalid
    neutral: ClassVar[dict[str, Any] | None] = None  # knobs that reproduce the model, or None where there are none
    from_scratch: ClassVar[bool] = False  # whether the result is a new network, whatever earlier steps took out
    writes: ClassVar[bool] = True  # whether it writes into tensors of the copy it gets; else these are the network's
    chance: ClassVar[str] = ""  # the method that does the same at random, by name: a criterion must beat it

    def __post_init__(self):
        settle_knobs(self)

    @property
    def needs(self) -> str:
        """What a call needs beside the model: "weights" (nothing), "calibration" or "training" (data)."""
        return "weights"

    def __call__(self, model: nn.Module, data: Dataset | None = None) -> nn.Module:
        """Return a compressed copy of `model`, in evaluation mode; `model` itself is untouched.

        Raises `CompressionError` for weights that are not finite or are made anew before each forward pass, for missing
        data, when no layer could be compressed, naming each layer and the reason, and when the result does not compute
        what the network does with the dense kernels of its compressed layers.
        """
        if self.needs != "weights" and data is None:
            raise CompressionError(f"{self!r} needs data for {self.needs}: call it as method(model, data)")
        refuse_recomputed_weights(model)
        check_finite(model)
        task = Task(self, copied(model, share=not self.writes).eval(), data, source=model)
        try:
            result = self.compress(task).eval()
        except Skip as reason:  # of a method that leaves no layer out on its own
            raise CompressionError(f"{self!r}: a layer cannot be replaced: {reason}") from reason
        result = result if self.writes else put_in_usual_order(with_own_tensors(result, model))
        task.refuse_differing(result)
        before = compression_of(model)
        removed = () if self.from_scratch else before.removed
        result.compression = Compression(
            before.steps + (repr(self),), before.skipped + tuple(task.skipped), removed + tuple(task.removed)
        )
        return result

    @abstractmethod
    def compress(self, task: "Task") -> nn.Module:
        """Return the compressed network; `task.model` is a private copy to change, its tensors too if `writes`."""

    def __or__(self, other: "Method") -> "Method":
        """Return the pipeline that runs this method, then `other`."""
        from compedu.methods.pipeline import Pipeline

        return Pipeline.of(self, other)

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in changed_knobs(self).items())
        return f"{type(self).__name__}({given})"

    def key(self, model: nn.Module, data: Dataset | None) -> str:
        """Return the identity of the result: all knobs, the version, and the hashes of weights and data."""
        return self.key_on(ground_key(model, data))

    def key_on(self, ground: str) -> str:
        """Return the identity of the result on the network and data of that `ground_key`."""
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in sorted(knobs(self)))
        return f"{type(self).__name__}/{self.version}({values})|{ground}"


def ground_key(model: nn.Module, data: Dataset | None) -> str:
    """Return the hashes of weights and data: the part of a method's key that all methods have in common."""
    return f"{identity(model)}|{'' if data is None else data.digest}"


class Task:
    """One call of a method: the private copy, the data, the layers that were skipped, the channels taken out.

    `source` is the network that was given; it may be looked at, never changed.
    """

    def __init__(self, method: Method, model: nn.Module, data: Dataset | None, source: nn.Module):
        self.method, self.model, self.data, self.source = method, model, data, source
        self.example = example_of(model, data)  # an image, or None where nothing shows one
        self.skipped: list[Skipped] = []
        self.removed: list[Removed] = []

    @cached_property
    def digest(self) -> str:
        """The identity of the network that was given."""
        return identity(self.source)

    def skip(self, layer: str, reason: str) -> None:
        """Note that `layer` stays as it was."""
        self.skipped.append(Skipped(repr(self.method), layer, reason))

    def selected_layers(self) -> dict[str, nn.Module]:
        """Return the layers that the method's `layers` knob selects, by name; others that hold weights are noted."""
        layers, others = compressible(self.model)
        for name, reason in self.obstacles(layers).items():
            others[name] = reason
            del layers[name]
        for name, reason in others.items():
            self.skip(name, reason)
        chosen = selected(layers, self.method.layers, others)
        for name in layers:
            if name not in chosen:
                self.skip(name, f"not selected by layers={self.method.layers!r}")
        for knob_name, declared in knobs(self.method).items():
            if declared.per_layer:
                where = f"{type(self.method).__name__}.{knob_name}"
                check_patterns(getattr(self.method, knob_name), layers, where, others)
        return chosen

    def open_attentions(self) -> None:
        """Make the projections of multi-head attentions layers of their own, which forms can replace."""
        self.model = open_attentions(self.model)

    def obstacles(self, layers: Iterable[str], rounding: bool = False) -> dict[str, str]:
        """Return what `graph.replacement.obstacles` finds in the task's network, looked for once for all knobs."""
        question = "obstacles", tuple(layers), rounding
        return remembered(
            self.source, question, self.model, self.example,
            lambda: obstacles(self.model, layers, self.example, rounding),
        )

    def refuse_differing(self, result: nn.Module) -> None:
        """Raise `CompressionError` where the forms of `result` do not do in their places what their dense layers do."""
        share_answers(self.source, result)
        if self.example is None:
            return
        found = remembered(
            self.source, ("forms",), result, self.example,
            lambda: differing_forms(self.source, result, self.example),
        )
        if found:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in found.items())
            raise CompressionError(
                f"{self.method!r}: the compressed network does not compute what it does with the dense kernels of its "
                f"layers ({reasons}); exclude these layers with layers='{' '.join(f'-{name}' for name in found)}'"
            )

    def refuse_if_nothing_done(self, done: int) -> None:
        """Raise `CompressionError` with every reason and the layers that it holds for when no layer was compressed."""
        if done == 0:
            layers: dict[str, list[str]] = {}
            for s in self.skipped:
                layers.setdefault(s.reason, []).append(s.layer)
            reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in layers.items())
            raise CompressionError(
                f"{self.method!r} found nothing to compress: {reasons or 'the network has no layer with weights'}"
            )


def example_of(model: nn.Module, data: Dataset | None) -> Tensor | None:
    """Return one image for `model`: of `data`, or drawn from its spec; None where there is neither."""
    if data is not None:
        return data.example
    if (spec := getattr(model, "spec", None)) is None:
        return None
    return torch.randn(1, *image_of(spec), generator=torch.Generator().manual_seed(0))


def copied(model: nn.Module, share: bool = False) -> nn.Module:
    """Return an independent copy of `model`, its parameters detached from any graph, or one that `share`s tensors.

    The numbers of an independent copy lie in the usual order, on which the last bits hang and which no file keeps: what
    a method makes is then what is loaded again.
    """
    return shared_copy(model) if share else put_in_usual_order(whole_copy(model))


def check_finite(model: nn.Module) -> None:
    """Raise `CompressionError` naming the first tensor of `model` that holds NaN or infinity.

    Infinity is legal in a buffer that is no statistic and belongs to no form: a mask of attention is -inf where it
    hides something. Tensors that cannot be computed with at all are refused as well.
    """
    refuse_unusable(model)
    for name, tensor, may_be_infinite in _numbers(model):
        wrong = tensor.isnan() if may_be_infinite else ~tensor.isfinite()
        if bool(wrong.any()):
            count = int(wrong.sum())
            raise CompressionError(
                f"{name} holds {count} value(s) that are not finite (NaN or infinity); such a network cannot be "
                "compressed: load intact weights or train again with a lower learning rate"
            )


def _numbers(model: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    """Yield the names and tensors of `model` that hold floating-point numbers, and whether infinity is legal there."""
    for path, module in model.named_modules():
        strict = isinstance(module, (Form, ActivationQuantizer, _NormBase))
        for own, free in ((module._parameters, False), (module._buffers, not strict)):
            for name, tensor in own.items():
                if tensor is not None and tensor.is_floating_point():
                    yield f"{path}.{name}".lstrip("."), tensor, free
