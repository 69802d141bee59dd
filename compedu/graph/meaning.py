"""What a compressed network must compute: the given network, with the result's values in its own layers."""

from collections.abc import Collection, Mapping

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from compedu.forms.form import Form, StandIn
from compedu.forms.walk import outermost_forms, outside_forms
from compedu.graph.copying import inference_copy
from compedu.graph.own_hooks import move_hooks
from compedu.graph.precise import convert, fill_at_each_call, float64_copy
from compedu.graph.probes import hollow
from compedu.graph.trace import is_plain, open_attentions, put_module, replace_module


def meant_network(
    source: nn.Module, result: nn.Module, forms: Collection[str], apart: Collection[str], precise: bool
) -> nn.Module:
    """Return a copy of `source` whose layers hold the dense weights of the forms of `result`, and its other tensors.

    Only `forms`, names of some of them, are in it themselves, with activations that are not rounded. A batch norm that
    was folded away does nothing in it; a form that scales its output is replaced by what the law of forms says of it.
    Where a method changed the shape of anything else, as by removing channels, `result` takes the place of `source`.
    With `precise` it computes in float64, and layers that are not `apart` are converted while they run.
    """
    network = _with_numbers(source, result)
    network = _with_numbers(result, result) if network is None else network
    replaced = outermost_forms(result)
    scaled = [name for name in replaced if result.get_submodule(name).scales_output and name not in forms]
    for name in forms:
        layer = network.get_submodule(name)
        form = inference_copy(result.get_submodule(name))
        put_module(network, layer, form)  # only with the hooks that it has in the result
        network = form if network is layer else network
    for name in scaled:
        network = put_stand_in(network, name, inference_copy(result.get_submodule(name)))
    network = float64_copy(network, apart) if precise else network
    for form in [module for module in network.modules() if isinstance(module, Form)]:
        form.act = nn.Identity()
    for name in replaced:
        if name not in (*forms, *scaled):
            _fill(network.get_submodule(name), result.get_submodule(name), name in apart, precise)
    return network


def put_stand_in(network: nn.Module, name: str, form: Form) -> nn.Module:
    """Put what `form` must compute in place of the layer `name`, with the hooks of that layer; return the network."""
    layer = network.get_submodule(name)
    law = StandIn(form)
    if network is layer:
        move_hooks(layer, law)
        return law
    replace_module(network, layer, law)
    return network


def _with_numbers(source: nn.Module, result: nn.Module) -> nn.Module | None:
    """Return a copy of `source` with ordinary layers for forms and all other tensors of `result`; None on a misfit."""
    there = dict(result.named_modules())
    forms = outermost_forms(result)
    network = open_attentions(inference_copy(source), there)
    if not _forms_agree(network, there):
        return None
    for name in outermost_forms(network):
        form = network.get_submodule(name)
        layer = hollow(form) if isinstance(there[name], Form) else inference_copy(there[name])
        replace_module(network, form, layer)
        network = layer if network is form else network
    for name, module in list(outside_forms(network)):
        if name in forms:
            if not _fits(module, there[name]):
                return None
        elif isinstance(module, _BatchNorm) and name in there and not isinstance(there[name], _BatchNorm):
            _silence(module)
        elif not _take(module, there.get(name)):
            return None
    return network


def _forms_agree(network: nn.Module, there: Mapping[str, nn.Module]) -> bool:
    """Return whether modules `there` are forms or plain layers wherever `network` has an outermost form."""
    return all(
        name in there and (isinstance(there[name], Form) or is_plain(there[name])) for name in outermost_forms(network)
    )


def _fits(layer: nn.Module, form: Form) -> bool:
    return isinstance(layer, (nn.Linear, nn.Conv2d)) and tuple(layer.weight.shape) == form.geometry.shape


def _silence(norm: _BatchNorm) -> None:
    """Let `norm` do only what follows its normalization; its layer has taken over its affine map."""
    norm.eps = 0.0
    identity = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
    for tensors in (norm._parameters, norm._buffers):
        for name, tensor in tensors.items():
            if name in identity and tensor is not None:
                values = tensor.detach().new_full(tensor.shape, identity[name])
                tensors[name] = nn.Parameter(values) if isinstance(tensor, nn.Parameter) else values


def _take(module: nn.Module, other: nn.Module | None) -> bool:
    """Give `module` the tensors of `other`; return whether that has all of its tensors, in their shapes."""
    for kind in ("_parameters", "_buffers"):
        own = getattr(module, kind)
        found = {} if other is None else getattr(other, kind)
        for name, tensor in own.items():
            if tensor is None and name != "bias":  # folding gives a layer a bias
                continue
            if name not in found or (tensor is not None and (found[name] is None or found[name].shape != tensor.shape)):
                return False
            own[name] = found[name]
    return True


def _fill(layer: nn.Module, form: Form, at_once: bool, precise: bool) -> None:
    """Give `layer` the dense weight and bias of `form`: at once, or whenever it runs."""

    def fill() -> None:
        own = inference_copy(form)
        if precise:
            convert(own, trains=False)
        layer._parameters.update(own.dense_layer().requires_grad_(at_once)._parameters)

    if at_once:
        fill()
    else:
        fill_at_each_call(layer, fill)
