"""Which layers of a network can be compressed, which are selected, and how one is replaced."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from compedu.errors import CompressionError, Skip
from compedu.forms import Block, Form, Geometry, Reordered
from compedu.forms.attention import LINEAR
from compedu.graph.own_hooks import further_tensors, has_own_forward, move_hooks
from compedu.graph.trace import replace_module, shared_weights
from compedu.knobs import matches, value_for

NORMALIZATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm)  # a few values per channel: no method compresses them
TERM = re.compile(r'-?"[^"]*"|[^\s,]+')
NO_VALUE = "no pattern of the per-layer values matches it"
WORDS = ("all", "conv", "linear", "first", "last", "early", "late")


def compressible(model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Return the layers and forms of `model` that can be compressed, by name, and why other modules cannot."""
    layers: dict[str, nn.Module] = {}
    others: dict[str, str] = {}
    _visit(model, "", layers, others, set())
    for name in list(layers):
        if 0 in (shape := Geometry.of(layers[name]).shape):
            others[name] = f"has no weights (shape {shape})"
            del layers[name]
    for name, twin in shared_weights(model).items():
        if name in layers:
            others[name] = f"shares its weight with {twin}; a form of its own would store it twice"
            del layers[name]
    return layers, others


def _visit(module: nn.Module, name: str, layers: dict, others: dict, seen: set) -> None:
    if id(module) in seen or isinstance(module, NORMALIZATIONS):
        return
    seen.add(id(module))
    if has_own_forward(module) and isinstance(module, (Form, *LINEAR, nn.Conv2d)):
        others[name or "(network)"] = "has a forward of its own, which a form in its place would not run"
    elif isinstance(module, Reordered):
        others[name or "(network)"] = "is already compressed (Reordered): it only moves channels and has no weights"
    elif isinstance(module, Form) and not module.factors:
        layers[name] = module
    elif type(module) in (*LINEAR, nn.Conv2d):
        try:
            Geometry.of(module)
            layers[name] = module
        except Skip as reason:
            others[name] = str(reason)
        if own := further_tensors(module):
            layers.pop(name, None)
            others[name] = f"holds {', '.join(own)} besides its weight and bias, which no form would hold"
    else:
        if any(True for _ in module.parameters(recurse=False)) and not isinstance(module, Form):
            others[name or "(network)"] = f"{type(module).__name__} is not an ordinary linear or convolutional layer"
        for child, inner in module.named_children():
            _visit(inner, f"{name}.{child}" if name else child, layers, others, seen)


def selected(layers: Mapping[str, nn.Module], selection: str, others: Iterable[str] = ()) -> dict[str, nn.Module]:
    """Return the layers that `selection` names, in order; `others` are layers that cannot be compressed.

    A selection is a list of terms separated by commas or spaces: a layer's name, a pattern such as "conv*", or one of
    the words all, conv, linear, first, last, early (first half), late (second half); a term with a minus sign excludes.
    A selection that begins with an exclusion starts from all layers. A name with a comma or a space must be in
    double quotes. Raises `CompressionError` for a term that matches neither a layer nor one of the others.
    """
    terms = [term.replace('"', "") for term in TERM.findall(selection)]
    chosen = set(layers) if not terms or terms[0].startswith("-") else set()
    for term in terms:
        matching = _matching(layers, term.removeprefix("-"), others)
        chosen = chosen - matching if term.startswith("-") else chosen | matching
    return {name: layer for name, layer in layers.items() if name in chosen}


def _matching(layers: Mapping[str, nn.Module], term: str, others: Iterable[str]) -> set[str]:
    names = list(layers)
    half = (len(names) + 1) // 2
    kinds = {"conv": "conv2d", "linear": "linear"}
    if term in kinds:
        return {name for name in names if Geometry.of(layers[name]).kind == kinds[term]}
    words = {"all": names, "first": names[:1], "last": names[-1:], "early": names[:half], "late": names[half:]}
    matching = set(words.get(term, [name for name in names if matches(name, term)]))
    if not matching and names and term not in words and not any(matches(name, term) for name in others):
        raise CompressionError(
            f"no layer matches {term!r}; the layers are {', '.join(names)}, and the words {', '.join(WORDS)} work too; "
            "a name with a comma or a space must be in double quotes"
        )
    return matching


def check_patterns(value: Any, layers: Mapping[str, nn.Module], where: str, others: Iterable[str] = ()) -> None:
    """Raise `CompressionError` for a pattern of a per-layer mapping that matches none of `layers` and `others`."""
    if isinstance(value, Mapping):
        for pattern in value:
            if not any(matches(name, pattern) for name in (*layers, *others)):
                raise CompressionError(f"{where}: no layer matches {pattern!r}; the layers are {', '.join(layers)}")


def given_value(value: Any, layer: str) -> Any:
    """Return the value of a per-layer knob for `layer`; raise `Skip` if none of its patterns matches."""
    given = value_for(value, layer)
    if given is None:
        raise Skip(NO_VALUE)
    return given


def keep_frozen(before: nn.Module, after: nn.Module) -> None:
    """Freeze in `after` what is frozen in `before`: the bias, and the parameters that represent the weight.

    Factors represent the weight together.
    """
    frozen = {
        parameter_name == "bias" for parameter_name, p in before.named_parameters(recurse=False) if not p.requires_grad
    }
    factors = after.factors if isinstance(after, Form) else ()
    for part in (after, *factors):
        for parameter_name, parameter in part.named_parameters(recurse=part is not after):
            if (parameter_name.rpartition(".")[2] == "bias") in frozen:
                parameter.requires_grad_(False)


def works_only_when_called(layer: nn.Module) -> bool:
    """Tell whether no weight describes what `layer` computes: a block has none, a scaled output reads the input."""
    return isinstance(layer, Block) or (isinstance(layer, Form) and layer.scales_output)


def replace_layer(model: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Replace the layer called `name` by `layer`, under every name that it has; return the model.

    The activation quantizer, the hooks and the user's attributes are kept; raises `Skip` as `move_hooks` does, and for
    a layer in place of a factor that no dense weight stands for.
    """
    before = model.get_submodule(name)
    around = model.get_submodule(name.rpartition(".")[0])
    if isinstance(around, Form) and works_only_when_called(layer):
        kind = type(layer).__name__
        raise Skip(f"is a factor of a {type(around).__name__}, which needs a dense weight; a {kind} is more than one")
    keep_frozen(before, layer)
    if isinstance(before, Form) and isinstance(layer, Form) and isinstance(layer.act, nn.Identity):
        layer.act = before.act
    layer.train(model.training)
    if not name:
        move_hooks(before, layer)
        return layer
    replace_module(model, before, layer)
    return model


def replace_layers(model: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    """Replace the layers of these names by `layers`, as `replace_layer` does; return the model."""
    for name, layer in layers.items():
        model = replace_layer(model, name, layer)
    return model
