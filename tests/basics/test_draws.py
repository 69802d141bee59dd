"""Draws of a forward pass in training: by seed and step alone, right in distribution, off in evaluation."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from compedu.datasets.digits import digits
from compedu.draws import Draws, drawing
from compedu.errors import Cancelled, CompressionError
from compedu.reproducible import seeded
from compedu.training import Recipe, fit, listening

DATA = digits(size=8).shortened(train=64, validation=8, test=8)
SHAPE = (4, 5)


def at(step, seed=0):
    with drawing(step):
        return Draws(seed).uniform(SHAPE)


def test_numbers_depend_on_seed_step_and_place_in_the_step_alone():
    torch.manual_seed(1)
    first = at(0)
    torch.rand(7)  # whatever else is drawn
    assert torch.equal(at(0), first)
    with drawing(0):
        source = Draws(0)
        found = [source.uniform(SHAPE), source.uniform(SHAPE)]
    assert torch.equal(found[0], first)
    others = [*found[1:], at(1), at(0, seed=1), at(1, seed=-1), at(0, seed=2**40)]
    assert not any(torch.equal(one, first) for one in others)
    assert len({tuple(one.flatten().tolist()) for one in others}) == len(others)


def test_draws_of_neighboring_seeds_and_steps_are_independent():
    rows = np.stack([at(step, seed).flatten().numpy() for seed in range(40) for step in range(40)])
    assert stats.kstest(rows.flatten(), "uniform").pvalue > 0.001
    correlation = np.corrcoef(rows)
    spread = 1 / np.sqrt(rows.shape[1])
    assert abs(correlation[np.triu_indices(len(rows), 1)].std() - spread) < 0.05 * spread


def test_the_stream_of_torch_stays_where_it_is_in_a_step_and_is_drawn_from_outside_of_one():
    before = torch.random.get_rng_state()
    at(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    with seeded(5):
        first = Draws(0).normal(SHAPE)
    with seeded(5):
        assert torch.equal(Draws(0).normal(SHAPE), first) and not torch.equal(Draws(0).normal(SHAPE), first)


def test_numbers_are_off_in_evaluation_by_name():
    source = Draws(7).eval()
    for draw in (source.uniform, source.normal):
        with pytest.raises(CompressionError, match=r"off in evaluation mode \(Draws of seed 7\): let the forward pass"):
            draw(SHAPE)


def test_normal_numbers_are_normal():
    with drawing(0):
        assert stats.kstest(Draws(0).normal((10_000,)).numpy(), "norm").pvalue > 0.001


@pytest.mark.parametrize("over", [(), (2, 3), (1, 2, 3), (-1,)], ids=["numbers", "channels", "images", "rows"])
def test_dropout_keeps_the_mean_and_drops_together_what_it_says(over):
    source, x = Draws(0), torch.ones(30, 20, 6, 5)
    with drawing(0):
        dropped = source.dropout(x, 0.25, over)
    torch.testing.assert_close(dropped.unique(), torch.tensor([0.0, 1 / 0.75]))
    kept = dropped > 0
    axes = [axis % 4 for axis in over]
    if axes:
        assert torch.equal(kept.any(dim=axes), kept.all(dim=axes))
    draws = kept.numel() // np.prod([x.shape[axis] for axis in axes], dtype=int)
    assert abs(float(kept.float().mean()) - 0.75) < 5 * (0.25 * 0.75 / draws) ** 0.5
    assert torch.equal(source.eval().dropout(x, 0.25, over), x)


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_a_share_that_leaves_nothing_is_refused(p):
    with pytest.raises(CompressionError, match=r"dropout: p must be in \[0, 1\), got"):
        Draws(0).dropout(torch.ones(2), p)


def test_stochastic_rounding_has_the_number_as_its_mean_and_rounds_to_the_nearest_in_evaluation():
    source, x = Draws(0), torch.tensor([-1.7, -0.25, 0.0, 0.5, 2.0, 3.9])
    with drawing(0):
        found = source.rounded(x.expand(20_000, -1))
    assert bool(((found == x.floor()) | (found == x.ceil())).all())
    torch.testing.assert_close(found.mean(0), x, rtol=0, atol=5 * 0.5 / 20_000**0.5)
    assert torch.equal(source.eval().rounded(x), x.round())


class Dropping(nn.Module):
    """A network of two draws in a step, and one of torch's own between them."""

    def __init__(self, other):
        super().__init__()
        with seeded(0):
            self.a, self.b = nn.Linear(64, 16), nn.Linear(16, 10)
        self.draws, self.other = Draws(3), nn.Dropout(other)

    def forward(self, x):
        x = self.draws.dropout(self.a(x.flatten(1)).relu(), 0.5)
        return self.b(self.draws.dropout(self.other(x), 0.1))


def test_what_a_network_draws_elsewhere_moves_no_draw_of_a_training():
    class Kept(Draws):
        def uniform(self, *given):
            self.kept = [*vars(self).get("kept", ()), super().uniform(*given)]
            return self.kept[-1]

    seen = []
    for other in (0.0, 0.6):
        model = Dropping(other)
        model.draws = Kept(3)
        fit(model, DATA, Recipe(epochs=2, batch=16))
        seen.append(torch.cat([drawn.flatten() for drawn in model.draws.kept]))
    assert torch.equal(*seen) and len(seen[0].unique()) > 0.99 * len(seen[0])


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_training_with_draws_repeats_and_resumes_bit_by_bit(tmp_path, stop):
    def ends(step):
        if step.done == stop:
            raise Cancelled

    results = []
    for interrupted in (False, True):
        model, path = Dropping(0.3), tmp_path / str(interrupted)
        if interrupted:
            with pytest.raises(Cancelled), listening(ends):
                fit(model, DATA, Recipe(epochs=2, batch=16), resume=path)
            model = Dropping(0.3)
        fit(model, DATA, Recipe(epochs=2, batch=16), resume=path)
        results.append(model.a.weight.detach())
    assert torch.equal(*results) and not torch.equal(results[0], Dropping(0.3).a.weight)
