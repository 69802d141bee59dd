"""The training loop: reproducible by seed, resumable bit by bit, interruptible at any time, honest when it diverges."""

import os
import signal

import pytest
import torch
from torch import nn

from compedu.datasets.augmentation import mirrored, shifted
from compedu.datasets.digits import digits
from compedu.datasets.objectives import CLASSES
from compedu.errors import Cancelled, CompressionError
from compedu.networks import build
from compedu.training import Recipe, fit, listening, supervised_loss

DATA = digits().shortened(train=200, validation=50, test=50)
RECIPE = Recipe(epochs=2, batch=32, shift=1)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def trained(**options):
    model = build("lenet300(width=0.2)")
    fit(model, DATA, RECIPE, **options)
    return weights(model)


def stop_at(step, how):
    def listener(progress):
        if progress.done == step:
            how()

    return listener


def cancel():
    raise Cancelled


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first = trained()
    assert same(first, trained())
    model = build("lenet300(width=0.2)")
    fit(model, DATA, Recipe(epochs=2, batch=32, shift=1, seed=1))
    assert not same(first, weights(model))


def sent(number):
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("how", [cancel, sent(signal.SIGINT), sent(signal.SIGTERM)], ids=["cancel", "ctrl-c", "term"])
@pytest.mark.parametrize("step", [1, 6, 9])
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, how, step):
    path = tmp_path / "run.safetensors"
    model = build("lenet300(width=0.2)")
    with pytest.raises((Cancelled, KeyboardInterrupt)), listening(stop_at(step, how)):
        fit(model, DATA, RECIPE, resume=path)
    again = build("lenet300(width=0.2)", seed=5)  # its weights are replaced by the saved ones
    losses = fit(again, DATA, RECIPE, resume=path)
    assert same(weights(again), trained()) and len(losses) == 2


def test_batch_norm_statistics_resume_too(tmp_path):
    small = digits(size=16).shortened(train=96, validation=20, test=20)
    recipe = Recipe(epochs=2, batch=32)
    straight = build("vgg(size=16, width=0.1)")
    fit(straight, small, recipe)
    stopped = build("vgg(size=16, width=0.1)")
    with pytest.raises(Cancelled), listening(stop_at(4, cancel)):
        fit(stopped, small, recipe, resume=tmp_path / "run")
    fit(stopped, small, recipe, resume=tmp_path / "run")
    assert same(weights(straight), weights(stopped))


def test_training_learns_and_hooks_run_in_order():
    model, calls = build("lenet300(width=0.2)"), []
    losses = fit(
        model,
        DATA,
        Recipe(epochs=8, batch=32),
        penalty=lambda m: 1e-6 * sum(p.abs().sum() for p in m.parameters()),
        before_step=lambda m, step: calls.append(("before", step)),
        after_step=lambda m, step: calls.append(("after", step)),
    )
    assert losses[-1] < 0.7 * losses[0]
    assert calls[:3] == [("before", 0), ("after", 0), ("before", 1)] and not model.training


def test_divergence_and_a_network_without_parameters_are_errors():
    with pytest.raises(CompressionError, match="diverged at step"):
        fit(build("lenet300(width=0.1)"), DATA, Recipe(epochs=3, lr=1e30))
    with pytest.raises(CompressionError, match="no parameter"):
        fit(nn.Flatten(), DATA, RECIPE)


class Heads(nn.Module):
    """A network that returns more in training than its scores."""

    def __init__(self, auxiliary):
        super().__init__()
        self.trunk, self.own, self.auxiliary = nn.Linear(784, 8), nn.Linear(8, 10), auxiliary

    def forward(self, x):
        maps = self.trunk(x.flatten(1)).relu()
        return (self.own(maps), self.auxiliary(maps)) if self.training else self.own(maps)


def test_auxiliary_classifiers_count_three_tenths_and_learn():
    model = Heads(nn.Linear(8, 10)).train()
    x, y = DATA.x_train[:16], DATA.y_train[:16]
    own, auxiliary = (nn.functional.cross_entropy(scores, y) for scores in model(x))
    torch.testing.assert_close(supervised_loss(CLASSES, model, x, y), own + 0.3 * auxiliary)
    before = weights(model)
    fit(model, DATA, RECIPE)
    assert not any(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_outputs_and_batches_that_cannot_be_trained_on_are_refused_by_name():
    with pytest.raises(CompressionError, match=r"Heads returns \(\(32, 10\), \(32, 8\)\) in training"):
        fit(Heads(nn.Identity()), DATA, RECIPE)
    normalized = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    with pytest.raises(
        CompressionError, match=r"Sequential cannot be trained on a batch of 1 image\(s\): Expected more"
    ):
        fit(normalized, DATA, Recipe(epochs=1, batch=199))


def test_shifted_images_are_moved_copies():
    x = torch.arange(2 * 36).float().reshape(2, 1, 6, 6)
    moved = shifted(x, 1, seed=0)
    wide = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    windows = [wide[:, :, i : i + 6, j : j + 6] for i in range(3) for j in range(3)]
    assert all(any(torch.equal(moved[n], w[n]) for w in windows) for n in range(2))


def test_mirrored_images_are_copies_with_left_and_right_swapped_in_about_half():
    x = torch.arange(12.0).reshape(1, 1, 3, 4).repeat(400, 1, 1, 1)
    swapped = mirrored(x, seed=0)
    left = (swapped == x).flatten(1).all(1)
    assert torch.equal(swapped[~left], x[~left].flip(3)) and 160 < int(left.sum()) < 240
    assert torch.equal(mirrored(x, seed=0), swapped) and not torch.equal(mirrored(x, seed=1), swapped)


def test_the_learning_rate_rises_and_falls_anew_in_each_cycle():
    whole, cycled = Recipe(epochs=2, lr=1.0), Recipe(epochs=6, lr=1.0, cycles=3)
    once = [whole.rate(step, 20) for step in range(20)]
    assert [cycled.rate(step, 60) for step in range(60)] == once * 3
    assert max(once) == 1.0 and once[-1] < 0.01
    assert cycled.steps(130) == 6 * cycled.steps_per_epoch(130) == 18


@pytest.mark.parametrize("cycles", [0, 4, 5, 12])
def test_cycles_that_are_no_equal_parts_of_the_epochs_are_refused(cycles):
    with pytest.raises(
        ValueError, match=rf"Recipe\.cycles must divide the epochs, here 6, into equal parts, got {cycles}"
    ):
        Recipe(epochs=6, cycles=cycles)


def test_only_a_training_that_is_saved_reads_all_images_for_its_identity(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(type(DATA), "digest", property(lambda data: read.append(data) or "digest"))
    trained()
    assert not read
    trained(resume=tmp_path / "state")
    assert read
