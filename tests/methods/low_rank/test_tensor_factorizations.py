"""Separable, Tucker and canonical polyadic factors against independent decompositions; layers that mean one."""

import warnings

import numpy as np
import pytest
import tensorly
import torch
from tensorly.decomposition import parafac, partial_tucker
from torch import nn

import compedu as ce
from compedu.forms.factored import full_rank
from compedu.methods import compression_of
from compedu.methods.low_rank.canonical_polyadic import CPDecomposition
from compedu.methods.low_rank.separable_filters import SeparableFilters
from compedu.methods.low_rank.shared.polyadic import CANCELLED, cancellation, decomposed, recomposed
from compedu.methods.low_rank.shared.tucker_2 import tucker_2
from compedu.methods.low_rank.tucker import TuckerDecomposition

METHODS = [SeparableFilters, TuckerDecomposition, CPDecomposition]
CONVOLUTIONS = [
    {},
    {"stride": (2, 3), "padding": (1, 2)},
    {"stride": (1, 2), "padding": (2, 1), "dilation": (2, 3), "bias": False},
]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative(change, whole):
    return float(change.norm() / whole.norm())


def tensorly_cp(weight, rank, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of more vectors than an axis has
        found = parafac(tensorly.tensor(weight.numpy()), rank, n_iter_max=100, init="svd", random_state=0, **options)
    return torch.from_numpy(np.asarray(tensorly.cp_to_tensor(found)))


@pytest.fixture(scope="module")
def trained():
    return ce.load("lenet5", "glyphs")[0].conv2.weight.detach().double()


@pytest.mark.parametrize("rank", [2, 8, 32])
def test_a_polyadic_decomposition_is_as_close_as_an_independent_one(trained, rank):
    ours = relative(trained - recomposed(decomposed(trained[None], rank))[0], trained)
    theirs = relative(trained - tensorly_cp(trained, rank), trained)
    assert ours <= 1.01 * theirs


def test_many_tensors_at_once_are_decomposed_as_each_alone():
    tensors = random(3, 7, 4, 3)
    together = recomposed(decomposed(tensors, 3))
    for tensor, found in zip(tensors, together, strict=True):
        assert relative(tensor - found, tensor) <= 1.01 * relative(tensor - tensorly_cp(tensor, 3), tensor)


@pytest.mark.parametrize("outputs, inputs", [(10, 6), (30, 3), (50, 20)])
def test_a_tucker_decomposition_is_as_close_as_an_independent_one(trained, outputs, inputs):
    v, core, u = tucker_2(trained, (inputs, outputs))
    ours = relative(trained - torch.einsum("na,cb,abij->ncij", u, v, core), trained)
    (their_core, factors), _ = partial_tucker(tensorly.tensor(trained.numpy()), rank=[outputs, inputs], modes=[0, 1])
    theirs = torch.from_numpy(np.einsum("na,cb,abij->ncij", *factors, their_core))
    assert ours <= 1.01 * relative(trained - theirs, trained) + 1e-9


def test_a_planted_rank_is_found():
    factors = [random(1, size, 3, seed=size) for size in (9, 7, 5, 4)]
    tensor = recomposed(factors)
    assert relative(tensor - recomposed(decomposed(tensor, 3)), tensor) < 1e-3


@pytest.mark.parametrize("sizes", [(6, 4, 3, 3), (3, 8, 1, 5), (2, 2, 2, 2), (5, 1, 3, 3)])
@pytest.mark.parametrize("further", [0, 7])
def test_a_full_rank_and_any_above_it_reproduces_every_tensor(sizes, further):
    tensor = random(2, *sizes)
    found = decomposed(tensor, full_rank(sizes) + further)
    torch.testing.assert_close(recomposed(found), tensor)
    assert found[0].shape == (2, sizes[0], full_rank(sizes) + further)


@pytest.mark.parametrize("tensor", [torch.ones(1, 4, 5, 3, 3), torch.zeros(1, 4, 5, 3, 3)], ids=["ones", "zeros"])
@pytest.mark.parametrize("rank", [1, 2, 11])
def test_ones_and_zeros_are_of_low_rank_at_every_rank(tensor, rank):
    torch.testing.assert_close(recomposed(decomposed(tensor, rank)), tensor.double())


def test_where_no_best_approximation_exists_the_terms_grow_and_cancel_out():
    a, b = torch.eye(2, dtype=torch.float64)
    tensor = sum(torch.einsum("i,j,k->ijk", *order) for order in ((a, a, b), (a, b, a), (b, a, a)))
    factors = decomposed(tensor[None], 2)
    terms = torch.stack([recomposed([factor[..., r : r + 1] for factor in factors])[0] for r in range(2)])
    assert relative(tensor - terms.sum(0), tensor) < 0.1  # of rank 3, yet rank 2 comes as close as one likes
    assert terms.flatten(1).norm(dim=1).square().sum().sqrt() > 2 * tensor.norm()


CHAPTER = {1: 1.0, 2: 1.0, 5: 37, 7: 4.3, 9: 127, 12: 76, 95: 14, 220: 7.4}  # how many times terms cancel, by rank


@pytest.mark.parametrize("rank", [*CHAPTER, pytest.param(475, marks=pytest.mark.exhaustive)])
def test_how_much_terms_cancel_in_the_layer_of_the_chapter_jumps_from_rank_to_rank(rank):
    weight = ce.trained("lenet5", "glyphs").conv2.weight.detach()[None].double()
    found = cancellation(decomposed(weight, rank))
    assert found == pytest.approx(CHAPTER.get(rank, 20), rel=0.05)
    assert (found > CANCELLED) == (rank > 2)


def convolution(**options):
    torch.manual_seed(3)
    return nn.Conv2d(4, 6, (3, 5), **options).double()


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("method", METHODS)
def test_the_layers_in_sequence_equal_one_with_the_rebuilt_weight(method, options):
    layer, x = convolution(**options), random(2, 4, 17, 19)
    for rank in (2, 1.0):
        form = method(rank=rank, layers="all", allow_larger=True)(nn.Sequential(layer))[0]
        expected = nn.functional.conv2d(x, form.dense(), layer.bias, layer.stride, layer.padding, layer.dilation)
        torch.testing.assert_close(form(x), expected, rtol=1e-10, atol=1e-10)
        assert [factor.bias is None for factor in form.factors[:-1]] == [True] * (len(form.factors) - 1)
    torch.testing.assert_close(form(x), layer(x), rtol=1e-9, atol=1e-9)


def test_four_factors_mean_the_sum_of_outer_products():
    form = CPDecomposition(rank=5, layers="all", allow_larger=True)(nn.Sequential(convolution()))[0]
    into, down, along, out = (factor.weight.detach().numpy() for factor in form.factors)
    products = [
        np.multiply.outer(np.outer(out[:, r, 0, 0], into[r, :, 0, 0]), np.outer(down[r, 0, :, 0], along[r, 0, 0]))
        for r in range(5)
    ]
    np.testing.assert_allclose(form.dense().detach().numpy(), sum(products), atol=1e-12)


def test_separable_filters_mean_their_mixtures_channel_by_channel():
    form = SeparableFilters(rank=3, layers="all", allow_larger=True)(nn.Sequential(convolution()))[0]
    columns, rows, mixed = (factor.weight.detach().numpy() for factor in form.factors)
    expected = np.zeros((6, 4, 3, 5))
    for channel in range(4):
        for m in range(3 * channel, 3 * channel + 3):
            filter = np.outer(columns[m, 0, :, 0], rows[m, 0, 0])
            expected[:, channel] += np.multiply.outer(mixed[:, m, 0, 0], filter)
    np.testing.assert_allclose(form.dense().detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (50, 20, 5, 5), (8, 8, 1, 7)])
