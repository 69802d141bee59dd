"""The exercises on low rank: their figures and hints, and ranks under one budget, measured on a real network."""

import math
import re

import numpy as np
import pytest
import torch

from compedu.course import check, rank_budget
from compedu.course.answers import Elsewhere, reply
from compedu.course.low_rank import _shapes
from compedu.course.rank_budget import equal_energies, equal_fractions, layer_tables, scaled, weights
from compedu.methods.low_rank.truncated_svd import TruncatedSVD
from compedu.networks.shipped import trained
from compedu.pairs import load_data

SEEDS = (0, 2)  # in one of them conv2 is large at the first limit, in the other at the second


@pytest.mark.parametrize(
    "rank, said",
    [
        (96, "hold 36,864 numbers, the matrix 36,864. That saves nothing"),
        (94, "one rank more would still save"),
        (31, "which side of the kernel"),
    ],
)
def test_a_square_kernel_breaks_even_at_rank_96(rank, said):
    with pytest.raises(AssertionError, match=said):
        check("break_even", lambda shape: rank, seed=0)


def test_the_shapes_of_an_exercise_tell_all_mistakes_apart():
    for seed in range(20):
        shapes = list(_shapes(np.random.default_rng(seed)))
        convolutions = [shape for shape in shapes if len(shape) == 4]
        sides = [(i * h, o * w) for o, i, h, w in convolutions] + [s for s in shapes if len(s) == 2]
        assert {len(shape) for shape in shapes} == {2, 4} and [64, 64, 3, 3] in shapes
        for kind in (sides[: len(convolutions)], sides[len(convolutions) :]):
            assert any(math.prod(pair) % sum(pair) == 0 for pair in kind)
            assert any(math.prod(pair) < sum(pair) for pair in kind)
        assert {h > w for _, _, h, w in convolutions if h != w} == {True, False}


@pytest.mark.parametrize("values, share", [
    ([[1, 0, -1], [2, 0, -2], [1, 0, -1]], "100.0%"),  # Sobel
    ([[0, 1, 0], [1, -4, 1], [0, 1, 0]], "99.0%"),  # Laplacian: eigenvalues -2 +- sqrt(6), 0
    ([[1, 0, 0], [0, 1, 0], [0, 0, 0.5]], "44.4%"),
])  # fmt: skip
def test_a_filter_is_told_what_rank_one_keeps(values, share):
    try:
        said = check("hard_filter", values)
    except AssertionError as hint:
        said = str(hint)
    assert f"rank one keeps {share} of" in said and said.startswith("right") == (float(share[:-1]) <= 50)


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """Fewer images than the exercise measures on, as the answers here are far from its limits."""
    monkeypatch.setattr(rank_budget, "load_data", lambda name: load_data(name).shortened(validation=1000))


def dense_of(layer):
    return math.prod(layer["shape"])


def costs(layers, ranks):
    return sum(dense_of(layers[n]) if r is None else r * sum(layers[n]["shape"]) for n, r in ranks.items())


def as_spent(layers, ranks):
    """The layer as it is where a rank saves nothing."""
    return {n: None if r * sum(layers[n]["shape"]) >= dense_of(layers[n]) else max(1, r) for n, r in ranks.items()}


def by_energy(layers, limit, normalized=True, per_weight=True):
    """One singular value after another, the one that adds most energy for its weights first."""
    steps = []
    for name, layer in layers.items():
        energy = layer["values"].square()
        energy = energy / energy.sum() if normalized else energy
        energy = energy / sum(layer["shape"]) if per_weight else energy
        steps += [(one, name) for one in energy.tolist()]
    ranks = dict.fromkeys(layers, 0)
    for _, name in sorted(steps, reverse=True):
        more = ranks | {name: ranks[name] + 1}
        if costs(layers, as_spent(layers, more)) <= limit:
            ranks = more
    return as_spent(layers, ranks)


def by_loss(layers, limit):
    """From the dense network down, each time where a weight saved costs least loss."""
    table = {n: sorted(layer["losses"], key=lambda p: -costs(layers, {n: p[0]})) for n, layer in layers.items()}
    ranks = {name: rows.pop(0) for name, rows in table.items()}

    def price(name):
        (rank, loss), (fewer, higher) = ranks[name], table[name][0]
        return (higher - loss) / (costs(layers, {name: rank}) - costs(layers, {name: fewer}))

    while costs(layers, {name: rank for name, (rank, _) in ranks.items()}) > limit:
        name = min((name for name in table if table[name]), key=price)
        ranks[name] = table[name].pop(0)
    return {name: rank for name, (rank, _) in ranks.items()}


