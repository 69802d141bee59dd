"""Promises that pruning while training could break: frozen weights, zeros under masks, finite weights, own draws."""

import pytest
import torch
from torch import nn

import compedu as ce
from compedu import hashing
from compedu.draws import drawing
from compedu.errors import CompressionError
from compedu.files import load, model_bytes, save
from compedu.methods.pruning.hard_concrete import Gated

IN_MASKS = (ce.GradualPruning, ce.IterativePruning, ce.RegularizedPruning, ce.BiasedWeightDecay, ce.MovementPruning)


def few():
    return ce.load_data("digits").shortened(train=96, validation=16, test=8)


@pytest.mark.parametrize("cls", [*IN_MASKS, ce.HardConcretePruning])
def test_frozen_weights_stay_where_they_were(cls):
    model = ce.build("lenet300(width=0.1)", seed=1)
    model.fc2.weight.requires_grad_(False)
    result = cls(epochs=2, lr=1e-2)(model, few())
    kept = result.fc2.mask
    assert not result.fc2.weight.requires_grad
    assert torch.equal(result.fc2.weight[kept], model.fc2.weight[kept])
    assert not torch.equal(result.fc1.dense()[result.fc1.mask], model.fc1.weight[result.fc1.mask])


def test_fine_tuning_a_masked_network_leaves_frozen_weights_alone():
    model = ce.build("lenet300(width=0.1)", seed=1)
    model.fc1.weight.requires_grad_(False)
    result = (ce.MagnitudePruning(sparsity=0.5) | ce.FineTune(epochs=1, lr=1e-2))(model, few())
    assert torch.equal(result.fc1.dense(), model.fc1.weight * result.fc1.mask)
    assert result.fc1.bias.requires_grad and not torch.equal(result.fc1.bias, model.fc1.bias)


@pytest.mark.parametrize("cls", IN_MASKS)
def test_what_the_mask_took_is_zero_and_a_file_gives_the_same_identity_back(cls, tmp_path):
    result = cls(epochs=2, lr=1e-2, batch=16)(ce.build("lenet300(width=0.1)", seed=1), few())
    for layer in (result.fc1, result.fc2, result.fc3):
        assert torch.equal(layer.weight, layer.dense()) and not layer.weight[~layer.mask].signbit().any()
    assert save(result, tmp_path / "model.ce") == len(model_bytes(result))
    assert hashing.model_digest(load(tmp_path / "model.ce")) == hashing.model_digest(result)


class Rooted(nn.Module):
    """A network whose gradient is no number where its score is zero."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, 10)

    def forward(self, x):
        return self.fc(x.flatten(1)) + (self.fc.weight.sum() * 0).sqrt()


def test_a_gradient_that_is_no_number_in_the_last_step_is_an_error():
    one = ce.load_data("digits").shortened(train=1, validation=4, test=4)
    with pytest.raises(
        CompressionError, match=r"diverged at its last step: fc\.weight is not finite; choose a lower lr"
    ):
        ce.FineTune(epochs=1)(Rooted(), one)


def test_gates_of_different_layers_and_draws_are_drawn_apart():
    layer = ce.MagnitudePruning(sparsity=0.0)(ce.build("lenet300(width=0.1)")).fc2
    one, other = Gated(layer, 0.9, 5), Gated(layer, 0.9, 5 + 2**32)
    shape = layer.weight.shape
    with drawing(0):
        first, second, third = one.draws.uniform(shape), other.draws.uniform(shape), one.draws.uniform(shape)
    with drawing(1):
        later = one.draws.uniform(shape)
    assert not any(torch.equal(first, drawn) for drawn in (second, third, later))
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].item()) < 0.1


@pytest.mark.parametrize("images", [16, 256])
def test_the_surgeon_operates_with_the_least_damping_that_is_allowed(images):
    result = ce.OptimalBrainSurgeon(sparsity=0.9, damping=1e-8, calibration_images=images)(
        *ce.load("lenet300", "digits")
    )
    assert all(bool(tensor.isfinite().all()) for tensor in result.state_dict().values())
