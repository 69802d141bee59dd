"""Fixed point: numbers by hand, the mean of stochastic rounding, updates that vanish and updates that survive."""

import pytest
import torch
from torch import nn

import compedu as ce
from compedu.evaluation import evaluate
from compedu.forms import Quantized
from compedu.hashing import uniform
from compedu.methods.quantization.fixed_point import stochastic_codes


def rounded(weight, **knobs):
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data = weight
    return ce.FixedPoint(**knobs)(nn.Sequential(layer))[0]


def test_numbers_by_hand():
    weight = torch.tensor([[0.3, -0.3, 0.124, 0.126, 5.0, -5.0, -1.0]])
    assert rounded(weight, bits=3).dense().tolist() == [[0.25, -0.25, 0.0, 0.25, 0.75, -0.75, -0.75]]
    assert rounded(weight, bits=4, integer_bits=3).dense().tolist() == [[0.5, -0.5, 0.0, 0.0, 3.5, -3.5, -1.0]]
    assert rounded(weight, bits=3, integer_bits=-2).scale.item() == 2.0**-5


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_every_weight_is_a_multiple_of_the_step_next_to_it(rounding):
    weight = torch.randn(20, 50, generator=torch.Generator().manual_seed(0)) / 4
    form = rounded(weight, bits=6, rounding=rounding)
    steps = form.dense() * 2**5
    assert torch.equal(steps, steps.round()) and form.codes().abs().max() <= 31
    inside = weight.abs() < 31 / 32
    apart = (form.dense() - weight).abs() * 2**5
    assert apart[inside].max() <= (0.5 if rounding == "nearest" else 1.0)
    assert apart[inside].max() > (0.45 if rounding == "nearest" else 0.9)


def test_stochastic_rounding_is_right_on_average_and_nearest_is_not():
    steps = torch.tensor([-2.7, -0.5, 0.0, 0.1, 0.25, 3.0, 3.9])
    draws = torch.stack([stochastic_codes(steps, seed) for seed in range(4000)])
    assert (draws.mean(0) - steps).abs().max() < 4 * 0.5 / 4000**0.5
    assert set((draws - steps.floor()).unique().tolist()) == {0.0, 1.0}
    nearest = rounded(steps[None] / 16, bits=8, integer_bits=4).dense()[0] * 16
    assert (nearest - steps).abs().max() > 0.25
    assert torch.equal(draws[:, 2], torch.zeros(4000)) and torch.equal(draws[:, 5], torch.full((4000,), 3.0))


def test_the_hash_gives_uniform_independent_numbers_that_its_seeds_choose():
    numbers = uniform(100_000, 3, 7)
    assert torch.equal(numbers, uniform(100_000, 3, 7))
    counts = torch.histc(numbers, 20, 0, 1)
    assert ((counts - 5000) ** 2 / 5000).sum() < 45  # chi-squared of 19 degrees of freedom: 1 in 1,000 is beyond 43.8
    others = [uniform(100_000, *seeds) for seeds in ((7, 3), (3, 8), (4, 7), (3, -1))] + [numbers.roll(1)]
    for other in others:
        assert abs(torch.corrcoef(torch.stack([numbers, other]))[0, 1]) < 0.015


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_networks_of_other_precision_are_saved_and_loaded(dtype, tmp_path):
    made = ce.FixedPoint(bits=6)(ce.build("lenet5(width=0.25)").to(dtype))
    ce.save(made, tmp_path / "made.compedu")
    again = ce.load_model(tmp_path / "made.compedu")
    assert torch.equal(again.fc1.dense(), made.fc1.dense()) and again.fc1.dense().dtype == dtype


def test_layers_and_seeds_draw_numbers_of_their_own():
    model = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9))
    model[1].load_state_dict(model[0].state_dict())
    made = ce.FixedPoint(bits=3, rounding="stochastic")(model)
    assert not torch.equal(made[0].dense(), made[1].dense())
    again, other = (ce.FixedPoint(bits=3, rounding="stochastic", rounding_seed=seed)(model) for seed in (0, 1))
    assert torch.equal(made[0].dense(), again[0].dense()) and not torch.equal(made[0].dense(), other[0].dense())


@pytest.fixture(scope="module")
def trained():
    """The shipped network in 3 bits without training, and trained in 3 bits with both roundings, by accuracy."""
    model, data = ce.load("lenet5", "digits")
    arms = {"untrained": ce.FixedPoint(bits=3, integer_bits=0)(model)}
    for rounding in ("nearest", "stochastic"):
        method = ce.FixedPointTraining(bits=3, integer_bits=0, rounding=rounding, epochs=1)
        arms[rounding] = method(model, data)
    return arms, data


def test_small_updates_vanish_under_nearest_rounding_and_survive_under_stochastic(trained):
    arms, data = trained
    right = {name: evaluate(network, data, "validation").correct for name, network in arms.items()}
    before = arms["untrained"].fc1.codes()
    assert torch.equal(arms["nearest"].fc1.codes(), before)  # Adam's updates are below half a step: nothing moved
    assert (arms["stochastic"].fc1.codes() != before).float().mean() > 0.05
    assert right["stochastic"] > right["nearest"] + 80, right


def test_weights_are_on_the_grid_after_training_so_the_file_holds_what_was_trained(trained, tmp_path):
    arms, data = trained
    model = arms["stochastic"]
    for form in (module for module in model.modules() if isinstance(module, Quantized)):
        assert torch.equal(form.latent, form.dense())
    ce.save(model, tmp_path / "made.compedu")
    assert torch.equal(ce.load_model(tmp_path / "made.compedu")(data.x_test[:9]), model(data.x_test[:9]))


def test_only_the_layers_of_this_call_are_rounded():
    model, data = ce.load("lenet5", "digits")
    earlier = ce.LinearQuantization(bits=4, layers="fc2")(model)
    made = ce.FixedPointTraining(bits=4, epochs=1, layers="-fc2")(earlier, data.shortened(train=128))
    assert torch.equal(made.fc2.scale, earlier.fc2.scale)
    assert not torch.equal(made.fc2.latent, made.fc2.dense())
    assert torch.equal(made.fc1.latent, made.fc1.dense())
