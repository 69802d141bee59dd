"""Who teaches whom: a student that was given trained must not know more than its teacher."""

from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.evaluation import Evaluation, evaluate
from compedu.methods.task import Task

UNLIKELY = 0.01  # by chance: below it, one network is called more accurate than another


def weights_of(model: nn.Module) -> int:
    """Return the number of weights of `model` that are not 0, as those are that a mask leaves out."""
    return sum(int(parameter.count_nonzero()) for parameter in model.parameters())


def chance(one: Tensor, other: Tensor) -> float:
    """Return how likely `one` is correct that often where only one of both is, if both were equally accurate.

    Both say of each image whether it was classified correctly (N,): McNemar's test, one-sided and exact.
    """
    from scipy import stats  # which takes long to import

    won, lost = (int(more.sum()) for more in (one & ~other, other & ~one))
    return float(stats.binom.sf(won - 1, won + lost, 0.5))


def check_roles(student: nn.Module, teacher: nn.Module, task: Task, trained: bool) -> None:
    """Refuse swapped roles; record in `task` a student that is not smaller than its teacher or that knows more.

    Only a student that was given, `trained` perhaps, is evaluated: on the validation images, beside its teacher. It
    knows more if it answers more of them correctly than chance explains. If it also has at least as many weights,
    teacher and student are swapped: `CompressionError`.
    """
    own, theirs = (weights_of(model) for model in (student, teacher))
    learned, taught = (evaluate(model, task.data) if trained else None for model in (student, teacher))
    if learned is None or taught is None or chance(learned.is_correct, taught.is_correct) >= UNLIKELY:
        if own >= theirs:
            task.skip("(student)", f"is no smaller than its teacher: {own:,} weights, the teacher {theirs:,}")
        return
    accuracies = f"{_share(learned)} validation images correctly before it learns, its teacher {_share(taught)}"
    if own < theirs:
        task.skip("(teacher)", f"knows less than its student, which answers {accuracies}")
        return
    raise CompressionError(
        f"{task.method!r}: teacher and student are swapped: the student that was given answers {accuracies}, and "
        f"it has {own:,} weights, its teacher {theirs:,}; call the method on the network that knows more and give the "
        "other one as the student"
    )


def _share(evaluation: Evaluation) -> str:
    return f"{evaluation.correct} of {evaluation.of}"
