"""Attention transfer: a student learns where in the image its teacher's activations are large."""

import torch.nn.functional as F
from torch import Tensor

from compedu.errors import CompressionError
from compedu.knobs import inherited, method
from compedu.methods.distillation.shared.compared import RESOLUTIONS
from compedu.methods.distillation.shared.feature_distillation import FeatureDistillation
from compedu.methods.distillation.shared.features import unit


def attention_maps(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the attention maps (N, H * W) of `features` (N, C, h, w) at `size` (H, W), each of norm 1.

    The squares are summed over the channels and averaged over the windows of adaptive pooling; a map without any
    activation stays 0.
    """
    attention = features.square().sum(1, keepdim=True)
    return unit(F.adaptive_avg_pool2d(attention, size).flatten(1))


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return half the squared distance of the attention maps of two features (N, C, H, W), the mean over the images.

    Channels and sizes may differ; maps are compared at the smaller size along each axis.
    """
    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    own, theirs = (attention_maps(features, size) for features in (student, teacher))
    return 0.5 * (own - theirs).square().sum(1).mean()


@method
class AttentionTransfer(FeatureDistillation):
    r"""Train a small network, the student, on the labels and on the places where its teacher's activations are large.

    $L = \mathrm{CE}(y, p) + \frac{\beta}{2} \sum_j \big\| \frac{Q_S^j}{\|Q_S^j\|_2} - \frac{Q_T^j}{\|Q_T^j\|_2}
    \big\|_2^2$ with $Q = \mathrm{vec}(\sum_c A_c^2)$ of each image and pair $j$ of layers, the mean over the images.
    $\beta$ is `strength`. The paper's formula has the norm, not its square. Its published code has $\beta'$ times the
    mean of the squares over images and positions, which is the same as $\beta = 2 \beta' / P$ for maps of $P$
    positions: its $\beta' = 1000$ is 31 at 8 x 8. Maps of different sizes are averaged to the smaller one first.
    Defined for any network with feature maps (N, C, H, W); the loss of the labels is that of the data.
    Stored: the student's layers, dense, at full precision; nothing of the teacher.
    Skips: nothing; layers without maps, or with maps of one position, are refused by name.
    Paper: Zagoruyko, Komodakis 2017, Paying more attention to attention, arXiv:1612.03928, section 3.1.
    """

    compared: str = inherited(
        FeatureDistillation,
        "compared",
        default=RESOLUTIONS,
        help="layers whose maps (N, C, H, W) are compared: the last of each size, with the teacher's of nearest size "
        "(resolutions), or pairs such as 'conv1=conv1, relu2=relu2', the student's layer first",
    )
    strength: float = inherited(
        FeatureDistillation,
        "strength",
        default=1.0,
        slider_range=(0.01, 100),
        help="beta, weight of the attention maps beside the labels; for any network with maps (N, C, H, W)",
    )

    def regressor(self, student: Tensor, teacher: Tensor, seed: int) -> None:
        """Return None, as maps need no regressor; refuse features that have no places to attend to."""
        for whose, features in (("student", student), ("teacher", teacher)):
            if features.ndim != 4 or features.shape[2:].numel() < 2:
                raise CompressionError(
                    f"the {whose}'s output has shape {tuple(features.shape[1:])}; attention needs maps (C, H, W) of "
                    "more than one position: choose a convolution or what follows it"
                )

    def feature_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return half the squared distance of the attention maps."""
        return attention_loss(student, teacher)
