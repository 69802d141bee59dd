"""Counting multiply-accumulates: a network runs once, and every operation that torch executes is seen.

Counted are products of matrices and convolutions, by the formulas of `torch.utils.flop_counter` from their actual
operand shapes, attention and transposed convolutions among them. Elementwise operations (normalization,
activations, pooling, resizing) are by convention not counted; products without a formula are named.
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

# These switches are the process's: a thread that found one turned off by another would leave it so.
_SWITCHES = threading.RLock()
_aten = torch.ops.aten
_VECTOR = {
    _aten.mv: 0,
    _aten.addmv: 1,
    _aten.dot: 0,
}  # products with a vector, and which argument has the more elements
# Operations of torch that multiply and add, but have no formula.
_WITHOUT_FORMULA = (
    "_trilinear",
    "mkldnn_",
    "miopen_",
    "quantized_",
    "_cdist",
    "_fft",
    "_linalg",
    "linalg_",
    "_transformer_encoder",
    "_native_multi_head",
    "_scaled_dot",
    "_scaled_mm",
    "_flash",
    "_efficient",
    "conv",
    "_conv",
    "_slow_conv",
    "addbmm",
    "_int_mm",
    "_sparse",
    "_addmm",
    "_weight_int",
)
_ELEMENT_BY_ELEMENT = ("linalg_vector_norm", "linalg_cross")
_NAMESPACES = ("aten", "prim", "prims", "profiler")


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates for one image: those of each module that computes products, by its name.

    `uncounted` names operations without a formula, each with the module that calls it.
    """

    layers: dict[str, int] = field(default_factory=dict)
    uncounted: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """All multiply-accumulates that could be counted."""
        return sum(self.layers.values())


class Counter(TorchDispatchMode):
    """Adds up the multiply-accumulates of each operation for the name on top of `inside`; None there stops counting."""

    def __init__(self):
        super().__init__()
        self.counts: dict[str, int] = {}
        self.uncounted: dict[str, None] = {}
        self.inside: list[str | None] = [""]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Let torch run `__torch_dispatch__` as it is: guarding it would import the compiler, which takes seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run an operation, or the simpler ones into which it decomposes, and count it."""
        operation = func.overloadpacket
        options = kwargs or {}
        if operation not in flop_registry and operation not in _VECTOR:
            with self:
                made = func.decompose(*args, **options)
            if made is not NotImplemented:
                return made
        made = func(*args, **options)
        if self.inside[-1] is not None:
            self.see(operation, func.namespace, args, options, made)
        return made

    def see(self, operation: Any, namespace: str, args: tuple, options: dict, made: Any) -> None:
        """Count one operation, or note that it has no formula."""
        name = operation.__name__
        if operation in flop_registry:
            self.add(self.inside[-1], flop_registry[operation](*args, **options, out_val=made) // 2)  # 2 FLOPs a MAC
        elif operation in _VECTOR:
            self.add(self.inside[-1], args[_VECTOR[operation]].numel())
        elif namespace not in _NAMESPACES or (name.startswith(_WITHOUT_FORMULA) and name not in _ELEMENT_BY_ELEMENT):
            self.uncounted[f"{name} in {self.inside[-1] or 'the network itself'}"] = None

    def add(self, name: str, macs: int) -> None:
        """Add multiply-accumulates to those of the module `name`."""
        self.counts[name] = self.counts.get(name, 0) + macs

    def watch(self, module: nn.Module, name: str | None) -> None:
        """Count the calls of `module` for `name`, but for what the modules do that it calls in turn."""

        def enter(module: nn.Module, inputs: tuple) -> None:
            self.inside.append(name)

        def leave(module: nn.Module, inputs: tuple, output: Any) -> None:
            self.inside.pop()

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)


@contextlib.contextmanager
def in_simple_steps() -> Iterator[None]:
    """Let torch run attention and transformer layers as products that have a formula, for one thread at a time."""
    with _SWITCHES:
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
