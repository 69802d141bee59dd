"""Pruning since the survey: movement, hard concrete, tickets; each by hand, and what each is good for."""

import copy
import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

import compedu as ce
from compedu.draws import drawing
from compedu.errors import Cancelled, CompressionError
from compedu.evaluation import evaluate
from compedu.forms import Geometry, Masked
from compedu.methods import HardConcretePruning, LotteryTicket, MovementPruning
from compedu.methods.pruning.hard_concrete import Gated, hard_concrete, open_probability, settled
from compedu.methods.pruning.lottery_ticket import rewind_to
from compedu.methods.pruning.movement import Moving
from compedu.methods.pruning.shared.schedules import cubic_sparsity
from compedu.networks import build
from compedu.training import Recipe, counted, fit, listening

LAYERS = ("conv1", "conv2", "fc1", "fc2")


def few(train=640):
    return ce.load_data("digits").shortened(train=train, validation=200, test=8)


def masked(weight, mask=None):
    """A linear layer without bias, of a weight given as lists, behind a mask that keeps all unless one is given."""
    weight = torch.tensor(weight)
    mask = torch.ones_like(weight, dtype=torch.bool) if mask is None else torch.tensor(mask)
    return Masked(Geometry("linear", tuple(weight.shape)), weight, mask, None)


# Movement pruning


def test_scores_move_by_the_straight_through_gradient_of_the_mask_also_where_the_mask_is_zero():
    draw = torch.Generator().manual_seed(0)
    layer = Moving(masked(torch.randn(3, 4, generator=draw).tolist()))
    layer.mask[:, 1::2] = False  # their weights are remembered: a mask that a schedule has set
    x, y = torch.randn(5, 4, generator=draw), torch.tensor([0, 1, 2, 0, 1])
    m = layer.mask.float().requires_grad_()  # a mask of real numbers has an ordinary gradient
    loss = nn.functional.cross_entropy(x @ (layer.latent.detach() * m).T, y)
    (expected,) = torch.autograd.grad(loss, m)
    for times in (1, 2):  # scores are a sum over the steps
        nn.functional.cross_entropy(layer(x), y).backward()
        torch.testing.assert_close(layer.scores, -times * expected)
    assert expected[~layer.mask].abs().min() > 0 and not layer.latent.grad[~layer.mask].any()


