"""How much work a moved slider is, up to the first figure and up to the report, in evaluations of the dense network."""

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from table import DATA, Estimate, Section, options, write
from torch import nn

import compedu as ce
from compedu.datasets.dataset import Dataset
from compedu.deployment import deploy
from compedu.evaluation import evaluate
from compedu.explorers.main_knob import main_knob
from compedu.explorers.session import Session
from compedu.explorers.view import News, State
from compedu.methods import Method
from compedu.metrics.measurement import BATCH
from compedu.sweeps import grid

SAID = """
Every method that needs no training, its main knob set to {moves} values in random order without widgets. The dense
network is evaluated on the same images right after each of them; the figures are ratios to the time that this takes, so
that they carry over to other machines. *First figure*: compressed, deployed, and the first images evaluated. *Report*:
all images, bytes and speed as well. One more value comes before: what no knob changes, such as curvatures, is measured
there, and is left out.
"""
HEAD = ("network", "method", "knob", "first figure", "report", "values refused")
SPLIT = "validation"


@dataclass(frozen=True)
class Settings:
    """Networks, data, methods, and how many values each main knob is set to."""

    networks: tuple[str, ...] = ("lenet5", "vgg")
    data: str = DATA
    methods: tuple[type[Method], ...] = tuple(
        cls for cls in ce.METHODS if cls().needs != "training" and cls.family != "training"
    )
    moves: int = 9


QUICK = Settings(networks=("lenet5",), data="digits", methods=(ce.MagnitudePruning,), moves=6)


class Watch:
    """Moves a session, and knows when its figures were first published and when they were complete."""

    def __init__(self, method: Method, model: nn.Module, data: Dataset):
        self.noted: dict[State, float] = {}
        self.session = Session(method, model, data, SPLIT, self.note)

    def note(self, news: News) -> None:
        """Note when the session reached its state."""
        self.noted.setdefault(self.session.view.state, time.perf_counter())

    def move(self, method: Method) -> tuple[float, float] | None:
        """Return the seconds from a move to the first figure and to the report, None for a value that is refused."""
        self.noted.clear()
        start = time.perf_counter()
        self.session.move(method)
        self.session.runner.settle(timeout=600)
        if self.session.view.state == State.ERROR:
            return None
        complete = self.noted[State.FINAL]
        return self.noted.get(State.MEASURING, complete) - start, complete - start


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def timed(cls: type[Method], network: str, settings: Settings) -> tuple[str, ...]:
    """Return the row of one method on one network."""
    model, data = ce.load(network, settings.data)
    dense = deploy(model, data.example)
    start = cls(**cls.tried_with)
    knob = str(main_knob(start))
    methods = grid(start, knob, settings.moves)
    random.Random(0).shuffle(methods)
    watch = Watch(start, model, data)
    watch.move(methods[-1])
    ratios = []
    for method in methods:
        if (taken := watch.move(method)) is not None:
            once = seconds(lambda: evaluate(dense, data, SPLIT, BATCH))
            ratios.append([part / once for part in taken])
    watch.session.runner.close()
    texts = [Estimate.of(same).text(2) for same in zip(*ratios, strict=True)]
    return network, cls.__name__, knob, *texts, str(len(methods) - len(ratios))


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section."""
    settings, path = options(str(__doc__), Settings(), QUICK, given)
    rows = [timed(cls, network, settings) for network in settings.networks for cls in settings.methods]
    title = "Live methods, in evaluations of the dense network"
    write(Section("live", title, SAID.format(moves=settings.moves), HEAD, rows), path)


if __name__ == "__main__":
    main(sys.argv[1:])
