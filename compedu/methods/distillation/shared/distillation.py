"""The base of distillation: a student learns from the outputs of a teacher, and from features of its layers."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compedu.datasets.dataset import SPLITS, Dataset
from compedu.datasets.objectives import CLASSES, CLASSIFICATION, Objective
from compedu.errors import CompressionError
from compedu.evaluation import all_logits, logits_of, refuse_probabilities, shape_of
from compedu.knobs import method
from compedu.methods.distillation.shared.compared import Pairs, names_meant
from compedu.methods.distillation.shared.features import (
    at_least_single,
    captured,
    features_of,
    refuse_fixed,
    refuse_not_real,
)
from compedu.methods.distillation.shared.roles import check_roles
from compedu.methods.distillation.shared.students import Student, check_student, student_knob, student_of
from compedu.methods.method import Method
from compedu.methods.task import Task
from compedu.methods.training_method import FromScratch
from compedu.reproducible import seed_apart
from compedu.training import Companion, Loss

Chosen = tuple[Tensor, ...]  # for each pair of layers the numbers of those of the teacher's neurons that count


@dataclass(frozen=True, eq=False)
class Lesson:
    """Outputs of student and teacher for one batch: `logits` and `targets` (N, classes), and `labels` (N,).

    `features` holds for each pair of layers the student's output, through its regressor if it has one, and the
    teacher's output; no gradient enters the teacher. All are at least float32, also of networks in half precision.
    Where the `objective` is not classification, logits are its outputs, and labels its targets.
    """

    logits: Tensor
    targets: Tensor
    labels: Tensor
    features: tuple[tuple[Tensor, Tensor], ...] = ()
    objective: Objective = CLASSES

    @property
    def supervised(self) -> Tensor:
        """The loss of the labels, which the objective of the data defines."""
        return self.objective.loss(self.logits, self.labels)


@method
class Distillation(FromScratch):
    """Train a student on the outputs of the given network, the teacher; a subclass defines the loss.

    The teacher is in evaluation mode throughout and does not change.
    """

    family: ClassVar[str] = "distillation"

    student: Student = student_knob(
        default="lenet5(width=0.25)", help="the network to be trained, by its spec; sizes come from the data"
    )

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.student, str):
            check_student(self.student, self._where)

    @property
    def _where(self) -> str:
        return f"{type(self).__name__}.student"

    @property
    def _student(self) -> str:
        return f"the student of {self!r}"

    @property
    def _teacher(self) -> str:
        return f"the teacher of {self!r}"

    def pairs_of(self, student: nn.Module, teacher: nn.Module, image: Tensor) -> Pairs:
        """Return the layers whose outputs are compared: pairs of a layer of the student and one of the teacher.

        `image` (1, C, H, W) is one that both networks take.
        """
        return ()

    def regressor(self, student: Tensor, teacher: Tensor, seed: int) -> Companion | None:
        """Return the module that maps the student's feature of a pair, given both features of one image; None for none.

        It is drawn by `seed`, which differs from pair to pair, trains together with the student and is then discarded.
        Raises `CompressionError` for features that the loss is not defined for.
        """
        return None

    def paired(self, regressor: Companion | None, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of a pair for a batch as the loss compares them: the student's through its regressor."""
        return student if regressor is None else regressor.module(student), teacher

    @abstractmethod
    def loss_of(self, lesson: Lesson) -> Tensor:
        """Return the loss of one batch."""

    def compress(self, task: Task) -> nn.Module:
        """Build the student and train it on the outputs of the teacher."""
        student = self.untrained(task)
        if not isinstance(self.student, Method):  # which makes it from the teacher
            check_roles(student, task.model, task, trained=not isinstance(self.student, str))
        return self.teach(student, task.model, task.data)

    def untrained(self, task: Task) -> nn.Module:
        """Return the student before training; refuse a teacher or a student that no loss of logits is defined for."""
        teacher = task.model
        data = task.data
        if not any(True for _ in teacher.parameters()):
            raise CompressionError(f"{self!r} has no teacher: {type(teacher).__name__} has no weights")
        refuse_probabilities(teacher, data)
        classes = logits_of(teacher, data.example, data).shape[1]
        student = student_of(self.student, task, classes, self.seed, self._where)
        self.refuse_unfit(student, classes, data, self._where)
        return student

    def refuse_unfit(self, network: nn.Module, classes: int, data: Dataset, where: str) -> None:
        """Raise `CompressionError` for a network that cannot be trained on `data`, or has not the teacher's `classes`.

        `where` names the knob.
        """
        self.refuse_untrainable(network, data)
        if (own := logits_of(network, data.example, data).shape[1]) != classes:
            kind = "classes" if data.objective.kind == CLASSIFICATION else "outputs"
            raise CompressionError(f"{where} has {own} {kind}, its teacher {classes}")

    def teach(self, student: nn.Module, teacher: nn.Module, data: Dataset) -> nn.Module:
        """Train `student` in place and return it; a subclass may do so in several stages."""
        return self.stage(student, teacher, data, self.pairs_of(student, teacher, data.example), self.epochs)

    def stage(
        self,
        student: nn.Module,
        teacher: nn.Module,
        data: Dataset,
        pairs: Pairs,
        epochs: int,
        chosen: Chosen = (),
        **of_stage: Any,
    ) -> nn.Module:
        """Train `student` in place for `epochs`, with the features of `pairs` in each lesson, and return it.

        `chosen` holds for each pair the numbers of those features (N, F) of the teacher that count, or nothing for all;
        `of_stage` are further knobs that the stage has other values of.
        """
        pairs = self.named(pairs, student, teacher, data.example)
        regressors = self.regressors(pairs, student, teacher, data, chosen)
        companions = {f"regressor_{index}": one for index, one in enumerate(regressors) if one is not None}
        loss = self.loss(teacher, data, pairs, regressors, chosen)
        timed = replace(self, epochs=epochs, **of_stage)
        return timed.train_unchecked(student, numbered(data), loss=loss, companions=companions)

    def named(self, pairs: Pairs, student: nn.Module, teacher: nn.Module, image: Tensor) -> Pairs:
        """Return `pairs` with the names of layers for the words first, middle, last; refuse a layer that is not there.

        `image` (1, C, H, W) is one that both networks take.
        """
        return names_meant(pairs, student, teacher, image, self._student, self._teacher)

    def regressors(
        self, pairs: Pairs, student: nn.Module, teacher: nn.Module, data: Dataset, chosen: Chosen = ()
    ) -> tuple[Companion | None, ...]:
        """Return the regressor of each pair of layers.

        Raises `CompressionError`, which names the layers, as `regressor` does, and for features that cannot be learned.
        """
        if not pairs:
            return ()
        own, theirs = zip(*pairs, strict=True)
        learned = features_of(student, own, data.example, self._student, gradients=True)
        taught = features_of(teacher, theirs, data.example, self._teacher)
        for name, feature in zip(own, learned, strict=True):
            refuse_not_real(feature, name, self._student)
            refuse_fixed(feature, name, self._student)
        for name, feature in zip(theirs, taught, strict=True):
            refuse_not_real(feature, name, self._teacher)
        made = []
        for index, (names, feature, hint) in enumerate(zip(pairs, learned, among(taught, chosen), strict=True)):
            try:
                made.append(self.regressor(feature, hint, seed_apart(self.seed, f"regressor {index}")))
            except CompressionError as error:
                raise CompressionError(f"{self!r}, layer {names[0]!r} under layer {names[1]!r}: {error}") from error
        return tuple(made)

    def answers(self, student: nn.Module, x: Tensor) -> Tensor:
        """Return the student's logits (N, classes); raise `CompressionError` for one that returns more in training."""
        outputs = student(x)
        if not isinstance(outputs, Tensor):
            raise CompressionError(
                f"{self._where} returns {shape_of(outputs)} in training; it must return only logits (images, classes)"
            )
        return outputs

    def loss(
        self,
        teacher: nn.Module,
        data: Dataset,
        pairs: Pairs = (),
        regressors: tuple[Companion | None, ...] = (),
        chosen: Chosen = (),
    ) -> Loss:
        """Return the loss of a student for images and their indices; `pairs`, `regressors`, `chosen` as in `stage`.

        If only its logits count, the teacher runs once over all images, before training; for images that are drawn
        anew in each step and for features it runs in every step.
        """
        logits = None if self.shift or self.mirror or pairs else all_logits(teacher, data.x_train, data)
        own = [name for name, _ in pairs]
        theirs = [name for _, name in pairs]
        learner = self._student  # takes as long to write as a small step, so not in each one
        master = self._teacher

        def of_batch(student: nn.Module, x: Tensor, indices: Tensor) -> Tensor:
            if logits is None:
                with captured(teacher, theirs, master) as taught:
                    targets = logits_of(teacher, x, data).clone()
            else:
                taught = {}
                targets = logits[indices]
            with captured(student, own, learner) as learned:
                outputs = self.answers(student, x)
            hints = among([taught[name] for name in theirs], chosen)
            features = []
            for name, companion, hint in zip(own, regressors, hints, strict=True):
                feature, hint = self.paired(companion, learned[name], hint)
                features.append((at_least_single(feature), at_least_single(hint)))
            labels = data.y_train[indices]
            answers = (at_least_single(outputs), at_least_single(targets), labels)
            return self.loss_of(Lesson(*answers, tuple(features), data.objective))

        return of_batch


def among(features: Sequence[Tensor], chosen: Chosen) -> Sequence[Tensor]:
    """Return of each of `features` (N, F) those columns whose numbers (count,) are `chosen`, or all if none are."""
    return [feature[:, numbers] for feature, numbers in zip(features, chosen, strict=True)] if chosen else features


def numbered(data: Dataset) -> Dataset:
    """Return `data` with the index of each image in place of its label, for a loss to look things up by."""
    indices = {f"y_{split}": torch.arange(len(data.split(split)[0])) for split in SPLITS}
    names = tuple(map(str, range(max(map(len, indices.values())))))
    return replace(data, **indices, classes=names, objective=CLASSES)
