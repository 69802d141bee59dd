"""Similarity-preserving distillation: a student learns which images of a batch its teacher responds to alike."""

from torch import Tensor

from compedu.knobs import inherited, method
from compedu.methods.distillation.shared.feature_distillation import FeatureDistillation
from compedu.methods.distillation.shared.features import unit


def similarities(features: Tensor) -> Tensor:
    """Return the inner products (N, N) of `features` (N, ...), each row of norm 1; without any response it stays 0."""
    rows = features.flatten(1)
    return unit(rows @ rows.T)


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared Frobenius distance of the similarities of two features (N, ...) over N^2."""
    return (similarities(student) - similarities(teacher)).square().mean()


@method
class SimilarityPreserving(FeatureDistillation):
    r"""Train a student on the labels and on the similarities of images by which its teacher responds to a batch.

    $L = \mathrm{CE}(y, p) + \frac{\gamma}{b^2} \sum_j \| G_S^j - G_T^j \|_F^2$ with $G = Q Q^\top$, each row divided by
    its norm, $Q$ the features of the $b$ images of a batch as rows, and pair $j$ of layers. $\gamma$ is `strength`.
    Features may have any shapes in student and teacher. Defined for any network; the loss of the labels is that of the
    data.
    Stored: the student's layers, dense, at full precision; nothing of the teacher.
    Skips: nothing; any layers can be compared, but a batch of one image, also as the last of an epoch, is refused.
    Paper: Tung, Mori 2019, Similarity-preserving knowledge distillation, arXiv:1907.09682, section 3.
    """

    compared: str = inherited(FeatureDistillation, "compared")
    strength: float = inherited(
        FeatureDistillation,
        "strength",
        default=100.0,
        slider_range=(0.1, 1e4),
        help="gamma, weight of the similarities beside the labels; for any network",
    )

    @property
    def least_images(self) -> int:
        """Two: the row of a single image has one number, 1 after the division."""
        return 2

    def feature_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the distance of the similarities."""
        return similarity_loss(student, teacher)
