"""The experiments on single claims: their arms are what they say, get equal effort, and are compared seed by seed."""

from dataclasses import replace

import pytest
import torch

import compedu
from compedu.claims.judgment import judge
from compedu.claims.store import Run
from compedu.claims.survey import manual_sensitivity as by_rule
from compedu.claims.survey import regularized_pruning as penalties
from compedu.claims.survey import smaller_is_not_faster as speed
from compedu.claims.survey.manual_sensitivity import (
    BY_HAND,
    DAMAGED,
    RECOVERED,
    UNIFORM,
    Budgeted,
    densities,
    tuned_by_hand,
)  # fmt: skip
from compedu.claims.survey.regularized_pruning import STEPS, Reached, reached_after
from compedu.claims.survey.shared import penalty_tuning as tuning
from compedu.claims.survey.shared.networks import accuracy, dense_network
from compedu.claims.survey.shared.penalty_arms import ARMS, AT_ONCE, GRADUAL, L1, L2, NONE, PROXIMAL, Start
from compedu.claims.survey.shared.penalty_tuning import CHOSEN, START, TRIALS, TRIED, Trial
from compedu.claims.survey.smaller_is_not_faster import AGAIN, CSR, DENSE, MASKED, REMOVED, SPARSITIES, Layers, crossing
from compedu.claims.verdict import Verdict
from compedu.deployment.kernels.csr import SparseLinear
from compedu.errors import CompressionError
from compedu.forms import Masked
from compedu.methods import FineTune, MagnitudePruning, Pipeline
from compedu.sweeps import method_of

CONFIRMED = Verdict.CONFIRMED
REFUTED = Verdict.REFUTED
SPLIT = Verdict.SPLIT
UNDECIDED = Verdict.UNDECIDED

# D4b: smaller is not faster


def test_every_arm_computes_what_it_says():
    dense, x = speed.network(60, seed=3), torch.randn(5, 60)
    masked, rows = speed.masked(dense, 0.75, speed.linear), speed.masked(dense, 0.75, SparseLinear)
    torch.testing.assert_close(speed.masked(dense, 0.0, speed.linear)(x), dense(x), rtol=0, atol=0)
    torch.testing.assert_close(rows(x), masked(x))
    for layer, whole in zip(masked[::2], dense[::2], strict=True):
        kept = layer.weight != 0
        assert int(kept.sum()) == 900 and torch.equal(layer.weight[kept], whole.weight[kept])
        assert layer.weight[kept].abs().min() >= whole.weight[~kept].abs().max()


def test_units_that_are_removed_were_the_weakest_and_the_rest_computes_as_if_they_were_silent():
    dense, x = speed.network(40, seed=1), torch.randn(6, 40)
    small = speed.without_units(dense, 0.9)
    assert [tuple(layer.weight.shape) for layer in small[::2]] == [(4, 40), (40, 4)]
    strength = dense[0].weight.abs().sum(1)
    silent = strength < strength.sort().values[36]
    hidden = torch.relu(dense[0](x)) * ~silent
    torch.testing.assert_close(small(x), dense[2](hidden))


def test_a_run_times_every_arm_at_every_share_of_zeros():
    found = speed.compute(Layers(64, batch=2, budget_s=0.0), seed=0)
    for arm in (AGAIN, MASKED, CSR, REMOVED):
        assert [name for name in found.outcomes[arm] if name != speed.CROSSING] == [f"{s:.0%}" for s in SPARSITIES]
        assert min(found.outcomes[arm].values()) > 0
    assert found.outcomes[DENSE]["ms"] > 0 and str(found.setting) == "width 64, batch 2"


def test_the_crossing_is_where_the_time_stays_below_the_dense_one():
    assert crossing((0.5, 0.7, 0.9, 0.99), (2.0, 0.9, 1.5, 0.5)) > 0.9  # below in between, but not to the end
    assert crossing((0.5, 0.75), (4.0, 0.25)) == pytest.approx(1 - 0.5 * 0.5**0.5)  # half-way in logarithms
    assert crossing((0.5, 0.9), (0.9, 0.8)) == 0.5 and crossing((0.5, 0.9), (0.9, 1.0)) is None


def timed(multiples, seeds=4):
    def outcomes(noise):
        return {arm: {f"{s:.0%}": value * noise for s in SPARSITIES} for arm, value in multiples.items()}

    return [Run("width 1", seed, outcomes((1.0, 1.01, 0.99, 1.005)[seed])) for seed in range(seeds)]


