"""One budget for a network: which setting each layer gets, by what it takes and by the loss that it costs."""

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

from compedu.errors import CompressionError, Skip
from compedu.evaluation import all_logits, refuse_probabilities
from compedu.graph.copying import inference_copy
from compedu.knobs import knobs
from compedu.methods.calibration import calibration_set
from compedu.methods.last_result import last_result
from compedu.methods.layers import replace_layer
from compedu.methods.method import Method
from compedu.methods.task import Task


@dataclass(frozen=True)
class Choice:
    """One setting of a layer: its `value`, such as bits or a rank, what it takes of the budget, and its loss."""

    value: Any
    cost: float
    loss: float


@dataclass(frozen=True)
class Scan:
    """The choices of each layer that can be replaced, by name, and the reasons why other layers cannot."""

    choices: Mapping[str, list[Choice]]
    reasons: Mapping[str, str]


Settings: TypeAlias = Iterable[tuple[Any, float, nn.Module]]  # of a layer: value, cost, and the layer in its place


def scan(task: Task, layers: Mapping[str, nn.Module], tried: Callable[[str, nn.Module], Settings], images: int) -> Scan:
    """Return what each of `layers` costs at each setting that `tried` (name, layer) yields, with its loss.

    The loss is that of the network of `task`, which stays as it is, with this layer alone replaced, on at most `images`
    evenly spaced training images: the sensitivity scan of Han, Pool, Tran, Dally (2015, arXiv:1506.02626, section 5).
    A layer that cannot be replaced at a setting has no choices, but a reason.
    """
    refuse_probabilities(task.model, task.data)
    shown = calibration_set(task.data, images)
    choices: dict[str, list[Choice]] = {}
    reasons: dict[str, str] = {}
    for name, layer in layers.items():
        try:
            choices[name] = [
                Choice(value, cost, loss_with(task, name, made, shown)) for value, cost, made in tried(name, layer)
            ]
        except Skip as reason:
            reasons[name] = str(reason)
    return Scan(choices, reasons)


def kept_scan(method: Method, task: Task, layers: Iterable[str], measure: Callable[[], Scan]) -> Scan:
    """Return the last scan of `layers` by the class of `method` if it is still valid, else what `measure` returns.

    It is valid for the same network, the same data, and equal knobs, apart from those that the class calls `unscanned`.
    """
    # Knobs that are not known to leave a scan as it is count: a subclass that adds one gets no outdated scan.
    settings = tuple(getattr(method, name) for name in knobs(method) if name not in method.unscanned)
    key = (type(method), settings, tuple(layers), task.digest, task.data.digest)
    return last_result(task.source, f"scan by {type(method).__name__}", key, measure)


def loss_with(task: Task, name: str, made: nn.Module, images: tuple[Tensor, Tensor]) -> float:
    """Return the loss on `images` (x, y) where `made` takes the place of layer `name` alone; errors as `loss_of`.

    Raises `Skip` where it cannot take that place.
    """
    network = replace_layer(inference_copy(task.model), name, made.eval())
    return loss_of(network, task, images, f"with {type(made).__name__} as layer {name!r}")


def irreplaceable(
    task: Task, layers: Mapping[str, nn.Module], made: Callable[[nn.Module], nn.Module]
) -> dict[str, str]:
    """Return the names of the `layers` whose place what `made` (layer) returns cannot take, with the reasons."""
    reasons: dict[str, str] = {}
    for name, layer in layers.items():
        try:
            replace_layer(inference_copy(task.model), name, made(layer))
        except Skip as reason:
            reasons[name] = str(reason)
    return reasons


def loss_of(network: nn.Module, task: Task, images: tuple[Tensor, Tensor], which: str) -> float:
    """Return the mean loss of `network`, of a classification in nats, on `images` (x, y) of the data of `task`.

    Raises `CompressionError` for one that is not finite; `which` says there what distinguishes the network.
    """
    x, y = images
    loss = float(task.data.objective.loss(all_logits(network, x, task.data), y))
    if not math.isfinite(loss):
        raise CompressionError(
            f"{which} the loss on the images of {task.data.name!r} is {loss}, so layers cannot be compared; look for "
            "an operation that grows without bound"
        )
    return loss


def gain(before: Choice, after: Choice) -> float:
    """Return by how much the loss falls for each further unit of cost."""
    return (before.loss - after.loss) / (after.cost - before.cost)


def shared_out(scanned: Mapping[str, list[Choice]], most: float, unit: str) -> dict[str, Any]:
    """Return the value for each layer for which the sum of losses is small and all costs together are at most `most`.

    All layers begin with their cheapest choice; then the one that lowers the loss most for each unit of cost comes
    first, among all that still fit. Where a step along the lower convex hulls of loss over cost ends at the limit, no
    other shares have less loss at this cost (Shoham, Gersho 1988, Efficient bit allocation for an arbitrary set of
    quantizers). Losses of layers are taken to add up. Raises `CompressionError`, which names the `unit` of cost, if
    even the cheapest choices do not fit.
    """
    chosen = {name: min(choices, key=lambda choice: (choice.cost, choice.loss)) for name, choices in scanned.items()}
    left = most - sum(choice.cost for choice in chosen.values())
    if left < 0:
        raise CompressionError(
            f"{len(chosen)} layers take {most - left:,.0f} {unit} even at the least, and the budget is {most:,.0f}; "
            "allow more, or choose fewer layers"
        )
    steps: list[tuple[float, str, Choice]] = []  # a heap of the next step of each layer

    def look_further(name: str) -> None:
        if (step := next_step(chosen[name], scanned[name], left)) is not None:
            heapq.heappush(steps, (-gain(chosen[name], step), name, step))

    for name in chosen:
        look_further(name)
    while steps:
        _, name, after = heapq.heappop(steps)
        further = after.cost - chosen[name].cost
        if further <= left:
            left -= further
            chosen[name] = after
        look_further(name)
    return {name: choice.value for name, choice in chosen.items()}


def next_step(now: Choice, choices: Iterable[Choice], left: float) -> Choice | None:
    """Return the one of `choices` that lowers the loss most for each unit of cost, at most `left` more; None if none.

    >>> next_step(Choice(1, 1.0, 5.0), [Choice(2, 2.0, 4.5), Choice(3, 3.0, 1.0), Choice(4, 4.0, 0.9)], 2.0)
    Choice(value=3, cost=3.0, loss=1.0)
    """
    fitting = [one for one in choices if one.loss < now.loss and 0 < one.cost - now.cost <= left]
    return max(fitting, key=lambda one: (gain(now, one), one.cost), default=None)
