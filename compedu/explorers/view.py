"""What an explorer shows at one moment: plain values, no widgets; every panel is drawn from it."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from torch import nn

from compedu.compression import compression_of
from compedu.datasets.dataset import Dataset
from compedu.methods import Method
from compedu.metrics import Change, Latency, Report
from compedu.replications.races import StoredRace


class State(StrEnum):
    """How far the shown figures are measured."""

    PREVIEW = "PREVIEW"  # measured earlier, here or at a nearby setting
    MEASURING = "MEASURING"  # over the images evaluated so far
    FINAL = "FINAL"  # complete, with the knobs as they are
    RUNNING = "RUNNING"  # a method is training
    CANCELLED = "CANCELLED"
    ERROR = "ERROR"


class News(StrEnum):
    """What has changed in a view beside its state."""

    KNOBS = "knobs"
    FIGURES = "figures"  # a first or a finer measurement
    NETWORK = "network"  # another compressed network
    TRAINING = "training"  # one more training step


class Sideways(StrEnum):
    """The horizontal axis of the trade-off curve."""

    SIZE = "size of the file"
    KNOB = "the main knob"
    MACS = "multiply-accumulates"
    TIME = "time of a batch, measured here"


@dataclass
class Learning:
    """A training as it is shown: its `losses`, one a step, and what was `reached` at some steps: step, accuracy 0..1.

    `steps` is how many there will be.
    """

    steps: int = 1
    losses: list[float] = field(default_factory=list)
    reached: list[tuple[int, float]] = field(default_factory=list)
    drawn_at: float = 0.0  # when it was drawn last, a monotonic time in seconds


@dataclass(frozen=True)
class Outcome:
    """How a race ended: the reports of both students on the same images, and the change from alone to taught."""

    alone: Report
    taught: Report
    change: Change


@dataclass
class Race:
    """A student that learns alone, step by step beside the one with a teacher; how it went for `stored` seeds."""

    alone: Learning = field(default_factory=Learning)
    outcome: Outcome | None = None
    stored: tuple[StoredRace, ...] = ()


@dataclass
class View:
    """The state of an explorer: `report` is shown, `state` is how far it is measured, `baseline` the dense network.

    `points` are stored reports of this method's sweep, `controls` those of the small dense network trained from
    scratch, `random_baseline` those of the same method with a random criterion, `pins` the reports that the learner
    keeps for comparison. `before` and `after` are the networks themselves.
    """

    data: Dataset
    split: str
    baseline: Report
    before: nn.Module
    method: Method
    state: State = State.PREVIEW
    report: Report | None = None
    after: nn.Module | None = None
    points: tuple[Report, ...] = ()
    stored: Report | None = None  # that of `points` nearest to the method
    controls: tuple[Report, ...] = ()
    random_baseline: tuple[Report, ...] = ()
    pins: list[Report] = field(default_factory=list)
    seen: dict[str, Report] = field(default_factory=dict)  # final reports of this explorer, by method
    earlier: Method | None = None  # the method before the last change of another knob than the main one
    sideways: Sideways = Sideways.SIZE  # what the trade-off curve is drawn over
    predicted: tuple[float, ...] = ()  # the learner's predicted accuracies, one for each setting asked about
    predicted_there: tuple[float, ...] = ()  # those of them at the points of `asked`
    asked: tuple[Report, ...] = ()  # the same points as measured
    learning: Learning = field(default_factory=Learning)  # of the running training, or of the last one
    previous: Learning = field(default_factory=Learning)  # of the run before it
    race: Race | None = None  # of an explorer that trains the control as well
    message: str = ""
    details: str = ""  # the traceback of an error
    refused: bool = False  # whether an error refuses the setting, rather than that the method broke on it
    kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def measured(self) -> bool:
        """Whether the shown report was measured just now rather than looked up."""
        return self.report is not None and self.state in (State.MEASURING, State.FINAL)

    @property
    def stored_latency(self) -> Latency | None:
        """The time of the stored point, measured on another machine; None without one, or with its verdict withheld."""
        latency = None if self.stored is None else self.stored.latency
        verdict = None if latency is None else latency.verdict
        return None if verdict is None or verdict.startswith("withheld") else latency

    @property
    def nearby(self) -> bool:
        """Whether the shown report belongs to another setting, the nearest one with a known report."""
        return self.report is not None and self.report.method != repr(self.method)

    @property
    def stale(self) -> bool:
        """Whether `after` is of an earlier run, with other knobs: a method that trains does not follow them at once."""
        return self.after is not None and not " | ".join(compression_of(self.after).steps).endswith(repr(self.method))

    def layer_pair(self, name: str) -> tuple[nn.Module, nn.Module | None]:
        """Return the layer `name` of the dense and of the compressed network (None where it was removed)."""
        before = self.before.get_submodule(name)
        try:
            return before, None if self.after is None else self.after.get_submodule(name)
        except AttributeError:
            return before, None

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the result of `make`, computed at the first call: for what no knob changes."""
        if key in self.kept:
            return self.kept[key]
        self.kept[key] = made = make()
        return made  # read again, it could have been given back by another thread
