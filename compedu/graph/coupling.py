"""Which channels hang together: torch-pruning's dependency groups, read once and made into plain arrays.

torch-pruning (Fang et al. 2023, arXiv:2301.12900) follows the channels through the autograd graph of one forward pass.
Its known gaps are closed here: the network's input and outputs are made visible to it, forms stand as ordinary layers,
grouped convolutions keep equal groups, and whatever it would have to guess (free parameters, normalizations over
channels, layers used twice) pins its channels with a reason instead.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import torch_pruning
from torch import Tensor, fx, nn
from torch_pruning.dependency.index_mapping import _FlattenIndexMapping
from torch_pruning.ops import OPTYPE

from compedu.errors import CompressionError, first_line
from compedu.forms.form import Form
from compedu.graph.trace import inference_copy, is_plain, layer_calls, replace_module, shared_weights

OUTPUT, INPUT = "output", "input"
MOST_CHANNELS = 2**20  # of one flattened tensor: many times what any known network has
Side = tuple[str, str]  # layer name, OUTPUT or INPUT

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_TRANSPARENT = {
    OPTYPE.CONCAT, OPTYPE.SPLIT, OPTYPE.ELEMENTWISE, OPTYPE.RESHAPE, OPTYPE.UNBIND, OPTYPE.EXPAND, OPTYPE.SLICE,
}
# Behind these, several channels of one layer can meet in one place.
_DIVIDING = {OPTYPE.SPLIT, OPTYPE.UNBIND, OPTYPE.SLICE}
# torch-pruning would take these for element-wise, or lose itself in them for minutes.
_MIXING = {
    "addmm", "baddbmm", "bilinear", "bmm", "conv1d", "conv2d", "conv3d", "conv_transpose2d", "einsum", "fold", "linear",
    "matmul", "mm", "multi_head_attention_forward", "pixel_shuffle", "pixel_unshuffle", "roll",
    "scaled_dot_product_attention", "tensordot", "unfold",
}
_KNOWN_HOMES = ("torch.", "_operator.", "builtins.", "math.", "torchvision.ops.")


@dataclass
class Coupling:
    """What was read: every channel has an id; equal ids and tied ids are removed together, pinned ids never.

    `ids[layer, side]` holds one id below `count` per channel of that side, or -1 where none was found. `ties` are
    arrays of ids of shape (n, 2), `pins` pair ids with a reason.
    """

    ids: dict[Side, np.ndarray] = field(default_factory=dict)
    count: int = 0
    ties: list[np.ndarray] = field(default_factory=list)
    pins: list[tuple[np.ndarray, str]] = field(default_factory=list)

    def put(self, side: Side, length: int, channels: np.ndarray, new: np.ndarray) -> None:
        """Give `channels` of one side of a layer the ids `new`, tied to the ids that they may already have."""
        if len(channels) and channels.max() >= length:
            self.pins.append((new, f"does not fit the {length} {side[1]} channels of {side[0]!r}"))
            return
        held = self.ids.setdefault(side, np.full(length, -1))
        old = held[channels]
        self.ties.append(np.stack([old[old >= 0], new[old >= 0]], axis=1))
        held[channels] = np.where(old >= 0, old, new)

    def pin(self, side: Side, reason: str) -> None:
        """Keep all channels of one side of a layer."""
        if side in self.ids:
            self.pins.append((self.ids[side][self.ids[side] >= 0], reason))


def read_coupling(model: nn.Module, traced: fx.GraphModule, example: Tensor) -> Coupling:
    """Return the coupling of the channels of `model`, which is untouched; `traced` is its graph.

    `example` is one batch of inputs, of which only the shape matters. Raises `CompressionError` with the reason when
    torch-pruning cannot follow the network.
    """
    _refuse_mixing(model, traced)
    # Layers outside the inference graph, such as auxiliary heads, read channels in training: then follow that forward.
    called = layer_calls(traced)
    training = any(name not in called and is_plain(layer) for name, layer in modules_outside_forms(model))
    dtype, device = _kind(model)
    skeleton = _skeleton(model).to(device, dtype)
    source = nn.Parameter(torch.zeros(2 if training else 1, *example.shape[1:], dtype=dtype, device=device))
    graph = torch_pruning.DependencyGraph()
    try:
        with _bounded_lists(), torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            graph.build_dependency(
                skeleton, (), lambda network, _: _outputs(network.train(training), source),
                unwrapped_parameters=[(source, 1)], verbose=False,
            )
            groups = [list(_exact_groups(graph, group)) for group in graph.get_all_groups()]
        return _couple(model, skeleton, source, groups, called)
    except Exception as error:  # torch-pruning lets divisions by zero, failed assertions and more escape
        raise CompressionError(_refusal(model, _failure(example, training, error))) from error


@contextlib.contextmanager
def _bounded_lists() -> Iterator[None]:
    """Let torch-pruning raise where the channels of a flattened tensor multiply at each visit, until memory ends."""
    before = _FlattenIndexMapping.__call__

    def bounded(self, indices):
        if len(indices) * (1 if self.reverse else self._stride) > MOST_CHANNELS:
            raise ValueError("a tensor is flattened and averaged side by side, where its channels cannot be counted")
        return before(self, indices)

    _FlattenIndexMapping.__call__ = bounded
    try:
        yield
    finally:
        _FlattenIndexMapping.__call__ = before


def _couple(model: nn.Module, skeleton: nn.Module, source: nn.Parameter, groups, called) -> Coupling:
    coupling = Coupling()
    names = {module: name for name, module in skeleton.named_modules()}
    for parts in groups:
        base = coupling.count
        coupling.count += 1 + max(root for part in parts for root in part[0].root_idxs)
        for part in parts:
            _read_group(coupling, base, part, names, source)
    _pin_special_layers(coupling, model, called)
    _tie_grouped_convolutions(coupling, model)
    return coupling


def _refuse_mixing(model: nn.Module, traced: fx.GraphModule) -> None:
    for node in traced.graph.nodes:
        if node.op not in ("call_function", "call_method"):
            continue
        name = node.target if node.op == "call_method" else node.target.__name__
        home = getattr(node.target, "__module__", None) or "torch"
        if name in _MIXING or not f"{home}.".startswith(_KNOWN_HOMES):
            place = next(reversed(node.meta.get("nn_module_stack", {})), "")
            where = f"module {place!r}" if place else "its own forward"
            raise CompressionError(_refusal(model, f"{where} calls {name!r}, whose effect on channels is not known"))


def _refusal(model: nn.Module, reason: str) -> str:
    return (
        f"the channels of {type(model).__name__} cannot be followed: {reason}. Channel removal needs a network of "
        "Conv2d, Linear and batch-norm layers, activations, pooling, sums and concatenations; methods that work layer "
        "by layer still apply to this network."
    )


def _failure(example: Tensor, training: bool, error: Exception) -> str:
    mode = " in training mode, which its layers outside the inference graph need," if training else ""
    shape = tuple(example.shape)
    return f"torch-pruning failed{mode} on an input of shape {shape} with {type(error).__name__}: {first_line(error)}"


def modules_outside_forms(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of `model` with their names, without those inside forms."""
    for name, child in model.named_children():
        yield prefix + name, child
        if not isinstance(child, Form):
            yield from modules_outside_forms(child, f"{prefix}{name}.")


