"""Our magnitude pruning against torch.nn.utils.prune: the same masks, and how long either takes."""

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from table import DATA, Estimate, Section, options, write
from torch import Tensor, nn
from torch.nn.utils import prune

import compedu as ce
from compedu.methods.pruning.shared.masks import keep_largest
from compedu.metrics import Latency
from compedu.metrics.latency import BASELINE, BASELINE_AGAIN, CANDIDATE, time_rounds
from compedu.reproducible import torch_threads

SAID = """
Fraction of zeros {sparsity:g}, one thread. Both sides copy the network first and leave the given one untouched; torch
then prunes the copy in place (`l1_unstructured` layer by layer, `global_unstructured` for all layers together); ours
also refuses weights that are not finite and replaces every layer by its masked form. "one tensor" is the formula alone:
`keep_largest` against `L1Unstructured.compute_mask` on the largest layer. Before anything is timed the masks are
compared. The shipped weights are rounded to half precision, so that several may stand exactly at the threshold: there
the masks must keep equally many weights and differ in the choice among those only ("ties"). With the lost bits drawn at
random, so that no two weights are equal at the threshold, the masks must be identical. The ratio is torch's time
divided by ours, above 1 where ours is faster.
"""
HEAD = ("network", "budget", "masks", "ours, ms", "torch, ms", "torch / ours", "torch / torch", "ours is")


@dataclass(frozen=True)
class Settings:
    """Networks, data, fraction of zeros, and seconds for each comparison."""

    networks: tuple[str, ...] = ("lenet5", "vgg")
    data: str = DATA
    sparsity: float = 0.9
    budget_s: float = 15.0


QUICK = Settings(networks=("lenet300",), data="digits", budget_s=0.0)


def torch_pruned(model: nn.Module, sparsity: float, budget: str) -> nn.Module:
    """Return a copy of `model`, pruned by torch.nn.utils.prune."""
    copied = copy.deepcopy(model)
    layers = prunable(copied).values()
    if budget == "global":
        prune.global_unstructured([(layer, "weight") for layer in layers], prune.L1Unstructured, amount=sparsity)
    else:
        for layer in layers:
            prune.l1_unstructured(layer, "weight", amount=sparsity)
    return copied


def prunable(model: nn.Module) -> dict[str, nn.Module]:
    """Return the linear and convolutional layers of `model` by name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))}


def differing(model: nn.Module, sparsity: float, budget: str) -> int:
    """Return in how many weights the two sides' masks of `model` differ.

    Raises `AssertionError` unless all these stand at the threshold of their ranking and both sides keep equally many.
    """
    ours = ce.MagnitudePruning(sparsity=sparsity, budget=budget)(model)
    theirs = torch_pruned(model, sparsity, budget)
    layers = [
        (ours.get_submodule(name).mask.reshape(-1), theirs.get_submodule(name).weight_mask.reshape(-1).bool(),
         layer.weight.detach().abs().reshape(-1))
        for name, layer in prunable(model).items()
    ]  # fmt: skip
    rankings = layers if budget == "uniform" else [tuple(map(torch.cat, zip(*layers, strict=True)))]
    return sum(differing_choice(*ranking) for ranking in rankings)


def differing_choice(mine: Tensor, other: Tensor, sizes: Tensor) -> int:
    """Return how many places of two masks of one ranking differ, all of shape (n,); raise as `differing` does."""
    differ = mine != other
    assert int(mine.sum()) == int(other.sum()), "one side keeps more weights than the other"
    assert bool((sizes[differ] == sizes[~mine].amax()).all()), "other weights are dropped than those at the threshold"
    return int(differ.sum())


def unrounded(model: nn.Module) -> nn.Module:
    """Return a copy of `model` with the bits that rounding to half precision took from its weights drawn at random."""
    copied = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    for layer in prunable(copied).values():
        layer.weight.data *= 1 + (torch.rand(layer.weight.shape, generator=generator) - 0.5) * 2**-11
    return copied


def agreement(network: str, model: nn.Module, sparsity: float, budget: str) -> str:
    """Return how the masks agree; raise `AssertionError` where they do not, on these weights or without equal ones."""
    assert differing(unrounded(model), sparsity, budget) == 0, f"{network}: the masks differ where no weights are equal"
    count = differing(model, sparsity, budget)
    return f"identical but for {count} ties" if count else "identical"


def compared(network: str, model: nn.Module, budget: str, settings: Settings) -> tuple[str, ...]:
    """Return the row of pruning the whole network."""
    method = ce.MagnitudePruning(sparsity=settings.sparsity, budget=budget)
    again = copy.deepcopy(model)
    latency = timed(
        lambda: method(model), lambda: torch_pruned(model, settings.sparsity, budget),
        lambda: torch_pruned(again, settings.sparsity, budget), settings.budget_s,
    )  # fmt: skip
    return row(network, model, budget, agreement(network, model, settings.sparsity, budget), latency)


def compared_alone(network: str, model: nn.Module, settings: Settings) -> tuple[str, ...]:
    """Return the row of making the mask of the largest weight alone."""
    weight = max((layer.weight.detach() for layer in prunable(model).values()), key=Tensor.numel)
    torchs = prune.L1Unstructured(settings.sparsity)
    ones = torch.ones_like(weight)
    again = weight.clone()
    ones_again = ones.clone()
    latency = timed(
        lambda: keep_largest(weight.abs(), settings.sparsity), lambda: torchs.compute_mask(weight, ones),
        lambda: torchs.compute_mask(again, ones_again), settings.budget_s,
    )  # fmt: skip
    return row(network, model, f"one tensor of {weight.numel():,}", "as above", latency)


def timed(ours: Callable, torchs: Callable, again: Callable, budget_s: float) -> Latency:
    """Return the times of interleaved calls on one thread."""
    with torch_threads(1):
        seconds = time_rounds({CANDIDATE: ours, BASELINE: torchs, BASELINE_AGAIN: again}, budget_s)
    return Latency.of(seconds, batch_size=1, threads=1)


def row(network: str, model: nn.Module, budget: str, masks: str, latency: Latency) -> tuple[str, ...]:
    """Return one comparison as a row of the table."""
    return (
        f"{network}, {sum(layer.weight.numel() for layer in prunable(model).values()):,} weights", budget, masks,
        f"{latency.latency_ms:.2f}", f"{latency.baseline_ms:.2f}", Estimate.speed_up(latency).text(2, "x"),
        Estimate.a_a(latency).text(2, "x"), latency.verdict,
    )  # fmt: skip


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section."""
    settings, path = options(__doc__, Settings(), QUICK, given)
    rows = []
    for network in settings.networks:
        model, _ = ce.load(network, settings.data)
        rows += [compared(network, model, budget, settings) for budget in ("uniform", "global")]
        rows.append(compared_alone(network, model, settings))
    said = SAID.format(sparsity=settings.sparsity)
    write(Section("magnitude", "Magnitude pruning against torch", said, HEAD, rows), path)


if __name__ == "__main__":
    main(sys.argv[1:])
