"""Which tensors a network may hold: dense ones, with values, of types that kernels support."""

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from compedu.errors import CompressionError
from compedu.given import refuse_no_network

TYPES = (  # a model file stores the index of a type: append new ones
    torch.float32, torch.float16, torch.float64, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip


def refuse_unusable(model: nn.Module) -> None:
    """Raise `CompressionError` naming the first tensor of `model` that cannot be computed with, and what to do.

    That is one without values (meta device, lazy modules), a sparse or quantized one, one of a rare type such as
    float8, or the weight of a linear or convolutional layer whose type differs from that of the first one. What is not
    a network raises `TypeError`.
    """
    refuse_no_network(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if reason := _reason(tensor):
            raise CompressionError(f"{name} of {type(model).__name__} {reason}")
    layers = [(name, layer) for name, layer in model.named_modules() if type(layer) in (nn.Linear, nn.Conv2d)]
    for name, layer in layers:
        if layer.weight.dtype != layers[0][1].weight.dtype:
            raise CompressionError(
                f"{name}.weight of {type(model).__name__} is {layer.weight.dtype}, {layers[0][0]}.weight "
                f"{layers[0][1].weight.dtype}; all linear and convolutional layers need one type: model.float()"
            )


def _reason(tensor: Tensor) -> str:
    if is_lazy(tensor):
        return "has no shape yet, because its lazy module has not seen an image; call the network once"
    if tensor.is_meta:
        return (
            "has no values, because it is on the meta device; build the network on a real device, then load its weights"
        )
    if tensor.layout is not torch.strided:
        return "is sparse (torch.sparse_...); make it dense: tensor.to_dense()"
    if tensor.dtype not in TYPES:
        common = ", ".join(map(str, TYPES[:4]))
        return f"holds {tensor.dtype}, which few kernels support; convert it to one of {common}"
    return ""
