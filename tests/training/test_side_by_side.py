"""Trainings side by side: one step each in turn, with the bits of each by itself, and one end for all."""

import itertools
import threading

import pytest
import torch

from compedu.datasets import load
from compedu.errors import Cancelled, CompressionError
from compedu.networks import build
from compedu.training import Recipe, fit, listening, side_by_side


@pytest.fixture(scope="module")
def data():
    return load("digits").shortened(train=64, validation=10, test=10)


def training(data, seed: int, epochs: int = 2, lr: float = 1e-3):
    """A function that trains a network with dropout-free layers and returns it."""

    def train():
        model = build("lenet300", seed=seed)
        fit(model, data, Recipe(epochs=epochs, batch=16, lr=lr, seed=seed))
        return model

    return train


def weights(model) -> torch.Tensor:
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def test_each_work_has_the_bits_that_it_has_by_itself(data):
    works = [training(data, seed) for seed in (1, 2, 3)]
    together = side_by_side(works, lambda number, step: None)
    for model, work in zip(together, works, strict=True):
        assert torch.equal(weights(model), weights(work()))
    assert not torch.equal(weights(together[0]), weights(together[1]))


def test_the_works_take_turns_step_by_step_and_the_longer_one_goes_on_alone(data):
    heard, computing = [], []
    works = [training(data, 1, epochs=1), training(data, 2, epochs=3)]

    def on_step(number, step):
        computing.append(threading.get_ident())
        heard.append((number, step.done))

    side_by_side(works, on_step)
    both = list(itertools.chain.from_iterable(((0, done), (1, done)) for done in range(1, 5)))
    assert heard == both + [(1, done) for done in range(5, 13)]
    assert len(set(computing)) == 2, "each in a thread of its own"


def test_what_a_listener_raises_ends_all_works_in_the_same_turn(data):
    heard = []

    def on_step(number, step):
        heard.append((number, step.done))
        if (number, step.done) == (1, 3):
            raise Cancelled

    before = threading.active_count()
    with pytest.raises(Cancelled):
        side_by_side([training(data, 1, epochs=50), training(data, 2, epochs=50)], on_step)
    assert heard[-1] == (1, 3) and len(heard) == 6, "the other one made no step more"
    assert threading.active_count() == before


@pytest.mark.parametrize("failing", (0, 1))
def test_the_error_of_one_work_ends_the_other_and_is_the_one_raised(data, failing):
    works = [training(data, 1, epochs=50), training(data, 2, epochs=50)]
    works[failing] = training(data, 3, epochs=50, lr=1e30)
    heard = []
    with pytest.raises(CompressionError, match="training diverged"):
        side_by_side(works, lambda number, step: heard.append(number))
    assert 0 < len(heard) < 20


def test_an_outer_listener_hears_nothing_of_them_and_hears_again_afterwards(data):
    outer, inner = [], []
    with listening(outer.append):
        side_by_side([training(data, 1, epochs=1)] * 2, lambda number, step: inner.append(number))
        assert (outer, len(inner)) == ([], 8)
        training(data, 1, epochs=1)()
    assert len(outer) == 4
