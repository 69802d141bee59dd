"""One budget of bits for a network: which layer gets how many, by the measured rise of the loss for each byte."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from compedu.forms import Quantized, mask_of
from compedu.knobs import knobs
from compedu.methods.shared_budget import Scan, kept_scan, scan, shared_out
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
    They are named when the network is rounded.

    What each layer costs is measured once for a network: neither the budget nor `bits` changes it.
    """
    chosen = {name: layer for name, layer in task.selection()[0].items() if not method.obstacle(layer)}
    scanned = kept_scan(method, task, chosen, lambda: bit_scan(method, task, chosen)).choices
    given = cast(int, method.bits)  # a method with a budget refuses bits by layer
    if not scanned:
        return given
    kept = sum(int(mask_of(chosen[name]).sum()) for name in scanned)
    most = method.code_bytes or given * kept / 8
    return dict.fromkeys(chosen, given) | shared_out(scanned, most, "bytes of codes")


def bit_scan(method: "WeightQuantization", task: Task, layers: Mapping[str, nn.Module]) -> Scan:
    """Return what each of `layers` costs at each number of bits, in bytes of codes, with its loss.

    The loss is that of the network with this layer alone rounded by `method`.
    """

    def tried(name: str, layer: nn.Module) -> Iterator[tuple[int, float, nn.Module]]:
        for bits in range(fewest_bits(method), MOST_BITS + 1):
            made = cast(Quantized, with_bits(method, bits).form_for(task, name, layer))
            yield bits, made.free_numbers() * bits / 8, made

    return scan(task, layers, tried, method.calibration_images)


def fewest_bits(method: "WeightQuantization") -> int:
    """Return the fewest bits that `method` can give a layer: an affine grid needs two."""
    least = int(knobs(method)["bits"].low or 1)
    return max(least, 2) if method.grid == "affine" else least
