"""Our distillation against a hand-written loop on the labels and the loop of PyTorch's tutorial, time per epoch."""

import copy
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from rounds import Rounds, again, timed
from table import DATA, Estimate, Section, Target, options, write
from torch import Tensor, nn

import compedu as ce
from compedu.datasets.augmentation import shifted
from compedu.datasets.dataset import Dataset
from compedu.methods.distillation.shared.distillation import numbered
from compedu.metrics.latency import ratios
from compedu.networks.fitting import network_for
from compedu.training import Recipe

PLAIN, OURS, TUTORIAL, SCORES = "plain", "ours", "tutorial", "scores"
LIMIT = 1.15
USUAL = ce.SoftTargetDistillation().epochs
SAID = """
One student learns from `{teacher}` on {images} images, batch {batch}, one thread, by `SoftTargetDistillation`, and by
two loops written by hand. *Plain*: it learns the labels alone, forward, cross entropy, backward, step. *Tutorial*: the
loop that PyTorch's "Knowledge Distillation Tutorial" shows
(docs.pytorch.org/tutorials/beginner/knowledge_distillation_tutorial.html): the teacher runs in every step without
gradients, then the softened probabilities, the cross entropy, and the step. All have the same student at the start, the
same images in each step, AdamW and the same learning rates. Before anything is timed, our loop with `weight=0` must
give the student of the plain loop bit by bit, and with the teacher that of the tutorial's up to rounding.

*Kept*: `shift=0`, the teacher's scores are computed once, before the training. "Ours" is the training without them;
"teacher once" is how many plain epochs they take, and "{usual} epochs" the ratio of a whole training as long as the
method's default, with them. *Shifted*: `shift=1`, the images are others in every step, and so the teacher runs in
every step. Ratios are of the time of the one thread for {epochs} epoch(s), all sides in turn in random order, round
after round; above 1 the first one takes longer. Plain / plain is the A/A arm.
"""
HEAD = (
    "student", "images", "plain, ms per epoch", "ours / plain", "tutorial / plain", "tutorial / ours", "plain / plain",
    "teacher once, plain epochs", f"{USUAL} epochs, ours / plain",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Students, teacher, data and how many of its images, and the epochs and seconds of a comparison."""

    students: tuple[str, ...] = ("lenet5(width=0.25)", "lenet5")
    teacher: str = "vgg"
    data: str = DATA
    images: int = 512
    epochs: int = 5
    budget_s: float = 20.0


QUICK = Settings(students=("lenet300",), teacher="lenet5", data="digits", images=64, epochs=1, budget_s=0.0)


def batches(data: Dataset, recipe: Recipe) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Yield the learning rate, the images and the labels of each step of a training by `recipe`."""
    count = len(data.x_train)
    step = 0
    for epoch in range(recipe.epochs):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch))
        for chosen in order.split(recipe.batch):
            x = data.x_train[chosen]
            if recipe.shift:
                x = shifted(x, recipe.shift, recipe.seed * 7_919 + step)
            yield recipe.rate(step, recipe.steps(count)), x, data.y_train[chosen]
            step += 1


def trained(
    student: nn.Module, data: Dataset, recipe: Recipe, loss: Callable[[nn.Module, Tensor, Tensor], Tensor]
) -> nn.Module:
    """Return a copy of `student`, trained by a loop as one writes it by hand; `loss` as that of `fit`."""
    student = copy.deepcopy(student).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    losses = []
    for rate, x, y in batches(data, recipe):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        value = loss(student, x, y)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return student.eval()


