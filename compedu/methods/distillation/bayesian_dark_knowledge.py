"""Bayesian dark knowledge: a student learns the mean answer of teachers that are drawn from the posterior."""

import torch.nn.functional as F
from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.datasets.objectives import CLASSIFICATION
from compedu.errors import CompressionError
from compedu.knobs import knob, method
from compedu.methods.distillation.shared.distillation import Distillation, Lesson
from compedu.methods.distillation.shared.features import at_least_single
from compedu.methods.distillation.soft_targets import soft_loss
from compedu.methods.task import copied
from compedu.training import SGLD, Companion, Loss


class Sampled(nn.Module):
    """A network whose weights are sampled, in evaluation mode also while it trains.

    So the likelihood of an image depends on the weights alone: not on the other images of its batch, as with the
    statistics of batch norms in training, and not on the draws of dropout.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.eval()

    def train(self, mode: bool = True) -> "Sampled":
        """Stay in evaluation mode, whatever the `mode`."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of images `x` at the present weights."""
        return self.network(x)


def langevin(module: nn.Module, step_size: float, precision: float, images: int) -> Companion:
    """Return `module` as a companion whose weights walk through their posterior, for `fit` on so many `images`.

    Each step adds `step_size` / 2 times the gradient of the log posterior, estimated from a batch, and noise of
    variance `step_size` (Welling, Teh 2011, Bayesian learning via stochastic gradient Langevin dynamics, ICML, equation
    4). The prior of each weight is normal around 0 with this `precision`, the inverse of the variance; the loss must
    hold the mean of -log likelihood over the batch.
    """
    # The log posterior is -N times the mean loss with weight decay: its gradient takes N into the learning rate.
    return Companion(module, lr=0.5 * step_size * images, weight_decay=precision / images, optimizer=SGLD())


@method
class BayesianDarkKnowledge(Distillation):
    r"""Train a student on the predictive mean of its teacher: on answers at weights that are drawn from the posterior.

    $\theta \leftarrow \theta + \frac{\epsilon}{2} \big( \nabla \log p(\theta) + \frac{N}{n} \sum_i \nabla \log
    p(y_i | x_i, \theta) \big) + \xi$ with $\xi \sim N(0, \epsilon I)$ moves a copy of the teacher in each step, from
    the weights that were given; the student learns with $L = \mathrm{KL}(p(\cdot | x, \theta) \,\|\, p_S)$, whose mean
    over the draws is smallest at $p_S = E_\theta\, p(\cdot | x, \theta)$. $\epsilon$ is `step_size`, which rises and
    falls with the student's learning rate. Half of it multiplies the gradient of the sum over all $N$ images: on the
    mean loss it is a learning rate of $\epsilon N / 2$, so that with twice as many images half the step size moves the
    weights as far. $p(\theta)$ is normal with `precision`. Both learn from the same batch; the paper draws inputs
    around the training images for the student, here `shift` and `mirror` vary them for both. The loss that is shown is
    the student's plus the teacher's mean -log likelihood. Defined for classification with logits.
    Stored: the student's layers, dense, at full precision; nothing of the teacher or its draws.
    Skips: nothing of the student; weights of the teacher that do not train, such as frozen ones, are not drawn, batch
    norms keep their statistics, and a teacher without any weight that trains is refused.
    Paper: Korattikara, Rathod, Murphy, Welling 2015, Bayesian dark knowledge, arXiv:1506.04416.
    """

    step_size: float = knob(
        default=5e-6,
        help="epsilon, variance of the noise that each step adds to the teacher's weights; on the mean loss, a "
        "learning rate of epsilon / 2 for each training image",
        low=1e-12,
        high=1,
        slider_range=(1e-7, 1e-4),
        log=True,
    )
    precision: float = knob(
        default=1.0,
        help="inverse variance of the prior of each weight of the teacher, normal around 0",
        low=0,
        high=1e6,
        slider_range=(0.1, 1000),
        log=True,
    )

    @property
    def defined_for(self) -> tuple[str, ...]:
        """Classification: the draws are of a posterior of probabilities."""
        return (CLASSIFICATION,)

    def teach(self, student: nn.Module, teacher: nn.Module, data: Dataset) -> nn.Module:
        """Train `student` in place beside a copy of `teacher` that is sampled, and return it."""
        if not any(parameter.requires_grad for parameter in teacher.parameters()):
            raise CompressionError(
                f"{self!r} found nothing to sample: no parameter of its teacher, {type(teacher).__name__}, is "
                "trainable; use requires_grad_(True), or SoftTargetDistillation for a teacher of fixed weights"
            )
        sampled = Sampled(copied(teacher))
        companion = langevin(sampled, self.step_size, self.precision, len(data.x_train))
        loss = self.loss_beside(sampled)
        return self.train_unchecked(student, data, loss=loss, companions={"teacher": companion})

    def loss_beside(self, sampled: Sampled) -> Loss:
        """Return the loss of a student plus that of the sampled teacher; each has a gradient for its own weights."""

        def of_batch(student: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
            targets = at_least_single(sampled(x))
            lesson = Lesson(at_least_single(self.answers(student, x)), targets.detach(), labels)
            return self.loss_of(lesson) + F.cross_entropy(targets, labels)

        return of_batch

    def loss_of(self, lesson: Lesson) -> Tensor:
        """Return the divergence of the student's probabilities from those of the present draw."""
        return soft_loss(lesson.logits, lesson.targets, temperature=1.0)
