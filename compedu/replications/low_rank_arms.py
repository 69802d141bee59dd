"""The networks beside the survey's table of low rank: how each arm is made, and at which rate it is fine-tuned."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from compedu.errors import CompressionError
from compedu.methods import CPDecomposition, FineTune, LowRankTraining, SmallDense, TruncatedSVD
from compedu.methods.method import Method
from compedu.networks.recipes import RECIPES
from compedu.replications.stored import stored_reports
from compedu.shipped import shipped_sweep

SEEDS = {"glyphs": 3, "cifar10": 1}
BUT_ENDS = "-first, -last"  # the layers that read the image and write the classes stay dense
POINTWISE = "*one.conv, *three.0.conv, *five.0.conv, *pooled.1.conv"  # of Inception: for a matrix, CP is the SVD
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # of fine-tuning, tried on validation images
TUNED_SPLIT = "validation"
TUNED_IMAGES = 8000  # training images on which rates are tried, at most
TUNING_EPOCHS = 4

DENSE = "dense"
NORMALIZED = "BN low-rank"
SINGULAR = 'SVD low-rank (the survey\'s "CP")'
POLYADIC = "CP low-rank"
NARROW = "narrow dense"
ARMS = (NORMALIZED, SINGULAR, POLYADIC, NARROW)
DECOMPOSED = (SINGULAR, POLYADIC)


class Row(NamedTuple):
    """A row of the survey's table: top-5 accuracy in percent, speed-up and compression rate in times."""

    accuracy: float
    speed_up: float
    rate: float


@dataclass(frozen=True)
class Compared:
    """A network, what the survey says of a relative, and the rank, decomposition and width that make it as small.

    `compression_rate` is how many times fewer parameters all arms have, about as in the survey; `rank` that of the
    vertical and horizontal layers, trained anew or computed.
    """

    network: str
    relative: str
    compression_rate: float
    survey: dict[str, Row]
    rank: float
    polyadic: Method
    width: float

    def path(self, data: str) -> Path:
        """Return the file of the runs, such as data/sweeps/glyphs/vgg/low_rank_networks.jsonl."""
        return shipped_sweep(data, self.network, "low_rank_networks")

    def rates_path(self, data: str) -> Path:
        """Return the file of the runs with each rate of fine-tuning."""
        return shipped_sweep(data, self.network, "low_rank_rates")

    def method(self, arm: str, data: str, seed: int) -> Method:
        """Return how an arm is made; `CompressionError` where the rate of its fine-tuning has not been tried yet."""
        if arm in DECOMPOSED:
            return self.tuned(arm, data, seed, self.best_rate(arm, data))
        recipe = RECIPES[self.network, data]
        as_long = self.images(data, seed) | {"epochs": recipe.epochs, "lr": recipe.lr}
        if arm == NORMALIZED:
            return LowRankTraining(rank=self.rank, layers=BUT_ENDS, **as_long)
        return SmallDense(width=self.width, **as_long)

    def tuned(self, arm: str, data: str, seed: int, rate: float) -> Method:
        """Return how an arm is decomposed and fine-tuned with a learning rate."""
        decomposition = self.polyadic if arm == POLYADIC else TruncatedSVD(rank=self.rank, layers=BUT_ENDS)
        return decomposition | FineTune(epochs=TUNING_EPOCHS, lr=rate, **self.images(data, seed))

    def images(self, data: str, seed: int) -> dict[str, Any]:
        """Return the knobs that every training shares: how the dense network saw its images, and the seed."""
        recipe = RECIPES[self.network, data]
        drawn = {"batch": recipe.batch, "shift": recipe.shift, "mirror": recipe.mirror}
        return drawn | {"weight_decay": recipe.weight_decay, "seed": seed}

    def at_rates(self, arm: str, data: str) -> list[Method]:
        """Return how an arm that is fine-tuned is made with each of `RATES`."""
        return [self.tuned(arm, data, 0, rate) for rate in RATES]

    def losses(self, arm: str, data: str) -> list[float]:
        """Return the stored losses on validation images, nats, in the order of `RATES`."""
        path = self.rates_path(data)
        runs = stored_reports(path, self.at_rates(arm, data), TUNED_SPLIT) if path.exists() else ()
        return [run.loss for run in runs]

    def best_rate(self, arm: str, data: str) -> float:
        """Return the one of `RATES` with the lowest loss; `CompressionError` where one of them was not tried."""
        losses = self.losses(arm, data)
        if len(losses) < len(RATES):
            raise CompressionError(
                f"{self.network} on {data}, {arm}: not every rate of fine-tuning was tried; run `python -m "
                f"compedu.replications.low_rank_networks {data} --rates` first"
            )
        return min(zip(losses, RATES, strict=True))[1]

    def runs(self, data: str) -> dict[str, list[Method]]:
        """Return the methods by arm, one for each seed."""
        return {arm: [self.method(arm, data, seed) for seed in range(SEEDS[data])] for arm in ARMS}


# Cheng, Wang, Zhou, Zhang 2018, Model compression and acceleration for deep neural networks, the table of low rank on
# ILSVRC-2012. Its AlexNet has no relative here, and of residual networks it has none. Ranks and widths were found by
# bisection, so that every arm has as many parameters as the dense network over `compression_rate`.
COMPARED = (
    Compared(
        "vgg", "VGG-16", 2.75,
        {DENSE: Row(90.60, 1, 1), NORMALIZED: Row(90.47, 1.53, 2.72), SINGULAR: Row(90.31, 2.05, 2.75)},
        rank=0.195, polyadic=CPDecomposition(rank=0.19, layers=BUT_ENDS), width=0.6,
    ),
    Compared(
        "inception", "GoogLeNet", 2.8,
        {DENSE: Row(92.21, 1, 1), NORMALIZED: Row(91.88, 1.08, 2.79), SINGULAR: Row(91.79, 1.20, 2.84)},
        rank=0.215, width=0.593,
        polyadic=TruncatedSVD(rank=0.26, layers=POINTWISE) | CPDecomposition(rank=0.19, layers=BUT_ENDS),
    ),
    Compared(
        "resnet", "", 2.8, {},
        rank=0.179, polyadic=CPDecomposition(rank=0.164, layers=BUT_ENDS), width=0.593,
    ),
)  # fmt: skip
