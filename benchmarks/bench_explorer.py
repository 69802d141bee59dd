"""How long an explorer takes: from a knob's new value to the preview, to the first live figure, to the report."""

import contextlib
import itertools
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import comm
from comm.base_comm import BaseComm
from jupyter_client.session import Session
from table import DATA, Estimate, Section, Target, options, write

import compedu as ce
from compedu.explorers import Explorer
from compedu.knobs import knobs
from compedu.methods import Method

SAID = """
`{network}`, every method that needs no training, its first knob set to {moves} values in random order with
`explorer.set(...)`. Times begin before the call. *Preview*: the call returned, the preview is drawn. *While measuring*:
the same, but a new value every {every_ms:g} ms, as a slider gives them while it is dragged, so that the worker is busy
with the value before. *First live figure*: the figure is drawn from the first batch of images. *Report*: `settle()`
returned, accuracy, bytes and speed are measured and drawn. "Drawn" means that the last message for the browser is made:
every message is written and signed as a kernel does it; the browser's own drawing comes on top. Times in ms; bold where
the limit is missed.
"""
HEAD = ("method", "knob", "preview", "preview while measuring", "first live figure", "report", "values refused")
TARGETS = (("preview", 30), ("preview while measuring", 30), ("first live figure", 150), ("report", 1000))


@dataclass(frozen=True)
class Settings:
    """Network, data, methods, how many values each knob is set to, and the pause between values while dragging."""

    network: str = "lenet5"
    data: str = DATA
    methods: tuple[type[Method], ...] = tuple(
        cls for cls in ce.METHODS if cls().needs != "training" and cls.family != "training"
    )
    moves: int = 25
    every_ms: float = 50.0


QUICK = Settings(data="digits", methods=(ce.MagnitudePruning,), moves=6)


@dataclass
class Drawings:
    """When an explorer was drawn, and of what: (seconds, state, images seen), one for each message to the page."""

    explorer: Explorer | None = None
    panel: str = ""
    drawn: list[tuple[float, str, int]] = field(default_factory=list)

    def watch(self, explorer: Explorer) -> None:
        """Note the messages of `explorer` from now on."""
        self.explorer = explorer
        self.panel = explorer.widget.model_id

    def note(self, model_id: str) -> None:
        """Note that a message of widget `model_id` was made."""
        if model_id == self.panel and self.explorer.report is not None:
            self.drawn.append((time.perf_counter(), self.explorer.state, self.explorer.report.seen))

    def first_live(self) -> float:
        """Return when the last message of the first live figure was made."""
        live = [(at, (state, seen)) for at, state, seen in self.drawn if state in ("MEASURING", "FINAL")]
        _, first = next(itertools.groupby(live, key=lambda message: message[1]))
        return max(at for at, _ in first)


@contextlib.contextmanager
def listening(drawings: Drawings) -> Iterator[None]:
    """Replace the kernel's connection to the browser: each message is written, signed and noted, but not sent."""
    session = Session(key=b"benchmark")

    class Line(BaseComm):
        def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
            content = {"data": data, "comm_id": self.comm_id, **keys}
            session.serialize(session.msg(msg_type, content, metadata=metadata))
            drawings.note(self.comm_id)

    before = comm.create_comm
    comm.create_comm = Line
    sync = os.environ.pop("COMPEDU_SYNC", None)  # with it nothing is drawn before all is measured
    try:
        yield
    finally:
        comm.create_comm = before
        if sync is not None:
            os.environ["COMPEDU_SYNC"] = sync


def values_of(cls: type[Method], moves: int) -> tuple[str, list[Any]]:
    """Return the first knob of `cls` with a slider, and `moves` values of it in random order, none twice in a row."""
    name, knob = next((name, knob) for name, knob in knobs(cls).items() if knob.slider_range is not None)
    points = knob.points(moves)
    values = []
    draw = random.Random(0)
    while len(values) < moves:
        shuffled = draw.sample(points, len(points))
        values += shuffled[values[-1:] == shuffled[:1] :]
    return name, values[:moves]


def at_rest(explorer: Explorer, drawings: Drawings, name: str, values: list[Any], found: dict[str, list[float]]) -> int:
    """Set the values one after another, each when all is quiet; note times in ms; return how many were refused.

    Raises `RuntimeError` for a value that fails otherwise than by a refusal of the method.
    """
    refused = 0
    for value in values:
        explorer.settle()
        drawings.drawn.clear()
        start = time.perf_counter()
        explorer.set(**{name: value})
        preview = time.perf_counter()
        explorer.settle()
        complete = time.perf_counter()
        if explorer.state == "ERROR":
            refused += 1
            check_refused(explorer)
            continue
        for what, at in (("preview", preview), ("first live figure", drawings.first_live()), ("report", complete)):
            found[what].append(1000 * (at - start))
    return refused


def check_refused(explorer: Explorer) -> None:
    """Raise `RuntimeError` unless the method itself refuses the network that `explorer` shows."""
    view = explorer.view
    with contextlib.suppress(ce.CompressionError):
        view.method(view.before, view.data)
        raise RuntimeError(f"the explorer failed at {view.method!r}: {view.message}")


def dragged(explorer: Explorer, name: str, values: list[Any], every_s: float, found: dict[str, list[float]]) -> None:
    """Set the values in a steady rhythm, whatever is still being measured; note times in ms."""
    due = time.perf_counter()
    for value in values:
        time.sleep(max(0.0, due - time.perf_counter()))
        start = time.perf_counter()
        explorer.set(**{name: value})
        found["preview while measuring"].append(1000 * (time.perf_counter() - start))
        due = max(due + every_s, time.perf_counter())
    explorer.settle()


def timed(cls: type[Method], settings: Settings) -> tuple[tuple[str, ...], list[Target]]:
    """Return the row of one method and its figures with their limits, in the order of `TARGETS`."""
    drawings = Drawings()
    found = {what: [] for what, _ in TARGETS}
    name, values = values_of(cls, settings.moves)
    with listening(drawings):
        explorer = ce.explore(cls(**cls.tried_with), *ce.load(settings.network, settings.data))
        drawings.watch(explorer)
        refused = at_rest(explorer, drawings, name, values, found)
        dragged(explorer, name, values, settings.every_ms / 1000, found)
        explorer.close()
    targets = [
        Target(f"{what}, slowest ({cls.__name__})", limit, Estimate.of(found[what]), " ms") for what, limit in TARGETS
    ]
    texts = (f"**{target.found.text(0)}**" if target.missed else target.found.text(0) for target in targets)
    return (cls.__name__, name, *texts, str(refused)), targets


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section."""
    settings, path = options(__doc__, Settings(), QUICK, given)
    rows, targets = zip(*(timed(cls, settings) for cls in settings.methods), strict=True)
    slowest = tuple(max(same, key=lambda target: target.found.median) for same in zip(*targets, strict=True))
    network = f"{settings.network} on {settings.data}"
    said = SAID.format(network=network, moves=settings.moves, every_ms=settings.every_ms)
    write(Section("explorer", f"Explorer, {network}", said, HEAD, list(rows), slowest), path)


if __name__ == "__main__":
    main(sys.argv[1:])
