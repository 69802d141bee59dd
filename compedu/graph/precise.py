"""Running a network in float64 without a copy of it in float64: the weights of a layer are converted while it runs."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils import _pytree as pytree

from compedu.forms.form import Form
from compedu.forms.walk import outside_forms
from compedu.graph.copying import inference_copy
from compedu.graph.removal import silence_layer
from compedu.graph.trace import is_plain
from compedu.reproducible import seeded

# Rounding alone stays far below this in float64; one wrong channel or layer is far above it.
TOLERANCE = 1e-9
UNCHECKED = "so that nothing can be compared"


def float64_outputs(
    model: nn.Module, example: Tensor, read_apart: Collection[str] = (), silent: Mapping[str, Tensor] | None = None
) -> list[Tensor]:
    """Return the tensors that `model` returns for `example` in evaluation mode, computed in float64; it is untouched.

    `read_apart` and `silent` are those of `float64_copy`.
    """
    return outputs_of(float64_copy(model, read_apart, silent), example)


def float64_copy(
    model: nn.Module, read_apart: Collection[str] = (), silent: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """Return a copy of `model` in evaluation mode that computes in float64.

    Layers and forms are converted while they run, but for `read_apart`, whose weights the network may also read
    without calling them: these are converted at once. `silent` maps layers to a boolean mask over their outputs, true
    where these are set to zero.
    """
    copy = inference_copy(model)
    silent = silent or {}
    for name, module in list(outside_forms(copy)):
        if (isinstance(module, Form) or is_plain(module)) and name not in read_apart:
            _convert_at_each_call(module, silent.get(name))
        else:
            convert(module, silent.get(name))
    return copy


def outputs_of(network: nn.Module, example: Tensor, gradients: bool = False, precise: bool = True) -> list[Tensor]:
    """Return the tensors that `network`, which computes in float64, returns for `example`; draws have a fixed seed.

    A network that is not `precise` computes in its own precision. With `gradients` they are enabled, for which
    some of torch's layers take another path; nothing is kept for a backward pass.
    """
    inputs = example.double() if precise and example.is_floating_point() else example
    forget = saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing)
    with torch.inference_mode(False), torch.set_grad_enabled(gradients), seeded(0), forget:
        outputs = network(inputs)
    return [leaf.detach() for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def difference(found: list[Tensor], expected: list[Tensor], tolerance: float = TOLERANCE) -> str | None:
    """Describe how outputs differ from those `expected`; None where they differ only by rounding.

    Infinity is legal where it is expected: a logit of -inf rules a class out.
    """
    found = list(map(_real, found))
    expected = list(map(_real, expected))
    if [tensor.shape for tensor in found] != [tensor.shape for tensor in expected]:
        return "outputs have another shape"
    if any(tensor.isnan().any() for tensor in expected):
        return f"outputs on the example are not finite (not a number), {UNCHECKED}"
    if not all(torch.equal(_infinite(a), _infinite(b)) for a, b in zip(found, expected, strict=True)):
        return "outputs are not finite where they should be"
    finite = [b.isfinite() for b in expected]
    pairs = [(a.double()[f], b.double()[f]) for a, b, f in zip(found, expected, finite, strict=True) if bool(f.any())]
    worst = max((float((a - b).abs().max()) for a, b in pairs), default=0.0)
    scale = max((float(b.abs().max()) for _, b in pairs), default=0.0)
    if worst <= tolerance * (scale or 1.0):
        return None
    return f"outputs differ by {worst:.3g}, at a scale of {scale:.3g}"


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _infinite(tensor: Tensor) -> Tensor:
    """Return the sign of each element that is infinite, 2 where it is not a number, else 0."""
    signs = torch.where(tensor.isinf(), tensor.sign().to(torch.int8), 0)
    return torch.where(tensor.isnan(), 2, signs)


def convert(module: nn.Module, removed: Tensor | None = None, trains: bool = True) -> None:
    """Give `module`, and all that is inside a form, tensors of its own in float64; zero the outputs `removed`."""
    for part in module.modules() if isinstance(module, Form) else (module,):
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and tensor.is_floating_point():
                    converted = tensor.detach().to(torch.float64, copy=True)
                    tensors[name] = nn.Parameter(converted, trains) if isinstance(tensor, nn.Parameter) else converted
    if removed is not None:
        silence_layer(module, removed)


def _convert_at_each_call(layer: nn.Module, removed: Tensor | None) -> None:
    # Autograd would keep tensors that require gradients beyond the call.
    fill_at_each_call(layer, lambda: convert(layer, removed, trains=False))


def fill_at_each_call(layer: nn.Module, fill: Callable[[], None], first: bool = True) -> None:
    """Call `fill`, which changes tensors of `layer`, before each of its calls, and restore them after it.

    It runs before the hooks already there if `first`, else after them.
    """
    given = [(tensors, dict(tensors)) for part in layer.modules() for tensors in (part._parameters, part._buffers)]

    def restore(layer: nn.Module, inputs: tuple, output: object) -> None:
        for tensors, before in given:
            tensors.update(before)

    layer.register_forward_pre_hook(lambda layer, inputs: fill(), prepend=first)
    layer.register_forward_hook(restore)
