"""Claim D2: errors are what they say, subsets equally large, arms equally tuned; a shipped run comes out again."""

import copy
import statistics
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

import compedu
from compedu.claims.judgment import judge
from compedu.claims.store import Run
from compedu.claims.survey import matrix_error as claim
from compedu.claims.survey.matrix_error import ADAROUND, BITS, GPTQ_ARM, MATRIX_ERROR, NEAREST, REPEATED, Rounded, named
from compedu.claims.survey.shared import rounding_errors as errors
from compedu.claims.survey.shared.networks import accuracy, dense_network, glyphs
from compedu.claims.survey.shared.rounding_errors import DIAGONAL, ERRORS, MATRIX, OUTPUTS, SECOND_ORDER, WEIGHED
from compedu.claims.verdict import Verdict
from compedu.graph import fold_batch_norm
from compedu.methods.calibration import calibration_set
from compedu.sweeps import method_of

TINY = Rounded("lenet300(width=0.05)", 80, 1, ("fc1", "fc2"), bits=(2,), subsets=3, unseen=60)


def tiny_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 4)).eval()


# Errors


def test_the_second_order_term_is_that_of_the_loss():
    """The loss is convex in the weight of one layer with ReLU behind it, but for kinks: its Hessian is G itself."""
    model = tiny_network()
    x, y = torch.randn(7, 1, 3, 3), torch.randint(0, 4, (7,))
    for name in ("1", "3"):
        weight = model.get_submodule(name).weight
        change = torch.randn_like(weight)

        def loss(value, name=name):
            return F.cross_entropy(torch.func.functional_call(model, {f"{name}.weight": value}, (x,)), y)

        _, product = torch.autograd.functional.hvp(loss, weight.detach(), change)
        expected = float((product * change).sum() / 2)
        assert errors.second_order(model, name, change, x) == pytest.approx(expected, rel=1e-4)


def test_a_block_spans_half_of_the_outputs_and_half_of_the_inputs():
    generator = torch.Generator().manual_seed(0)
    drawn = [errors.block(torch.zeros(6, 2, 2, 2), generator) for _ in range(20)]
    for mask in drawn:
        rows = mask.flatten(1)
        assert mask.shape == (6, 2, 2, 2) and int(mask.sum()) == 12
        assert rows.any(1).sum() == 3 and rows.any(0).sum() == 4
    assert len({tuple(mask.flatten().tolist()) for mask in drawn}) > 15
    assert int(errors.block(torch.zeros(1, 1), generator).sum()) == 1


def test_a_layer_is_changed_while_its_loss_is_measured_and_then_as_before():
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    with pytest.raises(KeyError), errors.changed(layer, torch.ones(2, 3)):
        assert torch.equal(layer.weight, before + 1)
        raise KeyError
    assert torch.equal(layer.weight, before)


def test_every_row_holds_the_errors_and_the_rises_of_one_block(monkeypatch):
    """Recomputed from the network: the block is what differs from the trained weights while the losses are taken."""
    data, model = TINY.data, dense_network(TINY.network, TINY.data, 2, 0)
    given = {name: value.clone() for name, value in model.state_dict().items()}
    seen, original = [], errors.losses

    def watched(network, *rest):
        seen.append(copy.deepcopy(network))
        return original(network, *rest)

    monkeypatch.setattr(errors, "losses", watched)
    found = errors.errors_and_rises(model, data, ["fc2"], 4, 60, seed=1)["fc2"]
    assert found.shape == (4, len(ERRORS) + 2) and len(seen) == 5
    assert all(torch.equal(value, given[name]) for name, value in model.state_dict().items())
    binary = compedu.LinearQuantization(bits=1)(model).fc2.dense().detach()
    x = calibration_set(data, errors.CALIBRATION)[0]
    read = torch.relu(model.fc1(x.flatten(1))).detach()
    for row, net in zip(found, seen[1:], strict=True):
        change = (net.fc2.weight - model.fc2.weight).detach()
        mask = change != 0
        torch.testing.assert_close(net.fc2.weight[mask], binary[mask])
        assert float(row[ERRORS.index(MATRIX)]) == pytest.approx(float(change.square().sum()), rel=1e-5)
        output = float((read @ change.T).square().sum(1).mean())
        assert float(row[ERRORS.index(OUTPUTS)]) == pytest.approx(output, rel=1e-4)
        per_weight = sum(
            errors.second_order(model.eval(), "fc2", change * (torch.arange(change.numel()) == k).view_as(change), x)
            for k in range(change.numel())
        )
        assert float(row[ERRORS.index(DIAGONAL)]) == pytest.approx(per_weight, rel=1e-3)
        assert float(row[ERRORS.index(SECOND_ORDER)]) == pytest.approx(errors.second_order(model, "fc2", change, x))
        for half in (0, 1):
            images, labels = data.x_test[:60][half::2], data.y_test[:60][half::2]
            rise = F.cross_entropy(net(images), labels) - F.cross_entropy(model(images), labels)
            assert float(row[half - 2]) == pytest.approx(rise.item(), abs=1e-5)


