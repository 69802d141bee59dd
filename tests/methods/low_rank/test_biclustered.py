"""Bi-clustering: blocks by NumPy and TensorLy, planted clusters that are found again, and layers that mean one."""

import math

import numpy as np
import pytest
import tensorly
import torch
from tensorly.decomposition import partial_tucker
from torch import nn

import compedu as ce
from compedu.deployment import deploy
from compedu.errors import CompressionError, Skip
from compedu.forms import Factored, Geometry, Reordered
from compedu.forms.factored import most_channels
from compedu.methods import BiclusteredSVD, compression_of
from compedu.methods.low_rank.biclustered import block_factors, channel_clusters
from compedu.testing.networks import data, plain


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(clusters, sizes, ranks, window=(3, 3), seed=0):
    """A weight of blocks of low rank, its channels shuffled, and the cluster of each input and output channel."""
    draw = np.random.default_rng(seed)
    (inputs, outputs), (per_input, per_output), (inner, outer) = clusters, sizes, ranks
    weight = np.zeros((outputs * per_output, inputs * per_input, *window))
    of_input = draw.permutation(np.repeat(np.arange(inputs), per_input))
    of_output = draw.permutation(np.repeat(np.arange(outputs), per_output))
    for g in range(inputs):
        for h in range(outputs):
            core = draw.standard_normal((outer, inner, *window))
            sides = draw.standard_normal((per_output, outer)), draw.standard_normal((per_input, inner))
            weight[np.ix_(of_output == h, of_input == g)] = np.einsum("nq,cp,qpij->ncij", *sides, core)
    return torch.from_numpy(weight), of_input, of_output


def convolution(weight, **options) -> nn.Conv2d:
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]), **options).double()
    layer.weight.data = weight
    return layer


def parts(form: Factored) -> tuple[list[list[int]], list[np.ndarray]]:
    """The orders before and behind the three convolutions, and their weights."""
    orders = [factor.order.tolist() for factor in form.factors if isinstance(factor, Reordered)]
    weights = [factor.weight.detach().numpy() for factor in form.factors if not isinstance(factor, Reordered)]
    return orders, weights


def rebuilt(form: Factored, clusters, ranks) -> np.ndarray:
    """The dense weight, block by block, from the weights of the three convolutions and the orders."""
    (inputs, outputs), (inner, outer) = clusters, ranks
    (before, _, behind), (first, second, third) = parts(form)
    sizes = len(behind) // outputs, len(before) // inputs
    made = np.zeros((len(behind), len(before), *second.shape[2:]))
    for g in range(inputs):
        for h in range(outputs):
            block = g * outputs + h
            narrow = first[block * inner : (block + 1) * inner, :, 0, 0]
            core = second[block * outer : (block + 1) * outer]
            wide = third[h * sizes[0] : (h + 1) * sizes[0], g * outer : (g + 1) * outer, 0, 0]
            product = np.einsum("nq,qpij,pc->ncij", wide, core, narrow)
            for row in range(sizes[0]):
                for column in range(sizes[1]):
                    n = behind.index(h * sizes[0] + row)
                    made[n, before[g * sizes[1] + column]] = product[row, column]
    return made


# Blocks


@pytest.mark.parametrize("ranks", [(1, 1), (2, 3), (4, 6)])
def test_a_block_is_as_near_as_by_the_tucker_decomposition_of_tensorly(ranks):
    blocks = random(2, 6, 4, 3, 3)
    inputs, core, outputs = block_factors(blocks, ranks)
    made = torch.einsum("bnq,bcp,bqpij->bncij", outputs, inputs, core)
    for block, near in zip(blocks.numpy(), made.numpy(), strict=True):
        (their_core, sides), _ = partial_tucker(tensorly.tensor(block), ranks[::-1], modes=[0, 1], n_iter_max=200)
        theirs = np.einsum("nq,cp,qpij->ncij", *sides, their_core)
        assert np.linalg.norm(block - near) <= np.linalg.norm(block - theirs) * (1 + 1e-3) + 1e-12


