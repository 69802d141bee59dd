"""Monochromatic filters: clusters of equal size by brute force, colors by NumPy, and layers that mean one."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

import compedu as ce
from compedu.errors import CompressionError
from compedu.forms import Factored, Reordered
from compedu.methods import MonochromaticFilters, compression_of
from compedu.methods.low_rank.monochromatic import monochromatic
from compedu.methods.low_rank.shared.equal_clusters import assigned, equal_clusters


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(colors: int, size: int, inside: int, window: tuple[int, int], seed: int = 0):
    """Filters that see one of a few colors each, shuffled; and the cluster of each."""
    draw = np.random.default_rng(seed)
    color = draw.standard_normal((colors, inside))
    of = draw.permutation(np.repeat(np.arange(colors), size))
    filters = draw.standard_normal((colors * size, *window))
    return torch.from_numpy(color[of][:, :, None, None] * filters[:, None]), of


def rebuilt(form: Factored) -> np.ndarray:
    """The dense weight, filter by filter, from the weights of the two convolutions and the order."""
    color = form.first.weight.detach().numpy()[:, :, 0, 0]
    filters = form.second.weight.detach().numpy()[:, 0]
    size = len(filters) // len(color)
    return np.stack([np.multiply.outer(color[place // size], filters[place]) for place in form.third.order.tolist()])


def error_of(weight: torch.Tensor, colors: int) -> float:
    clusters, color, filters = monochromatic(weight, colors)
    made = torch.empty(len(weight), *weight.flatten(2).shape[1:], dtype=torch.float64)
    for members, one, of in zip(clusters, color, filters, strict=True):
        made[members] = torch.einsum("c,ms->mcs", one, of)
    return (made - weight.flatten(2)).square().sum().item()


def dropped(filters: np.ndarray) -> float:
    """What the best common color of these filters (count, C, pixels) leaves of them."""
    beside = np.concatenate(list(filters), axis=1)
    return (np.linalg.svd(beside, compute_uv=False)[1:] ** 2).sum()


# Clusters


@pytest.mark.parametrize("count", [1, 2, 3, 6, 12])
def test_clusters_are_of_equal_size_and_hold_each_item_once_in_order(count):
    clusters = monochromatic(random(12, 3, 3, 3), count)[0]
    assert clusters.shape == (count, 12 // count)
    assert sorted(clusters.flatten().tolist()) == list(range(12))
    assert (clusters.diff(dim=1) > 0).all() and (clusters[:, 0].diff() > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_best_assignment_of_equal_size_by_trying_all(seed):
    gains = random(8, 2, seed=seed)
    best = max(combinations(range(8), 4), key=lambda one: gains[list(one), 0].sum() + gains[others(one), 1].sum())
    assert sorted(map(tuple, assigned(gains).tolist())) == sorted([best, tuple(others(best))])


def others(chosen) -> list[int]:
    return [item for item in range(8) if item not in chosen]


def test_points_are_clustered_as_by_k_means_with_equal_sizes():
    draw = np.random.default_rng(1)
    of = draw.permutation(np.repeat(np.arange(4), 5))
    points = torch.from_numpy(10 * draw.standard_normal((4, 2))[of] + 0.1 * draw.standard_normal((20, 2)))

    def near(clusters):
        return -torch.cdist(points, points[clusters].mean(1)).square()

    clusters = equal_clusters(-torch.cdist(points, points), 4, near)
    assert all(len(set(of[members].tolist())) == 1 for members in clusters)


@pytest.mark.parametrize("seed", range(6))
def test_no_two_clusters_of_equal_size_have_better_colors(seed):
    weight = random(8, 3, 2, 2, seed=seed)
    filters = weight.flatten(2).numpy()
    halves = [list(one) for one in combinations(range(8), 4) if 0 in one]
    best = min(dropped(filters[one]) + dropped(filters[others(one)]) for one in halves)
    assert error_of(weight, 2) == pytest.approx(best, rel=1e-9)


# Colors


@pytest.mark.parametrize("colors, size, inside", [(3, 4, 3), (4, 16, 3), (5, 3, 7), (8, 2, 2)])
def test_planted_colors_are_found_without_error(colors, size, inside):
    weight, of = planted(colors, size, inside, (3, 2))
    assert error_of(weight, colors) < 1e-20
    assert all(len(set(of[members].tolist())) == 1 for members in monochromatic(weight, colors)[0])


def test_with_a_color_for_each_filter_the_error_is_that_of_each_filter_at_rank_one():
    weight = random(10, 4, 3, 5)
    singular = np.linalg.svd(weight.flatten(2).numpy(), compute_uv=False)
    assert error_of(weight, 10) == pytest.approx((singular[:, 1:] ** 2).sum(), rel=1e-12)


def test_with_one_color_it_is_the_first_singular_vector_of_all_filters_side_by_side():
    weight = random(10, 4, 3, 5)
    assert error_of(weight, 1) == pytest.approx(dropped(weight.flatten(2).numpy()), rel=1e-12)


def test_filters_are_projections_and_as_large_as_their_color():
    weight = random(12, 4, 3, 3)
    clusters, color, filters = monochromatic(weight, 3)
    for members, one, of in zip(clusters, color, filters, strict=True):
        best = np.linalg.lstsq(one[:, None].numpy(), weight[members].flatten(2).permute(1, 0, 2).flatten(1).numpy())[0]
        np.testing.assert_allclose(of.flatten().numpy(), best[0], atol=1e-12)
        assert one.norm().item() == pytest.approx(of.norm().item())


@pytest.mark.parametrize("seed", range(4))
def test_fitting_colors_and_clusters_in_turn_beats_clustering_the_colors_of_single_filters(seed):
    """What the paper does: clusters of the filters' own colors, and projections on the centers."""
    weight = random(24, 3, 3, 3, seed=seed)
    filters = weight.flatten(2).numpy()
    own = np.linalg.svd(filters)[0][:, :, 0]

    def centers(clusters):
        return torch.stack([torch.from_numpy(np.linalg.svd(own[members])[2][0]) for members in clusters])

    alike = torch.from_numpy(own @ own.T).square()
    clusters = equal_clusters(alike, 4, lambda found: (torch.from_numpy(own) @ centers(found).T).square())
    both = zip(centers(clusters), clusters, strict=True)
    kept = sum((np.einsum("c,mcs->ms", center, filters[members]) ** 2).sum() for center, members in both)
    assert error_of(weight, 4) < 0.999 * ((filters**2).sum() - kept)


