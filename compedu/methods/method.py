"""The one protocol: a method is a frozen value whose fields are its knobs; calling it maps a model to a new model."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import nn

from compedu.compression import Compression, compression_of
from compedu.datasets.dataset import Dataset, refuse_no_data
from compedu.datasets.objectives import KINDS
from compedu.errors import CompressionError, Skip
from compedu.given import got, refuse_no_network
from compedu.graph.copying import with_own_tensors
from compedu.graph.own_hooks import refuse_recomputed_weights
from compedu.identity import identity
from compedu.knobs import changed_knobs, knobs, method, settle_knobs
from compedu.layout import put_in_usual_order
from compedu.methods.finite import check_finite
from compedu.methods.task import Task, copied

FAMILIES = {  # the survey's families, with the sub-families of the first; keys are the folders of compedu/methods
    "pruning": "Parameter pruning and sharing: pruning and sharing",
    "quantization": "Parameter pruning and sharing: quantization and binarization",
    "structural_matrix": "Parameter pruning and sharing: structural matrix",
    "low_rank": "Low-rank factorization",
    "compact_filters": "Transferred and compact convolutional filters",
    "distillation": "Knowledge distillation",
    "training": "Steps and controls",
}
NEEDS = ("weights", "calibration", "training")
OVERFLOWN = "the type of the weights cannot hold what the method computes: convert the network first, model.float()"


@method
class Method(ABC):
    """Maps a trained model to a compressed copy; declare knobs, `family`, `identity_settings`, `compress`."""

    family: ClassVar[str]
    version: ClassVar[int] = 1  # raised when the same knobs give another model: stored points become invalid
    identity_settings: ClassVar[dict[str, Any] | None] = None  # knobs that reproduce the model, if there are any
    from_scratch: ClassVar[bool] = (
        False  # whether the result is a new network, without the channels that earlier steps removed
    )
    writes: ClassVar[bool] = True  # whether it writes into the tensors of its copy; if not, they are shared
    needs_batch_norm: ClassVar[bool] = False  # whether a network without batch norms is refused
    unscanned: ClassVar[tuple[str, ...]] = ()  # knobs that change nothing of what `kept_scan` keeps
    tried_with: ClassVar[dict[str, Any]] = {}  # knobs with which laws try it, where its defaults suit few networks
    alone: ClassVar[dict[str, Any]] = {}  # values of knobs at which the method is its own control, such as no teacher
    random_baseline: ClassVar[str] = ""  # name of the same method with a random criterion: a criterion must beat it

    def __post_init__(self):
        settle_knobs(self)

    @property
    def needs(self) -> str:
        """What a call needs besides the model: "weights" (nothing), "calibration" or "training" (data)."""
        return "weights"

    @property
    def defined_for(self) -> tuple[str, ...]:
        """The kinds of objectives that the method is defined for: classification, regression, embedding."""
        return KINDS

    def refuse_undefined(self, data: Dataset) -> None:
        """Raise `CompressionError` for data with an objective that the method is not defined for."""
        if data.objective.kind not in self.defined_for:
            raise CompressionError(
                f"{self!r} is defined for {' and '.join(self.defined_for)}, but the objective of {data.name!r} is "
                f"{data.objective.kind}; choose another method: defined_for of each says what it is defined for"
            )

    def __call__(self, model: nn.Module, data: Dataset | None = None) -> nn.Module:
        """Return a compressed copy of `model`, in evaluation mode; `model` itself is untouched.

        Raises `CompressionError` for weights that are not finite or are recomputed before each forward pass, for
        missing data or data of another objective, when no layer could be compressed, naming each layer and the reason,
        when the result does not compute what its dense weights would, and when its weights are not finite, as those of
        half precision that grow. Raises `TypeError` for what is not a network, or not a data set.
        """
        refuse_no_network(model)
        if self.needs != "weights" and data is None:
            raise CompressionError(f"{self!r} needs data for {self.needs}: call it as method(model, data)")
        if data is not None:
            refuse_no_data(data)
            self.refuse_undefined(data)
        refuse_recomputed_weights(model)
        check_finite(model)
        task = Task(self, copied(model, share=not self.writes).eval(), data, source=model)
        try:
            result = self.compress(task).eval()
        except Skip as reason:  # of a method that does not handle it itself
            raise CompressionError(f"{self!r}: a layer cannot be replaced: {reason}") from reason
        result = result if self.writes else put_in_usual_order(with_own_tensors(result, model))
        check_finite(result, f"{self!r} of finite weights: ", OVERFLOWN)
        task.refuse_differing(result)
        before = compression_of(model)
        removed = () if self.from_scratch else before.removed
        result.compression = Compression(
            (*before.steps, repr(self)), before.skipped + tuple(task.skipped), removed + tuple(task.removed)
        )
        return result

    @abstractmethod
    def compress(self, task: Task) -> nn.Module:
        """Return the compressed network; `task.model` is a copy to change, and so are its tensors if `writes`."""

    def __or__(self, other: "Method") -> "Pipeline":
        """Return the pipeline that runs this method, then `other`."""
        return Pipeline.of(self, other)

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in changed_knobs(self).items())
        return f"{type(self).__name__}({given})"

    def key(self, model: nn.Module, data: Dataset | None) -> str:
        """Return the identity of the result: all knobs, the version, and the hashes of weights and data."""
        return self.key_on(inputs_key(model, data))

    def key_on(self, inputs: str) -> str:
        """Return the identity of the result on the network and data of that `inputs_key`."""
        values = ", ".join(f"{name}={_identified(getattr(self, name))}" for name in sorted(knobs(self)))
        return f"{type(self).__name__}/{self.version}({values})|{inputs}"


@method
class Pipeline(Method):
    """Runs several methods in order; its `repr` builds it again, such as "A(x=1) | B()"."""

    steps: tuple[Method, ...] = ()

    @classmethod
    def of(cls, *methods: Method) -> "Pipeline":
        """Return the pipeline of `methods`; pipelines among them are flattened: a | (b | c) == (a | b) | c."""
        for one in methods:
            refuse_no_method(one)
        return cls(steps=tuple(step for m in methods for step in (m.steps if isinstance(m, Pipeline) else (m,))))

    @property
    def needs(self) -> str:
        """The most that any step needs."""
        return max((step.needs for step in self.steps), key=NEEDS.index, default="weights")

    @property
    def defined_for(self) -> tuple[str, ...]:
        """What all steps are defined for."""
        return tuple(kind for kind in KINDS if all(kind in step.defined_for for step in self.steps))

    def __call__(self, model: nn.Module, data: Dataset | None = None) -> nn.Module:
        """Return the model that the last step returns, or a copy without any; `model` itself is untouched."""
        if not self.steps:
            return copied(model).eval()
        for step in self.steps:
            model = step(model, data)
        return model

    def compress(self, task: Task) -> nn.Module:
        """Run the steps on the copy."""
        return self(task.model, task.given)

    def key_on(self, inputs: str) -> str:
        """Return the identity of the result: the keys of all steps."""
        return " | ".join(step.key_on(inputs) for step in self.steps) or f"{self!r}|{inputs}"

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.steps)) or "Pipeline()"


def refuse_no_method(given: object) -> None:
    """Raise `TypeError` where `given` is not a method."""
    if not isinstance(given, Method):
        raise TypeError(f"a method is needed, such as MagnitudePruning(sparsity=0.5), {got(given)}")


def _identified(value: Any) -> str:
    """Return what a key says of the value of a knob: of a method all of its knobs, and its version."""
    return value.key_on("") if isinstance(value, Method) else repr(value)


def inputs_key(model: nn.Module, data: Dataset | None) -> str:
    """Return the hashes of weights and data, the part of a key that all methods share."""
    refuse_no_network(model)
    if data is not None:
        refuse_no_data(data)
    return f"{identity(model)}|{'' if data is None else data.digest}"
