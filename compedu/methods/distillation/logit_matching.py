"""Logit matching: a student learns its teacher's logits themselves, as a regression, without labels."""

from typing import ClassVar

from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.forms import Block, Factored, Form, Geometry
from compedu.knobs import knob, method
from compedu.methods.distillation.shared.distillation import Distillation, Lesson
from compedu.methods.distillation.shared.features import layers_in_order
from compedu.methods.layers import compressible, replace_layer
from compedu.methods.low_rank.shared.rank import break_even, largest_saving_rank
from compedu.methods.task import Task, copied
from compedu.reproducible import seed_apart, seeded


def matching_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return half the squared distance of the logits (N, classes) of two networks, the mean over the images."""
    return 0.5 * (student - teacher).square().sum(1).mean()


def with_bottleneck(layer: nn.Linear, rank: int, seed: int) -> Factored:
    """Return two new linear layers in sequence, `rank` channels between them, in place of `layer`, drawn by `seed`."""
    with seeded(seed):
        first = nn.Linear(layer.in_features, rank, bias=False)
        second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
    return Factored(Geometry.of(layer), *(factor.to(layer.weight.dtype) for factor in (first, second)))


def _is_linear(layer: nn.Module) -> bool:
    """Tell whether `layer` is a linear layer, also one that is stored in a compressed way or made of several."""
    if isinstance(layer, (Form, Block)):
        return layer.geometry.kind == "linear"
    return isinstance(layer, nn.Linear)


@method
class LogitMatching(Distillation):
    r"""Train a small network, the student, on the logits of the given network, the teacher, as a regression.

    $L = \frac{1}{2} \| g(x) - z \|_2^2$ of the student's logits $g$ and the teacher's $z$, the mean over the images;
    labels do not count. No softmax is taken, so that it is defined for outputs of any kind: those of a regression are
    divided by their tolerances first, those of an embedding scaled to length 1. At high temperatures, soft
    targets have the same gradient up to a factor, if the logits of both networks have mean 0 for each image; otherwise
    they match the differences from these means alone. With a `bottleneck`, two linear layers $y = U V x + b$ stand in
    place of the first linear layer that runs in the student, which the paper does to train a wide layer faster; they
    are drawn anew, in a student that was given too.
    Stored: the student's layers, dense, at full precision; of a layer with a bottleneck its two factors.
    Skips: nothing; a student without a linear layer, one whose first linear layer cannot be replaced, and a bottleneck
    that saves nothing are refused by name.
    Paper: Ba, Caruana 2014, Do deep nets really need to be deep?, arXiv:1312.6184, section 2.
    """

    uses_labels: ClassVar[bool] = False

    bottleneck: int = knob(
        default=0,
        help="channels between two linear layers in place of the first one that runs in the student; 0 leaves it "
        "whole; the logits are matched in any network",
        low=0,
        slider_range=(0, 64),
        unit="channels",
    )

    def untrained(self, task: Task) -> nn.Module:
        """Return the student before training, with its bottleneck if it has one."""
        student = super().untrained(task)
        if self.bottleneck == 0:
            return student
        name, layer = self.first_linear(student, task.data.example)
        most = largest_saving_rank(break_even(layer.out_features, layer.in_features))
        if self.bottleneck > most:
            raise CompressionError(
                f"{self!r}: {name} of the student, {layer.out_features} x {layer.in_features}, has fewer weights than "
                f"its two factors; choose a bottleneck of at most {most}, or 0 for none"
            )
        task.source = copied(student)  # the network whose dense weights the factors must stand for
        return replace_layer(
            student, name, with_bottleneck(layer, self.bottleneck, seed_apart(self.seed, "bottleneck"))
        )

    def first_linear(self, student: nn.Module, image: Tensor) -> tuple[str, nn.Linear]:
        """Return the first linear layer that runs in `student` for `image` (1, C, H, W), and its name.

        Raises `CompressionError` where there is none, and for one that two linear layers cannot replace.
        """
        order = layers_in_order(student, image)
        linear = [name for name in order if _is_linear(student.get_submodule(name))]
        if not linear:
            raise CompressionError(f"{self!r}: the student has no linear layer for a bottleneck; use bottleneck=0")
        name = linear[0]
        layer = student.get_submodule(name)
        layers, others = compressible(student)
        if name not in layers or type(layer) is not nn.Linear:
            reason = others.get(name, f"is already compressed ({type(layer).__name__})")
            raise CompressionError(
                f"{self!r}: the student's first linear layer cannot have a bottleneck ({name}: {reason}); use "
                "bottleneck=0, or another student"
            )
        return name, layer

    def loss_of(self, lesson: Lesson) -> Tensor:
        """Return half the squared distance of the logits, or of the outputs as the objective compares them."""
        return matching_loss(*map(lesson.objective.comparable, (lesson.logits, lesson.targets)))