def is_depthwise(layer: nn.Module) -> bool:
    """Return whether `layer` is a convolution with one input and one output channel in each of several groups."""
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels > 1


def _skeleton(model: nn.Module) -> nn.Module:
    """Return a private copy that torch-pruning can follow: every parameter with a gradient, forms as plain layers."""
    tensors: dict[int, Tensor] = {id(p): nn.Parameter(p.detach()) for p in model.parameters()}
    tensors |= {id(b): b.detach().clone() for b in model.buffers()}
    skeleton = inference_copy(model, tensors)
    for name, layer in list(modules_outside_forms(skeleton)):
        if isinstance(layer, Form):
            stand_in = layer.geometry.layer(torch.zeros(layer.geometry.shape), None)
        elif isinstance(layer, nn.Conv2d) and layer.groups == layer.out_channels != layer.in_channels:
            # torch-pruning takes it for depthwise and would give its outputs the numbers of its inputs.
            stand_in = nn.Conv2d(
                layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation
            )
        else:
            continue
        replace_module(skeleton, layer, stand_in)
    return skeleton


def _kind(model: nn.Module) -> tuple[torch.dtype, torch.device]:
    floats = (p for p in model.parameters() if p.is_floating_point())
    return next(((p.dtype, p.device) for p in floats), (torch.float32, torch.device("cpu")))


