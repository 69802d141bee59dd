"""FitNets: a student learns a hint from inside its teacher first, then the teacher's probabilities."""

from typing import Any, ClassVar

from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.knobs import knob, method
from compedu.methods.distillation.shared.distillation import Lesson
from compedu.methods.distillation.shared.features import regressor
from compedu.methods.distillation.soft_targets import SoftTargetDistillation
from compedu.reproducible import seed_apart
from compedu.training import Companion, counted


def hint_loss(guided: Tensor, hint: Tensor) -> Tensor:
    """Return half the squared difference of two features (N, ...), the mean over images and elements."""
    return 0.5 * (guided - hint).square().mean()


@method
class FitNets(SoftTargetDistillation):
    r"""Train a student in two stages: up to its guided layer on a hint of its teacher, then as a whole on soft targets.

    Stage 1: $L = \frac{1}{2} \| r(h_s) - h_t \|_2^2$ of guided layer $h_s$ and hint $h_t$ with a regressor $r$, a layer
    that trains beside the student and is then discarded; here the mean over images and elements, which for a given
    layer is a factor. Weights behind the guided layer do not move; statistics of batch norms behind it do. Stage 2: the
    loss of `SoftTargetDistillation`, at a constant weight, where the paper lets the teacher's share fall. The learning
    rate rises and falls in each stage, and each draws the order of the images anew. The hint is defined for any two
    layers that a convolution or a linear layer joins, the soft loss for classification with logits.
    Stored: the student's layers, dense, at full precision; nothing of the teacher or the regressor.
    Skips: nothing; layers whose outputs no regressor joins are refused by name.
    Paper: Romero, Ballas, Kahou, Chassang, Gatta, Bengio 2015, FitNets: hints for thin deep nets, arXiv:1412.6550,
    sections 2.2 and 2.3.
    """

    alone: ClassVar[dict[str, Any]] = {"hint_share": 0.0, "weight": 0.0}
    # Layers "flatten" are in convolutional networks of any kind; two epochs, as one cannot be divided.
    tried_with: ClassVar[dict[str, Any]] = {"hint": "flatten", "guided": "flatten", "epochs": 2, "hint_share": 0.5}

    hint_share: float = knob(
        default=0.25,
        help="share of the epochs that stage 1 gets, rounded to whole ones, halves to even ones; without hints 0",
        low=0,
        high=1,
        open="high",
        slider_range=(0, 0.9),
    )
    hint: str = knob(
        default="middle",
        help="layer of the teacher that gives the hint, by name, or first, middle, last of the layers with weights, in "
        "the order in which they run; for any network",
    )
    guided: str = knob(
        default="middle",
        help="layer of the student that learns the hint; its maps must be no smaller than those of the hint",
    )

    def regressor(self, student: Tensor, teacher: Tensor, seed: int) -> Companion:
        """Return a layer from the features of the guided layer to those of the hint."""
        return Companion(regressor(student, teacher, seed))

    def teach(self, student: nn.Module, teacher: nn.Module, data: Dataset) -> nn.Module:
        """Train `student` in place in two stages and return it; a listener sees one long training."""
        first = self.epochs_of_hints
        per_epoch = self.recipe.steps_per_epoch(len(data.x_train))
        if first:
            apart = seed_apart(self.seed, "hints")
            with counted(0, self.epochs * per_epoch):
                self.stage(student, teacher, data, ((self.guided, self.hint),), first, seed=apart)
        with counted(first * per_epoch, self.epochs * per_epoch):
            return self.stage(student, teacher, data, (), self.epochs - first)

    @property
    def epochs_of_hints(self) -> int:
        """The epochs of stage 1; all others are those of stage 2.

        Raises `CompressionError` where one of the stages would get none, unless hints have no share.
        """
        first = round(self.hint_share * self.epochs)
        if self.hint_share and not 0 < first < self.epochs:
            raise CompressionError(
                f"{self!r}: hint_share={self.hint_share:g} of {self.epochs} epoch(s), rounded to {first}, leaves none "
                f"for stage {1 if first == 0 else 2}; choose more epochs or another share, or hint_share=0 for no hints"
            )
        return first

    def loss_of(self, lesson: Lesson) -> Tensor:
        """Return the loss of the hint in stage 1, which alone compares features; in stage 2 that of soft targets."""
        if lesson.features:
            ((guided, hint),) = lesson.features
            return hint_loss(guided, hint)
        return super().loss_of(lesson)
