"""A replication: the first experiment of distillation, on MNIST, and the digit that a student never saw.

    COMPEDU_DATA=FOLDER python -m compedu.replications.hinton_on_mnist

computes the runs that are not stored yet and prints all of them. A teacher, regularized by dropout and bounded weights,
sees shifted images; a smaller student without any regularization learns from the unshifted ones, alone or also from the
teacher's soft targets. Taught again without any image of a 3, it is read as it is, and with another bias for the 3.

Here 5,000 of the paper's training images are validation images. They chose the settings, with another seed and in
shorter trainings, and choose the bias, for which the paper took the test images; these were used once here, for the
figures. The paper's networks learned from all 60,000 training images.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compedu import datasets
from compedu.columns import in_columns
from compedu.datasets.dataset import Dataset, cache_folder
from compedu.errors import CompressionError
from compedu.evaluation import all_logits
from compedu.methods import SoftTargetDistillation
from compedu.metrics.seeds import mean
from compedu.reproducible import seeded, torch_threads
from compedu.shipped import shipped
from compedu.training import Recipe, fit
from compedu.writing import write_whole

DATA = "mnist"
SEEDS = range(3)
SPLITS = ("validation", "test")
NEVER = 3  # the class without images in the transfer set

TEACHER_UNITS = 1200  # in each of two hidden layers
STUDENT_UNITS = 800
DROPPED = (0.2, 0.5)  # shares of inputs and of hidden units that are zeroed (Hinton et al. 2012, arXiv:1207.0580)
LARGEST_NORM = 2.0  # of the weights into a hidden unit
TEACHER_RECIPE = Recipe(epochs=40, lr=2e-3, batch=256, weight_decay=0.0, shift=2)
# Fewest validation errors after 10 epochs of seed 9, of a few combinations: temperature 4 or 20, weight 0.5, 0.9 or 1,
# rate 1e-3, 2e-3 or 4e-3. Alone, too, the student had fewer errors at the last rate than at the first.
LESSONS: dict[str, Any] = {
    "temperature": 20.0, "weight": 0.5, "epochs": 30, "lr": 4e-3, "batch": 256, "shift": 0, "weight_decay": 0.0,
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "units": [TEACHER_UNITS, STUDENT_UNITS], "dropped": list(DROPPED), "largest_norm": LARGEST_NORM,
    "teacher": asdict(TEACHER_RECIPE), "lessons": LESSONS,
}  # fmt: skip

TEACHER = "teacher"
ALONE = "student alone"
TAUGHT = "student taught"
WITHOUT = "taught without a 3"
CORRECTED = "the same, bias corrected"
TRAINED = (TEACHER, ALONE, TAUGHT, WITHOUT)  # CORRECTED is the network of WITHOUT
# Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 3: test errors, and those on the 1,010 threes where it has them.
PAPER: dict[str, tuple[int, int | None]] = {
    TEACHER: (67, None), ALONE: (146, None), TAUGHT: (74, None), WITHOUT: (206, 133), CORRECTED: (109, 14),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A network's errors by split, and those of them on images of a 3, with `bias` added to the logit of that class."""

    arm: str
    seed: int
    bias: float
    errors: dict[str, int]
    threes: dict[str, int]

    @classmethod
    def of(cls, arm: str, seed: int, logits: dict[str, Tensor], data: Dataset, bias: float = 0.0) -> "Run":
        """Return the run of a network with these `logits` (N, classes) by split."""
        labels = {split: data.split(split)[1] for split in logits}
        wrong = {split: with_bias(one, bias).argmax(1) != labels[split] for split, one in logits.items()}
        return cls(
            arm, seed, bias,
            errors={split: int(one.sum()) for split, one in wrong.items()},
            threes={split: int(one[labels[split] == NEVER].sum()) for split, one in wrong.items()},
        )  # fmt: skip


def path() -> Path:
    """Return the file of the runs."""
    return shipped("data", "replications", "hinton_on_mnist.json")


