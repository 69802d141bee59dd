"""Claim D8: no arm has more parameters, each is chosen without the test images, every size and moment is judged."""

from dataclasses import replace

import pytest
import torch

import compedu
from compedu.claims.judgment import judge
from compedu.claims.store import Run
from compedu.claims.survey import layerwise_ranks as claim
from compedu.claims.survey.layerwise_ranks import (
    AFTER,
    BEFORE,
    BUT_FIRST,
    CUT,
    DENSE,
    ENERGY,
    EQUAL,
    GLOBAL,
    LAYERWISE,
    LAYERWISE_RANKS,
    LOSS,
    MOMENTS,
    TEST,
    VALIDATION,
    VBMF,
    WEIGHTS,
    Budgeted,
    named,
)
from compedu.claims.survey.shared.networks import accuracy
from compedu.claims.verdict import Verdict
from compedu.errors import CompressionError
from compedu.forms import Factored
from compedu.methods import FineTune, TruncatedSVD
from compedu.sweeps import method_of

TINY = Budgeted("lenet5(width=0.2)", images=80, epochs=1, fraction=0.2, retrain=1)


def counted(network):
    return sum(one.numel() for one in network.parameters())


# Arms


@pytest.mark.parametrize("fraction", [0.1, 0.3, None])
def test_no_arm_has_more_parameters_and_the_layerwise_ones_spend_all_they_can(fraction):
    setting = replace(TINY, fraction=fraction, images=1000, epochs=6)  # before that, VBMF sees noise alone
    model = setting.dense(0)
    methods = claim.factorizations(setting, model)
    sets = VBMF if fraction is None else EQUAL
    assert set(methods) == {*LAYERWISE, *GLOBAL} | ({VBMF} if fraction is None else set())
    made = {arm: counted(method(model, setting.data)) for arm, method in methods.items()}
    assert max(made.values()) == made[sets] < counted(model)
    for arm, knob in ((BUT_FIRST, "rank"), (ENERGY, "energy")):
        more = replace(methods[arm], **{knob: getattr(methods[arm], knob) + 1 / claim.STEPS})
        assert counted(more(model, setting.data)) > made[sets], f"{arm} had parameters left to spend"


def test_the_arms_are_what_they_are_called():
    model = TINY.dense(0)
    methods = claim.factorizations(TINY, model)
    assert {method.budget for arm, method in methods.items() if arm in LAYERWISE} == {"uniform", "energy"}
    assert (methods[CUT].budget, methods[LOSS].budget) == ("singular values", "sensitivity")
    assert methods[EQUAL].rank == methods[CUT].rank == methods[LOSS].rank == TINY.fraction
    factored = methods[BUT_FIRST](model, TINY.data)
    assert not isinstance(factored.conv1, Factored) and isinstance(factored.conv2, Factored)


def test_the_largest_value_is_found_and_none_that_does_not_fit():
    class Linear:
        def __init__(self, value):
            self.value = value

        def __call__(self, model):
            layer = torch.nn.Linear(1, 1, bias=False)
            layer.weight = torch.nn.Parameter(torch.zeros(1, 1 + int(1000 * self.value)))
            return layer

        def __repr__(self):
            return f"Linear({self.value})"

    assert claim.largest(Linear, torch.nn.Identity(), 301).value == pytest.approx(0.301, abs=1.5e-5)
    assert claim.largest(Linear, torch.nn.Identity(), 5000).value == 1
    with pytest.raises(CompressionError, match=r"Linear\(1e-05\) leaves 1 parameters, and the budget is 0; allow"):
        claim.largest(Linear, torch.nn.Identity(), 0)


def test_a_value_that_leaves_every_layer_as_it_is_counts_with_all_parameters():
    model = TINY.dense(0)
    assert claim.left_by(TruncatedSVD(rank=1.0), model) == counted(model)
    found = claim.largest(lambda share: TruncatedSVD(budget="energy", energy=share), model, counted(model) - 1)
    assert counted(found(model)) < counted(model)


