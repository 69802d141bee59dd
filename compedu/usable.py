"""Which tensors a network may hold: values that are there, one beside the other, of types that kernels compute with."""

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from compedu.errors import CompressionError

TYPES = (  # a model file has the number of a type: a new one goes to the end
    torch.float32, torch.float16, torch.float64, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip


def refuse_unusable(model: nn.Module) -> None:
    """Raise `CompressionError` naming the first tensor of `model` that cannot be computed with, and what to do.

    That is one without values (meta device, lazy modules), a sparse or quantized one, one of a rare type such as
    float8, and the weight of a linear or convolutional layer of another type than those before it.
    """
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
        return "has no shape yet, as its lazy module has seen no image; call the network once"
    if tensor.is_meta:
        return "has no values, as it is on the meta device; load weights into a network that was built without it"
    if tensor.layout is not torch.strided:
        return "is sparse (torch.sparse_...); needed is a dense tensor: tensor.to_dense()"
    if tensor.dtype not in TYPES:
        usual = ", ".join(map(str, TYPES[:4]))
        return f"holds {tensor.dtype}, which few kernels compute with; usual are {usual}"
    return ""
