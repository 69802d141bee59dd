"""Label smoothing: a student that learns from labels alone, part of each given to all classes; a control."""

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.datasets.objectives import CLASSIFICATION
from compedu.knobs import knob, method
from compedu.methods.distillation.shared.distillation import Distillation, Lesson


def smoothed_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the cross entropy with smoothed labels in nats, the mean over the images.

    Of each label (N,) a share `smoothing` is divided evenly among all classes, its own included; logits (N, classes).
    """
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


@method
class LabelSmoothing(Distillation):
    r"""Train a student on smoothed labels, as if its teacher held all classes to be equally likely: a control.

    $L = -\sum_k q_k \log p_k$ with $q_k = (1 - \epsilon)\,[k = y] + \epsilon / K$ for $K$ classes. $\epsilon$ is
    `smoothing`. Soft targets are smoothed labels that tell the classes apart: what a student gains from this control
    too, it does not owe to its teacher. Defined for classification with logits.
    Stored: the student's layers, dense, at full precision.
    Skips: nothing; of the given network only its number of classes counts.
    Paper: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2016, Rethinking the Inception architecture for computer vision,
    arXiv:1512.00567, section 7.
    """

    alone: ClassVar[dict[str, Any]] = {"smoothing": 0.0}

    smoothing: float = knob(
        default=0.1,
        help="epsilon, share of each label that all classes get alike; for classification with logits",
        low=0,
        high=1,
        slider_range=(0, 0.5),
    )

    @property
    def defined_for(self) -> tuple[str, ...]:
        """Classification: a share of the label is divided among the classes."""
        return (CLASSIFICATION,)

    def teach(self, student: nn.Module, teacher: nn.Module, data: Dataset) -> nn.Module:
        """Train `student` in place and return it; the teacher is not asked."""

        def of_batch(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
            logits = self.answers(model, x)
            return self.loss_of(Lesson(logits, logits.detach(), labels))

        return self.train_unchecked(student, data, loss=of_batch)

    def loss_of(self, lesson: Lesson) -> Tensor:
        """Return the loss of the smoothed labels."""
        return smoothed_loss(lesson.logits, lesson.labels, self.smoothing)
