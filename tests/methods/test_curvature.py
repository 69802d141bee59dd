"""Curvature against exact Hessians by autograd; Optimal Brain Damage and Surgeon against their quadratic model."""

import copy
import math

import laws
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call

from compedu.datasets import DATASETS
from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.evaluation import evaluate
from compedu.forms import Masked
from compedu.methods import FineTune, LinearQuantization, MagnitudePruning, OptimalBrainDamage, OptimalBrainSurgeon
from compedu.methods import curvature as module
from compedu.methods.calibration import calibration_set
from compedu.methods.curvature import CURVATURES, curvature_diagonals, directions, softmax_root
from compedu.methods.input_moments import damped
from compedu.methods.pruning import brain_surgeon
from compedu.methods.pruning.brain_damage import saliencies
from compedu.methods.pruning.shared import layer_hessians as layer_hessians_module
from compedu.methods.pruning.shared.layer_hessians import RowHessians, layer_hessians
from compedu.methods.pruning.shared.surgery import (
    damped_inverse,
    make_up_for,
    operate_on_network,
    remove_greedily,
    surgeon_saliencies,
    surgeon_update,
)  # fmt: skip
from compedu.networks.shipped import trained


class Small(nn.Module):
    """Convolutions of all kinds, batch norm, max pooling, two linear layers, in double precision."""

    def __init__(self, act=nn.ReLU):
        super().__init__()
        self.conv1, self.norm, self.act = (
            nn.Conv2d(1, 4, 3, stride=(1, 2), padding=(1, 2), bias=False), nn.BatchNorm2d(4), act(),
        )  # fmt: skip
        self.grouped = nn.Conv2d(4, 6, (3, 2), groups=2, dilation=(2, 1))
        self.depthwise, self.pool = nn.Conv2d(6, 6, 2, groups=6), nn.MaxPool2d(2)
        self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = self.act(self.norm(self.conv1(x)))
        x = self.pool(self.act(self.depthwise(self.act(self.grouped(x)))))
        return self.fc2(self.act(self.fc1(x.flatten(1))))


def small(act=nn.ReLU):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = laws.lively(Small(act)).double().eval()
    for name in LAYERS:
        model.get_submodule(name).weight.data.mul_(2)  # so that scores really differ
    return model


def images(count=7, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, size, size, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (count,), generator=generator)


LAYERS = ("conv1", "grouped", "depthwise", "fc1", "fc2")


def layers_of(model):
    return {name: model.get_submodule(name) for name in LAYERS}


def exact_diagonal(model, name, x, y):
    """The diagonal of the Hessian of the mean cross entropy for the weight of one layer, by double differentiation."""
    weight = model.get_submodule(name).weight.detach()

    def loss(w):
        return F.cross_entropy(functional_call(model, {f"{name}.weight": w.view_as(weight)}, x), y)

    return hessian(loss, weight.reshape(-1)).diagonal().view_as(weight)


def gauss_newton_diagonal(model, name, x):
    """The diagonal of the mean of J^T (diag(p) - p p^T) J, from the Jacobian by reverse differentiation."""
    weight = model.get_submodule(name).weight.detach()
    p = model(x).softmax(1).detach()
    j = jacobian(lambda w: functional_call(model, {f"{name}.weight": w}, x), weight).flatten(2)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return torch.einsum("nck,ncd,ndk->k", j, inner, j).view_as(weight) / len(x)


@pytest.mark.parametrize("name", LAYERS)
def test_gauss_newton_is_the_exact_hessian_where_the_network_is_piecewise_linear(name):
    model, (x, y) = small(), images()
    found = curvature_diagonals(model, layers_of(model), x, y, "gauss-newton")[name]
    torch.testing.assert_close(found, exact_diagonal(model, name, x, y), rtol=1e-9, atol=1e-12)
    assert found.max() > 1e-4


@pytest.mark.parametrize("name", LAYERS)
def test_gauss_newton_is_that_of_the_jacobian_where_the_network_is_curved(name):
    model, (x, y) = small(nn.Tanh), images()
    found = curvature_diagonals(model, layers_of(model), x, y, "gauss-newton")[name]
    torch.testing.assert_close(found, gauss_newton_diagonal(model, name, x), rtol=1e-9, atol=1e-12)
    exact = exact_diagonal(model, name, x, y)
    assert name == "fc2" or (found - exact).abs().max() > 0.01 * exact.abs().max()  # the scores are linear in fc2


