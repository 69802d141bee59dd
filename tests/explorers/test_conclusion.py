"""The sentence about what a learner has seen: only what they measured counts, and the smallest file that is kept."""

from dataclasses import replace

import pytest

import compedu as ce
from compedu.explorers.conclusion import conclusion


@pytest.fixture
def view(looked_at):
    """A view of a dense network of 90 of 100 right answers and 1,000 bytes, in which nothing is measured."""
    view = looked_at(ce.MagnitudePruning(sparsity=0.5)).view
    return replace(view, baseline=replace(view.baseline, correct=90, seen=100, file_bytes=1000), seen={}, kept={})


def measured(view, **settings):
    """The view with these settings measured: right answers of 100 and bytes by name."""
    return replace(view, seen={
        name: replace(view.baseline, method=name, correct=correct, file_bytes=size)
        for name, (correct, size) in settings.items()
    })  # fmt: skip


def test_the_smallest_file_within_the_limit_is_named_with_its_figures(view):
    seen = measured(view, large=(90, 800), small=(89, 250), smaller_but_worse=(88, 100))
    said = "3 settings measured here: the smallest file that loses at most 1 point is small with 89.0 % and 250 B"
    assert conclusion(seen, 1.0) == f"{said}, 4.0 times smaller than the dense file."
    assert "at most 2 points is smaller_but_worse" in conclusion(seen, 2.0)


def test_where_all_lose_more_the_best_is_named_and_where_nothing_is_measured_that(view):
    assert "none loses at most 1 point. The best is b with 80.0 %" in conclusion(
        measured(view, a=(70, 10), b=(80, 20)), 1
    )
    assert conclusion(view, 1.0).startswith("Nothing is measured here yet")
