"""Claim C15: distillation suits small data sets. What a teacher adds with few and with many training images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

from torch import nn

from compedu.claims.experiments import Experiment
from compedu.claims.judgment import LogicalForm, Part, Role
from compedu.claims.store import Run, by_seed, by_setting
from compedu.claims.survey.shared.networks import accuracy, glyphs
from compedu.claims.survey.shared.students import alone
from compedu.claims.trial import Arm, Plan
from compedu.claims.verdict import Rule
from compedu.datasets.dataset import Dataset
from compedu.methods import LabelSmoothing, RandomTeacher, SoftTargetDistillation
from compedu.methods.distillation.controls import controls
from compedu.methods.method import Method
from compedu.networks.shipped import trained
from compedu.replications.races import SOFT

ALONE = "alone"
TAUGHT = "taught"
RANDOM = "random teacher"
TEACHER = "teacher"
ANY = "a teacher"
KNOWLEDGE = "what the teacher has learned"
UNLEARNED = "a random teacher"
ADDED = {ANY: (TAUGHT, ALONE), KNOWLEDGE: (TAUGHT, RANDOM), UNLEARNED: (RANDOM, ALONE)}  # an arm, and the one without
ON_TRIAL = (ANY, KNOWLEDGE)

FEW = 250
MORE = 1000
MANY = 4000
BATCH = 50  # divides all numbers of images, so that all students take equal steps and see equally many images
SHOWN = 40 * MORE  # images that a student sees in training, most of them many times
TEST = "test accuracy, %"


@dataclass(frozen=True)
class Students:
    """Students of the first `images` training images, which are shifted by up to `shift` pixels in each step."""

    images: int
    shift: int = 1
    shown: int = SHOWN

    def __str__(self) -> str:
        return named(self.images)

    @property
    def data(self) -> Dataset:
        """The images."""
        return glyphs(self.images)

    def methods(self, seed: int) -> dict[str, Method]:
        """Return the arms; all train the same student, from the same weights, on the same images in the same order."""
        taught = replace(SOFT, epochs=self.shown // self.images, batch=BATCH, shift=self.shift, seed=seed)
        return {ALONE: alone(taught), TAUGHT: taught, RANDOM: controls(taught)["random teacher"]}


def named(images: int) -> str:
    """Return how so many training images are called.

    >>> named(4000)
    '4,000 training images'
    """
    return f"{images:,} training images"


@cache
def teacher() -> nn.Module:
    """Return the teacher, trained on all 8,000 training images."""
    return trained("vgg", "glyphs")


@cache
def of_teacher() -> float:
    """Return the accuracy of the teacher on the test images, in percent, which all runs share."""
    return accuracy(teacher(), glyphs(FEW))


def compute(setting: Students, seed: int) -> Run:
    """Train the student alone, taught, and taught by a random teacher; accuracies on test images."""
    methods = setting.methods(seed)
    outcomes = {TEACHER: {TEST: of_teacher()}}
    for arm, method in methods.items():
        outcomes[arm] = {TEST: accuracy(method(teacher(), setting.data), setting.data)}
    return Run(str(setting), seed, outcomes, {arm: repr(method) for arm, method in methods.items()})


def added(run: Run, by: str) -> float:
    """Return the points of accuracy that one of `ADDED` adds."""
    one, without = ADDED[by]
    return run.of(one, TEST) - run.of(without, TEST)


def avoided(run: Run) -> float:
    """Return the errors that the teacher spares its student, in percent of those of the student alone."""
    return 100 * added(run, ANY) / (100 - run.of(ALONE, TEST))


def more(runs: Sequence[Run], value: Callable[[Run], float]) -> tuple[float, ...]:
    """Return for each seed by how much `value` is larger with few images than with many."""
    settings = by_setting(runs)
    few, many = (by_seed(settings[named(images)], value) for images in (FEW, MANY))
    return tuple(one - other for one, other in zip(few, many, strict=True))


def parts(runs: Sequence[Run]) -> tuple[Part, ...]:
    """Return how much more a teacher, and what it has learned, adds with few images than with many; and findings."""
    points = Rule(1.0, "points of accuracy")
    share = Rule(5.0, "% of the errors")
    with_few = f"with {FEW:,} training images than with {MANY:,}"
    room = by_seed(runs, lambda run: run.of(TEACHER, TEST) - run.of(ALONE, TEST), min)
    verdicts = [Part(f"{by} adds more {with_few}", more(runs, partial(added, by=by)), points) for by in ON_TRIAL]
    findings = [
        Part(f"{size}: {by} adds", by_seed(same, partial(added, by=by)), points, Role.FINDING)
        for by in ADDED
        for size, same in by_setting(runs).items()
    ]
    return (
        Part("the teacher is ahead of the student alone, with every number of images", room, points, Role.CONTROL),
        *verdicts,
        *findings,
        Part(f"{ANY} avoids a larger share of the errors {with_few}", more(runs, avoided), share, Role.FINDING),
    )


QUICK = Plan((Students(FEW, shift=0), Students(MANY, shift=0)), 3, "ninety seconds")
FULL = Plan(tuple(Students(images) for images in (FEW, MORE, MANY)), 8, "twenty minutes", first=300)

SMALL_DATA = Experiment(
    key="C15",
    title="Distillation for small data sets",
    claim="For small and medium data sets distillation is worth trying: what the student takes over from its teacher "
    "makes it robust where data are few.",
    source="the survey by Cheng, Wang, Zhou and Zhang (2018), its discussion of which approach to choose",
    form=LogicalForm.TENDENCY,
    scope="one small convolutional network on drawn characters (20 classes), taught by soft targets of a `vgg` that "
    "has learned from all 8,000 training images, while the student has the first 250, 1,000 or 4,000 of them (quick: "
    "250 and 4,000). With every number of images it trains for 800 steps of 50 images, so that it sees 40,000 images, "
    "each 160, 40 or 10 times; they are shifted at random by up to a pixel (quick: not shifted). Accuracies on 4,000 "
    "test images",
    arms=(
        Arm(ALONE, "`LabelSmoothing(smoothing=0)`: labels as they are; the same student, bit by bit, as by "
            "`SoftTargetDistillation(weight=0)`, which would run the teacher without need", "800", "0"),
        Arm(TAUGHT, f"`SoftTargetDistillation(temperature={SOFT.temperature:g})`", "800", "2 temperatures"),
        Arm(RANDOM, "`RandomTeacher(SoftTargetDistillation(...))`: a teacher of the same architecture that has learned "
            "nothing", "800", "0"),
    ),
    decides="the suggestion is confirmed if a teacher adds over 1 point of accuracy more with 250 training images than "
    "with 4,000, and if that holds for what the teacher has learned as well. The first part compares with the student "
    "alone. That is not enough: soft targets that know nothing can help as much as labels that are smoothed. The "
    "second part therefore compares with the student of a random teacher. Provided that there is something to be "
    "taught: with every number of images, the teacher must be over a point ahead of the student alone. Points are "
    "fewer where few errors are left; a finding tells which share of the errors a teacher spares",
    varies="the student: its initial weights and the order of the images; and the weights of the random teacher. The "
    "images and the teacher stay. The full plan uses seeds from 300 on, which had not been inspected before. Seeds 10 "
    "to 17 were, with 1,000 images and batches of 64: there a random teacher added as much as the trained one, which "
    "is why it is an arm. Seed 100 was, when the time was measured. The temperature is the better of 4 and 10 for "
    "1,000 images, with seeds 1 to 3",
    changes="a teacher that has learned from no more images than its student; a temperature chosen for each number of "
    "images; more steps with more images, as they are usual; other drawn images among the first; larger students",
    quick=QUICK,
    full=FULL,
    compute=compute,
    parts=parts,
    uses=(SoftTargetDistillation, LabelSmoothing, RandomTeacher),
)  # fmt: skip
