"""Training: the loss, step by step, as it falls; the run before in grey."""

import numpy as np

from compedu.explorers.colours import DENSE, LIVE
from compedu.explorers.pictures.picture import BELOW, line
from compedu.explorers.places import title
from compedu.explorers.view import View

HEADING = "training loss: blue = this run, grey = the run before"
AXES = {"xaxis7": {"title": title("step"), "rangemode": "tozero"}, "yaxis7": {"rangemode": "tozero", "nticks": 3}}
MOST = 300  # points of a curve: the figure is no wider


def below(view: View, layer: str) -> list[dict]:
    """Return the curve of the run before and that of this run."""
    return [_curve(view.curve_before, "loss of the run before", DENSE), _curve(view.curve, "loss", LIVE)]


def _curve(losses: list[float], name: str, colour: str) -> dict:
    """Return the mean loss of each stretch of steps, at the last step of the stretch."""
    stretch = -(-len(losses) // MOST) or 1
    values = np.array(losses[: len(losses) // stretch * stretch], dtype=np.float32).reshape(-1, stretch).mean(1)
    return line(BELOW, np.arange(1, len(values) + 1, dtype=np.int32) * stretch, values, name, colour)
