"""Schedules: the sparsity reached before the final one, and the hook that follows a ramp."""

from collections.abc import Callable

from torch import nn


def cubic_sparsity(final: float, progress: float) -> float:
    """Return the sparsity after a fraction `progress` of the ramp: 0 at the start, `final` from 1 on.

    >>> round(cubic_sparsity(0.8, 0.5), 12)
    0.7
    """
    # The slope is steepest at the start, where redundant weights are many (Zhu, Gupta 2017, equation 1).
    return final * (1 - (1 - min(progress, 1.0)) ** 3)


def geometric_sparsity(final: float, rounds_done: int, rounds: int) -> float:
    """Return the sparsity after some of `rounds`, each of which prunes the same fraction of the remaining weights.

    >>> round(geometric_sparsity(0.84, 1, 2), 12)
    0.6
    """
    return final if rounds_done == rounds else 1 - (1 - final) ** (rounds_done / rounds)


def ramp_hook(prune: Callable[[float], None], last: int, every: int) -> Callable[[nn.Module, int], None]:
    """Return the hook of `fit` that prunes after every `every` steps until `last`, and after `last` in any case.

    `prune` is called with the fraction of the ramp that is done, in (0, 1].
    """

    def after_step(model: nn.Module, step: int) -> None:
        done = step + 1
        if done == last or (done < last and done % every == 0):
            prune(done / last)

    return after_step
