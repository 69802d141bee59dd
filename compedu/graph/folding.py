"""Batch-norm folding: the affine map of a batch normalization goes into the layer before it."""

from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase

from compedu.errors import CompressionError
from compedu.graph.copying import shared_copy, with_own_tensors
from compedu.graph.nodes import called_name, is_question
from compedu.graph.norms import behind, is_batch_norm
from compedu.graph.operations import ELEMENTWISE, POOLING, key
from compedu.graph.own_hooks import has_hooks
from compedu.graph.trace import (
    is_plain,
    layer_calls,
    only_readers,
    owners_read_apart,
    replace_module,
    trace,
)

_BEHIND = {nn.Conv2d: nn.BatchNorm2d, nn.Linear: nn.BatchNorm1d}


def batch_norm_pairs(model: nn.Module) -> list[tuple[str, str]]:
    """Return the names (layer, batch norm) that can be folded, in the order in which they run.

    A pair is a plain Conv2d or Linear, used once, and a batch norm with running statistics, used once, that is the only
    reader of the layer's output; neither has forward hooks, nor does the network read their tensors directly.
    After a Linear the output must be (batch, features) whatever the input is, as after a flattening: of three
    dimensions a batch norm takes the second, not the last. Raises `CompressionError` when `model` cannot be traced.
    """
    if not any(isinstance(module, _NormBase) for module in model.modules()):
        return []
    traced = trace(model)
    modules = dict(traced.named_modules())
    calls = layer_calls(traced)
    ranks = dimensions(traced)
    apart = owners_read_apart(traced)
    pairs = []
    for name, reader in only_readers(traced).items():
        layer = modules[name]
        norm = modules[reader]
        if not is_plain(layer) or not isinstance(norm, _BEHIND[type(layer)]) or not is_batch_norm(norm):
            continue
        if apart & {name, reader} or has_hooks(layer) or has_hooks(norm):
            continue
        fits = norm.num_features == layer.weight.shape[0] and norm.running_mean is not None
        along = type(layer) is nn.Conv2d or ranks[calls[name][0]] == 2
        if fits and along and len(calls[reader]) == 1:
            pairs.append((name, reader))
    return pairs


def dimensions(traced: fx.GraphModule) -> dict[fx.Node, int | None]:
    """Return for each node how many dimensions its result has; None where the graph alone does not show it."""
    modules = dict(traced.named_modules())
    ranks = {}
    for node in traced.graph.nodes:
        before = {ranks[source] for source in node.all_input_nodes if not is_question(source)}
        ranks[node] = _rank(node, modules, before.pop() if len(before) == 1 else None)
    return ranks


def _rank(node: fx.Node, modules: Mapping[str, nn.Module], before: int | None) -> int | None:
    """Return the dimensions of a result whose inputs all have `before` dimensions."""
    if node.op not in ("call_module", "call_function", "call_method"):
        return None
    module = modules[node.target] if node.op == "call_module" else None
    if isinstance(module, nn.Conv2d):
        return 4
    name = key(called_name(node) if module is None else type(module).__name__)
    rest = node.args[1:]
    if name == "flatten":
        places = (module.start_dim, module.end_dim) if module is not None else (*rest, *node.kwargs.values())
        return 2 if places in ((1,), (1, -1)) else None
    if name in ("view", "reshape"):
        sizes = rest[0] if rest and isinstance(rest[0], (list, tuple)) else rest
        return len(sizes) if len(sizes) > 1 else None  # one may be the shape of another tensor
    if name == "mean":
        dims = rest[0] if rest else node.kwargs.get("dim")
        reduced = isinstance(dims, (list, tuple)) and len(rest) < 2 and "keepdim" not in node.kwargs
        return before - len(dims) if before and reduced else None
    kept = name in ELEMENTWISE or POOLING.match(name) or isinstance(module, (nn.Linear, _NormBase))
    return before if kept else None


def folded_weight(weight: Tensor, bias: Tensor | None, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return in float64 the weight and bias of a single layer that equals `weight` and `bias` followed by `norm`.

    w' = w * gamma / sqrt(var + eps), b' = (b - mean) * gamma / sqrt(var + eps) + beta (Jacob et al. 2018,
    arXiv:1712.05877, section 3.2). `weight` has shape (out, ...), one entry of `norm` per output.
    """
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    offset = -norm.running_mean.double() if bias is None else bias.double() - norm.running_mean.double()
    # Scaled before beta is added: beta is not normalized.
    offset = offset * scale
    if norm.bias is not None:
        offset = offset + norm.bias.double()
    return weight.double() * scale.reshape(-1, *[1] * (weight.dim() - 1)), offset


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Return a copy of `model` whose batch norms are folded into the layers before them where that is possible.

    Computed in float64 and stored in the layer's own type; a layer without a bias gets one; a folded batch norm becomes
    what is `behind` it: an `nn.Identity` for torch's own. Valid in evaluation mode. Raises `CompressionError` when
    `model` cannot be traced.
    """
    pairs = batch_norm_pairs(model)
    folded = _without_norms(model, pairs)
    for layer_name, norm_name in pairs:
        layer = model.get_submodule(layer_name)
        norm = model.get_submodule(norm_name)
        with torch.no_grad():
            weight, bias = folded_weight(layer.weight, layer.bias, norm)
        old = layer.weight
        new = folded.get_submodule(layer_name)
        new.weight = nn.Parameter(weight.to(old.dtype), requires_grad=old.requires_grad)
        new.bias = nn.Parameter(bias.to(old.dtype), requires_grad=old.requires_grad)
    return with_own_tensors(folded, model)


def _without_norms(model: nn.Module, pairs: list[tuple[str, str]]) -> nn.Module:
    """Return a copy of `model`, with the same tensors, that has only what is behind the batch norms of `pairs`.

    Their layers have biases, of any values.
    """
    copy = shared_copy(model)
    for layer_name, norm_name in pairs:
        layer = copy.get_submodule(layer_name)
        norm = copy.get_submodule(norm_name)
        layer.bias = nn.Parameter(norm.running_mean.detach())
        left = behind(norm)
        left.num_features = norm.num_features  # networks may still read it
        replace_module(copy, norm, left)
    return copy


def refuse_noticed_folding(model: nn.Module) -> None:
    """Raise `CompressionError` where the forward pass of `model` takes another path once batch norms are folded."""
    pairs = batch_norm_pairs(model)
    if pairs and str(trace(_without_norms(model, pairs)).graph) != str(trace(model).graph):
        raise CompressionError(
            f"{type(model).__name__} takes another path when its batch norms are folded: its forward pass inspects them"
        )
