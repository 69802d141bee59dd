"""Logit matching: a student learns its teacher's logits themselves, as a regression, without labels."""

from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.forms import Factored, Geometry
from compedu.knobs import knob, method
from compedu.methods.distillation.shared.distillation import Distillation, Lesson
from compedu.methods.layers import compressible, replace_layer
from compedu.methods.low_rank.shared.rank import break_even, largest_saving_rank
from compedu.methods.task import Task, copied
from compedu.reproducible import seeded


def matching_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return half the squared distance of the logits (N, classes) of two networks, the mean over the images."""
    return 0.5 * (student - teacher).square().sum(1).mean()


def with_bottleneck(layer: nn.Linear, rank: int, seed: int) -> Factored:
    """Return two new linear layers in sequence, `rank` channels between them, in place of `layer`, drawn by `seed`."""
    with seeded(seed):
        first = nn.Linear(layer.in_features, rank, bias=False)
        second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
    return Factored(Geometry.of(layer), *(factor.to(layer.weight.dtype) for factor in (first, second)))


@method
class LogitMatching(Distillation):
    r"""Train a small network, the student, on the logits of the given network, the teacher, as a regression.

    $L = \frac{1}{2} \| g(x) - z \|_2^2$ of the student's logits $g$ and the teacher's $z$, the mean over the images;
    labels do not count. No softmax is taken, so that it is defined for outputs of any kind; soft targets come to the
    same gradient, up to a factor, at high temperatures. With a `bottleneck`, two linear layers $y = U V x + b$ stand in
    place of the student's first linear layer, which the paper does to train a wide layer faster; they are drawn anew,
    in a student that was given too.
    Stored: the student's layers, dense, at full precision; of a layer with a bottleneck its two factors.
    Skips: nothing; a student without a linear layer, or a bottleneck that saves nothing, is refused by name.
    Paper: Ba, Caruana 2014, Do deep nets really need to be deep?, arXiv:1312.6184, section 2.
    """

    bottleneck: int = knob(
        default=0,
        help="channels between two linear layers in place of the student's first one; 0 leaves it whole; the logits "
        "are matched in any network",
        low=0,
        slider_range=(0, 64),
        unit="channels",
    )

    def untrained(self, task: Task) -> nn.Module:
        """Return the student before training, with its bottleneck if it has one."""
        student = super().untrained(task)
        if self.bottleneck == 0:
            return student
        linear = {name: layer for name, layer in compressible(student)[0].items() if type(layer) is nn.Linear}
        if not linear:
            raise CompressionError(f"{self!r}: the student has no linear layer for a bottleneck; use bottleneck=0")
        name, layer = next(iter(linear.items()))
        most = largest_saving_rank(break_even(layer.out_features, layer.in_features))
        if self.bottleneck > most:
            raise CompressionError(
                f"{self!r}: {name} of the student, {layer.out_features} x {layer.in_features}, has fewer weights than "
                f"its two factors; choose a bottleneck of at most {most}, or 0 for none"
            )
        task.source = copied(student)  # the network whose dense weights the factors must stand for
        return replace_layer(student, name, with_bottleneck(layer, self.bottleneck, self.seed))

    def loss_of(self, lesson: Lesson) -> Tensor:
        """Return half the squared distance of the logits."""
        return matching_loss(lesson.logits, lesson.targets)
