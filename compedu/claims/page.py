"""The page of a claim as Markdown: what was compared, what came out, the verdict, and what would change it."""

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence

from compedu.claims.judgment import FORMS, Judged, Judgment, LogicalForm, Role
from compedu.claims.store import Run, by_setting, read_runs
from compedu.claims.trial import Series, Trial
from compedu.claims.verdict import CLAIMS_READ_TOGETHER, POWER, RULE_IN_WORDS, Verdict, error_rates, some_wrong
from compedu.columns import Columns

MEANS = {
    Verdict.CONFIRMED: "the runs support the claim",
    Verdict.REFUTED: "the runs contradict the claim",
    Verdict.SPLIT: "the runs support one part of the claim and contradict another",
    Verdict.UNDECIDED: "the runs are inconclusive",
    Verdict.PROXY: "no run measures what is claimed; the runs are only a proxy for it",
}


KEY = (
    f"*Verdict* parts decide, each by one rule: *{RULE_IN_WORDS}*. {error_rates()}. A *control* must come out as "
    "stated, or nothing is decided; a *finding* is reported and decides nothing. Nor does the *minimum detectable "
    f"effect*, the smallest that so many seeds would find in {POWER:.0%} of repetitions."
)


class Page:
    """Markdown that a notebook renders, with long tables collapsed; `str` gives it without collapsed sections."""

    def __init__(self, text: str):
        self.text = text

    def _repr_markdown_(self) -> str:
        return self.text

    def __str__(self) -> str:
        return re.sub(r"</?(details|summary)>", "", self.text)


