"""The vision transformer: what it computes, and that every method that chooses layers takes it as any other network."""

import laws
import pytest
import torch
from torch import nn

import compedu as ce
from compedu.files import load, save
from compedu.forms import Block, Form
from compedu.knobs import knobs
from compedu.methods import METHODS, LayerByLayer, SelectiveMethod
from compedu.methods.low_rank.shared.convolution_factors import ConvolutionFactorization
from compedu.networks.vit import Attention

SMALL = "vit(size=8, width=0.5, blocks=1)"
OF_IMAGES = (ce.CReLU, ce.MonochromaticFilters, ce.SmoothDictionary, ConvolutionFactorization)
BEFORE_RELU = (ce.Net2Deeper,)  # the activation between linear layers is another one here
LINEAR = ("attention.query", "attention.key", "attention.value", "attention.out", "fc1", "fc2")


def data():
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(8) % 10
    return ce.datasets.Dataset("pictures", x, y, x, y, x, y, tuple("0123456789"))


def shortest(cls):
    return laws.quick(cls, **{"epochs": int(knobs(cls)["epochs"].low)} if "epochs" in knobs(cls) else {})


def test_attention_is_that_of_torch():
    ours = Attention(48).double()
    theirs = nn.MultiheadAttention(48, 2, batch_first=True).double()
    theirs.in_proj_weight.data = torch.cat([ours.query.weight, ours.key.weight, ours.value.weight])
    theirs.in_proj_bias.data = torch.cat([ours.query.bias, ours.key.bias, ours.value.bias])
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(3, 7, 48, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])


@pytest.mark.parametrize("size", [1, 7, 8, 28, 33])
def test_images_of_any_size_have_a_position_for_each_token(size):
    model = ce.build(f"vit(size={size}, channels=3, classes=5, blocks=2)")
    assert model(torch.randn(2, 3, size, size)).shape == (2, 5)


def test_positions_are_told_apart():
    model = laws.lively(ce.build(SMALL))
    x = torch.randn(1, 1, 8, 8)
    assert not torch.allclose(model(x), model(x.flip(3)))


@pytest.mark.parametrize("cls", [cls for cls in METHODS if issubclass(cls, SelectiveMethod)], ids=lambda c: c.__name__)
def test_every_method_that_chooses_layers_takes_it(cls, tmp_path):
    model = laws.lively(ce.build(SMALL))
    images = data()
    small = shortest(cls)(model, images)
    save(small, tmp_path / "small.compedu")
    logits = small(images.x_test)
    assert torch.equal(load(tmp_path / "small.compedu")(images.x_test), logits)
    torch.testing.assert_close(ce.deploy(small)(images.x_test), logits, rtol=1e-3, atol=1e-3)
    if issubclass(cls, LayerByLayer) and not issubclass(cls, (*OF_IMAGES, *BEFORE_RELU)):
        assert all(isinstance(small.get_submodule(f"blocks.0.{name}"), (Form, Block)) for name in LINEAR)


def test_its_linear_layers_run_on_integers():
    model = laws.lively(ce.build(SMALL))
    kernels = ce.deploy(ce.LinearQuantization(activation_bits=8)(model, data())).kernels
    assert all("int8" in kernels[f"blocks.0.{name}"] for name in LINEAR), kernels
