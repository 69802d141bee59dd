"""A random teacher: any distillation, from a network with the teacher's architecture and newly drawn weights."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.knobs import Knob, field_of, method, seed_knob
from compedu.methods.distillation.shared.distillation import Distillation
from compedu.methods.distillation.soft_targets import SoftTargetDistillation
from compedu.methods.initialization import initialize
from compedu.methods.method import Method
from compedu.methods.pruning.lottery_ticket import REDRAWN
from compedu.methods.task import Task, copied
from compedu.networks import build


@dataclass(frozen=True)
class DistillationKnob(Knob):
    """A knob that takes a distillation."""

    def _allows_one(self, value: Any) -> bool:
        return isinstance(value, Distillation)

    def _parse_one(self, text: str) -> Any:
        from compedu.methods.parsing import method_of  # which lists all methods, this one among them

        return method_of(text)

    def __str__(self) -> str:
        return "a distillation, such as SoftTargetDistillation()"


def redrawn(model: nn.Module, seed: int, caller: str) -> nn.Module:
    """Return a network with the architecture of `model` and weights drawn by `seed`, in evaluation mode.

    It is built from its spec where that makes the same tensors; else all layers are initialized by torch's defaults.
    Means and variances of batch norms are those of a new network. Raises `CompressionError`, which begins with
    `caller`, for layers that cannot be initialized, such as compressed ones.
    """
    spec = getattr(model, "spec", None)
    if spec is not None:
        built = build(spec, seed=seed)
        if _described(built.state_dict()) == _described(model.state_dict()):
            return built
    new = copied(model)
    initialize(new, seed, caller, "give a teacher of ordinary layers")
    return new.eval()


def _described(state: dict[str, Tensor]) -> dict[str, tuple]:
    return {name: (value.shape, value.dtype) for name, value in state.items()}


@method
class RandomTeacher(Method):
    r"""Run a distillation from a teacher that has learned nothing: the same architecture, new weights; a control.

    $\theta_s = \arg\min\, L(\theta_s, \theta_t)$ with the loss of the `distillation`, and weights $\theta_t$ drawn as
    before a training. The student is the same, also where it is made from the trained teacher: what it gains here too,
    it does not owe to what its teacher has learned.
    Stored: what the distillation stores.
    Skips: nothing; a teacher with layers that cannot be initialized again, such as compressed ones, is refused by name.
    Paper: Sarnthein, Bachmann, Anagnostidis, Hofmann 2023, Random teachers are good teachers, arXiv:2302.12091, where
    the student starts at the teacher.
    """

    family: ClassVar[str] = "distillation"
    from_scratch: ClassVar[bool] = True
    tried_with: ClassVar[dict[str, Any]] = {"distillation": SoftTargetDistillation(epochs=1)}

    distillation: Distillation = field_of(
        DistillationKnob(SoftTargetDistillation(), "the method that the random teacher teaches with")
    )
    seed: int = seed_knob("seed of the teacher's weights, which no other seed of a method gives")

    @property
    def defined_for(self) -> tuple[str, ...]:
        """What the distillation is defined for."""
        return self.distillation.defined_for

    @property
    def needs(self) -> str:
        """Training images."""
        return self.distillation.needs

    def compress(self, task: Task) -> nn.Module:
        """Build the student as for the given teacher, and train it on the outputs of the random one."""
        try:
            student = self.distillation.untrained(task)
        except CompressionError as error:
            raise CompressionError(f"RandomTeacher: {error}") from error
        teacher = redrawn(task.model, self.seed + REDRAWN, repr(self))
        return self.distillation.teach(student, teacher, task.data)
