"""Int8 networks against our own deployed float networks: one thread, interleaved in one process."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from table import DATA, Estimate, Section, Target, options, write

import compedu as ce
from compedu.datasets.dataset import Dataset
from compedu.deployment import Deployed
from compedu.metrics import Latency, Timing
from compedu.metrics.latency import time_networks

METHOD = ce.LinearQuantization(activation_bits=8)
SAID = f"""
`{METHOD!r}`: weights and activations in 8 bits, batch normalization folded, chained in
integers; against the same network deployed in float32 by the same rules (batch normalization folded, channels last).
One thread. Each round runs int8, float and float once more, in random order; the speed-up is the median over rounds of
float time divided by int8 time, and "float / float" is the same for the two copies of the float network. Accuracy is
that of the deployed networks on the validation split.
"""
HEAD = (
    "network", "batch", "int8, ms", "float, ms", "speed-up", "float / float", "verdict", "rounds",
    "accuracy int8, float", "kernels",
)  # fmt: skip
TARGET = 3.5  # vgg at batch 64


@dataclass(frozen=True)
class Settings:
    """Networks, data, batch sizes, and seconds for each comparison."""

    networks: tuple[str, ...] = ("vgg", "resnet")
    data: str = DATA
    batches: tuple[int, ...] = (64, 1)
    budget_s: float = 30.0


QUICK = Settings(networks=("lenet5",), data="digits", budget_s=0.0)


def compared(network: str, settings: Settings) -> tuple[list[tuple[str, ...]], list[Target]]:
    """Return the rows of one network, and for vgg at batch 64 the target."""
    model, data = ce.load(network, settings.data)
    small = ce.deploy(METHOD(model, data), data.example)
    dense = ce.deploy(model, data.example)
    again = ce.deploy(model, data.example)
    accuracy = f"{percent(small, data)}, {percent(dense, data)}"
    kernels = "; ".join(f"{count} x {name}" for name, count in Counter(small.kernels.values()).items())
    name = f"{network}, {sum(parameter.numel() for parameter in model.parameters()):,} parameters"
    rows = []
    targets = []
    for batch in settings.batches:
        latency = time_networks(small, data.x_validation, (dense, again), Timing(batch, 1, settings.budget_s))
        rows.append((name, *figures(latency), accuracy, "; ".join((kernels, *small.notes))))
        if network == "vgg" and batch == 64:
            found = Estimate.speed_up(latency)
            targets.append(Target("int8 vgg against float, batch 64", TARGET, found, "x", digits=2, at_least=True))
    return rows, targets


def figures(latency: Latency) -> tuple[str, ...]:
    """Return batch size, times, ratios, verdict and number of rounds for the table."""
    return (
        str(latency.batch_size), f"{latency.latency_ms:.2f}", f"{latency.baseline_ms:.2f}",
        Estimate.speed_up(latency).text(2, "x"), Estimate.a_a(latency).text(3, "x"), latency.verdict,
        str(latency.rounds),
    )  # fmt: skip


def percent(network: Deployed, data: Dataset) -> str:
    """Return the accuracy on the validation split."""
    found = ce.evaluate(network, data, "validation")
    return f"{100 * found.correct / found.seen:.2f} %"


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section."""
    settings, path = options(__doc__, Settings(), QUICK, given)
    rows = []
    targets = []
    for network in settings.networks:
        more_rows, more_targets = compared(network, settings)
        rows = rows + more_rows
        targets = targets + more_targets
    write(Section("int8", f"Int8 against float, {settings.data}", SAID, HEAD, rows, tuple(targets)), path)


if __name__ == "__main__":
    main(sys.argv[1:])
