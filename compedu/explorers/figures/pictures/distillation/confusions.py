"""Distillation: which classes the teacher confuses with one another, and which ones the student does."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from compedu.evaluation import all_logits
from compedu.explorers.figures.colors import LIVE, WHITE
from compedu.explorers.figures.pictures.distillation.temperature import student_of, temperature_of
from compedu.explorers.figures.pictures.picture import Picture, Table, heatmap
from compedu.explorers.figures.pictures.training import loss
from compedu.explorers.figures.plots import MAIN
from compedu.explorers.view import View

IMAGES = 1000  # of the split, on which both are evaluated
FADED = 0.4
SHADES = [[0.0, WHITE], [0.5, WHITE], [1.0, LIVE]]


def doubts(logits: Tensor, labels: Tensor, classes: int, temperature: float) -> np.ndarray:
    """Return the mean probability of each class (columns) for the images of each class (rows); NaN on the diagonal."""
    return _by_class(torch.softmax(logits / temperature, dim=1)[:, :classes], labels, classes)


def mistakes(logits: Tensor, labels: Tensor, classes: int) -> np.ndarray:
    """Return the share of images of each class (rows) classified as another one (columns); NaN on the diagonal."""
    said = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()
    return _by_class(said[:, :classes], labels, classes)


def _by_class(values: Tensor, labels: Tensor, classes: int) -> np.ndarray:
    sums = torch.zeros(classes, classes).index_add_(0, labels, values)
    means = sums / torch.bincount(labels, minlength=classes).clamp(min=1)[:, None]
    return means.fill_diagonal_(float("nan")).numpy()


def matrices(view: View) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the teacher's doubts at the method's temperature, and the student's mistakes, if there is one."""
    x, y = (part[:IMAGES] for part in view.data.split(view.split))
    classes = len(view.data.classes)
    prepare(view, lambda: False)
    made = doubts(view.kept["teacher"], y, classes, temperature_of(view))
    if view.after is None:
        return made, None
    if view.kept.get("student", (None, None))[0] is not view.after:  # evaluated once for each student
        view.kept["student"] = (view.after, mistakes(all_logits(view.after, x, view.data), y, classes))
    return made, view.kept["student"][1]


def prepare(view: View, stale: Callable[[], bool]) -> None:
    """Compute the teacher's logits."""
    view.once("teacher", lambda: all_logits(view.before, view.data.split(view.split)[0][:IMAGES], view.data))


def main(view: View, layer: str) -> list[dict]:
    """Return both matrices side by side, one scale each: rows are the true classes."""
    count = len(view.data.classes)
    empty = np.full((count, count), np.nan, dtype=np.float32)
    teacher, student = matrices(view) if "teacher" in view.kept else (empty, None)
    gap = np.full((count, 2), np.nan, dtype=np.float32)
    none = np.full((count, count), np.nan, dtype=np.float32)
    left = np.concatenate([teacher, gap, none], axis=1)
    right = np.concatenate([none, gap, none if student is None else student], axis=1)
    names = list(view.data.classes)
    # Plotly's categories are unique: the names on the right end in a space.
    columns = [*names, "", " ", *(f"{name} " for name in names)]
    softened = f"teacher's probability at T = {temperature_of(view):g}"
    label = "<br>true %{y}, taken for %{x}: %{z:.3f}<extra></extra>"
    return [
        heatmap(
            MAIN, left, softened, SHADES, x=columns, y=names, hovertemplate=softened + label,
        ),
        heatmap(
            MAIN, right, f"mistakes of the {student_of(view)}", SHADES, x=columns, y=names,
            opacity=FADED if view.stale else 1, hovertemplate=f"share of the answers of the {student_of(view)}" + label,
        ),
    ]  # fmt: skip


def agreement(view: View) -> float | None:
    """Return the correlation of the teacher's doubts with the student's mistakes over all pairs of classes."""
    if "teacher" not in view.kept:
        return None
    teacher, student = matrices(view)
    if student is None:
        return None
    off = ~np.eye(len(teacher), dtype=bool)
    if not student[off].any():
        return None
    return float(np.corrcoef(teacher[off], student[off])[0, 1])


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    found = agreement(view)
    teacher = f"teacher at T = {temperature_of(view):g}"
    if found is None:
        return f"{teacher}, " + ("no student yet" if view.after is None else f"no mistake of the {student_of(view)}")
    return f"{teacher}, {student_of(view)}: r = {found:.2f}"


def table(view: View) -> Table:
    """Return the pairs of classes that the student confuses most, with the teacher's probability for them."""
    softened = f"teacher's probability at T = {temperature_of(view):g}"
    head = ("true class", "taken for", softened, f"share of the answers of the {student_of(view)}")
    if "teacher" not in view.kept:
        return head, [("being computed", "", "", "")]
    teacher, student = matrices(view)
    ranked = np.argsort(-np.nan_to_num(teacher if student is None else student, nan=-1.0), axis=None)[:10]
    names = view.data.classes
    rows = []
    for true, taken in zip(*np.unravel_index(ranked, teacher.shape), strict=True):
        rows.append((
            names[true], names[taken], f"{teacher[true, taken]:.3f}",
            "" if student is None else f"{student[true, taken]:.3f}",
        ))  # fmt: skip
    return head, rows


PICTURE = Picture(
    name="confusions",
    main=main,
    below=loss.below,
    headings=("rows = true class: left teacher, right student", loss.HEADING),
    say=say,
    table=table,
    axes={
        MAIN.xaxis: {"type": "category", "visible": False},
        MAIN.yaxis: {"autorange": "reversed", "type": "category", "visible": False},
    }
    | loss.AXES,
    lively=True,
    prepare=prepare,
)