def test_every_arm_is_fine_tuned_equally_and_measured_before_and_after(monkeypatch):
    looks, trained = [], []
    original = FineTune.__call__

    def looked(model, data, split="test"):
        looks.append((counted(model), split))
        return float(len(looks))

    monkeypatch.setattr(claim, "accuracy", looked)
    monkeypatch.setattr(FineTune, "__call__", lambda self, *given: trained.append(self) or original(self, *given))
    found = claim.compute(TINY, 3)
    assert [split for _, split in looks] == [VALIDATION, TEST] * (1 + 2 * 5)
    assert len(trained) == 5 and set(trained) == {FineTune(epochs=1, lr=1e-3, shift=1, seed=3)}
    assert list(found.outcomes) == [DENSE, *LAYERWISE, *GLOBAL] and list(found.settings) == [*LAYERWISE, *GLOBAL]
    for place, arm in enumerate((*LAYERWISE, *GLOBAL)):
        first = 3 + 4 * place
        expected = [float(first + k) for k in range(4)]
        assert [found.of(arm, named(split, m)) for m in MOMENTS for split in (VALIDATION, TEST)] == expected
        assert found.of(arm, WEIGHTS) == looks[first - 1][0] == looks[first + 1][0]


def test_all_budgets_start_from_the_same_dense_network_which_stays_as_it_was():
    model = TINY.dense(0)
    given = {name: value.clone() for name, value in model.state_dict().items()}
    assert replace(TINY, fraction=0.4).dense(0) is model
    claim.compute(TINY, 0)
    assert all(torch.equal(value, given[name]) for name, value in model.state_dict().items())


# Judgment


def wobble(seed, place):
    return (seed * (2 * place + 3)) % 7 / 20  # every arm has its own


def measured(settings=("one",), **given):
    """Return runs of five seeds, in which validation and test agree unless `given` says otherwise."""
    points = {DENSE: (95.0, 95.0), EQUAL: (20.0, 60.0), BUT_FIRST: (60.0, 80.0), ENERGY: (50.0, 85.0)}
    points |= {CUT: (80.0, 90.0), LOSS: (85.0, 89.0)} | given
    runs = []
    for seed in range(5):
        for setting in settings:
            outcomes = {}
            for place, (arm, values) in enumerate(points.items()):
                seen = [value + wobble(seed, place) for value in values]
                outcomes[arm] = {named(split, m): v for m, v in zip(MOMENTS, seen, strict=True) for split in
                                 (VALIDATION, TEST)}  # fmt: skip
            runs.append(Run(setting, seed, outcomes))
    return runs


@pytest.mark.parametrize("given, verdict", [
    ({}, Verdict.CONFIRMED),
    ({ENERGY: (50.0, 90.0)}, Verdict.SPLIT),  # ranks by layer catch up in fine-tuning
    ({ENERGY: (85.0, 90.0)}, Verdict.REFUTED),
    ({BUT_FIRST: (85.0, 90.0)}, Verdict.REFUTED),
    ({CUT: (10.0, 10.0), LOSS: (10.0, 10.0)}, Verdict.REFUTED),
    ({CUT: (10.0, 10.0)}, Verdict.CONFIRMED),  # one way to share a budget suffices
    ({EQUAL: (94.5, 94.5), ENERGY: (94.5, 94.5)}, Verdict.UNDECIDED),  # a size that asks for no care
])  # fmt: skip
def test_the_best_budget_must_be_ahead_of_the_best_ranks_by_layer(given, verdict):
    found = judge(claim.parts(measured(**given)), "tendency")
    assert found.verdict == verdict, found.parts


def test_the_best_arm_is_that_on_the_validation_images_of_the_same_moment():
    (run, *_) = measured()
    assert claim.best(run, LAYERWISE, BEFORE) == BUT_FIRST and claim.best(run, LAYERWISE, AFTER) == ENERGY
    assert claim.best(run, GLOBAL, BEFORE) == LOSS and claim.best(run, GLOBAL, AFTER) == CUT
    misled = replace(run, outcomes=run.outcomes | {EQUAL: run.outcomes[EQUAL] | {named(VALIDATION, BEFORE): 99.0}})
    expected = run.of(LOSS, named(TEST, BEFORE)) - run.of(EQUAL, named(TEST, BEFORE))
    assert claim.lead(misled, GLOBAL, LAYERWISE, BEFORE) == expected
    assert claim.lead(run, GLOBAL, LAYERWISE, BEFORE) < 30 < expected