def network(units: int, data: Dataset, seed: int, dropped: tuple[float, float] = (0.0, 0.0)) -> nn.Module:
    """Return a new network with two hidden layers of `units` rectified units; `dropped` of its inputs and of these."""
    inputs, hidden = dropped
    with seeded(seed):
        return nn.Sequential(
            nn.Flatten(),
            nn.Dropout(inputs),
            nn.Linear(prod(data.shape), units),
            nn.ReLU(),
            nn.Dropout(hidden),
            nn.Linear(units, units),
            nn.ReLU(),
            nn.Dropout(hidden),
            nn.Linear(units, len(data.classes)),
        )


@torch.no_grad()
def bounded(model: nn.Module, step: int) -> None:
    """Scale the weights into each hidden unit down to `LARGEST_NORM` where their Euclidean norm is above it."""
    *hidden, _ = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    for layer in hidden:
        layer.weight.copy_(layer.weight.renorm(2, 0, LARGEST_NORM))


def state_path(seed: int) -> Path:
    """Return the file with the state of the teacher's training, which later arms read.

    The state tells other settings apart, but for the bound, which is in the name.
    """
    return cache_folder() / "replications" / f"hinton-teacher-{LARGEST_NORM}-{seed}.training"


def teacher_of(data: Dataset, seed: int) -> nn.Module:
    """Return the trained teacher, from its saved state as far as that goes."""
    model = network(TEACHER_UNITS, data, seed, DROPPED)
    fit(model, data, replace(TEACHER_RECIPE, seed=seed), after_step=bounded, resume=state_path(seed))
    return model


def lesson(data: Dataset, seed: int, **changed: Any) -> SoftTargetDistillation:
    """Return how the student is taught, with `changed` knobs."""
    return SoftTargetDistillation(student=network(STUDENT_UNITS, data, seed), seed=seed, **LESSONS | changed)


def without(data: Dataset, missing: int) -> Dataset:
    """Return `data` without the training images of the class `missing`."""
    kept = data.y_train != missing
    return replace(
        data, name=f"{data.name} without {missing}", origin="", x_train=data.x_train[kept], y_train=data.y_train[kept]
    )


def trained(arm: str, data: Dataset, seed: int) -> nn.Module:
    """Return the trained network of an arm."""
    teacher = teacher_of(data, seed)
    if arm == TEACHER:
        return teacher
    if arm == ALONE:
        return lesson(data, seed, **SoftTargetDistillation.alone)(teacher, data)
    return lesson(data, seed)(teacher, data if arm == TAUGHT else without(data, NEVER))


def with_bias(logits: Tensor, bias: float) -> Tensor:
    """Return `logits` (N, classes) with `bias` added to those of the class that was never seen."""
    moved = logits.clone()
    moved[:, NEVER] += bias
    return moved


def best_bias(logits: Tensor, labels: Tensor) -> float:
    """Return the bias of the class that was never seen with the fewest errors on images with these labels (N,).

    Only biases with which the class is predicted at least once are compared.
    """
    others = with_bias(logits, -torch.inf)
    needed, order = (others.amax(1) - logits[:, NEVER]).sort()  # the bias from which on an image is called so
    gained = (labels == NEVER).int() - (others.argmax(1) == labels).int()
    best = int(gained[order].cumsum(0).argmax())
    return needed[best : best + 2].mean().item()  # between the last image called so and the next one


def runs_of(arm: str, data: Dataset, seed: int) -> list[Run]:
    """Train the network of an arm and return its run; of `WITHOUT` that of `CORRECTED` as well."""
    with torch_threads(1):
        model = trained(arm, data, seed)
        logits = {split: all_logits(model, data.split(split)[0], data) for split in SPLITS}
    runs = [Run.of(arm, seed, logits, data)]
    if arm == WITHOUT:
        bias = best_bias(logits["validation"], data.y_validation)
        runs.append(Run.of(CORRECTED, seed, logits, data, bias))
    return runs


def stored_runs() -> list[Run]:
    """Return the runs in the file, none if there is no file; `CompressionError` for a file of something else."""
    if not path().is_file():
        return []
    try:
        content = json.loads(path().read_text(encoding="utf-8"))
        settings = content["settings"]
        runs = [Run(**run) for run in content["runs"]]
    except (ValueError, TypeError, KeyError) as error:
        raise CompressionError(f"{path()} does not hold runs ({error!r}): delete it, and compute them anew") from error
    if settings != SETTINGS:
        raise CompressionError(
            f"{path()} holds runs with other settings, {settings}; those of this version are {SETTINGS}: move it away "
            "to compute them anew"
        )
    return runs


