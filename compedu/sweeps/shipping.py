"""The sweeps that come with the package, and the command that remakes them: python -m compedu.sweeps.shipping."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from compedu import datasets, methods
from compedu.methods.method import Method
from compedu.networks.recipes import RECIPES
from compedu.networks.shipped import trained
from compedu.shipped import shipped
from compedu.sweeps.points import grid
from compedu.sweeps.running import sweep


@dataclass(frozen=True)
class Shipped:
    """One shipped sweep: a network with its data, and the points."""

    network: str
    data: str
    points: tuple[Method, ...]

    @property
    def path(self) -> Path:
        """The file, such as MagnitudePruning-lenet5-glyphs.jsonl."""
        return shipped("data", "sweeps", f"{type(self.points[0]).__name__}-{self.network}-{self.data}.jsonl")


def sweeps() -> list[Shipped]:
    """Return all shipped sweeps, quick ones first."""
    live = [
        *((cls(), "sparsity", 21) for cls in (methods.MagnitudePruning, methods.RandomPruning, methods.FilterPruning)),
        (methods.LinearQuantization(), "bits", 8), (methods.BlockCirculantProjection(), "block", 12),
        (methods.TruncatedSVD(), "rank", 13),
    ]  # fmt: skip
    pairs = [("lenet5", "digits"), ("lenet5", "glyphs")]
    return [
        Shipped(network, data, tuple(grid(start, knob, count)))
        for chosen in (lambda network, data: live, trained_anew) for network, data in pairs
        for start, knob, count in chosen(network, data)
    ]  # fmt: skip


def trained_anew(network: str, data: str) -> list[tuple[Method, str, int]]:
    """Return the methods that train, the knob that is varied, and how many points.

    The small dense network and the student learn as long, and at the same rate, as the dense network did: a control
    that learned less would flatter every method.
    """
    recipe = RECIPES[network, data]
    same = {"epochs": recipe.epochs, "lr": recipe.lr, "batch": recipe.batch, "shift": recipe.shift}
    return [
        (methods.SmallDense(**same), "width", 7), (methods.CReLU(), "epochs", 5),
        (methods.SoftTargetDistillation(**same), "temperature", 5),
    ]  # fmt: skip


def remake(names: Iterable[str] = ()) -> None:
    """Compute what is missing of the shipped sweeps whose file names begin with one of `names`, by default of all."""
    for one in sweeps():
        if names and not one.path.name.startswith(tuple(names)):
            continue
        data = datasets.load(one.data)
        running = sweep(one.points, trained(one.network, one.data), data, store=one.path)
        done = sum(1 for _ in running)
        print(f"{one.path.name}: {done} points, {len(running.failures)} refused", flush=True)


if __name__ == "__main__":
    remake(sys.argv[1:])
