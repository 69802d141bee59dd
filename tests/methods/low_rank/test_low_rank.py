"""Low rank: the nearest weight by independent decompositions, two layers that mean one, and ranks that save nothing."""

import weakref

import numpy as np
import pytest
import tensorly
import torch
from tensorly.decomposition import parafac
from torch import nn

import compedu as ce
from compedu.errors import CompressionError
from compedu.evaluation import evaluate
from compedu.forms import Factored, NormalizedFactors
from compedu.methods import compression_of
from compedu.methods.low_rank.shared.matrix import as_matrix
from compedu.methods.low_rank.shared.rank import break_even, largest_saving_rank
from compedu.methods.low_rank.shared.svd import energy, factors, svd
from compedu.methods.low_rank.shared.vertical_horizontal import unfolded, vertical_horizontal
from compedu.methods.low_rank.truncated_svd import TruncatedSVD


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


CONVOLUTIONS = [
    {"stride": 1, "padding": 0},
    {"stride": (2, 3), "padding": (1, 2)},
    {"dilation": (2, 1), "padding": (4, 0)},
    {"stride": (1, 2), "padding": (2, 1), "dilation": (1, 3), "bias": False},
]


def convolution(**options):
    torch.manual_seed(3)
    return nn.Conv2d(4, 6, (3, 5), **options).double()


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_the_squared_error_is_the_sum_of_the_dropped_squared_singular_values(rank):
    matrix = random(9, 14)
    left, right = factors(matrix, rank)
    values = np.linalg.svd(matrix.numpy(), compute_uv=False)
    error = (matrix - left @ right).square().sum().item()
    assert error == pytest.approx((values[rank:] ** 2).sum(), abs=1e-12)
    assert 1 - error / matrix.square().sum().item() == pytest.approx(energy(svd(matrix)[1], rank))


def test_factors_mean_numpys_truncated_product_and_have_equal_norms():
    matrix = random(12, 7)
    left, right = factors(matrix, 3)
    u, s, vt = np.linalg.svd(matrix.numpy(), full_matrices=False)
    np.testing.assert_allclose((left @ right).numpy(), (u[:, :3] * s[:3]) @ vt[:3], atol=1e-12)
    np.testing.assert_allclose(left.norm(dim=0).numpy(), right.norm(dim=1).numpy())


def test_no_pair_found_by_alternating_least_squares_beats_the_closed_form():
    weight = random(6, 4, 3, 5)
    rank = 4
    vertical, horizontal = vertical_horizontal(weight, rank)
    ours = (weight - meaning(vertical, horizontal)).norm().item()
    matrix = weight.numpy().transpose(1, 2, 0, 3).reshape(12, 30)
    errors = []
    for start in range(5):
        right = np.random.default_rng(start).standard_normal((rank, 30))
        for _ in range(200):
            left = np.linalg.lstsq(right.T, matrix.T, rcond=None)[0].T
            right = np.linalg.lstsq(left, matrix, rcond=None)[0]
        errors.append(np.linalg.norm(matrix - left @ right))
    assert ours <= min(errors) + 1e-9 and min(errors) == pytest.approx(ours, rel=1e-3)


def meaning(vertical, horizontal):
    """Add up the outer products of the two layers' filters, one channel between them after the other."""
    products = [
        torch.tensordot(vertical[r, :, :, 0], horizontal[:, r, 0, :], dims=0).permute(2, 0, 1, 3)
        for r in range(len(vertical))
    ]
    return sum(products)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_a_canonical_polyadic_decomposition_of_equal_rank_is_never_nearer(rank):
    weight = random(6, 4, 3, 5, seed=rank)
    ours = (weight - meaning(*vertical_horizontal(weight, rank))).norm().item()
    found = parafac(tensorly.tensor(weight.numpy()), rank, init="random", random_state=0, n_iter_max=200)
    theirs = np.linalg.norm(weight.numpy() - tensorly.cp_to_tensor(found))
    assert ours <= theirs + 1e-9


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("rank", [2, 12])
def test_two_convolutions_in_sequence_equal_one_with_the_dense_kernel(rank, options):
    layer, x = convolution(**options), random(2, 4, 13, 17)
    form = TruncatedSVD().factored(layer, (rank,))
    assert form.rank == rank and (form.first.kernel_size, form.second.kernel_size) == ((3, 1), (1, 5))
    expected = nn.functional.conv2d(x, form.dense(), layer.bias, layer.stride, layer.padding, layer.dilation)
    torch.testing.assert_close(form(x), expected, rtol=1e-11, atol=1e-11)
    if rank == 12:
        torch.testing.assert_close(form(x), layer(x), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(form.dense(), meaning(form.first.weight, form.second.weight))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, groups=4),
        nn.Flatten(),
        nn.Linear(256, 40),
        nn.ReLU(),
        nn.Linear(40, 10),
    ).eval()


