"""The controls of a distillation in one call: what a student owes to its teacher, and what to anything else."""

from dataclasses import replace
from typing import Any

from compedu.knobs import knobs
from compedu.methods.distillation.label_smoothing import LabelSmoothing
from compedu.methods.distillation.random_teacher import RandomTeacher
from compedu.methods.distillation.shared.distillation import Distillation
from compedu.methods.method import Method

TEMPERATURE = "temperature"


def controls(
    method: Distillation | type[Distillation], *, longer: int = 2, smoothing: float = 0.1
) -> dict[str, Method]:
    """Return a distillation and its controls by name; all train the same student, from the same weights.

    "taught" is `method` itself. "alone" learns from the labels without a teacher; "longer" does so for `longer` times
    the epochs. "label smoothing" is `LabelSmoothing` with the share `smoothing`, "temperature 1" the method at that
    temperature, if it has another one; both are for classification only. "random teacher" is the method with a teacher
    of the same architecture that has learned nothing. All but "longer" train the student on the same images, in the
    same order and steps. Two methods have two stages: `FitNets` divides the epochs among them, and draws the batches of
    the hints apart; `TeacherAssistant` trains the assistant for as many as the student, so that "longer" has the steps
    of both if it is 2. Raises `ValueError` for a method without a setting at which its student learns alone, for a
    method at that setting, and for `longer` below 2.

    >>> from compedu.methods import SoftTargetDistillation
    >>> for name, arm in controls(SoftTargetDistillation(epochs=10)).items():
    ...     print(f"{name}: {arm}")
    taught: SoftTargetDistillation(epochs=10)
    alone: SoftTargetDistillation(weight=0.0, epochs=10)
    longer: SoftTargetDistillation(weight=0.0)
    label smoothing: LabelSmoothing(epochs=10)
    temperature 1: SoftTargetDistillation(temperature=1.0, epochs=10)
    random teacher: RandomTeacher(distillation=SoftTargetDistillation(epochs=10))
    """
    taught = method() if isinstance(method, type) else method
    alone = _alone(taught)
    if type(longer) is not int or longer < 2:
        raise ValueError(f"controls: longer must be a whole number of at least 2, got {longer!r} (times the epochs)")
    shared: dict[str, Any] = {name: getattr(taught, name) for name in knobs(LabelSmoothing) if name != "smoothing"}
    arms: dict[str, Method] = {
        "taught": taught,
        "alone": alone,
        "longer": replace(alone, epochs=longer * taught.epochs),
        "label smoothing": LabelSmoothing(smoothing=smoothing, **shared),
    }
    if getattr(taught, TEMPERATURE, 1.0) != 1.0:
        arms["temperature 1"] = replace(taught, **{TEMPERATURE: 1.0})
    arms["random teacher"] = RandomTeacher(distillation=taught, seed=taught.seed)
    return arms


def _alone(method: Distillation) -> Distillation:
    """Return the method at its setting without a teacher; raise `ValueError` where there is none, or it is that one."""
    if not isinstance(method, Distillation) or not method.alone:
        raise ValueError(
            f"controls: {method!r} has no setting at which a student learns from the labels alone (`alone`): it has no "
            "control of the same kind; compare it with a distillation that has one, such as SoftTargetDistillation"
        )
    alone = replace(method, **method.alone)
    if alone == method:
        raise ValueError(f"controls: {method!r} is the student alone: give it a teacher to be compared with")
    return alone
