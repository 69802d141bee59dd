"""Many arms timed in the same rounds: each against its baseline, and that baseline against a copy of itself."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compedu.metrics import Latency
from compedu.metrics.latency import BASELINE, BASELINE_AGAIN, CANDIDATE, time_rounds
from compedu.reproducible import torch_threads


@dataclass(frozen=True)
class Rounds:
    """The seconds of each arm in each round, by the arm's name; equal places belong to one round."""

    seconds: Mapping[str, list[float]]
    batch_size: int = 1

    def latency(self, arm: str, baseline: str) -> Latency:
        """Return the times of `arm` against `baseline`, which ran once more under the name that `again` gives it."""
        arms = {CANDIDATE: arm, BASELINE: baseline, BASELINE_AGAIN: again(baseline)}
        return Latency.of({role: self.seconds[name] for role, name in arms.items()}, self.batch_size, threads=1)


def again(baseline: str) -> str:
    """Return the name of the arm that is a copy of the arm `baseline`."""
    return f"{baseline}, again"


def timed(
    arms: Mapping[str, Callable],
    budget_s: float,
    between: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Rounds:
    """Return the times of interleaved calls on one thread; `between` runs after each round, untimed."""
    with torch_threads(1):
        return Rounds(time_rounds(arms, budget_s, clock=clock, between=between))


def timed_networks(
    networks: Mapping[str, nn.Module],
    x: Tensor,
    budget_s: float,
    clock: Callable[[], float] = time.perf_counter,
    calls: int = 1,
) -> Rounds:
    """Return the times of networks or layers on the inputs x, interleaved, on one thread and without gradients.

    In each round, each is called so many times in a row: their mean counts.
    """
    arms = {name: _calls(network, x, calls) for name, network in networks.items()}
    with torch.inference_mode():
        seconds = timed(arms, budget_s, clock=clock).seconds
    return Rounds({name: [value / calls for value in values] for name, values in seconds.items()}, len(x))


def _calls(network: nn.Module, x: Tensor, calls: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(calls):
            network(x)

    return run
