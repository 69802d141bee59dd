"""What is kept of a network to compare with: equal networks are evaluated once, any other one anew."""

import copy

import pytest
import torch
from torch import nn

from compedu.datasets import load
from compedu.metrics import Baseline, measurement
from compedu.networks import build
from compedu.reproducible import torch_threads

FACTOR = {0: 1.0}


class Scaled(nn.Linear):
    """Multiplies its output by what is outside of it, which no digest sees."""

    def forward(self, x):
        return FACTOR[0] * super().forward(x)


@pytest.fixture(scope="module")
def data():
    return load("digits").shortened(train=20, validation=40, test=10)


@pytest.fixture
def asked(monkeypatch):
    """The networks that were evaluated."""
    found = []
    whole = measurement.evaluate
    monkeypatch.setattr(measurement, "evaluate", lambda *given: found.append(given[0]) or whole(*given))
    return found


@pytest.fixture
def model(request):
    """A network with weights of its own for each test, so that no test finds what another has evaluated."""
    return build("lenet300(width=0.1)", seed=sum(map(ord, request.node.name))).eval()


def test_equal_networks_are_evaluated_once_whatever_objects_they_are(model, data, asked):
    first = Baseline.of(model, data).evaluation
    again = load("digits").shortened(train=20, validation=40, test=10)
    same = Baseline.of(copy.deepcopy(model), again).evaluation
    assert len(asked) == 1
    assert torch.equal(same.predictions, first.predictions) and (same.loss, same.of) == (first.loss, first.of)
    assert same.labels is again.y_validation


def by_numpy(model, data):
    model.fc2.weight.data.numpy()[0, 0] += 1  # torch counts no change of the tensor


def by_data(model, data):
    model.fc2.weight.data[0, 0] += 1


def by_structure(model, data):
    model.fc1.register_forward_hook(lambda layer, inputs, output: -output)


@pytest.mark.parametrize("change", [by_numpy, by_data, by_structure])
def test_a_changed_network_is_evaluated_again(model, data, asked, change):
    before = Baseline.of(model, data).evaluation
    change(model, data)
    assert Baseline.of(model, data).evaluation.loss != before.loss and len(asked) == 2


def test_other_images_another_split_and_other_threads_are_not_taken_for_the_same(model, data, asked):
    Baseline.of(model, data)
    Baseline.of(model, data, "test")
    Baseline.of(model, data.shortened(validation=30))
    with torch_threads(torch.get_num_threads() + 1):
        Baseline.of(model, data)
    assert len(asked) == 4


def test_foreign_code_is_evaluated_each_time_as_it_may_read_what_no_digest_sees(data, monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), Scaled(data.x_train[0].numel(), 10)).eval()
    before = Baseline.of(model, data).evaluation
    monkeypatch.setitem(FACTOR, 0, -1.0)
    assert Baseline.of(model, data).evaluation.loss != before.loss


def test_another_memory_format_is_evaluated_anew(data, asked):
    model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.Flatten(), nn.LazyLinear(10))
    model(data.example)
    Baseline.of(model.eval(), data)
    Baseline.of(model.to(memory_format=torch.channels_last), data)
    assert len(asked) == 2
