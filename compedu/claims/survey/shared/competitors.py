"""What claim D13 compares: students, and networks of other families, that are made from one dense network."""

from dataclasses import dataclass, replace

from torch import nn

from compedu.claims.survey.shared.networks import dense_network, glyphs, same_dense_network
from compedu.claims.survey.shared.students import alone
from compedu.datasets.dataset import Dataset
from compedu.methods import (
    EntropyConstrainedQuantization,
    FineTune,
    LearnedStepQuantization,
    LinearQuantization,
    MagnitudePruning,
    SoftTargetDistillation,
    TruncatedSVD,
)
from compedu.methods.method import Method

# families; the name of an arm begins with that of its family
DENSE = "dense"
ALONE = "student alone"
TAUGHT = "taught student"
LONGER = "taught student, twice the epochs"
PRUNED = "pruned"
ROUNDED = "rounded"
CODED = "entropy-constrained codes"
LOW_RANK = "low rank"
OTHERS = (PRUNED, ROUNDED, CODED, LOW_RANK)
TEACHER = "another teacher"
BY_ANOTHER = "student of another teacher"

BITS = (8, 4)  # that networks are rounded to without training
FEWEST = 2  # that take training
TEMPERATURE = 10.0
RATE = 4e-3  # the peak learning rate of students, as of the dense network
DECAY = 1e-2  # their weight decay
TUNED = 1e-3  # the peak learning rate of networks that start from the dense one


def named(family: str, knob: str) -> str:
    """Return the name of an arm.

    >>> named(PRUNED, "90%"), family_of("pruned: 90%")
    ('pruned: 90%', 'pruned')
    """
    return f"{family}: {knob}"


def family_of(arm: str) -> str:
    """Return the family that the name of an arm begins with."""
    return arm.partition(":")[0]


def knob_of(arm: str) -> str:
    """Return the knob that the name of an arm ends with."""
    return arm.partition(": ")[2]


def then_rounded(family: str) -> str:
    """Return the family of networks of `family` that are rounded after their training."""
    return f"{family}, then {ROUNDED}"


@dataclass(frozen=True)
class Trained:
    """Networks that all train for `epochs` on the first `images` glyphs."""

    images: int
    epochs: int

    @property
    def data(self) -> Dataset:
        """The images."""
        return glyphs(self.images)

    def taught(self, width: float, seed: int) -> SoftTargetDistillation:
        """Return the training of a student of this width."""
        return SoftTargetDistillation(
            student=f"lenet5(width={width})", temperature=TEMPERATURE, epochs=self.epochs, lr=RATE,
            weight_decay=DECAY, seed=seed,
        )  # fmt: skip


@dataclass(frozen=True)
class SameBytes(Trained):
    """A dense `network`, which teaches students of `widths` and is made smaller by the other families.

    Each knob of another family has as many values as it takes to have a file no larger than that of every student.
    """

    network: str
    widths: tuple[float, ...]
    sparsities: tuple[float, ...]
    fractions: tuple[float, ...]
    prices: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.network} on {self.images:,} images"

    def students(self, seed: int) -> dict[str, Method]:
        """Return the students; the smallest one is taught for twice the epochs as well."""
        found: dict[str, Method] = {}
        for width in self.widths:
            taught = self.taught(width, seed)
            found |= {named(ALONE, f"width {width:g}"): alone(taught), named(TAUGHT, f"width {width:g}"): taught}
        least = min(self.widths)
        longer = replace(self.taught(least, seed), epochs=2 * self.epochs)
        return found | {named(LONGER, f"width {least:g}"): longer}

    def others(self, seed: int) -> dict[str, Method]:
        """Return the networks of other families; those that train do so for as many epochs as a student."""
        tuning = FineTune(epochs=self.epochs, lr=TUNED, shift=1, seed=seed)
        learned = LearnedStepQuantization(bits=FEWEST, epochs=self.epochs, lr=TUNED, shift=1, seed=seed)
        found: dict[str, Method] = {named(ROUNDED, f"{FEWEST} bits, trained"): learned}
        for bits in BITS:
            found[named(ROUNDED, f"{bits} bits")] = LinearQuantization(bits=bits)
        for price in self.prices:
            found[named(CODED, f"{price:g} nats a kilobyte")] = EntropyConstrainedQuantization(price=price)
        for sparsity in self.sparsities:
            pruning = MagnitudePruning(sparsity=sparsity, budget="lamp")
            found[named(PRUNED, f"{sparsity:.1%} zeros")] = pruning | tuning
        for fraction in self.fractions:
            factoring = TruncatedSVD(rank=fraction, budget="sensitivity")
            found[named(LOW_RANK, f"{fraction:.0%} of the full rank")] = factoring | tuning
        return found

    def methods(self, seed: int) -> dict[str, Method]:
        """Return what makes each arm from the dense network, but for those that are rounded after their training."""
        return self.students(seed) | self.others(seed)

    def made(self, seed: int) -> tuple[dict[str, nn.Module], dict[str, str]]:
        """Return the network of each arm, and what made it as text."""
        dense = same_dense_network(self.network, self.images, self.epochs, seed)
        networks = {named(DENSE, self.network): dense}
        texts: dict[str, str] = {}
        for arm, method in self.methods(seed).items():
            networks[arm] = method(dense, self.data)
            texts[arm] = repr(method)
            if family_of(arm) not in (TAUGHT, PRUNED):
                continue
            for bits in BITS:
                rounding = LinearQuantization(bits=bits)
                rounded = named(then_rounded(family_of(arm)), f"{knob_of(arm)}, {bits} bits")
                networks[rounded] = rounding(networks[arm], self.data)
                texts[rounded] = repr(method | rounding)
        return networks, texts


@dataclass(frozen=True)
class TeacherSizes(Trained):
    """Students of one `width`, each taught by another of `teachers`, the specs of networks.

    The teachers train for `teaching` epochs: the largest one takes as long as all else together.
    """

    width: float
    teachers: tuple[str, ...]
    teaching: int = 10

    def __str__(self) -> str:
        return f"other teachers of lenet5(width={self.width:g})"

    def made(self, seed: int) -> tuple[dict[str, nn.Module], dict[str, str]]:
        """Return each teacher and its student, and what made the student as text."""
        method = self.taught(self.width, seed)
        networks: dict[str, nn.Module] = {}
        texts: dict[str, str] = {}
        for spec in self.teachers:
            teacher = dense_network(spec, self.data, self.teaching, seed)
            arm = named(BY_ANOTHER, spec)
            networks[named(TEACHER, spec)] = teacher
            networks[arm] = method(teacher, self.data)
            texts[arm] = repr(method)
        return networks, texts
