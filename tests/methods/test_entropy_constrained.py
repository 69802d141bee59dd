"""Entropy-constrained codes: each weight's choice against all codes, the step against a scan, bytes against entropy."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import compedu as ce
from compedu.evaluation import evaluate
from compedu.files import model_bytes
from compedu.forms import Quantized
from compedu.methods.calibration import calibration_set
from compedu.methods.curvature import curvature_diagonals
from compedu.methods.quantization.entropy_constrained import best_step, code_costs, constrained_codes

ECSQ = ce.EntropyConstrainedQuantization


def weights(n=4000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, generator=generator).double(), torch.rand(n, generator=generator).double() + 0.1


def two_hills(n=4000, seed=0):
    """Weights as pruning leaves them: few are near zero, which is not the most frequent code then."""
    generator = torch.Generator().manual_seed(seed)
    sizes = 0.35 + 0.9 * torch.rand(n, generator=generator).double()
    return sizes * torch.where(torch.rand(n, generator=generator) < 0.5, -1, 1), torch.ones(n).double()


def total(steps, losses, price, codes, top):
    bits = code_costs(codes, top)[codes + top].sum()
    return float((losses * (codes - steps) ** 2).sum() + price * bits)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("price", [0.003, 0.03, 0.06])
def test_no_single_weight_would_choose_another_code_at_the_final_bits(seed, price):
    steps, losses = weights(seed=seed)
    steps = 4 * steps
    top = int(steps.abs().max().ceil())
    codes = constrained_codes(steps, losses, price, top)
    every = torch.arange(-top, top + 1)
    bits = code_costs(codes, top)
    best = (losses[:, None] * (every - steps[:, None]) ** 2 + price * bits).argmin(1) - top
    assert (best != codes).float().mean() < 0.01  # the last few choices may change the counts a little
    assert codes.abs().sum() < steps.round().abs().sum()


@pytest.mark.parametrize("price", [0.03, 0.1, 0.3])
def test_weights_near_zero_join_more_frequent_codes(price):
    steps, losses = two_hills()
    codes = constrained_codes(steps, losses, price, 2)
    every = torch.arange(-2, 3)
    bits = code_costs(codes, 2)
    best = (losses[:, None] * (every - steps[:, None]) ** 2 + price * bits).argmin(1) - 2
    assert (best != codes).float().mean() < 0.01
    assert ((steps.round() == 0) & (codes != 0)).any()


def test_the_sum_of_loss_and_bits_is_no_more_than_that_of_the_nearest_codes():
    steps, losses = weights()
    for price in (0.01, 0.1, 1.0):
        top = int(steps.abs().max().ceil())
        codes = constrained_codes(steps, losses, price, top)
        assert total(steps, losses, price, codes, top) < total(steps, losses, price, steps.round().long(), top)


def test_a_code_that_does_not_occur_costs_a_finite_number_of_bits():
    costs = code_costs(torch.tensor([0, 0, 0, 1]), 1)
    torch.testing.assert_close(2.0**-costs, torch.tensor([1 / 7, 4 / 7, 2 / 7], dtype=torch.float64))


def test_the_step_is_where_loss_and_bits_are_least_together():
    """Uniform weights in [-1, 1] meet the assumption of fine steps exactly: loss h s^2 / 24, bits log2(2 / s)."""
    h, price = 3.0, 1e-4
    tried = torch.logspace(-3, 0, 4000).double()
    cost = h * tried**2 / 24 + price * (2 / tried).log2()
    assert best_step(h, price) == pytest.approx(float(tried[cost.argmin()]), rel=0.01)


@pytest.fixture(scope="module")
def digits():
    model, data = ce.load("lenet5", "digits")
    return model, data


def test_a_higher_price_makes_the_file_shorter_and_the_loss_higher(digits):
    model, data = digits
    made = [ECSQ(price=price)(model, data) for price in (1e-9, 1e-7, 1e-5)]
    sizes = [len(model_bytes(network, "ans")) for network in made]
    losses = [evaluate(network, data, "train").loss for network in made]
    assert sizes[0] > 1.3 * sizes[1] > 1.69 * sizes[2]
    assert losses[0] <= losses[1] + 1e-3 and losses[1] < losses[2]


def test_it_is_shorter_than_equal_bits_and_loses_less(digits):
    model, data = digits
    made = ECSQ(price=2e-7)(model, data)
    equal = ce.LinearQuantization(bits=2, clipping="mse")(model)
    assert len(model_bytes(made, "ans")) < 0.9 * len(model_bytes(equal, "ans"))
    assert evaluate(made, data, "validation").loss < evaluate(equal, data, "validation").loss


def test_the_written_codes_take_about_their_entropy(digits):
    model, data = digits
    made = ECSQ(price=1e-7)(model, data)
    bits = 0.0
    for form in (module for module in made.modules() if isinstance(module, Quantized)):
        share = form.codes().unique(return_counts=True)[1].double() / form.latent.numel()
        bits -= float((share * share.log2()).sum()) * form.latent.numel()
    rest = 4 * sum(parameter.numel() for name, parameter in model.named_parameters() if "bias" in name)
    assert bits / 8 < len(model_bytes(made, "ans")) < bits / 8 * 1.02 + rest + 1500


def test_every_layer_gets_the_step_that_its_curvature_and_the_price_say(digits):
    model, data = digits
    x, y = calibration_set(data, 16, 0)
    names = ("conv1", "conv2", "fc1", "fc2")
    curvatures = curvature_diagonals(model, {name: model.get_submodule(name) for name in names}, x, y, "gauss-newton")
    for damping in (0.0, 3.0):
        made = ECSQ(price=1e-7, damping=damping, calibration_images=16)(model, data)
        for name in names:
            bent = float(curvatures[name].mean()) * (1 + damping)
            wanted = math.sqrt(12 * 1e-7 / 8000 / (bent * math.log(2)))
            assert made.get_submodule(name).scale.item() == pytest.approx(wanted, rel=1e-4)


def test_layers_with_zeros_alone_get_codes_of_zero(digits):
    _, data = digits
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, 10))
    model[1].weight.data.zero_()
    made = ECSQ(layers="1")(model, data)
    assert torch.equal(made[1].dense(), torch.zeros(8, 784))


def test_a_layer_that_the_loss_does_not_depend_on_is_named(digits):
    _, data = digits
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, 10))
    model[3].weight.data.zero_()
    with pytest.raises(ce.CompressionError, match="the loss does not change with its weights"):
        ECSQ(layers="1")(model, data)


def test_images_beyond_what_the_network_can_compute_are_refused_with_the_layer(digits):
    model, data = digits
    x = data.x_train.clone()
    x[:, 0, 9, 9] = 3e38
    with pytest.raises(ce.CompressionError, match=r"curvature .* layer '\w+' is not finite on the images"):
        ECSQ(calibration_images=16)(model, replace(data, x_train=x))
