"""Scaling channels: what makes them is divided, what reads them multiplied, and the network computes the same."""

import torch
from torch import Tensor, nn

from compedu.errors import CompressionError, first_line
from compedu.forms.form import Geometry
from compedu.graph.copying import shared_copy, whole_copy
from compedu.graph.precise import difference, outputs_of
from compedu.graph.scaling import Scalable


def rescaled(model: nn.Module, found: Scalable, factors: Tensor, example: Tensor) -> nn.Module:
    """Return a copy of `model` whose channels `found` are divided by `factors` (count,), all positive.

    What makes a channel is divided, with its bias, and the weights that read it are multiplied: computed in float64 and
    stored in the layer's own type. Tensors that stay are shared with `model`. Raises `CompressionError` unless the
    outputs on `example` stay the same in float64.
    """
    exact = whole_copy(model).double()
    try:
        expected = outputs_of(exact, example)
        problem = difference(outputs_of(_scaled(exact, found, factors), example), expected)
    except Exception as error:  # a forward pass may raise anything
        problem = f"it does not run in float64 ({first_line(error)})"
    if problem is not None:
        raise CompressionError(f"scaling channels of {type(model).__name__} is not shown to change nothing: {problem}")
    return _scaled(model, found, factors)


def _scaled(model: nn.Module, found: Scalable, factors: Tensor) -> nn.Module:
    factor = torch.cat([factors.double().cpu(), torch.ones(1, dtype=torch.float64)])  # the last is that of -1
    made = shared_copy(model)
    for name in dict.fromkeys([*found.makers, *found.readers]):
        layer = made.get_submodule(name)
        own = {part: tensor for part, tensor in layer._parameters.items() if tensor is not None}
        values = {part: tensor.detach().double() for part, tensor in own.items()}
        if name in found.makers:
            down = factor[found.makers[name]].to(own["weight"].device)
            values = {part: (value.movedim(0, -1) / down).movedim(-1, 0) for part, value in values.items()}
        if name in found.readers:
            up = factor[found.readers[name]].to(own["weight"].device)
            values["weight"] = values["weight"] * along_inputs(up, Geometry.of(layer))
        for part, tensor in own.items():
            layer._parameters[part] = nn.Parameter(values[part].to(tensor.dtype), tensor.requires_grad)
    return made


def along_inputs(values: Tensor, geometry: Geometry) -> Tensor:
    """Return `values`, one for each input channel of a layer, in a shape that broadcasts against its weight.

    >>> along_inputs(torch.tensor([1.0, 2.0]), Geometry("conv2d", (4, 1, 3, 3), groups=2)).flatten().tolist()
    [1.0, 1.0, 2.0, 2.0]
    """
    out, inside, *window = geometry.shape
    rows = values.reshape(geometry.groups, inside).repeat_interleave(out // geometry.groups, 0)
    return rows.reshape(out, inside, *(1 for _ in window))


def largest_by_input(weight: Tensor, geometry: Geometry) -> Tensor:
    """Return the largest absolute value that each input channel has in the `weight` of its layer, (inputs,).

    >>> largest_by_input(torch.tensor([[1.0, -2.0], [-3.0, 0.5]]), Geometry("linear", (2, 2))).tolist()
    [3.0, 2.0]
    """
    by_group = weight.detach().abs().unflatten(0, (geometry.groups, -1))  # (groups, out / groups, in / groups, ...)
    return by_group.transpose(1, 2).flatten(2).amax(2).flatten()