def test_below_break_even_a_layer_is_smaller_and_above_it_is_refused_with_the_rank_that_saves(method, shape):
    model = nn.Sequential(nn.Conv2d(shape[1], shape[0], shape[2:], bias=False))
    geometry = ce.forms.Geometry.of(model[0])
    largest = int(np.ceil(method().break_even(geometry))) - 1
    full = min(method().full_ranks(geometry))
    if largest < full:
        with pytest.raises(ce.CompressionError, match=f"break.even .*choose at most rank {largest}, or with allow"):
            method(rank=largest + 1, layers="all")(model)
    made = method(rank=min(largest, full), layers="all")(model)
    assert sum(p.numel() for p in made.parameters()) < model[0].weight.numel()


@pytest.mark.parametrize("method", METHODS)
def test_layers_that_are_no_wide_convolutions_stay_by_name(method):
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 16, 5), nn.Flatten(),
        nn.Linear(16, 10),
    )  # fmt: skip
    made = method(layers="all", allow_larger=True)(model.eval())
    reasons = {one.layer: one.reason for one in compression_of(made).skipped}
    assert reasons == {
        "1": "is a convolution in 2 groups; layers in sequence would mix them",
        "2": "is a 1x1 convolution, whose weight is a matrix; TruncatedSVD factors it",
        "5": "is not a convolution; TruncatedSVD factors linear layers",
    }


@pytest.mark.parametrize("method", METHODS)
def test_measured_ranks_keep_far_more_than_equal_ones_in_as_many_weights(method):
    model, data = ce.load("lenet5", "glyphs")
    made = {budget: method(rank=0.25, budget=budget)(model, data) for budget in ("uniform", "sensitivity")}
    sizes = {budget: sum(p.numel() for p in network.parameters()) for budget, network in made.items()}
    scores = {budget: ce.measure(network, data, speed=False).accuracy for budget, network in made.items()}
    assert sizes["sensitivity"] <= sizes["uniform"] and scores["sensitivity"] > scores["uniform"] + 0.1


def test_a_bank_of_filters_for_many_inputs_and_few_outputs_is_saved_and_loaded(tmp_path):
    model = nn.Sequential(nn.Conv2d(64, 4, 3)).eval()
    made = SeparableFilters(rank=2, layers="all")(model)
    ce.save(made, tmp_path / "bank")
    x = random(1, 64, 6, 6).float()
    assert torch.equal(ce.files.load(tmp_path / "bank", model)(x), made(x))
