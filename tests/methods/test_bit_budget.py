"""One budget of bits: the scan against a network rounded by hand, and what shared bits gain."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import compedu as ce
from compedu.evaluation import evaluate
from compedu.forms import Quantized, weight_of
from compedu.methods.quantization.shared.bit_budget import bit_scan
from compedu.methods.task import Task


@pytest.fixture(scope="module")
def digits():
    return ce.load("lenet5", "digits")


def test_a_budget_below_the_fewest_bits_is_refused(digits):
    model, data = digits
    with pytest.raises(
        ce.CompressionError, match=r"bytes of codes even at the least, and the budget is 1,000; allow more"
    ):
        ce.LinearQuantization(budget="sensitivity", code_bytes=1000)(model, data)


def test_the_scan_is_the_loss_of_the_network_with_one_layer_rounded(digits):
    model, data = digits
    method = ce.LinearQuantization(calibration_images=50)
    task = Task(method, model, data, source=model)
    (choices,) = bit_scan(method, task, {"conv2": model.conv2}).choices.values()
    rounded = ce.LinearQuantization(bits=3, layers="conv2")(model)
    x = data.x_train[torch.linspace(0, len(data.x_train) - 1, 50).round().long()]
    y = data.y_train[torch.linspace(0, len(data.x_train) - 1, 50).round().long()]
    assert choices[2].loss == pytest.approx(F.cross_entropy(rounded(x), y).item(), rel=1e-4)
    assert choices[2].cost == 3 * weight_of(model.conv2).numel() / 8


def test_shared_bits_beat_equal_bits_in_as_many_bytes(digits):
    model, data = digits
    made = {budget: ce.LinearQuantization(bits=2, budget=budget)(model, data) for budget in ("uniform", "sensitivity")}
    right = {budget: evaluate(network, data, "validation").correct for budget, network in made.items()}
    forms = [form for form in made["sensitivity"].modules() if isinstance(form, Quantized)]
    bits = sum(form.bits * form.latent.numel() for form in forms)
    assert bits <= 2 * sum(form.latent.numel() for form in forms)
    assert len({form.bits for form in forms}) > 1
    assert right["sensitivity"] > right["uniform"] + 40


class Idle(nn.Module):
    """A network with a layer that it never calls."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 8)
        self.idle = nn.Linear(8, 8)
        self.fc2 = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc2(self.fc1(x.flatten(1)).relu())


def test_a_layer_that_cannot_be_rounded_is_named_and_has_no_share(digits):
    _, data = digits
    made = ce.GPTQ(bits=3, budget="sensitivity", calibration_images=20)(Idle(), data)
    assert isinstance(made.idle, nn.Linear) and isinstance(made.fc1, Quantized)
    assert [(one.layer, one.reason) for one in made.compression.skipped] == [
        ("idle", "no calibration image reaches it")
    ]


@pytest.mark.parametrize("budget", ["uniform", "sensitivity"])
def test_a_layer_that_no_form_can_replace_is_named_and_stops_no_other(digits, budget):
    model, data = digits
    model = copy.deepcopy(model)
    model.conv2.bits = "mine"
    made = ce.LinearQuantization(bits=3, budget=budget, calibration_images=20)(model, data)
    assert [(one.layer, one.reason) for one in made.compression.skipped] == [
        ("conv2", "it has an attribute 'bits' of its own, and so has the Quantized in its place")
    ]
    assert isinstance(made.fc1, Quantized) and isinstance(made.conv2, nn.Conv2d)


def test_a_network_with_nothing_left_to_round_says_so(digits):
    model, data = digits
    with pytest.raises(ce.CompressionError, match="found nothing to compress: .*already compressed"):
        ce.LinearQuantization(bits=3, budget="sensitivity")(ce.LinearQuantization()(model), data)


def test_bits_by_hand_and_a_limit_exclude_each_other():
    with pytest.raises(ValueError, match=r"LinearQuantization.bits must be one number when budget is 'sensitivity'"):
        ce.LinearQuantization(bits={"conv*": 4, "*": 2}, budget="sensitivity")
    with pytest.raises(ValueError, match=r"code_bytes is 5000, yet budget='uniform'"):
        ce.LinearQuantization(code_bytes=5000)