@pytest.mark.parametrize("again, removed, verdict", [
    (1.0, 1.0, CONFIRMED), (1.0, 0.3, SPLIT), (1.3, 0.3, UNDECIDED), (0.7, 0.3, UNDECIDED),
])  # fmt: skip
def test_one_way_to_become_faster_refutes_and_an_unsteady_clock_decides_nothing(again, removed, verdict):
    runs = timed({AGAIN: again, MASKED: 1.0, CSR: 2.0, REMOVED: removed})
    assert judge(speed.parts(runs), "tendency").verdict == verdict


def test_every_share_of_zeros_that_was_timed_is_judged():
    found = speed.parts(timed({AGAIN: 1.0, MASKED: 1.0, CSR: 2.0, REMOVED: 0.3}))
    judged = [part.name for part in found if part.role == "verdict"]
    assert [name for name in judged if "CSR" in name] == [f"CSR takes as long, {s:.0%} zeros" for s in SPARSITIES]
    assert len(judged) == len(SPARSITIES) + 2


# D4: sensitivity must be set by hand

SMALL = Budgeted("lenet300(width=0.05)", 0.8, images=80, epochs=1, trials=5, looked_at=40)


def test_the_hand_finds_the_best_budget_and_looks_as_often_as_it_says():
    sizes, best, looks = {"a": 100, "b": 300}, {"a": 0.8, "b": 0.4}, []

    def score(densities):
        looks.append(densities)
        assert sum(densities[name] * sizes[name] for name in sizes) == pytest.approx(200)
        return -sum(abs(densities[name] - best[name]) for name in sizes)

    found = tuned_by_hand({"a": 1.0, "b": 1.0}, sizes, 0.5, 60, score)
    assert len(looks) == 60 and found["a"] == pytest.approx(0.8, abs=0.02)
    assert score(found) == max(map(score, looks[:60])) > score({"a": 0.5, "b": 0.5})


def test_all_arms_lose_as_many_weights_and_the_hands_count_their_looks(monkeypatch):
    seen, original = {}, FineTune.__call__
    monkeypatch.setattr(by_rule, "accuracy", lambda model, *_: seen.setdefault(id(model), (model, 50.0))[1])
    trained = []
    monkeypatch.setattr(FineTune, "__call__", lambda self, *given: trained.append(self) or original(self, *given))
    found = by_rule.compute(SMALL, seed=3)
    assert list(found.outcomes) == ["dense", UNIFORM, *by_rule.RULES, DAMAGED, BY_HAND, RECOVERED]
    assert (found.of(BY_HAND, by_rule.TRIALS), found.of(RECOVERED, by_rule.TRIALS)) == (5 + 5, 5)
    assert len(trained) == 5 + 5 + 5 + 8 and len(set(trained)) == 1  # the hands' trials, and each arm once
    assert "MagnitudePruning(sparsity={'fc1'" in found.settings[BY_HAND]
    pruned = [model for model, _ in seen.values() if any(isinstance(m, Masked) for m in model.modules())]
    kept = [sum(int(m.mask.sum()) for m in model.modules() if isinstance(m, Masked)) for model in pruned]
    total = sum(m.mask.numel() for m in pruned[0].modules() if isinstance(m, Masked))
    assert len(kept) == 16 and max(kept) - min(kept) <= 3 and kept[0] == pytest.approx(0.2 * total, abs=2)


def test_the_hand_begins_with_the_best_rule_and_falls_behind_none(monkeypatch):
    monkeypatch.setattr(by_rule, "accuracy", lambda model, data, split="test": accuracy(model, data, "validation"))
    for seed in range(2):  # judged by the validation images that the hand itself has looked at
        found = by_rule.compute(replace(SMALL, trials=1, images=1000, epochs=6), seed)
        after = {name: found.of(name, by_rule.AFTER) for name in (*by_rule.RULES, UNIFORM)}
        assert len(set(after.values())) > 1 and found.of(BY_HAND, by_rule.AFTER) == max(after.values())
        assert found.of(RECOVERED, by_rule.AFTER) == found.of(DAMAGED, by_rule.AFTER)


def test_the_damage_takes_three_quarters_of_the_last_layers_share_and_none_of_the_whole():
    sizes, found = {"a": 100, "b": 100, "c": 50}, {"a": 0.4, "b": 0.2, "c": 0.8}
    wrong = by_rule.damaged(found, sizes, 0.4)
    assert sum(wrong[name] * sizes[name] for name in sizes) == pytest.approx(100)
    assert wrong["c"] / wrong["a"] == pytest.approx(found["c"] / found["a"] / by_rule.DAMAGE)


@pytest.mark.parametrize("setting", by_rule.MANUAL_SENSITIVITY.full.settings, ids=str)
def test_the_hand_goes_round_all_layers_twice(setting):
    layers = densities(MagnitudePruning(sparsity=0.5)(compedu.build(setting.network, classes=20)))
    assert setting.trials == 1 + 2 * 2 * len(layers)


