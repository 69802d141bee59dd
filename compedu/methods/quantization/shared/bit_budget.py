"""One budget of bits for a network: which layer gets how many, by the measured rise of the loss for each byte."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from compedu.errors import CompressionError, Skip
from compedu.evaluation import all_logits, refuse_probabilities
from compedu.forms import Quantized, mask_of
from compedu.graph.copying import inference_copy
from compedu.knobs import knobs
from compedu.methods.calibration import calibration_set
from compedu.methods.last_result import last_result
from compedu.methods.layers import replace_layer
from compedu.methods.task import Task

if TYPE_CHECKING:
    from compedu.methods.quantization.shared.weight_quantization import WeightQuantization

MOST_BITS = 8  # that a layer gets: what is left then is no loss of rounding


@dataclass(frozen=True)
class Choice:
    """One setting of a layer: bits of a weight, bytes of all its codes, and the loss with this layer alone rounded."""

    bits: int
    bytes: float
    loss: float


def with_bits(method: "WeightQuantization", bits: int | Mapping[str, int]) -> "WeightQuantization":
    """Return `method` with these bits for all layers, or for each, and no budget."""
    fixed: dict[str, Any] = {"bits": bits, "budget": "uniform", "code_bytes": 0}
    return replace(method, **fixed)


def budgeted_bits(method: "WeightQuantization", task: Task) -> int | dict[str, int]:
    """Return the bits of each layer that `method` selects in the network of `task`, under the method's budget.

    Layers that cannot be rounded have the method's `bits`, and no share of the budget; so has a network without others.

    What each layer costs is measured once for a network: neither the budget nor `bits` changes it.
    """
    chosen = {name: layer for name, layer in task.selection()[0].items() if not method.obstacle(layer)}
    settings = tuple(getattr(method, name) for name in knobs(method) if name not in ("bits", "budget", "code_bytes"))
    key = (type(method), settings, task.digest, task.data.digest)
    scanned = last_result(task.source, "bits", key, lambda: bit_scan(method, task, chosen))
    given = cast(int, method.bits)  # a method with a budget refuses bits by layer
    if not scanned:
        return given
    kept = sum(int(mask_of(chosen[name]).sum()) for name in scanned)
    return dict.fromkeys(chosen, given) | shared_bits(scanned, method.code_bytes or given * kept / 8)


def bit_scan(method: "WeightQuantization", task: Task, layers: Mapping[str, nn.Module]) -> dict[str, list[Choice]]:
    """Return what each of `layers` costs at each number of bits, measured on evenly spaced training images.

    The loss is the mean cross-entropy in nats of the network with this layer alone rounded by `method`: the sensitivity
    scan of Han, Pool, Tran, Dally (2015, arXiv:1506.02626, section 5), over bits. The network of `task` is untouched.
    Layers that `method` cannot round are left out.
    """
    refuse_probabilities(task.model, task.data)
    x, y = calibration_set(task.data, method.calibration_images)
    scanned: dict[str, list[Choice]] = {}
    for name, layer in layers.items():
        with contextlib.suppress(Skip):  # said when the network is rounded
            scanned[name] = [
                _choice(method, task, (name, layer), bits, x, y) for bits in range(fewest_bits(method), MOST_BITS + 1)
            ]
    return scanned


def _choice(
    method: "WeightQuantization", task: Task, named: tuple[str, nn.Module], bits: int, x: Tensor, y: Tensor
) -> Choice:
    """Return what it costs to round a layer alone to so many `bits`, measured on images x with labels y."""
    name, layer = named
    made = cast(Quantized, with_bits(method, bits).form_for(task, name, layer))
    network = replace_layer(inference_copy(task.model), name, made.eval())
    loss = float(F.cross_entropy(all_logits(network, x, task.data), y))
    if not math.isfinite(loss):
        raise CompressionError(
            f"with {bits} bits in layer {name!r} the loss on the images of {task.data.name!r} is {loss}, so layers "
            "cannot be compared; look for an operation that grows without bound"
        )
    return Choice(bits, made.free_numbers() * bits / 8, loss)


def fewest_bits(method: "WeightQuantization") -> int:
    """Return the fewest bits that `method` can give a layer: an affine grid needs two."""
    least = int(knobs(method)["bits"].low or 1)
    return max(least, 2) if method.grid == "affine" else least


def worthwhile(choices: list[Choice]) -> list[Choice]:
    """Return the choices on the lower convex hull of loss over bytes, from the smallest, each of less loss than before.

    Between two of them no third is better for its bytes, and each further byte helps less than the one before.

    >>> worthwhile([Choice(1, 1.0, 5.0), Choice(2, 2.0, 4.5), Choice(3, 3.0, 1.0), Choice(4, 4.0, 1.2)])
    [Choice(bits=1, bytes=1.0, loss=5.0), Choice(bits=3, bytes=3.0, loss=1.0)]
    """
    hull: list[Choice] = []
    for choice in sorted(choices, key=lambda choice: choice.bytes):
        if hull and choice.loss >= hull[-1].loss:
            continue
        while len(hull) > 1 and gain(hull[-1], choice) >= gain(hull[-2], hull[-1]):
            hull.pop()
        hull.append(choice)
    return hull


def gain(before: Choice, after: Choice) -> float:
    """Return by how much the loss falls for each further byte."""
    return (before.loss - after.loss) / (after.bytes - before.bytes)


def shared_bits(scanned: Mapping[str, list[Choice]], most_bytes: float) -> dict[str, int]:
    """Return the bits of each layer for which the sum of losses is small and the codes take at most `most_bytes`.

    All layers begin with their fewest bits; then the step that lowers the loss most for each byte comes first, as long
    as it fits. Where a step ends at the limit, no other shares of as many bytes have less loss. (HAQ searches the same
    space by reinforcement learning: Wang et al. 2019, arXiv:1811.08886.) Losses of layers are taken to add up. Raises
    `CompressionError` if even the fewest bits do not fit.
    """
    hulls = {name: worthwhile(choices) for name, choices in scanned.items()}
    chosen = {name: hull[0] for name, hull in hulls.items()}
    left = most_bytes - sum(choice.bytes for choice in chosen.values())
    if left < 0:
        raise CompressionError(
            f"the codes of {len(chosen)} layers take {most_bytes - left:,.0f} bytes even at the fewest bits, and the "
            f"budget is {most_bytes:,.0f}; allow more, or choose fewer layers"
        )
    steps = [(-gain(before, after), name, after) for name, hull in hulls.items() for before, after in pairwise(hull)]
    full = set()  # layers whose next step did not fit: no later one may be taken without it
    for _, name, after in sorted(steps, key=lambda step: step[:2]):
        further = after.bytes - chosen[name].bytes
        if name in full or further > left:
            full.add(name)
            continue
        left -= further
        chosen[name] = after
    return {name: choice.bits for name, choice in chosen.items()}
