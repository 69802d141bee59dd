"""Hard-concrete pruning: each weight has a stochastic gate, and the expected number of open gates is penalized."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from compedu.draws import Draws
from compedu.errors import CompressionError
from compedu.forms import Masked
from compedu.knobs import inherited, knob, method
from compedu.methods.layer_method import SelectiveMethod
from compedu.methods.layers import replace_layers
from compedu.methods.pruning.shared.masks import masked_layers, prunable
from compedu.methods.task import Task
from compedu.methods.training_method import TrainingMethod

# temperature, and the interval that gates are stretched to: section 4 of the paper
BETA = 2 / 3
GAMMA = -0.1
ZETA = 1.1
GATE_RATE = 300.0  # learning rate of gates relative to weights: a short training can close gates


def hard_concrete(log_alpha: Tensor, uniform: Tensor) -> Tensor:
    """Return gates in [0, 1], drawn by `uniform` numbers of (0, 1), all of the shape of `log_alpha`."""
    # A binary concrete variable, a sigmoid of logistic noise, differentiable in log_alpha. Stretched beyond [0, 1] and
    # clipped, it is exactly 0 or 1 with a probability above zero.
    s = torch.sigmoid((torch.log(uniform) - torch.log1p(-uniform) + log_alpha) / BETA)
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def open_probability(log_alpha: Tensor) -> Tensor:
    """Return the probability that a gate is not zero."""
    # The gate is above zero where s > -gamma / (zeta - gamma): the logistic distribution function in closed form.
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


def settled(log_alpha: Tensor) -> Tensor:
    """Return the deterministic gates in [0, 1] that are used after training."""
    return (torch.sigmoid(log_alpha) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


class Gated(Masked):
    """A masked layer in training, each weight of which has a gate with parameter `log_alpha`, of the weight's shape.

    Gates are sampled in each step, by `seed`.
    """

    def __init__(self, layer: Masked, start: float, seed: int):
        super().__init__(layer.geometry, layer.weight, layer.mask, layer.bias)
        log_alpha = math.log(start / (1 - start)) + BETA * math.log(-GAMMA / ZETA)
        self.log_alpha = nn.Parameter(torch.full_like(layer.weight, log_alpha))
        self.draws = Draws(seed)

    def dense(self) -> Tensor:
        """Return the gated weight: with sampled gates in training mode, with settled ones otherwise."""
        if not self.training:
            return super().dense() * settled(self.log_alpha)
        uniform = self.draws.uniform(self.log_alpha.shape, self.log_alpha.dtype)
        return super().dense() * hard_concrete(self.log_alpha, uniform)

    def expected(self) -> Tensor:
        """Return the expected number of weights that are left."""
        return open_probability(self.log_alpha)[self.mask].sum()

    def final(self) -> Masked:
        """Return the layer with its weights times their settled gates; weights of closed gates are masked."""
        gates = settled(self.log_alpha.detach())
        return Masked(self.geometry, self.latent * gates, self.mask & (gates > 0), self.bias)


@method
class HardConcretePruning(SelectiveMethod, TrainingMethod):
    r"""Train weights and a gate for each of them under a penalty on open gates: a smooth form of L0 regularization.

    $\min_{\theta,\alpha}\; L(\theta \odot z) + \lambda\,\frac{1}{N}\sum_j P(z_j > 0)$ with random gates
    $z = \mathrm{clip}(\sigma((\log u - \log(1 - u) + \log\alpha)/\beta)\,(\zeta - \gamma) + \gamma,\,0,\,1)$, so that
    $P(z > 0) = \sigma(\log\alpha - \beta\log(-\gamma/\zeta))$. The sparsity is a result, shown in the report, not a
    knob. $\lambda$ is the price of all $N$ weights together, for a network of any size.
    Stored: the kept weights, times their gates, at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; forms other than masked ones.
    Paper: Louizos, Welling, Kingma 2018, Learning sparse neural networks through L0 regularization, arXiv:1712.01312,
    section 2.
    """

    family: ClassVar[str] = "pruning"
    version: ClassVar[int] = 2  # gates have a learning rate of their own

    strength: float = knob(
        default=3.0,
        help="price of keeping all weights, in units of the loss: the higher, the more zeros come out",
        low=0,
        slider_range=(0.1, 100),
        log=True,
    )
    start: float = knob(
        default=0.99,
        help="probability that a gate is open before training",
        low=0,
        high=1,
        open="both",
        slider_range=(0.5, 0.99),
    )
    epochs: int = inherited(TrainingMethod, "epochs", default=10)

    def compress(self, task: Task) -> nn.Module:
        """Train the gates with the weights, then return ordinary masked layers."""
        masked = masked_layers(task, prunable(task))
        seed = self.seed * 1_000_003
        layers = {name: Gated(masked[name], self.start, seed + index * 2**32) for index, name in enumerate(masked)}
        count = sum(int(layer.mask.sum()) for layer in layers.values())

        def penalty(model: nn.Module) -> Tensor:
            return self.strength / count * sum(layer.expected() for layer in layers.values())

        gated = replace_layers(task.model, layers)  # gates of a frozen layer are frozen here
        gates = [f"{name}.log_alpha".removeprefix(".") for name in layers]
        gates = [name for name in gates if gated.get_parameter(name).requires_grad]
        model = self.train(gated, task.data, penalty=penalty, rates=dict.fromkeys(gates, GATE_RATE))
        final = {name: layer.final() for name, layer in layers.items()}
        for name, layer in final.items():
            self.refuse_closed(name, layer.mask)
        return replace_layers(model, final)

    def refuse_closed(self, name: str, mask: Tensor) -> None:
        """Raise `CompressionError` for a layer whose gates are all closed."""
        if not bool(mask.any()):
            raise CompressionError(
                f"{self!r} closed every gate of {name} (shape {tuple(mask.shape)}), and no signal passes it; lower the "
                f"strength, or exclude the layer with layers='-{name}'"
            )
