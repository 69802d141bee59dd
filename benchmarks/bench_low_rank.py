"""Factored networks, measured: the speed-up next to the ratio of multiply-accumulates."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from rounds import again, timed_networks
from table import DATA, Estimate, Section, options, write

import compedu as ce
from compedu.datasets.dataset import Dataset
from compedu.methods import Method
from compedu.metrics import costs

DENSE = "dense"
SAID = """
Each network as it is deployed in float32 (batch normalization folded, channels last), one thread, against the dense
one, all methods of a network in the same rounds, in random order, the dense network twice. "Parameters" and "MACs" are
the dense network's divided by those of the factored one, "speed-up" is the same for the time; bold where its whole
interval lies below the ratio of MACs. A "?" marks ratios whose A/A arm failed. Equal ranks cut every layer alike; one
budget for all layers cuts where the weights are, which are not the layers where the multiplications are.
"""


def methods() -> dict[str, Method]:
    """Return what is measured, by a short name."""
    return {
        "SVD, a tenth": ce.TruncatedSVD(rank=0.1),
        "SVD, a quarter": ce.TruncatedSVD(rank=0.25),
        "SVD, one budget of a tenth": ce.TruncatedSVD(rank=0.1, budget="singular values"),
        "separable, a third": ce.SeparableFilters(rank=0.34),
        "Tucker, two fifths": ce.TuckerDecomposition(rank=0.4),
        "CP, a tenth": ce.CPDecomposition(rank=0.1),
    }


@dataclass(frozen=True)
class Settings:
    """Networks, data, methods by name, batch sizes, and seconds for each network and batch size."""

    networks: tuple[str, ...] = ("vgg", "resnet")
    data: str = DATA
    methods: dict[str, Method] = field(default_factory=methods)
    batches: tuple[int, ...] = (64, 1)
    budget_s: float = 20.0


QUICK = Settings(("lenet5",), "digits", {"SVD": ce.TruncatedSVD(rank=0.1)}, (2,), budget_s=0.0)


def rows_of(network: str, settings: Settings) -> list[tuple[str, ...]]:
    """Return the rows of one network."""
    model, data = ce.load(network, settings.data)
    made = {name: method(model, data) for name, method in settings.methods.items()}
    whole = costs_of(model, data)
    deployed = {name: ce.deploy(small, data.example) for name, small in made.items()}
    deployed |= {name: ce.deploy(model, data.example) for name in (DENSE, again(DENSE))}
    timed = [timed_networks(deployed, data.x_validation[:batch], settings.budget_s) for batch in settings.batches]
    rows = []
    for name, small in made.items():
        parameters, macs = costs_of(small, data)
        speeds = []
        for rounds in timed:
            latency = rounds.latency(name, DENSE)
            text = Estimate.speed_up(latency).text(2, "x")
            text = f"**{text}**" if latency.speed_up_interval[1] < whole[1] / macs else text
            speeds += [text if not latency.verdict.startswith("withheld") else f"{text} ?"]
        rows.append((network, name, f"{whole[0] / parameters:.2f}x", f"{whole[1] / macs:.2f}x", *speeds))
    return rows


def costs_of(model, data: Dataset) -> tuple[int, int]:
    """Return the parameters of a network and its multiply-accumulates for one image."""
    return sum(costs.parameters(model).values()), costs.macs(model, data).total


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section."""
    settings, path = options(__doc__, Settings(), QUICK, given)
    rows = [row for network in settings.networks for row in rows_of(network, settings)]
    head = ("network", "method", "parameters", "MACs", *(f"batch {batch}: speed-up" for batch in settings.batches))
    write(Section("low_rank", f"Factored networks, measured, {settings.data}", SAID, head, rows), path)


if __name__ == "__main__":
    main(sys.argv[1:])
