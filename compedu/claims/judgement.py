"""From the parts of a claim to the verdict on it, and whatever stands against giving one."""

from collections.abc import Iterable
from dataclasses import dataclass

from compedu.claims.verdict import CONFIRMED, LEVEL, PROXY, REFUTED, UNDECIDED, Effect, Rule, together

FORMS = {
    "universal": 'it says "all" or "only": one counterexample refutes it, and no number of examples confirms it',
    "tendency": "it says what happens on the whole: parts that are all confirmed confirm it, all refuted refute it, "
    "some of either split it, and anything else leaves it undecided",
    "proxy": "it speaks of theory or effort, which no run measures: runs can only stand for it",
}
ROLES = ("verdict", "control", "finding")
EXAMPLES = "all that was tried bears it out, but examples confirm nothing that is said of all"


@dataclass(frozen=True)
class Part:
    """One thing that the claim says, and the effect that speaks to it, one value for each seed.

    The parts with role "verdict" make the verdict, all together. A "control" must come out as `expected`, or the
    experiment could not have seen what it looks for. A "finding" is shown and decides nothing.
    """

    name: str
    values: tuple[float, ...]
    rule: Rule
    role: str = "verdict"
    expected: str = CONFIRMED

    def __post_init__(self):
        if self.role not in ROLES:
            raise ValueError(f"Part.role must be one of {', '.join(ROLES)}, got {self.role!r}")


@dataclass(frozen=True)
class Judged:
    """A part with its effect and its verdict."""

    part: Part
    effect: Effect
    verdict: str

    @property
    def failed(self) -> bool:
        """Whether this is a control that did not come out as it must."""
        return self.part.role == "control" and self.verdict != self.part.expected

    @property
    def came_out(self) -> str:
        """The verdict in a word or two; for a control whether it is what it must be."""
        if self.part.role != "control":
            below = self.verdict == REFUTED and self.part.rule.is_below(self.effect)
            return f"{self.verdict}: there, but smaller" if below else self.verdict
        return f"{self.verdict}: failed" if self.failed else "as it must"


@dataclass(frozen=True)
class Judgement:
    """The verdict on a claim with all that it rests on, and whatever stands against giving one."""

    verdict: str
    parts: tuple[Judged, ...]
    level: float
    form: str

    @property
    def seeds(self) -> int:
        """The number of seeds."""
        return self.parts[0].effect.seeds

    @property
    def reservations(self) -> tuple[str, ...]:
        """Why nothing is decided where nothing is: controls that failed, parts whose seeds do not tell."""
        failed = [f"the control failed: {one.part.name} came out {one.verdict}" for one in self.parts if one.failed]
        unsure = [
            f"{one.part.name}: the seeds do not tell; it takes a plan with more of them, all fresh"
            for one in self.parts
            if one.part.role == "verdict" and one.verdict == UNDECIDED
        ]
        borne_out = all(one.verdict == CONFIRMED for one in self.parts if one.part.role == "verdict")
        examples = [EXAMPLES] if self.form == "universal" and borne_out else []
        return (*failed, *unsure, *examples)


def judge(parts: Iterable[Part], form: str, level: float = LEVEL) -> Judgement:
    """Return the verdict from the parts of a claim of logical `form`; a failed control leaves it undecided.

    The `level` is shared out among the parts that make the verdict (Bonferroni), so that a claim of many parts is not
    refuted by chance in one of them.
    """
    parts = list(parts)
    counting = sum(part.role == "verdict" for part in parts)
    if not counting or form not in FORMS:
        raise ValueError(f"a judgement needs a part with role 'verdict' and a form of {', '.join(FORMS)}, got {form!r}")
    judged = []
    for part in parts:
        effect = Effect.of(part.values, part.rule, 1 - level / (counting if part.role == "verdict" else 1))
        judged.append(Judged(part, effect, part.rule.decide(effect)))
    verdict = together((one.verdict for one in judged if one.part.role == "verdict"), form)
    if any(one.failed for one in judged):
        verdict = UNDECIDED
    return Judgement(PROXY if form == "proxy" else verdict, tuple(judged), level, form)
