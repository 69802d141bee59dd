"""Fewer channels, measured: the speed-up next to the ratios of multiply-accumulates and of parameters."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rounds import Rounds, again, timed_networks
from table import DATA, Estimate, Section, options, write
from torch import nn

import compedu as ce
from compedu.datasets.dataset import Dataset
from compedu.metrics import costs

DENSE = "dense"
SAID = """
`FilterPruning(sparsity=..., round_to=...)` removes the given share of the channels of every layer but the last. The
number kept is rounded up to a multiple; 1 means not rounded; multiples that give the same network share a row. Every
network is deployed in float32 (batch normalization folded, channels last), one thread. "Parameters" and "MACs" are the
dense network's divided by those of the smaller one, "speed-up" is the same for the time; bold where its whole interval
lies below the ratio of MACs: multiply-accumulates are not milliseconds. "Not rounded / this" is the time of the network
that is not rounded, which needs fewer MACs, divided by that of this one: above 1 where *more* channels take less time.
All networks of one share run in the same rounds, in random order, the dense and the one that is not rounded twice. A
"?" marks ratios whose A/A arm failed: the two dense ones, or for the last ratio the two that are not rounded.

{counts}
"""


@dataclass(frozen=True)
class Settings:
    """Networks, data, shares of channels, multiples, batch sizes, and seconds for each share and batch size."""

    networks: tuple[str, ...] = ("vgg", "resnet")
    data: str = DATA
    removed: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    multiples: tuple[int, ...] = (1, 8, 16)
    batches: tuple[int, ...] = (64, 1)
    budget_s: float = 8.0


QUICK = Settings(networks=("lenet5",), data="digits", removed=(0.3,), batches=(2,), budget_s=0.0)


@dataclass(frozen=True, eq=False)
class Smaller:
    """A smaller network, the multiples to which its channels were rounded, and what it has left."""

    model: nn.Module
    multiples: tuple[int, ...]
    channels: tuple[int, ...]
    parameters: int
    macs: int

    @property
    def name(self) -> str:
        """The multiples in words, by which its arm is known."""
        return ", ".join(map(str, self.multiples))

    @classmethod
    def of(cls, model: nn.Module, data: Dataset, multiples: tuple[int, ...]) -> "Smaller":
        """Return `model` with its costs for one image of `data`."""
        parameters = sum(costs.parameters(model).values())
        macs = costs.macs(model, data).total
        return cls(model, multiples, channels_of(model), parameters, macs)


def channels_of(model: nn.Module) -> tuple[int, ...]:
    """Return the numbers of channels that the layers of `model` make, layer after layer."""
    return tuple(layer.weight.shape[0] for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))


def smaller_networks(model: nn.Module, data: Dataset, removed: float, multiples: Sequence[int]) -> list[Smaller]:
    """Return the different networks that `removed` and the `multiples` give, the one that is not rounded first."""
    found: dict[tuple[int, ...], tuple[nn.Module, tuple[int, ...]]] = {}
    for multiple in sorted(multiples):
        small = ce.FilterPruning(sparsity=removed, round_to=multiple)(model, data)
        first, same = found.get(channels_of(small), (small, ()))
        found[channels_of(small)] = first, (*same, multiple)
    return [Smaller.of(small, data, same) for small, same in found.values()]


def rounds_of(model: nn.Module, smaller: Sequence[Smaller], data: Dataset, batch: int, budget_s: float) -> Rounds:
    """Return the times of all deployed networks in the same rounds: dense and not rounded twice, the others once."""
    models = {DENSE: model, again(DENSE): model, again(smaller[0].name): smaller[0].model}
    models |= {small.name: small.model for small in smaller}
    deployed = {name: ce.deploy(network, data.example) for name, network in models.items()}
    return timed_networks(deployed, data.x_validation[:batch], budget_s)


def cells(rounds: Rounds, small: Smaller, unrounded: Smaller, macs_ratio: float) -> tuple[str, ...]:
    """Return speed-up, A/A arm, and the comparison with the network that is not rounded, for one batch size."""
    latency = rounds.latency(small.name, DENSE)
    speed_up = marked(Estimate.speed_up(latency), latency.verdict, bold=latency.speed_up_interval[1] < macs_ratio)
    compared = "-"
    if small is not unrounded:
        other = rounds.latency(small.name, unrounded.name)
        compared = marked(Estimate.speed_up(other), other.verdict, bold=False)
    return f"{latency.latency_ms:.2f}", speed_up, Estimate.a_a(latency).text(3, "x"), compared


def marked(ratio: Estimate, verdict: str, bold: bool) -> str:
    """Return a ratio as shown in the table."""
    text = f"**{ratio.text(2, 'x')}**" if bold else ratio.text(2, "x")
    return f"{text} ?" if verdict.startswith("withheld") else text


def compared(network: str, settings: Settings) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the rows of one network, and the verdicts of rounded networks against those that are not."""
    model, data = ce.load(network, settings.data)
    dense = Smaller.of(model, data, ())
    rows = []
    verdicts = []
    for removed in settings.removed:
        smaller = smaller_networks(model, data, removed, settings.multiples)
        timed = [rounds_of(model, smaller, data, batch, settings.budget_s) for batch in settings.batches]
        for small in smaller:
            macs_ratio = dense.macs / small.macs
            rows.append((
                network, f"{removed:.0%}", small.name, ", ".join(map(str, sorted(set(small.channels[:-1])))),
                f"{dense.parameters / small.parameters:.2f}x", f"{macs_ratio:.2f}x",
                *(cell for rounds in timed for cell in cells(rounds, small, smaller[0], macs_ratio)),
            ))  # fmt: skip
        verdicts += [rounds.latency(small.name, smaller[0].name).verdict for small in smaller[1:] for rounds in timed]
    return rows, verdicts


def counted(verdicts: Sequence[str]) -> str:
    """Say in a sentence how often a rounded network was faster or slower than the one that is not rounded."""
    faster = verdicts.count("faster")
    slower = verdicts.count("slower")
    return (
        f"Rounded up against not rounded: faster, though with more MACs, in {faster} of {len(verdicts)} comparisons, "
        f"slower in {slower}; in the others the two cannot be told apart or the A/A arm failed."
    )


def head(settings: Settings) -> tuple[str, ...]:
    """Return the head of the table."""
    timed = ("ms", "speed-up", "dense / dense", "not rounded / this")
    return (
        "network", "removed", "multiple of", "channels", "parameters", "MACs",
        *(f"batch {batch}: {name}" for batch in settings.batches for name in timed),
    )  # fmt: skip


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section."""
    settings, path = options(__doc__, Settings(), QUICK, given)
    rows = []
    verdicts = []
    for network in settings.networks:
        more_rows, more_verdicts = compared(network, settings)
        rows = rows + more_rows
        verdicts = verdicts + more_verdicts
    title = f"Channels taken out, measured, {settings.data}"
    write(Section("channels", title, SAID.format(counts=counted(verdicts)), head(settings), rows), path)


if __name__ == "__main__":
    main(sys.argv[1:])
