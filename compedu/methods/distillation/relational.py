"""Relational distillation: a student learns distances and angles between the embeddings of images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from compedu.knobs import inherited, knob, method
from compedu.methods.distillation.shared.feature_distillation import FeatureDistillation
from compedu.methods.distillation.shared.features import unit


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the Huber loss of the distances of embeddings (N, ...) over their mean, the mean over pairs of images.

    The numbers of features may differ. One image has no pair, and no loss; embeddings that all coincide have distances
    of 0.
    """
    if len(student) < 2:
        return student.new_zeros(())
    own, theirs = (relative_distances(embeddings.flatten(1)) for embeddings in (student, teacher))
    return F.smooth_l1_loss(own, theirs)


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the Huber loss of the cosines at one of three embeddings (N, ...), the mean over triplets of images.

    The numbers of features may differ. Fewer than three images have no triplet, and no loss; between embeddings that
    coincide the cosine is 0.
    """
    if len(student) < 3:
        return student.new_zeros(())
    same = torch.eye(len(student), dtype=torch.bool)
    distinct = ~(same[:, :, None] | same[:, None, :] | same[None, :, :])
    own, theirs = (cosines(embeddings.flatten(1))[distinct] for embeddings in (student, teacher))
    return F.smooth_l1_loss(own, theirs)


def relative_distances(embeddings: Tensor) -> Tensor:
    """Return the distances (N * (N - 1) / 2,) of all pairs of `embeddings` (N, features) over their mean."""
    distances = F.pdist(embeddings)
    mean = distances.mean()
    return distances / mean.clamp_min(torch.finfo(mean.dtype).tiny)  # where all coincide, 0 over 0 is 0


def cosines(embeddings: Tensor) -> Tensor:
    """Return the cosines (N, N, N) at embedding j (first axis) between the directions to i and k; (N, features)."""
    directions = unit(embeddings[None, :, :] - embeddings[:, None, :])
    return directions @ directions.mT


@method
class RelationalDistillation(FeatureDistillation):
    r"""Train a student on the labels and on distances and angles between the teacher's embeddings of a batch.

    $L = \mathrm{CE}(y, p) + \lambda \big( \mathrm{mean}_{i<j}\, h(\tfrac{d^S_{ij}}{\mu^S}, \tfrac{d^T_{ij}}{\mu^T})
    + a\,\mathrm{mean}_{ijk}\, h(\cos\angle^S_{ijk}, \cos\angle^T_{ijk}) \big)$ with distances $d$, their mean $\mu$ in
    the batch, and the Huber loss $h$; means over distinct images. $\lambda$ is `strength`, $a$ is `angles`. Embeddings
    may have any numbers of features in student and teacher. Defined for any network; the loss of the labels needs
    classes. Angles take memory for the cube of the batch size.
    Stored: the student's layers, dense, at full precision; nothing of the teacher.
    Skips: nothing; a last batch of one image has no relations, and only the loss of its label.
    Paper: Park, Kim, Lu, Cho 2019, Relational knowledge distillation, arXiv:1904.05068, section 3.
    """

    compared: str = inherited(FeatureDistillation, "compared")
    strength: float = inherited(
        FeatureDistillation,
        "strength",
        default=2.5,
        slider_range=(0.01, 100),
        help="weight of distances and angles beside the labels; for any network with embeddings",
    )
    angles: float = knob(
        default=2.0,
        help="weight of the angles beside the distances",
        low=0,
        high=1e6,
        slider_range=(0.1, 10),
        log=True,
    )

    def feature_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of the distances plus `angles` times that of the angles."""
        distances = distance_loss(student, teacher)
        if self.angles == 0:
            return distances  # without the memory that angles take
        return distances + self.angles * angle_loss(student, teacher)
