"""The memory layout of tensors: torch chooses its kernels by it, so the last bits of results depend on it."""

import torch
from torch import Tensor, nn


def in_usual_order(tensor: Tensor) -> bool:
    """Tell whether `tensor` is stored row by row, as torch does by default, and not in channels-last order.

    Convolution kernels tell the two apart by strides, even for windows of one pixel, where both orders are the same.
    """
    standard = torch.empty(tensor.shape, device="meta").stride()
    return tensor.is_contiguous() and (tensor.ndim < 4 or tensor.stride() == standard)


def in_another_order(model: nn.Module) -> list[str]:
    """Return the names of the parameters and buffers of `model` that are not stored in the standard order."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return [name for name, tensor in tensors.items() if not in_usual_order(tensor)]


def put_in_usual_order(model: nn.Module) -> nn.Module:
    """Store all parameters and buffers of `model` in the standard order, in place; return the model."""
    for tensor in (*model.parameters(), *model.buffers()):
        if not in_usual_order(tensor):
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return model
