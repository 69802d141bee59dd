"""Claims: Student's interval and its power, one margin, runs kept and never repeated, pages, shipped verdicts."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import compedu
from compedu.claims import CLAIMS, Arm, Effect, Experiment, Part, Plan, Rule, experiment, judge
from compedu.claims.judgment import FORMS
from compedu.claims.page import effects_table, means_table, number, page, sentence, stored_page, table
from compedu.claims.running import run
from compedu.claims.store import Run, by_seed, read_runs
from compedu.claims.verdict import (
    ALPHA,
    CLAUSES,
    RULE_IN_WORDS,
    Verdict,
    error_rates,
    minimum_detectable_effect,
    some_wrong,
    together,
)
from compedu.cli import main
from compedu.errors import CompressionError
from compedu.metrics.seeds import student_interval

CONFIRMED = Verdict.CONFIRMED
REFUTED = Verdict.REFUTED
SPLIT = Verdict.SPLIT
UNDECIDED = Verdict.UNDECIDED
PROXY = Verdict.PROXY

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
POINTS = Rule(1.0, "points")
TIMES = Rule(1.5, "times the steps", ratio=True)


# Student's interval


@pytest.mark.parametrize("confidence", [0.8, 0.95, 1 - 0.05 / 16])
@pytest.mark.parametrize("seeds", [2, 3, 5, 12])
def test_the_interval_is_that_of_the_paired_t_test(seeds, confidence):
    one, other = np.random.default_rng(seeds).normal([[3.0], [2.0]], 1.0, (2, seeds))
    expected = stats.ttest_rel(one, other).confidence_interval(confidence)
    assert student_interval(list(one - other), confidence) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_the_interval_holds_the_true_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(0.7, 2.0, (4000, 4)).tolist()
    held = sum(low <= 0.7 <= high for low, high in (student_interval(draw, 0.9) for draw in draws))
    assert abs(held / 4000 - 0.9) < 4 * (0.9 * 0.1 / 4000) ** 0.5


@pytest.mark.parametrize("seeds, confidence", [(3, 0.95), (5, 0.95), (6, 1 - 0.05 / 3), (8, 1 - 0.05 / 16)])
def test_an_effect_of_the_minimum_detectable_effect_size_is_found_as_often_as_promised(seeds, confidence):
    spread = [float(value) for value in np.linspace(-1, 1, seeds)]  # a sample whose standard deviation is known
    deviation = float(np.std(spread, ddof=1))
    effect = minimum_detectable_effect(spread, confidence, power=0.8)
    draws = np.random.default_rng(1).normal(effect, deviation, (4000, seeds)).tolist()
    found = sum(student_interval(draw, confidence)[0] > 0 for draw in draws)
    assert abs(found / 4000 - 0.8) < 4 * (0.8 * 0.2 / 4000) ** 0.5


def test_more_seeds_and_more_power_change_the_minimum_detectable_effect_effect():
    few, many = [0.0, 1.0, 2.0], [0.0, 1.0, 2.0] * 4
    assert minimum_detectable_effect(many) < minimum_detectable_effect(few) < minimum_detectable_effect(few, power=0.95)
    assert minimum_detectable_effect([0.5, 0.5, 0.5]) == 0.0


@pytest.mark.parametrize("values", [[], [1.0]])
def test_one_seed_has_no_interval(values):
    with pytest.raises(ValueError, match=f"at least 2 seeds, got {len(values)}"):
        student_interval(values)


# Verdicts


@pytest.mark.parametrize("values, verdict", [
    ([2.0, 2.1, 1.9], CONFIRMED), ([0.1, 0.0, -0.1], REFUTED), ([-3.0, -2.9, -3.1], REFUTED),
    ([1.0, 1.1, 0.9], UNDECIDED), ([3.0, -1.0, 5.0], UNDECIDED),
])  # fmt: skip
def test_the_interval_beyond_the_margin_decides(values, verdict):
    assert POINTS.decide(Effect.of(values, POINTS)) == verdict


def test_interval_and_margin_alone_decide():
    effect = Effect(mean=0.0, low=-0.9, high=0.9, minimum_detectable_effect=1.2, seeds=5, confidence=0.95)
    assert POINTS.decide(effect) == REFUTED  # wholly below the margin, whatever the seeds could have told from none
    assert POINTS.decide(replace(effect, minimum_detectable_effect=9.0, seeds=2, mean=5.0)) == REFUTED
    assert POINTS.decide(replace(effect, high=1.1)) == POINTS.decide(replace(effect, high=1.0)) == UNDECIDED


@pytest.mark.parametrize("low, high, verdict", [
    (2.0, 2.0, UNDECIDED), (1.1, 2.0, CONFIRMED), (1.0, 2.0, UNDECIDED), (0.2, 0.9, REFUTED), (0.9, 1.1, UNDECIDED),
])  # fmt: skip
def test_the_printed_rule_is_the_one_that_decides(low, high, verdict):
    effect = Effect(mean=1.5, low=low, high=high, minimum_detectable_effect=0.1, seeds=5, confidence=0.95)
    first = next(clause for clause in CLAUSES if clause.holds(effect, 1.0))
    assert POINTS.decide(effect) == first.verdict == verdict
    assert f"{first.words}: {first.verdict}" in RULE_IN_WORDS.lower()


def known_effects(true, seeds, confidence, deviation=0.5, draws=1500):
    """Return the share of confirmed and of refuted experiments whose ratios lie about `true`, on a margin of 1.5."""
    logs = np.random.default_rng(3).normal(np.log(true), deviation, (draws, seeds)).tolist()
    ends = (np.exp(student_interval(sample, confidence)) for sample in logs)
    verdicts = [TIMES.decide(Effect(true, low, high, np.nan, seeds, confidence)) for low, high in ends]
    return verdicts.count(CONFIRMED) / draws, verdicts.count(REFUTED) / draws


@pytest.mark.parametrize("seeds, parts", [(3, 1), (8, 2)])
def test_the_rule_is_wrong_as_often_as_the_page_says(seeds, parts):
    side = ALPHA / 2 / parts
    for share in known_effects(1.5, seeds, 1 - ALPHA / parts):
        assert abs(share - side) < 4 * (side / 1500) ** 0.5
    assert known_effects(1.2, seeds, 1 - ALPHA / parts)[0] < side > known_effects(1.8, seeds, 1 - ALPHA / parts)[1]
    assert "at the margin 2.5 % are called confirmed and 2.5 % refuted" in error_rates()


def test_the_rule_finds_most_of_what_is_there():
    assert known_effects(0.7, 8, 1 - ALPHA / 2)[1] > 0.85  # the refutations that it exists for


def test_the_rule_is_printed_alike_wherever_it_is_printed():
    from compedu.explorers.pages.verdicts import forest

    found = judge([Part("a", HELD, POINTS)], "tendency")
    key = forest(found).layout.annotations[0].text
    for printed in (effects_table(found), key, written("docs/architecture.md"), written("notebooks/02_pruning.ipynb")):
        assert RULE_IN_WORDS in printed
    assert error_rates() in effects_table(found)


def written(path):
    text = (Path(__file__).parents[2] / path).read_text(encoding="utf-8")
    return " ".join(text.split())


def test_ratios_are_compared_as_logarithms():
    effect = Effect.of([2.0, 8.0, 4.0], TIMES)
    low, high = student_interval([np.log(2), np.log(8), np.log(4)])
    assert effect.mean == pytest.approx(4.0) and (effect.low, effect.high) == pytest.approx((np.exp(low), np.exp(high)))
    turned = Effect.of([1 / 2, 1 / 8, 1 / 4], TIMES)
    assert (turned.low, turned.high) == pytest.approx((1 / effect.high, 1 / effect.low))
    assert (
        turned.minimum_detectable_effect == pytest.approx(effect.minimum_detectable_effect)
        and effect.minimum_detectable_effect > 1
    )


@pytest.mark.parametrize("values", [[1.0, 0.0], [1.0, -2.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_ratios_that_are_none_are_refused(values):
    with pytest.raises(ValueError, match="finite, ratios positive"):
        Effect.of(values, TIMES)


@pytest.mark.parametrize("margin, ratio", [(0.0, False), (1.0, True), (0.0, True), (-1.0, True)])
def test_a_margin_of_no_effect_is_refused(margin, ratio):
    with pytest.raises(ValueError, match="Rule.margin must be"):
        Rule(margin, "points", ratio)


def test_a_tendency_of_several_things_may_be_split():
    assert together([CONFIRMED, CONFIRMED]) == CONFIRMED and together([REFUTED, REFUTED]) == REFUTED
    assert together([CONFIRMED, REFUTED]) == together([CONFIRMED, REFUTED, UNDECIDED]) == SPLIT
    assert together([CONFIRMED, UNDECIDED]) == together([REFUTED, UNDECIDED]) == UNDECIDED


def test_what_is_said_of_all_falls_with_one_and_is_never_confirmed():
    assert together([CONFIRMED, REFUTED, UNDECIDED], "universal") == REFUTED
    assert together([CONFIRMED, CONFIRMED], "universal") == together([CONFIRMED, UNDECIDED], "universal") == UNDECIDED
    found = judge([Part("b", HELD, POINTS)], "universal")
    assert found.verdict == UNDECIDED and found.reservations == (
        "everything that was tried supports it, but examples cannot confirm a universal claim",
    )


def test_an_effect_below_the_margin_is_no_contradiction_in_words():
    assert judge([Part("b", (0.5, 0.6, 0.4), POINTS)], "tendency").parts[0].came_out == "refuted: there, but smaller"
    assert judge([Part("b", MISSED, POINTS)], "tendency").parts[0].came_out == REFUTED
    assert judge([Part("b", (-3.0, -3.1, -2.9), POINTS)], "tendency").parts[0].came_out == REFUTED


@pytest.mark.parametrize("values, rule", [((1.0, 1.0, 1.0), TIMES), ((16.0, 16.0, 16.0), TIMES), ((0.0, 0.0), POINTS)])
def test_seeds_that_all_say_the_same_decide_nothing(values, rule):
    found = judge([Part("b", values, rule)], "tendency")
    assert found.verdict == UNDECIDED and "inconclusive: all seeds gave the same" in found.reservations[0]


HELD, MISSED, UNSURE = (2.0, 2.1, 1.9), (0.0, 0.1, -0.1), (1.0, 1.1, 0.9)


def test_one_counterexample_refutes_and_findings_decide_nothing():
    parts = [Part("a", HELD, POINTS), Part("b", MISSED, POINTS), Part("c", HELD, POINTS, role="finding")]
    assert judge(parts, "universal").verdict == REFUTED
    assert judge([parts[0], replace(parts[1], role="finding")], "tendency").verdict == CONFIRMED


@pytest.mark.parametrize("values, expected, verdict", [
    (HELD, CONFIRMED, REFUTED), (UNSURE, CONFIRMED, UNDECIDED), (HELD, REFUTED, UNDECIDED),
])  # fmt: skip
def test_a_control_that_fails_withholds_the_verdict(values, expected, verdict):
    control = Part("uniform is worse", values, POINTS, "control", expected)
    found = judge([Part("b", MISSED, POINTS), control], "universal")
    assert found.verdict == verdict
    assert bool(found.reservations) == (verdict == UNDECIDED)


def test_parts_share_the_level_so_that_chance_refutes_no_claim_of_many_parts():
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(600):  # each part lies on its margin: whatever is decided is wrong
        parts = [Part(str(k), tuple(rng.normal(1.0, 0.1, 5)), POINTS) for k in range(4)]
        wrong += any(one.verdict != UNDECIDED for one in judge(parts, "universal").parts)
    assert wrong / 600 < 0.05 + 4 * (0.05 * 0.95 / 600) ** 0.5
    assert judge(parts, "universal").parts[0].effect.confidence == pytest.approx(1 - 0.05 / 4)


def test_what_no_run_measures_is_testable_by_proxy_alone():
    assert judge([Part("a", HELD, POINTS)], "proxy").verdict == PROXY


def test_judgments_of_nothing_are_refused():
    with pytest.raises(ValueError, match="a part with role 'verdict'"):
        judge([Part("a", HELD, POINTS, "finding")], "universal")
    with pytest.raises(ValueError, match="a form of universal"):
        judge([Part("a", HELD, POINTS)], "theory")
    with pytest.raises(ValueError, match="Part.role must be one of verdict"):
        Part("a", HELD, POINTS, "witness")


def test_sixteen_verdicts_read_together_are_stricter():
    assert some_wrong(1) == pytest.approx(0.025) and some_wrong(16) == pytest.approx(1 - 0.975**16)
    assert some_wrong(16, ALPHA / 16) < 0.05
    near = Part("a", (1.5, 1.75, 1.25), POINTS)
    assert judge([near], "tendency").verdict == UNDECIDED and judge([near], "tendency", 0.2).verdict == CONFIRMED


# Running


@dataclass(frozen=True)
class Coin:
    """A setting of the trial below."""

    heads: float = 0.5

    def __str__(self):
        return f"heads {self.heads}"


CALLS = []


def toss(setting, seed):
    CALLS.append((setting, seed))
    return Run(str(setting), seed, {"a": {"won": 3.0 + seed / 10}, "b": {"won": setting.heads}}, {"b": "A(x=1) | B()"})


def difference(runs):
    ahead = by_seed(runs, lambda run: run.of("a", "won") - run.of("b", "won"))
    return (Part("a wins more often than b", ahead, POINTS),)


TRIAL = Experiment(
    key="D0", title="A trial", claim="A wins.", source="a test", form="tendency", scope="coins",
    arms=(Arm("a", "A()", "0", "0"), Arm("b", "A() | B()", "0", "1")), decides="a point", varies="the toss",
    changes="nothing",
    quick=Plan((Coin(),), 2, "a moment"), full=Plan((Coin(), Coin(0.25)), 3, "a while"), compute=toss, parts=difference,
)  # fmt: skip


@pytest.fixture
def store(tmp_path):
    CALLS.clear()
    return tmp_path / "folder" / "D0.jsonl"


def test_a_run_is_never_made_twice(store):
    quick = TRIAL.run(store=store)
    assert [(Coin(), 0), (Coin(), 1)] == CALLS
    full = TRIAL.run(full=True, store=store)
    assert len(CALLS) == len(set(CALLS)) == 6 and full[0] == quick[0]  # what both plans have in common is taken over
    assert TRIAL.run(full=True, store=store) == full and len(CALLS) == 6
    assert len(read_runs(store).by_key) == 6 and len(read_runs(store).runs) == 2


def test_an_interrupted_experiment_goes_on_where_it_stopped(store, monkeypatch):
    def stops(setting, seed):
        if seed == 1:
            raise KeyboardInterrupt
        return toss(setting, seed)

    with pytest.raises(KeyboardInterrupt):
        replace(TRIAL, compute=stops).run(full=True, store=store)
    with store.open("ab") as file:
        file.write(b'{"key": "cut off')
    assert TRIAL.run(full=True, store=store) == TRIAL.run(full=True)
    assert CALLS.count((Coin(), 0)) == 2  # once kept, once without a store


def test_other_versions_and_other_settings_are_other_runs(store):
    TRIAL.run(store=store)
    replace(TRIAL, version=2).run(store=store)
    assert len(CALLS) == 4
    used = replace(TRIAL, uses=(compedu.MagnitudePruning,))
    assert f"MagnitudePruning/{compedu.MagnitudePruning.version}" in used.run_key(Coin(), 0) != TRIAL.run_key(Coin(), 0)


def test_a_damaged_file_is_refused_by_line(store):
    TRIAL.run(store=store)
    lines = store.read_text().splitlines()
    for bad in ({"key": "k"}, {"key": "k", "made": {"seed": 1}}, {"run": {"format": 99}}):
        store.write_text("\n".join([*lines, json.dumps(bad)]) + "\n")
        with pytest.raises(CompressionError, match=f"line {len(lines) + 1}, is not a record"):
            TRIAL.run(store=store)
    store.write_text(lines[1] + "\n")
    with pytest.raises(CompressionError, match="no line of versions and machine comes first"):
        read_runs(store)


def test_seeds_apart_are_computed_in_processes_of_their_own():
    found = run(replace(TRIAL, compute=process, apart=True), Plan((Coin(), Coin(0.1)), 2, "a moment"))
    numbers = [one.of("process", "number") for one in found]
    assert numbers[0] == numbers[1] != numbers[2] == numbers[3]


def process(setting, seed):
    import os

    return Run(str(setting), seed, {"process": {"number": float(os.getpid())}})


def test_seeds_that_the_design_has_looked_at_are_not_counted():
    fresh = replace(TRIAL, full=Plan((Coin(),), 3, "a while", first=8))
    assert [one.seed for one in fresh.run(full=True)] == [8, 9, 10]


def test_too_few_seeds_and_unknown_forms_are_refused():
    with pytest.raises(ValueError, match="Plan.seeds must be at least 2, got 1"):
        Plan((Coin(),), 1, "a moment")
    with pytest.raises(ValueError, match="Trial.form must be one of universal"):
        replace(TRIAL, form="theory")


def test_an_outcome_that_is_not_there_is_named():
    with pytest.raises(KeyError, match="has no c: won; it has"):
        toss(Coin(), 0).of("c", "won")


def test_missing_runs_are_named_with_the_command_that_makes_them():
    with pytest.raises(CompressionError, match="6 of 6 runs of claim D0.*: compedu claim D0 --run full --store ship"):
        TRIAL.stored(full=True)


# Pages


def test_the_page_says_everything():
    text = str(page(TRIAL, {"just now": TRIAL.run(), "full": TRIAL.run(full=True)}))
    for needed in (TRIAL.scope, TRIAL.decides, TRIAL.varies, TRIAL.changes, TRIAL.source, FORMS["tendency"]):
        assert needed in text or needed[0].upper() + needed[1:] in text
    for needed in ("## D0: A trial", "> A wins.", "2 seeds, a moment", "3 seeds, a while"):
        assert needed in text
    assert "**Confirmed at our scale:**" in text and text.count("Just now: confirmed at our scale") == 1
    assert "2 seeds, 2 runs" in text and "3 seeds, 6 runs" in text
    assert "| b | A() \\| B() | 0 | 1 |" in text and "| heads 0.25 | a | 3.1 (0.1) |" in text
    assert "16 drawbacks and suggestions" in text and "33%" in text
    assert page(TRIAL, {})._repr_markdown_().count("**Not run yet.**") == 1


def test_the_page_names_what_stands_against_a_verdict():
    failed = judge([Part("b", MISSED, POINTS), Part("uniform is worse", MISSED, POINTS, "control")], "universal")
    assert "The control failed: uniform is worse came out refuted." in sentence(TRIAL, failed)
    assert "| as expected |" not in effects_table(failed)
    assert "| uniform is worse | control |" in effects_table(failed) and "refuted: failed |" in effects_table(failed)


def test_every_table_is_whole():
    text = table(("a", "b"), [("1", "x | y"), ("2", "z")])
    assert text.splitlines() == ["| a | b |", "| --- | --- |", "| 1 | x \\| y |", "| 2 | z |"]
    assert [number(value) for value in (0.0, 1234567.0, 0.00012345, -2.0)] == ["0", "1234567", "0.000123", "-2"]


# The claims themselves

claims = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.key)


@claims
def test_every_claim_is_found_by_its_name_and_says_what_it_needs(claim):
    assert experiment(claim.key) is experiment(claim.key.lower()) is claim is compedu.experiment(claim.key)
    assert "2018" in claim.source and len(claim.arms) > 1 and claim.full.seeds >= claim.quick.seeds >= 3
    for text in (claim.title, claim.claim, claim.scope, claim.decides, claim.varies, claim.changes):
        assert text


def test_an_unknown_claim_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no experiment is called 'D99'; there are: .*D4b"):
        experiment("D99")


VERDICTS = {"D2": UNDECIDED, "D3": REFUTED, "D4": UNDECIDED, "D4b": SPLIT, "D7": SPLIT, "D7b": PROXY, "D8": SPLIT,
            "D9": UNDECIDED, "D12": REFUTED, "D13": CONFIRMED, "C15": CONFIRMED}  # fmt: skip
FAILED = {"D4": ["tuning by hand cannot repair the damaged LAMP"]}  # controls that leave a claim undecided


@claims
def test_the_verdict_follows_from_the_shipped_runs(claim):
    for full in (False, True):
        found = claim.stored(full)
        assert {one.seed for one in found} == set(claim.plan(full).all_seeds)
    judgment = claim.judge(found)
    assert judgment.verdict == VERDICTS[claim.key], sentence(claim, judgment)
    assert [one.part.name for one in judgment.parts if one.failed] == FAILED.get(claim.key, [])
    text = str(stored_page(claim))
    assert sentence(claim, judgment) in text and "Quick, stored" in text and "### Full, stored" in text


@claims
def test_the_shipped_runs_say_how_they_were_made(claim):
    sessions = read_runs(claim.path).runs
    assert sessions and all({"versions", "machine", "date"} <= set(session) for session in sessions)
    wanted = {claim.run_key(*cell) for full in (False, True) for cell in claim.plan(full).cells()}
    assert set(read_runs(claim.path).by_key) == wanted, "the file holds runs of an earlier version"


@claims
def test_the_chapter_says_what_the_shipped_runs_say(claim):
    (text,) = [text for chapter in sorted(NOTEBOOKS.glob("*.ipynb")) for text in told_of(claim, chapter)]
    runs = claim.stored(full=True)
    assert text.startswith(f"*{claim.judge(runs).verdict.capitalize()}*")
    if "sixteen" in text:
        assert f"it is *{claim.judge_with_all(runs).verdict}*" in text


def told_of(claim, chapter):
    """Return what the chapter says of the verdict: the first text in italics behind the cell that shows the claim."""
    texts = ["".join(cell["source"]) for cell in json.loads(chapter.read_text(encoding="utf-8"))["cells"]]
    asked = next((place for place, text in enumerate(texts) if f'ce.experiment("{claim.key}")' in text), len(texts))
    return [text for text in texts[asked + 1 :] if text.startswith("*")][:1]


# The command line


@pytest.fixture
def call(capsys):
    """Call the command line; returns exit code, what it printed, what it complained."""

    def called(*arguments):
        code = main(list(arguments))
        return code, *capsys.readouterr()

    return called


def test_claims_are_listed_and_shown(call):
    code, printed, complained = call("claim")
    assert code == 0 and complained == ""
    for claim, line in zip(CLAIMS, printed.splitlines(), strict=True):
        assert line == f"{claim.key}: {claim.title}; {VERDICTS[claim.key]} at our scale"
    assert call("claim", "d4b")[:2] == (0, str(experiment("D4b").page()))


def test_a_claim_is_run_on_demand(call, monkeypatch):
    class Asked:
        def run(self, full, store):
            return [full, store]

        def page(self, live):
            return f"page of {live}"

    monkeypatch.setattr("compedu.claims.experiment", lambda key: Asked())
    assert call("claim", "D4", "--run", "full", "--store", "f.jsonl")[:2] == (0, "page of [True, 'f.jsonl']")
    assert call("claim", "D4")[:2] == (0, "page of ()")


def test_claims_that_cannot_be_run_are_refused_in_one_line(call):
    refusals = {("D99",): "no experiment is called 'D99'", ("--run", "quick"): "--run needs a claim"}
    for arguments, said in refusals.items():
        code, printed, complained = call("claim", *arguments)
        assert code == 2 and printed == "" and said in complained and complained.count("\n") == 1


def test_the_command_that_remakes_runs_keeps_what_there_is(call):
    before = experiment("D4b").path.read_bytes()
    assert call("claim", "D4b", "--run", "quick", "--store", "shipped")[0] == 0
    assert experiment("D4b").path.read_bytes() == before


# The figure


def test_the_forest_plot_draws_every_part_with_its_interval_and_margin():
    from compedu.explorers.pages.verdicts import COLORS, forest

    parts = [Part("a", HELD, POINTS), Part("b", MISSED, POINTS, "control", REFUTED)]
    found = judge(parts, "universal")
    figure = forest(found)
    *effects, margins = figure.data
    for trace, one in zip(effects, reversed(found.parts), strict=True):
        ends = trace.x[0] - trace.error_x.arrayminus[0], trace.x[0] + trace.error_x.array[0]
        assert ends == pytest.approx((one.effect.low, one.effect.high))
        assert trace.text == (one.came_out,) and trace.marker.color == COLORS[one.verdict]
    assert margins.x == (1.0, 1.0) and figure.layout.yaxis.ticktext == ("b", "a")
    assert figure.layout.xaxis.type is None
    above, *beside = (one.text for one in figure.layout.annotations)
    assert above.startswith(f"<b>The claim: {found.verdict}</b>")
    for text, one in zip(beside, reversed(found.parts), strict=True):
        effect = one.effect
        assert text == f"{one.came_out}<br>{effect.mean:.2f} ({effect.low:.2f} to {effect.high:.2f})"
    assert forest(judge([Part("a", HELD, TIMES)], "universal")).layout.xaxis.type == "log"


def test_names_of_several_lines_have_room_in_the_forest_plot():
    from compedu.explorers.pages.verdicts import LINE, forest

    def drawn(name):
        return forest(judge([Part(name, HELD, POINTS), Part("a", MISSED, POINTS)], "tendency")).layout

    short, long = drawn("a part"), drawn("a part whose name is so long that it takes three lines or more of the plot")
    lines = long.yaxis.ticktext[1].count("<br>") + 1
    assert lines == 3 and long.height - short.height == LINE  # beside two lines: the verdict, and the mean


def test_parts_of_different_units_are_drawn_one_unit_at_a_time():
    from compedu.explorers.pages.verdicts import forest

    both = judge([Part("a", HELD, POINTS), Part("b", HELD, TIMES), Part("c", MISSED, POINTS)], "tendency")
    points, times = (forest(both, unit) for unit in ("points", "times the steps"))
    assert points.layout.yaxis.ticktext == ("c", "a") and times.layout.yaxis.ticktext == ("b",)
    assert points.layout.xaxis.type is None and times.layout.xaxis.type == "log"
    assert points.layout.xaxis.title.text.startswith("points:")
    for unit in (None, "grams"):
        with pytest.raises(ValueError, match=f"units points, times the steps, and `unit` is {unit!r}: name one"):
            forest(both, unit)


@claims
def test_every_claim_has_a_forest_plot(claim):
    from compedu.explorers.pages.verdicts import forest

    judgment = claim.judge(claim.stored(full=True))
    units = {one.part.rule.unit for one in judgment.parts}
    assert sum(len(forest(judgment, unit).data) - 1 for unit in units) == len(judgment.parts)


def test_means_over_seeds_have_a_row_for_each_setting_and_a_column_for_each_arm():
    runs = [
        Run("small", 0, {"dense": {"before": 90.0}, "cut": {"before": 50.0, "after": 80.0}}),
        Run("small", 1, {"dense": {"before": 92.0}, "cut": {"before": 60.0, "after": 84.0}}),
        Run("large", 0, {"cut": {"before": 70.0, "after": 88.0}}),
    ]
    assert means_table(runs, "before").rows == [("before", "dense", "cut"), ("small", "91", "55"), ("large", "", "70")]
    assert means_table(runs, "after").rows == [("after", "cut"), ("small", "82"), ("large", "88")]
    with pytest.raises(ValueError, match="no arm has a measure 'later'; there are: before, after"):
        means_table(runs, "later")


def test_a_page_shows_the_verdict_and_folds_the_runs_up():
    page = experiment("D4").page()
    shown = page._repr_markdown_()
    assert shown.count("<details>") == shown.count("</details>") == shown.count("<summary>") >= 3
    outside = re.sub(r"<details>.*?</details>", "", shown.replace("\n", " "))
    assert "Full, stored: " in outside and "LAMP falls short of tuning by hand" in outside
    assert "<details>" not in str(page) and "accuracy after" in str(page)
