"""What claims on low rank start from: a dense network of each seed."""

from dataclasses import dataclass

from torch import nn

from compedu.claims.survey.shared.networks import glyphs, same_dense_network
from compedu.datasets.dataset import Dataset

# tuning trials of budget="sensitivity"
MEASURED = "13 evaluations of each layer alone, on 512 training images, and lines between them"


@dataclass(frozen=True)
class ToBeFactored:
    """A network trained on glyphs for `epochs` over `images`, which all arms factor."""

    network: str
    images: int
    epochs: int

    @property
    def data(self) -> Dataset:
        """The images."""
        return glyphs(self.images)

    def dense(self, seed: int) -> nn.Module:
        """Return the dense network of this seed, which all arms start from."""
        return same_dense_network(self.network, self.images, self.epochs, seed)


def at_fraction(network: str, fraction: float) -> str:
    """Return how a network at this fraction of its full ranks is called.

    >>> at_fraction("lenet5", 0.05)
    'lenet5, 5% of the full rank'
    """
    return f"{network}, {fraction:.0%} of the full rank"