def test_a_block_of_rank_one_has_three_parts_of_equal_norms():
    for part in block_factors(random(6, 4, 3, 3), (1, 1)):
        assert part.norm().item() == pytest.approx(block_factors(random(6, 4, 3, 3), (1, 1))[0].norm().item())
    zeros = block_factors(torch.zeros(6, 4, 3, 3, dtype=torch.float64), (2, 2))
    assert all(part.isfinite().all() for part in zeros) and not zeros[1].any()


# Clusters


@pytest.mark.parametrize("count", [1, 2, 4, 12])
def test_clusters_are_of_equal_size_and_hold_each_channel_once(count):
    clusters = channel_clusters(random(12, 50), count, 2)
    assert clusters.shape == (count, 12 // count) and sorted(clusters.flatten().tolist()) == list(range(12))


def test_dead_channels_break_nothing():
    weight = random(8, 8, 3, 3)
    weight[:5] = 0
    weight[:, 2:] = 0
    for dead in (weight, torch.zeros(8, 8, 3, 3, dtype=torch.float64)):
        form = BiclusteredSVD().factored(convolution(dead, bias=False), (4, 4))
        torch.testing.assert_close(form.dense(), dead)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("clusters, sizes, ranks", [
    ((2, 2), (8, 8), (1, 2)), ((3, 2), (6, 9), (1, 1)), ((4, 1), (6, 5), (2, 3)), ((1, 3), (4, 8), (3, 3)),
], ids=str)  # fmt: skip
def test_planted_clusters_and_blocks_are_found_without_error(clusters, sizes, ranks, seed):
    weight, of_input, of_output = planted(clusters, sizes, ranks, seed=seed)
    method = BiclusteredSVD(input_clusters=clusters[0], output_clusters=clusters[1])
    found = method.clusters(weight, ranks)
    assert all(len(set(of_input[members].tolist())) == 1 for members in found.inputs)
    assert all(len(set(of_output[members].tolist())) == 1 for members in found.outputs)
    form = method.factored(convolution(weight, bias=False), ranks)
    assert (form.dense() - weight).norm() < 1e-9 * weight.norm()


def test_the_clusters_that_are_found_have_a_smaller_error_than_random_ones():
    weight = ce.trained("lenet5", "digits").conv2.weight.detach().double()
    method = BiclusteredSVD(input_clusters=4, output_clusters=5)
    draw = torch.Generator().manual_seed(0)

    def error(layer):
        form = method.factored(layer, (2, 3))
        return (form.dense() - layer.weight).norm().item() / layer.weight.norm().item()

    found = method.clusters(weight, (2, 3))
    worse = []
    for _ in range(10):
        shuffled = [torch.randperm(count, generator=draw) for count in (50, 20)]
        blocks = weight[shuffled[0]][:, shuffled[1]].view(5, 10, 4, 5, 5, 5).permute(2, 0, 1, 3, 4, 5)
        worse.append(error_of_blocks(blocks, (2, 3)))
    ours = error(convolution(weight, bias=False))
    assert ours == pytest.approx(error_of_blocks(found.of(weight), (2, 3)))
    assert ours < min(worse)


def error_of_blocks(blocks, ranks) -> float:
    inputs, core, outputs = block_factors(blocks, ranks)
    made = torch.einsum("ghnq,ghcp,ghqpij->ghncij", outputs, inputs, core)
    return ((made - blocks).norm() / blocks.norm()).item()


# Layers


OPTIONS = [
    {}, {"stride": (2, 3), "padding": (1, 2)}, {"dilation": (2, 1), "padding": (4, 0), "bias": False},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("clusters, ranks", [((2, 3), (2, 2)), ((4, 2), (1, 3)), ((2, 2), (4, 6))], ids=str)
def test_the_chain_equals_the_blocks_built_one_by_one(clusters, ranks, options):
    torch.manual_seed(3)
    layer = nn.Conv2d(8, 12, (3, 5), **options).double()
    form = BiclusteredSVD(input_clusters=clusters[0], output_clusters=clusters[1]).factored(layer, ranks)
    assert form.ranks == tuple(clusters[0] * clusters[1] * rank for rank in ranks)
    weight = torch.from_numpy(rebuilt(form, clusters, ranks))
    torch.testing.assert_close(form.dense(), weight)
    x = random(2, 8, 13, 17)
    geometry = (layer.stride, layer.padding, layer.dilation)
    torch.testing.assert_close(form(x), nn.functional.conv2d(x, weight, layer.bias, *geometry))
    if ranks == (4, 6):
        torch.testing.assert_close(weight, layer.weight.detach())


def test_one_cluster_on_each_side_is_a_chain_of_three_and_at_full_ranks_the_layer():
    layer = convolution(random(6, 4, 3, 3))
    method = BiclusteredSVD(input_clusters=1, output_clusters=1)
    form = method.factored(layer, method.full_ranks(Geometry.of(layer)))
    assert [type(factor) for factor in form.factors] == [nn.Conv2d] * 3
    torch.testing.assert_close(form.dense(), layer.weight.detach())
    layer = convolution(planted((2, 1), (6, 5), (2, 3))[0])
    one_side = BiclusteredSVD(input_clusters=2, output_clusters=1).factored(layer, (2, 3))
    assert [type(factor) for factor in one_side.factors] == [Reordered, *[nn.Conv2d] * 3]


def test_fewer_weights_are_multiplied_than_in_the_dense_layer_and_moves_count_nothing():
    model = plain()
    small = BiclusteredSVD(rank=0.5, input_clusters=2, output_clusters=4)(model)
    method = BiclusteredSVD(input_clusters=2, output_clusters=4)
    numbers = method.numbers(Geometry.of(model.conv2), (2, 2))
    assert small.conv2.free_numbers() == numbers == small.conv2.macs(1) == 2 * 4 * (2 * 4 + 2 * 2 * 25) + 20 * 2 * 2
    before, after = (ce.measure(one, data(), speed=False) for one in (model, small))
    pointwise = 2 * 4 * 2 * 4  # at 12 x 12 pixels, of which the window leaves 8 x 8
    now = 144 * pointwise + 64 * (numbers - pointwise)
    assert before.macs - after.macs == 64 * model.conv2.weight.numel() - now


# Ranks


@pytest.mark.parametrize("clusters", [(1, 1), (2, 2), (4, 2), (2, 6)], ids=str)
def test_ranks_below_break_even_save_and_the_others_do_not(clusters):
    geometry = Geometry("conv2d", (12, 8, 3, 3))
    method = BiclusteredSVD(input_clusters=clusters[0], output_clusters=clusters[1])
    even = method.break_even(geometry)
    dense = math.prod(geometry.shape)
    saving = [rank for rank in range(1, 20) if method.numbers(geometry, (rank, rank)) < dense]
    assert saving == list(range(1, math.ceil(even)))


def test_ranks_that_save_nothing_are_refused_with_the_largest_that_does():
    model = nn.Sequential(nn.Conv2d(8, 12, 3))
    with pytest.raises(
        CompressionError, match=r"ranks 4, 6 save nothing \(equal ranks break even at 4\.4\): three layers of 1072"
    ):
        BiclusteredSVD(rank=1.0, layers="all")(model)
    with pytest.raises(CompressionError, match=r"rank 5 is above its full rank; choose at most rank"):
        BiclusteredSVD(rank=5, layers="all")(model)
    whole = BiclusteredSVD(rank=1.0, layers="all", allow_larger=True)(model)
    torch.testing.assert_close(whole[0].dense(), model[0].weight, rtol=1e-4, atol=1e-6)


def test_one_budget_for_all_layers_spends_no_more_weights_than_equal_ranks():
    model, images = ce.load("vgg", "glyphs")
    images = images.shortened(train=64, validation=16, test=16)
    layers = "features.conv1_2 features.conv4_2"
    equal, shared = (
        BiclusteredSVD(rank=0.1, budget=budget, layers=layers, calibration_images=32)(model, images)
        for budget in ("uniform", "sensitivity")
    )
    forms = [[one for one in made.modules() if isinstance(one, Factored)] for made in (equal, shared)]
    counts = [sum(one.free_numbers() for one in found) for found in forms]
    assert counts[1] <= counts[0]
    assert [one.ranks for one in forms[0]] != [one.ranks for one in forms[1]]


@pytest.mark.parametrize("budget", ["energy", "vbmf", "singular values"])
def test_budgets_of_a_single_matrix_are_not_offered(budget):
    with pytest.raises(ValueError, match="BiclusteredSVD.budget must be one of 'uniform', 'sensitivity'"):
        BiclusteredSVD(budget=budget)


# Refusals


def test_what_does_not_divide_or_has_no_blocks_is_left_alone_by_name():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 9, 3), nn.Conv2d(9, 8, 1), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 3),
        nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip
    model.append(nn.Linear(10, 10))
    reasons = {s.layer: s.reason for s in compression_of(BiclusteredSVD(layers="all")(model)).skipped}
    assert reasons.keys() == {"0", "1", "2", "3", "6", "7"}
    divided = "its 3 input channels do not divide into 2 clusters of equal size; choose input_clusters from 1, 3"
    assert divided in reasons["0"]
    assert "its 9 output channels do not divide into 2 clusters" in reasons["1"]
    assert "choose output_clusters from 1, 3, 9" in reasons["1"]
    assert "1x1" in reasons["2"] and "in 2 groups" in reasons["3"] and "not a convolution" in reasons["6"]