def test_full_rank_reproduces_the_network_when_it_may_be_larger():
    model, x = network(), torch.randn(3, 1, 8, 8)
    same = TruncatedSVD(rank=1.0, allow_larger=True, layers="all")(model)
    torch.testing.assert_close(same(x), model(x), rtol=1e-4, atol=1e-5)
    assert [layer.rank for layer in same if isinstance(layer, Factored)] == [3, 24, 40, 10]
    assert weights(same) > weights(model)


def weights(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("rows, columns", [(1, 50), (2, 2), (192, 192), (500, 800), (7, 3)])
def test_the_largest_saving_rank_saves_and_the_next_one_does_not(rows, columns):
    largest = largest_saving_rank(break_even(rows, columns))
    assert largest * (rows + columns) < rows * columns <= (largest + 1) * (rows + columns)
    assert largest < break_even(rows, columns) <= largest + 1


@pytest.mark.parametrize("layer", ["0", "2", "6", "8"])
def test_every_rank_below_break_even_makes_the_layer_smaller(layer):
    model = network()
    before = model.get_submodule(layer).weight.numel()
    for rank in range(1, largest_saving_rank(break_even(*as_matrix(model.get_submodule(layer).weight).shape)) + 1):
        form = TruncatedSVD(rank={layer: rank}, layers=layer)(model).get_submodule(layer)
        assert form.first.weight.numel() + form.second.weight.numel() < before


def test_fractions_above_break_even_are_skipped_with_reason_and_grouped_convolutions_too():
    small = TruncatedSVD(rank=0.5)(network())
    reasons = {skipped.layer: skipped.reason for skipped in compression_of(small).skipped}
    assert reasons.keys() == {"4", "8"} and "4 groups" in reasons["4"] and "layers='-last'" in reasons["8"]
    assert weights(small) < weights(network())
    above = TruncatedSVD(rank={"2": 0.7, "6": 0.5})(network())
    reasons = {skipped.layer: skipped.reason for skipped in compression_of(above).skipped}
    assert "rank 17 is not below its break-even rank 16.0: two layers of 1224 weights instead of 1152" in reasons["2"]
    assert "choose at most rank 15" in reasons["2"] and "no pattern" in reasons["0"]
    assert type(above[2]) is nn.Conv2d and above[6].rank == 20


def test_when_no_layer_would_become_smaller_the_method_refuses_with_every_reason():
    every_reason = r"nothing to compress.*0: rank 3 .*2: rank 24 .*6: rank 40 .*allow_larger"
    with pytest.raises(CompressionError, match=every_reason):
        TruncatedSVD(rank=1.0)(network())


def test_a_whole_number_above_break_even_is_an_error_that_names_layer_rank_and_limit():
    with pytest.raises(CompressionError, match=r"6: rank 35 is not below its break-even rank 34.6.*at most rank 34"):
        TruncatedSVD(rank={"6": 35})(network())
    assert TruncatedSVD(rank={"6": 35}, allow_larger=True)(network())[6].rank == 35
    above = "6: rank 41 is above its full rank; choose at most rank "
    with pytest.raises(CompressionError, match=f"{above}34, or with allow_larger=True at most rank 40"):
        TruncatedSVD(rank={"6": 41})(network())
    with pytest.raises(CompressionError, match=f"{above}40"):
        TruncatedSVD(rank={"6": 41}, allow_larger=True)(network())


def test_one_as_a_whole_number_is_rank_one_and_as_a_fraction_the_full_rank():
    one, all_of_it = TruncatedSVD(rank={"6": 1}), TruncatedSVD(rank={"6": 1.0}, allow_larger=True)
    assert one(network())[6].rank == 1 and all_of_it(network())[6].rank == 40
    assert TruncatedSVD(rank=2)(network())[2].rank == TruncatedSVD(rank=2)(network())[6].rank == 2
    assert TruncatedSVD(rank=1).key(network(), None) != TruncatedSVD(rank=1.0).key(network(), None)


@pytest.mark.parametrize("rank", [0, -1, 0.0, 1.5, 2.0, True, "1", float("nan"), None, {}, {"6": 1.5}])
def test_other_ranks_are_refused_when_the_method_is_built(rank):
    with pytest.raises(
        ValueError, match=r"TruncatedSVD.rank must be a fraction.*above 0 and up to 1.*whole number from 1"
    ):
        TruncatedSVD(rank=rank)


def test_the_decomposition_is_kept_by_content_not_by_identity():
    matrix = random(5, 8)
    first = svd(matrix)
    assert svd(matrix.clone())[1] is first[1]
    changed = matrix.clone()
    changed[0, 0] += 1
    assert not torch.equal(svd(changed)[1], first[1])


def test_a_kept_decomposition_does_not_keep_its_matrix():
    numbers = np.random.default_rng(3).normal(size=(7, 9))  # the memory behind every tensor made from it
    again, memory = torch.tensor(numbers), weakref.ref(numbers)
    first = svd(torch.from_numpy(numbers))
    del numbers
    assert memory() is None
    assert svd(again)[0] is first[0]


def test_half_precision_kernels_are_decomposed_in_single_precision():
    weight = random(6, 9).half()
    left, right = factors(weight, 6)
    assert left.dtype == right.dtype == torch.float16
    torch.testing.assert_close((left.float() @ right.float()), weight.float(), rtol=0, atol=0.02)


def test_a_factored_network_can_be_factored_further():
    once = TruncatedSVD(rank=0.5, layers="6")(network())
    twice = TruncatedSVD(rank=4, layers="6.first")(once)
    assert (twice[6].rank, twice[6].first.rank) == (20, 4)
    assert weights(twice) < weights(once) and unfolded(once[2].weight).shape == (24, 48)


@pytest.fixture(scope="module")
def digits():
    return ce.load("lenet300", "digits")


def test_low_rank_training_starts_again_and_normalizes_between_the_factors(digits):
    model, data = digits
    made = ce.LowRankTraining(rank=0.2, epochs=6, seed=1)(model, data)
    assert {name: block.ranks for name, block in made.named_children() if isinstance(block, NormalizedFactors)} == {
        "fc1": (60,), "fc2": (20,),
    }  # fmt: skip
    block = made.fc2
    x = block.first(torch.randn(5, 300)).detach()
    between = (x - block.norm.running_mean) / (block.norm.running_var + block.norm.eps).sqrt()
    expected = block.second(between * block.norm.weight + block.norm.bias)
    torch.testing.assert_close(block.second(block.norm(x)), expected)
    assert block.norm.num_batches_tracked > 0
    assert evaluate(made, data, "validation").correct > 0.9 * len(data.y_validation)


def test_low_rank_training_does_not_depend_on_the_given_weights_but_through_a_budget(digits):
    model, data = digits
    other = ce.build("lenet300", seed=5)
    made = [ce.LowRankTraining(rank=0.1, epochs=1)(given, data) for given in (model, other)]
    for first, second in zip(*(one.state_dict().values() for one in made), strict=True):
        assert torch.equal(first, second)
    ranks = [
        {name: form.ranks for name, form in method(model, data).named_modules() if hasattr(form, "ranks")}
        for method in (
            ce.LowRankTraining(rank=0.1, epochs=1, budget="singular values", normalize=False),
            ce.TruncatedSVD(rank=0.1, budget="singular values"),
        )
    ]
    assert ranks[0] == ranks[1]


def test_low_rank_training_cannot_start_a_pruned_layer_again(digits):
    model, data = digits
    pruned = ce.MagnitudePruning(sparsity=0.5, layers="fc3")(model)
    with pytest.raises(CompressionError, match=r"LowRankTraining.*: fc3 \(Masked\) cannot be initialized again"):
        ce.LowRankTraining(rank=0.1, epochs=1)(pruned, data)
