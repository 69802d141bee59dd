"""Contrastive distillation: a student learns to tell whose embedding its teacher's is, among the images of a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compedu.knobs import inherited, knob, method
from compedu.methods.distillation.shared.feature_distillation import FeatureDistillation
from compedu.methods.distillation.shared.features import unit
from compedu.reproducible import seeded
from compedu.training import Companion


def contrastive_loss(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """Return -log of the probability that an embedding finds its own image in the other network, in nats.

    Both are embeddings (N, D) of the same images. The probability is the softmax of their cosines over `tau`; the loss
    is the mean over the images, and over both directions. One image has nothing to be told apart from, and no loss.
    """
    scores = unit(student) @ unit(teacher).T / tau
    own = torch.arange(len(scores))
    return 0.5 * (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own))


class Projections(nn.Module):
    """Two linear layers that bring features of student and teacher (N, ...) to embeddings (N, D) of one space."""

    def __init__(self, student: Tensor, teacher: Tensor, dimension: int):
        super().__init__()
        self.student, self.teacher = (nn.Linear(each[0].numel(), dimension) for each in (student, teacher))

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return both embeddings."""
        return self.student(student.flatten(1)), self.teacher(teacher.flatten(1))


@method
class ContrastiveDistillation(FeatureDistillation):
    r"""Train a student on the labels, and to embed each image close to its teacher's embedding of that image alone.

    $L = \mathrm{CE}(y, p) - \frac{\lambda}{2 b} \sum_i \big( \log \frac{e^{s_{ii} / \tau}}{\sum_j e^{s_{ij} / \tau}}
    + \log \frac{e^{s_{ii} / \tau}}{\sum_j e^{s_{ji} / \tau}} \big)$ with $s_{ij} = \cos(U f_i^S, V f_j^T)$ of the
    features $f$ of the $b$ images of a batch. $\lambda$ is `strength`; $U$ and $V$ are linear layers to `dimension`
    numbers that train beside the student and are then discarded, as in the paper. An image is told apart from the other
    images of its batch, of any class, by a softmax (InfoNCE, van den Oord et al. 2018, arXiv:1807.03748, section 2.3).
    The paper takes thousands of images, in its code of other classes, from a memory with a moving average of each
    embedding, and decides of each pair whether it is one image (noise-contrastive estimation). Here the batch size is
    part of the loss, which can show at most $\log b$ nats of mutual information. Defined for any network; the loss of
    the labels is that of the data's objective.
    Stored: the student's layers, dense, at full precision; nothing of the teacher or the projections.
    Skips: nothing; any layers can be compared, but a batch of one image, also as the last of an epoch, is refused.
    Paper: Tian, Krishnan, Isola 2020, Contrastive representation distillation, arXiv:1910.10699, section 3.
    """

    compared: str = inherited(FeatureDistillation, "compared")
    strength: float = inherited(
        FeatureDistillation,
        "strength",
        slider_range=(0.01, 100),
        help="lambda, weight of the contrastive loss beside the labels; for any network, and batches of two or more",
    )
    tau: float = knob(
        default=0.1,
        help="cosines are divided by it before the softmax: the smaller, the more the nearest images count",
        low=0.001,
        high=1000,
        slider_range=(0.02, 1),
        log=True,
    )
    dimension: int = knob(
        default=128,
        help="numbers of an embedding in the space where student and teacher are compared",
        low=1,
        high=4096,
        slider_range=(8, 512),
        log=True,
    )

    @property
    def least_images(self) -> int:
        """Two: an image alone in its batch has nothing to be told apart from."""
        return 2

    def regressor(self, student: Tensor, teacher: Tensor, seed: int) -> Companion:
        """Return the projections of both features."""
        with seeded(seed):
            return Companion(Projections(student, teacher, self.dimension).to(student.dtype))

    def paired(self, regressor: Companion | None, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return both features in the common space."""
        return (student, teacher) if regressor is None else regressor.module(student, teacher)

    def feature_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the contrastive loss of two embeddings."""
        return contrastive_loss(student, teacher, self.tau)
