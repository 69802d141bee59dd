"""The peer: torch's own quantization after training (`torch.ao.quantization`, graph mode), where it still runs."""

import copy
import warnings
from collections import Counter

import torch
from torch import Tensor, nn

from compedu.datasets.dataset import Dataset
from compedu.methods.calibration import calibration_set


class ChannelsLast(nn.Module):
    """A network that gets its images in channels-last order, in which torch's quantized convolutions compute."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Return what the network returns for images x."""
        return self.body(x.contiguous(memory_format=torch.channels_last))


def torch_float(model: nn.Module) -> nn.Module:
    """Return `model` in float32 with batch normalization folded by torch's fusion, in channels-last order."""
    with _quiet():
        from torch.ao.quantization.quantize_fx import fuse_fx

        return ChannelsLast(fuse_fx(copy.deepcopy(model).eval()).to(memory_format=torch.channels_last))


def torch_int8(model: nn.Module, data: Dataset, images: int) -> nn.Module:
    """Return `model` quantized by torch as it does by default for this machine, calibrated on `images` of `data`.

    Raises `ImportError` where torch has its quantization no more.
    """
    with _quiet():
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

        asked = get_default_qconfig_mapping(torch.backends.quantized.engine)
        observed = prepare_fx(copy.deepcopy(model).eval(), asked, (data.example,))
        with torch.no_grad():
            observed(calibration_set(data, images)[0])
        return ChannelsLast(convert_fx(observed))


def integer_layers(network: nn.Module) -> str:
    """Return how many layers of which kind compute with integers in a network that torch has quantized."""
    from torch.ao.nn.quantized.modules.utils import WeightedQuantizedModule

    kinds = Counter(type(layer).__name__ for layer in network.modules() if isinstance(layer, WeightedQuantizedModule))
    return "; ".join(f"{count} x {kind}" for kind, count in kinds.items())


def _quiet() -> warnings.catch_warnings:
    """Return a block without torch's warnings that its quantization goes away, and that 7 bits are its default."""
    return warnings.catch_warnings(action="ignore")
