"""What an explorer shows at one moment: plain values, no widgets; every panel is drawn from it."""

from dataclasses import dataclass, field

import torch
from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.methods import Method
from compedu.metrics import Report

STATES = ("PREVIEW", "MEASURING", "FINAL", "RUNNING", "CANCELLED", "ERROR")


@dataclass
class View:
    """The state of an explorer. `report` is what is shown, `state` how far it is measured, `baseline` the dense network.

    `points` are stored reports of this method's sweep, `controls` those of the small dense network trained from scratch,
    `pins` what the learner kept for comparison. `before` and `after` are the networks themselves.
    """

    data: Dataset
    baseline: Report
    before: nn.Module
    method: Method
    state: str = "PREVIEW"
    report: Report | None = None
    after: nn.Module | None = None
    points: tuple[Report, ...] = ()
    controls: tuple[Report, ...] = ()
    pins: list[Report] = field(default_factory=list)
    prediction: tuple[tuple[float, float], ...] = ()  # (file bytes, accuracy) as the learner drew it
    curve: list[float] = field(default_factory=list)  # training loss, one value a step
    message: str = ""

    @property
    def measured(self) -> bool:
        """Whether the shown report was measured here and now, not looked up."""
        return self.report is not None and self.state in ("MEASURING", "FINAL")

    def layer_pair(self, name: str) -> tuple[nn.Module, nn.Module | None]:
        """Return the layer `name` of the dense and of the compressed network (None where it is gone)."""
        before = self.before.get_submodule(name)
        try:
            return before, None if self.after is None else self.after.get_submodule(name)
        except AttributeError:
            return before, None


def numbers(tensor: torch.Tensor):
    """Return a tensor as a numpy array for a figure."""
    return tensor.detach().float().cpu().numpy()
