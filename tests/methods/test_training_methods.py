"""Fine-tuning stays inside the forms; the small dense network is the same family, narrower, trained from scratch."""

import pytest
import torch
from torch import nn

from compedu.datasets import DATASETS
from compedu.errors import CompressionError
from compedu.evaluation import evaluate
from compedu.forms import ActivationQuantizer, Factored, Geometry
from compedu.methods import (
    FilterPruning,
    FineTune,
    LinearQuantization,
    LotteryTicket,
    MagnitudePruning,
    SmallDense,
    SoftTargetDistillation,
)  # fmt: skip
from compedu.networks import build
from compedu.networks.shipped import trained
from compedu.training import Recipe, fit

SHORT = FineTune(epochs=1)


@pytest.fixture(scope="module")
def data():
    return DATASETS["digits"]()


@pytest.fixture(scope="module")
def few(data):
    return data.shortened(train=256)


def test_fine_tuning_is_training_by_the_one_loop(few):
    tuned = FineTune(epochs=2, lr=3e-3, batch=32, seed=5, shift=1)(build("lenet300(width=0.2)"), few)
    by_hand = build("lenet300(width=0.2)")
    fit(by_hand, few, Recipe(epochs=2, lr=3e-3, batch=32, seed=5, shift=1))
    assert all(torch.equal(a, b) for a, b in zip(tuned.parameters(), by_hand.parameters(), strict=True))


def test_pruned_weights_stay_zero_and_kept_ones_learn(few):
    pruned = MagnitudePruning(sparsity=0.9)(build("lenet5(width=0.5)"))
    tuned = SHORT(pruned, few)
    for name in ("conv1", "conv2", "fc1", "fc2"):
        before, after = pruned.get_submodule(name), tuned.get_submodule(name)
        assert torch.equal(before.mask, after.mask) and (after.weight[~after.mask] == 0).all()
        assert (after.weight != before.weight)[after.mask].float().mean() > 0.9


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_codes_move_on_a_grid_that_stays(few, bits):
    coded = LinearQuantization(bits=bits, activation_bits=8)(build("lenet5(width=0.5)"), few)
    tuned = SHORT(coded, few)
    for name in ("conv1", "conv2", "fc1", "fc2"):
        before, after = coded.get_submodule(name), tuned.get_submodule(name)
        assert torch.equal(before.scale, after.scale) and torch.equal(before.act.scale, after.act.scale)
        assert isinstance(after.act, ActivationQuantizer)
        torch.testing.assert_close(after.dense(), after.codes() * after.scale)
    assert not torch.equal(coded.fc1.codes(), tuned.fc1.codes())


def test_factors_stay_factors(few):
    model = build("lenet300(width=0.2)")
    pair = nn.Linear(784, 5, bias=False), nn.Linear(5, 60)
    model.fc1 = Factored(Geometry.of(model.fc1), *pair)
    tuned = SHORT(model, few)
    assert tuned.fc1.rank == 5 and torch.linalg.matrix_rank(tuned.fc1.dense()) == 5
    assert not torch.equal(tuned.fc1.first.weight, model.fc1.first.weight)


def test_no_epoch_changes_nothing_but_the_record(few):
    model = build("vgg(size=28, width=0.1)")
    same = FineTune(epochs=0)(model, few)
    assert all(torch.equal(a, b) for a, b in zip(same.state_dict().values(), model.state_dict().values(), strict=True))
    assert same.compression.steps == ("FineTune(epochs=0)",)


def test_fine_tuning_brings_back_what_pruning_lost(data):
    model = trained("lenet5", "digits")
    pruned = MagnitudePruning(sparsity=0.9)(model)
    lost = evaluate(model, data).correct - evaluate(pruned, data).correct
    tuned = (MagnitudePruning(sparsity=0.9) | FineTune(epochs=2))(model, data)
    assert lost > 100
    assert evaluate(model, data).correct - evaluate(tuned, data).correct < 0.2 * lost
    assert tuned.compression.steps == ("MagnitudePruning(sparsity=0.9)", "FineTune(epochs=2)")


def test_the_small_dense_network_is_the_same_family_narrower(few):
    model = build("lenet5(size=28, width=0.8)")
    small = SmallDense(width=0.25, epochs=1)(model, few)
    assert small.spec == "lenet5(size=28, channels=1, classes=10, width=0.2)"
    assert small.conv1.weight.shape[0] == 4 and small.fc1.weight.shape[0] == 100
    assert type(small) is type(model) and small.compression.skipped == ()


def test_the_small_dense_network_takes_nothing_from_the_given_weights(few):
    method = SmallDense(width=0.2, epochs=1, shift=0)
    first, second = (method(build("lenet300", seed=seed), few) for seed in (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    by_hand = build("lenet300(width=0.2)", seed=0)
    fit(by_hand, few, Recipe(epochs=1, lr=2e-3))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), by_hand.parameters(), strict=True))


def test_the_small_dense_network_learns(data):
    small = SmallDense(width=0.25, epochs=8)(trained("lenet5", "digits"), data)
    result = evaluate(small, data)
    assert result.correct > 0.9 * result.seen
    assert sum(p.numel() for p in small.parameters()) < 0.08 * sum(p.numel() for p in build("lenet5").parameters())


def test_networks_and_images_that_training_cannot_use_are_refused_by_name(few):
    with pytest.raises(CompressionError, match=r"SmallDense\(\) needs a network of compedu.*Sequential does not say"):
        SmallDense()(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), few)
    with pytest.raises(CompressionError, match=r"FineTune\(\) found nothing to train: no parameter of Flatten"):
        FineTune()(nn.Flatten(), few)
    with pytest.raises(CompressionError, match="cannot take images"):
        FineTune()(build("lenet5(size=20)"), few)
    with pytest.raises(CompressionError, match="build it with classes=10"):
        FineTune()(build("lenet5(classes=7)"), few)
    with pytest.raises(CompressionError, match=r"FineTune\(\) needs data for training"):
        FineTune()(build("lenet5"))
    frozen = build("lenet5").requires_grad_(False)
    with pytest.raises(CompressionError, match="no parameter of LeNet5 is trainable"):
        FineTune()(frozen, few)


def test_a_diverging_training_says_what_to_do(few):
    model = build("lenet300(width=0.2)")
    for layer in (model.fc2, model.fc3):
        layer.weight.data *= 1e25
    with pytest.raises(CompressionError, match="diverged at step .* lower lr"):
        FineTune(lr=1.0)(model, few)


@pytest.mark.parametrize("cls", [SmallDense, LotteryTicket, SoftTargetDistillation])
def test_a_new_network_lacks_nothing_that_earlier_steps_took_out(cls, few):
    thin = FilterPruning(sparsity=0.5)(build("lenet300(width=0.2)"))
    new = cls(epochs=1)(thin, few)
    assert thin.compression.removed and new.compression.removed == ()
    assert FineTune(epochs=1)(thin, few).compression.removed == thin.compression.removed
    assert new.compression.steps == ("FilterPruning()", repr(cls(epochs=1)))


def test_every_knob_of_the_training_reaches_the_recipe():
    knobs = {"epochs": 7, "lr": 3e-3, "batch": 32, "shift": 2, "mirror": True, "weight_decay": 0.05, "seed": 3}
    assert FineTune(**knobs).recipe == Recipe(**knobs) == SmallDense(**knobs).recipe
