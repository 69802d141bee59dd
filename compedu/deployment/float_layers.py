"""Layers that run in float32: what each form becomes at inference, and the name of its kernel."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from compedu.deployment.registry import DENSE, Kernel, as_itself, kernel_for, rounds_inputs, rounds_inside
from compedu.forms import Form
from compedu.forms.attention import LINEAR
from compedu.graph.own_hooks import move_hooks
from compedu.graph.trace import replace_module

OWN = "float32, parameters of its own: "


class FloatLayers(NamedTuple):
    """A network with its forms replaced by what runs, and the kernel of each layer that holds weights, by its name.

    The forms in `late`, with the kernels that they get, stay in it until `with_late_kernels`.
    """

    model: nn.Module
    kernels: dict[str, str]
    late: dict[str, Kernel]


def float_layers(model: nn.Module, apart: Collection[str] = ()) -> FloatLayers:
    """Return `model` with its forms replaced by what runs; changes `model`, which must be a private copy.

    The forms `apart` are not only called, and become dense layers, whose weight can also be read. Quantized layers with
    quantized inputs stay, to run on integers once the network is traced.
    """
    replaced = _Replaced(apart)
    return FloatLayers(replaced.by_what_runs(model, ""), replaced.kernels, replaced.late)


class _Replaced:
    """One walk through a network."""

    def __init__(self, apart: Collection[str]):
        self.apart = apart
        self.kernels: dict[str, str] = {}
        self.late: dict[str, Kernel] = {}
        self.made: dict[nn.Module, nn.Module] = {}

    def by_what_runs(self, module: nn.Module, name: str) -> nn.Module:
        """Return what runs in place of `module`, called `name`, with all that is inside it."""
        if module in self.made:  # registered twice: it stays a single layer
            return self.made[module]
        new, kernel = self.running(module, name)
        if new is not module:
            stand_in(module, new)
        if kernel is not None:
            self.kernels[name] = kernel
        self.made[module] = new
        if not isinstance(module, Form) or (new is not module and module.factors):
            for child, inner in list(new.named_children()):
                setattr(new, child, self.by_what_runs(inner, f"{name}.{child}" if name else child))
        return new

    def running(self, module: nn.Module, name: str) -> tuple[nn.Module, str | None]:
        """Return the module that runs in place of `module` alone, and its kernel's name, if it has weights."""
        if not isinstance(module, Form):
            return module, kernel_of_module(module)
        if name in self.apart:
            return running_dense(module)
        kernel = kernel_for(module)
        if kernel.late:
            self.late[name] = kernel
        stays = kernel.late or kernel.make is None
        return module if stays else kernel.make(module), kernel.name_for(module)


def with_late_kernels(model: nn.Module, late: Mapping[str, Kernel]) -> nn.Module:
    """Return `model` with the kernels in place that waited for its graph; changes `model`, which may be a traced one.

    A traced one lacks layers that its graph does not run.
    """
    modules = dict(model.named_modules())
    for name in late.keys() & modules.keys():
        replace_module(model, modules[name], stand_in(modules[name], late[name].make(modules[name])))
    return model


def stand_in(form: Form, layer: nn.Module) -> nn.Module:
    """Give `layer`, which runs in place of `form`, the attributes that networks read, and the hooks; return it."""
    vars(layer).update(form.geometry.attributes)
    move_hooks(form, layer)
    return layer


def kernel_of_module(layer: nn.Module) -> str | None:
    """Return the kernel's name of a module that is not a form; None for modules without weights of their own.

    Modules inside `layer` have kernels of their own; the parameters that it holds besides them are named.
    """
    if isinstance(layer, _NormBase):
        return "float32 normalization, not folded"
    if type(layer) in (*LINEAR, nn.Conv2d):
        return DENSE
    if apart := parameters_apart(layer):
        return OWN + ", ".join(apart)
    return f"float32 {type(layer).__name__}" if any(True for _ in layer.parameters(recurse=False)) else None


def running_dense(form: Form) -> tuple[nn.Module, str]:
    """Return what runs in place of a form whose weight may be read by itself, and its kernel's name.

    That is an ordinary layer, unless inputs are rounded.
    """
    if rounds_inputs(form) or rounds_inside(form):
        return form, as_itself(form)
    return form.dense_layer(), f"{DENSE}, from {type(form).__name__}"


def is_whole(layer: nn.Module) -> bool:
    """Return whether `layer` is one of torch's own that uses the weights of the layers inside it."""
    holding = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return type(layer).__module__.startswith("torch.nn.modules.") and not isinstance(layer, holding)


def parameters_apart(layer: nn.Module) -> list[str]:
    """Return the parameters that a part of a network holds besides other layers; none for forms and torch's layers."""
    if isinstance(layer, Form) or is_whole(layer) or not any(True for _ in layer.children()):
        return []
    return [name for name, _ in layer.named_parameters(recurse=False)]
