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
PLACES = np.linspace(0.0, 1.0, STAGES)
HALF = slice(STAGES // 2 * HANDS, (STAGES // 2 + 1) * HANDS)  # those half-way


class Morphs(NamedTuple):
    """Images of all stages, the true probabilities of their classes, and the teacher's logits for them."""

    images: Tensor
    true: Tensor
    teacher: Tensor


def drawable(view: View) -> bool:
    """Tell whether the images are of the kind that is drawn here, and so of the true probabilities known here."""
    data = view.data
    return data.origin == data.whole_name == "glyphs"  # with other dials the truth is another one


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


def answers(view: View) -> tuple[Tensor | None, Tensor | None]:
    """Return the softened probabilities (images, classes) of teacher and student, each None as long as unknown."""
    asked = known(view)
    student = student_logits(view)
    t = temperature_of(view)
    return (
        None if asked is None else torch.softmax(asked.teacher / t, 1),
        None if student is None else torch.softmax(student / t, 1),
    )


def second(view: View, probabilities: Tensor | None) -> list[float]:
    """Return the mean probability of the second character at each stage."""
    if probabilities is None:
        return []
    number = view.data.classes.index(SECOND)
    return probabilities[:, number].reshape(STAGES, HANDS).mean(1).tolist()


def main(view: View, layer: str) -> list[dict]:
    """Return the mean probabilities of all classes half-way, softened, and the true ones."""
    teacher, student = ([] if one is None else one[HALF].mean(0).tolist() for one in answers(view))
    names = list(view.data.classes)
    true = [FIRST, SECOND] if teacher else []
    return [
        bars(MAIN, names[: len(teacher)], teacher, "teacher", DENSE, width=0.8),
        bars(MAIN, names[: len(student)], student, student_of(view), _live(view), width=0.45),
        line(
            MAIN, true, [0.5] * len(true), "true probability", GREEN,
            mode="markers", marker={"color": GREEN, "size": 9, "symbol": "triangle-down"},
        ),
    ]  # fmt: skip


def below(view: View, layer: str) -> list[dict]:
    """Return the probability of the second character along the way: the true one, the teacher's, the student's."""
    asked = known(view)
    teacher, student = answers(view)
    curves = (
        ("true", GREEN, None if asked is None else asked.true),
        ("teacher", DENSE, teacher),
        (student_of(view), _live(view), student),
    )
    drawn = []
    for name, color, values in curves:
        along = second(view, values)
        drawn.append(line(BELOW, PLACES[: len(along)], along, name, color))
    return drawn


def _live(view: View) -> str:
    return PREVIEW if view.stale else LIVE


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
    t = temperature_of(view)
    head = (f"way from {FIRST} to {SECOND}", "true", f"teacher at T = {t:g}", f"{student_of(view)} at T = {t:g}")
    asked = known(view)
    if asked is None:
        return head, [("being drawn" if drawable(view) else "with glyphs only", "", "", "")]
    columns = [second(view, values) or [None] * STAGES for values in (asked.true, *answers(view))]
    return head, [
        (f"{place:.3g}", *("" if value is None else f"{value:.3f}" for value in values))
        for place, *values in zip(PLACES, *columns, strict=True)
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
