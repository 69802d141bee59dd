"""One call of a method: its copy of the network, the data, and the record of the call."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from compedu.compression import Removed, Skipped
from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError, MeaningChanged
from compedu.graph.answers import remembered, share_answers
from compedu.graph.copying import shared_copy, whole_copy
from compedu.graph.replacement import differing_forms, obstacles
from compedu.graph.trace import open_attentions
from compedu.identity import identity
from compedu.knobs import knobs
from compedu.layout import put_in_usual_order
from compedu.methods.layers import check_patterns, compressible, selected
from compedu.specs import image_of

if TYPE_CHECKING:
    from compedu.methods.layer_method import SelectiveMethod
    from compedu.methods.method import Method

NOT_SELECTED = "not selected by layers="


class Task:
    """One call of a method: the copy, the data, the layers that were skipped, the channels that were removed.

    `source` is the network that was given; it may be read, never changed.
    """

    def __init__(self, method: "Method", model: nn.Module, data: Dataset | None, source: nn.Module):
        self.method = method
        self.model = model
        self.given = data
        self.source = source
        self.example = example_of(model, data)  # an image, or None if neither data nor spec give one
        self.skipped: list[Skipped] = []
        self.removed: list[Removed] = []
        self.decided: Mapping[str, Any] = {}  # what the method settled for each layer before it replaces the first

    @property
    def data(self) -> Dataset:
        """The images that were `given`; a method that says it needs none may have none: `CompressionError`."""
        if self.given is None:
            raise CompressionError(f"{self.method!r} was called without data")
        return self.given

    @cached_property
    def digest(self) -> str:
        """The identity of the network that was given."""
        return identity(self.source)

    def skip(self, layer: str, reason: str) -> None:
        """Record that `layer` stays unchanged."""
        self.skipped.append(Skipped(repr(self.method), layer, reason))

    def selected_layers(self) -> dict[str, nn.Module]:
        """Return the layers that the method's `layers` knob selects, by name; record why other layers are skipped."""
        chosen, omitted = self.selection()
        for name, reason in omitted.items():
            self.skip(name, reason)
        return chosen

    def selection(self) -> tuple[dict[str, nn.Module], dict[str, str]]:
        """Return the layers that the method's `layers` knob selects, by name, and why other layers are skipped."""
        layers, others = compressible(self.model)
        for name, reason in self.obstacles(layers).items():
            others[name] = reason
            del layers[name]
        selection = cast("SelectiveMethod", self.method).layers
        chosen = selected(layers, selection, others)
        for knob_name, declared in knobs(self.method).items():
            if declared.per_layer:
                where = f"{type(self.method).__name__}.{knob_name}"
                check_patterns(getattr(self.method, knob_name), layers, where, others)
        omitted = dict(others)
        for name in layers:
            if name not in chosen:
                omitted[name] = f"{NOT_SELECTED}{selection!r}"
        return chosen, omitted

    def open_attentions(self) -> None:
        """Make the projections of multi-head attentions layers of their own, which forms can replace."""
        self.model = open_attentions(self.model)

    def obstacles(self, layers: Iterable[str], rounding: bool = False) -> dict[str, str]:
        """Return what `graph.replacement.obstacles` finds in the task's network, computed once for all knobs."""
        question = "obstacles", tuple(layers), rounding
        return remembered(
            self.source,
            question,
            self.model,
            self.example,
            lambda: obstacles(self.model, layers, self.example, rounding),
        )

    def refuse_differing(self, result: nn.Module) -> None:
        """Raise `MeaningChanged` if the forms of `result` do not compute in place what their dense layers would."""
        share_answers(self.source, result)
        if self.example is None:
            return
        found = remembered(
            self.source,
            ("forms",),
            result,
            self.example,
            lambda: differing_forms(self.source, result, self.example),
        )
        if found:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in found.items())
            raise MeaningChanged(
                f"{self.method!r}: the compressed network does not compute what it does with the dense weights of its "
                f"layers ({reasons}); exclude these layers with layers='{' '.join(f'-{name}' for name in found)}'"
            )

    def refuse_if_nothing_done(self, done: int) -> None:
        """Raise `CompressionError` with every reason and its layers if no layer was compressed."""
        if done == 0:
            layers: dict[str, list[str]] = {}
            # What nobody asked for comes last, behind what was asked for and did not work.
            for s in sorted(self.skipped, key=lambda one: one.reason.startswith(NOT_SELECTED)):
                layers.setdefault(s.reason, []).append(s.layer or "(network)")
            reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in layers.items())
            raise CompressionError(
                f"{self.method!r} found nothing to compress: {reasons or 'the network has no layer with weights'}"
            )


def example_of(model: nn.Module, data: Dataset | None) -> Tensor | None:
    """Return one image for `model`: from `data`, or random by its spec; None if there is neither."""
    if data is not None:
        return data.example
    if (spec := getattr(model, "spec", None)) is None:
        return None
    return torch.randn(1, *image_of(spec), generator=torch.Generator().manual_seed(0))


def copied(model: nn.Module, share: bool = False) -> nn.Module:
    """Return an independent copy of `model`, its parameters detached from any graph, or one that `share`s tensors.

    An independent copy is stored in the standard memory format, which the last bits depend on and no file records: so a
    loaded model equals the one that was saved.
    """
    return shared_copy(model) if share else put_in_usual_order(whole_copy(model))
