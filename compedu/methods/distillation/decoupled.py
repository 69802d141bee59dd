"""Decoupled distillation: how sure the teacher is of the target class, and how it sees the others, weighted apart."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from compedu.datasets.objectives import CLASSIFICATION
from compedu.errors import CompressionError
from compedu.knobs import inherited, knob, method
from compedu.methods.distillation.shared.distillation import Distillation, Lesson
from compedu.methods.distillation.soft_targets import SoftTargetDistillation, divergence


def decoupled_losses(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the target-class and the non-target-class part of the soft loss, each times T^2, means over the images.

    Logits are (N, classes), labels (N,). The first is the divergence of (p_t, 1 - p_t), the second that of the
    softmax over the other classes alone. Raises `CompressionError` for fewer than two classes.
    """
    classes = student.shape[1]
    if classes < 2:
        raise CompressionError(f"decoupled distillation needs two classes or more, the logits have {classes}")
    others = ~F.one_hot(labels, classes).bool()
    binary = []
    rest = []
    for logits in (student, teacher):
        scaled = logits / temperature
        wrong = scaled[others].view(-1, classes - 1)
        whole = scaled.logsumexp(1, keepdim=True)
        missed = wrong.logsumexp(1, keepdim=True) - whole  # log(1 - p_t), exact where p_t rounds to 1
        binary.append(torch.cat([scaled.gather(1, labels[:, None]) - whole, missed], dim=1))
        rest.append(F.log_softmax(wrong, dim=1))
    target, non_target = (divergence(own, theirs) for own, theirs in (binary, rest))
    return temperature**2 * target, temperature**2 * non_target


@method
class DecoupledDistillation(Distillation):
    r"""Train a student on the labels and on the two parts of the soft loss, each with a weight of its own.

    $L = \mathrm{CE}(y, p) + \alpha\,T^2\,\mathrm{KL}(b^T \| b^S) + \beta\,T^2\,\mathrm{KL}(\hat q^T \| \hat q^S)$ with
    $b = (p_t, 1 - p_t)$ of the target class $t$ and $\hat q$ the softmax over all other classes. Soft targets have
    $\alpha = 1$ and $\beta = 1 - p_t^T$ of each image: the surer the teacher, the less its view of the other classes
    counts there. $\alpha$ is `target`, $\beta$ is `non_target`. Defined for classification with logits of at least two
    classes.
    Stored: the student's layers, dense, at full precision; nothing of the teacher.
    Skips: nothing; of the teacher only its logits count.
    Paper: Zhao, Cui, Song, Qiu, Liang 2022, Decoupled knowledge distillation, arXiv:2203.08679, section 3.
    """

    alone: ClassVar[dict[str, Any]] = {"target": 0.0, "non_target": 0.0}

    temperature: float = inherited(SoftTargetDistillation, "temperature")
    target: float = knob(
        default=1.0,
        help="alpha, weight of the target class against all others together; for classification with logits",
        low=0,
        high=1e6,
        slider_range=(0.1, 10),
        log=True,
    )
    non_target: float = knob(
        default=8.0,
        help="beta, weight of the other classes among each other; for classification with logits",
        low=0,
        high=1e6,
        slider_range=(0.1, 100),
        log=True,
    )

    @property
    def defined_for(self) -> tuple[str, ...]:
        """Classification: the loss tells the class of the label from all others."""
        return (CLASSIFICATION,)

    def loss_of(self, lesson: Lesson) -> Tensor:
        """Return the loss of the labels plus the weighted parts of the soft loss."""
        target, non_target = decoupled_losses(lesson.logits, lesson.targets, lesson.labels, self.temperature)
        return lesson.supervised + self.target * target + self.non_target * non_target
