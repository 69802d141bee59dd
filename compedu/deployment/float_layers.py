"""Layers that run in float32: what each compressed form becomes at inference, and what to call it."""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from compedu.deployment.kernels import csr, fourier
from compedu.forms import ActivationQuantizer, BlockCirculant, Coded, CReLUFilters, Factored, Form, Masked
from compedu.graph.own_hooks import move_hooks
from compedu.graph.trace import replace_module

DENSE = "float32 dense"
OWN = "float32, parameters of its own: "
UNCHAINED = DENSE + ", as {}, inputs rounded in float32"


class BaseAndNegative(nn.Module):
    """A layer whose output is joined with its negative: base filters y to [y, -y]."""

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base

    def forward(self, input: Tensor) -> Tensor:
        """Return [y, -y] along the channels."""
        y = self.base(input)
        return torch.cat([y, -y], dim=1)


def float_layers(model: nn.Module, apart: Collection[str] = ()) -> tuple[nn.Module, dict[str, str]]:
    """Return `model` with its forms replaced by what runs, and the kernel of each layer that holds weights, by name.

    The forms `apart` are not reached by calling alone, and become dense layers, whose weight can be read too.
    Changes `model`, which must be a private copy. Three kinds of forms stay until the network is traced: coded layers
    with quantized inputs, which run on integers, pruned linear layers that will run sparse, and block-circulant ones.
    """
    kernels: dict[str, str] = {}
    return _replaced(model, "", kernels, {}, apart), kernels


def _replaced(
    module: nn.Module, name: str, kernels: dict[str, str], made: dict[nn.Module, nn.Module], apart: Collection[str]
) -> nn.Module:
    if module in made:  # registered twice: stays one layer
        return made[module]
    new, kernel = running_dense(module) if name in apart else running(module)
    if new is not module:
        stand_in(module, new)
    if kernel is not None:
        kernels[name] = kernel
    made[module] = new
    if not isinstance(module, Form) or isinstance(new, nn.Sequential):
        for child, inner in list(new.named_children()):
            setattr(new, child, _replaced(inner, f"{name}.{child}" if name else child, kernels, made, apart))
    return new


def with_prepared_kernels(model: nn.Module, kernels: dict[str, str]) -> nn.Module:
    """Return `model` with sparse rows and transformed kernels in place; changes `model`, which may be a traced one."""
    for name, kernel in kernels.items():
        if kernel == csr.NAME:
            layer = model.get_submodule(name)
            replace_module(model, layer, stand_in(layer, csr.SparseLinear(layer.dense(), layer.bias)))
        elif kernel.startswith(fourier.NAME):
            layer = model.get_submodule(name)
            replace_module(model, layer, stand_in(layer, fourier.FourierLayer(layer)))
    return model


def stand_in(form: Form, layer: nn.Module) -> nn.Module:
    """Give `layer`, which runs in place of `form`, what a network asks a layer for, and the hooks; return it."""
    vars(layer).update(form.geometry.attributes)
    move_hooks(form, layer)
    return layer


def running(layer: nn.Module) -> tuple[nn.Module, str | None]:
    """Return the module that runs in place of `layer`, and its kernel's name; None for modules without own weights.

    Modules inside of `layer` have kernels of their own; the parameters that it holds beside them are named.
    """
    if isinstance(layer, Form):
        return _running_form(layer)
    if isinstance(layer, _NormBase):
        return layer, "float32 normalization, not folded"
    if type(layer) in (nn.Linear, NonDynamicallyQuantizableLinear, nn.Conv2d):
        return layer, DENSE
    if apart := parameters_apart(layer):
        return layer, OWN + ", ".join(apart)
    return layer, f"float32 {type(layer).__name__}" if any(True for _ in layer.parameters(recurse=False)) else None


def running_dense(form: Form) -> tuple[nn.Module, str]:
    """Return `running` for a form whose weight may be read by itself: an ordinary layer, if no inputs are rounded."""
    if any(isinstance(module, ActivationQuantizer) for module in form.modules()):
        return form, UNCHAINED.format(type(form).__name__)
    return form.dense_layer(), f"{DENSE}, from {type(form).__name__}"


def is_whole(layer: nn.Module) -> bool:
    """Return whether `layer` is one of torch's own that works with the weights of layers inside of it."""
    holding = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return type(layer).__module__.startswith("torch.nn.modules.") and not isinstance(layer, holding)


def parameters_apart(layer: nn.Module) -> list[str]:
    """Return the parameters that a part of a network holds beside other layers; forms and torch's layers are whole."""
    if isinstance(layer, Form) or is_whole(layer) or not any(True for _ in layer.children()):
        return []
    return [name for name, _ in layer.named_parameters(recurse=False)]


def _running_form(form: Form) -> tuple[nn.Module, str]:
    quantized = isinstance(form.act, ActivationQuantizer)
    rounded = ", inputs rounded in float32" if quantized else ""
    match form:
        case Coded() if quantized:
            return form, "int8"  # the engine is named when the chain is built
        case Factored():
            parts = OrderedDict(act=form.act) if quantized else OrderedDict()
            parts |= OrderedDict(first=form.first, second=form.second)
            return nn.Sequential(parts), "two layers in sequence" + rounded
        case BlockCirculant():
            return form, fourier.NAME + rounded
        case Masked() if not quantized and form.geometry.kind == "linear" and csr.pays(form.dense()):
            return form, csr.NAME
        case Masked() | Coded() | CReLUFilters() if not quantized:
            return _plain(form)
    return form, f"{DENSE}, as {type(form).__name__}" + rounded


def _plain(form: Masked | Coded | CReLUFilters) -> tuple[nn.Module, str]:
    match form:
        case Masked():
            return form.dense_layer(), f"{DENSE}, zeros multiplied as well"
        case Coded():
            return form.dense_layer(), f"{DENSE}, {form.bits}-bit weights decoded to float32"
    base = replace(form.geometry, shape=tuple(form.base.shape)).layer(form.base, form.base_bias)
    return BaseAndNegative(base), f"{DENSE}, base filters once"