def test_more_channels_between_the_layers_than_a_file_takes_are_refused_by_name():
    """The limit is the one at which a file is read, so that every file that is written can be read."""
    layer = nn.Conv2d(16, 128, 3)
    method = BiclusteredSVD(input_clusters=1, output_clusters=16, layers="all")
    assert most_channels(Geometry.of(layer)) == 144
    model = nn.Sequential(layer).eval()
    with pytest.raises(CompressionError, match=r"1 x 16 blocks of ranks 10, 5 have 160 channels .* than the 144 that"):
        BiclusteredSVD(rank=0.65, input_clusters=1, output_clusters=16, layers="all")(model)
    small = BiclusteredSVD(rank=0.55, input_clusters=1, output_clusters=16, layers="all")(model)
    assert max(small[0].ranks) == 144 and method.numbers(Geometry.of(layer), (10, 5)) < layer.weight.numel()
    assert torch.equal(ce.files.from_bytes(ce.files.model_bytes(small), into=model)[0].dense(), small[0].dense())


# With other methods


def test_a_biclustered_network_is_pruned_rounded_saved_and_deployed():
    model = BiclusteredSVD(rank=0.5)(plain())
    steps = ce.MagnitudePruning(sparsity=0.5) | ce.LinearQuantization(bits=8, activation_bits=8)
    small = steps(model, data())
    x = data().x_validation
    read = ce.files.from_bytes(ce.files.model_bytes(small, "ans"))
    deployed = deploy(small, data().example)
    with torch.no_grad():
        assert torch.equal(read(x), small(x))
        assert (deployed(x) - small(x)).abs().max() < 0.03 * small(x).std()
    assert deployed.kernels["conv2"] == "six layers in sequence"
    assert [name for name, kernel in deployed.kernels.items() if kernel == "channels reordered"] == [
        "conv2.first", "conv2.fourth", "conv2.sixth",
    ]  # fmt: skip