def _outputs(network: nn.Module, source: nn.Parameter) -> list[Tensor]:
    # The product by one gives every output a node of its own, so that a layer that ends the network is seen to do so.
    return [out * 1 for out in torch_pruning.utils.flatten_as_list(network(source * 1)) if out.requires_grad]


def _exact_groups(graph: torch_pruning.DependencyGraph, group) -> Iterator:
    """Yield `group`, or one group per channel where torch-pruning would keep only the first of several that meet."""
    if not any(item.dep.target.type in _DIVIDING for item in group.items):
        yield group
        return
    root = group[0].dep
    for channel in group[0].idxs:
        yield graph.get_pruning_group(root.target.module, root.handler, [channel])


def _read_group(coupling: Coupling, base: int, group, names: dict[nn.Module, str], source: nn.Parameter) -> None:
    for item in group.items:
        node, new = item.dep.target, base + np.asarray(item.root_idxs)
        layer, channels = node.module, np.asarray(item.idxs)
        if node.type in (OPTYPE.CONV, OPTYPE.LINEAR, OPTYPE.BN, OPTYPE.DEPTHWISE_CONV, OPTYPE.PRELU):
            _read_layer(coupling, names[layer], layer, item.dep.handler.__name__, channels, new)
        elif node.type == OPTYPE.OUTPUT:
            coupling.pins.append((new, "its channels are the network's output"))
        elif node.type == OPTYPE.PARAMETER:
            what = "network's input" if layer is source else "free parameter"
            coupling.pins.append((new, f"its channels are added to or joined with a {what}"))
        elif node.type not in _TRANSPARENT:
            coupling.pins.append((new, f"its channels go through {names[layer]!r}, a {type(layer).__name__}"))


def _read_layer(coupling, name: str, layer: nn.Module, handler: str, channels: np.ndarray, new: np.ndarray) -> None:
    if isinstance(layer, nn.PReLU):
        if layer.num_parameters > 1:
            coupling.put((name, OUTPUT), layer.num_parameters, channels, new)
        return
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        coupling.put((name, OUTPUT), layer.num_features, channels, new)
        return
    # Depthwise convolutions have one set of channels; torch-pruning calls the same function for either side.
    reads = handler == "prune_in_channels"
    linear = isinstance(layer, nn.Linear)
    inputs, outputs = (layer.in_features, layer.out_features) if linear else (layer.in_channels, layer.out_channels)
    coupling.put((name, INPUT if reads else OUTPUT), inputs if reads else outputs, channels, new)


def _pin_special_layers(coupling: Coupling, model: nn.Module, called: dict[str, list[fx.Node]]) -> None:
    tied = set(shared_weights(model))
    for name in {name for name, _ in coupling.ids}:
        layer = model.get_submodule(name)
        if len(called.get(name, ())) > 1:
            reason = f"{name!r} is used {len(called[name])} times"
        elif name in tied:
            reason = f"{name!r} shares a parameter with another layer"
        elif isinstance(layer, Form):
            reason = f"{name!r} is already compressed ({type(layer).__name__}): remove channels first"
        elif not is_plain(layer) and type(layer) not in (*BATCH_NORMS, nn.PReLU):
            reason = f"{name!r} is a {type(layer).__name__}, not a plain Conv2d, Linear or batch norm"
        else:
            continue
        coupling.pin((name, OUTPUT), reason)
        coupling.pin((name, INPUT), reason)


def _tie_grouped_convolutions(coupling: Coupling, model: nn.Module) -> None:
    """Tie the channels at the same place in every group, so that all groups of a convolution stay equally wide."""
    for (name, side), ids in coupling.ids.items():
        layer = model.get_submodule(name)
        if not isinstance(layer, nn.Conv2d) or layer.groups == 1 or is_depthwise(layer):
            continue
        rows = ids.reshape(layer.groups, -1)
        loose = (rows < 0).any(axis=0)
        coupling.pins.append((rows[:, loose][rows[:, loose] >= 0], f"{name!r} has groups of which a part is fixed"))
        whole = rows[:, ~loose]
        coupling.ties += [np.stack([whole[0], row], axis=1) for row in whole[1:]]
