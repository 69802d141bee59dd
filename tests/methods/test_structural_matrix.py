"""Block-circulant projection: the nearest weight by independent least squares, and the layers it leaves alone."""

import numpy as np
import pytest
import torch
from scipy.linalg import circulant
from torch import nn

from compedu.deployment.kernels.fourier import FourierLayer
from compedu.errors import CompressionError
from compedu.forms import ActivationQuantizer, BlockCirculant, Geometry
from compedu.hashing import signs
from compedu.methods import compression_of
from compedu.methods.structural_matrix.block_circulant import (
    BlockCirculantProjection,
    nearest_columns,
    stored_parameters,
)

SHAPES = [((8, 12), 4), ((7, 10), 4), ((3, 5), 8), ((6, 6), 6), ((5, 9), 1), ((9, 4), 3)]


def nearest_by_least_squares(matrix: np.ndarray, block: int) -> np.ndarray:
    """Fit each block on the circulant matrices of the unit vectors, cut at the edge."""
    out, inside = matrix.shape
    nearest = np.zeros_like(matrix)
    for top in range(0, out, block):
        for left in range(0, inside, block):
            piece = matrix[top : top + block, left : left + block]
            basis = [circulant(unit)[: piece.shape[0], : piece.shape[1]].ravel() for unit in np.eye(block)]
            weights, *_ = np.linalg.lstsq(np.stack(basis, 1), piece.ravel(), rcond=None)
            nearest[top : top + block, left : left + block] = (np.stack(basis, 1) @ weights).reshape(piece.shape)
    return nearest


def linear(shape):
    torch.manual_seed(1)
    return nn.Linear(shape[1], shape[0]).double()


@pytest.mark.parametrize("flips", [0, 5])
@pytest.mark.parametrize("shape, block", SHAPES)
def test_linear_kernel_equals_the_least_squares_fit_on_circulant_matrices(shape, block, flips):
    layer = linear(shape)
    form = BlockCirculant(Geometry.of(layer), nearest_columns(flipped(layer.weight, flips), block), None, flips)
    expected = flipped(nearest_by_least_squares(flipped(layer.weight, flips).numpy(), block), flips)
    np.testing.assert_allclose(form.dense().detach().numpy(), expected, atol=1e-12)


def flipped(weight, flips):
    weight = torch.as_tensor(weight).detach()
    return weight if flips == 0 else weight * signs(weight.shape[1], flips)


def test_convolutions_are_projected_over_the_channels_of_each_kernel_position():
    torch.manual_seed(2)
    layer = nn.Conv2d(6, 10, (3, 2), stride=2, padding=1).double()
    dense = BlockCirculantProjection(block=4).compress_layer("conv", layer).dense().detach().numpy()
    for i in range(3):
        for j in range(2):
            expected = nearest_by_least_squares(layer.weight[:, :, i, j].detach().numpy(), 4)
            np.testing.assert_allclose(dense[:, :, i, j], expected, atol=1e-12)


def test_no_other_columns_are_nearer():
    layer = linear((10, 14))
    form = BlockCirculantProjection(block=4, flips=3).compress_layer("fc", layer)
    error = (form.dense() - layer.weight.detach()).square().sum()
    (gradient,) = torch.autograd.grad(error, form.columns)
    assert gradient.abs().max() < 1e-12
    with torch.no_grad():
        form.columns += 1e-3 * torch.randn_like(form.columns)
    assert (form.dense() - layer.weight).square().sum() > error


def test_a_block_circulant_kernel_is_left_as_it_is():
    once = BlockCirculantProjection(block=4, flips=2).compress_layer("fc", linear((10, 14)))
    layer = nn.Linear(14, 10).double()
    layer.weight.data = once.dense().detach()
    twice = BlockCirculantProjection(block=4, flips=2).compress_layer("fc", layer)
    torch.testing.assert_close(twice.dense(), once.dense(), rtol=0, atol=1e-15)


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 10)
    ).eval()


@pytest.mark.parametrize("flips", [0, 9])
def test_blocks_of_one_reproduce_the_network(flips):
    model, x = small_network(), torch.randn(5, 1, 8, 8)
    same = BlockCirculantProjection(block=1, flips=flips, layers="-2")(model)
    assert isinstance(same[0], BlockCirculant) and isinstance(same[5], BlockCirculant)
    torch.testing.assert_close(same(x), model(x), rtol=1e-4, atol=1e-5)


def test_layers_that_would_save_nothing_and_grouped_ones_are_skipped_by_name():
    small = BlockCirculantProjection(block=4)(small_network())
    reasons = {skipped.layer: skipped.reason for skipped in compression_of(small).skipped}
    assert reasons.keys() == {"0", "2"}
    assert "store 72 parameters for its 72 weights" in reasons["0"] and "2 groups" in reasons["2"]
    assert small[5].columns.numel() == stored_parameters((10, 256), 4) == 3 * 64 * 4


def test_blocks_larger_than_every_layer_are_refused_with_all_reasons():
    with pytest.raises(CompressionError, match=r"nothing to compress.*0: blocks of 512 reach beyond .*2: is a conv"):
        BlockCirculantProjection(block=512, layers="0, 2")(small_network())


def test_each_layer_can_have_its_own_block():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8), nn.Linear(8, 8)).eval()
    small = BlockCirculantProjection(block={"0": 8, "2": 2})(model)
    assert (small[0].block, small[2].block) == (8, 2) and type(small[3]) is nn.Linear
    (skipped,) = compression_of(small).skipped
    assert skipped.layer == "3" and "no pattern" in skipped.reason


def test_sign_flips_depend_on_their_seed_alone():
    layer = linear((16, 16))
    weights = [BlockCirculantProjection(block=4, flips=f).compress_layer("fc", layer).dense() for f in (0, 1, 1, 2)]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[3])


def test_an_empty_batch_gives_an_empty_batch():
    for layer, x in (
        (nn.Linear(5, 7), torch.randn(0, 5)),
        (nn.Linear(5, 7), torch.randn(2, 0, 5)),
        (nn.Conv2d(5, 7, 3), torch.randn(0, 5, 6, 6)),
    ):
        made = BlockCirculantProjection(block=2)(nn.Sequential(layer))[0]
        assert made(x).shape == layer(x).shape and FourierLayer(made)(x).shape == layer(x).shape


def test_the_deployed_layer_gives_the_same_bits_with_its_transform_at_hand():
    torch.manual_seed(0)
    for layer, x in (
        (nn.Linear(10, 7), torch.randn(3, 10)),
        (nn.Conv2d(6, 8, 3, stride=2, padding=1), torch.randn(2, 6, 9, 9)),
    ):
        made = BlockCirculantProjection(block=3)(nn.Sequential(layer))[0]
        for act in (nn.Identity(), ActivationQuantizer.for_range(-1.0, 2.0)):
            made.act = act
            assert torch.equal(FourierLayer(made)(x), made(x))