def test_fisher_is_the_mean_square_of_the_gradients_of_single_images():
    model, (x, y) = small(), images()
    found = curvature_diagonals(model, layers_of(model), x, y, "empirical-fisher")
    for name in LAYERS:
        squares = 0
        for one, label in zip(x, y, strict=True):
            loss = F.cross_entropy(model(one[None]), label[None])
            squares = squares + torch.autograd.grad(loss, model.get_submodule(name).weight)[0].square()
        torch.testing.assert_close(found[name], squares / len(x), rtol=1e-9, atol=1e-14)


def test_sampled_labels_give_gauss_newton_on_average():
    """Exactly: the mean over all labels, weighted by what the network says, of one image's squared gradients."""
    model, (x, _) = small(), images(count=1)
    p, layers = model(x).softmax(1).detach()[0], layers_of(model)
    exact = curvature_diagonals(model, layers, x, torch.tensor([0]), "gauss-newton")
    expected = [curvature_diagonals(model, layers, x, torch.tensor([label]), "empirical-fisher") for label in range(3)]
    for name in LAYERS:
        mean = sum(p[label] * expected[label][name] for label in range(3))
        torch.testing.assert_close(mean, exact[name], rtol=1e-9, atol=1e-14)
        drawn = [
            curvature_diagonals(model, layers, x, torch.tensor([0]), "sampled-fisher", seed)[name] for seed in range(20)
        ]
        kinds = {min(range(3), key=lambda label: (one - expected[label][name]).abs().max()) for one in drawn}
        assert len(kinds) > 1  # labels really differ by seed, and each is one of the three
        assert all(min((one - e[name]).abs().max() for e in expected) < 1e-12 for one in drawn)


def test_labels_are_sampled_as_often_as_the_network_says():
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(20000, 4)
    vectors = directions(
        scores, torch.zeros(20000, dtype=torch.long), "sampled-fisher", torch.Generator().manual_seed(0)
    )[0]
    share = (vectors < 0).double().mean(0)  # p - 1 at the drawn label, p elsewhere
    assert (share - scores[0].double().softmax(0)).abs().max() < 4 * math.sqrt(0.25 / 20000)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_root_of_the_softmax_hessian(scale):
    scores = scale * torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    root, p = softmax_root(scores), scores.softmax(1)
    expected = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    torch.testing.assert_close(root @ root.mT, expected, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("kind", CURVATURES)
def test_images_that_run_in_parts_give_the_same(kind, monkeypatch):
    model, (x, y) = small(), images()
    whole = curvature_diagonals(model, layers_of(model), x, y, kind)
    if kind == "sampled-fisher":  # the stream of labels goes on from part to part
        assert torch.equal(whole["fc1"], curvature_diagonals(model, layers_of(model), x, y, kind)["fc1"])
    monkeypatch.setattr(module, "VALUES", 3 * x[0].numel())
    parts = curvature_diagonals(model, layers_of(model), x, y, kind)
    for name in LAYERS:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-10, atol=1e-14)


class Twice(nn.Module):
    """Calls a layer twice, cuts images into rows of a batch, and changes tensors in place on the way."""

    def __init__(self):
        super().__init__()
        self.rows, self.twice, self.fc = nn.Linear(8, 4), nn.Linear(4, 4), nn.Linear(8, 3)

    def forward(self, x):
        x = F.relu_(self.rows(x.flatten(1).reshape(-1, 8)))
        x = x + F.relu_(self.twice(F.relu(self.twice(x))))
        x = x.unflatten(0, (-1, 8)).mean(1)
        return self.fc(torch.cat([x, x.sin()], 1))


@pytest.mark.parametrize("name", ["rows", "twice", "fc"])
def test_layers_that_are_called_several_times_and_changed_in_place(name):
    torch.manual_seed(1)
    model, (x, y) = Twice().double(), images()
    layers = {each: model.get_submodule(each) for each in ("rows", "twice", "fc")}
    found = curvature_diagonals(model, layers, x, y, "gauss-newton")[name]
    torch.testing.assert_close(found, gauss_newton_diagonal(model, name, x), rtol=1e-9, atol=1e-12)


