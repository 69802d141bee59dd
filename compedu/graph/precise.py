"""Running a network in float64 without a copy of it in float64: the weights of a layer are converted while it runs."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compedu.graph.removal import silence_layer
from compedu.graph.trace import inference_copy, is_plain
from compedu.reproducible import seeded


def float64_outputs(
    model: nn.Module, example: Tensor, read_apart: Collection[str] = (), silent: Mapping[str, Tensor] | None = None
) -> list[Tensor]:
    """Return the tensors that `model` gives for `example` in evaluation mode, computed in float64; it is untouched.

    `read_apart` are the layers whose weights the network also reads without calling them: these are converted for the
    whole run. `silent` maps layers to a boolean mask over their outputs, true where these are made silent.
    """
    copy, silent = inference_copy(model), silent or {}
    for name, module in copy.named_modules():
        if is_plain(module) and name not in read_apart:
            _convert_at_each_call(module, silent.get(name))
        else:
            _convert(module, silent.get(name))
    with torch.no_grad(), seeded(0):
        outputs = copy(example.double())
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _convert(module: nn.Module, removed: Tensor | None) -> None:
    """Give `module` own tensors in float64, those of the outputs that are `removed` silent."""
    for tensors in (module._parameters, module._buffers):
        for name, tensor in tensors.items():
            if tensor is not None and tensor.is_floating_point():
                converted = tensor.detach().to(torch.float64, copy=True)
                tensors[name] = nn.Parameter(converted, False) if isinstance(tensor, nn.Parameter) else converted
    if removed is not None:
        silence_layer(module, removed)


def _convert_at_each_call(layer: nn.Module, removed: Tensor | None) -> None:
    given = dict(layer._parameters)

    def convert(layer: nn.Module, inputs: tuple) -> None:
        _convert(layer, removed)

    def restore(layer: nn.Module, inputs: tuple, output: object) -> None:
        layer._parameters.update(given)

    layer.register_forward_pre_hook(convert)
    layer.register_forward_hook(restore)
