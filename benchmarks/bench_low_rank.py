"""Factored networks, measured: the speed-up next to the ratio of multiply-accumulates."""

import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from rounds import Rounds, again, timed_networks
from table import DATA, Estimate, Section, options, write
from torch import Tensor, nn

import compedu as ce
from compedu.datasets.dataset import Dataset
from compedu.forms import Factored
from compedu.methods import Method
from compedu.methods.hooks import hooked
from compedu.methods.layers import replace_layers
from compedu.metrics import costs

DENSE = "dense"
SHARE = 40  # of the time of a network a layer has as much: all layers together about as long as the network
SAID = """
Each network as it is deployed in float32 (batch normalization folded, channels last), one thread, against the dense
one, all methods of a network in the same rounds, in random order, the dense network twice. "Parameters" and "MACs" are
the dense network's divided by those of the factored one, "speed-up" is the same for the time; bold where its whole
interval lies below the ratio of MACs. A "?" marks ratios whose A/A arm failed. Equal ranks cut every layer alike; one
budget for all layers cuts where the weights are, which are not the layers where the multiplications are.

"Slower" counts the factored layers whose factors alone are measured to take longer than the one dense layer that they
multiply to, on the inputs that they have in a batch of 64; "merged" is the speed-up of the network in which these are
one layer again. Multiplying the factors out costs nothing in accuracy and nothing in the file, which keeps the factors.
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
    factored = {name: factored_layers(small) for name, small in made.items()}
    first = settings.batches[0]
    slow = {name: slower_layers(small, data.x_validation[:first], settings.budget_s) for name, small in made.items()}
    deployed = {name: ce.deploy(small, data.example) for name, small in made.items()}
    deployed |= {name: ce.deploy(model, data.example) for name in (DENSE, again(DENSE))}
    deployed |= {merged(name): ce.deploy(as_one(made[name], slow[name]), data.example) for name in made}
    timed = [timed_networks(deployed, data.x_validation[:batch], settings.budget_s) for batch in settings.batches]
    whole = costs_of(model, data)
    rows = []
    for name, small in made.items():
        parameters, macs = costs_of(small, data)
        speeds = [speed_up(rounds, name, whole[1] / macs) for rounds in timed]
        after = speed_up(timed[0], merged(name)) if slow[name] else "the same"
        counts = f"{len(slow[name])} of {len(factored[name])}"
        rows.append((network, name, f"{whole[0] / parameters:.2f}x", f"{whole[1] / macs:.2f}x", *speeds, counts, after))
    return rows


def speed_up(rounds: Rounds, arm: str, below: float = 0.0) -> str:
    """Return the speed-up against the dense network; bold where its whole interval lies under `below`."""
    latency = rounds.latency(arm, DENSE)
    text = Estimate.speed_up(latency).text(2, "x")
    text = f"**{text}**" if latency.speed_up_interval[1] < below else text
    return f"{text} ?" if latency.verdict.startswith("withheld") else text


def merged(name: str) -> str:
    """Return the name of the arm whose slow factors are one layer again."""
    return f"{name}, merged"


def factored_layers(model: nn.Module) -> dict[str, Factored]:
    """Return the factored layers by name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Factored)}


def slower_layers(model: nn.Module, x: Tensor, budget_s: float) -> list[str]:
    """Return the names of factored layers that take longer than their dense layer on the inputs they have for x."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str, layer: nn.Module, given: tuple[Tensor, ...], output: object) -> None:
        inputs[name] = given[0]

    layers = factored_layers(model)
    with hooked(layers, after=keep), torch.inference_mode():
        model.eval()(x)
    slower = []
    for name, layer in layers.items():
        arms = {"factors": layer, DENSE: layer.dense_layer(), again(DENSE): layer.dense_layer()}
        arms = {arm: ce.deploy(nn.Sequential(one), inputs[name][:1]) for arm, one in arms.items()}
        latency = timed_networks(arms, inputs[name], budget_s / SHARE).latency("factors", DENSE)
        if latency.verdict == "slower":
            slower.append(name)
    return slower


def as_one(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """Return a copy of a network whose factored layers `names` are one dense layer each."""
    copy = deepcopy(model)
    layers = factored_layers(copy)
    return replace_layers(copy, {name: layers[name].dense_layer() for name in names})


def costs_of(model, data: Dataset) -> tuple[int, int]:
    """Return the parameters of a network and its multiply-accumulates for one image."""
    return sum(costs.parameters(model).values()), costs.macs(model, data).total


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section."""
    settings, path = options(__doc__, Settings(), QUICK, given)
    rows = [row for network in settings.networks for row in rows_of(network, settings)]
    head = (
        "network",
        "method",
        "parameters",
        "MACs",
        *(f"batch {batch}: speed-up" for batch in settings.batches),
        "slower",
        "merged",
    )
    write(Section("low_rank", f"Factored networks, measured, {settings.data}", SAID, head, rows), path)


if __name__ == "__main__":
    main(sys.argv[1:])
