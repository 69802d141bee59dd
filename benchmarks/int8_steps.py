"""Where the time of an int8 network goes: step by step, by kind of step, and what is between them."""

import copy
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rounds import timed
from torch import Tensor

from compedu.deployment import Deployed
from compedu.deployment.integer_chain import Call, MaxPool, Multiply, On, Quantize, Step

MOVING = {"flatten", "getitem", "permute", "reshape", "transpose", "unflatten", "view"}
REST = "between the steps"
PREPARED = "images to channels last"
STOPWATCH = "reading the clock"
CLOCK = time.thread_time  # it stands while other processes run, but takes a microsecond to read


def kind(step: Step) -> str:
    """Return what a step does, in the words of the table."""
    match step:
        case Multiply(product=product) if product.geometry.kind == "linear":
            return "linear layer, int8"
        case Multiply(product=product) if product.geometry.groups > 1:
            return "grouped convolution, int8"
        case Multiply(product=product):
            return "convolution, int8" + (" + shortcut" if product.adds else "")
        case Quantize():
            return "values to codes"
        case MaxPool():
            return "max pooling of codes"
        case Call(on=on, name=name):
            said = re.sub(r"_\d+$", "", name.rpartition(".")[2]).rstrip("0123456789")
            moves = on is not On.VALUES or said in MOVING
            return "views and copies" if moves else f"{said} in float32"
    return "other steps on codes"


def microseconds(network: Deployed, x: Tensor, budget_s: float) -> dict[str, float]:
    """Return the median microseconds that the steps of each kind take together, by kind, and those of the rest.

    The rest is what a call of the network takes longer than its steps: Python, and memory that is given back.
    """
    seconds: list[list[float]] = [[] for _ in network.plan.steps]
    watched = with_stopwatch(network, seconds)
    with torch.inference_mode():
        arms = {REST: lambda: watched(x), PREPARED: lambda: network.prepared(x), STOPWATCH: CLOCK}
        rounds = timed(arms, budget_s, clock=CLOCK).seconds
    wholes = rounds[REST]
    reading = statistics.median(rounds[STOPWATCH]) / 2  # an arm's time holds two readings, a step's time one
    found: dict[str, float] = {}
    for step, taken in zip(network.plan.steps, seconds, strict=True):
        del taken[: -len(wholes)]  # the warm-up
        found[kind(step)] = found.get(kind(step), 0.0) + 1e6 * (statistics.median(taken) - reading)
    rest = statistics.median(whole - sum(steps) for whole, *steps in zip(wholes, *seconds, strict=True))
    prepared = statistics.median(rounds[PREPARED]) - reading
    return found | {PREPARED: 1e6 * prepared, REST: 1e6 * (rest - prepared - reading * (len(seconds) + 1))}


def with_stopwatch(network: Deployed, seconds: list[list[float]]) -> Deployed:
    """Return the network with a stopwatch at every step, which appends to the list in the place of the step."""
    chain = copy.copy(network.body)
    places = zip(chain.program, seconds, strict=True)
    chain.program = [(_watched(run, taken), *rest) for (run, *rest), taken in places]
    return Deployed(chain, network.kernels, network.notes, network.channels_last)


def _watched(run: Callable, taken: list[float]) -> Callable:
    def watched(*sources: Any) -> Any:
        start = CLOCK()
        result = run(*sources)
        taken.append(CLOCK() - start)
        return result

    return watched
