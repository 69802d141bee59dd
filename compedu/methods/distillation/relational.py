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
    coincide the cosine is 0. Takes memory for the cube of N, whatever the number of features.
    """
    images = len(student)
    if images < 3:
        return student.new_zeros(())
    own, theirs = (cosines(embeddings.flatten(1)) for embeddings in (student, teacher))
    # Where two of the three are the same image, both cosines are 0 and add nothing to the sum.
    return F.smooth_l1_loss(own, theirs, reduction="sum") / (images * (images - 1) * (images - 2))


def relative_distances(embeddings: Tensor) -> Tensor:
    """Return the distances (N * (N - 1) / 2,) of all pairs of `embeddings` (N, features) over their mean."""
    distances = F.pdist(embeddings)
    mean = distances.mean()
    return distances / mean.clamp_min(torch.finfo(mean.dtype).tiny)  # where all coincide, 0 over 0 is 0


def cosines(embeddings: Tensor) -> Tensor:
    """Return the cosines (N, N, N) at embedding j (first axis) between the directions to i and k; (N, features).

    They are 0 wherever two of i, j, k are the same.
    """
    points = in_their_span(embeddings)
    given = embeddings.detach()
    # Told from the embeddings themselves: rounding sets those apart on other axes, and the direction would be noise.
    coincide = torch.cdist(given, given, compute_mode="donot_use_mm_for_euclid_dist") == 0
    directions = unit((points[None, :, :] - points[:, None, :]).masked_fill(coincide[:, :, None], 0.0))
    found = directions @ directions.mT
    found.diagonal(dim1=1, dim2=2).zero_()  # i = k; where i or k is j, a direction is 0 already
    return found


def in_their_span(embeddings: Tensor) -> Tensor:
    """Return coordinates (N, at most N) of `embeddings` (N, features) that keep all differences, up to a rotation.

    N points span no more than N axes, so that the directions of all pairs take memory for N^3 numbers and not for N^2
    times the features. The axes are constants: a change of the embeddings across them changes no distance and no angle
    to first order, so that gradients are those of the embeddings themselves.
    """
    if embeddings.shape[1] <= len(embeddings):
        return embeddings
    centered = embeddings - embeddings.mean(0)  # products of smaller numbers lose fewer digits
    axes = torch.linalg.qr(centered.detach().mT)[0]
    return centered @ axes


@method
class RelationalDistillation(FeatureDistillation):
    r"""Train a student on the labels and on distances and angles between the teacher's embeddings of a batch.

    $L = \mathrm{CE}(y, p) + \lambda \big( \mathrm{mean}_{i<j}\, h(\tfrac{d^S_{ij}}{\mu^S}, \tfrac{d^T_{ij}}{\mu^T})
    + a\,\mathrm{mean}_{ijk}\, h(\cos\angle^S_{ijk}, \cos\angle^T_{ijk}) \big)$ with distances $d$, their mean $\mu$ in
    the batch, and the Huber loss $h$; means over distinct images. $\lambda$ is `strength`, $a$ is `angles`. Embeddings
    may have any numbers of features in student and teacher. Defined for any network; the loss of the labels needs
    classes. Angles take memory for the cube of the batch size, whatever the number of features.
    Stored: the student's layers, dense, at full precision; nothing of the teacher.
    Skips: nothing; a batch of fewer than three images, or two without angles, also as the last of an epoch, is refused.
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

    @property
    def least_images(self) -> int:
        """Three, of an angle; two where only distances count."""
        return 3 if self.angles else 2

    def feature_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of the distances plus `angles` times that of the angles."""
        distances = distance_loss(student, teacher)
        if self.angles == 0:
            return distances  # without the memory that angles take
        return distances + self.angles * angle_loss(student, teacher)