def test_batch_normalization_is_folded_before_anything_is_rounded():
    data = glyphs(80, 40)
    model = dense_network("vgg(width=0.1)", data, 1, 0)
    found = errors.errors_and_rises(model, data, ["features.conv2_1"], 2, 40, seed=0)["features.conv2_1"]
    folded = fold_batch_norm(model).features.conv2_1
    whole = compedu.LinearQuantization(bits=1)(model).features.conv2_1.dense() - folded.weight
    mask = errors.block(whole, torch.Generator().manual_seed(0))
    assert found[0, 0].item() == pytest.approx((whole * mask).square().sum().item(), rel=1e-5)
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


# Correlations and arms


def test_correlations_are_those_within_each_layer_and_those_of_all():
    torch.manual_seed(0)
    found = {"a": torch.rand(9, 6).double() + 1, "b": 20 + torch.rand(9, 6).double()}
    outcomes = claim.correlations(found)
    for place, error in enumerate(ERRORS):
        for name, rows in found.items():
            expected = stats.spearmanr(rows[:, place], rows[:, 4] + rows[:, 5]).statistic
            assert outcomes[error][f"in {name}"] == pytest.approx(expected)
        both = torch.cat([found["a"], found["b"]])
        expected = stats.spearmanr(both[:, place], both[:, 4] + both[:, 5]).statistic
        assert outcomes[error][claim.ACROSS] == pytest.approx(expected)
    ratios = [float(rows[:, 1].max() / rows[:, 1].min()) for rows in found.values()]
    assert outcomes[ERRORS[1]][claim.SPREAD] == pytest.approx(statistics.geometric_mean(ratios))
    assert outcomes[REPEATED]["in a"] == pytest.approx(stats.spearmanr(found["a"][:, 4], found["a"][:, 5]).statistic)


def test_each_arm_is_chosen_on_validation_and_read_once_on_test(monkeypatch):
    looks = []

    def looked(model, data, split="test"):
        looks.append(split)
        return float(sum(look == "validation" for look in looks))  # the later a network, the better

    monkeypatch.setattr(claim, "accuracy", looked)
    found = claim.compute(TINY, 0)
    assert looks == ["test", *(["validation", "validation", "test"] * 3)]
    assert list(found.settings) == [f"{arm}, 2 bits" for arm in claim.ROUNDINGS]
    assert all("clipping='mse'" in text for text in found.settings.values())
    assert len({found.of(arm, named(2, "bytes")) for arm in claim.ROUNDINGS}) == 1
    assert [name for name in found.outcomes[MATRIX] if name.startswith("in ")] == ["in fc1", "in fc2"]


def wobble(seed, place):
    return (seed * (2 * place + 3)) % 7 / 100  # every arm has its own


