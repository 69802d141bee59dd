"""An experiment on a claim: what is claimed by whom, what is compared, what confirms and what refutes it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compedu.claims.store import Run, read_runs
from compedu.claims.verdict import (
    CLAIMS_READ_TOGETHER,
    CONFIRMED,
    LEVEL,
    PROXY,
    REFUTED,
    UNDECIDED,
    Effect,
    Rule,
    together,
)  # fmt: skip
from compedu.errors import CompressionError
from compedu.methods.method import Method
from compedu.shipped import shipped

FORMS = {
    "universal": 'it says "all" or "only": one counterexample refutes it, and no number of examples confirms it',
    "tendency": "it says what happens on the whole: parts that are all confirmed confirm it, all refuted refute it, "
    "some of either split it, and anything else leaves it undecided",
    "proxy": "it speaks of theory or effort, which no run measures: runs can only stand for it",
}
ROLES = ("verdict", "control", "finding")
EXAMPLES = "all that was tried bears it out, but examples confirm nothing that is said of all"


@dataclass(frozen=True)
class Arm:
    """One of the things compared: its settings as a `repr` or in words, training steps, tuning trials."""

    name: str
    settings: str
    steps: str
    trials: str


@dataclass(frozen=True)
class Plan:
    """How large an experiment is: its settings, all run with each of `seeds` seeds, and what that takes on one core.

    The seeds are counted from `first` on: those before it have been looked at while the experiment was designed.
    """

    settings: tuple[Any, ...]
    seeds: int
    takes: str
    first: int = 0

    def __post_init__(self):
        if self.seeds < 2:
            raise ValueError(f"Plan.seeds must be at least 2, got {self.seeds!r}: one seed has no spread")

    @property
    def all_seeds(self) -> range:
        """The seeds, in order."""
        return range(self.first, self.first + self.seeds)

    def cells(self) -> list[tuple[Any, int]]:
        """Return what is to be run, seed after seed, so that an interrupted experiment has whole seeds."""
        return [(setting, seed) for seed in self.all_seeds for setting in self.settings]


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


@dataclass(frozen=True, kw_only=True)
class Series:
    """Runs that are kept in the shipped file of the name `key`; `compute` makes one, from a setting and a seed.

    `uses` are the methods whose version a run depends on; `apart` runs each seed in a process of its own.
    """

    key: str
    compute: Callable[[Any, int], Run] = field(repr=False)
    uses: tuple[type[Method], ...] = ()
    version: int = 1
    apart: bool = False

    @property
    def path(self) -> Path:
        """The file of the shipped runs, such as data/claims/D4.jsonl."""
        return shipped("data", "claims", f"{self.key}.jsonl")

    def run_key(self, setting: Any, seed: int) -> str:
        """Return the identity of a run: the versions of series and methods, all of the setting, the seed."""
        versions = ", ".join(f"{method.__name__}/{method.version}" for method in self.uses)
        return f"{self.key}/{self.version}|{versions}|{setting!r}|seed {seed}"

    def run_plan(self, plan: Plan, store: str | Path | None = None) -> tuple[Run, ...]:
        """Return the runs of `plan`, on one thread; those in the file `store` are taken, the others added."""
        from compedu.claims.running import run

        return run(self, plan, store)


@dataclass(frozen=True, kw_only=True)
class Experiment(Series):
    """A claim on trial: runs, and `parts`, which says what they mean for the claim.

    `key` is the claim's number among the survey's drawbacks, `title` its short name; `claim` says it in words, `source`
    whose it is.
    `decides` says in words what confirms and what refutes, `varies` what a seed changes, `changes` what would change
    the verdict. `tuning` tells in Markdown how knobs were chosen, where any were.
    """

    title: str
    claim: str
    source: str
    form: str
    scope: str
    arms: tuple[Arm, ...]
    decides: str
    varies: str
    changes: str
    quick: Plan
    full: Plan
    parts: Callable[[Sequence[Run]], tuple[Part, ...]] = field(repr=False)
    tuning: Callable[[], str] | None = field(default=None, repr=False)

    def __post_init__(self):
        if self.form not in FORMS:
            raise ValueError(f"Experiment.form must be one of {', '.join(FORMS)}, got {self.form!r}")

    def plan(self, full: bool) -> Plan:
        """Return the full plan, or the quick one, which is short enough to be run in a chapter."""
        return self.full if full else self.quick

    def run(self, full: bool = False, store: str | Path | None = None) -> tuple[Run, ...]:
        """Return the runs of a plan, on one thread; those in the file `store` are taken, the others added."""
        return self.run_plan(self.plan(full), store)

    def stored(self, full: bool = False) -> tuple[Run, ...]:
        """Return the shipped runs of a plan; `CompressionError` with the command that makes missing ones."""
        found = read_runs(self.path).by_key if self.path.exists() else {}
        keys = [self.run_key(*cell) for cell in self.plan(full).cells()]
        if missing := sum(key not in found for key in keys):
            raise CompressionError(
                f"{missing} of {len(keys)} runs of claim {self.key} are not in {self.path}; make them with: "
                f"{self.command(full)}"
            )
        return tuple(found[key] for key in keys)

    def command(self, full: bool) -> str:
        """Return the command that makes shipped runs that are missing."""
        return f"compedu claim {self.key} --run {'full' if full else 'quick'} --store shipped"

    def judge(self, runs: Sequence[Run], claims: int = 1) -> Judgement:
        """Return the verdict from runs; read together with others, `claims` in all, each may be wrong less often."""
        return judge(self.parts(runs), self.form, LEVEL / claims)

    def judge_with_all(self, runs: Sequence[Run]) -> Judgement:
        """Return the verdict as one of all the survey's, so strict that none of them is likely wrong."""
        return self.judge(runs, CLAIMS_READ_TOGETHER)

    def page(self, live: Sequence[Run] = ()) -> Any:
        """Return the page of the claim from the shipped runs, quick and full; `live` runs come before them."""
        from compedu.claims.page import stored_page

        return stored_page(self, live)