def test_a_weight_that_moves_towards_zero_goes_before_a_smaller_one_that_grows():
    layer = Moving(masked([[1.0, 0.1]]))
    optimizer = torch.optim.SGD([layer.latent], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        wanted = torch.tensor([[0.0], [1.0]])
        ((layer(torch.eye(2)) - wanted) ** 2).mean().backward()
        optimizer.step()
    shrinking, growing = layer.latent[0].tolist()
    assert shrinking > growing and layer.scores[0, 0] < 0 < layer.scores[0, 1]


def watched(method, model, data):
    """The masks of the network after every step, and the result."""
    masks = []
    with listening(lambda step: masks.append({name: step.model.get_submodule(name).mask.clone() for name in LAYERS})):
        return masks, method(model, data)


@pytest.mark.parametrize("budget", ["uniform", "global"])
def test_movement_keeps_the_highest_scores_along_the_cubic_curve_and_weights_come_back(budget):
    method = MovementPruning(epochs=4, every=5, ramp=0.5, sparsity=0.8, budget=budget)
    masks, result = watched(method, ce.trained("lenet5", "digits"), few())
    left = [sum(int(m.sum()) for m in one.values()) / sum(m.numel() for m in one.values()) for one in masks]
    for step, share in enumerate(left, start=1):
        reached = step - step % 5 if step < 20 else 20
        assert 1 - share == pytest.approx(cubic_sparsity(0.8, reached / 20), abs=1e-3)
    steps = list(itertools.pairwise(masks))
    assert sum(int((after[name] & ~before[name]).sum()) for before, after in steps for name in LAYERS) > 0
    for name in LAYERS:
        layer = result.get_submodule(name)
        assert type(layer) is Masked and torch.equal(layer.mask, masks[-1][name])
        assert not layer.weight[~layer.mask].any() and "scores" not in layer.state_dict()


def test_the_kept_weights_are_those_of_the_highest_scores():
    seen = []

    def look(step):
        layer = step.model.fc1
        seen.append((layer.scores.clone(), layer.mask.clone()))

    with listening(look):
        MovementPruning(epochs=1, every=3, ramp=1.0, sparsity=0.7)(ce.trained("lenet5", "digits"), few(320))
    (scores, mask), (earlier, _) = seen[-1], seen[-2]
    assert len(seen) == 5 and int((~mask).sum()) == round(0.7 * mask.numel())
    assert scores[mask].min() >= scores[~mask].max() and not torch.equal(scores, earlier)


def test_what_was_pruned_before_stays_pruned():
    before = ce.MagnitudePruning(sparsity=0.6)(ce.trained("lenet5", "digits"), None)
    after = MovementPruning(epochs=1, sparsity=0.8)(before, few(128))
    for name in LAYERS:
        assert not (after.get_submodule(name).mask & ~before.get_submodule(name).mask).any()
        assert after.get_submodule(name).mask.float().mean().item() == pytest.approx(0.2, abs=2e-3)


def test_a_movement_by_layer_names_the_others_and_one_number_is_needed_for_global():
    result = MovementPruning(epochs=1, sparsity={"fc*": 0.9})(ce.trained("lenet5", "digits"), few(64))
    assert [s.layer for s in result.compression.skipped] == ["conv1", "conv2"] and not isinstance(result.conv1, Masked)
    assert result.fc1.mask.float().mean().item() == pytest.approx(0.1, abs=1e-3)
    with pytest.raises(ValueError, match="MovementPruning.sparsity must be one number when budget is 'global'"):
        MovementPruning(sparsity={"fc*": 0.9}, budget="global")


def test_a_movement_that_empties_a_layer_is_refused_by_name():
    with pytest.raises(CompressionError, match="would leave no weight in fc2"):
        MovementPruning(epochs=1, sparsity={"fc2": 0.9999})(ce.trained("lenet5", "digits"), few(64))


# Lottery tickets


SPEC = "lenet5(size=28, width=0.4)"


def states(method, data, model=None):
    """The state of the network after every step of all trainings, and the result."""
    found = []
    with listening(lambda step: found.append({name: value.clone() for name, value in step.model.state_dict().items()})):
        return found, method(build(SPEC, seed=9) if model is None else model, data)


def test_one_round_is_training_pruning_and_training_again_from_the_first_weights():
    data, recipe = few(128), Recipe(epochs=2, lr=2e-3, shift=1, seed=4)
    result = LotteryTicket(rounds=1, epochs=2, sparsity=0.9, seed=4)(build(SPEC, seed=9), data)
    model = build(SPEC, seed=4)
    fit(model, data, recipe)
    pruned = ce.MagnitudePruning(sparsity=0.9)(model, None)
    masks = {name: pruned.get_submodule(name).mask for name in LAYERS}
    again = build(SPEC, seed=4)
    for name, mask in masks.items():
        again.get_submodule(name).weight.data.mul_(mask)
        again.get_submodule(name).weight.register_hook(lambda gradient, mask=mask: gradient * mask)
    fit(again, data, recipe)
    for name in LAYERS:
        assert torch.equal(result.get_submodule(name).dense(), again.get_submodule(name).weight)
        assert torch.equal(result.get_submodule(name).bias, again.get_submodule(name).bias)


def test_rounds_take_equal_shares_and_watchers_see_one_training():
    seen, method = [], LotteryTicket(rounds=3, epochs=2, sparsity=0.9)
    with listening(lambda step: seen.append((step.done, step.steps, step.model.fc1.mask.float().mean().item()))):
        method(build(SPEC), few(128))
    assert [done for done, *_ in seen] == list(range(1, 17)) and {steps for _, steps, _ in seen} == {4 * 4}
    for (_, _, left), done in zip(seen, [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4, strict=True):
        assert left == pytest.approx(0.1 ** (done / 3), abs=1e-3)


def test_the_control_has_the_same_mask_and_other_weights_to_start_from():
    data, given = few(128), {"epochs": 1, "lr": 1e-12, "sparsity": 0.8}  # so slow that a start is seen in the end
    rewound, redrawn = (LotteryTicket(start=start, **given)(build(SPEC), data) for start in ("rewound", "redrawn"))
    first = build(SPEC, seed=0)
    for name in LAYERS:
        a, b = (made.get_submodule(name) for made in (rewound, redrawn))
        assert torch.equal(a.mask, b.mask)
        torch.testing.assert_close(a.weight, first.get_submodule(name).weight * a.mask, rtol=0, atol=1e-7)
        assert (a.weight - b.weight)[a.mask].abs().min() > 0 and not b.weight[~b.mask].any()


def test_weights_are_rewound_to_an_early_step_with_all_that_belongs_to_them():
    network = "vgg(size=28, width=0.1)"  # it has batch norms
    method = LotteryTicket(rounds=2, epochs=2, sparsity=0.5, rewind=0.25)
    found, _ = states(method, few(256), build(network, seed=9))
    early = found[1]  # a quarter of 8 steps
    model = build(network)
    model = LotteryTicket(rounds=1, epochs=1)(model, few(64))  # any with masked layers
    masks = {name: value.clone() for name, value in model.state_dict().items() if name.endswith("mask")}
    rewind_to(model, early)
    for name, value in model.state_dict().items():
        mask = masks.get(name.removesuffix(".weight") + ".mask", 1)
        assert torch.equal(value, masks[name] if name in masks else early[name] * mask), name
    assert any("running_mean" in name for name in early)
    for name in [name for name in early if name.endswith(".bias")]:
        for start in (8, 16):  # the first step of each round moves at most by the learning rate from the rewound state
            before, after = ((found[step][name] - early[name]).abs().max() for step in (start - 1, start))
            assert after < 2.1e-3 < before


def test_kept_weights_are_iterative_pruning_from_scratch():
    found, _ = states(LotteryTicket(rounds=2, epochs=2, sparsity=0.5, start="kept"), few(128))
    for start in (4, 8):
        mask = found[start]["fc1.mask"]
        moved = (found[start]["fc1.weight"] - found[start - 1]["fc1.weight"])[mask].abs().max()
        assert 0 < moved < 2.1e-3


def test_a_network_that_cannot_be_built_anew_is_refused_with_the_names_of_its_layers():
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(CompressionError, match=r"LotteryTicket\(\).*1: the network does not say how it is built"):
        LotteryTicket()(model, few(64))


def test_a_part_of_a_training_is_counted_for_those_who_watch():
    seen, data = [], few(64)
    with counted(5, 9):
        fit(build(SPEC), data, Recipe(epochs=1))  # nobody watches
    with listening(lambda step: seen.append((step.done, step.steps))):
        with counted(5, 9):
            fit(build(SPEC), data, Recipe(epochs=2))
        fit(build(SPEC), data, Recipe(epochs=1))
    assert seen == [(6, 9), (7, 9), (1, 1)]


# Hard-concrete pruning


GRID = torch.tensor([-4.0, -2.0, -0.5, 0.0, 1.0, 3.0])


def gated(rows=2, seed=0, start=0.9):
    return Gated(masked(torch.randn(rows, 4, generator=torch.Generator().manual_seed(1)).tolist()), start, seed)


def test_gates_are_shut_open_and_between_as_often_as_the_formulas_say():
    count = 100_000
    u = torch.rand(count, 1, generator=torch.Generator().manual_seed(0))
    z = hard_concrete(GRID.expand(count, -1), u)
    spread = 5 * 0.5 / count**0.5
    assert z.min() == 0 and z.max() == 1
    torch.testing.assert_close((z > 0).float().mean(0), open_probability(GRID), rtol=0, atol=spread)
    for place in (0.0, 0.25, 0.5, 0.75):  # the distribution of a binary concrete variable, stretched
        s = (place + 0.1) / 1.2
        below = torch.sigmoid((math.log(s) - math.log(1 - s)) * 2 / 3 - GRID)
        torch.testing.assert_close((z <= place).float().mean(0), below, rtol=0, atol=spread)
    open_in_full = torch.sigmoid(GRID - 2 / 3 * math.log(11))
    torch.testing.assert_close((z == 1).float().mean(0), open_in_full, rtol=0, atol=spread)


def test_settled_gates_by_hand():
    log_alpha = torch.logit(torch.tensor([0.5, 1 / 12, 0.05, 11 / 12, 0.99, 2 / 3]))
    torch.testing.assert_close(settled(log_alpha), torch.tensor([0.5, 0.0, 0.0, 1.0, 1.0, 0.7]))


def test_the_penalty_counts_open_gates_of_weights_that_are_there_and_its_gradient_is_that_of_the_sigmoid():
    layer = gated()
    layer.mask[0, 0] = False
    layer.log_alpha.data.copy_(torch.linspace(-3, 3, 8).view(2, 4))
    layer.expected().backward()
    p = 1 / (1 + torch.exp(-torch.linspace(-3, 3, 8).view(2, 4) - 2 / 3 * math.log(11)))
    torch.testing.assert_close(layer.expected(), p.reshape(-1)[1:].sum())
    expected = p * (1 - p)
    expected[0, 0] = 0
    torch.testing.assert_close(layer.log_alpha.grad, expected)


def test_gates_begin_with_the_share_that_start_says():
    for start in (0.5, 0.9, 0.99):
        torch.testing.assert_close(gated(start=start).expected(), torch.tensor(8 * start))


def test_a_gated_layer_draws_anew_in_each_step_by_its_seed_and_is_settled_otherwise():
    layer, x = gated().train(), torch.eye(4)

    def at(step, layer):
        with drawing(step):
            return layer(x)

    assert torch.equal(at(0, layer), at(0, gated().train())) and not torch.equal(at(0, layer), at(1, layer))
    assert not torch.equal(at(0, gated(seed=1).train()), at(0, layer))
    torch.testing.assert_close(at(0, layer.eval()), x @ (layer.latent * settled(layer.log_alpha)).T)


def test_gates_move_at_a_rate_of_their_own_and_weights_at_that_of_the_recipe():
    layers = []

    def look(step):
        if not layers:
            layers.extend(copy.deepcopy(layer) for layer in step.model.modules() if isinstance(layer, Gated))

    with listening(look):
        HardConcretePruning(epochs=1, lr=1e-3, start=0.9)(build(SPEC), few(64))
    start = math.log(0.9 / 0.1) + 2 / 3 * math.log(0.1 / 1.1)
    moved = torch.cat([(layer.log_alpha.detach() - start).abs().flatten() for layer in layers])
    assert moved.max() == pytest.approx(0.3, rel=1e-3)  # AdamW's first step is as long as the learning rate


def test_an_interrupted_training_of_gates_ends_with_the_same_bits(tmp_path):
    data, results = few(64), []

    def network():
        model = build("lenet300(size=28, width=0.1)")
        layer = Gated(masked(model.fc1.weight.tolist()), start=0.9, seed=3)
        return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), nn.Linear(30, 10))

    def stop(step):
        if step.done == 3:
            raise Cancelled

    for interrupted in (False, True):
        torch.manual_seed(0)
        model, path, recipe = network(), tmp_path / str(interrupted), Recipe(epochs=3, batch=32)
        head = model[3].state_dict()
        if interrupted:
            with pytest.raises(Cancelled), listening(stop):
                fit(model, data, recipe, resume=path)
            model = network()
            model[3].load_state_dict(head)
        fit(model, data, recipe, resume=path)
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*results)


