"""Neuron selection: planted neurons, loops and SciPy as oracles, and students that learn what was selected."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

import compedu as ce
from compedu.datasets.digits import digits
from compedu.errors import CompressionError
from compedu.hashing import model_digest
from compedu.methods.distillation.neuron_selection import select_neurons, separations
from compedu.networks import build
from compedu.training import Recipe, fit

DATA = digits(size=16).shortened(train=130, validation=60, test=20)
FAST = ce.NeuronSelection(student="lenet5(width=0.2)", epochs=2, batch=32)
LABELS = torch.arange(600) % 5


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def neurons(seed, count=8):
    """Neurons of several strengths, some of which share parts with others."""
    means = 2 * drawn(seed, 5, count)
    values = means[LABELS] * torch.linspace(0, 1, count) + drawn(seed + 1, 600, count)
    return values @ (torch.eye(count) + 0.5 * drawn(seed + 2, count, count).double()).double()


def in_numpy(values, labels, count):
    """The order of the selection, from its definition."""
    explained = []
    for column in values.T:
        groups = [column[labels == label] for label in np.unique(labels)]
        between = sum(len(group) * (group.mean() - column.mean()) ** 2 for group in groups)
        total = ((column - column.mean()) ** 2).sum()
        explained.append(between / total if len(np.unique(column)) > 1 else 0.0)
    chosen = []
    while len(chosen) < count:
        gains = {}
        for k in set(range(values.shape[1])) - set(chosen):
            others = [np.corrcoef(values[:, k], values[:, j])[0, 1] ** 2 for j in chosen if explained[k]]
            gains[k] = explained[k] * (1 - max(others, default=0))
        chosen.append(max(gains, key=gains.get))
    return chosen


# The selection


def test_separations_follow_from_the_f_statistic_of_an_analysis_of_variance():
    values = neurons(0)
    for found, column in zip(separations(values, LABELS), values.T.numpy(), strict=True):
        f = stats.f_oneway(*(column[label == LABELS] for label in range(5))).statistic
        assert found.item() == pytest.approx(4 * f / (4 * f + 595), rel=1e-10)


def test_classes_without_images_do_not_count():
    values = neurons(0)
    torch.testing.assert_close(separations(values, 3 * LABELS + 1), separations(values, LABELS))


@pytest.mark.parametrize("seed", range(4))
def test_the_order_is_that_of_loops_over_its_definition(seed):
    values = neurons(seed)
    expected = in_numpy(values.numpy(), LABELS.numpy(), 8)
    assert select_neurons(values, LABELS, 8).tolist() == expected and expected != list(range(8))
    assert select_neurons(values, LABELS, 3).tolist() == expected[:3]


def test_planted_neurons_come_first_and_their_copies_last():
    one, other = drawn(0, 5, 1)[LABELS], drawn(1, 5, 1)[LABELS]
    noise = drawn(2, 600, 5)
    strong = one + 0.1 * noise[:, :1]
    copy = strong + 0.001 * noise[:, 4:]
    weak = other + noise[:, 1:2]
    values = torch.cat([noise[:, 2:3], -3 * strong + 7, weak, copy, noise[:, 3:4]], dim=1)
    order = select_neurons(values, LABELS, 5).tolist()
    assert order[:2] == [1, 2]  # the better of two copies, then the neuron that tells something else
    assert order[4] == 3  # its copy, which separates far better than noise, adds nothing


def test_the_scale_and_the_sign_of_a_neuron_do_not_matter():
    values = neurons(3)
    moved = values * torch.tensor([1.0, -2, 30, 0.1, 1, 1, -7, 5]) + 3
    assert select_neurons(moved, LABELS, 8).tolist() == select_neurons(values, LABELS, 8).tolist()


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4 / 3])
def test_a_neuron_that_gives_the_same_for_all_images_separates_nothing(value):
    values = torch.cat([torch.full((600, 1), value, dtype=torch.float64), neurons(0)], dim=1)
    assert separations(values, LABELS)[0] == 0
    assert set(select_neurons(values, LABELS, 9).tolist()) == set(range(1, 9))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_selection_ends_where_all_others_are_constant_or_copies(dtype):
    values = neurons(0, count=3).to(dtype)
    constant = torch.full((600, 1), 0.1, dtype=dtype)
    repeated = torch.cat([values, values, 3 * values - 1, constant], dim=1)
    order = select_neurons(repeated, LABELS, 10).tolist()
    assert sorted(number % 3 for number in order) == [0, 1, 2] and 9 not in order
    assert select_neurons(constant, LABELS, 1).tolist() == []
    assert select_neurons(values, torch.zeros_like(LABELS), 3).tolist() == []  # one class: nothing to tell apart


def test_a_layer_whose_neurons_tell_nothing_is_refused_by_name():
    dead = build("lenet5(size=16, width=0.4)")
    dead.fc1.weight.data.zero_()
    match = r"NeuronSelection\(.*: no neuron of layer 'input of fc2' of the teacher tells the classes"
    with pytest.raises(CompressionError, match=match):
        FAST(dead, DATA)


# The method


def teacher(**recipe):
    model = build("lenet5(size=16, width=0.4)", seed=5)
    fit(model, DATA, Recipe(**{"epochs": 3, "batch": 32, "lr": 3e-3} | recipe))
    model.zero_grad()
    return model


def embedding(model):
    """What the last layer of LeNet-5 reads."""
    first = (model.conv1, model.relu1, model.pool1, model.conv2, model.relu2, model.pool2)
    return nn.Sequential(*first, model.flatten, model.fc1, model.relu3)


def selected(master, count):
    return in_numpy(embedding(master)(DATA.x_train).detach().double().numpy(), DATA.y_train.numpy(), count)


class Watched(ce.NeuronSelection):
    """Keeps what it trains with in place of training."""

    def stage(self, student, teacher, data, pairs, epochs, chosen=()):
        regressors = self.regressors(pairs, student, teacher, data, chosen)
        loss = self.loss(teacher, data, pairs, regressors, chosen)
        object.__setattr__(self, "kept", (chosen, pairs, regressors, loss))
        return student


def watched(master, student, **changes):
    method = Watched(student="lenet5(width=0.2)", shift=0, **changes)
    method.teach(student, master, DATA)
    return method.kept


@pytest.mark.parametrize(("share", "count"), [(1e-9, 1), (0.1, 20), (0.5, 100), (1.0, None)])
def test_the_share_says_how_many_neurons_are_learned(share, count):
    student = build("lenet5(size=16, width=0.2)")
    master = teacher(epochs=1)
    if count is None:
        count = len({tuple(neuron) for neuron in embedding(master)(DATA.x_train).T.tolist() if len(set(neuron)) > 1})
        assert 100 < count < 200  # the others are dead
    _, pairs, (regressor,), _ = watched(master, student, share=share)
    assert pairs == (("input of fc2", "input of fc2"),) and regressor.module.weight.shape == (count, 100)


def test_the_loss_of_a_batch_and_its_gradients_equal_those_by_hand():
    master, student = teacher(), build("lenet5(size=16, width=0.2)")
    before = model_digest(master)
    _, _, (companion,), loss = watched(master, student, share=0.25, strength=3.0)
    x, y = DATA.x_train[:16], DATA.y_train[:16]
    value = loss(student, x, torch.arange(16))
    value.backward()
    learned = embedding(student)(x)
    taught = embedding(master)(x).detach()[:, selected(master, 50)]
    expected = F.cross_entropy(student.fc2(learned), y) + 1.5 * (companion.module(learned) - taught).square().mean()
    torch.testing.assert_close(value, expected)
    moved = [*student.parameters(), *companion.module.parameters()]
    for own, theirs in zip(moved, torch.autograd.grad(expected, moved), strict=True):
        torch.testing.assert_close(own.grad, theirs, atol=1e-6, rtol=1e-4)
    assert all(p.grad is None for p in master.parameters())
    assert not any(part.training or part._forward_hooks or part._forward_pre_hooks for part in master.modules())
    assert model_digest(master) == before


def test_with_strength_zero_the_student_learns_alone_bit_by_bit():
    alone = build("lenet5(width=0.2, size=16)", seed=3)
    fit(alone, DATA, Recipe(epochs=2, batch=32, lr=2e-3, seed=3, shift=1))
    control = replace(FAST, strength=0.0, seed=3)(build("lenet5(size=16, width=0.4)"), DATA)
    assert model_digest(control) == model_digest(alone)


class Keeping(ce.NeuronSelection):
    """Keeps the regressors that it makes."""

    def regressor(self, student, teacher, seed):
        companion = super().regressor(student, teacher, seed)
        object.__setattr__(self, "made", companion.module)
        return companion


def test_the_student_and_its_regressor_learn_the_selected_neurons():
    master = teacher(epochs=6)
    wanted = embedding(master)(DATA.x_train).detach()[:, selected(master, 20)]

    def unexplained(strength):
        method = Keeping(student="lenet5(width=0.2)", batch=32, share=0.1, strength=strength, epochs=40, lr=4e-3)
        student = method(master, DATA)
        rest = method.made(embedding(student)(DATA.x_train)) - wanted
        return (rest.square().sum() / (wanted - wanted.mean(0)).square().sum()).item()

    assert unexplained(1.0) < 0.5 and unexplained(0.0) > 1


def test_the_neurons_of_several_layers_are_learned_through_a_regressor_each():
    student = build("lenet5(size=16, width=0.2)")
    chosen, pairs, regressors, _ = watched(teacher(epochs=1), student, compared="fc1=fc1, relu3=fc1", share=0.5)
    assert pairs == (("fc1", "fc1"), ("relu3", "fc1")) and torch.equal(*chosen)
    one, other = (companion.module.weight for companion in regressors)
    assert one.shape == other.shape and not torch.equal(one, other)
    made = replace(FAST, compared="fc1=fc1, relu3=relu3")(teacher(epochs=1), DATA)
    assert torch.isfinite(made(DATA.x_validation)).all()


@pytest.mark.parametrize(("compared", "match"), [
    ("relu3=relu1", r"NeuronSelection\(.*\): layer 'relu1' of the teacher gives \(8, 12, 12\) for an image; neurons"),
    ("resolutions", r"NeuronSelection\(.*\): layer 'relu1' of the teacher gives \(8, 12, 12\)"),
    ("relu1=relu3", r"layer 'relu1' under layer 'relu3': no layer maps features of the student"),
    ("relu3=nosuch", r"the teacher of NeuronSelection\(.*\) has no layer 'nosuch'"),
], ids=["maps", "word", "student", "unknown"])  # fmt: skip
def test_layers_without_neurons_are_refused_by_name(compared, match):
    with pytest.raises(CompressionError, match=match):
        replace(FAST, compared=compared)(build("lenet5(size=16, width=0.4)"), DATA)
