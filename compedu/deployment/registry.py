"""Which kernel runs in place of a form: the first fitting entry for the class of the form.

A form without an entry runs as its dense layer, decoded once.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from compedu.deployment.kernels import csr, fourier, reorder
from compedu.forms import (
    ActivationQuantizer,
    BlockCirculant,
    CReLUFilters,
    Factored,
    Form,
    Masked,
    Quantized,
    Reordered,
)
from compedu.forms.form import Decoded

DENSE = "float32 dense"
INT8 = "int8"
ROUNDED = ", inputs rounded in float32"
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def rounds_inputs(form: Form) -> bool:
    """Return whether `form` rounds its inputs."""
    return isinstance(form.act, ActivationQuantizer)


def takes_floats(form: Form) -> bool:
    """Return whether `form` takes its inputs as they are."""
    return not rounds_inputs(form)


@dataclass(frozen=True)
class Kernel:
    """What forms of the class `form`, not of a subclass, become at inference where they fit.

    `name` is the kernel's name, or a function from the form to it. `make` returns the module that runs in place of the
    form, with layers of its own only if these are the form's factors; without it the form itself stays, as for a chain
    of integers. A `late` one replaces the form once the network is traced, as it must be a single node of the graph.
    """

    form: type[Form]
    name: str | Callable[[Form], str]
    make: Callable[[Form], nn.Module] | None = None
    fits: Callable[[Form], bool] = takes_floats
    late: bool = False

    def name_for(self, form: Form) -> str:
        """Return the kernel's name in place of `form`."""
        return self.name if isinstance(self.name, str) else self.name(form)


class BaseAndNegative(nn.Module):
    """A layer whose output is concatenated with its negative: base filters y to [y, -y]."""

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base

    def forward(self, input: Tensor) -> Tensor:
        """Return [y, -y] along the channels."""
        y = self.base(input)
        return torch.cat([y, -y], dim=1)


def factors_in_sequence(form: Factored) -> nn.Module:
    """Return the factors of `form` in sequence, which have kernels of their own."""
    parts = OrderedDict(act=form.act) if rounds_inputs(form) else OrderedDict()
    return nn.Sequential(parts | OrderedDict((name, form.get_submodule(name)) for name in form.factor_names))


def base_filters(form: CReLUFilters) -> nn.Module:
    """Return the base filters of `form`, run once, and concatenated with their negative."""
    base = replace(form.geometry, shape=tuple(form.base.shape)).layer(form.base, form.base_bias)
    return BaseAndNegative(base)


def sparse_rows(form: Masked) -> nn.Module:
    """Return the linear layer `form` in compressed sparse rows."""
    return csr.SparseLinear(form.dense(), form.bias)


def moved_channels(form: Form) -> nn.Module:
    """Return the layer that moves channels as `form` does."""
    return reorder.ReorderedChannels(cast(Reordered, form))


def runs_sparse(form: Masked) -> bool:
    """Return whether a pruned layer runs as sparse rows."""
    return takes_floats(form) and form.geometry.kind == "linear" and csr.pays(form.dense())


def runs_on_codes(form: Form) -> bool:
    """Return whether `form` is a quantized layer that runs as a product of integers."""
    return isinstance(form, Quantized) and form.fits_int8 and rounds_inputs(form)


def with_rounding(name: str, form: Form) -> str:
    """Return `name`, with a note where `form` rounds its inputs."""
    return name + (ROUNDED if rounds_inputs(form) else "")


def always(form: Form) -> bool:
    """Return True."""
    return True


KERNELS: tuple[Kernel, ...] = (
    Kernel(Quantized, INT8, None, runs_on_codes),  # the engine is named when the chain is built
    Kernel(Quantized, lambda form: f"{DENSE}, {form.bits}-bit weights decoded to float32", Form.dense_layer),
    Kernel(Masked, csr.NAME, sparse_rows, runs_sparse, late=True),
    Kernel(Masked, f"{DENSE}, zeros multiplied as well", Form.dense_layer),
    Kernel(
        Factored,
        lambda form: with_rounding(f"{COUNTS[len(form.factors)]} layers in sequence", form),
        factors_in_sequence,
        always,
    ),
    Kernel(BlockCirculant, lambda form: with_rounding(fourier.NAME, form), fourier.FourierLayer, always, late=True),
    Kernel(CReLUFilters, f"{DENSE}, base filters once", base_filters),
    Kernel(Reordered, reorder.NAME, moved_channels, late=True),
)


def decoded_name(form: Form) -> str:
    """Return the name of the kernel that any form can run as: its dense layer, decoded once."""
    scaled = ", output scaled" if form.scales_output else ""
    return with_rounding(f"{DENSE}, decoded from {type(form).__name__}{scaled}", form)


def decoded(form: Form) -> nn.Module:
    """Return an ordinary layer with the weight of `form`, or one that keeps its rounding and its output scale."""
    return form.dense_layer() if takes_floats(form) else Decoded(form)


DECODED = Kernel(Form, decoded_name, decoded, always)


def rounds_inside(form: Form) -> bool:
    """Return whether a layer inside of `form` rounds its inputs, which no decoded weight shows."""
    inner = (module for module in form.modules() if module is not form.act)
    return any(isinstance(module, ActivationQuantizer) for module in inner)


def as_itself(form: nn.Module) -> str:
    """Return the name of the kernel of a form that stays: its weight is decoded at each call."""
    return f"{DENSE}, as {type(form).__name__}{ROUNDED}"


UNDECODED = Kernel(Form, as_itself, None, rounds_inside)


def kernel_for(form: Form) -> Kernel:
    """Return the first of `KERNELS` for the class of `form` that fits, or else the dense layer decoded once.

    A form without an entry whose inner layers round their inputs stays as it is.
    """
    fitting = (kernel for kernel in KERNELS if kernel.form is type(form) and kernel.fits(form))
    return next(fitting, UNDECODED if rounds_inside(form) else DECODED)
