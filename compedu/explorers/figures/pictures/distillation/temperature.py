"""Distillation: how temperature softens the teacher's answers, and its effect on the student's gradient."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from compedu.evaluation import logits_of
from compedu.explorers.figures.colors import DENSE, GREEN, LIVE, ORANGE
from compedu.explorers.figures.pictures.picture import GROWING, Picture, Table, line
from compedu.explorers.figures.places import title
from compedu.explorers.figures.plots import BELOW, MAIN
from compedu.explorers.view import View

IMAGES = 512  # of each split
TEMPERATURES = np.geomspace(0.5, 40, 41)


def entropy(logits: Tensor, temperature: float) -> float:
    """Return the mean entropy of softmax(logits / temperature) in bits; logits (N, classes)."""
    logs = torch.log_softmax(logits.double() / temperature, dim=1)
    # H = -sum p ln p in nats; log_softmax keeps p ln p finite where p underflows. Division by ln 2 gives bits.
    return float(-(logs.exp() * logs).sum(1).mean() / math.log(2))


def gradient_norm(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """Return the mean gradient norm of KL(softmax(teacher / T) || softmax(student / T)) in the student's logits.

    The gradient is (p - q) / T, equation 2 of Hinton et al. 2015 (arXiv:1503.02531, section 2.1).
    """
    p, q = (torch.softmax(logits.double() / temperature, dim=1) for logits in (student, teacher))
    # For large T, p - q itself falls as 1 / T (equation 3), the gradient as 1 / T^2: hence the factor T^2 in the loss.
    return float(((p - q) / temperature).norm(dim=1).mean())


def prepare(view: View, stale: Callable[[], bool]) -> None:
    """Compute the teacher's logits for some images of both splits."""
    view.once("teacher logits", lambda: {split: _asked(view, split) for split in ("train", view.split)})


def _asked(view: View, split: str) -> Tensor:
    return logits_of(view.before, view.data.split(split)[0][:IMAGES], view.data)


def _entropies(view: View, split: str) -> list[float]:
    known = view.kept.get("teacher logits")
    return (
        []
        if known is None
        else view.once(("entropies", split), lambda: [entropy(known[split], t) for t in TEMPERATURES])
    )


def _gradients(view: View) -> list[float]:
    """Return the gradient norm at each temperature for an untrained student, whose logits are all equal."""
    known = view.kept.get("teacher logits")
    if known is None:
        return []
    untrained = torch.zeros_like(known["train"])
    return view.once("gradients", lambda: [gradient_norm(untrained, known["train"], t) for t in TEMPERATURES])


def main(view: View, layer: str) -> list[dict]:
    """Return the teacher's mean entropy against temperature, on training images and on others."""
    t = temperature_of(view)
    known = view.kept.get("teacher logits")
    most = math.log2(len(view.data.classes) if known is None else known["train"].shape[1])
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
    """Return the gradient norm of the soft loss against temperature, plain and times the square of T."""
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


def student_of(view: View) -> str:
    """Return what the drawn student is called: that of an earlier run is not the student of the knobs as they are."""
    return "student (earlier run)" if view.stale else "student"


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    known = view.kept.get("teacher logits")
    if known is None:
        return "teacher's entropy: being computed"
    train, other = (entropy(known[split], temperature_of(view)) for split in ("train", view.split))
    return f"teacher, T = {temperature_of(view):g}: {train:.2f} bits on train, {other:.2f} on others"


def table(view: View) -> Table:
    """Return entropies and gradients at some temperatures."""
    known = view.kept.get("teacher logits")
    head = ("T", "teacher's entropy on train, bits", f"on {view.split}, bits", "gradient", "gradient times T²")
    if known is None:
        return head, [("being computed", "", "", "", "")]
    rows = []
    for t in sorted({1.0, 2.0, 4.0, 10.0, 20.0, temperature_of(view)}):
        norm = gradient_norm(torch.zeros_like(known["train"]), known["train"], t)
        rows.append((
            f"{t:g}", *(f"{entropy(known[split], t):.3f}" for split in ("train", view.split)), f"{norm:.4f}",
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
        MAIN.yaxis: GROWING,
        BELOW.xaxis: _LOG_T | {"title": title("temperature T")},
        BELOW.yaxis: {"type": "log", "nticks": 3, "exponentformat": "SI"},
    },
    lively=True,
    prepare=prepare,
)
