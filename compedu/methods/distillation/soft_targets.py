"""Distillation with soft targets: a student network learns the teacher's probabilities as well as the labels."""

from typing import Any, ClassVar

import torch  # noqa: F401  the doctests of this file use it
import torch.nn.functional as F
from torch import Tensor

from compedu.datasets.objectives import CLASSIFICATION, KINDS
from compedu.knobs import knob, method
from compedu.methods.distillation.shared.distillation import Distillation, Lesson


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)) in nats, the mean over the images.

    Both are logits (N, classes). Gradients of the divergence shrink as 1 / T^2; the factor keeps them comparable with
    those of the labels (Hinton et al. 2015, section 2).

    >>> logits = torch.tensor([[2.0, 0.0, 0.0]])
    >>> soft_loss(logits, logits, 4.0).item()
    0.0
    """
    targets, predictions = (F.log_softmax(logits / temperature, dim=1) for logits in (teacher, student))
    return temperature**2 * divergence(predictions, targets)


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(teacher || student) in nats, the mean over the images; both are logarithms of probabilities (N, C)."""
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def distillation_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, weight: float) -> Tensor:
    """Return (1 - weight) times the cross entropy with `labels` plus weight times `soft_loss`; same shapes."""
    return (1 - weight) * F.cross_entropy(student, labels) + weight * soft_loss(student, teacher, temperature)


@method
class SoftTargetDistillation(Distillation):
    r"""Train a small network, the student, on the softened probabilities that the given network, the teacher, assigns.

    $L = (1 - w)\,\mathrm{CE}(y, p) + w\,T^2\,\mathrm{KL}(q_T \,\|\, p_T)$ with $p_T = \mathrm{softmax}(z_s / T)$ of the
    student and $q_T = \mathrm{softmax}(z_t / T)$ of the teacher; with `weight` 0 the student learns alone. With `shift`
    or `mirror` both see the same changed images in each step: a consistent teacher, which with `weight` 1 and many
    epochs is also a patient one (Beyer et al. 2022, arXiv:2106.05237, section 3, with crops and mixtures of images).
    Stored: the student's layers, dense, at full precision; nothing of the teacher.
    Skips: nothing; of the teacher only its logits count, so it may be any network or compressed model; one that ends in
    a softmax is refused.
    Paper: Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network, arXiv:1503.02531, section 2.
    """

    alone: ClassVar[dict[str, Any]] = {"weight": 0.0}

    temperature: float = knob(
        default=4.0,
        help="how far logits are softened: T of softmax(z / T)",
        low=0,
        high=1000,
        open="low",
        slider_range=(1, 20),
        log=True,
    )
    weight: float = knob(
        default=0.9,
        help="share of the soft loss; the rest is the loss of the labels",
        low=0,
        high=1,
        slider_range=(0, 1),
    )

    @property
    def defined_for(self) -> tuple[str, ...]:
        """Classification: only logits have a softmax. Anything with `weight` 0, where the student learns alone."""
        return (CLASSIFICATION,) if self.weight else KINDS

    def loss_of(self, lesson: Lesson) -> Tensor:
        """Return the weighted sum of the loss of the labels and that of the softened probabilities."""
        if self.weight == 0:
            return lesson.supervised
        return distillation_loss(lesson.logits, lesson.targets, lesson.labels, self.temperature, self.weight)