def store(runs: Iterable[Run]) -> None:
    """Write all runs to the file."""
    path().parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"settings": SETTINGS, "runs": [asdict(run) for run in runs]}, indent=1)
    write_whole(path(), f"{text}\n".encode())


def remake() -> None:
    """Compute and store missing runs, a seed of all arms after the other; needs the images only if there are any."""
    runs = stored_runs()
    known = {(run.seed, run.arm) for run in runs}
    missing = [(seed, arm) for seed in SEEDS for arm in TRAINED if (seed, arm) not in known]
    if not missing:
        return
    data = datasets.load(DATA)
    for seed, arm in missing:
        for run in runs_of(arm, data, seed):
            runs.append(run)
            print(run, flush=True)
        store(runs)
        if arm == TRAINED[-1]:
            state_path(seed).unlink(missing_ok=True)


def closed(teacher: float, alone: float, taught: float) -> float:
    """Return the share of the gap between teacher and student alone that teaching closes, all given in errors.

    >>> round(closed(67, 146, 74), 2)
    0.91
    """
    return (alone - taught) / (alone - teacher)


def table(runs: Sequence[Run]) -> list[str]:
    """Return the paper's errors and ours as lines in columns, and the share of the gap that teaching closes."""
    head = ("", "paper: test", "test: mean", "seeds", "validation: mean", "paper: 3s", "3s: mean", "seeds", "bias")
    return [*in_columns([head, *(row(arm, runs) for arm in PAPER)], left={0, 3, 7, 8}), gap(runs)]


def row(arm: str, runs: Sequence[Run]) -> Sequence[str]:
    """Return the cells of an arm; a seed without a run is missing."""
    paper, paper_threes = PAPER[arm]
    found = {run.seed: run for run in runs if run.arm == arm}
    read = [found.get(seed) for seed in SEEDS]
    errors = [None if run is None else run.errors["test"] for run in read]
    held_out = [None if run is None else run.errors["validation"] for run in read]
    threes = [None if run is None else run.threes["test"] for run in read]
    biases = [None if run is None else round(run.bias, 1) for run in read]
    theirs = "" if paper_threes is None else str(paper_threes)
    of_all = (str(paper), middle(errors), each(errors), middle(held_out))
    of_threes = (theirs, middle(threes), each(threes))
    return (arm, *of_all, *of_threes, each(biases) if arm == CORRECTED else "")


def each(values: Sequence[float | None]) -> str:
    """Return the value of each seed."""
    return ", ".join("missing" if value is None else str(value) for value in values)


def middle(values: Sequence[float | None]) -> str:
    """Return the mean over the seeds, if all of them were run."""
    known = [value for value in values if value is not None]
    return f"{mean(known):.1f}" if len(known) == len(values) else "missing"


def gap(runs: Sequence[Run]) -> str:
    """Return the line of the share of the gap that teaching closes: over all seeds, and of each."""
    errors = {(run.arm, run.seed): run.errors["test"] for run in runs}
    each_seed = [[errors.get((arm, seed)) for arm in (TEACHER, ALONE, TAUGHT)] for seed in SEEDS]
    complete = [[value for value in seed if value is not None] for seed in each_seed]
    if any(len(seed) < 3 for seed in complete):
        return "of the gap between teacher and student alone, teaching closes: missing"
    theirs = closed(*(PAPER[arm][0] for arm in (TEACHER, ALONE, TAUGHT)))
    ours = closed(*(mean(arm) for arm in zip(*complete, strict=True)))
    shares = ", ".join(f"{closed(*seed):.0%}" for seed in complete)
    return (
        f"of the gap between teacher and student alone, teaching closes: {theirs:.0%} in the paper, {ours:.0%} here "
        f"(seeds: {shares})"
    )


if __name__ == "__main__":
    remake()
    print("\n".join(table(stored_runs())))