def ranked(repeated=0.9, ahead=5.0, **found):
    errors = {MATRIX: 0.3, DIAGONAL: 0.6, OUTPUTS: 0.6, SECOND_ORDER: 0.7} | found | {REPEATED: repeated}
    accuracies = {NEAREST: 50.0, GPTQ_ARM: 50.0 + ahead, ADAROUND: 60.0}
    runs = []
    for seed in range(5):
        for setting, bits in (("one", BITS), ("other", (2,))):
            outcomes = {
                arm: {"in a": value + wobble(seed, place), "in b": value, claim.ACROSS: value + wobble(seed, place + 1)}
                for place, (arm, value) in enumerate(errors.items())
            }
            for place, (arm, value) in enumerate(accuracies.items()):
                outcomes[arm] = {named(b): value + wobble(seed, place) for b in bits}
            runs.append(Run(setting, seed, outcomes))
    return runs


@pytest.mark.parametrize("given, verdict", [
    ({}, Verdict.CONFIRMED), ({DIAGONAL: 0.3}, Verdict.SPLIT), ({"repeated": 0.2}, Verdict.UNDECIDED),
    (dict.fromkeys(WEIGHED, 0.35) | {"ahead": 0.5}, Verdict.SPLIT), ({"ahead": -9.0}, Verdict.SPLIT),
])  # fmt: skip
def test_every_error_and_every_rounding_is_judged(given, verdict):
    found = judge(claim.parts(ranked(**given)), "tendency")
    assert found.verdict == verdict, found.parts
    assert sum(one.part.role == "verdict" for one in found.parts) == len(WEIGHED) + 2 * len(BITS)


def test_a_number_of_bits_counts_where_it_was_tried():
    runs = [replace(run, outcomes=run.outcomes | {NEAREST: {named(2): 10.0}}) if run.setting == "other" else run
            for run in ranked()]  # fmt: skip
    effects = {one.part.name: one.effect.mean for one in judge(claim.parts(runs), "tendency").parts}
    assert effects["1 bit: GPTQ is ahead of nearest"] == pytest.approx(5, abs=0.1)
    assert effects["2 bits: GPTQ is ahead of nearest"] == pytest.approx((5 + 45) / 2, abs=0.1)


# The shipped runs


def test_all_arms_of_a_shipped_run_take_as_many_bytes():
    for run in (*MATRIX_ERROR.stored(), *MATRIX_ERROR.stored(full=True)):
        for bits in BITS if run.setting.startswith("lenet5") else (2,):
            assert len({run.of(arm, named(bits, "bytes")) for arm in claim.ROUNDINGS}) == 1


def test_the_shipped_runs_show_what_is_told_of_them():
    runs = MATRIX_ERROR.stored(full=True)
    found = {one.part.name: one for one in MATRIX_ERROR.judge(runs).parts}
    assert found[f"{SECOND_ORDER}: ranks better than the matrix"].verdict == Verdict.CONFIRMED
    for error in (DIAGONAL, OUTPUTS):
        assert found[f"{error}: ranks better than the matrix"].verdict == Verdict.UNDECIDED
    for arm, bits in ((ADAROUND, 1), (ADAROUND, 2), (GPTQ_ARM, 2)):
        part = found[f"{claim.in_words(bits)}: {arm} is ahead of {NEAREST}"]
        assert part.verdict == Verdict.CONFIRMED and min(part.part.values) > 5
    unsure = found["1 bit: GPTQ is ahead of nearest"]
    assert unsure.verdict == Verdict.UNDECIDED and min(unsure.part.values) < -5 < 5 < max(unsure.part.values)
    assert max(run.of(MATRIX, claim.ACROSS) for run in runs) < 0 < min(run.of(DIAGONAL, claim.ACROSS) for run in runs)
    assert max(run.of(OUTPUTS, claim.ACROSS) for run in runs) < 0


def test_an_arm_of_a_shipped_run_comes_out_again():
    (setting,) = MATRIX_ERROR.quick.settings
    stored = MATRIX_ERROR.stored()[0]
    model = dense_network(setting.network, setting.data, setting.epochs, stored.seed)
    assert accuracy(model, setting.data) == pytest.approx(stored.of(claim.DENSE, claim.ACCURACY), abs=2)
    for arm in (NEAREST, GPTQ_ARM):  # another processor rounds differently: some images change sides
        network = method_of(stored.settings[f"{arm}, 2 bits"])(model, setting.data)
        assert accuracy(network, setting.data) == pytest.approx(stored.of(arm, named(2)), abs=4)