def test_a_batch_norm_behind_the_blocks_is_deployed_as_it_is():
    model, images = ce.load("vgg", "glyphs")
    small = BiclusteredSVD(rank=0.5)(model)
    deployed = deploy(small, images.example)
    x = images.x_validation[:8]
    with torch.no_grad():
        torch.testing.assert_close(deployed(x), small(x), rtol=1e-3, atol=1e-3)


def test_ranks_with_too_many_channels_between_the_layers_are_no_choice_of_a_budget():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(64, 10)).eval()
    images = ce.load_data("digits").shortened(train=16)
    settings = {"input_clusters": 16, "output_clusters": 16, "layers": "2", "calibration_images": 8}
    equal, shared = (
        BiclusteredSVD(rank=0.25, budget=budget, **settings)(model, images) for budget in ("uniform", "sensitivity")
    )
    assert shared[2].free_numbers() <= equal[2].free_numbers()
    with pytest.raises(CompressionError, match="have 768 channels between its layers, more than the 576 that"):
        BiclusteredSVD(rank=3, **settings)(model, images)
    with pytest.raises(Skip, match="choose fewer clusters or a lower rank"):  # where ranks are checked, for all methods
        BiclusteredSVD(rank=3, **settings).checked_ranks("2", Geometry.of(model[2]), 3)
