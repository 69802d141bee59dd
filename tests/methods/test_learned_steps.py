"""Learned step sizes: the gradient of a step against its formula, and what training leaves behind."""

import pytest
import torch
from torch import nn

import compedu as ce
from compedu.forms import ActivationQuantizer, Quantized
from compedu.forms.activation import RoundOnGrid
from compedu.methods.quantization import learned_steps


def detached(x: torch.Tensor, scale: torch.Tensor, zero_point: int, low: int, high: int) -> torch.Tensor:
    """The same rounding from operations that autograd knows, with the rounding alone taken out of the graph."""
    steps = x / scale + zero_point
    inside = (steps > low) & (steps < high)
    passed = steps + (steps.round() - steps).detach()
    codes = torch.where(inside, passed, steps.detach().round().clamp(low, high))
    return scale * (codes - zero_point)


@pytest.mark.parametrize("zero_point, low, high", [(0, -3, 3), (0, -1, 1), (2, 0, 15)])
@pytest.mark.parametrize("shape", [(), (4, 1)])
def test_the_gradient_of_a_step_is_that_of_its_rounding(zero_point, low, high, shape):
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(4, 50, generator=generator, dtype=torch.float64)
    scale = 0.3 + torch.rand(shape, generator=generator, dtype=torch.float64)
    weights = torch.randn(4, 50, generator=generator, dtype=torch.float64)
    found = []
    for rounding in (RoundOnGrid.apply, detached):
        v, s = x.clone().requires_grad_(), scale.clone().requires_grad_()
        value = rounding(v, s, torch.tensor(zero_point) if rounding is not detached else zero_point, low, high)
        found.append((value.detach(), *torch.autograd.grad((weights * value).sum(), (v, s))))
    for ours, other in zip(*found, strict=True):
        assert torch.allclose(ours, other)


def test_the_gradient_of_a_step_is_the_papers():
    """Equations 3 and 5 of Esser et al. (2020): -v/s + round(v/s) and 1 inside; -Q_N or Q_P and 0 from the ends on."""
    s = torch.tensor(0.5, requires_grad=True)
    cases = ((-9.0, -3.0, 0), (-0.5, 1.0 - 1.0, 1), (0.24, 0.0 - 0.48, 1), (1.4, 3.0 - 2.8, 1),
             (1.5, 3.0, 0), (1.6, 3.0, 0), (-1.6, -3.0, 0), (9.0, 3.0, 0))  # fmt: skip
    for value, wanted, passed in cases:
        v = torch.tensor(value, requires_grad=True)
        through, along = torch.autograd.grad(RoundOnGrid.apply(v, s, torch.tensor(0), -3, 3), (v, s))
        assert along.item() == pytest.approx(wanted, abs=1e-6) and through.item() == passed, value


def test_half_precision_keeps_the_gradient_of_a_step_and_a_learned_scale():
    x = torch.randn(20000, generator=torch.Generator().manual_seed(0)).half()
    weights = torch.randn(20000, generator=torch.Generator().manual_seed(1))
    found = []
    for dtype in (torch.float16, torch.float64):
        s = torch.tensor(0.02, requires_grad=True)
        value = RoundOnGrid.apply(x.to(dtype), s, torch.tensor(0), -127, 127)
        (along,) = torch.autograd.grad((weights.to(dtype) * value).sum(), s)
        found.append(along.item())
    assert found[0] == pytest.approx(found[1], rel=0.02)
    quantizer = ActivationQuantizer(0.1, 0)
    quantizer.learn_scale(True)
    quantizer.half()
    assert quantizer.scale.dtype == torch.float32 and isinstance(quantizer.scale, nn.Parameter)


def test_a_step_that_is_not_learned_gets_no_gradient():
    x, s = torch.randn(5, requires_grad=True), torch.tensor(0.5)
    RoundOnGrid.apply(x, s, torch.tensor(0), -3, 3).sum().backward()
    assert x.grad is not None and s.grad is None


def test_training_moves_steps_and_leaves_them_fixed_and_positive():
    model, data = ce.load("lenet5", "digits")
    data = data.shortened(train=128, validation=50, test=10)
    method = ce.LearnedStepQuantization(bits=3, activation_bits=4, epochs=1, lr=5e-3)
    learned = method(model, data)
    start = ce.LinearQuantization(bits=3, activation_bits=4, clipping="mse")(model, data)
    scaled = [name for name, one in learned.named_modules() if isinstance(one, (Quantized, ActivationQuantizer))]
    assert scaled == [name for name, one in start.named_modules() if isinstance(one, (Quantized, ActivationQuantizer))]
    for name in scaled:
        one, before = learned.get_submodule(name), start.get_submodule(name)
        assert not isinstance(one.scale, nn.Parameter) and "scale" in dict(one.named_buffers())
        assert bool((one.scale > 0).all()) and not torch.equal(one.scale, before.scale), name
    further = ce.FineTune(epochs=1)(learned, data)
    for name in scaled:
        assert torch.equal(further.get_submodule(name).scale, learned.get_submodule(name).scale)


def test_what_is_not_quantized_by_this_call_is_trained_in_a_copy_and_keeps_its_scale():
    model, data = ce.load("lenet5", "digits")
    data = data.shortened(train=128, validation=50, test=10)
    earlier = ce.LinearQuantization(bits=4, layers="conv1")(model)
    state = {name: value.clone() for name, value in earlier.state_dict().items()}
    made = ce.LearnedStepQuantization(bits=3, epochs=1, lr=1e-2, layers="fc2")(earlier, data)
    assert all(torch.equal(value, state[name]) for name, value in earlier.state_dict().items()), "the input is changed"
    assert torch.equal(made.get_submodule("conv1").scale, state["conv1.scale"])
    assert not torch.equal(made.get_submodule("conv2").weight, state["conv2.weight"]), "the rest trains along"
    assert isinstance(made.get_submodule("fc2"), Quantized)


def test_a_scale_never_reaches_zero(monkeypatch):
    """A learning rate that would take every scale below zero within the first steps."""
    monkeypatch.setattr(learned_steps, "RATE", 1.0)
    model, data = ce.load("lenet5", "digits")
    data = data.shortened(train=640, validation=50, test=10)
    made = ce.LearnedStepQuantization(bits=3, epochs=1, lr=0.2, layers="fc2")(model, data)
    start = ce.LinearQuantization(bits=3, clipping="mse", layers="fc2")(model).get_submodule("fc2").scale
    scale = made.get_submodule("fc2").scale
    assert bool((scale > 0).all()) and float(scale.min()) == pytest.approx(1e-3 * float(start.min()))


def test_scales_learn_at_a_tenth_of_the_rate():
    model, data = ce.load("lenet5", "digits")
    data = data.shortened(train=64, validation=50, test=10)
    method = ce.LearnedStepQuantization(bits=3, epochs=1, lr=1e-2, layers="fc2")
    start = ce.LinearQuantization(bits=3, clipping="mse", layers="fc2")(model).get_submodule("fc2").scale
    moved = (method(model, data).get_submodule("fc2").scale - start).abs().max().item()
    assert moved == pytest.approx(1e-3, rel=0.05), "Adam's first step has the length of the learning rate"
