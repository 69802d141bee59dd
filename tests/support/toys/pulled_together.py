"""Pulled together: weights train under a mixture of Gaussians that trains beside them, then join its centers."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from compedu.forms import Geometry, Masked
from compedu.knobs import inherited, knob, method
from compedu.methods.replace_then_train import ReplaceThenTrain
from compedu.methods.task import Task
from compedu.training import Companion


class Mixture(nn.Module):
    """A mixture of `count` Gaussians whose centers begin evenly over `weights`, the first at zero and kept there."""

    def __init__(self, weights: Tensor, count: int):
        super().__init__()
        ends = weights.detach().float().abs().max() * torch.tensor([-1.0, 1.0])
        self.centers = nn.Parameter(torch.linspace(*ends.tolist(), count - 1))
        self.log_widths = nn.Parameter(torch.full((count,), float(torch.log(ends[1] / count + 1e-12))))
        self.log_shares = nn.Parameter(torch.zeros(count))

    def all_centers(self) -> Tensor:
        """Return zero and the centers, (count,)."""
        return torch.cat([self.centers.new_zeros(1), self.centers])

    def log_densities(self, weights: Tensor) -> Tensor:
        """Return log(share * density) of each Gaussian at each of `weights` (n,), but for a constant, (n, count)."""
        distances = (weights[:, None] - self.all_centers()) / self.log_widths.exp()
        return torch.log_softmax(self.log_shares, 0) - self.log_widths - distances.square() / 2

    @torch.no_grad()
    def joined(self, weights: Tensor) -> Tensor:
        """Return each of `weights`, of any shape, as the center that is most likely its own."""
        nearest = self.log_densities(weights.reshape(-1)).argmax(1)
        return self.all_centers()[nearest].view(weights.shape).to(weights.dtype)


@method
class PulledTogether(ReplaceThenTrain):
    r"""Train weights under a mixture of Gaussians that trains with them; then each weight becomes its center.

    $L - \frac{\lambda}{N} \sum_j \log \sum_k \pi_k\,\mathcal{N}(w_j;\,\mu_k, \sigma_k)$ with $\mu_0 = 0$.
    Stored: the weights that are not zero, at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; forms of any kind.
    Paper: none; made for a test, after Nowlan, Hinton 1992, Simplifying neural networks by soft weight-sharing.
    """

    family: ClassVar[str] = "quantization"

    strength: float = knob(
        default=0.01, help="weight of the mixture beside the loss", low=0, high=1e6, slider_range=(1e-3, 1.0), log=True
    )
    centers: int = knob(
        default=9, help="number of Gaussians of the mixture, one of them at zero", low=3, high=256, slider_range=(3, 33)
    )
    epochs: int = inherited(
        ReplaceThenTrain, "epochs", low=1, slider_range=(1, 20), help="passes over the training images"
    )

    def compress_layer(self, name: str, layer: nn.Module) -> Masked:
        """Return the layer with all its weights."""
        return Masked(Geometry.of(layer), layer.weight, torch.ones_like(layer.weight, dtype=torch.bool), layer.bias)

    def train_replaced(self, task: Task, model: nn.Module) -> nn.Module:
        """Train with the mixture beside the network, at ten times its learning rate, and join the weights."""
        layers = [module for module in model.modules() if isinstance(module, Masked)]
        mixture = Mixture(torch.cat([layer.latent.reshape(-1) for layer in layers]), self.centers)

        def penalty(model: nn.Module) -> Tensor:
            weights = torch.cat([layer.dense().reshape(-1) for layer in layers])
            return -self.strength * torch.logsumexp(mixture.log_densities(weights), 1).mean()

        beside = Companion(mixture, lr=10 * self.lr, weight_decay=0.0)
        self.train(model, task.data, penalty=penalty, companions={"mixture": beside})
        with torch.no_grad():
            for layer in layers:
                layer.latent.copy_(mixture.joined(layer.latent))
                layer.mask.copy_(layer.latent != 0)
        return model
