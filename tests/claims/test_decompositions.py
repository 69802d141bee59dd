"""Claims D7 and D7b: every decomposition is done once a call, at a quarter of the weights; cancellation is measured."""

import math
from itertools import pairwise

import pytest
import torch

from compedu.claims.judgment import judge
from compedu.claims.store import Run
from compedu.claims.survey import decomposition_cost as cost
from compedu.claims.survey import decomposition_effort as effort
from compedu.claims.survey.decomposition_cost import AGAIN, EPOCH, EPOCHS, SECONDS, Kernel
from compedu.claims.survey.decomposition_cost import DECOMPOSITION_COST as COST
from compedu.claims.survey.decomposition_effort import CANCELS, WORST
from compedu.claims.survey.decomposition_effort import DECOMPOSITION_EFFORT as EFFORT
from compedu.claims.survey.shared.decompositions import CP, DECOMPOSITIONS, SVD, TUCKER
from compedu.claims.verdict import Verdict
from compedu.forms import Geometry
from compedu.methods.low_rank.shared.polyadic import cancellation, decomposed, recomposed
from compedu.methods.low_rank.shared.svd import _decomposed

# D7: decomposition is costly


@pytest.mark.parametrize("name", DECOMPOSITIONS)
@pytest.mark.parametrize("channels", [8, 20, 64])
def test_every_decomposition_keeps_at_most_a_quarter_and_no_larger_rank_would(name, channels):
    method, geometry = DECOMPOSITIONS[name], Kernel(channels).geometry
    ranks = cost.quarter(method, geometry)
    more = tuple(rank + 1 for rank in ranks)
    assert method.numbers(geometry, ranks) <= channels**2 * 9 / 4 < method.numbers(geometry, more)


@pytest.mark.parametrize("name", DECOMPOSITIONS)
def test_a_call_decomposes_and_does_not_look_the_result_up(name):
    method, geometry = DECOMPOSITIONS[name], Kernel(8).geometry
    call = cost.decomposing(method, geometry, seed=1)
    hits = _decomposed.cache_info().hits
    results = [call(), call()]
    assert _decomposed.cache_info().hits == hits
    assert not torch.equal(results[0][0], results[1][0])
    first = torch.randn(geometry.shape, generator=torch.Generator().manual_seed(1))
    for made, expected in zip(results[0], method.factors(first, cost.quarter(method, geometry)), strict=True):
        torch.testing.assert_close(made, expected)


def test_times_are_told_in_epochs(monkeypatch):
    """A made-up clock: the 640 images take 2 seconds, so an epoch of 8,000 takes 25."""
    taken = {EPOCH: 2.0, AGAIN: 2.2, SVD: 1.0, TUCKER: 5.0, CP: 50.0}

    def timed(arms, budget_s, seed, clock, rounds, warm_up):
        assert set(arms) == set(taken) and (rounds, warm_up) == (3, 1) and clock is cost.time.thread_time
        return {name: [seconds] * 3 for name, seconds in taken.items()}

    monkeypatch.setattr(cost, "time_rounds", timed)
    monkeypatch.setattr(cost, "training", lambda seed: None)
    found = cost.compute(Kernel(8), 0)
    assert found.of(EPOCH, SECONDS) == pytest.approx(25) and found.of(AGAIN, EPOCHS) == pytest.approx(1.1)
    for name in DECOMPOSITIONS:
        assert found.of(name, EPOCHS) == pytest.approx(taken[name] / 25) and found.of(name, SECONDS) == taken[name]


def test_the_epoch_is_training_on_a_part_of_the_images(monkeypatch):
    seen = []
    monkeypatch.setattr(cost, "fit", lambda model, data, recipe: seen.append((len(data.x_train), recipe.epochs)))
    cost.training(0)()
    assert seen == [(cost.TIMED, 1)] and len(cost.glyphs(cost.IMAGES, 2000).x_train) == cost.IMAGES


def timed(again=1.0, **epochs):
    epochs = {SVD: 0.02, TUCKER: 0.1, CP: 0.7} | epochs
    runs = []
    for seed in range(4):
        noise = (1.0, 1.02, 0.98, 1.01)[seed]
        outcomes = {name: {EPOCHS: value * noise} for name, value in epochs.items()} | {AGAIN: {EPOCHS: again * noise}}
        runs += [Run(name, seed, outcomes) for name in ("one", "other")]
    return runs


@pytest.mark.parametrize("given, verdict", [
    ({}, Verdict.SPLIT), ({CP: 0.4}, Verdict.REFUTED), ({SVD: 0.6, TUCKER: 0.6}, Verdict.CONFIRMED),
    ({"again": 1.4}, Verdict.UNDECIDED), ({"again": 0.7}, Verdict.UNDECIDED),
])  # fmt: skip
def test_the_kernels_of_all_sizes_together_are_judged_for_each_decomposition(given, verdict):
    found = judge(cost.parts(timed(**given)), "tendency")
    assert found.verdict == verdict, found.parts
    assert sum(one.part.role == "verdict" for one in found.parts) == len(DECOMPOSITIONS)


