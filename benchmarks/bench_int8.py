"""Int8 networks against our own deployed float networks and against torch's quantization, and where their time goes."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from int8_steps import kind, microseconds
from rounds import Rounds, again, timed_networks
from table import DATA, Estimate, Section, Target, grid, options, write
from torch import nn
from torch_int8 import integer_layers, torch_float, torch_int8

import compedu as ce
from compedu.datasets.dataset import Dataset
from compedu.deployment import Deployed
from compedu.errors import MissingData
from compedu.metrics.latency import ratios
from compedu.networks.fitting import network_for

METHOD = ce.LinearQuantization(activation_bits=8)
OURS = "ours"
TORCHS = "torch's"
INT8 = "int8"
FLOAT = "float"
SAID = f"""
`{METHOD!r}`: weights and activations in 8 bits, batch normalization folded, chained in
integers; against the same network deployed in float32 by the same rules (batch normalization folded, channels last).
*Torch* is `torch.ao.quantization` in graph mode with its defaults for this machine, calibrated on the same images,
against the same network in float32, fused by torch and channels last. One thread, timed by its own clock, which stands
while other processes run. Each round runs int8, float and float once more, in random order; a ratio is the median over
rounds, "float / float" that of the two copies, and "fastest" the ratio of the fastest calls. Torch's networks run in
rounds of their own, beside our int8. Accuracy is that of the networks that were timed, on the validation split.

A batch of 1 is timed twice. Called *once* a round, a network finds the caches full of the others; called *10 times in a
row*, full of its own weights, as it does where it has a processor to itself. To read weights and code anew costs int8 a
larger part of its time.
"""
EXPLAINED = """
### Where the time of int8 goes

Medians of the network alone, in a row. What rounds the result of a product to codes, and a ReLU after it, is part of
the product; *values to codes* are the other roundings: of images, of sums, of what float32 functions return. A linear
layer of few weights takes the time that calling an operator of oneDNN takes. With a batch of 1, all products together
take little more than that; for `vit`, what stays in float32 is a limit too.
"""
HEAD = (
    "network", "batch", "whose", "int8, ms", "float, ms", "float / int8", "fastest", "float / float", "verdict",
    "rounds", "torch's int8 / ours", "accuracy int8, float", "what runs in int8",
)  # fmt: skip
TARGETS = {  # of vgg: the least that is asked for, and the goal
    (64, 1): (3.5, 4.0),
    (1, 1): (2.2, 2.5),
    (1, 10): (2.2, 2.5),
}


@dataclass(frozen=True)
class Settings:
    """Networks, data, pairs of batch size and calls in a row, and seconds for each row and for each table of steps."""

    networks: tuple[str, ...] = ("vgg", "resnet", "mobilenet", "vit")
    data: str = DATA
    batches: tuple[tuple[int, int], ...] = ((64, 1), (1, 1), (1, 10))
    budget_s: float = 15.0
    steps_s: float = 6.0

    @property
    def sizes(self) -> list[int]:
        """The batch sizes, from large to small."""
        return sorted({batch for batch, _ in self.batches}, reverse=True)


QUICK = Settings(networks=("lenet5",), data="digits", budget_s=0.0, steps_s=0.0)


@dataclass(frozen=True, eq=False)
class Pair:
    """A network in int8 and twice in float32, all by the same `side`: "ours" or "torch's"."""

    side: str
    small: nn.Module
    dense: nn.Module
    again: nn.Module
    accuracies: str
    runs: str

    @classmethod
    def ours(cls, model: nn.Module, data: Dataset) -> "Pair":
        """Return the networks that we deploy."""
        small = ce.deploy(METHOD(model, data), data.example)
        dense = ce.deploy(model, data.example)
        kernels = "; ".join(f"{count} x {name}" for name, count in Counter(small.kernels.values()).items())
        runs = "; ".join((kernels, *small.notes))
        return cls(OURS, small, dense, ce.deploy(model, data.example), accuracies(small, dense, data), runs)

    @classmethod
    def torchs(cls, model: nn.Module, data: Dataset) -> "Pair":
        """Return torch's networks; raise `ImportError` where it does not quantize any more."""
        small = torch_int8(model, data, METHOD.calibration_images)
        dense = torch_float(model)
        said = accuracies(small, dense, data)
        return cls(TORCHS, small, dense, torch_float(model), said, integer_layers(small))

    @property
    def arms(self) -> dict[str, nn.Module]:
        """The networks by the names of their arms."""
        return {INT8: self.small, FLOAT: self.dense, again(FLOAT): self.again}

    def row(self, rounds: Rounds) -> tuple[str, ...]:
        """Return the cells of one batch size; rounds with an arm `OURS` also compare with our int8."""
        seconds = rounds.seconds
        found = rounds.latency(INT8, FLOAT)
        fastest = min(seconds[FLOAT]) / min(seconds[INT8])
        beside = Estimate.of(ratios(seconds[INT8], seconds[OURS])).text(2, "x") if OURS in seconds else "-"
        return (
            self.side, f"{found.latency_ms:.2f}", f"{found.baseline_ms:.2f}", Estimate.speed_up(found).text(2, "x"),
            f"{fastest:.2f}x", Estimate.a_a(found).text(3, "x"), found.verdict, str(found.rounds), beside,
            self.accuracies, self.runs,
        )  # fmt: skip