def upwards_by_loss(layers, limit):
    """From rank 1 up, one row of the table at a time: a rise of the loss in a table stops it."""
    table = {n: sorted(layer["losses"], key=lambda p: costs(layers, {n: p[0]})) for n, layer in layers.items()}
    at = dict.fromkeys(table, 0)
    while True:
        found = []
        for name in (name for name in table if at[name] + 1 < len(table[name])):
            more = at | {name: at[name] + 1}
            (_, loss), (_, lower) = table[name][at[name]], table[name][more[name]]
            before, after = (costs(layers, {n: table[n][i][0] for n, i in one.items()}) for one in (at, more))
            if after <= limit:
                found.append(((loss - lower) / (after - before), name))
        if not found:
            return {name: table[name][i][0] for name, i in at.items()}
        at[max(found)[1]] += 1


def largest_within(layers, limit, ranks_at):
    tried = (as_spent(layers, ranks_at(thousandth / 1000)) for thousandth in range(1, 1000))
    return max((ranks for ranks in tried if costs(layers, ranks) <= limit), key=lambda ranks: costs(layers, ranks))


def keeping(layer, share):
    energy = layer["values"].square().cumsum(0)
    return 1 + int((energy < share * energy[-1]).sum())


def equal_energy(layers, limit, as_they_are=()):
    return largest_within(layers, limit, lambda share: {
        n: 10**9 if n in as_they_are else keeping(layer, share) for n, layer in layers.items()
    })  # fmt: skip


def equal_fraction(layers, limit, as_they_are=()):
    return largest_within(layers, limit, lambda share: {
        n: 10**9 if n in as_they_are else round(share * min(layer["shape"])) for n, layer in layers.items()
    })  # fmt: skip


