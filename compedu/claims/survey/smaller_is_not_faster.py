"""Claim D4b: pruning usually makes a network smaller, not faster. Times of layers with random weights."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compedu.claims.experiments import Experiment
from compedu.claims.judgment import LogicalForm, Part, Role
from compedu.claims.store import Run, by_seed
from compedu.claims.survey.shared.clock import either_way
from compedu.claims.trial import Arm, Plan
from compedu.claims.verdict import Rule, Verdict
from compedu.deployment.kernels.csr import SparseLinear
from compedu.methods.pruning.shared.masks import keep_largest
from compedu.metrics.latency import ratios, time_rounds

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
DENSE = "dense"
AGAIN = "dense again"
MASKED = "zeros under a mask"
CSR = "CSR"
REMOVED = "units removed"
CROSSING = "crossing"


@dataclass(frozen=True)
class Layers:
    """Two linear layers of `width` by `width` with a ReLU in between, a batch size, and seconds per sparsity."""

    width: int
    batch: int = 64
    sparsities: tuple[float, ...] = SPARSITIES
    budget_s: float = 0.3

    def __str__(self) -> str:
        return f"width {self.width}, batch {self.batch}"


def network(width: int, seed: int) -> nn.Sequential:
    """Return the dense network with random weights, the same ones for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    layers = [nn.Linear(width, width) for _ in range(2)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(torch.randn(width, width, generator=generator) / math.sqrt(width))
            layer.bias.zero_()
    return nn.Sequential(layers[0], nn.ReLU(), layers[1]).eval()


def masked(dense: nn.Sequential, sparsity: float, make: Callable[[Tensor, Tensor], nn.Module]) -> nn.Sequential:
    """Return the network of layers that `make` builds from magnitude-pruned weights and biases."""
    pruned = [
        make(layer.weight.detach() * keep_largest(layer.weight.detach().abs(), sparsity), layer.bias.detach())
        for layer in dense[::2]
    ]
    return nn.Sequential(pruned[0], nn.ReLU(), pruned[1]).eval()


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return the dense layer with a copy of this weight (out, in) and bias."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def without_units(dense: nn.Sequential, sparsity: float) -> nn.Sequential:
    """Return the network without that fraction of its hidden units: both layers lose the same fraction of weights."""
    first = dense[0].weight.detach()
    second = dense[2].weight.detach()
    kept = keep_largest(first.abs().sum(1), sparsity)
    return nn.Sequential(
        linear(first[kept], dense[0].bias[kept]), nn.ReLU(), linear(second[:, kept], dense[2].bias)
    ).eval()


def times(dense: nn.Sequential, x: Tensor, sparsity: float, budget_s: float, seed: int) -> dict[str, float]:
    """Return for each arm its time as a multiple of the dense network's, and the latter as "dense_ms"; medians.

    The clock counts the computing time of the thread, not its waiting: another program on the same core would add more
    than the arms differ by.
    """
    networks = {
        DENSE: dense, AGAIN: masked(dense, 0.0, linear), MASKED: masked(dense, sparsity, linear),
        CSR: masked(dense, sparsity, SparseLinear), REMOVED: without_units(dense, sparsity),
    }  # fmt: skip
    with torch.inference_mode():
        seconds = time_rounds({name: _call(net, x) for name, net in networks.items()}, budget_s, seed, time.thread_time)
    multiples = {name: statistics.median(ratios(found, seconds[DENSE])) for name, found in seconds.items()}
    return multiples | {"dense_ms": 1000 * statistics.median(seconds[DENSE])}


def _call(net: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    return lambda: net(x)


def crossing(sparsities: Sequence[float], multiples: Sequence[float]) -> float | None:
    """Return the sparsity from which on the time is below the dense one, interpolated over the logarithm of density.

    None if it is not below even at the last one; the first sparsity if it always is.

    >>> crossing((0.5, 0.9, 0.99), (2.0, 2.0, 0.5)), crossing((0.5, 0.9), (0.4, 0.2)), crossing((0.5, 0.9), (2.0, 1.5))
    (0.9683772233983162, 0.5, None)
    """
    above = [index for index, multiple in enumerate(multiples) if multiple >= 1]
    if not above:
        return sparsities[0]
    if (last := above[-1]) == len(sparsities) - 1:
        return None
    share = math.log(multiples[last]) / math.log(multiples[last] / multiples[last + 1])
    density = [math.log(1 - sparsity) for sparsity in sparsities[last : last + 2]]
    return 1 - math.exp(density[0] + share * (density[1] - density[0]))


def compute(setting: Layers, seed: int) -> Run:
    """Time all arms at every sparsity."""
    dense = network(setting.width, seed)
    x = torch.randn(setting.batch, setting.width, generator=torch.Generator().manual_seed(seed + 1))
    taken = {s: times(dense, x, s, setting.budget_s, seed) for s in setting.sparsities}
    outcomes = {arm: {zeros(s): taken[s][arm] for s in setting.sparsities} for arm in (AGAIN, MASKED, CSR, REMOVED)}
    outcomes[DENSE] = {"ms": statistics.median(times["dense_ms"] for times in taken.values())}
    where = crossing(setting.sparsities, list(outcomes[CSR].values()))
    if where is not None:
        outcomes[CSR][CROSSING] = where
    return Run(str(setting), seed, outcomes)


def zeros(sparsity: float) -> str:
    """Return the name of a measure: the time at this sparsity."""
    return f"{sparsity:.0%}"


def parts(runs: Sequence[Run]) -> tuple[Part, ...]:
    """Return a part for each way to run zeros, CSR at every sparsity: geometric means over settings."""
    alike = Rule(1.05, "times the dense time", ratio=True)
    faster = Rule(0.9, "times the dense time", ratio=True)

    def values(arm: str, sparsities: Sequence[float], turn: Callable[[float], float] = float) -> tuple[float, ...]:
        def over_zeros(run: Run) -> float:
            return statistics.geometric_mean(turn(run.of(arm, zeros(sparsity))) for sparsity in sparsities)

        return by_seed(runs, over_zeros, statistics.geometric_mean)

    return (
        Part(
            "the dense network against its copy",
            values(AGAIN, SPARSITIES, either_way),
            alike,
            Role.CONTROL,
            Verdict.REFUTED,
        ),
        Part("zeros under a mask take as long", values(MASKED, SPARSITIES), faster),
        *(Part(f"CSR takes as long, {zeros(share)} zeros", values(CSR, [share]), faster) for share in SPARSITIES),
        Part("removed units take as long", values(REMOVED, SPARSITIES), faster),
    )


SMALLER_IS_NOT_FASTER = Experiment(
    key="D4b",
    title="Smaller is not faster",
    claim="Pruning usually makes a network smaller, but does not make it run faster.",
    source="the last arXiv version (2020) of the survey by Cheng, Wang, Zhou and Zhang (2018)",
    form=LogicalForm.TENDENCY,
    scope="two linear layers with a ReLU in between, float32, batches of 64, random weights: only the number and "
    "positions of weights matter here, not their values. The clock is the processor time of the one working thread",
    arms=(
        Arm(DENSE, "two linear layers", "0", "0"),
        Arm(AGAIN, "the same in other memory: how far equal networks differ", "0", "0"),
        Arm(MASKED, "MagnitudePruning(sparsity=s), run as dense layers", "0", "0"),
        Arm(CSR, "the same mask, run in compressed sparse rows", "0", "0"),
        Arm(REMOVED, "a fraction s of the hidden units removed, smaller dense layers", "0", "0"),
    ),
    decides="the time must fall below 0.9 of the dense network's to count as faster; above, the claim holds. *Usually* "
    "does not say for which pruning, so that each way to run a pruned network is a part of its own, and sparse rows "
    "one for every share of zeros that was timed; each on the whole: the mean over sizes of layers",
    varies="the weights, and the process with its memory: each seed is timed in a process of its own. The full plan "
    "uses seeds from 200 on; as many as its time allowed, which was fixed before any was inspected. Before it, 3 "
    "seeds were judged by two groups of shares, 50 and 60 %, 95 and 99 %, which left out those where sparse rows begin "
    "to pay and were chosen after the times were known: split, too",
    changes="hardware with kernels for sparse products; other processors, which move the share of zeros from which "
    "sparse rows pay; a batch of one, at which they pay later, if at all; convolutions; more threads",
    quick=Plan(tuple(Layers(width, budget_s=0.05) for width in (256, 1024)), 3, "half a minute"),
    full=Plan(tuple(Layers(width) for width in (128, 256, 512, 1024, 2048, 4096)), 4, "four minutes", first=200),
    compute=compute,
    parts=parts,
    apart=True,
)  # fmt: skip
