"""The knobs of claim D3's arms: every value tried on the same networks, which no run of the claim uses.

`python -m compedu.claims.tune` computes the trials that are missing in data/claims/D3-tuning.jsonl.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compedu.claims.page import conditions, folded, table
from compedu.claims.store import Run, by_seed, read_runs
from compedu.claims.survey.shared.networks import accuracy
from compedu.claims.survey.shared.penalty_arms import ARMS, AT_ONCE, GRADUAL, L1, L2, NONE, PROXIMAL, Start
from compedu.claims.trial import Plan, Series
from compedu.errors import CompressionError
from compedu.methods import FineTune, GradualPruning, RegularizedPruning
from compedu.metrics.seeds import student_interval

ACCURACY = "validation accuracy, %"
TRIED_AT = 8  # epochs of a trial
START = Start("lenet5(width=0.5)", 3000, 30)
TRIED: Mapping[str, tuple[float, ...]] = {
    GRADUAL: (0.1, 0.2, 0.4, 0.6, 0.8),
    L1: (3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    L2: (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
}
CHOSEN: Mapping[str, float] = {GRADUAL: 0.2, AT_ONCE: 0.0, NONE: 0.0, L1: 1e-4, L2: 1e-3, PROXIMAL: 0.004}


@dataclass(frozen=True)
class Trial:
    """One value of one arm's knob, with a budget of `epochs` from `start`."""

    start: Start
    arm: str
    value: float
    epochs: int = TRIED_AT

    def __str__(self) -> str:
        return named(self.arm, self.value)


def named(arm: str, value: float) -> str:
    """Return the name of a trial."""
    return f"{arm}, {value:g}"


def trial(setting: Trial, seed: int) -> Run:
    """Return the accuracy on the validation images; 0 if a penalty empties a layer."""
    start = setting.start
    dense = setting.start.dense(seed)
    try:
        pruned = ARMS[setting.arm](start, setting.epochs, setting.value, seed)(dense, start.data)
        reached = accuracy(pruned, start.data, "validation")
    except CompressionError:
        reached = 0.0
    return Run(str(setting), seed, {setting.arm: {ACCURACY: reached}})


TUNING = Series(key="D3-tuning", compute=trial, uses=(GradualPruning, RegularizedPruning, FineTune))
TRIALS = Plan(
    tuple(Trial(START, arm, value) for arm, values in TRIED.items() for value in values), 5, "fifteen minutes",
    first=1000,
)  # fmt: skip


def stored_trials() -> tuple[Run, ...]:
    """Return the shipped trials of the networks on which all values were tried."""
    found = read_runs(TUNING.path).by_key
    keys = {seed: [TUNING.run_key(setting, seed) for setting in TRIALS.settings] for seed in TRIALS.all_seeds}
    return tuple(found[key] for same in keys.values() if all(key in found for key in same) for key in same)


def reached(trials: Sequence[Run], arm: str, value: float) -> tuple[float, ...]:
    """Return the accuracies with this value, one for each network."""
    return by_seed([run for run in trials if run.setting == named(arm, value)], lambda run: run.of(arm, ACCURACY))


def ahead(trials: Sequence[Run], arm: str, value: float) -> tuple[float, float, float]:
    """Return how many points `value` is ahead of the chosen one: mean and Student's interval, paired by network."""
    pairs = zip(reached(trials, arm, value), reached(trials, arm, CHOSEN[arm]), strict=True)
    leads = [one - chosen for one, chosen in pairs]
    return statistics.fmean(leads), *student_interval(leads)


def tuning_table() -> str:
    """Return the Markdown table of the accuracy at every value of every knob, and its lead over the chosen one."""
    trials = stored_trials()
    rows = []
    networks = len({run.seed for run in trials})
    for arm, values in TRIED.items():
        for value in values:
            mean = f"{statistics.fmean(reached(trials, arm, value)):.2f}"
            lead, low, high = ahead(trials, arm, value)
            lead_in_words = "chosen" if value == CHOSEN[arm] else f"{lead:+.2f} ({low:.2f} to {high:.2f})"
            rows.append((arm, f"{value:g}", mean, lead_in_words))
    return folded("How the knobs were chosen", "\n\n".join([
        f"The knobs were chosen on networks 1000 to 1002 by 1,000 validation images. The values below were then "
        f"tried on {networks} networks (of {TRIALS.seeds} planned, from {TRIALS.first} on) by all 4,000, with "
        f"{TRIED_AT} epochs{conditions(TUNING, trials)}; that of the proximal step was not tried again. Where an "
        "interval holds zero, the trials do not distinguish a value from the chosen one.",
        table(("arm", "value", "mean accuracy, %", "points ahead of the chosen value, 95 %"), rows),
    ]))  # fmt: skip
