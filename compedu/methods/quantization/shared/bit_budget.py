"""One budget of bits for a network: which layer gets how many, by the measured rise of the loss for each byte."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from compedu.errors import Skip
from compedu.evaluation import refuse_probabilities
from compedu.forms import Quantized, mask_of
from compedu.knobs import knobs
from compedu.methods.calibration import calibration_set
from compedu.methods.last_result import last_result
from compedu.methods.shared_budget import Choice, loss_with, shared_out
from compedu.methods.task import Task

if TYPE_CHECKING:
    from compedu.methods.quantization.shared.weight_quantization import WeightQuantization

MOST_BITS = 8  # that a layer gets: what is left then is no loss of rounding


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
    most = method.code_bytes or given * kept / 8
    return dict.fromkeys(chosen, given) | shared_out(scanned, most, "bytes of codes")


def bit_scan(method: "WeightQuantization", task: Task, layers: Mapping[str, nn.Module]) -> dict[str, list[Choice]]:
    """Return what each of `layers` costs at each number of bits, measured on evenly spaced training images.

    The cost is in bytes of codes, the loss that of the network with this layer alone rounded by `method`. The network
    of `task` is untouched. Layers that `method` cannot round are left out.
    """
    refuse_probabilities(task.model, task.data)
    images = calibration_set(task.data, method.calibration_images)
    scanned: dict[str, list[Choice]] = {}
    for name, layer in layers.items():
        with contextlib.suppress(Skip):  # said when the network is rounded
            scanned[name] = [
                _choice(method, task, (name, layer), bits, images) for bits in range(fewest_bits(method), MOST_BITS + 1)
            ]
    return scanned


def _choice(
    method: "WeightQuantization", task: Task, named: tuple[str, nn.Module], bits: int, images: tuple[Tensor, Tensor]
) -> Choice:
    """Return what it costs to round a layer alone to so many `bits`, measured on `images` (x, y)."""
    name, layer = named
    made = cast(Quantized, with_bits(method, bits).form_for(task, name, layer))
    return Choice(bits, made.free_numbers() * bits / 8, loss_with(task, name, made, images))


def fewest_bits(method: "WeightQuantization") -> int:
    """Return the fewest bits that `method` can give a layer: an affine grid needs two."""
    least = int(knobs(method)["bits"].low or 1)
    return max(least, 2) if method.grid == "affine" else least
