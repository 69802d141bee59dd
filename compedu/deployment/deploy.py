"""What really runs at inference: one call builds it, and it names the kernel of every layer."""

import operator
from collections.abc import Mapping
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from compedu.deployment.float_layers import OWN, FloatLayers, float_layers, with_late_kernels
from compedu.deployment.integer_chain import IntegerChain, Multiply, Plan, engine_for
from compedu.deployment.kernels import int8
from compedu.deployment.kernels.simulated import Simulated
from compedu.deployment.lowering import plan_of
from compedu.deployment.patterns import integer_layer, simplified, source_of
from compedu.deployment.registry import INT8, as_itself
from compedu.errors import CompressionError
from compedu.forms import Form, outermost_forms
from compedu.graph import fold_batch_norm, only_consumer, trace
from compedu.graph.answers import remembered
from compedu.graph.copying import whole_copy
from compedu.graph.folding import refuse_noticed_folding
from compedu.graph.nodes import is_relu
from compedu.graph.own_hooks import refuse_hooks, refuse_recomputed_weights
from compedu.graph.replacement import obstacles
from compedu.graph.trace import owners_read_apart, replace_module
from compedu.graph.writes import hidden_write
from compedu.usable import refuse_unusable


class Deployed(nn.Module):
    """A network for inference, without gradients. It does not train: compress or train the model it was made from.

    `kernels` names for each layer that holds weights what runs; a name that begins with "float32" or "simulated" means
    float32 arithmetic. `notes` apply to the network as a whole; `plan` is the plan of its integer chain or None.
    """

    only_runs: ClassVar[bool] = True  # it cannot be saved

    def __init__(self, body: nn.Module, kernels: dict[str, str], notes: tuple[str, ...], channels_last: bool):
        super().__init__()
        self.body = body
        self.kernels = kernels
        self.notes = notes
        self.channels_last = channels_last
        self.eval().requires_grad_(False)

    @property
    def plan(self) -> Plan | None:
        """The steps of the integer chain, or None where the network does not run as one."""
        return self.body.plan if isinstance(self.body, IntegerChain) else None

    @torch.inference_mode()
    def forward(self, *inputs: Tensor) -> Any:
        """Return what the network returns for its inputs, computed in float32 or integers."""
        return self.body(*map(self.prepared, inputs))

    def prepared(self, x: Tensor) -> Tensor:
        """Return an input in the precision and memory format that the layers expect."""
        x = x.float() if x.is_floating_point() else x
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last and x.dim() == 4 else x

    def train(self, mode: bool = True) -> "Deployed":
        """Stay in evaluation mode; raise `ValueError` when asked to train."""
        if mode:
            raise ValueError("a deployed network does not train; train the model it was made from and deploy it again")
        return super().train(False)


class Alone(IntegerChain):
    """An integer chain of a single layer, called as that layer in a network that runs layer by layer."""

    def forward(self, input: Tensor) -> Tensor:
        """Return what the layer returns for `input`, in float32, in the memory format of a dense layer."""
        return super().forward(input).contiguous()


def deploy(model: nn.Module, example: Tensor | None = None) -> Deployed:
    """Return what runs when `model` is used; `model` is untouched.

    Batch normalization is folded into the layers before it. Layers with quantized weights and inputs run on
    integers, chained from layer to layer (8-bit products; fewer bits are held in 8). Networks with convolutions keep
    their tensors in channels-last order: up to twice as fast at batch 64, hardly slower at batch 1. Pruned linear
    layers run as sparse rows under the rule of `kernels.csr`. A network that cannot be traced, that overwrites what it
    reads again under another name, or that has forward hooks (these stay) runs layer by layer, and `notes` says so. A
    form whose weight the network reads besides calling it, or may read, runs as a dense layer: `example`, an input,
    decides where the graph does not. It is also run once: an input that does not fit fails here, and the kernels are
    warm.
    """
    refuse_unusable(model)
    refuse_recomputed_weights(model)
    copied = whole_copy(model).eval().requires_grad_(False).float()
    if isinstance(copied, Form) or not any(True for _ in copied.children()):
        copied = nn.Sequential(copied)  # a single layer gets the name "0"
    forms = outermost_forms(copied)
    apart = remembered(model, ("deploy",), copied, example, lambda: obstacles(copied, forms, example, rounding=True))
    layers = float_layers(copied, apart)
    body = layers.model
    convolutions = any(map(is_convolution, body.modules()))
    try:
        refuse_hooks(body)
        asked = "folding", "deployed", tuple(sorted(apart))
        remembered(model, asked, copied, None, lambda: refuse_noticed_folding(body))
        folded = fold_batch_norm(body)
        traced = trace(channels_last(folded) if convolutions else folded)
        if write := hidden_write(traced):
            raise CompressionError(f"{write}, so its operations run as they are written")
        if written := traced.meta["written"]:
            raise CompressionError(f"its forward pass changes the buffer {written[0]}, which a graph would not")
    except CompressionError as reason:
        deployed = _one_by_one(layers, str(reason))
    else:
        deployed = _traced(traced, layers, convolutions)
    if hasattr(model, "spec"):
        deployed.spec = model.spec
    if example is not None:
        deployed(example)
    return deployed


def engine() -> tuple[Any, tuple[str, ...]]:
    """Return the engine for integer products on this machine, and a note unless it is the native one."""
    capability = int8.available()
    if capability.name == int8.NAME:
        return int8.OneDNN(), ()
    return Simulated(), (f"integer layers are simulated: {capability.reason}",)


