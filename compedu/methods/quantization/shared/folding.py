"""Batch normalization is folded into the layers before their weights are rounded."""

from typing import cast

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from compedu.errors import CompressionError
from compedu.forms import ActivationQuantizer, Form, Geometry, Masked, weight_of
from compedu.graph import fold_batch_norm
from compedu.graph.answers import remembered
from compedu.graph.copying import shared_copy
from compedu.graph.folding import refuse_noticed_folding
from compedu.graph.own_hooks import has_hooks
from compedu.methods.layers import replace_layer
from compedu.methods.task import Task


def fold(task: Task) -> None:
    """Fold the batch norms of the task's network into ordinary and masked layers, or note why they stay.

    The projections of attentions become layers of their own first: what follows sees all that can be rounded.
    """
    task.open_attentions()
    if not any(isinstance(module, _BatchNorm) for module in task.model.modules()):
        return
    model = shared_copy(task.model)
    masked = {name: layer for name, layer in model.named_modules() if type(layer) is Masked and not quantizes(layer)}
    for name, layer in masked.items():
        model = replace_layer(model, name, layer.dense_layer())
    try:
        remembered(task.source, ("folding", "ordinary"), model, None, lambda: refuse_noticed_folding(model))
        model = fold_batch_norm(model)
    except CompressionError as reason:
        task.skip("(network)", f"batch normalization is not folded into the layers: {reason}")
        return
    for name, norm in model.named_modules():
        if isinstance(norm, _BatchNorm) and has_hooks(norm):
            task.skip(name, "is not folded into the layer before it: its forward hooks would see other values")
    for name, before in masked.items():  # folding scales whole filters, so zeros stay zero
        layer = model.get_submodule(name)
        bias = cast("Tensor | None", layer.bias)
        model = replace_layer(model, name, Masked(Geometry.of(layer), weight_of(layer), before.mask, bias))
    task.model = model


def quantizes(layer: Form) -> bool:
    """Tell whether `layer` rounds its input."""
    return isinstance(layer.act, ActivationQuantizer)