def folded(summary: str, text: str) -> str:
    """Return `text` collapsed under one line, as HTML inside Markdown."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def page(trial: Trial, sessions: Mapping[str, Sequence[Run]]) -> Page:
    """Return the page of `trial`; `sessions` are its runs by heading, the decisive ones last."""
    *before, final = [_session(trial, name, runs) for name, runs in sessions.items() if runs] or [""]
    parts = (text.removeprefix("### ").partition("\n\n") for text in before)
    made = [*(folded(heading, rest) for heading, _, rest in parts), *([final] if final else [])]
    last = next((runs for runs in reversed(sessions.values()) if runs), None)
    return Page("\n\n".join([
        f"## {trial.key}: {trial.title}",
        f"> {trial.claim}\n>\n> {trial.source}",
        sentence(trial, None if last is None else trial.judge(last)),
        f"**Form.** The claim is {'a tendency' if trial.form == LogicalForm.TENDENCY else trial.form}: "
        f"{FORMS[trial.form]}.  \n**Scope.** {begun(trial.scope)}.  \n"
        f"**What decides.** {begun(trial.decides)}.  \n**Seeds.** A seed changes {trial.varies}.  \n"
        f"**Effort.** Quick: {trial.quick.seeds} seeds, {trial.quick.takes} on one core; full: "
        f"{trial.full.seeds} seeds, {trial.full.takes}: `compedu claim {trial.key} --run full`.",
        "**Arms**\n\n" + table(
            ("arm", "settings", "training steps", "tuning trials"),
            ((arm.name, arm.settings, arm.steps, arm.trials) for arm in trial.arms),
        ),
        *([trial.tuning()] if trial.tuning else []),
        *made,
        f"**What would change it.** {begun(trial.changes)}.",
        _together(trial, last),
    ]) + "\n")  # fmt: skip


def stored_page(trial: Trial, live: Sequence[Run] = ()) -> Page:
    """Return the page of the shipped runs, preceded by `live` runs, if any.

    Raises `CompressionError` if shipped runs are missing.
    """
    sessions = {"run just now": live} if live else {}
    return page(trial, sessions | {
        "quick, stored": trial.stored(), "full, stored": trial.stored(full=True),
    })  # fmt: skip


def sentence(trial: Trial, judgment: Judgment | None) -> str:
    """Return the verdict as a sentence; it always holds at our scale."""
    if judgment is None:
        return "**Not run yet.**"
    text = f"**{judgment.verdict.capitalize()} at our scale:** {MEANS[judgment.verdict]} ({judgment.seeds} seeds)."
    parts = [f"*{one.part.name}*: {one.came_out}" for one in judgment.parts if one.part.role == Role.VERDICT]
    return " ".join([text, f"Part by part: {'; '.join(parts)}.", *(f"{begun(r)}." for r in judgment.reservations)])


def begun(text: str) -> str:
    """Return `text` with its first character in upper case."""
    return text[:1].upper() + text[1:]


def _session(trial: Trial, name: str, runs: Sequence[Run]) -> str:
    judgment = trial.judge(runs)
    return "\n\n".join([
        f"### {name.capitalize()}: {judgment.verdict} at our scale",
        f"{judgment.seeds} seeds, {len(runs)} runs{conditions(trial, runs)}.",
        effects_table(judgment), folded("All runs", "\n\n".join([runs_table(runs), *_chosen(runs)])),
    ])  # fmt: skip


def conditions(series: Series, runs: Sequence[Run]) -> str:
    """Return where and when stored runs were made; "" for runs that are not in the shipped file."""
    stored = read_runs(series.path) if series.path.exists() else None
    if stored is None or not all(run in stored.by_key.values() for run in runs):
        return ""
    return "; " + "; ".join(sorted({
        f"{made['machine']['cpu']}, torch {made['versions']['torch']}, {made['date'][:10]}" for made in stored.runs
    }))  # fmt: skip


def effects_table(judgment: Judgment) -> str:
    """Return the table of parts with effect, interval, margin, and minimum detectable effect."""
    head = ("part", "role", "effect", "interval", "margin", "minimum detectable effect", "seeds", "came out")
    return table(head, (_effect_row(one) for one in judgment.parts)) + f"\n\n{KEY}"


def _effect_row(one: Judged) -> tuple[str, ...]:
    effect = one.effect
    rule = one.part.rule
    return (
        one.part.name, one.part.role, f"{number(effect.mean)} {rule.unit}",
        f"{number(effect.low)} to {number(effect.high)} ({100 * effect.confidence:.4g} %)", number(rule.margin),
        number(effect.minimum_detectable_effect), str(effect.seeds), one.came_out,
    )  # fmt: skip


def runs_table(runs: Sequence[Run]) -> str:
    """Return the table of measurements: mean over seeds by setting and arm, standard deviation in parentheses."""
    measures = list(dict.fromkeys(name for run in runs for values in run.outcomes.values() for name in values))
    rows = []
    for setting, same in by_setting(runs).items():
        for arm in dict.fromkeys(arm for run in same for arm in run.outcomes):
            found = [run.outcomes[arm] for run in same if arm in run.outcomes]
            cells = ([values[name] for values in found if name in values] for name in measures)
            rows.append((setting, arm, *map(_spread, cells)))
    return table(("setting", "arm", *measures), rows)


def means_table(runs: Sequence[Run], measure: str) -> Columns:
    """Return the means of one measure over seeds: a row for each setting, a column for each arm that has it.

    Raises `ValueError` for a measure that no arm has, with those there are.
    """
    known = {name: None for run in runs for values in run.outcomes.values() for name in values}
    if measure not in known:
        raise ValueError(f"no arm has a measure {measure!r}; there are: {', '.join(known)}")
    arms = list(dict.fromkeys(arm for run in runs for arm, values in run.outcomes.items() if measure in values))
    rows = []
    for setting, same in by_setting(runs).items():
        found = ([run.outcomes[arm][measure] for run in same if measure in run.outcomes.get(arm, {})] for arm in arms)
        rows.append((setting, *(number(statistics.mean(values)) if values else "" for values in found)))
    return Columns([(measure, *arms), *rows], left={0})


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return number(values[0]) if values else ""
    return f"{number(statistics.mean(values))} ({number(statistics.stdev(values))})"


def _chosen(runs: Sequence[Run]) -> list[str]:
    """Return the methods of the arms for the first seed, if they differ from seed to seed."""
    first = [(run, arm, text) for run in runs if run.seed == runs[0].seed for arm, text in run.settings.items()]
    if not first:
        return []
    rows = ((run.setting, arm, f"`{text}`") for run, arm, text in first)
    return [f"The arms for seed {runs[0].seed}:", table(("setting", "arm", "method"), rows)]


def _together(trial: Trial, runs: Sequence[Run] | None) -> str:
    text = (
        f"**Read with the others.** {CLAIMS_READ_TOGETHER} drawbacks and suggestions of the survey are to be judged. "
        f"At 95 % each, up to {some_wrong():.0%} of such collections hold a wrong verdict, if they are independent."
    )
    if runs is None:
        return text
    strict = trial.judge_with_all(runs).verdict
    return f"{text} So strict that at most 5 % of collections would hold one (Bonferroni), this one is: {strict}."


def number(value: float) -> str:
    """Return a number with three significant digits, or as an integer from 1000 on.

    >>> number(0.99123), number(12345.0), number(-0.5)
    ('0.991', '12345', '-0.5')
    """
    if value and math.isfinite(value) and abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; a bar inside a cell, as in a pipeline of methods, is escaped."""
    lines = [[str(cell).replace("|", "\\|") for cell in line] for line in (head, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
