"""The order in which the numbers of a tensor lie in memory: torch's kernels, and so the last bits, hang on it."""

import torch
from torch import Tensor, nn


def in_usual_order(tensor: Tensor) -> bool:
    """Tell whether the numbers of `tensor` lie row after row, as torch writes them, and not channels last.

    Kernels of convolutions tell the two apart by strides, even where windows of one pixel make them the same.
    """
    usual = torch.empty(tensor.shape, device="meta").stride()
    return tensor.is_contiguous() and (tensor.ndim < 4 or tensor.stride() == usual)


def in_another_order(model: nn.Module) -> list[str]:
    """Return the names of the parameters and buffers of `model` that do not lie in the usual order."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return [name for name, tensor in tensors.items() if not in_usual_order(tensor)]


def put_in_usual_order(model: nn.Module) -> nn.Module:
    """Lay the numbers of all parameters and buffers of `model` row after row, in place; return the model."""
    for tensor in (*model.parameters(), *model.buffers()):
        if not in_usual_order(tensor):
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return model
