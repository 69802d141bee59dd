"""Model compression: a student learns its teacher's answers on images without labels, real and synthetic ones."""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.datasets.drawn import further_images
from compedu.datasets.objectives import CLASSIFICATION
from compedu.errors import CompressionError
from compedu.knobs import inherited, knob, method
from compedu.methods.distillation.shared.distillation import Distillation, Lesson
from compedu.methods.distillation.shared.munge import munge
from compedu.methods.distillation.soft_targets import SoftTargetDistillation, soft_loss
from compedu.reproducible import seed_apart

IMAGES = "images"
MUNGE = "munge"
DRAWN = "drawn"


@method
class ModelCompression(Distillation):
    r"""Train a student on its teacher's probabilities for a transfer set of images without labels, also synthetic ones.

    $L = T^2\,\mathrm{KL}(q_T \,\|\, p_T)$ of the student's softened probabilities $p_T$ and the teacher's $q_T$; no
    label counts. A synthetic image has $\hat e_a \sim N(e'_a, (|e_a - e'_a| / s)^2)$ with probability $p$, else
    $\hat e_a = e_a$, for each pixel $a$ of an image $e$ and its nearest neighbor $e'$ among the training images, which
    are not changed themselves. $p$ is `exchange`, $s$ is `divisor`. The paper also alters the neighbor in the same
    step, and its problems have two classes. Of drawn characters there are always more: `drawn` takes images by other
    writers, which nobody labels. An epoch passes over the whole transfer set: with further images it takes
    `copies` + 1 times as many steps, and as much memory for images. Defined for classification with logits.
    Stored: the student's layers, dense, at full precision; nothing of the teacher or the transfer set.
    Skips: nothing; of the teacher only its logits count.
    Paper: Bucila, Caruana, Niculescu-Mizil 2006, Model compression, KDD.
    """

    uses_labels: ClassVar[bool] = False

    temperature: float = inherited(SoftTargetDistillation, "temperature", default=1.0)
    transfer: str = knob(
        default=MUNGE,
        help="images that the student learns from: the training images without their labels (images), these and "
        "synthetic ones (munge), or these and more that glyphs draws (drawn); for any network with logits",
        choices=(IMAGES, MUNGE, DRAWN),
    )
    copies: int = knob(
        default=2,
        help="synthetic or drawn images for each training image",
        low=1,
        high=100,
        slider_range=(1, 10),
        unit="images",
    )
    exchange: float = knob(
        default=0.5,
        help="probability that a pixel of a synthetic image is drawn around the nearest neighbor's",
        low=0,
        high=1,
        slider_range=(0, 1),
    )
    divisor: float = knob(
        default=10.0,
        help="s: a pixel is drawn with the difference of both images there, divided by this, as standard deviation",
        low=0.1,
        high=1e6,
        slider_range=(1, 100),
        log=True,
    )
    patch: int = knob(
        default=1,
        help="squares of pixels of this side are exchanged together, with all their channels",
        low=1,
        slider_range=(1, 14),
        unit="pixels",
    )

    @property
    def defined_for(self) -> tuple[str, ...]:
        """Classification: the student learns softened probabilities."""
        return (CLASSIFICATION,)

    def teach(self, student: nn.Module, teacher: nn.Module, data: Dataset) -> nn.Module:
        """Train `student` in place on the transfer set and return it."""
        return super().teach(student, teacher, self.transfer_set(data))

    def transfer_set(self, data: Dataset) -> Dataset:
        """Return `data` with the images of the transfer set for training, all labeled 0, as they have no labels."""
        x = data.x_train
        if self.transfer == MUNGE:
            # Apart from the order of the first epoch and the initial weights, which `seed` itself draws.
            apart = seed_apart(self.seed, "munge")
            x = torch.cat([x, munge(x, self.copies, self.exchange, self.divisor, self.patch, apart)])
        elif self.transfer == DRAWN:
            x = torch.cat([x, self.drawn(data, self.copies * len(x)).to(x.dtype)])
        return replace(data, x_train=x, y_train=torch.zeros(len(x), dtype=torch.int64))

    def drawn(self, data: Dataset, count: int) -> Tensor:
        """Return further images of glyphs; `CompressionError` for other data."""
        try:
            return further_images(data, count)
        except CompressionError as error:
            raise CompressionError(f"{self!r}: {error}; choose transfer={MUNGE!r}") from error

    def loss_of(self, lesson: Lesson) -> Tensor:
        """Return the loss of the softened probabilities."""
        return soft_loss(lesson.logits, lesson.targets, self.temperature)
