"""Tensor decompositions of trained and random kernels: error and time against those of tensorly at equal ranks."""

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorly
import torch
from rounds import Rounds, again, timed
from table import DATA, Estimate, Section, Target, options, write
from tensorly.decomposition import parafac, partial_tucker
from torch import Tensor

import compedu as ce
from compedu.methods.low_rank.shared.polyadic import decomposed, recomposed
from compedu.methods.low_rank.shared.tucker_2 import tucker_2

PEER = "tensorly"
OURS = "compedu"
RANDOM = "random"
SAID = """
The weight (outputs, inputs, height, width) of convolutions of `{network}`, trained on {data}, and a random one. *CP*:
the sum of as many products of four vectors as the rank says; *Tucker*: two ranks, of outputs and inputs. Both
libraries compute in float64 on one thread of torch, alternate until their own rules end it (tensorly: at most 100
iterations, from singular vectors), and run in the same rounds, in random order, tensorly twice: the A/A arm. *Error* is
the norm of what is left over, divided by that of the weight; *error / its error* below 1 is closer than tensorly.
Timed is the decomposition alone; the weight is rebuilt from it, for the error, apart.
"""
HEAD = ("decomposition", "kernel", "rank", "error", "error / its error", "ms", "times tensorly's speed", "A/A")


@dataclass(frozen=True)
class Settings:
    """Layers of the network, ranks of CP, shares of the channels for Tucker, a random kernel, seconds for each row."""

    network: str = "vgg"
    data: str = DATA
    layers: tuple[str, ...] = ("features.conv2_2", "features.conv3_2", "features.conv4_2")
    ranks: tuple[int, ...] = (8, 32, 64)
    shares: tuple[float, ...] = (0.25, 0.5)
    random: tuple[int, ...] = (224, 224, 3, 3)
    budget_s: float = 10.0


QUICK = Settings("lenet5", "digits", ("conv1",), (3,), (0.25,), (20, 1, 5, 5), budget_s=0.0)


@dataclass(frozen=True, eq=False)
class Pair:
    """One decomposition by both libraries: what each calls, and how the weight is rebuilt from what it returns."""

    kind: str
    of: str
    weight: Tensor
    rank: str
    calls: dict[str, Callable[[], Any]]
    rebuilt: dict[str, Callable[[Any], Tensor]]


def pairs(name: str, weight: Tensor, settings: Settings) -> list[Pair]:
    """Return all decompositions of a kernel that the settings ask for."""
    made = [Pair("CP", name, weight, str(rank), by_rank(weight, rank), CP_REBUILT) for rank in settings.ranks]
    out, inside = weight.shape[:2]
    both = [(max(1, round(share * out)), max(1, round(share * inside))) for share in settings.shares]
    return [
        *made,
        *(Pair("Tucker", name, weight, f"{a}, {b}", by_ranks(weight, a, b), TUCKER_REBUILT) for a, b in both),
    ]


def by_rank(weight: Tensor, rank: int) -> dict[str, Callable[[], Any]]:
    """Return both canonical polyadic decompositions."""
    return {
        OURS: lambda: decomposed(weight[None], rank),
        PEER: lambda: parafac(weight, rank, n_iter_max=100, init="svd", random_state=0),
    }


def by_ranks(weight: Tensor, outputs: int, inputs: int) -> dict[str, Callable[[], Any]]:
    """Return both Tucker decompositions along outputs and inputs."""
    return {
        OURS: lambda: tucker_2(weight, (inputs, outputs)),
        PEER: lambda: partial_tucker(weight, rank=[outputs, inputs], modes=[0, 1])[0],
    }


def from_tucker(u: Tensor, core: Tensor, v: Tensor) -> Tensor:
    """Return the weight (outputs, inputs, height, width) that a Tucker decomposition means."""
    return torch.einsum("na,cb,abhw->nchw", u, v, core)


CP_REBUILT = {OURS: lambda factors: recomposed(factors)[0], PEER: tensorly.cp_to_tensor}
TUCKER_REBUILT = {
    OURS: lambda found: from_tucker(found[2], found[1], found[0]),
    PEER: lambda found: from_tucker(found[1][0], found[0], found[1][1]),
}


@dataclass(frozen=True, eq=False)
class Compared:
    """What both libraries left over of a weight, and how long they took in the same rounds."""

    pair: Pair
    errors: dict[str, float]
    rounds: Rounds

    @classmethod
    def of(cls, pair: Pair, budget_s: float) -> "Compared":
        """Return both errors, and the times of rounds that together take about that long."""
        left = {name: pair.weight - pair.rebuilt[name](call()) for name, call in pair.calls.items()}
        errors = {name: float(over.norm() / pair.weight.norm()) for name, over in left.items()}
        return cls(pair, errors, timed(pair.calls | {again(PEER): pair.calls[PEER]}, budget_s))

    @property
    def ratio(self) -> float:
        """Our error over the peer's."""
        return self.errors[OURS] / self.errors[PEER]

    @property
    def speed(self) -> Estimate:
        """How many times faster ours is."""
        return Estimate.speed_up(self.rounds.latency(OURS, PEER))

    @property
    def seconds(self) -> Estimate:
        """The time that ours takes."""
        return Estimate.of(self.rounds.seconds[OURS])

    @property
    def row(self) -> tuple[str, ...]:
        """A row of the table."""
        shape = "x".join(map(str, self.pair.weight.shape))
        accuracy = f"{self.errors[OURS]:.4f}", f"{self.ratio:.4f}"
        a_a = Estimate.a_a(self.rounds.latency(OURS, PEER)).text(2, "x")
        times = f"{1000 * self.seconds.median:,.0f}", self.speed.text(2, "x"), a_a
        return (self.pair.kind, f"{self.pair.of}, {shape}", self.pair.rank, *accuracy, *times)


def targets(found: Sequence[Compared], settings: Settings) -> tuple[Target, ...]:
    """Return what is promised: of all rows, and of the random kernel at the middle rank."""
    worst = max(one.ratio for one in found)
    slowest = min((one.speed for one in found), key=lambda speed: speed.median)
    rank = settings.ranks[len(settings.ranks) // 2]
    shape = "x".join(map(str, settings.random))
    (large,) = [one for one in found if one.pair.of == RANDOM and one.pair.rank == str(rank)]
    return (
        Target("largest error, as a multiple of tensorly's", 1.01, Estimate(worst, worst, worst), "", 4),
        Target("least speed against tensorly", 1.0, slowest, "x", 2, at_least=True),
        Target(f"CP of {shape} at rank {rank}", 3, large.seconds, " s", 2),
    )


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section."""
    settings, path = options(__doc__, Settings(), QUICK, given)
    tensorly.set_backend("pytorch")
    model = ce.trained(settings.network, settings.data)
    kernels = {name: model.get_submodule(name).weight.detach().double() for name in settings.layers}
    kernels[RANDOM] = torch.randn(settings.random, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of tensorly, where an axis has fewer vectors than the rank
        found = []
        for pair in [pair for name, weight in kernels.items() for pair in pairs(name, weight, settings)]:
            found.append(Compared.of(pair, settings.budget_s))
            print(*found[-1].row, sep=" | ", flush=True)  # the whole takes half an hour
    tensorly.set_backend("numpy")
    said = SAID.format(network=settings.network, data=settings.data)
    write(
        Section(
            "decomposition", "Tensor decompositions", said, HEAD, [one.row for one in found], targets(found, settings)
        ),
        path,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
