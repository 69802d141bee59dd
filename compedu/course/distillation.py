"""Checks of chapter 09: the loss of soft targets with its gradient, unfair comparisons, a class never seen."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compedu.course.answers import called, kind_of, number

CLOSE = 1e-4  # relative: answers may compute in single precision
REASONS = ("fair", "roles", "seed", "epochs", "selection")
CLASSES = 8  # of the drawn logits
# On so many a bias is found, and on so many judged. With 800 for the first, the best bias of those lost more than LOST
# on the others in one draw of 80; with 4,000 at most 0.64 % in 800 draws.
MISSING_IMAGES = (4000, 8000)
STRENGTHS = {"strength": (2.5, 4.0), "weakness": (1.2, 2.0), "offset": (2.0, 7.0)}  # of logits, in spreads of noise
LOST = 0.01  # of all images, more than with the best bias


def soft_gradient(function: Callable[[Tensor, Tensor, float], Any], seed: int) -> str:
    """Check a function (student's logits, teacher's, T) -> T^2 KL(teacher || student), a mean, and its gradient."""
    rng = np.random.default_rng(seed)
    for images, classes, t in ((4, 3, 1.0), (1, 5, 3.0), (6, 10, float(rng.uniform(4, 20))), (3, 2, 0.5)):
        student, teacher = (torch.from_numpy(rng.normal(0, 3, (images, classes)).astype(np.float32)) for _ in "st")
        answer = called(function, student.clone(), teacher.clone(), t)
        assert isinstance(answer, (tuple, list)) and len(answer) == 2, (
            f"return two things, the loss and the gradient, not a {kind_of(answer)}"
        )
        loss, gradient = (_numbers(one, what) for one, what in zip(answer, ("loss", "gradient"), strict=True))
        wanted, slope = _soft(student, teacher, t)
        _compare_loss(loss, wanted, student, teacher, t)
        _compare_gradient(gradient, slope, t)
    return "loss and gradient of softened logits, at several temperatures and sizes of a batch"


def _numbers(answer: Any, what: str) -> Tensor:
    """Return an answer as a tensor, float64, or raise an `AssertionError` with a hint."""
    assert isinstance(answer, (Tensor, np.ndarray, list, tuple, int, float)), f"the {what} is a {kind_of(answer)}"
    made = torch.as_tensor(answer).detach()
    assert not made.is_complex() and bool(made.isfinite().all()), f"not all numbers of the {what} are real and finite"
    return made.double()


def _soft(student: Tensor, teacher: Tensor, t: float) -> tuple[float, Tensor]:
    p = torch.softmax(student.double() / t, 1)
    q = torch.softmax(teacher.double() / t, 1)
    divergence = (q * (q.log() - p.log())).sum(1).mean()
    return float(t**2 * divergence), t * (p - q) / len(p)


def _near(found: float, wanted: float) -> bool:
    return abs(found - wanted) <= CLOSE * max(1e-3, abs(wanted))


def _compare_loss(loss: Tensor, wanted: float, student: Tensor, teacher: Tensor, t: float) -> None:
    assert loss.numel() == 1, (
        f"the loss is one number, the mean over the images; yours has the shape {tuple(loss.shape)}"
    )
    found = float(loss)
    images, classes = student.shape
    told = f"T = {t:.3g}: your loss is {found:.5g}, not {wanted:.5g}"
    unlike_one = t != 1
    hints = (
        (unlike_one and _near(found * t * t, wanted), "T squared times too small. Why is it in the formula?"),
        (unlike_one and _near(found * t, wanted), "T times too small; the factor is the square"),
        (_near(found * classes, wanted), f"{classes} times too small, the number of classes: over what is the mean?"),
        (
            images > 1 and _near(found, wanted * images),
            f"{images} times too large: take the mean over images",
        ),
        (_near(found, _soft(teacher, student, t)[0]), "student and teacher are exchanged: which one is the truth?"),
        (_near(found, wanted + _entropy(teacher, t)), "it is the cross entropy: subtract the entropy of the teacher"),
        (_near(found, _soft(student, teacher * t, t)[0]), "the teacher's logits are not divided by T"),
        (_near(found, _soft(student * t, teacher, t)[0]), "the student's logits are not divided by T"),
    )
    hint = next((text for holds, text in hints if holds), "compare it with the formula, term by term, for one image")
    assert _near(found, wanted), f"{told}; {hint}"


def _entropy(logits: Tensor, t: float) -> float:
    """Return T^2 times the mean entropy of the softened answers, which the cross entropy has too much."""
    q = torch.softmax(logits.double() / t, 1)
    return float(-(t**2) * (q * q.log()).sum(1).mean())


def _compare_gradient(gradient: Tensor, wanted: Tensor, t: float) -> None:
    told = f"T = {t:.3g}, images: {len(wanted)}: your gradient"
    assert gradient.shape == wanted.shape, (
        f"{told} has the shape {tuple(gradient.shape)}; it is one number for each logit, {tuple(wanted.shape)}"
    )
    off = float((gradient - wanted).abs().max())
    within = CLOSE * float(wanted.abs().max())
    ratio = float((gradient * wanted).sum() / wanted.square().sum())
    assert off <= within or abs(ratio + 1) > CLOSE, (
        f"{told} has the wrong sign: where the student gives a class more than the teacher, a larger logit costs more"
    )
    assert off <= within, (
        f"{told} is {ratio:.4g} times what it should be, on average. The square of T in front and the 1 / T of the "
        "chain rule leave one T; then comes the mean over the images"
    )


def fair_comparisons(function: Callable[[list[dict]], list[str]], seed: int) -> str:
    """Check a function (log of comparisons) -> for each what is wrong with it, or "fair"."""
    rng = np.random.default_rng(seed)
    for _ in range(20):
        reasons = [str(reason) for reason in rng.permutation(REASONS)]
        log = [_comparison(rng, reason) for reason in reasons]
        given = called(function, log)
        assert isinstance(given, (list, tuple)) and len(given) == len(log), (
            f"return a list of {len(log)} words, one for each comparison, not {given!r:.60}"
        )
        for said, reason, one in zip(given, reasons, log, strict=True):
            assert said in REASONS, f"{said!r:.40} is none of the words {', '.join(REASONS)}"
            assert said == reason, f"you say {said!r} of {one}. {_hint(said, reason)}"
    return "every comparison that is not fair is found, with what is wrong, and the fair ones are left alone"


def _hint(said: str, reason: str) -> str:
    if said == "selection":
        return "Are those two sets of images the same? Nothing else counts for a selection."
    if reason == "fair":
        return "Nothing is wrong with it. Does a teacher have to help for a comparison to be fair?"
    questions = {
        "roles": "Which of the two networks is the larger one?",
        "seed": "Did both students start from the same weights?",
        "epochs": "Did both students train equally long?",
        "selection": "On which images was the temperature chosen, and on which are the accuracies?",
    }
    return questions[reason]


def _comparison(rng: np.random.Generator, reason: str) -> dict[str, Any]:
    """Return a comparison of a taught student with the same one alone, which is wrong for this one reason."""
    small, large = sorted(int(size) for size in rng.integers(10, 1000, 2) * 1000 + np.array([0, 1]))
    seed, epochs = (int(one) for one in (rng.integers(100), rng.integers(10, 50)))
    taught, alone = ({"seed": seed, "epochs": epochs, "accuracy": round(float(rng.uniform(0.7, 0.9)), 3)} for _ in "ta")
    if reason == "seed":
        alone["seed"] += int(rng.integers(1, 10))
    if reason == "epochs":  # in favor of either of them
        (taught, alone)[int(rng.integers(2))]["epochs"] += int(rng.integers(1, 20))
    splits = [str(split) for split in rng.permutation(("validation", "test"))]
    chosen, read = splits[::-1] if reason != "selection" else splits[:1] * 2
    teacher, student = (small, large + 1) if reason == "roles" else (large + 1, small)
    return {
        "teacher": {"parameters": teacher}, "student": {"parameters": student}, "taught": taught, "alone": alone,
        "temperature_chosen_on": chosen, "accuracies_on": read,
    }  # fmt: skip


def missing_class(function: Callable[[Tensor, Tensor, int], float], seed: int) -> str:
    """Check a function (logits, labels, class) -> what to add to the logits of the class, best for all images."""
    rng = np.random.default_rng(seed)
    for _ in range(4):
        missing = int(rng.integers(CLASSES))
        drawn = {name: float(rng.uniform(*ends)) for name, ends in STRENGTHS.items()}
        few, many = (_logits(rng, count, missing, **drawn) for count in MISSING_IMAGES)
        bias = float(number(function, few[0].clone(), few[1].clone(), missing))
        assert np.isfinite(bias), f"the bias is {bias}: give a finite number"
        best = max(_right(*many, missing, at / 10) for at in range(-20, 120))
        found = _right(*many, missing, bias)
        of_it = many[1] == missing
        told = (
            f"with your bias of {bias:.3g}, {found:.1%} of {len(many[0])} other images are right, of that class "
            f"{_right(many[0][of_it], many[1][of_it], missing, bias):.1%}; the best bias has {best:.1%} of all right"
        )
        assert found >= best - LOST, (
            f"{told}, of which you may lose {LOST:.0%}. Too small a bias never answers with the class, too large a one "
            "answers with nothing else. If you search in steps, try finer ones"
        )
    return "the class comes back, and the others do not pay for it"


def _logits(
    rng: np.random.Generator, count: int, missing: int, strength: float, weakness: float, offset: float
) -> tuple[Tensor, Tensor]:
    """Return logits of a network that knows one class less well, and answers with it too rarely by an `offset`."""
    labels = torch.from_numpy(rng.integers(0, CLASSES, count))
    logits = torch.from_numpy(rng.normal(0, 1, (count, CLASSES)).astype(np.float32))
    logits[torch.arange(count), labels] += torch.where(labels == missing, weakness, strength)
    logits[:, missing] -= offset
    return logits, labels


def _right(logits: Tensor, labels: Tensor, missing: int, bias: float) -> float:
    moved = logits.clone()
    moved[:, missing] += bias
    return (moved.argmax(1) == labels).float().mean().item()


CHECKS = (soft_gradient, fair_comparisons, missing_class)
