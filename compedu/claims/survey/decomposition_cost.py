"""Claim D7, its first half: a decomposition is computationally expensive. Its time beside that of training."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compedu.claims.experiments import Experiment
from compedu.claims.judgment import LogicalForm, Part, Role
from compedu.claims.store import Run, by_seed
from compedu.claims.survey.shared.clock import either_way
from compedu.claims.survey.shared.decompositions import CP, DECOMPOSITIONS, SVD, TUCKER, quarter
from compedu.claims.survey.shared.networks import glyphs
from compedu.claims.trial import Arm, Plan
from compedu.claims.verdict import Rule, Verdict
from compedu.forms import Geometry
from compedu.methods.low_rank.shared.factorization import Factorization
from compedu.metrics.latency import ratios, time_rounds
from compedu.networks.fitting import network_for
from compedu.training import Recipe, fit

EPOCH = "epoch"
AGAIN = "epoch again"
NETWORK = "vgg"
IMAGES = 8000  # of an epoch
TIMED = 640  # of them that are trained on while the clock runs: all steps of an epoch take equally long
EPOCHS = "epochs"
SECONDS = "seconds"


@dataclass(frozen=True)
class Kernel:
    """A 3x3 convolution of as many inputs as outputs, and how often it is decomposed, and before that untimed."""

    channels: int
    rounds: int = 3
    warm_up: int = 1

    def __str__(self) -> str:
        return f"{self.channels} channels"

    @property
    def geometry(self) -> Geometry:
        """The shape of its weight."""
        return Geometry("conv2d", (self.channels, self.channels, 3, 3), (1, 1), (1, 1), (1, 1))


def decomposing(method: Factorization, geometry: Geometry, seed: int) -> Callable[[], tuple[Tensor, ...]]:
    """Return a call that decomposes a random weight of this geometry, another one each time, as results are cached."""
    generator = torch.Generator().manual_seed(seed)
    ranks = quarter(method, geometry)
    return lambda: method.factors(torch.randn(geometry.shape, generator=generator), ranks)


def training(seed: int) -> Callable[[], list[float]]:
    """Return a call that trains the network on `TIMED` images."""
    data = glyphs(IMAGES)
    part = glyphs(TIMED)
    model = network_for(NETWORK, data, seed=seed)
    return lambda: fit(model, part, Recipe(1, shift=1, seed=seed))


def compute(setting: Kernel, seed: int) -> Run:
    """Time every decomposition and a part of an epoch, in random order, by the clock of the thread."""
    arms = {name: decomposing(method, setting.geometry, seed) for name, method in DECOMPOSITIONS.items()}
    arms |= {EPOCH: training(seed), AGAIN: training(seed)}
    seconds = time_rounds(arms, 0.0, seed, time.thread_time, rounds=setting.rounds, warm_up=setting.warm_up)
    of_an_epoch = Recipe(1).steps(TIMED) / Recipe(1).steps(IMAGES)
    outcomes = {
        name: {
            EPOCHS: of_an_epoch * statistics.median(ratios(seconds[name], seconds[EPOCH])),
            SECONDS: statistics.median(seconds[name]),
        }
        for name in DECOMPOSITIONS
    }
    outcomes[EPOCH] = {SECONDS: statistics.median(seconds[EPOCH]) / of_an_epoch}
    outcomes[AGAIN] = {EPOCHS: statistics.median(ratios(seconds[AGAIN], seconds[EPOCH]))}
    ranks = {name: f"rank {quarter(method, setting.geometry)[0]}" for name, method in DECOMPOSITIONS.items()}
    return Run(str(setting), seed, outcomes, ranks)


def parts(runs: Sequence[Run]) -> tuple[Part, ...]:
    """Return for each decomposition the epochs that one kernel of each size takes together."""
    epochs = Rule(1.0, "epochs of training")
    alike = Rule(1.2, "times the epoch", ratio=True)
    same = by_seed(runs, lambda run: either_way(run.of(AGAIN, EPOCHS)), statistics.geometric_mean)

    def taken(arm: str, over: Sequence[Run]) -> tuple[float, ...]:
        return by_seed(over, lambda run: run.of(arm, EPOCHS), sum)

    return (
        Part("the epoch against itself", same, alike, Role.CONTROL, Verdict.REFUTED),
        *(Part(f"{arm} takes more than an epoch", taken(arm, runs), epochs) for arm in DECOMPOSITIONS),
        *(
            Part(f"{CP}, {name} alone", taken(CP, [run for run in runs if run.setting == name]), epochs, Role.FINDING)
            for name in dict.fromkeys(run.setting for run in runs)
        ),
    )


DECOMPOSITION_COST = Experiment(
    key="D7",
    title="Decomposition is costly",
    claim="Low-rank factorization involves a decomposition, which is computationally expensive.",
    source="the survey by Cheng, Wang, Zhou and Zhang (2018), drawbacks of low-rank factorization",
    form=LogicalForm.TENDENCY,
    scope=f"3x3 convolutions of 64, 128, 256 and 512 channels (quick: 64 and 128), as in VGG networks, with random "
    f"weights, decomposed once to a quarter of their weights; beside an epoch of training of our `{NETWORK}`, a "
    f"network of a million weights, on {IMAGES:,} drawn characters. The clock is the processor time of the one "
    "working thread",
    arms=(
        Arm(EPOCH, f"one epoch of `{NETWORK}`: {TIMED} images are timed, and multiplied", "1 epoch", "0"),
        Arm(AGAIN, "a copy, trained likewise: how far the times of equal things differ", "1 epoch", "0"),
        Arm(SVD, "`TruncatedSVD`: all singular values of the unfolded kernel, once", "0", "0"),
        Arm(TUCKER, "`TuckerDecomposition`: singular vectors of two unfoldings in turn, 10 sweeps at most", "0", "0"),
        Arm(CP, "`CPDecomposition`: alternating least squares, 150 sweeps at most", "0", "0"),
    ),
    decides="a decomposition is expensive if one kernel of each size, decomposed by it, takes longer than one epoch of "
    "training. The claim does not say which decomposition it means, so that each is a part of its own. Each kernel is "
    "decomposed once, while training takes many epochs, and fine-tuning after it several",
    varies="the weights, and the process with its memory: each seed is timed in a process of its own. The full plan "
    "uses seeds from 200 on, which had not been inspected before. Before it, each decomposition was timed once, with "
    "64, 128 and 256 channels: the margin, one epoch, is older",
    changes="larger networks: a network with kernels of 512 channels trains more slowly than ours, so that the "
    "multiples of its own epoch are smaller; more sweeps, or a looser end of them; randomized methods that find only "
    "the leading singular values; graphics processors, on which training gains more than a decomposition; the "
    "decomposition repeated for many ranks, if its result is not kept",
    quick=Plan((Kernel(64), Kernel(128)), 3, "a minute"),
    full=Plan((Kernel(64), Kernel(128), Kernel(256, rounds=2), Kernel(512, rounds=1, warm_up=0)), 4, "seven minutes",
              first=200),
    compute=compute,
    parts=parts,
    uses=tuple(type(method) for method in DECOMPOSITIONS.values()),
    apart=True,
)  # fmt: skip