class Tabled(nn.Module):
    """Sends through a layer, beside the images, a table that all images share."""

    def __init__(self, rows):
        super().__init__()
        self.positions, self.fc = nn.Linear(2, 5), nn.Linear(64, 3)
        self.register_buffer("table", torch.randn(rows, 2, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return self.fc(x.flatten(1)) * F.softplus(self.positions(self.table)).sum() + self.positions(self.table)[:1, :3]


@pytest.mark.parametrize("rows", [1, 3, 7, 14])
def test_a_layer_that_reads_what_all_images_share_has_the_gradients_of_single_images(rows):
    torch.manual_seed(1)
    model, (x, y) = Tabled(rows).double(), images()  # as many images as rows, too
    layers = {name: model.get_submodule(name) for name in ("positions", "fc")}
    found = curvature_diagonals(model, layers, x, y, "gauss-newton")
    for name in layers:
        torch.testing.assert_close(found[name], gauss_newton_diagonal(model, name, x), rtol=1e-9, atol=1e-12)


def test_half_precision_is_squared_in_single_precision():
    model, (x, y) = small(), images()
    exact = curvature_diagonals(model, layers_of(model), x, y, "gauss-newton")
    half = copy.deepcopy(model).bfloat16()
    found = curvature_diagonals(half, layers_of(half), x.bfloat16(), y, "gauss-newton")
    for name in LAYERS:
        assert found[name].dtype == torch.float32
        assert (found[name] - exact[name]).abs().max() < 0.1 * exact[name].max()


def test_a_frozen_network_is_seen_as_well():
    model, (x, y) = small(), images()
    whole = curvature_diagonals(model, layers_of(model), x, y, "gauss-newton")
    frozen = copy.deepcopy(model).requires_grad_(False)
    found = curvature_diagonals(frozen, layers_of(frozen), x, y, "gauss-newton")
    assert all(torch.equal(found[name], whole[name]) for name in LAYERS)
    assert not any(layer._forward_hooks for layer in frozen.modules())


# Optimal Brain Damage


def dataset(count=24, size=8):
    x, y = images(count, size, seed=5)
    return Dataset("noise", x.float(), y, x.float(), y, x.float(), y, tuple("abc"))


def test_a_single_deletion_costs_what_the_saliency_says():
    """The rise of the loss is the quadratic model's at a minimum of the loss, for weights small enough."""
    model, (x, y) = small(), images()
    with torch.no_grad():
        y = model(x).softmax(1)  # the labels are what the network says: the gradient is zero
        model.fc1.weight.mul_(0.01)
        y = model(x).softmax(1)
    before = F.cross_entropy(model(x), y).item()
    layers = layers_of(model)
    h = curvature_diagonals(model, layers, x, y.argmax(1), "gauss-newton")["fc1"]
    expected = saliencies(model.fc1.weight.detach(), h)
    for place in expected.view(-1).topk(5).indices.tolist():
        pruned = copy.deepcopy(model)
        pruned.fc1.weight.data.view(-1)[place] = 0
        rise = F.cross_entropy(pruned(x), y).item() - before
        assert rise == pytest.approx(expected.view(-1)[place].item(), rel=0.05)


@pytest.mark.parametrize("kind", CURVATURES)
def test_the_weights_of_smallest_saliency_go(kind):
    model, data = small().float(), dataset()
    method = OptimalBrainDamage(sparsity=0.4, curvature=kind, calibration_images=12, seed=3)
    pruned = method(model, data)
    x, y = calibration_set(data, 12, 3)
    assert len(x) == 12
    for name in LAYERS:
        h = curvature_diagonals(model, layers_of(model), x, y, kind, 3)[name]
        scores = saliencies(model.get_submodule(name).weight.detach(), h)
        mask = pruned.get_submodule(name).mask
        assert int((~mask).sum()) == round(0.4 * mask.numel())
        assert scores[mask].min() >= scores[~mask].max()
    other = MagnitudePruning(sparsity=0.4)(model)
    assert any(not torch.equal(pruned.get_submodule(n).mask, other.get_submodule(n).mask) for n in LAYERS)


def test_images_are_drawn_by_the_seed_without_repetition():
    data = dataset()
    first, second = (calibration_set(data, 10, seed)[0] for seed in (0, 1))
    assert len(first.flatten(1).unique(dim=0)) == 10 and not torch.equal(first, second)
    x, y = calibration_set(data, 1000, 0)
    assert len(x.flatten(1).unique(dim=0)) == len(data.x_train)
    for one, label in zip(x, y, strict=True):
        assert label == data.y_train[(data.x_train == one).flatten(1).all(1)][0]


def test_one_search_serves_all_settings_of_the_sparsity(monkeypatch):
    from compedu.methods import curvature

    model, data, seen = small().float(), dataset(), []
    whole = curvature.directions
    monkeypatch.setattr(curvature, "directions", lambda *given: seen.append(1) or whole(*given))
    results = [OptimalBrainDamage(sparsity=sparsity)(model, data) for sparsity in (0.2, 0.5, 0.5)]
    assert len(seen) == 1 and torch.equal(results[1].fc1.mask, results[2].fc1.mask)
    with torch.no_grad():
        model.fc1.weight.mul_(2)
    OptimalBrainDamage()(model, data)
    OptimalBrainDamage()(model, data.shortened(train=12))
    OptimalBrainDamage(seed=1)(model, data)
    OptimalBrainDamage(layers="fc1")(model, data)
    assert len(seen) == 5


@pytest.mark.parametrize("cls", [OptimalBrainDamage, OptimalBrainSurgeon])
def test_a_call_measures_the_curvature_once(cls, monkeypatch):
    asked, whole = [], cls.measure
    monkeypatch.setattr(cls, "measure", lambda *given: asked.append(1) or whole(*given))
    cls()(small().float(), dataset())
    assert asked == [1]


def test_hessians_that_do_not_fit_into_memory_together_are_taken_in_portions(monkeypatch):
    model, method = small().float(), OptimalBrainSurgeon(sparsity=0.6, budget="global")
    together = method(model, dataset()).state_dict()
    asked, whole = [], OptimalBrainSurgeon.measure
    monkeypatch.setattr(OptimalBrainSurgeon, "measure", lambda *given: asked.append(len(given[2])) or whole(*given))
    monkeypatch.setattr(brain_surgeon, "AT_ONCE", 1)
    monkeypatch.setattr(brain_surgeon, "TOGETHER", 1)
    apart = method(copy.deepcopy(model), dataset()).state_dict()
    assert set(asked) == {1} and len(asked) > 2
    assert all(torch.equal(apart[name], tensor) for name, tensor in together.items())


def test_the_hessians_of_a_whole_small_network_are_kept_for_the_next_call(monkeypatch):
    model = small().float()
    asked, whole = [], OptimalBrainSurgeon.measure
    monkeypatch.setattr(OptimalBrainSurgeon, "measure", lambda *given: asked.append(1) or whole(*given))
    monkeypatch.setattr(brain_surgeon, "AT_ONCE", 1)
    for sparsity in (0.3, 0.6):
        OptimalBrainSurgeon(sparsity=sparsity)(model, dataset())
    assert asked == [1]
    model.fc1.weight.data.numpy()[0, 0] += 1  # which torch does not notice
    OptimalBrainSurgeon(sparsity=0.6)(model, dataset())
    assert asked == [1, 1]


def test_a_kept_hessian_answers_for_the_damping_that_is_asked():
    hessian = RowHessians(quadratic()[1][None], 1.0)
    weight = torch.randn(3, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    live = torch.ones(3, 12, dtype=torch.bool)
    for damping in (0.1, 0.1, 1.0):
        inverse = torch.linalg.inv(damped(hessian.inputs[0], damping)).diagonal()
        found = hessian.saliencies(weight, live, damping)
        torch.testing.assert_close(found, weight.square() / (2 * inverse), rtol=1e-8, atol=0)


def test_squared_gradients_are_the_same_whatever_fits_into_memory(monkeypatch):
    model, method = small().float(), OptimalBrainDamage(sparsity=0.6)
    together = method(model, dataset()).state_dict()
    monkeypatch.setattr(module, "GRADIENTS", 1)
    apart = method(copy.deepcopy(model), dataset()).state_dict()
    assert all(torch.equal(apart[name], tensor) for name, tensor in together.items())


def test_masked_weights_stay_away_and_the_rest_is_pruned_on():
    data = dataset()
    model = MagnitudePruning(sparsity=0.5)(small().float())
    pruned = (FineTune(epochs=1) | OptimalBrainDamage(sparsity=0.7))(model, data)
    for name in LAYERS:
        first, second = model.get_submodule(name).mask, pruned.get_submodule(name).mask
        assert not (second & ~first).any() and int((~second).sum()) == round(0.7 * second.numel())


class Idle(nn.Module):
    """Has a layer that only training uses, as an auxiliary head."""

    def __init__(self):
        super().__init__()
        self.fc, self.spare, self.head = nn.Linear(64, 6), nn.Linear(64, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = x.flatten(1)
        return self.head(F.relu(self.fc(x) + (self.spare(x) if self.training else 0)))


def test_layers_that_no_image_reaches_and_other_forms_are_named():
    pruned = OptimalBrainDamage()(Idle(), dataset())
    reasons = {s.layer: s.reason for s in pruned.compression.skipped}
    assert "no training image reaches it" in reasons["spare"] and isinstance(pruned.spare, nn.Linear)
    assert isinstance(pruned.fc, Masked)
    for budget in ("uniform", "global"):
        with pytest.raises(CompressionError, match="spare: no training image reaches it"):
            OptimalBrainDamage(layers="spare", budget=budget)(Idle(), dataset())
    coded = OptimalBrainDamage()(LinearQuantization(layers="fc")(Idle()), dataset())
    assert "already compressed (Quantized)" in " ".join(s.reason for s in coded.compression.skipped)


@pytest.mark.parametrize("budget", ["global", "lamp", "erdos-renyi", "sensitivity"])
def test_budgets_share_the_saliencies_out(budget):
    pruned = OptimalBrainDamage(sparsity=0.6, budget=budget, calibration_images=16)(laws.plain(), laws.data())
    masks = torch.cat([pruned.get_submodule(name).mask.view(-1) for name in ("conv1", "conv2", "fc1", "fc2")])
    assert int((~masks).sum()) == pytest.approx(0.6 * len(masks), abs=3)


# Optimal Brain Surgeon: the quadratic model


def quadratic(n=12, seed=0, samples=40):
    generator = torch.Generator().manual_seed(seed)
    rows = (
        torch.randn(samples, n, generator=generator, dtype=torch.float64)
        @ torch.randn(n, n, generator=generator, dtype=torch.float64)
    )  # fmt: skip
    return rows, rows.T @ rows / samples, torch.randn(n, generator=generator, dtype=torch.float64)


def rise(hessian, dw):
    return (dw @ hessian @ dw / 2).item()


def test_each_removal_costs_what_the_saliency_says_and_never_more_than_plain_deletion():
    _, hessian, w = quadratic()
    inverse = torch.linalg.inv(hessian)
    for q, saliency in enumerate(surgeon_saliencies(w, inverse).tolist()):
        dw = surgeon_update(w, inverse, q)
        assert abs((w + dw)[q]) < 1e-12 and rise(hessian, dw) == pytest.approx(saliency, rel=1e-9)
        deletion = torch.zeros_like(w)
        deletion[q] = -w[q]
        assert rise(hessian, deletion) == pytest.approx(saliencies(w, hessian.diagonal())[q].item())
        assert saliency < rise(hessian, deletion)
        others = torch.arange(len(w)) != q
        # nothing else that deletes q is cheaper: its gradient along the others is zero
        torch.testing.assert_close(
            (hessian @ dw)[others], torch.zeros(len(w) - 1, dtype=torch.float64), rtol=0, atol=1e-9
        )


def test_each_row_is_made_up_for_by_its_own_kept_weights_however_many_these_are():
    _, hessian, w = quadratic()
    rows = torch.stack([w, 2 * w, w.flip(0), w, w])
    kept = torch.arange(12) < torch.tensor([[2], [10], [6], [12], [0]])  # fewer, more, as many as missing, all, none
    made = make_up_for(rows, hessian, kept)
    assert not made[~kept].any() and torch.equal(made[3], w)
    for row, changed, live in zip(rows, made, kept, strict=True):
        # the rise grows in no direction that the kept weights can go
        slope = (hessian @ (changed - row))[live]
        torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-9)


@pytest.mark.parametrize("count", [0, 1, 7, 12])
def test_greedy_removal_in_blocks_is_the_naive_loop(count, monkeypatch):
    from compedu.methods.pruning.shared import surgery

    monkeypatch.setattr(surgery, "BLOCK", 3)
    _, hessian, w = quadratic()
    inverse = damped_inverse(hessian, 0.01)
    left, kept = remove_greedily(w, inverse, count)
    slow, alive = w.clone(), torch.ones(12, dtype=torch.bool)
    for _ in range(count):
        within = torch.linalg.inv(damped(hessian, 0.01)[alive][:, alive])  # from the beginning, each time
        q = int(surgeon_saliencies(slow[alive], within).argmin())
        slow[alive] += surgeon_update(slow[alive], within, q)
        place = alive.nonzero()[q]
        slow[place], alive[place] = 0, False
    assert torch.equal(kept, alive) and int(kept.sum()) == 12 - count and not left[~kept].any()
    torch.testing.assert_close(left, slow, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(make_up_for(w[None], damped(hessian, 0.01), kept[None])[0], slow, rtol=1e-8, atol=1e-9)


# Optimal Brain Surgeon: the Hessians


def exact_hessian(model, name, x, y):
    weight = model.get_submodule(name).weight.detach()

    def loss(w):
        return F.cross_entropy(functional_call(model, {f"{name}.weight": w.view_as(weight)}, x), y)

    return hessian(loss, weight.reshape(-1))


@pytest.mark.parametrize("name", LAYERS)
def test_the_whole_hessian_of_a_layer_is_the_exact_one(name):
    """A network of ReLU is piecewise linear in all weights of one layer together."""
    model, (x, y) = small(), images()
    found = layer_hessians(model, layers_of(model), x, y)[name]
    torch.testing.assert_close(found.matrix, exact_hessian(model, name, x, y), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["conv1", "grouped", "fc1"])
def test_the_hessian_of_rows_is_that_of_what_the_layer_reads(name, monkeypatch):
    monkeypatch.setattr(layer_hessians_module, "WHOLE", 0)
    model, (x, y) = small(), images()
    found, seen = layer_hessians(model, layers_of(model), x, y)[name], []
    layer = model.get_submodule(name)
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    model(x)
    hook.remove()
    groups = getattr(layer, "groups", 1)
    for group in range(groups):  # dw^T A dw is the mean square of what the layer's outputs change by
        change = torch.zeros_like(layer.weight)
        rows = slice(group * len(change) // groups, (group + 1) * len(change) // groups)
        change[rows] = torch.randn(change[rows].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        moved = copy.deepcopy(layer)
        moved.weight.data, moved.bias = change, None
        effect = moved(seen[0])[:, rows].square().sum() / (seen[0].shape[0] * math.prod(moved(seen[0]).shape[2:]))
        own = change[rows].flatten(1)
        assert torch.einsum("ri,ij,rj->", own, found.inputs[group], own).item() == pytest.approx(
            effect.item(), rel=1e-9
        )


@pytest.mark.parametrize("name", ["conv1", "grouped", "fc1"])
def test_the_scale_of_rows_is_that_of_the_exact_hessian(name, monkeypatch):
    """No label is sampled: with these the scale of a layer depended on a few images that the network is not sure of."""
    monkeypatch.setattr(layer_hessians_module, "WHOLE", 0)
    model, (x, y) = small(), images()
    whole = layer_hessians(model, layers_of(model), x, y)[name]
    rows = model.get_submodule(name).weight.shape[0] // len(whole.inputs)
    trace = whole.scale * rows * whole.inputs.diagonal(dim1=1, dim2=2).sum().item()
    assert trace == pytest.approx(exact_hessian(model, name, x, y).trace().item(), rel=1e-9) and trace > 0
    monkeypatch.setattr(module, "VALUES", 2 * x[0].numel())  # two images at once, and the last one alone
    parts = layer_hessians(model, layers_of(model), x, y)[name]
    torch.testing.assert_close(parts.inputs, whole.inputs, rtol=1e-12, atol=1e-14)
    assert parts.scale == pytest.approx(whole.scale, rel=1e-12)


def test_surgery_beats_damage_on_the_loss_of_the_images_it_saw():
    model, data = trained("lenet300", "digits"), DATASETS["digits"]()

    def loss(method):
        return evaluate(method(model, data), data, "train").loss

    damage = loss(OptimalBrainDamage(sparsity=0.7, calibration_images=256))
    assert (
        loss(OptimalBrainSurgeon(sparsity=0.7, calibration_images=256))
        < 0.2 * damage
        < loss(MagnitudePruning(sparsity=0.7))
    )


@pytest.mark.parametrize("whole", [0, 1000])
def test_surgery_leaves_as_many_weights_as_asked_at_the_least_rise(whole, monkeypatch):
    monkeypatch.setattr(layer_hessians_module, "WHOLE", whole)
    model, data = small().float(), dataset()
    method = OptimalBrainSurgeon(sparsity=0.4, calibration_images=24, layers="-depthwise")
    pruned = method(model, data)
    x, y = calibration_set(data, 24, 0)
    found = layer_hessians(model, {n: model.get_submodule(n) for n in LAYERS if n != "depthwise"}, x, y)
    for name, measured in found.items():
        form, before = pruned.get_submodule(name), model.get_submodule(name).weight.detach().double()
        assert int((~form.mask).sum()) == round(0.4 * form.mask.numel()) and not form.weight[~form.mask].any()
        dw = form.dense().detach().double() - before
        if whole:  # the rest is where the quadratic model wants it, given the mask
            slope = (damped(measured.matrix, 0.01) @ dw.view(-1))[form.mask.view(-1)]
            assert slope.abs().max() < 1e-4 * (damped(measured.matrix, 0.01).diagonal() * before.view(-1).abs()).max()
        else:
            rows = dw.reshape(len(measured.inputs), -1, measured.inputs.shape[-1])
            for group, matrix in enumerate(measured.inputs):
                slope = (rows[group] @ damped(matrix, 0.01))[form.mask.reshape(rows.shape)[group]]
                assert slope.abs().max() < 1e-4 * (matrix.diagonal().mean() * before.abs().max())


def test_surgery_goes_on_from_a_mask_and_names_what_it_cannot_do(monkeypatch):
    data, model = dataset(), MagnitudePruning(sparsity=0.5)(small().float())
    pruned = OptimalBrainSurgeon(sparsity=0.7, layers="-depthwise")(model, data)
    for name in ("conv1", "fc1", "fc2"):
        first, second = model.get_submodule(name).mask, pruned.get_submodule(name).mask
        assert not (second & ~first).any() and int((~second).sum()) == round(0.7 * second.numel())
    assert (
        "no training image reaches it"
        in {s.layer: s.reason for s in OptimalBrainSurgeon()(Idle(), data).compression.skipped}["spare"]
    )
    monkeypatch.setattr(layer_hessians_module, "WHOLE", 0)
    monkeypatch.setattr(layer_hessians_module, "LONGEST", 20)
    with pytest.raises(CompressionError, match="fc, spare: has more than 2048 weights per output"):
        OptimalBrainSurgeon(layers="fc,spare")(Idle(), data)
    silent = small().float()
    silent.fc2.weight.data.zero_()
    with pytest.raises(CompressionError, match="fc1: on these images the loss does not depend on it"):
        OptimalBrainSurgeon(layers="fc1")(silent, data)


@pytest.mark.parametrize("whole", [1024, 0])
def test_surgery_names_a_layer_of_which_only_weights_without_curvature_are_left(whole, monkeypatch):
    monkeypatch.setattr(layer_hessians_module, "WHOLE", whole)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3))
    x, y = images(24, seed=5)
    x[:, :, :2] = 0  # nothing is seen in the two upper rows, and weights of these alone are left
    data = Dataset("noise", x.float(), y, x.float(), y, x.float(), y, tuple("abc"))
    model[1].weight.data[:, :16] += 10
    masked = MagnitudePruning(sparsity=0.75, layers="1")(model)
    assert masked[1].mask[:, :16].all() and not masked[1].mask[:, 16:].any()
    pruned = OptimalBrainSurgeon(sparsity=0.8)(masked, data)
    flat = "on these images the loss does not depend on it, so no curvature can guide the surgery"
    assert {s.layer: s.reason for s in pruned.compression.skipped}["1"] == flat
    assert torch.equal(pruned[1].mask, masked[1].mask)


def test_the_whole_network_loses_all_weights_one_by_one():
    _, _, w = quadratic(n=5)
    x = torch.randn(30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    path = list(operate_on_network(lambda weights: x @ weights, w, 1e-12))  # linear: the quadratic model is exact
    assert [int(kept.sum()) for _, kept in path] == [4, 3, 2, 1, 0]
    for weights, kept in path:
        assert not weights[~kept].any()
        best = torch.zeros(5, dtype=torch.float64)
        best[kept] = torch.linalg.lstsq(x[:, kept], x @ w).solution if kept.any() else best[kept]
        torch.testing.assert_close(weights, best, rtol=1e-6, atol=1e-8)