def channels_last(model: nn.Module) -> nn.Module:
    """Return `model` with its tensors of four dimensions, such as convolutions' weights, in that order; changes it."""
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.dim() == 4:
            # `contiguous` leaves tensors of one channel or one pixel as they are, for which convolutions are slower.
            tensor.data = tensor.data.clone(memory_format=torch.channels_last)
    return model


def _traced(traced: fx.GraphModule, layers: FloatLayers, images: bool) -> Deployed:
    kernels = called_kernels(traced, layers.kernels)
    modules = dict(with_late_kernels(traced, layers.late).named_modules())
    if not any(integer_layer(node, modules) for node in traced.graph.nodes):
        return Deployed(in_place(traced), unchained(kernels, modules), (), images)
    products, notes = engine()
    integers = IntegerChain(plan_of(traced), products)
    kernels |= {step.name: label(step, products) for step in integers.plan.steps if isinstance(step, Multiply)}
    return Deployed(integers, unchained(kernels, modules), notes, images)


def unchained(kernels: dict[str, str], modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Return `kernels` with the names of what runs for integer layers that another module calls, outside any chain."""
    return {name: as_itself(modules[name]) if kernel == INT8 else kernel for name, kernel in kernels.items()}


def _one_by_one(layers: FloatLayers, reason: str) -> Deployed:
    """Return the network with each integer layer as a chain of its own, between values in float32."""
    products, notes = engine()
    body = with_late_kernels(layers.model, layers.late)
    kernels = layers.kernels
    alone = [name for name, kernel in kernels.items() if kernel == INT8]
    for name in alone:
        layer = body.get_submodule(name)
        alone_chain = Alone(plan_of(trace(nn.Sequential(layer))), products)
        vars(alone_chain).update(layer.geometry.attributes)
        step = next(step for step in alone_chain.plan.steps if isinstance(step, Multiply))
        kernels[name] = f"{label(step, products)}, not chained"
        replace_module(body, layer, alone_chain)
    why = f"batch normalization stays, layers run one by one and memory format is as it was: {reason}"
    return Deployed(body, kernels, (*(notes if alone else ()), why), channels_last=False)


def called_kernels(traced: fx.GraphModule, kernels: dict[str, str]) -> dict[str, str]:
    """Return the kernels with a note at layers that the graph never runs; folded batch norms are left out.

    Of the parameters that a part of the network holds besides its layers, those that the graph reads are named.
    """
    modules = dict(traced.named_modules())
    called = {node.target for node in traced.graph.nodes if node.op == "call_module"}
    read = {node.target for node in traced.graph.nodes if node.op == "get_attr"}
    owners = owners_read_apart(traced)
    found = {}
    for name, kernel in kernels.items():
        layer = modules.get(name)
        if layer is not None and not has_tensors(layer):
            continue
        if kernel.startswith(OWN) and not any(_is_inside(name, target) for target in called):
            names = kernel.removeprefix(OWN).split(", ")
            used = [own for own in names if f"{name}.{own}".lstrip(".") in read]
            kernel = OWN + ", ".join(used)
            runs = bool(used)
        else:  # a module whose tensors are read runs itself, not the layers inside it
            runs = name in owners or any(_is_inside(name, target) or _is_inside(target, name) for target in called)
        found[name] = kernel if runs else "never runs at inference"
    return found


def _is_inside(name: str, outer: str) -> bool:
    """Return whether the module `name` is `outer` or inside it."""
    return name == outer or name.startswith(f"{outer}.")


def has_tensors(layer: nn.Module) -> bool:
    """Return whether `layer` or a part of it holds parameters or buffers."""
    return any(True for _ in layer.parameters()) or any(True for _ in layer.buffers())


def label(step: Multiply, products: Any) -> str:
    """Return the kernel's name of an integer layer."""
    inputs = (step.product.source.top + 1).bit_length() - 1
    narrow = "" if step.bits == inputs == 8 else f", {step.bits}-bit weights and {inputs}-bit inputs held in 8 bits"
    used = engine_for(step.product, products)
    wide = "" if used is products else ", as its sums might not fit in 32 bits"
    return f"{used.name}{narrow}{wide}"


def in_place(traced: fx.GraphModule) -> fx.GraphModule:
    """Return the graph with ReLUs that overwrite an input that nothing else reads, and views that take any order."""
    traced = simplified(traced)
    modules = dict(traced.named_modules())
    for node in traced.graph.nodes:
        source = source_of(node) if is_relu(node, modules) else None
        if source is not None and _is_fresh(source, modules) and only_consumer(source) is node:
            node.op = "call_function"
            node.target = torch.relu_
            node.args = (source,)
            node.kwargs = {}
        elif node.op == "call_method" and node.target == "view":
            node.target = "reshape"
    traced.recompile()
    return traced


def _is_fresh(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Return whether the output of `node` is a tensor of its own, not a view of another."""
    if node.op == "call_module":
        return type(modules[node.target]) in (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
    return node.target in (operator.add, torch.add)


def is_convolution(layer: nn.Module) -> bool:
    """Return whether `layer` is a two-dimensional convolution, ordinary or compressed."""
    return layer.geometry.kind == "conv2d" if isinstance(layer, Form) else isinstance(layer, nn.Conv2d)
