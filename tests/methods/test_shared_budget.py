"""One budget for all layers: the shares against brute force over every choice."""

import itertools
import math

import pytest
import torch

from compedu.methods.shared_budget import Choice, next_step, shared_out


def curves(seed: int, layers: int = 3) -> dict[str, list[Choice]]:
    """Losses that fall with the bits, not evenly, of layers of different sizes."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for layer in range(layers):
        size = int(torch.randint(1, 20, (1,), generator=generator))
        losses = torch.rand(8, generator=generator).cumsum(0).flip(0).tolist()
        found[f"layer{layer}"] = [Choice(bits, bits * size, losses[bits - 1]) for bits in range(1, 9)]
    return found


def totals(chosen: tuple[Choice, ...]) -> tuple[float, float]:
    return sum(choice.cost for choice in chosen), sum(choice.loss for choice in chosen)


def hull(choices: list[Choice]) -> list[Choice]:
    """The choices below which neither a cheaper one lies nor a line between two others, by trying them all."""

    def is_beaten(one: Choice) -> bool:
        if any(other.cost <= one.cost and other.loss <= one.loss and other != one for other in choices):
            return True
        pairs = [(a, b) for a in choices for b in choices if a.cost < one.cost < b.cost]
        return any(a.loss + (b.loss - a.loss) * (one.cost - a.cost) / (b.cost - a.cost) <= one.loss for a, b in pairs)

    return [one for one in sorted(choices, key=lambda one: one.cost) if not is_beaten(one)]


@pytest.mark.parametrize("seed", range(12))
def test_where_a_step_ends_at_the_limit_no_other_shares_of_as_many_bytes_have_less_loss(seed):
    scanned = curves(seed)
    every = [totals(chosen) for chosen in itertools.product(*scanned.values())]
    ends = 0
    for limit in range(int(min(every)[0]), int(max(every)[0]) + 1):
        bits = shared_out(scanned, limit, "bytes")
        used, loss = totals(tuple(scanned[name][number - 1] for name, number in bits.items()))
        best = min(other for taken, other in every if taken <= limit)
        assert used <= limit
        ends += loss <= best + 1e-12
    steps = sum(len(hull(choices)) - 1 for choices in scanned.values())
    assert ends >= steps + 1  # the end of each step, and the start


def test_with_budget_enough_the_steps_of_a_layer_are_its_lower_convex_hull():
    for seed in range(20):
        scanned = [*curves(seed, 1)["layer0"], Choice(9, 1e9, 10.0)]
        taken = [scanned[0]]
        while (step := next_step(taken[-1], scanned, math.inf)) is not None:
            taken.append(step)
        assert taken == hull(scanned)


def test_what_the_next_step_leaves_over_goes_to_whatever_still_fits():
    scanned = {"a": [Choice(1, 10, 5.0), Choice(2, 20, 4.9), Choice(9, 100, 0.0)], "b": [Choice(1, 10, 1.0)]}
    assert shared_out(scanned, 120, "weights") == {"a": 9, "b": 1}
    assert shared_out(scanned, 50, "weights") == {"a": 2, "b": 1}
