"""Distillation: the image about which the teacher is least certain, and both networks' answers at temperature T."""

from typing import Any

import torch

from compedu.explorers.figures.colors import DENSE, GREEN, LIVE, PREVIEW
from compedu.explorers.figures.pictures.distillation.temperature import student_of, temperature_of
from compedu.explorers.figures.pictures.picture import Picture, Table, bars, line
from compedu.explorers.figures.pictures.training import loss
from compedu.explorers.figures.plots import MAIN
from compedu.explorers.panel.strip import image_bytes
from compedu.explorers.view import View

CANDIDATES = 512  # images among which the most doubtful one is chosen


def main(view: View, layer: str) -> list[dict]:
    """Return the probabilities of teacher and student at the method's temperature, and the true class."""
    teacher, student, truth = probabilities(view)
    names = list(view.data.classes)
    softened = f"at T = {temperature_of(view):g}"
    color = PREVIEW if view.stale else LIVE
    return [
        bars(MAIN, names, teacher, f"teacher {softened}", DENSE, width=0.8),
        bars(MAIN, names, student, f"{student_of(view)} {softened}", color, width=0.45),
        line(
            MAIN, [names[truth]], [1.0], "true class", GREEN,
            mode="markers", marker={"color": GREEN, "size": 9, "symbol": "triangle-down"},
        ),
    ]  # fmt: skip


def probabilities(view: View) -> tuple[list[float], list[float], int]:
    """Return both networks' softened probabilities for the image with the least certain teacher, and its true class."""
    x, y = view.data.split(view.split)
    chosen, logits = view.once("doubtful", lambda: _most_doubtful(view))
    t = temperature_of(view)
    teacher = torch.softmax(logits / t, 0).tolist()
    if view.after is None:
        return teacher, [], int(y[chosen])
    with torch.inference_mode():
        student = view.after(x[chosen : chosen + 1])[0]
    return teacher, torch.softmax(student / t, 0).tolist(), int(y[chosen])


@torch.inference_mode()
def _most_doubtful(view: View) -> tuple[int, torch.Tensor]:
    logits = view.before(view.data.split(view.split)[0][:CANDIDATES])
    chosen = int(torch.softmax(logits, 1).amax(1).argmin())
    return chosen, logits[chosen].clone()


def images(view: View) -> list[dict[str, Any]]:
    """Return the image itself, for the corner of the picture."""
    chosen, _ = view.once("doubtful", lambda: _most_doubtful(view))
    return [{
        "source": image_bytes(view.data, view.split, chosen, 64), "layer": "above",
        "xref": f"{MAIN.x} domain", "yref": f"{MAIN.y} domain",
        "x": 1, "y": 1, "xanchor": "right", "yanchor": "top", "sizex": 0.2, "sizey": 0.45,
    }]  # fmt: skip


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    teacher, student, truth = probabilities(view)
    name = view.data.classes[truth]
    return f"{name} at T = {temperature_of(view):g}: teacher {100 * teacher[truth]:.0f} %, " + (
        f"{student_of(view)} {100 * student[truth]:.0f} %" if student else "no student yet"
    )


def table(view: View) -> Table:
    """Return the probabilities of each class."""
    teacher, student, truth = probabilities(view)
    rows = [
        (name, "true" if index == truth else "", f"{teacher[index]:.3f}", f"{student[index]:.3f}" if student else "")
        for index, name in enumerate(view.data.classes)
    ]
    softened = f"at T = {temperature_of(view):g}"
    return ("class", "", f"teacher {softened}", f"{student_of(view)} {softened}"), rows


PICTURE = Picture(
    name="one image",
    main=main,
    below=loss.below,
    headings=("softened: gray = teacher, blue = student", loss.HEADING),
    say=say,
    table=table,
    axes={MAIN.yaxis: {"range": [0, 1.12], "nticks": 4}, MAIN.xaxis: {"tickangle": 0, "type": "category"}} | loss.AXES,
    images=images,
    lively=True,
)