def test_every_network_and_size_is_judged_at_both_moments_and_vbmf_is_a_finding():
    runs = [*measured(("one", "other")), *measured(("third",), **{VBMF: (80.0, 88.0)})]
    found = claim.parts(runs)
    judged = [part.name for part in found if part.role == "verdict"]
    assert judged == [f"{name}: one budget is ahead {m} fine-tuning" for name in ("one", "other") for m in MOMENTS]
    effects = {part.name: sum(part.values) / 5 for part in found}
    assert effects["third: one budget is ahead of it before fine-tuning"] == pytest.approx(5, abs=0.5)
    assert effects["third: one budget is ahead of it after fine-tuning"] == pytest.approx(2, abs=0.5)
    assert effects[f"on average: {LOSS} is ahead of {CUT} before fine-tuning"] == pytest.approx(5, abs=0.5)
    assert effects[f"on average: a dense first layer helps {EQUAL} after fine-tuning"] == pytest.approx(20, abs=0.5)


# The shipped runs


def test_no_arm_of_a_shipped_run_has_more_parameters():
    for run in (*LAYERWISE_RANKS.stored(), *LAYERWISE_RANKS.stored(full=True)):
        sets = VBMF if VBMF in run.outcomes else EQUAL
        counts = {arm: run.of(arm, WEIGHTS) for arm in run.outcomes if arm != DENSE}
        assert max(counts.values()) == counts[sets] < run.of(DENSE, WEIGHTS)


def test_the_shipped_runs_show_where_a_budget_for_all_layers_pays():
    found = {one.part.name: one for one in LAYERWISE_RANKS.judge(LAYERWISE_RANKS.stored(full=True)).parts}

    def came_out(network, rank):
        return [found[f"{network}, {rank} of the full rank: one budget is ahead {m} fine-tuning"] for m in MOMENTS]

    assert [one.verdict for one in came_out("lenet5", "5%")] == [Verdict.CONFIRMED, Verdict.UNDECIDED]
    assert [one.verdict for one in came_out("lenet5", "10%")] == [Verdict.UNDECIDED, Verdict.REFUTED]
    assert [one.verdict for one in came_out("lenet5", "20%")] == [Verdict.REFUTED] * 2
    for rank in ("10%", "20%"):
        before, after = came_out("vgg(width=0.25)", rank)
        assert before.verdict == Verdict.CONFIRMED and before.effect.mean > after.effect.mean > 5
    assert [one.verdict for one in came_out("resnet(width=0.5)", "10%")] == [Verdict.UNDECIDED] * 2
    before, after = came_out("resnet(width=0.5)", "20%")
    assert before.verdict == after.verdict == Verdict.CONFIRMED and before.effect.mean > 60 and after.effect.mean > 4


def test_one_singular_value_of_the_first_layer_explains_most_of_what_equal_fractions_lose():
    for run in LAYERWISE_RANKS.stored(full=True):
        if run.setting == "lenet5, 20% of the full rank":
            lost = run.of(DENSE, named(TEST, BEFORE)) - run.of(EQUAL, named(TEST, BEFORE))
            without = run.of(DENSE, named(TEST, BEFORE)) - run.of(BUT_FIRST, named(TEST, BEFORE))
            assert lost > 50 and without < 2


def test_an_arm_of_a_shipped_run_comes_out_again():
    setting = LAYERWISE_RANKS.quick.settings[0]
    stored = LAYERWISE_RANKS.stored()[0]
    model = setting.dense(stored.seed)
    assert accuracy(model, setting.data) == pytest.approx(stored.of(DENSE, named(TEST, BEFORE)), abs=2)
    for arm in (ENERGY, CUT):  # another processor rounds differently: some images change sides
        network = method_of(stored.settings[arm])(model, setting.data)
        assert accuracy(network, setting.data) == pytest.approx(stored.of(arm, named(TEST, BEFORE)), abs=4)


def test_the_arms_use_the_versions_that_the_runs_are_stored_under():
    assert LAYERWISE_RANKS.uses == (TruncatedSVD, compedu.FineTune)