def test_the_result_is_the_settled_network_as_plain_masked_layers():
    seen = {}
    data = few(320)

    def look(step):
        seen.update({name: step.model.get_submodule(name).eval().dense().detach().clone() for name in LAYERS})
        step.model.train()

    before = ce.MagnitudePruning(sparsity=0.3)(ce.trained("lenet5", "digits"), None)
    with listening(look):
        result = HardConcretePruning(epochs=12, strength=3.0, batch=32, lr=2e-3)(before, data)
    for name in LAYERS:
        layer = result.get_submodule(name)
        assert type(layer) is Masked and torch.equal(layer.dense(), seen[name])
        assert not (layer.mask & ~before.get_submodule(name).mask).any() and bool(layer.dense()[layer.mask].ne(0).all())
        assert layer.mask.float().mean() < 0.69


def test_a_layer_of_which_all_gates_shut_is_named_with_what_to_do():
    with pytest.raises(CompressionError, match=r"closed every gate of conv1 \(shape .*lower the strength, or exclude"):
        HardConcretePruning(epochs=5, strength=1e9, lr=3e-3)(ce.trained("lenet5", "digits"), few(640))


# What they are good for


def accuracy(method, model, data):
    return evaluate(method(model, data), data).correct / len(data.y_validation)


def test_a_ticket_is_worth_more_than_its_mask_with_weights_drawn_anew():
    data, given = ce.load_data("digits"), {"sparsity": 0.98, "budget": "global", "rounds": 2, "epochs": 6}
    model = ce.trained("lenet300", "digits")
    found = {start: accuracy(LotteryTicket(start=start, **given), model, data) for start in ("rewound", "redrawn")}
    print(found)
    assert found["rewound"] > found["redrawn"] + 0.03


