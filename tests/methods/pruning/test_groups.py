"""Groups of weights: the block step against its closed form and a solver, what a group is, networks without groups."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from structures import Network, conv
from torch import nn

import compedu as ce
from compedu.datasets import DATASETS
from compedu.errors import CompressionError
from compedu.evaluation import evaluate
from compedu.explorers.figures.pictures.pruning import pruned_filters
from compedu.explorers.figures.pictures.pruning.left_weights import left_weights
from compedu.explorers.view import View
from compedu.files import load, save
from compedu.forms import Geometry, Masked, weight_of
from compedu.graph import INPUT, OUTPUT, Member, bypassed_layers, find_channels
from compedu.methods import FilterPruning, FineTune, LinearQuantization, MagnitudePruning, StructuredSparsity
from compedu.methods.layers import compressible
from compedu.methods.pruning.shared.channel_removal import taken_out_first
from compedu.methods.pruning.shared.group_lasso import block_soft_threshold, group_lasso, group_norms, root_mean_squares
from compedu.methods.pruning.shared.weight_groups import (
    Groups,
    channel_groups,
    channel_labels,
    column_labels,
    labeled_groups,
    layer_labels,
)  # fmt: skip
from compedu.methods.pruning.structured_sparsity import weakest
from compedu.networks import build
from compedu.training import listening

LAYERS = ("conv1", "conv2", "fc1", "fc2")


def few(train=640):
    return ce.load_data("digits").shortened(train=train, validation=200, test=8)


def large(train=64):
    return DATASETS["digits"](size=32).shortened(train=train, validation=32, test=8)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reasons(model):
    return {s.layer: s.reason for s in model.compression.skipped}


def loud(model):
    """Batch norms far from the identity, so that nothing hides behind them."""
    for norm in [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.bias, -0.5, 0.5, torch.Generator().manual_seed(0))
        nn.init.uniform_(norm.running_mean, -0.5, 0.5, torch.Generator().manual_seed(1))
    return model.eval()


# The formulas


@pytest.fixture
def rows():
    """Two groups that span two layers, and weights in none."""
    weights = {"a": drawn(3, 4), "b": drawn(2, 5, seed=1)}
    labels = {"a": torch.tensor([[0], [1], [-1]]), "b": torch.tensor([[1], [0]])}
    return weights, Groups.of(labels, {name: tuple(weight.shape) for name, weight in weights.items()}, 2)


def by_hand(weights):
    """The weights of both groups as vectors."""
    a, b = weights["a"], weights["b"]
    return [torch.cat([a[0], b[1]]), torch.cat([a[1], b[0]])]


def test_norms_and_penalty_by_hand(rows):
    weights, groups = rows
    parts = by_hand(weights)
    assert groups.sizes.tolist() == [9, 9]
    torch.testing.assert_close(group_norms(weights, groups), torch.stack([part.norm() for part in parts]))
    torch.testing.assert_close(root_mean_squares(weights, groups), torch.stack([part.norm() / 3 for part in parts]))
    assert group_lasso(weights, groups).item() == pytest.approx(sum(3 * part.norm().item() for part in parts), rel=1e-6)


def test_the_gradient_of_the_penalty_is_the_direction_and_zero_at_zero(rows):
    weights, groups = rows
    weights = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    weights["a"].data[0], weights["b"].data[1] = 0, 0
    group_lasso(weights, groups).backward()
    part = by_hand(weights)[1].detach()
    torch.testing.assert_close(weights["a"].grad[1], 3 * part[:4] / part.norm())
    assert not weights["a"].grad[[0, 2]].any() and not weights["b"].grad[1].any()


def test_the_block_soft_threshold_is_its_closed_form(rows):
    weights, groups = rows
    weights["b"][1] *= 0.01
    weights["a"][0] *= 0.01
    shrunk = block_soft_threshold(weights, groups, 0.1)
    weak, strong = by_hand(weights)
    assert not torch.cat([shrunk["a"][0], shrunk["b"][1]]).any() and weak.norm() < 0.3
    torch.testing.assert_close(by_hand(shrunk)[1], strong * (1 - 0.3 / strong.norm()))
    assert torch.equal(shrunk["a"][2], weights["a"][2])
    assert all(torch.equal(same, weights[name]) for name, same in block_soft_threshold(weights, groups, 0.0).items())


def test_a_group_that_is_zero_stays_zero_without_any_nan(rows):
    weights, groups = rows
    silent = block_soft_threshold({name: torch.zeros_like(weight) for name, weight in weights.items()}, groups, 0.1)
    assert all(torch.equal(weight, torch.zeros_like(weight)) for weight in silent.values())


def test_single_weights_as_groups_give_the_soft_threshold():
    weight = drawn(4, 3)
    groups = Groups.of({"a": torch.arange(12).view(4, 3)}, {"a": (4, 3)}, 12)
    torch.testing.assert_close(
        block_soft_threshold({"a": weight}, groups, 0.5)["a"], nn.functional.softshrink(weight, 0.5)
    )


@pytest.mark.parametrize("amount", [0.05, 0.2])
def test_the_block_soft_threshold_minimizes_the_proximal_objective(rows, amount):
    weights, groups = rows
    vector = torch.cat([weights["a"].flatten(), weights["b"].flatten()])

    def objective(v):
        v = torch.tensor(v, requires_grad=True)
        parts = {"a": v[:12].view(3, 4), "b": v[12:].view(2, 5)}
        value = (v - vector).square().sum() / 2 + amount * sum(3 * part.norm() for part in by_hand(parts))
        value.backward()
        return value.item(), v.grad.numpy()

    found = minimize(objective, vector.numpy(), jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-10}).x
    ours = block_soft_threshold(weights, groups, amount)
    np.testing.assert_allclose(torch.cat([ours["a"].flatten(), ours["b"].flatten()]).numpy(), found, atol=1e-5)


def test_the_weakest_of_each_layer_or_of_all_by_hand():
    scores = [torch.tensor([3.0, 1, 2, 4]), torch.tensor([0.1, 0.0, 0.0, 0.3])]
    assert weakest(scores, 0.25, "uniform") == [[1], [1, 2]]
    assert weakest(scores, 0.375, "global") == [[], [1, 2, 0]]
    assert weakest(scores, 0.5, "global") == [[1], [1, 2, 0]]
    with pytest.raises(ValueError, match="only 6 can go"):
        weakest(scores, 0.9, "global")


# What a group is


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_columns_are_those_of_the_im2col_matrix(groups):
    layer = nn.Conv2d(8, 16, 3, groups=groups)
    label = column_labels(Geometry.of(layer)).expand(layer.weight.shape)
    x = drawn(1, 8, 3, 3)  # one output position: the unfolded input is a single vector of 72 numbers
    for number in (0, 5, int(label.max())):
        weight = torch.where(label == number, layer.weight, 0.0).double()
        hit = nn.functional.conv2d(x, weight, groups=groups)
        place = x.flatten()[number]
        rows = weight.flatten(1).abs().sum(1) > 0
        assert int(rows.sum()) == 16 // groups
        torch.testing.assert_close(hit.flatten(), place * weight.flatten(1).sum(1))
    assert torch.bincount(label.flatten()).tolist() == [16 // groups] * 72


def test_columns_and_whole_layers_share_out_all_weights():
    layers = {name: Geometry.of(build("lenet5").get_submodule(name)) for name in LAYERS}
    for make in (column_labels, layer_labels):
        groups, counts = labeled_groups({name: make(geometry) for name, geometry in layers.items()}, layers)
        assert groups.sizes.sum() == sum(math.prod(geometry.shape) for geometry in layers.values())
        assert sum(counts) == groups.count and bool((groups.sizes > 0).all())
        seen = [set(groups.labels[name].flatten().tolist()) for name in LAYERS]
        assert not any(a & b for a, b in itertools.pairwise(seen)) and set().union(*seen) == set(range(groups.count))


@pytest.mark.parametrize("side, first, untouched", [(OUTPUT, "conv1", "fc2"), (INPUT, "conv2", "conv1")])
def test_filters_and_channels_share_out_the_weights_of_the_layers_that_they_belong_to(side, first, untouched):
    model = build("lenet5")
    found = find_channels(model, torch.randn(1, 1, 28, 28)).groups
    layers = {name: Geometry.of(model.get_submodule(name)) for name in LAYERS}
    groups = channel_groups(found, layers, side)
    assert groups.labels.keys() == set(LAYERS) - {untouched} and groups.count == 20 + 50 + 500
    assert all(bool((label >= 0).all()) for label in groups.labels.values())
    assert groups.sizes.sum() == sum(math.prod(layers[name].shape) for name in groups.labels)
    weight = weight_of(model.get_submodule(first)).detach()
    ours = group_norms({name: weight_of(model.get_submodule(name)).detach() for name in groups.labels}, groups)[:20]
    torch.testing.assert_close(
        ours, weight.transpose(0, 1).flatten(1).norm(dim=1) if side == INPUT else weight.flatten(1).norm(dim=1)
    )


def test_layers_that_are_added_are_one_group_and_depthwise_filters_belong_to_it():
    model = build("resnet(blocks=1)")
    found = find_channels(model, torch.randn(1, 1, 32, 32)).groups
    layers = {
        name: Geometry.of(layer) for name, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))
    }
    groups = channel_groups(found, layers, OUTPUT)
    assert torch.equal(groups.labels["conv"], groups.labels["stage1.0.conv2"])
    assert groups.sizes[groups.labels["conv"].flatten()].tolist() == [9 + 144] * 16
    mobile = build("mobilenet")
    found = find_channels(mobile, torch.randn(1, 1, 32, 32)).groups
    layers = {
        name: Geometry.of(layer) for name, layer in mobile.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))
    }
    depthwise = [name for name, geometry in layers.items() if geometry.groups > 1]
    assert depthwise and set(depthwise) <= channel_groups(found, layers, OUTPUT).labels.keys()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_channels_of_a_grouped_convolution_are_read_where_they_are_read(groups):
    layer = nn.Conv2d(8, 12, 3, groups=groups, bias=False)
    label = channel_labels(Member("", "consumer", torch.arange(8)), Geometry.of(layer)).expand(layer.weight.shape)
    for channel in range(8):
        x = torch.zeros(1, 8, 3, 3)
        x[:, channel] = 1.0
        alone = nn.functional.conv2d(x, torch.where(label == channel, layer.weight, 0.0), groups=groups)
        torch.testing.assert_close(alone, layer(x))  # all that reads this channel
        assert not nn.functional.conv2d(1 - x, torch.where(label == channel, layer.weight, 0.0), groups=groups).any()


# Networks without groups


def silenced(model, images, method):
    """The trained network with the removed channels silent, and the one without them."""
    states = []
    with listening(lambda step: states.append(copy.deepcopy(step.model.state_dict()))):
        smaller = method(model, images)
    trained = copy.deepcopy(model)
    trained.load_state_dict(states[-1])
    removal = {removed.group: removed.channels for removed in smaller.compression.removed}
    assert removal
    return find_channels(model, images.example), trained.eval(), smaller, removal


@pytest.mark.parametrize("groups", ["filters", "channels"])
@pytest.mark.parametrize("spec", ["lenet5", "vgg(width=0.25)", "resnet(blocks=1)"])
def test_the_smaller_network_is_the_one_with_the_groups_silent(spec, groups):
    images = few(64) if spec == "lenet5" else large()
    method = StructuredSparsity(groups=groups, epochs=1, sparsity=0.4)
    channels, trained, smaller, removal = silenced(loud(build(spec)), images, method)
    x = images.x_validation[:4].double()
    with torch.no_grad():
        torch.testing.assert_close(
            smaller.double()(x), channels.zero(trained, removal).double()(x), rtol=1e-9, atol=1e-10
        )
    assert sum(map(len, removal.values())) >= 0.35 * sum(g.size for g in channels.groups if g.name in removal)


def test_channels_that_nothing_reads_leave_without_a_trace():
    """The columns of the readers alone are enough: what makes the channels may be as loud as it likes."""
    _channels, trained, smaller, removal = silenced(
        ce.trained("lenet5", "digits"), few(64), StructuredSparsity(groups="channels", epochs=1, sparsity=0.4)
    )
    readers = {"conv1": "conv2", "conv2": "fc1", "fc1": "fc2"}
    for name, gone in removal.items():
        weight = trained.get_submodule(readers[name]).weight.data
        width = 16 if name == "conv2" else 1
        for channel in gone:
            weight[:, channel * width : (channel + 1) * width] = 0
    x = few(64).x_validation.double()
    with torch.no_grad():
        torch.testing.assert_close(smaller.double()(x), trained.double()(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("budget", ["uniform", "global"])
@pytest.mark.parametrize("groups", ["filters", "channels", "shapes"])
def test_the_fraction_of_the_groups_goes(groups, budget):
    result = StructuredSparsity(groups=groups, budget=budget, sparsity=0.5, epochs=1, strength=0.0)(
        ce.trained("lenet5", "digits"), few(64)
    )
    if groups == "shapes":
        kept = [int(result.get_submodule(name).mask.any(0).sum()) for name in LAYERS]
        whole = [25, 500, 800, 500]
    else:
        kept, whole = [len(weight_of(result.get_submodule(name))) for name in LAYERS[:3]], [20, 50, 500]
    assert sum(kept) == math.ceil(sum(whole) / 2)
    assert (budget == "global") != (kept == [math.ceil(n / 2) for n in whole])


def test_masks_of_columns_are_the_same_in_all_filters():
    result = StructuredSparsity(groups="shapes", sparsity=0.4, epochs=1)(ce.trained("lenet5", "digits"), few(64))
    for name in LAYERS:
        layer = result.get_submodule(name)
        assert isinstance(layer, Masked) and torch.equal(layer.mask, layer.mask[:1].expand_as(layer.mask))
        assert not layer.weight[~layer.mask].any()
    again = FineTune(epochs=1)(result, few(64))
    assert torch.equal(again.conv2.dense() != 0, result.conv2.mask)


@pytest.mark.parametrize("groups", ["filters", "channels", "shapes"])
def test_proximal_steps_make_whole_groups_zero_and_these_go_beyond_the_sparsity(groups):
    images, model = few(), ce.trained("lenet5", "digits")
    options = {"groups": groups, "sparsity": 0.0, "epochs": 8, "lr": 2e-3}
    sharp = StructuredSparsity(strength=0.6, **options)(model, images)
    blunt = StructuredSparsity(step="subgradient", strength=1e-3, **options)(model, images)
    left = {
        made: sum(int((weight_of(made.get_submodule(name)) != 0).sum()) for name in LAYERS)
        for made in (model, sharp, blunt)
    }
    assert left[sharp] < 0.9 * left[model] and left[blunt] == left[model], left.values()


@pytest.mark.parametrize("groups", ["filters", "channels", "shapes"])
def test_a_penalty_that_leaves_nothing_is_refused_by_name(groups):
    with pytest.raises(
        CompressionError, match=rf"StructuredSparsity\(.*left nothing in .*made all {groups} zero; lower the strength"
    ):
        StructuredSparsity(groups=groups, strength=1e4, epochs=1)(ce.trained("lenet5", "digits"), few(64))


@pytest.mark.parametrize("groups, removed", [
    ("filters", "569 of 570"), ("channels", "569 of 570"), ("shapes", "1823 of 1825"),
])  # fmt: skip
def test_too_much_of_a_common_ranking_is_refused_by_name_before_training(groups, removed):
    steps, method = [], StructuredSparsity(groups=groups, sparsity=0.999, budget="global", epochs=1)
    refused = pytest.raises(
        CompressionError, match=rf"StructuredSparsity\(.*would remove {removed}.*lower the sparsity"
    )
    with listening(steps.append), refused:
        method(ce.trained("lenet5", "digits"), few(64))
    assert steps == []


def test_layers_that_stay_are_named_with_the_reason():
    model, images = build("resnet(blocks=1)"), large()
    kept = reasons(StructuredSparsity(layers="-stage1.0.conv2", epochs=1)(model, images))
    assert kept["conv"] == "its channels go with those of stage1.0.conv2, which may not change"
    assert kept["fc"] == "its channels are the network's output" and "not selected" in kept["stage1.0.conv2"]
    kept = reasons(StructuredSparsity(groups="channels", epochs=1)(model, images))
    assert kept == {"conv": "it reads no channels that can be removed"}
    kept = reasons(StructuredSparsity(budget="global", epochs=1, sparsity=0.1)(ce.trained("lenet5", "digits"), few(64)))
    assert kept["conv1"] == "keeps all its filters: those of other layers score lower"
    kept = reasons(StructuredSparsity(epochs=1)(MagnitudePruning(layers="conv2")(build("lenet5")), few(64)))
    assert "already compressed (Masked)" in kept["conv2"]


@pytest.mark.parametrize("groups", ["filters", "channels", "shapes"])
@pytest.mark.parametrize("spec", ["lenet5", "mobilenet(width=0.25)"])
def test_the_picture_knows_which_weights_are_left(spec, groups):
    model, images = build(spec), few(64) if spec == "lenet5" else large()
    result = StructuredSparsity(groups=groups, epochs=1, sparsity=0.4)(model, images)
    view = View(images, "validation", None, model, StructuredSparsity(), after=result)
    for name, layer in compressible(model)[0].items():
        left, after = left_weights(view, name), result.get_submodule(name)
        assert left.shape == layer.weight.shape
        kept = after.mask.sum() if isinstance(after, Masked) else after.weight.numel()
        assert left.sum() == kept < layer.weight.numel(), name
    assert left_weights(View(images, "validation", None, model, StructuredSparsity(), after=model), name) is None


@pytest.mark.parametrize("again", [FilterPruning(sparsity=0.5), FilterPruning(sparsity=0.4)])
def test_the_pictures_show_what_the_first_step_took_as_later_ones_count_in_a_smaller_network(again):
    model, step = build("lenet5"), FilterPruning(sparsity=0.5)
    once, twice = step(model), again(step(model))
    assert taken_out_first(twice) == taken_out_first(once) and len(twice.compression.removed) == 6
    assert [len(gone) for gone in taken_out_first(once).values()] == [10, 25, 250] and taken_out_first(model) == {}
    for name in ("conv1", "conv2", "fc1"):
        first, both = (View(few(64), "validation", None, model, step, after=after) for after in (once, twice))
        assert pruned_filters.gone(first, name).tolist() == pruned_filters.gone(both, name).tolist()
        assert torch.equal(left_weights(first, name), left_weights(both, name))


# Depth


def test_in_a_residual_network_the_last_layer_of_each_branch_can_go_and_no_other():
    assert bypassed_layers(build("resnet")) == {f"stage{s}.{b}.conv2" for s in (1, 2, 3) for b in range(3)}
    assert bypassed_layers(build("vgg")) == set() == bypassed_layers(build("lenet5"))


def added(**layers):
    return lambda forward: bypassed_layers(Network(forward, **layers))


def test_what_a_shortcut_leads_around():
    three = added(a=conv(3, 3), b=conv(3, 3), norm=nn.BatchNorm2d(3))
    assert three(lambda net, x: x + net.norm(net.b(net.a(x).relu()))) == {"b"}
    assert three(lambda net, x: net.a(x).add_(x)) == {"a"}
    assert three(lambda net, x: torch.add(net.a(x), net.b(net.a(x)))) == {"b"}  # a is called twice
    assert three(lambda net, x: net.a(x) + net.b(x)) == set()  # two paths of equal depth: neither is the shortcut
    assert three(lambda net, x: (x + net.a(x)) + net.b(x)) == {"a", "b"}
    assert three(lambda net, x: net.a(x) + 1) == set() == three(lambda net, x: net.a(x) * x)
    assert three(lambda net, x: x + net.a(x).relu()) == set()
    assert three(lambda net, x: x + net.norm(net.a(x)).sigmoid() * net.b(x)) == set()
    assert three(lambda net, x: (lambda y: y + y)(net.a(x))) == set()
    assert three(lambda net, x: (lambda y: x + y + net.b(y))(net.a(x))) == {"b"}  # a is read twice


def test_a_constant_is_no_other_path():
    class Placed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.place = conv(3, 3), nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return self.a(x) + self.place

    assert bypassed_layers(Placed()) == set()


def test_a_network_without_a_branch_runs_and_is_the_one_without_its_convolution(tmp_path):
    model, images = loud(build("resnet(blocks=2)")), large()
    states = []
    with listening(lambda step: states.append(copy.deepcopy(step.model.state_dict()))):
        result = StructuredSparsity(groups="layers", sparsity=0.5, epochs=1)(model, images)
    gone = {name for name in bypassed_layers(model) if not result.get_submodule(name).mask.any()}
    assert len(gone) == 3 and all(result.get_submodule(name).mask.all() for name in bypassed_layers(model) - gone)
    trained = copy.deepcopy(model)
    trained.load_state_dict({name: value for name, value in states[-1].items() if not name.endswith("mask")})
    for name in gone:

        class Nothing(nn.Module):
            def forward(self, x):  # these layers leave the shape as it is
                return torch.zeros_like(x)

        block, _, last = name.rpartition(".")
        setattr(trained.get_submodule(block), last, Nothing())
    x = images.x_validation.double()
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(result).double()(x), trained.eval().double()(x), rtol=1e-9, atol=1e-10)
        assert save(result, tmp_path / "model.ce") < 0.7 * save(model, tmp_path / "dense.ce")
        assert torch.equal(load(tmp_path / "model.ce")(images.x_validation), result(images.x_validation))
    report = ce.measure(result, images, speed=False)
    assert report.file_bytes == (tmp_path / "model.ce").stat().st_size
    assert reasons(result)["conv"] == "no shortcut leads around it" == reasons(result)["stage2.0.shortcut.0"]


def test_layers_that_are_gone_already_are_named_by_later_steps():
    step = StructuredSparsity(groups="layers", sparsity=0.5, epochs=1)
    once = step(loud(build("resnet(blocks=2)")), few(64))
    gone = {name for name, layer in once.named_modules() if isinstance(layer, Masked) and not layer.mask.any()}
    twice, pruned = step(once, few(64)), MagnitudePruning(sparsity=0.5)(once)
    assert len(gone) == 3
    assert sum(not layer.mask.any() for layer in twice.modules() if isinstance(layer, Masked)) == 3 + 1  # 1 of 3 left
    for result in (twice, pruned):
        told = {
            name
            for name, reason in reasons(result).items()
            if reason == "has no weight left: an earlier step emptied it"
        }
        assert told == gone and not any(result.get_submodule(name).mask.any() for name in gone)


def test_without_any_shortcut_depth_is_refused_by_name():
    with pytest.raises(
        CompressionError, match=r"found nothing to compress: conv1, conv2, fc1, fc2: no shortcut leads around it"
    ):
        StructuredSparsity(groups="layers", epochs=1)(build("lenet5"), few(64))


def test_steps_after_it_take_what_is_left():
    short = StructuredSparsity(epochs=1) | FineTune(epochs=1) | LinearQuantization(bits=8)
    assert evaluate(short(ce.trained("lenet5", "digits"), few()), few()).correct > 120


# What the course stages


def test_groups_that_were_pulled_to_zero_are_missed_less():
    model, images = ce.load("lenet5", "digits")
    right = {}
    for strength in (0.0, 1e-3):
        method = StructuredSparsity(groups="shapes", step="subgradient", strength=strength, sparsity=0.6, epochs=8)
        right[strength] = evaluate(method(model, images), images).correct
    assert right[1e-3] > right[0.0] + 40, right
