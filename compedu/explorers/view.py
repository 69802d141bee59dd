"""What an explorer shows at one moment: plain values, no widgets; every panel is drawn from it."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.methods import Method
from compedu.metrics import Report


@dataclass
class View:
    """The state of an explorer: `report` is shown, `state` is how far it is measured, `baseline` the dense network.

    `points` are stored reports of this method's sweep, `controls` those of the small dense network trained from
    scratch, `random_baseline` those of the method that does the same at random, `pins` what the learner kept to compare
    with. `before` and `after` are the networks themselves.
    """

    data: Dataset
    split: str
    baseline: Report
    before: nn.Module
    method: Method
    state: str = "PREVIEW"
    report: Report | None = None
    after: nn.Module | None = None
    points: tuple[Report, ...] = ()
    controls: tuple[Report, ...] = ()
    random_baseline: tuple[Report, ...] = ()
    pins: list[Report] = field(default_factory=list)
    predicted: tuple[float, ...] = ()  # accuracies as the learner expects them, at the points of `asked`
    asked: tuple[Report, ...] = ()  # the same points as measured
    curve: list[float] = field(default_factory=list)  # training loss, one value a step
    race: list[tuple[int, float]] = field(default_factory=list)  # step, accuracy then on the first images of the split
    before_it: tuple[list[float], list[tuple[int, float]]] = ((), ())  # curve and race of the run before
    message: str = ""
    details: str = ""  # the traceback of an error
    kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def measured(self) -> bool:
        """Whether the shown report was measured here and now, not looked up."""
        return self.report is not None and self.state in ("MEASURING", "FINAL")

    @property
    def nearby(self) -> bool:
        """Whether the shown report is that of another setting: the nearest one that was measured before."""
        return self.report is not None and self.report.method != repr(self.method)

    def layer_pair(self, name: str) -> tuple[nn.Module, nn.Module | None]:
        """Return the layer `name` of the dense and of the compressed network (None where it is gone)."""
        before = self.before.get_submodule(name)
        try:
            return before, None if self.after is None else self.after.get_submodule(name)
        except AttributeError:
            return before, None

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what `make` gives, computed at the first call: for what no knob changes."""
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]