def alone(student: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss of the labels."""
    return F.cross_entropy(student(x), y)


def taught(teacher: nn.Module, temperature: float, weight: float, student: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss of the tutorial: the cross entropy with the teacher's softened probabilities, and the labels'."""
    with torch.no_grad():
        scores = teacher(x)
    own = student(x)
    targets = F.softmax(scores / temperature, dim=-1)
    found = F.log_softmax(own / temperature, dim=-1)
    soft = -torch.sum(targets * found) / len(x) * temperature**2
    return weight * soft + (1 - weight) * F.cross_entropy(own, y)


@dataclass(frozen=True)
class Pupil:
    """A student with what it learns from, as each side trains it."""

    student: nn.Module
    teacher: nn.Module
    data: Dataset
    method: ce.SoftTargetDistillation

    @classmethod
    def of(cls, spec: str, settings: Settings, **knobs: float) -> "Pupil":
        """Return the pupil with the student of `spec`, untrained, and further knobs of the method."""
        teacher, data = ce.load(settings.teacher, settings.data)
        data = data.shortened(train=settings.images, validation=16, test=16)
        method = ce.SoftTargetDistillation(student=spec, epochs=settings.epochs, **knobs)
        return cls(network_for(spec, data, classes=len(data.classes), seed=method.seed), teacher, data, method)

    def plain(self) -> nn.Module:
        """Return the student that learned alone."""
        return trained(self.student, self.data, self.method.recipe, alone)

    def by_tutorial(self) -> nn.Module:
        """Return the student that the tutorial's loop taught."""
        loss = partial(taught, self.teacher, self.method.temperature, self.method.weight)
        return trained(self.student, self.data, self.method.recipe, loss)

    def ours(self, loss: Callable) -> nn.Module:
        """Return the student that our loop trained by the `loss` that `scores` returns."""
        student = copy.deepcopy(self.student)
        return self.method.train_unchecked(student, numbered(self.data), loss=loss, companions={})

    def scores(self) -> Callable:
        """Return the loss of our method, for which the teacher runs over all images where its scores can be kept."""
        return self.method.loss(self.teacher, self.data)


def check(pupil: Pupil) -> None:
    """Raise `AssertionError` unless both sides train the same student on the same images, by the same loss."""
    method = pupil.method(pupil.teacher, pupil.data)
    loop = pupil.ours(pupil.scores())
    assert differs(method, loop) == 0, "our loop is not that of the method"
    assert differs(loop, pupil.by_tutorial()) < 1e-3, "the tutorial's loop teaches something else"
    lonely = replace(pupil, method=replace(pupil.method, weight=0.0))
    assert differs(lonely.ours(lonely.scores()), pupil.plain()) == 0, "the plain loop trains something else"


def differs(one: nn.Module, other: nn.Module) -> float:
    """Return the largest difference between the weights of two networks of one kind."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def compared(pupil: Pupil, settings: Settings) -> Rounds:
    """Return the seconds of one epoch of each side, and of the teacher's scores where they are kept."""
    loss = pupil.scores()
    arms = {
        PLAIN: pupil.plain,
        again(PLAIN): pupil.plain,
        OURS: lambda: pupil.ours(loss),
        TUTORIAL: pupil.by_tutorial,
    }
    kept = pupil.method.shift == 0
    seconds = timed(arms | ({SCORES: pupil.scores} if kept else {}), settings.budget_s, clock=time.thread_time).seconds
    return Rounds(
        {arm: [one if arm == SCORES else one / settings.epochs for one in values] for arm, values in seconds.items()}
    )


def row(pupil: Pupil, found: Rounds) -> tuple[str, ...]:
    """Return one comparison as a row of the table."""
    seconds = found.seconds

    def ratio(above: str, below: str, digits: int = 2) -> str:
        return Estimate.of(ratios(seconds[above], seconds[below])).text(digits, "x")

    once = whole = ""
    if SCORES in seconds:
        once = Estimate.of(ratios(seconds[SCORES], seconds[PLAIN])).text(1)
        ours = [USUAL * epoch + teacher for epoch, teacher in zip(seconds[OURS], seconds[SCORES], strict=True)]
        whole = Estimate.of(ratios(ours, [USUAL * epoch for epoch in seconds[PLAIN]])).text(2, "x")
    return (
        str(pupil.method.student),
        "shifted" if pupil.method.shift else "kept",
        f"{1000 * Estimate.of(seconds[PLAIN]).median:.0f}",
        ratio(OURS, PLAIN),
        ratio(TUTORIAL, PLAIN),
        ratio(TUTORIAL, OURS),
        ratio(again(PLAIN), PLAIN, 3),
        once,
        whole,
    )


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section."""
    settings, path = options(__doc__, Settings(), QUICK, given)
    rows, targets = [], []
    for spec in settings.students:
        for shift in (0, 1):
            pupil = Pupil.of(spec, settings, shift=shift)
            check(pupil)
            found = compared(pupil, settings)
            rows.append(row(pupil, found))
            print(*rows[-1], sep=" | ", flush=True)
            if not shift:
                ratio = Estimate.of(ratios(found.seconds[OURS], found.seconds[PLAIN]))
                targets.append(Target(f"ours / plain, scores kept ({spec})", LIMIT, ratio, "x", 2))
    batch = ce.SoftTargetDistillation().batch
    said = SAID.format(
        teacher=settings.teacher, images=settings.images, batch=batch, epochs=settings.epochs, usual=USUAL
    )
    write(
        Section("distillation", f"Distillation, time per epoch, {settings.data}", said, HEAD, rows, tuple(targets)),
        path,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