def loaded(network: str, data: str) -> tuple[nn.Module, Dataset, str]:
    """Return the network with shipped weights, the data, and ", untrained" for new weights where none are shipped."""
    try:
        return *ce.load(network, data), ""
    except MissingData:
        images = ce.load_data(data)
        return network_for(network, images).eval(), images, ", untrained"


def accuracies(small: nn.Module, dense: nn.Module, data: Dataset) -> str:
    """Return the accuracies of both networks on the validation split."""
    return ", ".join(percent(network, data) for network in (small, dense))


def percent(network: nn.Module, data: Dataset) -> str:
    """Return the accuracy on the validation split."""
    found = ce.evaluate(network, data, "validation")
    return f"{100 * found.correct / found.seen:.2f} %"


def called(batch: int, calls: int) -> str:
    """Return a batch size and how it is called, in words."""
    return f"{batch}, {calls} times in a row" if calls > 1 else f"{batch}, once" if batch == 1 else str(batch)


def targets(network: str, batch: int, calls: int, rounds: Rounds) -> list[Target]:
    """Return what was promised for vgg, and the goals."""
    if network != "vgg":
        return []
    found = Estimate.speed_up(rounds.latency(INT8, FLOAT))
    what = f"int8 vgg against float, batch {called(batch, calls)}"
    limits = zip(("", ": goal"), TARGETS[batch, calls], strict=True)
    return [Target(f"{what}{goal}", limit, found, "x", digits=2, at_least=True) for goal, limit in limits]


def compared(network: str, settings: Settings) -> tuple[list[tuple[str, ...]], list[Target], list[tuple[str, ...]]]:
    """Return the rows of one network, its targets, and the rows that say where the time of our int8 goes."""
    model, data, untrained = loaded(network, settings.data)
    name = f"{network}{untrained}, {sum(parameter.numel() for parameter in model.parameters()):,} parameters"
    ours = Pair.ours(model, data)
    try:
        torchs = Pair.torchs(model, data)
    except ImportError as error:
        torchs = f"torch does not quantize any more: {error}"
    rows = []
    promised = []
    for batch, calls in settings.batches:
        timing = data.x_validation[:batch], settings.budget_s, time.thread_time, calls
        rounds = timed_networks(ours.arms, *timing)
        rows.append((name, called(batch, calls), *ours.row(rounds)))
        promised += targets(network, batch, calls, rounds)
        if isinstance(torchs, Pair):
            beside = timed_networks(torchs.arms | {OURS: ours.small}, *timing)
            rows.append((name, called(batch, calls), *torchs.row(beside)))
        else:
            rows.append((name, called(batch, calls), TORCHS, *("-",) * 9, torchs))
    return rows, promised, steps_of(name, ours.small, data, settings)


def steps_of(name: str, network: Deployed, data: Dataset, settings: Settings) -> list[tuple[str, ...]]:
    """Return the rows that say where the time of one network goes."""
    counts = Counter(map(kind, network.plan.steps))
    found = [microseconds(network, data.x_validation[:batch], settings.steps_s) for batch in settings.sizes]
    rows = []
    for what in found[0]:
        count = counts.get(what, 0)
        cells = [f"{taken[what]:,.0f} us, {taken[what] / sum(taken.values()):.0%}" for taken in found]
        each = f"{found[-1][what] / count:.1f} us" if count else "-"
        rows.append((name, what, str(count or "-"), *cells, each))
    return rows


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section."""
    settings, path = options(__doc__, Settings(), QUICK, given)
    rows = []
    promised = []
    steps = []
    for network in settings.networks:
        more_rows, more_targets, more_steps = compared(network, settings)
        rows = rows + more_rows
        promised = promised + more_targets
        steps = steps + more_steps
    sizes = settings.sizes
    head = ("network", "what", "steps", *(f"batch {size}" for size in sizes), f"each, batch {sizes[-1]}")
    title = f"Int8 against float and against torch's int8, {settings.data}"
    explained = f"{EXPLAINED}\n{grid(head, steps)}"
    write(Section("int8", title, SAID, HEAD, rows, tuple(promised), explained), path)


if __name__ == "__main__":
    main(sys.argv[1:])