@pytest.mark.parametrize("seed", range(4))
def test_no_filter_would_be_better_off_in_another_cluster_of_the_same_size(seed):
    weight = random(40, 3, 3, 3, seed=seed)
    clusters, color, _ = monochromatic(weight, 4)
    unit = (color / color.norm(dim=1, keepdim=True)).numpy()
    kept = np.square(np.einsum("kc,ncs->kns", unit, weight.flatten(2).numpy())).sum(2)
    for one, first in enumerate(clusters.tolist()):
        for other, second in enumerate(clusters.tolist()):
            gain = kept[other][first][:, None] - kept[one][first][:, None] + kept[one][second] - kept[other][second]
            assert gain.max() < 1e-9, "two filters of these clusters would rather change places"


def test_dead_filters_have_no_color_and_break_nothing():
    weight = random(8, 3, 3, 3)
    weight[2:6] = 0
    assert np.isfinite(error_of(weight, 2)) and error_of(torch.zeros(8, 3, 3, 3), 4) == 0


# Layers


OPTIONS = [
    {}, {"stride": (2, 3), "padding": (1, 2)}, {"dilation": (2, 1), "padding": (4, 0), "bias": False},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_three_layers_in_sequence_equal_one_with_the_rebuilt_filters(options):
    torch.manual_seed(3)
    layer = nn.Conv2d(3, 12, (3, 5), **options).double()
    form = MonochromaticFilters(colors=4).compress_layer("x", layer)
    assert form.ranks == (4,) and isinstance(form.third, Reordered)
    weight = torch.from_numpy(rebuilt(form))
    torch.testing.assert_close(form.dense(), weight)
    assert (layer.weight - weight).square().sum().item() == pytest.approx(error_of(layer.weight.detach(), 4))
    x = random(2, 3, 13, 17)
    geometry = (layer.stride, layer.padding, layer.dilation)
    torch.testing.assert_close(form(x), nn.functional.conv2d(x, weight, layer.bias, *geometry))


def colored() -> nn.Module:
    return ce.build("vgg(size=16, channels=3, width=0.25)", seed=2).eval()


def test_only_the_first_layer_is_taken_unless_others_are_asked_for():
    small = MonochromaticFilters(colors=2)(colored())
    assert [name for name, layer in small.named_modules() if isinstance(layer, Factored)] == ["features.conv1_1"]
    assert small.features.conv1_1.free_numbers() == 2 * 3 + 8 * 9
    every = MonochromaticFilters(colors={"*conv1_1": 4, "*conv2*": 8}, layers="conv")(colored())
    ranks = {name: layer.ranks for name, layer in every.named_modules() if isinstance(layer, Factored)}
    assert ranks == {"features.conv1_1": (4,), "features.conv2_1": (8,), "features.conv2_2": (8,)}


def test_the_first_layer_of_a_network_for_gray_images_is_left_alone_by_name():
    with pytest.raises(CompressionError, match=r"nothing.*conv1: has one input channel, so that all its filters see"):
        MonochromaticFilters()(ce.build("lenet5"))
    small = MonochromaticFilters(colors=2, layers="all")(ce.build("lenet5"))
    reasons = {skipped.layer: skipped.reason for skipped in compression_of(small).skipped}
    assert reasons.keys() == {"conv1", "fc1", "fc2"} and "linear layer" in reasons["fc1"]


def test_colors_that_do_not_divide_the_filters_or_save_nothing_are_refused_with_those_that_do():
    def refusal(layer, colors):
        with pytest.raises(CompressionError) as caught:
            MonochromaticFilters(colors=colors)(nn.Sequential(layer))
        return str(caught.value)

    divided = "0: its 12 filters do not divide into 5 clusters of equal size; choose colors from 1, 2, 3, 4, 6, 12"
    assert divided in refusal(nn.Conv2d(3, 12, 3), 5)
    larger = "4 colors make 16 weights instead of 16; choose colors from 1, 2"
    assert larger in refusal(nn.Conv2d(2, 4, (1, 2)), 4)
    assert "no number of colors saves anything here" in refusal(nn.Conv2d(2, 1, (2, 1)), 3)
    assert "is a 1x1 convolution" in refusal(nn.Conv2d(4, 12, 1), 2)
    assert "is a convolution in 3 groups" in refusal(nn.Conv2d(3, 12, 3, groups=3), 4)


def test_the_second_time_names_every_layer():
    once = MonochromaticFilters(colors=2)(colored())
    with pytest.raises(CompressionError, match=r"first\.third|conv1_1\.third.*already compressed \(Reordered\)"):
        MonochromaticFilters(colors=2)(once)


def test_half_precision_is_clustered_in_double_and_stays_half():
    form = MonochromaticFilters(colors=4).compress_layer("x", nn.Conv2d(3, 8, 3).half())
    assert {factor.weight.dtype for factor in form.factors} == {torch.float16}


def test_training_moves_colors_and_filters():
    model = MonochromaticFilters(colors=2)(colored())
    form = model.features.conv1_1
    form(torch.randn(2, 3, 8, 8)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in form.parameters())