def test_a_seed_is_another_dense_network_and_the_same_seed_the_same_one():
    weights = [dense_network(SMALL.network, SMALL.data, SMALL.epochs, seed).fc1.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.slow
def test_the_arms_of_a_shipped_run_come_out_again():
    (setting,) = by_rule.MANUAL_SENSITIVITY.quick.settings
    stored = by_rule.MANUAL_SENSITIVITY.stored()[0]
    model = dense_network(setting.network, setting.data, setting.epochs, stored.seed)
    by_lamp = MagnitudePruning(sparsity=setting.sparsity, budget="lamp")
    found = {"dense": model}
    for arm, pruning in {"LAMP": by_lamp, BY_HAND: method_of(stored.settings[BY_HAND])}.items():
        found[arm] = setting.retrained(pruning(model, setting.data), stored.seed)
    for arm, network in found.items():  # another processor rounds differently: some images change sides
        assert accuracy(network, setting.data) == pytest.approx(stored.of(arm, by_rule.AFTER), abs=4)


@pytest.mark.exhaustive
def test_a_shipped_run_comes_out_again():
    """As the arms alone do, but what the hand chose is looked for anew."""
    experiment, (setting,) = by_rule.MANUAL_SENSITIVITY, by_rule.MANUAL_SENSITIVITY.quick.settings
    stored, again = experiment.stored()[0], experiment.compute(setting, 0)
    for arm in ("dense", "LAMP", BY_HAND):  # another processor rounds differently: some images change sides
        assert again.of(arm, by_rule.AFTER) == pytest.approx(stored.of(arm, by_rule.AFTER), abs=4)
    assert again.of(BY_HAND, by_rule.TRIALS) == stored.of(BY_HAND, by_rule.TRIALS)


def noise(seed, place):
    return (seed * (2 * place + 3)) % 7 / 20  # every arm has its own


def accuracies(**after):
    arms = {"dense": 95.0, BY_HAND: 90.0, UNIFORM: 40.0, DAMAGED: 70.0, RECOVERED: 89.8}
    arms |= dict.fromkeys(by_rule.RULES, 80.0) | after

    def outcomes(seed):
        return {arm: {by_rule.AFTER: value + noise(seed, place)} for place, (arm, value) in enumerate(arms.items())}

    return [Run(setting, seed, outcomes(seed)) for seed in range(5) for setting in ("one", "other")]


@pytest.mark.parametrize("after, verdict", [
    ({}, UNDECIDED), ({"LAMP": 89.8}, REFUTED), ({"LAMP": 90.5}, REFUTED), ({"LAMP": 94.8}, UNDECIDED),
    ({"LAMP": 89.8, DAMAGED: 89.7}, UNDECIDED), ({"LAMP": 89.8, RECOVERED: 85.0}, UNDECIDED),
    ({"LAMP": 80.0, "one threshold": 89.9}, UNDECIDED),
])  # fmt: skip
def test_one_rule_that_needs_no_hand_refutes_where_there_was_something_to_find(after, verdict):
    assert judge(by_rule.parts(accuracies(**after)), "universal").verdict == verdict


def test_a_rule_has_to_keep_up_in_every_network():
    def falls_behind(arm, run, measures):
        return {by_rule.AFTER: measures[by_rule.AFTER] - 3} if arm == "LAMP" and run.setting == "other" else measures

    good = accuracies(LAMP=89.8)
    bad = [replace(run, outcomes={a: falls_behind(a, run, m) for a, m in run.outcomes.items()}) for run in good]
    assert judge(by_rule.parts(good), "universal").verdict == REFUTED
    assert judge(by_rule.parts(bad), "universal").verdict == UNDECIDED


# D3: penalties take longer

TINY = Start("lenet300(width=0.05)", images=100, epochs=1)


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_gets_as_many_steps_and_trials(name):
    method = ARMS[name](TINY, 8, CHOSEN[name], 3)
    steps = method.steps if isinstance(method, Pipeline) else (method,)
    trained = [step for step in steps if not isinstance(step, MagnitudePruning)]
    assert sum(step.epochs for step in trained) == 8 and len(set(TRIED.get(name, range(5)))) == 5
    assert {(step.lr, step.shift, step.seed) for step in trained} == {(TINY.lr, 1, 3)}
    assert (steps[0].sparsity, steps[0].budget) == (TINY.sparsity, "lamp")


@pytest.mark.parametrize("name, differs", [(L1, {"strength"}), (L2, {"strength", "penalty"})])
def test_a_penalty_differs_from_none_in_the_penalty_alone(name, differs):
    without, under = ARMS[NONE](TINY, 8, CHOSEN[NONE], 3).steps, ARMS[name](TINY, 8, CHOSEN[name], 3).steps
    fields = type(under[0]).__dataclass_fields__
    assert CHOSEN[NONE] == 0 and under[1] == without[1]
    assert {field for field in fields if getattr(under[0], field) != getattr(without[0], field)} == differs


def test_the_budget_that_reaches_the_target_is_read_off_between_budgets():
    assert reached_after((2, 4, 8), (80.0, 90.0, 94.0), 92.0) == pytest.approx(4 * 2**0.5)
    assert reached_after((2, 4, 8), (93.0,), 92.0) == 2 and reached_after((2, 4, 8), (80.0, 81.0, 82.0), 92.0) == 16


def test_each_arm_stops_at_the_first_budget_that_suffices(monkeypatch):
    made = []

    def method(start, budget, value, seed):
        made.append((budget, value))
        return lambda model, data: budget

    monkeypatch.setattr(penalties, "ARMS", {GRADUAL: method, L1: method})
    monkeypatch.setattr(penalties, "accuracy", lambda model, data, split="test": {2: 89.0, 4: 91.0}.get(model, 90.5))
    found = penalties.compute(Reached(TINY, (2, 5), budgets=(2, 4, 8), tolerance=0.5), seed=0)
    assert found.of("dense", penalties.LONGEST) == 2 * 8 * 2  # two steps an epoch
    assert [budget for budget, _ in made if budget == 8] == [8, 8]  # the settings in words, one for each arm
    assert {value for _, value in made} == {2, 5}
    assert found.of(L1, STEPS) == pytest.approx(2 * 2**0.5 * 2) and found.of(L1, "4 epochs, %") == 91.0


def test_no_other_value_of_a_knob_is_told_to_be_better_than_the_chosen_one():
    trials = tuning.stored_trials()
    assert len({run.seed for run in trials}) >= 3
    assert not set(TRIALS.all_seeds) & set(penalties.FULL.all_seeds)
    assert START.data.y_validation.shape == (4000,) and penalties.FULL.settings[0].start == START
    assert dict(zip(ARMS, penalties.FULL.settings[0].knobs, strict=True)) == CHOSEN
    for arm, values in TRIED.items():
        for value in set(values) - {CHOSEN[arm]}:
            lead, low, _ = tuning.ahead(trials, arm, value)
            assert low <= 0 and lead < 0.5, f"{arm}: {value} is ahead of the chosen {CHOSEN[arm]} by {lead} points"


def test_a_trial_is_a_run_of_the_arm_on_the_images_for_choices(monkeypatch):
    seen = []
    monkeypatch.setattr(tuning, "accuracy", lambda model, data, split: seen.append(split) or 50.0)
    found = tuning.trial(Trial(TINY, L1, 1e-4, epochs=2), seed=0)
    assert seen == ["validation"] and found.of(L1, tuning.ACCURACY) == 50.0
    assert found.setting == "L1 in the loss, 0.0001"


def test_a_penalty_that_leaves_no_weight_is_a_trial_that_failed(monkeypatch):
    def refuses(model, data):
        raise CompressionError("no weight left")

    monkeypatch.setattr(tuning, "ARMS", {L1: lambda *given: refuses})
    assert tuning.trial(Trial(TINY, L1, 1.0), 0).of(L1, tuning.ACCURACY) == 0.0


LONGEST_BUDGET = 1504.0


def counted_steps(seed, steps):
    longest = {"dense": {penalties.LONGEST: LONGEST_BUDGET, penalties.SHORTEST: 90.0}}
    return Run("a setting", seed, longest | {arm: {STEPS: value} for arm, value in steps.items()})


@pytest.mark.parametrize("one, two, verdict", [
    (900, 800, CONFIRMED), (900, 310, SPLIT), (310, 900, SPLIT), (310, 310, REFUTED), (900, 450, UNDECIDED),
])  # fmt: skip
def test_both_penalties_must_take_longer(one, two, verdict):
    steps = {GRADUAL: 300, AT_ONCE: 320, NONE: 400, L1: one, L2: two, PROXIMAL: 500}
    runs = [
        counted_steps(seed, {a: steps[a] * (1 + noise(seed, place) / 4) for place, a in enumerate(steps)})
        for seed in range(4)
    ]
    found = judge(penalties.parts(runs), "tendency")
    assert found.verdict == verdict, found.parts


@pytest.mark.parametrize("steps", [1504.0, 90.0])
def test_a_schedule_that_never_comes_close_or_does_at_once_decides_nothing(steps):
    runs = [
        counted_steps(seed, dict.fromkeys(ARMS, steps * (1 - noise(seed, 0) / 10)) | {L1: 9.0 * steps})
        for seed in range(4)
    ]
    found = judge(penalties.parts(runs), "tendency")
    assert found.verdict == UNDECIDED and "the control failed" in found.reservations[0]
