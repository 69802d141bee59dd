"""From the parts of a claim to the verdict on it, and the reservations about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from compedu.claims.verdict import ALPHA, Effect, Rule, Verdict, together


class LogicalForm(StrEnum):
    """What kind of statement a claim is."""

    UNIVERSAL = "universal"
    TENDENCY = "tendency"
    PROXY = "proxy"


FORMS = {
    LogicalForm.UNIVERSAL: 'it says "all" or "only": one counterexample refutes it, and no number of examples confirms '
    "it",
    LogicalForm.TENDENCY: "it says what happens on the whole: parts that are all confirmed confirm it, all refuted "
    "refute it, some of either split it, and anything else leaves it undecided",
    LogicalForm.PROXY: "it speaks of theory or effort, which no run measures: runs can only stand for it",
}
EXAMPLES = "everything that was tried supports it, but examples cannot confirm a universal claim"


class Role(StrEnum):
    """The role of a part of a claim."""

    VERDICT = "verdict"
    CONTROL = "control"
    FINDING = "finding"


@dataclass(frozen=True)
class Part:
    """One statement of the claim, and the effect that tests it, one value per seed.

    Parts with the role verdict decide, all together. A control must come out as `expected`, or the experiment could not
    have detected what it looks for. A finding is reported and decides nothing.
    """

    name: str
    values: tuple[float, ...]
    rule: Rule
    role: Role = Role.VERDICT
    expected: Verdict = Verdict.CONFIRMED

    def __post_init__(self):
        if self.role not in tuple(Role):
            raise ValueError(f"Part.role must be one of {', '.join(Role)}, got {self.role!r}")
        object.__setattr__(self, "role", Role(self.role))


UNDERPOWERED = "underpowered: the interval crosses the margin; it takes a plan with more seeds, all new"
SAME = "inconclusive: all seeds gave the same value, so their spread is unknown"


@dataclass(frozen=True)
class Judged:
    """A part with its effect and its verdict."""

    part: Part
    effect: Effect
    verdict: Verdict

    @property
    def failed(self) -> bool:
        """Whether this is a control with another outcome than expected."""
        return self.part.role == Role.CONTROL and self.verdict != self.part.expected

    @property
    def came_out(self) -> str:
        """The verdict in a word or two; for a control whether it is as expected."""
        if self.part.role != Role.CONTROL:
            below = self.verdict == Verdict.REFUTED and self.part.rule.is_below(self.effect)
            return f"{self.verdict}: there, but smaller" if below else self.verdict
        return f"{self.verdict}: failed" if self.failed else "as expected"


@dataclass(frozen=True)
class Judgment:
    """The verdict on a claim with its parts, and the reservations about it."""

    verdict: Verdict
    parts: tuple[Judged, ...]
    alpha: float
    form: str

    @property
    def seeds(self) -> int:
        """The number of seeds."""
        return self.parts[0].effect.seeds

    @property
    def reservations(self) -> tuple[str, ...]:
        """The reasons if nothing is decided: failed controls, underpowered parts."""
        failed = [f"the control failed: {one.part.name} came out {one.verdict}" for one in self.parts if one.failed]
        unsure = [
            f"{one.part.name}: {SAME if one.effect.low == one.effect.high else UNDERPOWERED}"
            for one in self.parts
            if one.part.role == Role.VERDICT and one.verdict == Verdict.UNDECIDED
        ]
        supported = all(one.verdict == Verdict.CONFIRMED for one in self.parts if one.part.role == Role.VERDICT)
        examples = [EXAMPLES] if self.form == LogicalForm.UNIVERSAL and supported else []
        return (*failed, *unsure, *examples)


def judge(parts: Iterable[Part], form: str, alpha: float = ALPHA) -> Judgment:
    """Return the verdict from the parts of a claim of logical `form`; a failed control leaves it undecided.

    The `alpha` is divided among the parts that decide (Bonferroni), so that a claim of many parts is not refuted by
    chance in one of them.
    """
    parts = list(parts)
    counting = sum(part.role == Role.VERDICT for part in parts)
    if not counting or form not in FORMS:
        raise ValueError(f"a judgment needs a part with role 'verdict' and a form of {', '.join(FORMS)}, got {form!r}")
    judged = []
    for part in parts:
        effect = Effect.of(part.values, part.rule, 1 - alpha / (counting if part.role == Role.VERDICT else 1))
        judged.append(Judged(part, effect, part.rule.decide(effect)))
    verdict = together((one.verdict for one in judged if one.part.role == Role.VERDICT), form)
    if any(one.failed for one in judged):
        verdict = Verdict.UNDECIDED
    return Judgment(Verdict.PROXY if form == LogicalForm.PROXY else verdict, tuple(judged), alpha, form)
