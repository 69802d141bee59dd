"""Hints: a student learns the maps inside its teacher through a regressor, beside the labels."""

import torch.nn.functional as F
from torch import Tensor, nn

from compedu.knobs import knob, method
from compedu.methods.distillation.shared.compared import Pairs
from compedu.methods.distillation.shared.distillation import Distillation, Lesson
from compedu.methods.distillation.shared.features import regressor
from compedu.training import Companion


@method
class Hints(Distillation):
    r"""Train a student on the labels and on the maps of one layer of its teacher, which a regressor makes of its own.

    $L = \mathrm{CE}(y, p) + \lambda\,\mathrm{mean}\,(r(h_s) - h_t)^2$ with a regressor $r$ that trains beside.
    Stored: the student's layers; nothing of the teacher or the regressor.
    Skips: nothing.
    Paper: none; made for a test, after Romero et al. 2015, FitNets, arXiv:1412.6550, section 2.2.
    """

    strength: float = knob(
        default=1.0, help="weight of the hint beside the labels", low=0, high=1e6, slider_range=(0.1, 10), log=True
    )
    hint: str = knob(default="last", help="layer of the teacher that gives the hint")
    guided: str = knob(default="last", help="layer of the student that is guided")

    def pairs_of(self, student: nn.Module, teacher: nn.Module, image: Tensor) -> Pairs:
        """The guided layer and the hint."""
        return ((self.guided, self.hint),)

    def regressor(self, student: Tensor, teacher: Tensor, seed: int) -> Companion:
        """Return a layer from the guided maps to those of the hint."""
        return Companion(regressor(student, teacher, seed), lr=1e-2, weight_decay=0.0)

    def loss_of(self, lesson: Lesson) -> Tensor:
        """Return the loss of the labels and that of the hint."""
        ((guided, hint),) = lesson.features
        return F.cross_entropy(lesson.logits, lesson.labels) + self.strength * F.mse_loss(guided, hint)
