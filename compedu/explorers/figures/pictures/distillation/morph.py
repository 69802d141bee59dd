"""Distillation: what a teacher says of an image that is truly half one character and half another, at temperature T."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from compedu.datasets.drawn import morphs
from compedu.evaluation import all_logits
from compedu.explorers.figures.colors import DENSE, GREEN, LIVE, PREVIEW
from compedu.explorers.figures.pictures.distillation.temperature import entropy, student_of, temperature_of
from compedu.explorers.figures.pictures.picture import Picture, Table, bars, line
from compedu.explorers.figures.places import ABOVE_NAMES, HIGHER, down, title
from compedu.explorers.figures.plots import BELOW, MAIN
from compedu.explorers.view import View

FIRST = "O"
SECOND = "Q"
STAGES = 9  # from the first to the second
HANDS = 32  # images of each stage
HALF = slice(STAGES // 2 * HANDS, (STAGES // 2 + 1) * HANDS)  # those half-way


class Morphs(NamedTuple):
    """Images of all stages, the true probabilities of their classes, and the teacher's logits for them."""

    images: Tensor
    true: Tensor
    teacher: Tensor


def drawable(view: View) -> bool:
    """Tell whether the network knows both characters, as images of the kind that is drawn here."""
    data = view.data
    return data.origin == "glyphs" and data.shape == (1, 32, 32) and {FIRST, SECOND} <= set(data.classes)


def prepare(view: View, stale: Callable[[], bool]) -> None:
    """Draw the images, and let the teacher see them."""
    if drawable(view):
        view.once("morphs", lambda: _asked(view))


def _asked(view: View) -> Morphs:
    images, true = morphs(FIRST, SECOND, STAGES, HANDS)
    return Morphs(images, true, all_logits(view.before, images, view.data))


def known(view: View) -> Morphs | None:
    """Return images and the teacher's logits; None before they are computed, and for other data."""
    return view.kept.get("morphs")


def student_logits(view: View) -> Tensor | None:
    """Return the student's logits for all images, evaluated once for each student; None without one."""
    asked = known(view)
    if view.after is None or asked is None:
        return None
    if view.kept.get("student of morphs", (None, None))[0] is not view.after:
        view.kept["student of morphs"] = (view.after, all_logits(view.after, asked.images, view.data))
    return view.kept["student of morphs"][1]


def answers(view: View) -> list[tuple[str, str, Tensor]]:
    """Return name, color and softened probabilities (images, classes) of the teacher, and of a student if any."""
    asked = known(view)
    if asked is None:
        return []
    t = temperature_of(view)
    found = [("teacher", DENSE, torch.softmax(asked.teacher / t, 1))]
    student = student_logits(view)
    if student is not None:
        found.append((student_of(view), PREVIEW if view.stale else LIVE, torch.softmax(student / t, 1)))
    return found


def main(view: View, layer: str) -> list[dict]:
    """Return the mean probabilities of all classes half-way, softened, and the true ones."""
    asked = known(view)
    names = list(view.data.classes)
    given = {color: (name, values[HALF].mean(0).tolist()) for name, color, values in answers(view)}
    teacher = given.pop(DENSE, ("teacher", []))
    color, student = next(iter(given.items()), (LIVE, ("student", [])))
    true = [] if asked is None else [FIRST, SECOND]
    return [
        bars(MAIN, names if teacher[1] else [], teacher[1], teacher[0], DENSE, width=0.8),
        bars(MAIN, names if student[1] else [], student[1], student[0], color, width=0.45),
        line(
            MAIN, true, [0.5] * len(true), "true probability", GREEN,
            mode="markers", marker={"color": GREEN, "size": 9, "symbol": "triangle-down"},
        ),
    ]  # fmt: skip


def below(view: View, layer: str) -> list[dict]:
    """Return the probability of the second character along the way: the true one, the teacher's, the student's."""
    asked = known(view)
    places = np.linspace(0.0, 1.0, STAGES)
    second = list(view.data.classes).index(SECOND) if drawable(view) else 0
    curves = {} if asked is None else {"true": asked.true} | {name: values for name, _, values in answers(view)}
    colors = {"true": GREEN, "teacher": DENSE, "student": PREVIEW if view.stale else LIVE}
    drawn = []
    for name, color in colors.items():
        values = next((one for called, one in curves.items() if called.startswith(name)), None)
        along = [] if values is None else values[:, second].reshape(STAGES, HANDS).mean(1).tolist()
        drawn.append(line(BELOW, places[: len(along)], along, name, color))
    return drawn


def say(view: View, layer: str) -> str:
    """Say in words how much the networks doubt half-way, in bits; the truth is one bit."""
    if not drawable(view):
        return f"teacher on {FIRST} to {SECOND}: with glyphs only"
    asked = known(view)
    if asked is None:
        return f"teacher on {FIRST} to {SECOND}: being drawn"
    t = temperature_of(view)
    bits = [f"teacher {entropy(asked.teacher[HALF], t):.2f} bits"]
    student = student_logits(view)
    if student is not None:
        bits.append(f"student {entropy(student[HALF], t):.2f}")
    return f"T = {t:g}: {', '.join(bits)}, true 1.00"


def table(view: View) -> Table:
    """Return the probability of the second character at each stage."""
    given = answers(view)
    head = (f"way from {FIRST} to {SECOND}", "true", *(f"{name} at T = {temperature_of(view):g}" for name, *_ in given))
    asked = known(view)
    if asked is None:
        return head, [("being drawn" if drawable(view) else "with glyphs only", *[""] * (len(head) - 1))]
    second = list(view.data.classes).index(SECOND)
    columns = [values[:, second].reshape(STAGES, HANDS).mean(1) for values in (asked.true, *(one[2] for one in given))]
    places = np.linspace(0.0, 1.0, STAGES)
    return head, [
        (f"{place:.3g}", *(f"{column[stage]:.3f}" for column in columns)) for stage, place in enumerate(places)
    ]


PICTURE = Picture(
    name="a morph",
    main=main,
    below=below,
    headings=("half O, half Q: gray = teacher, blue = student", "probability of Q on the way from O; green = true"),
    say=say,
    table=table,
    axes={
        MAIN.yaxis: {"range": [0, 1.05], "nticks": 4, "domain": down(*ABOVE_NAMES)},
        MAIN.xaxis: {"tickangle": 0, "type": "category", "dtick": 1},
        BELOW.xaxis: {"title": title("way from O to Q"), "range": [0, 1], "nticks": 5},
        BELOW.yaxis: {"range": [0, 1.05], "nticks": 3, "domain": down(*HIGHER)},
    },
    lively=True,
    prepare=prepare,
)
