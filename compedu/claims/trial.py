"""A claim on trial, as data: what is claimed by whom, what is compared, what confirms or refutes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compedu.claims.judgment import FORMS, Judgment, LogicalForm, Part, judge
from compedu.claims.store import Run, read_runs
from compedu.claims.verdict import ALPHA, CLAIMS_READ_TOGETHER
from compedu.errors import CompressionError
from compedu.methods.method import Method
from compedu.shipped import shipped


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

    The seeds are counted from `first` on: earlier ones were inspected while the experiment was designed.
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
        """Return all pairs of setting and seed, seed by seed, so that an interrupted experiment has complete seeds."""
        return [(setting, seed) for seed in self.all_seeds for setting in self.settings]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Runs that are stored in the shipped file named `key`; `compute` makes one from a setting and a seed.

    `uses` are the methods whose versions a run depends on; `apart` runs each seed in a process of its own.
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
        """Return the key of a run: the versions of series and methods, the setting, the seed."""
        versions = ", ".join(f"{method.__name__}/{method.version}" for method in self.uses)
        return f"{self.key}/{self.version}|{versions}|{setting!r}|seed {seed}"


@dataclass(frozen=True, kw_only=True)
class Trial(Series):
    """A claim on trial: its runs, and `parts`, which says what they mean for the claim.

    `key` is the claim's number, with D for a drawback and C for a suggestion of the survey, `title` its short name;
    `claim` is its text, `source` its origin. `decides` describes what confirms and what refutes it, `varies` what a
    seed changes, `changes` what would change the verdict. `tuning` returns in Markdown how knobs were tuned, if any
    were.
    """

    title: str
    claim: str
    source: str
    form: LogicalForm
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
            raise ValueError(f"Trial.form must be one of {', '.join(FORMS)}, got {self.form!r}")

    def plan(self, full: bool) -> Plan:
        """Return the full plan, or the quick one, which is short enough to run in a chapter."""
        return self.full if full else self.quick

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
        """Return the command that computes missing shipped runs."""
        return f"compedu claim {self.key} --run {'full' if full else 'quick'} --store shipped"

    def judge(self, runs: Sequence[Run], claims: int = 1) -> Judgment:
        """Return the verdict from runs, with alpha divided by the number of `claims` that are read together."""
        return judge(self.parts(runs), self.form, ALPHA / claims)

    def judge_with_all(self, runs: Sequence[Run]) -> Judgment:
        """Return the verdict as one of all the survey's, so strict that probably none of them is wrong."""
        return self.judge(runs, CLAIMS_READ_TOGETHER)
