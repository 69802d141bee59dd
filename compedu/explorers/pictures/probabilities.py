"""Distillation: what teacher and student say about the image that the teacher doubts most, and the training loss."""

import torch

from compedu.explorers.colours import DENSE, GREEN, LIVE
from compedu.explorers.pictures.picture import BELOW, MAIN, Picture, bars, line
from compedu.explorers.view import View

LOOKED_AT = 512  # validation images among which the most doubtful is chosen


@torch.inference_mode()
def traces(view: View, layer: str) -> list[dict]:
    """Return the probabilities of teacher and student at the method's temperature, the true class, the training loss."""
    teacher, student, truth = probabilities(view)
    names = list(view.data.classes)
    steps = list(range(1, len(view.curve) + 1))
    return [
        bars(MAIN, names, teacher, "teacher", DENSE),
        bars(MAIN, names, student, "student", LIVE),
        line(MAIN, [names[truth]], [1.0], "true class", GREEN, mode="markers"),
        line(BELOW, steps, list(view.curve), "training loss", LIVE),
    ]


@torch.inference_mode()
def probabilities(view: View) -> tuple[list[float], list[float], int]:
    """Return both networks' softened probabilities for the image that the teacher doubts most, and its true class."""
    x, y = view.data.x_validation[:LOOKED_AT], view.data.y_validation
    sure = torch.softmax(view.before(x), 1).amax(1)
    chosen = int(sure.argmin())
    temperature = float(getattr(view.method, "temperature", 1.0))
    said = [
        torch.softmax(network(x[chosen : chosen + 1]) / temperature, 1)[0].tolist() if network is not None else []
        for network in (view.before, view.after)
    ]
    return said[0], said[1], int(y[chosen])


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    teacher, student, truth = probabilities(view)
    text = f"The image that the teacher doubts most shows {view.data.classes[truth]}: the teacher gives it {teacher[truth]:.0%}"
    return text + (f", the student {student[truth]:.0%}." if student else "; no student was trained yet.")


PICTURE = Picture(
    traces,
    ("softened probabilities: grey teacher, blue student, green truth", "training loss"),
    say,
    {"yaxis4": {"range": [0, 1.05]}, "xaxis7": {"title": {"text": "step"}}},
)
