"""A network's own hooks: moved along when a layer is replaced, or named where they would be lost."""

from functools import cache
from typing import Any

from torch import nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from compedu.errors import CompressionError, Skip
from compedu.forms.form import Form

_KEPT_IN = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)
_MADE_FINAL_BY = {
    WeightNorm: "torch.nn.utils.remove_weight_norm(layer)",
    SpectralNorm: "torch.nn.utils.remove_spectral_norm(layer)",
    BasePruningMethod: "torch.nn.utils.prune.remove(layer, name)",
}


def has_hooks(module: nn.Module) -> bool:
    """Return whether a hook of the user's runs before or after the forward pass of `module`."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def has_own_forward(module: nn.Module) -> bool:
    """Return whether `module` runs a function of the user's instead of the forward pass of its class."""
    return "forward" in vars(module)


def refuse_hooks(model: nn.Module) -> None:
    """Raise `CompressionError` naming the first module of `model` with hooks, which a graph leaves out."""
    for name, module in model.named_modules():
        if has_hooks(module):
            raise CompressionError(f"{name or 'the network itself'} has forward hooks, which a graph would leave out")


def move_hooks(old: nn.Module, new: nn.Module) -> None:
    """Let the hooks of `old` run at `new`, which has none; their handles keep working.

    Other attributes that the user set on `old`, which hooks may read, move along. Raises `Skip` where a form `new` has
    an attribute of its own by such a name.
    """
    if has_hooks(old) or old._backward_hooks or old._backward_pre_hooks:
        for name in _KEPT_IN:
            setattr(new, name, getattr(old, name))
    attributes = own_attributes(old)
    for name in attributes:
        if isinstance(new, Form) and name not in own_attributes(new) and hasattr(new, name):
            raise Skip(f"it has an attribute {name!r} of its own, and so has the {type(new).__name__} in its place")
    vars(new).update(attributes)
    if isinstance(new, Form):
        new.carried = tuple(attributes)


def own_attributes(layer: nn.Module) -> dict[str, Any]:
    """Return the attributes that the user set on an ordinary layer, or that a form carries along for it."""
    if isinstance(layer, Form):
        return {name: vars(layer)[name] for name in layer.carried if name in vars(layer)}
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        return {}
    return {name: value for name, value in vars(layer).items() if name not in _standard(_kind(layer))}


def further_tensors(layer: nn.Module) -> list[str]:
    """Return the parameters, buffers and modules that a layer has besides its weight and bias, by name."""
    return [*sorted(layer._parameters.keys() - {"weight", "bias"}), *layer._buffers, *layer._modules]


def _kind(layer: nn.Module) -> type[nn.Module]:
    return nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d


@cache
def _standard(kind: type[nn.Module]) -> frozenset[str]:
    """Return the attributes that every layer of a `kind` has; a forward set on a layer never moves."""
    layer = kind(1, 1) if kind is nn.Linear else kind(1, 1, 1)
    return frozenset(vars(layer)) | {"forward"}


def refuse_recomputed_weights(model: nn.Module) -> None:
    """Raise `CompressionError` naming the first layer whose weight is recomputed before each forward pass.

    Until then, as after `load_state_dict`, such a weight is out of date: torch's older `weight_norm`, `spectral_norm`
    and `prune` work like that, by a hook. Parametrizations compute a weight whenever it is read, and are accepted.
    """
    for name, module in model.named_modules():
        if reason := _recomputed(module):
            raise CompressionError(
                f"layer {name or type(module).__name__!r}: {reason}; make its weight final first and call again"
            )


def _recomputed(module: nn.Module) -> str:
    """Return how the weight of `module` is recomputed, and what makes it final; empty where it is a parameter."""
    for hook in module._forward_pre_hooks.values():
        for kind, call in _MADE_FINAL_BY.items():
            if isinstance(hook, kind):
                return (
                    f"the hook {type(hook).__name__} recomputes its weight before each forward pass, so that until "
                    f"then it can be out of date ({call} makes it final)"
                )
    if type(module) in (nn.Linear, nn.Conv2d) and module._parameters.get("weight") is None:
        return "its weight is not a parameter, so that whatever sets it may not have done so yet"
    return ""
