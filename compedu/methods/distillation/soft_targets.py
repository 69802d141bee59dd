"""Distillation with soft targets: a student network learns the teacher's probabilities beside the labels."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.evaluation import all_scores, refuse_misfit, refuse_probabilities, scores_of
from compedu.knobs import knob, method
from compedu.methods.task import Task
from compedu.methods.training_method import FromScratch
from compedu.networks import build
from compedu.networks.fitting import network_for
from compedu.training import fit


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)) in nats, the mean over the images.

    Both are scores (N, classes). Gradients of the divergence shrink as 1 / T^2; the factor keeps them comparable with
    those of the labels (Hinton et al. 2015, section 2).

    >>> scores = torch.tensor([[2.0, 0.0, 0.0]])
    >>> soft_loss(scores, scores, 4.0).item()
    0.0
    """
    targets, guesses = (F.log_softmax(scores / temperature, dim=1) for scores in (teacher, student))
    return temperature**2 * F.kl_div(guesses, targets, reduction="batchmean", log_target=True)


def distillation_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, weight: float) -> Tensor:
    """Return (1 - weight) times the cross entropy with `labels` plus weight times the soft loss; shapes as there."""
    return (1 - weight) * F.cross_entropy(student, labels) + weight * soft_loss(student, teacher, temperature)


@method
class SoftTargetDistillation(FromScratch):
    r"""Train a small network, the student, on the softened probabilities that the given network, the teacher, assigns.

    $L = (1 - w)\,\mathrm{CE}(y, p) + w\,T^2\,\mathrm{KL}(q_T \,\|\, p_T)$ with $p_T = \mathrm{softmax}(z_s / T)$ of the
    student and $q_T = \mathrm{softmax}(z_t / T)$ of the teacher; with `weight` 0 the student learns alone.
    Stored: the student's layers, dense, at full precision; nothing of the teacher.
    Skips: nothing; of the teacher only its scores count, so that it may be any network or compressed model; one that
    ends in a softmax is refused.
    Paper: Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network, arXiv:1503.02531, section 2.
    """

    topic: ClassVar[str] = "distillation"

    temperature: float = knob(
        default=4.0,
        help="how far scores are softened: T of softmax(z / T)",
        low=0,
        high=1000,
        open="low",
        tour=(1, 20),
        log=True,
    )
    weight: float = knob(
        default=0.9, help="share of the soft loss; the rest is the labels'", low=0, high=1, tour=(0, 1)
    )
    student: str = knob(
        default="lenet5(width=0.25)", help="the network to be trained, in words; sizes come from the data"
    )

    def __post_init__(self):
        super().__post_init__()
        check_student(self.student)

    def compress(self, task: Task) -> nn.Module:
        """Build the student and train it on the teacher's scores and the labels."""
        teacher, data = task.model, task.data
        if not any(True for _ in teacher.parameters()):
            raise CompressionError(f"{self!r} has no teacher: {type(teacher).__name__} has no weights")
        refuse_probabilities(teacher, data)
        student = student_for(self.student, data, scores_of(teacher, data.example, data).shape[1], self.seed)
        refuse_misfit(student, data)
        fit(student, numbered(data), self.recipe, loss=self.loss(teacher, data))
        return student

    def loss(self, teacher: nn.Module, data: Dataset) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
        """Return the loss of a student for images and their numbers.

        The teacher is asked about each image once, before; about images that are moved, each time anew.
        """
        scores = None if self.shift else all_scores(teacher, data.x_train, data)

        def of_batch(student: nn.Module, x: Tensor, numbers: Tensor) -> Tensor:
            said = scores_of(teacher, x, data).clone() if scores is None else scores[numbers]
            return distillation_loss(student(x), said, data.y_train[numbers], self.temperature, self.weight)

        return of_batch


@lru_cache
def check_student(spec: str) -> None:
    """Raise `ValueError` for a text that is no network."""
    try:
        build(spec)
    except ValueError as error:
        raise ValueError(f"SoftTargetDistillation.student must be a network in words: {error}") from error


def student_for(spec: str, data: Dataset, classes: int, seed: int) -> nn.Module:
    """Return a new network `spec` for the images of `data` and the teacher's number of classes."""
    try:
        return network_for(spec, data, classes=classes, seed=seed)
    except ValueError as error:
        raise CompressionError(
            f"SoftTargetDistillation.student {spec!r} cannot be built for images of {data.name!r}: {error}"
        ) from error


def numbered(data: Dataset) -> Dataset:
    """Return `data` with the number of each training image in place of its label: with it a loss looks things up."""
    count = len(data.x_train)
    names = tuple(map(str, range(max(count, len(data.classes)))))
    return replace(data, y_train=torch.arange(count), classes=names)
