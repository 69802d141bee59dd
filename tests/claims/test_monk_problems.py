"""The MONK problems: the published rules and sizes, and the paper's pruning of one of them."""

import re

import pytest
import torch
from processes import ROOT

from compedu.datasets.monks import NOISE, SIZES, belongs, monk, one_hot, robots
from compedu.replications import monk_problems as monks


@pytest.mark.parametrize("problem, positive", [(1, 216), (2, 142), (3, 228)])
def test_the_rules_give_the_published_numbers_of_positive_robots(problem, positive):
    """Of 432 robots 216, 142 and 228 belong (Thrun et al. 1991, the files monks-1.test to monks-3.test)."""
    everything = robots()
    assert everything.shape == (432, 6) and len(everything.unique(dim=0)) == 432
    assert everything.amin(0).tolist() == [1] * 6 and everything.amax(0).tolist() == [3, 3, 2, 3, 4, 2]
    assert int(belongs(everything, problem).sum()) == positive


def test_the_rules_by_hand():
    for a1, a2, a3, a4, a5, a6 in robots().tolist():
        robot = torch.tensor([[a1, a2, a3, a4, a5, a6]])
        assert bool(belongs(robot, 1)) == (a1 == a2 or a5 == 1)
        assert bool(belongs(robot, 2)) == ([a1, a2, a3, a4, a5, a6].count(1) == 2)
        assert bool(belongs(robot, 3)) == ((a5 == 3 and a4 == 1) or (a5 != 4 and a2 != 3))
    with pytest.raises(ValueError, match="problem must be 1, 2 or 3, got 4"):
        belongs(robots(), 4)


def test_inputs_are_one_hot():
    x = one_hot(torch.tensor([[1, 2, 1, 3, 4, 2]]))
    assert x[0].tolist() == [1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1]


@pytest.mark.parametrize("problem", [1, 2, 3])
def test_training_examples_are_drawn_by_the_seed_with_the_published_noise(problem):
    first, same, other = monk(problem, 0), monk(problem, 0), monk(problem, 1)
    assert torch.equal(first.x_train, same.x_train) and not torch.equal(first.x_train, other.x_train)
    assert first.x_train.shape == (SIZES[problem], 17) == ({1: 124, 2: 169, 3: 122}[problem], 17)
    assert len(first.x_train.unique(dim=0)) == SIZES[problem]
    truth = {tuple(x): y for x, y in zip(first.x_test.tolist(), first.y_test.tolist(), strict=True)}
    wrong = sum(truth[tuple(x)] != y for x, y in zip(first.x_train.tolist(), first.y_train.tolist(), strict=True))
    assert len(truth) == 432 and wrong == {1: 0, 2: 0, 3: 6}[problem] == round(NOISE[problem] * SIZES[problem])


def test_the_outputs_are_those_of_a_network_of_layers():
    weights = torch.randn(58, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    net = torch.nn.Sequential(
        torch.nn.Linear(17, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1), torch.nn.Sigmoid()
    ).double()
    torch.nn.utils.vector_to_parameters(weights, net.parameters())
    x = monk(1).x_test
    torch.testing.assert_close(monks.outputs(x, weights), net(x).squeeze(1).detach())
    assert [monks.weight_count(monks.HIDDEN[problem]) for problem in (1, 2, 3)] == [58, 39, 39]


def test_monk_3_keeps_its_accuracy_with_a_tenth_of_the_weights(monkeypatch):
    """39 to 4 weights, 90 % fewer, 97.2 % right on the test set (Hassibi, Stork 1993)."""
    monkeypatch.setattr(monks, "STARTS", 1)
    problem = monk(3, 0)
    found = monks.prune(3, problem, monks.train(3, problem, 0), retrain=False)
    assert found.before == 39 and found.after <= 5
    assert found.train[1] >= found.train[0] > 0.92
    assert found.test[1] == pytest.approx(0.972, abs=0.0006)


def test_what_is_left_of_monk_3_depends_on_the_draw_and_the_gallery_shows_that(monkeypatch):
    monkeypatch.setattr(monks, "STARTS", 1)
    problem = monk(3, 3)
    assert monks.prune(3, problem, monks.train(3, problem, 3), retrain=False).after >= 10
    table = (ROOT / "benchmarks" / "MONKS.md").read_text(encoding="utf-8")
    median, fewest, most = re.search(r"\| MONK-3 \| none .* 39 to (\d+) \((\d+) to (\d+)\)", table).groups()
    gallery = (ROOT / "notebooks" / "gallery" / "02_pruning.ipynb").read_text(encoding="utf-8")
    words = {"4": "four", "11": "eleven", "19": "nineteen"}
    told = f"between {words[fewest]} and {words[most]} weights of MONK-3 are left, with a median of {words[median]}"
    assert told in gallery
    assert "(3, DRAWS)" in gallery


def test_the_table_puts_the_paper_beside_ours():
    outcomes = [monks.Outcome(58, after, (1.0, 1.0), (0.99, 1.0)) for after in (12, 16, 14)]
    line = monks.row(1, True, outcomes)
    assert "| 58 to 14 | 100 / 100 | 58 to 14 (12 to 16) | 76 % | 100.0 / 99.0 | 100.0 / 100.0 |" in line
    assert line.count("|") == monks.HEAD.strip().splitlines()[-1].count("|")
