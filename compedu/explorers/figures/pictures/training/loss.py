"""Training: the loss, step by step, and the accuracy on some images meanwhile; the previous run in gray."""

from collections.abc import Sequence

import numpy as np

from compedu.explorers.figures.colors import DENSE, LIVE
from compedu.explorers.figures.pictures.picture import line
from compedu.explorers.figures.places import LEFT, across, title
from compedu.explorers.figures.plots import BELOW, BESIDE
from compedu.explorers.view import View

HEADING = "loss; gray = previous run | accuracy, %"
AXES = {
    BELOW.xaxis: {"domain": across(LEFT[0], 180), "title": title("step"), "rangemode": "tozero", "nticks": 3},
    BELOW.yaxis: {"rangemode": "tozero", "nticks": 3},
    BESIDE.xaxis: {"visible": True, "title": title("step"), "rangemode": "tozero", "nticks": 3},
    BESIDE.yaxis: {"visible": True, "range": [0, 103], "tickvals": [0, 50, 100]},
}  # fmt: skip
MOST = 300  # points of a curve: the figure has no more pixels


def below(view: View, layer: str) -> list[dict]:
    """Return loss and accuracy of the previous run and of this run."""
    before = view.previous
    now = view.learning
    return [
        _losses(before.losses, "loss of the previous run", DENSE), _losses(now.losses, "loss", LIVE),
        _reached(before.reached, "accuracy of the previous run, %", DENSE), _reached(now.reached, "accuracy, %", LIVE),
    ]  # fmt: skip


def _losses(losses: Sequence[float], name: str, color: str) -> dict:
    """Return the mean loss of each stretch of steps, at the last step of the stretch."""
    stretch = -(-len(losses) // MOST) or 1
    values = np.array(losses[: len(losses) // stretch * stretch], dtype=np.float32).reshape(-1, stretch).mean(1)
    return line(BELOW, np.arange(1, len(values) + 1, dtype=np.int32) * stretch, values, name, color)


def _reached(points: Sequence[tuple[int, float]], name: str, color: str) -> dict:
    steps, reached = zip(*points, strict=True) if points else ((), ())
    return line(BESIDE, np.array(steps, dtype=np.int32), np.array(reached, dtype=np.float32) * 100, name, color)
