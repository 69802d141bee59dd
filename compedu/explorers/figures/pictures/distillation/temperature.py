"""Distillation: how temperature softens the teacher's answers, and what it does to the student's gradient."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from compedu.evaluation import logits_of
from compedu.explorers.figures.colors import DENSE, GREEN, LIVE, ORANGE
from compedu.explorers.figures.pictures.picture import Picture, Table, line
from compedu.explorers.figures.places import title
from compedu.explorers.figures.plots import BELOW, MAIN
from compedu.explorers.view import View

IMAGES = 512  # of each split
TEMPERATURES = np.geomspace(0.5, 40, 41)


def entropy(scores: Tensor, temperature: float) -> float:
    """Return the mean entropy of softmax(scores / temperature) in bits; scores (N, classes)."""
    logs = torch.log_softmax(scores.double() / temperature, dim=1)
    return float(-(logs.exp() * logs).sum(1).mean() / math.log(2))


def gradient_norm(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """Return the mean norm of the gradient of KL(softmax(teacher / T) || softmax(student / T)) in the student's scores.

    It is (p - q) / T (Hinton et al. 2015, section 2.1): for large T it falls as 1 / T^2, hence the factor in the loss.
    """
    p, q = (torch.softmax(scores.double() / temperature, dim=1) for scores in (student, teacher))
    return float(((p - q) / temperature).norm(dim=1).mean())


def prepare(view: View, stale: Callable[[], bool]) -> None:
    """Ask the teacher about some images of both splits."""
    view.once("softness", lambda: {split: _asked(view, split) for split in ("train", view.split)})


def _asked(view: View, split: str) -> Tensor:
    return logits_of(view.before, view.data.split(split)[0][:IMAGES], view.data)


def _entropies(view: View, split: str) -> list[float]:
    said = view.kept.get("softness")
    return (
        [] if said is None else view.once(("entropies", split), lambda: [entropy(said[split], t) for t in TEMPERATURES])
    )


def _gradients(view: View) -> list[float]:
    """Return the gradient's norm at each temperature for a student that has learned nothing: its scores are alike."""
    said = view.kept.get("softness")
    if said is None:
        return []
    nothing = torch.zeros_like(said["train"])
    return view.once("gradients", lambda: [gradient_norm(nothing, said["train"], t) for t in TEMPERATURES])


def main(view: View, layer: str) -> list[dict]:
    """Return the teacher's mean entropy against temperature, on images it was trained on and on others."""
    t = temperature_of(view)
    said = view.kept.get("softness")
    most = math.log2(len(view.data.classes) if said is None else said["train"].shape[1])
    curves = []
    for split, color in (("train", ORANGE), (view.split, LIVE)):
        values = _entropies(view, split)
        curves.append(line(MAIN, TEMPERATURES[: len(values)], values, f"entropy on {split} images, bits", color))
    return [
        line(
            MAIN, [TEMPERATURES[0], TEMPERATURES[-1]], [most, most], "all classes alike", DENSE,
            line={"dash": "dot", "width": 1},
        ),
        *curves, line(MAIN, [t, t], [0, most], f"T = {t:g}", GREEN),
    ]  # fmt: skip


def below(view: View, layer: str) -> list[dict]:
    """Return the norm of the soft loss's gradient against temperature, as it is and times the square of T."""
    t = temperature_of(view)
    plain = _gradients(view)
    x = TEMPERATURES[: len(plain)]  # none before the teacher's logits are known
    scaled = [norm * one**2 for norm, one in zip(plain, x, strict=True)]
    return [
        line(BELOW, x, plain, "gradient", DENSE),
        line(BELOW, x, scaled, "gradient times T²", LIVE),
        line(BELOW, [t, t], [min(plain, default=0.1), max(scaled, default=1.0)], f"T = {t:g}", GREEN),
    ]


def temperature_of(view: View) -> float:
    """Return the method's temperature."""
    return float(getattr(view.method, "temperature", 1.0))


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    said = view.kept.get("softness")
    if said is None:
        return "teacher's entropy: being computed"
    train, other = (entropy(said[split], temperature_of(view)) for split in ("train", view.split))
    return f"teacher, T = {temperature_of(view):g}: {train:.2f} bits on train, {other:.2f} on others"


def table(view: View) -> Table:
    """Return entropies and gradients at some temperatures."""
    said = view.kept.get("softness")
    head = ("T", "teacher's entropy on train, bits", f"on {view.split}, bits", "gradient", "gradient times T²")
    if said is None:
        return head, [("being computed", "", "", "", "")]
    rows = []
    for t in sorted({1.0, 2.0, 4.0, 10.0, 20.0, temperature_of(view)}):
        norm = gradient_norm(torch.zeros_like(said["train"]), said["train"], t)
        rows.append((
            f"{t:g}", *(f"{entropy(said[split], t):.3f}" for split in ("train", view.split)), f"{norm:.4f}",
            f"{norm * t * t:.3f}",
        ))  # fmt: skip
    return head, rows


_LOG_T = {"type": "log", "tickvals": [0.5, 1, 2, 4, 10, 20, 40], "ticktext": ["½", "1", "2", "4", "10", "20", "40"]}
PICTURE = Picture(
    name="temperature",
    main=main,
    below=below,
    headings=(
        "entropy in bits: orange = train, blue = other images",
        "gradient for an untrained student: blue = times T²",
    ),
    say=say,
    table=table,
    axes={
        MAIN.xaxis: _LOG_T,
        MAIN.yaxis: {"rangemode": "tozero", "nticks": 5},
        BELOW.xaxis: _LOG_T | {"title": title("temperature T")},
        BELOW.yaxis: {"type": "log", "nticks": 3, "exponentformat": "SI"},
    },
    lively=True,
    prepare=prepare,
)