def test_what_one_size_takes_is_a_finding():
    effects = {one.part.name: one.effect.mean for one in judge(cost.parts(timed()), "tendency").parts}
    assert effects[f"{CP}, one alone"] == pytest.approx(0.7, rel=0.02)
    assert effects[f"{CP} takes more than an epoch"] == pytest.approx(1.4, rel=0.02)


# D7b: decomposition is not easily implemented


def test_cancellation_is_that_of_the_terms_written_out():
    torch.manual_seed(0)
    factors = [torch.randn(1, size, 3, dtype=torch.float64) for size in (4, 5, 2)]
    terms = [torch.einsum("i,j,k->ijk", *(factor[0, :, r] for factor in factors)) for r in range(3)]
    expected = sum(term.square().sum() for term in terms) / sum(terms).square().sum()
    assert cancellation(factors) == pytest.approx(float(expected))
    torch.testing.assert_close(recomposed(factors)[0], sum(terms))


def test_a_tensor_without_a_closest_one_of_its_rank_makes_terms_cancel_out():
    """a a b + a b a + b a a has rank 3, but is a limit of tensors of rank 2 (de Silva, Lim 2008)."""
    a, b = torch.eye(2, dtype=torch.float64)
    tensor = sum(torch.einsum("i,j,k->ijk", *one) for one in ((a, a, b), (a, b, a), (b, a, a)))
    assert cancellation(decomposed(tensor[None], 2)) > 4
    orthogonal = torch.einsum("i,j,k->ijk", a, a, a) + torch.einsum("i,j,k->ijk", b, b, b)
    assert cancellation(decomposed(orthogonal[None], 2)) == pytest.approx(1, abs=1e-3)


def test_starts_are_compared_with_the_best_of_them(monkeypatch):
    torch.manual_seed(0)
    weight = torch.randn(12, 10, 3, 3)
    seeds, original = [], effort.decomposed

    def watched(tensor, rank, seed):
        seeds.append(seed)
        return original(tensor, rank, seed)

    monkeypatch.setattr(effort, "decomposed", watched)
    found = effort.from_starts(weight, 4, seed=2)
    assert len(set(seeds)) == 4 and min(b - a for a, b in pairwise(seeds)) >= 4
    (rank,) = cost.quarter(DECOMPOSITIONS[CP], Geometry("conv2d", (12, 10, 3, 3), *[(1, 1)] * 3))
    made = [original(weight.double()[None], rank, seed) for seed in seeds]
    errors = [float((weight - recomposed(one)[0]).norm() / weight.norm()) for one in made]
    assert found[effort.BEST] == pytest.approx(100 * min(errors))
    assert found[WORST] == pytest.approx(100 * (max(errors) / min(errors) - 1))
    assert found[effort.ABOVE] == pytest.approx(100 * (sum(errors) / 4 / min(errors) - 1))
    logs = [math.log(cancellation(one)) for one in made]
    assert found[CANCELS] == pytest.approx(math.exp(sum(logs) / 4))


def test_the_proxy_decides_nothing_and_tells_its_parts_apart():
    runs = [
        Run(
            "one", seed, {"a": {WORST: 1 + seed / 10, CANCELS: 9.0 + seed}, "b": {WORST: 0.5, CANCELS: 1.2 + seed / 50}}
        )
        for seed in range(4)
    ]
    found = judge(effort.parts(runs), EFFORT.form)
    assert found.verdict == Verdict.PROXY
    assert [one.verdict for one in found.parts] == [Verdict.REFUTED, Verdict.CONFIRMED, Verdict.REFUTED]


# The shipped runs


def test_the_shipped_runs_show_which_decomposition_is_costly():
    found = {one.part.name: one.verdict for one in COST.judge(COST.stored(full=True)).parts}
    assert [found[f"{arm} takes more than an epoch"] for arm in (SVD, TUCKER, CP)] == [
        Verdict.REFUTED, Verdict.REFUTED, Verdict.CONFIRMED,
    ]  # fmt: skip
    for run in (*COST.stored(), *COST.stored(full=True)):
        assert run.of(SVD, SECONDS) < run.of(TUCKER, SECONDS) < run.of(CP, SECONDS)


def test_the_shipped_starts_end_alike_with_terms_that_cancel_out():
    for run in (*EFFORT.stored(), *EFFORT.stored(full=True)):
        for measured in run.outcomes.values():
            assert measured[effort.FAR] == 0 and measured[CANCELS] > 2
