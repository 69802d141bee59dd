"""Claim D9: the arms have equally many parameters and epochs, and what the dense network gains is subtracted."""

from dataclasses import replace

import pytest

from compedu.claims.judgment import judge
from compedu.claims.store import Run
from compedu.claims.survey import retraining as claim
from compedu.claims.survey.retraining import (
    ARMS,
    BEFORE,
    BUDGET,
    COMPARED,
    DENSE,
    DRAWN,
    EQUAL,
    LATE,
    NORMALIZED,
    ON_TRIAL,
    PRUNED,
    RETRAINING,
    SOON,
    Retrained,
)
from compedu.claims.survey.shared.networks import parameters
from compedu.claims.verdict import Verdict
from compedu.forms import Factored, Masked, NormalizedFactors
from compedu.methods import FineTune, LowRankTraining

TINY = Retrained("lenet5(width=0.2)", images=80, epochs=10, fraction=0.2)


@pytest.fixture(scope="module")
def dense():
    return replace(TINY, epochs=1).dense(0)


def test_every_arm_has_the_parameters_of_equal_fractions_and_none_more(dense):
    starts = claim.starts(TINY, dense)
    assert list(starts) == [DENSE, *ARMS]
    most = parameters(starts[EQUAL](dense))
    assert parameters(starts[BUDGET](dense, TINY.data)) <= most < parameters(dense)
    assert parameters(claim.trained(starts[DRAWN], 1, 0)(dense, TINY.data)) == most
    pruned = starts[PRUNED](dense)
    zeros = sum(int((~one.mask.bool()).sum()) for one in pruned.modules() if isinstance(one, Masked))
    assert parameters(pruned) == parameters(dense) - zeros and abs(parameters(pruned) - most) <= 2


def test_the_arms_are_what_they_are_called(dense):
    starts = claim.starts(TINY, dense)
    assert isinstance(starts[EQUAL](dense).conv2, Factored)
    kinds = {arm: type(claim.trained(starts[arm], 1, 0)(dense, TINY.data).conv2) for arm in (DRAWN, NORMALIZED)}
    assert kinds == {DRAWN: Factored, NORMALIZED: NormalizedFactors}


@pytest.mark.parametrize("arm", [DENSE, *ARMS])
def test_all_arms_train_as_long_and_those_that_start_anew_at_the_rate_of_the_dense_network(dense, arm):
    start = claim.starts(TINY, dense)[arm]
    *_, last = getattr(claim.trained(start, 7, 3), "steps", (claim.trained(start, 7, 3),))
    assert (last.epochs, last.seed, last.shift, last.batch) == (7, 3, 1, 64)
    anew = arm in (DRAWN, NORMALIZED)
    assert type(last) is (LowRankTraining if anew else FineTune)
    assert last.lr == (claim.FRESH if anew else claim.TRAINED)


def test_short_is_three_tenths_and_long_as_long_as_the_dense_network():
    for plan in (RETRAINING.quick, RETRAINING.full):
        for setting in plan.settings:
            assert setting.lengths == {SOON: 0.3 * setting.epochs, LATE: setting.epochs}


def test_a_run_measures_every_arm_before_and_after_short_and_long_training(monkeypatch):
    looks = []

    def looked(model, data, split="test"):
        looks.append(split)
        return float(len(looks))

    monkeypatch.setattr(claim, "accuracy", looked)
    found = claim.compute(replace(TINY, epochs=4), 2)
    assert set(looks) == {"test"} and len(looks) == 3 * 6 - 2
    assert [BEFORE in found.outcomes[arm] for arm in found.outcomes] == [True, True, True, False, False, True]
    assert found.of(EQUAL, LATE) == found.of(EQUAL, SOON) + 1 == found.of(EQUAL, BEFORE) + 2
    assert all("epochs=4" in text and "seed=2" in text for text in found.settings.values())


# Judgment


def measured(**gains):
    """Return runs of five seeds; `gains` are the points of long retraining by arm."""
    gains = dict.fromkeys((DENSE, *ARMS), 0.0) | gains
    runs = []
    for seed in range(5):
        outcomes = {}
        for place, (arm, gain) in enumerate(gains.items()):
            wobble = (seed * (2 * place + 3)) % 7 / 20
            start = 95.0 if arm == DENSE else 60.0 + wobble
            outcomes[arm] = {BEFORE: start, SOON: 90.0, LATE: 90.0 + gain + wobble}
        runs.append(Run("one", seed, outcomes))
    return runs


def verdicts(runs):
    judgment = judge(claim.parts(runs), RETRAINING.form)
    by_name = {one.part.name: one for one in judgment.parts}
    return judgment.verdict, [by_name[f"one, {arm}: long retraining ends higher"].verdict for arm in ON_TRIAL]


def test_an_arm_that_gains_by_long_retraining_confirms_and_one_that_does_not_refutes():
    assert verdicts(measured()) == (Verdict.REFUTED, [Verdict.REFUTED] * 2)
    assert verdicts(measured(**{EQUAL: 5.0, BUDGET: 5.0})) == (Verdict.CONFIRMED, [Verdict.CONFIRMED] * 2)
    assert verdicts(measured(**{EQUAL: 5.0})) == (Verdict.SPLIT, [Verdict.CONFIRMED, Verdict.REFUTED])


def test_what_the_dense_network_gains_as_well_is_no_fault_of_low_rank():
    assert verdicts(measured(**{DENSE: 5.0, EQUAL: 5.0, BUDGET: 5.0})) == (Verdict.REFUTED, [Verdict.REFUTED] * 2)


def test_nothing_is_decided_where_there_was_nothing_to_retrain():
    runs = measured(**{EQUAL: 5.0, BUDGET: 5.0})
    for run in runs:
        run.outcomes[EQUAL][BEFORE] = 94.5 + run.seed / 10
    judgment = judge(claim.parts(runs), RETRAINING.form)
    assert judgment.verdict == Verdict.UNDECIDED and "the control failed" in judgment.reservations[0]


def test_findings_compare_the_other_starts_by_the_same_measures():
    parts = {part.name: part for part in claim.parts(measured(**{PRUNED: 3.0}))}
    assert {arm for arm in COMPARED for name in parts if name == f"on average, {arm}: long training ends higher"} == {
        *COMPARED
    }
    short = parts[f"on average, {PRUNED}: short of the dense network after short training"]
    assert short.values == (5.0,) * 5


# The shipped runs


def test_the_arms_of_a_shipped_run_have_as_many_parameters():
    for run in (*RETRAINING.stored(), *RETRAINING.stored(full=True)):
        equal = run.of(EQUAL, claim.WEIGHTS)
        assert run.of(DRAWN, claim.WEIGHTS) == equal >= run.of(BUDGET, claim.WEIGHTS) < run.of(DENSE, claim.WEIGHTS)
        assert abs(run.of(PRUNED, claim.WEIGHTS) - equal) <= 2
        assert run.of(NORMALIZED, claim.WEIGHTS) < 1.05 * equal
