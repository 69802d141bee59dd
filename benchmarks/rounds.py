"""Many arms timed in the same rounds: each against its baseline, and that baseline against a copy of itself."""

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


def timed(arms: Mapping[str, Callable], budget_s: float, between: Callable[[], None] = lambda: None) -> Rounds:
    """Return the times of interleaved calls on one thread; `between` runs after each round, untimed."""
    with torch_threads(1):
        return Rounds(time_rounds(arms, budget_s, between=between))


def timed_networks(networks: Mapping[str, nn.Module], x: Tensor, budget_s: float) -> Rounds:
    """Return the times of networks or layers on the inputs x, interleaved, on one thread and without gradients."""
    arms = {name: _call(network, x) for name, network in networks.items()}
    with torch.inference_mode():
        return Rounds(timed(arms, budget_s).seconds, batch_size=len(x))


def _call(network: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    return lambda: network(x)