SMALL = ("conv1", "fc2")
WITHIN = {"conv1": None, "conv2": 20, "fc1": 9, "fc2": None}
WRONG = {
    "equal energy": ("You factor .* look further than one", equal_energy),
    "equal energy in the large layers": ("energy, .* says neither what", lambda t, m: equal_energy(t, m, SMALL)),
    "equal fractions": ("You factor conv1 and fc2, 10,500 of the 660,500 weights", equal_fraction),
    "equal fractions of the large layers": ("of the rank, says neither", lambda t, m: equal_fraction(t, m, SMALL)),
    "energies not divided by the layer's": (
        "other ranks for the network before it was scaled, .* divided by",
        lambda t, m: by_energy(t, m, normalized=False),
    ),
    "nor by its weights": (
        "other ranks for the network before it was scaled",
        lambda t, m: by_energy(t, m, normalized=False, per_weight=False),
    ),
    "from rank 1 up, held up where the loss rises": ("need not fall at every step", upwards_by_loss),
    "in the wrong layer": ("your ranks .* are right on", lambda t, m: WITHIN | {"conv2": 2, "fc1": 15}),
    "over the limit": ("take [0-9,]+ weights, and the limit is", lambda t, m: by_energy(t, int(1.1 * m))),
    "all as they are": ("and the limit is .* stays as it is", lambda t, m: dict.fromkeys(t)),
    "larger than the layer": (
        "conv2: at rank 72 its two factors have 25,200 weights, the layer itself 25,000",
        lambda t, m: WITHIN | {"conv2": 72},
    ),
    "above the full rank": ("conv1: rank 6 is above the full rank, which is 5", lambda t, m: WITHIN | {"conv1": 6}),
    "the full rank": ("conv1: at rank 5 .* 525 weights, the layer itself 500", lambda t, m: WITHIN | {"conv1": 5}),
    "rank 0": ("from 1 on, or None .*, not 0", lambda t, m: WITHIN | {"fc1": 0}),
    "a negative rank": ("from 1 on", lambda t, m: WITHIN | {"fc1": -3}),
    "a fraction": ("a whole number from 1 on", lambda t, m: WITHIN | {"fc1": 0.25}),
    "not a number": ("a whole number", lambda t, m: WITHIN | {"fc1": float("nan")}),
    "without end": ("a whole number|above", lambda t, m: WITHIN | {"fc1": float("inf")}),
    "beyond all floats": ("above the full rank", lambda t, m: WITHIN | {"fc1": 10**400}),
    "yes": ("a whole number", lambda t, m: WITHIN | {"fc1": True}),
    "a layer missing": ("all 4 ranks under the same names; missing: fc2", lambda t, m: {n: 9 for n in t if n != "fc2"}),
    "a layer too many": ("too many: fc3", lambda t, m: WITHIN | {"fc3": 2}),
    "a list": ("a dictionary of all 4 ranks by name, not a list", lambda t, m: [None, 20, 9, None]),
    "nothing": ("returns nothing", lambda t, m: None),
    "its table changed": ("changes its arguments", lambda t, m: t.popitem() and WITHIN),
    "a constant": ("your function failed with TypeError", WITHIN),
    "dots": ("still three dots", ...),
}  # fmt: skip
RIGHT = {
    "by energy for each weight": by_energy,
    "by loss for each weight saved": by_loss,
    "numbers of numpy": lambda t, m: {n: r if r is None else np.int64(r) for n, r in by_energy(t, m).items()},
    "whole floats": lambda t, m: {n: r if r is None else float(r) for n, r in by_loss(t, m).items()},
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("hint, answer", WRONG.values(), ids=WRONG)
def test_no_wrong_ranks_pass(hint, answer, seed):
    with pytest.raises(AssertionError, match=hint):
        check("rank_budget", answer, seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("answer", RIGHT.values(), ids=RIGHT)
def test_different_right_ranks_pass(answer, seed):
    assert re.match(r"right: [89].*% with .* of .* weights and 9.*%", check("rank_budget", answer, seed=seed))


def test_an_answer_in_another_process_is_given_the_same():
    given = Elsewhere(lambda question: reply(by_energy, question))
    assert check("rank_budget", given, seed=0) == check("rank_budget", by_energy, seed=0)


def test_scaling_two_layers_changes_their_singular_values_and_nothing_else():
    network = trained("lenet5", "glyphs").eval()
    x = load_data("glyphs").x_validation[:50]
    plain = layer_tables()
    for factor in (16.0, 1 / 16):
        assert torch.equal(scaled(factor).eval()(x), network(x))
        found = layer_tables(factor)
        for name, times in (("conv1", 1), ("conv2", factor), ("fc1", 1 / factor), ("fc2", 1)):
            torch.testing.assert_close(found[name]["values"], times * plain[name]["values"])
            assert found[name]["losses"] == plain[name]["losses"]


def test_a_table_holds_shapes_energies_and_losses_of_the_network():
    network, data = trained("lenet5", "glyphs").eval(), load_data("glyphs")
    tables = layer_tables()
    assert {n: layer["shape"] for n, layer in tables.items()} == {
        "conv1": [5, 100], "conv2": [100, 250], "fc1": [500, 1250], "fc2": [20, 500]
    }  # fmt: skip
    chosen = torch.linspace(0, len(data.x_train) - 1, 512).round().long()
    for name, layer in tables.items():
        weight = network.get_submodule(name).weight.detach()
        assert len(layer["values"]) == min(layer["shape"])
        assert layer["values"].square().sum().item() == pytest.approx(weight.square().sum().item(), rel=1e-4)
        rank, loss = layer["losses"][1]
        small = TruncatedSVD(rank={name: rank}, layers=name)(network)
        with torch.no_grad():
            logits = small(data.x_train[chosen])
        wanted = torch.nn.functional.cross_entropy(logits, data.y_train[chosen]).item()
        assert loss == pytest.approx(wanted, rel=1e-3)
        assert layer["losses"][-1][0] is None and layer["losses"][-1][1] < 1e-3


def test_rivals_take_as_many_weights_as_a_network_of_their_ranks_has():
    for fraction in (0.03, 0.05, 0.09):
        fair = equal_fractions(fraction)
        limit = weights(fair)
        assert fair["conv2"] == round(100 * fraction) and fair["fc1"] == round(500 * fraction)
        assert fair["conv1"] is fair["fc2"] is None
        energetic = equal_energies(limit)
        assert limit - 2000 < weights(energetic) <= limit
        for ranks in (fair, energetic):
            made = {name: rank for name, rank in ranks.items() if rank is not None}
            small = TruncatedSVD(rank=made, layers=" ".join(made))(trained("lenet5", "glyphs"))
            assert weights(ranks) == sum(p.numel() for p in small.parameters() if p.ndim > 1)