def test_the_price_of_gates_decides_how_many_weights_are_left():
    model, data = ce.load("lenet300", "digits")
    left, right = [], []
    for strength in (0.1, 1.0, 10.0):
        result = HardConcretePruning(strength=strength, epochs=6, lr=2e-3)(model, data)
        masks = [layer.mask for layer in result.modules() if isinstance(layer, Masked)]
        left.append(sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks))
        right.append(evaluate(result, data).correct / 397)
    print(left, right)
    assert left[0] > left[1] + 0.1 and left[1] > left[2] + 0.1 and left[2] < 0.15 and min(right) > 0.94


# Short number formats


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_draws_have_the_format_of_the_gates_and_lie_between_0_and_1(dtype):
    layer = Gated(masked(torch.ones(100, 100).tolist()), 0.9, seed=0).to(dtype)
    drawn = torch.stack([layer.draws.uniform((100, 100), dtype) for _ in range(20)])
    assert drawn.dtype == dtype and 0 < drawn.min() < 0.01 and 0.99 < drawn.max() < 1
    assert layer.train().dense().dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_movement_chooses_within_the_mask_in_any_format(dtype):
    layer = Moving(masked([[1.0, 2.0, 3.0, 4.0]], [[True, True, True, False]])).to(dtype)
    layer.scores.copy_(torch.tensor([[-3.0, -1.0, -2.0, 5.0]]))
    MovementPruning(sparsity=0.5).prune(None, {"a": layer}, lambda final: final)
    assert layer.mask.tolist() == [[False, True, True, False]]


@pytest.mark.parametrize("method", [MovementPruning(epochs=1, sparsity=0.5), HardConcretePruning(epochs=1)])
def test_networks_in_a_short_format_are_trained_and_stay_in_it(method):
    data, dtype = few(64), torch.bfloat16
    parts = {f"x_{part}": getattr(data, f"x_{part}").to(dtype) for part in ("train", "validation", "test")}
    result = method(ce.trained("lenet5", "digits").to(dtype), dataclasses.replace(data, **parts))
    for name in LAYERS:
        layer = result.get_submodule(name)
        assert layer.dense().dtype == dtype and layer.mask.any() and torch.isfinite(layer.dense()).all()
