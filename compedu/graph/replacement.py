"""The law of replacement: with forms in place of layers a network computes what it does with their dense weights."""

from collections.abc import Callable, Collection, Iterable

from torch import Tensor, nn

from compedu.errors import CompressionError, Skip, first_line
from compedu.forms.form import Form, Geometry
from compedu.forms.walk import outermost_forms, outside_forms
from compedu.graph.copying import inference_copy
from compedu.graph.meaning import meant_network, put_stand_in
from compedu.graph.own_hooks import has_hooks, move_hooks
from compedu.graph.precise import TOLERANCE, difference, fill_at_each_call, float64_copy, outputs_of
from compedu.graph.probes import Probe, hollow, not_shown
from compedu.graph.trace import is_plain, replace_module

OWN_PRECISION = 1e-3  # relative, in a network's own precision: rounding in float32 is far less
GIVE_DATA = "give data, so that the network can be run on an image"


def obstacles(
    model: nn.Module, layers: Iterable[str], example: Tensor | None, rounding: bool = False
) -> dict[str, str]:
    """Return why a form cannot take the place of some of the `layers` of `model`, by name; forms there count as layers.

    Where the network only calls a layer, the graph shows it. Else probes take the places of the layers in a copy, which
    must return in float64 what the copy returned before, on `example`, with and without gradients. With `rounding` the
    form rounds its inputs or scales its output, which is lost wherever the network reads a weight instead of calling
    the layer. The weight of a form that scales its output cannot be read.
    """
    outer = {name: place for name, place in _outermost(model, layers).items() if not _scales(model, place)}
    found = not_shown(model, list(dict.fromkeys(outer.values())))
    if found and example is None:
        found = {name: f"{reason}; {GIVE_DATA}" for name, reason in found.items()}
    elif found:
        try:
            found = _seen_on(example, model, list(found), rounding)
        except CompressionError as error:
            found = {name: f"{reason}, and {error}" for name, reason in found.items()}
    return {name: found[place] for name, place in outer.items() if place in found}


def differing_forms(source: nn.Module, result: nn.Module, example: Tensor) -> dict[str, str] | None:
    """Return the forms of `result` that compute something else than their dense weights do in `source`, and how.

    The reference is `meant_network` of the two. Compared on `example` in float64, or in the network's own precision
    where `source` does not run in float64, with and without gradients; activations are not rounded. None where
    `source` itself does not run on the example: nothing is compared then.
    """
    names = outermost_forms(result)
    if not names:
        return {}
    read = _apart(source)
    precise = _runs_precisely(source, read, example)
    if precise is None:
        return None
    apart = read | _apart(result)
    try:
        expected = both_ways(meant_network(source, result, (), apart, precise), example, precise)
    except Exception as error:  # a forward pass may raise anything
        return dict.fromkeys(names, failure(error))

    def problem(forms: list[str]) -> str | None:
        try:
            whole = forms == names
            network = (
                float64_twin(result, (), apart, precise)
                if whole
                else meant_network(source, result, forms, apart, precise)
            )
            found = both_ways(network, example, precise)
        except Exception as error:  # a forward pass may raise anything
            return failure(error)
        return difference(found, expected, TOLERANCE if precise else OWN_PRECISION)

    return _guilty(names, problem)


def _runs_precisely(model: nn.Module, apart: set[str], example: Tensor) -> bool | None:
    """Return whether `model` runs in float64 on `example`, or only in its own precision; None where it does not run."""
    for precise in (True, False):
        try:
            both_ways(float64_twin(model, (), apart, precise), example, precise)
        except Exception:  # a forward pass may raise anything
            continue
        return precise
    return None


def _guilty(names: list[str], problem: Callable[[list[str]], str | None]) -> dict[str, str]:
    """Return which of `names` have a `problem` on their own, or else only together, and what it is."""
    if problem(names) is None:
        return {}
    guilty = {name: found for name in names if (found := problem([name])) is not None}
    rest = [name for name in names if name not in guilty]
    together = problem(rest) if rest else None
    return guilty if together is None else guilty | dict.fromkeys(rest, together)


def _outermost(model: nn.Module, layers: Iterable[str]) -> dict[str, str]:
    """Return for each of `layers` the outermost form that contains it, or itself."""
    forms = outermost_forms(model)
    return {name: next((form for form in forms if name.startswith(f"{form}.")), name) for name in layers}


def float64_twin(model: nn.Module, dense: Collection[str], apart: Collection[str], precise: bool = True) -> nn.Module:
    """Return a copy of `model` that computes in float64, with ordinary layers in place of the forms `dense`.

    The other forms do not round their inputs. Layers that are not `apart` are converted while they run. A copy that is
    not `precise` computes in the precision of `model`. A form that scales its output is replaced by what the law
    of forms says of it.
    """
    network = inference_copy(model)
    scaled = {name for name in dense if _scales(model, name)}
    for name in scaled:
        network = put_stand_in(network, name, network.get_submodule(name))
    network = float64_copy(network, apart) if precise else network
    for form in [module for module in network.modules() if isinstance(module, Form)]:
        form.act = nn.Identity()
    for name in [name for name in dense if name not in scaled]:
        form = network.get_submodule(name)
        layer = form.dense_layer() if name in apart else hollow(form)
        if not name:
            move_hooks(form, layer)
            network = layer
        replace_module(network, form, layer)
        if name not in apart:
            _fill_from(form, layer)
    return network


def _scales(model: nn.Module, name: str) -> bool:
    """Return whether the layer `name` is a form that scales its output."""
    layer = model.get_submodule(name)
    return isinstance(layer, Form) and layer.scales_output


def _fill_from(form: Form, layer: nn.Module) -> None:
    """Give `layer` the dense weight of `form` while it runs."""

    def fill() -> None:
        layer._parameters.update(form.dense_layer().requires_grad_(False)._parameters)

    fill_at_each_call(layer, fill, first=False)  # the hooks that convert the form are at the layer by now


def _apart(model: nn.Module) -> set[str]:
    """Return the layers and forms that the graph does not show to be only called, or that have hooks."""
    layers = [name for name, module in outside_forms(model) if is_plain(module) or isinstance(module, Form)]
    shown = [name for name in layers if _can_be_probed(model.get_submodule(name))]
    return {*layers} - {*shown} | not_shown(model, shown).keys()


def _can_be_probed(layer: nn.Module) -> bool:
    """Return whether a layer has a geometry, and no hooks."""
    try:
        Geometry.of(layer)
    except Skip:
        return False
    return not has_hooks(layer)


def _seen_on(example: Tensor, model: nn.Module, names: list[str], rounding: bool) -> dict[str, str]:
    """Return which of the layers `names` probes cannot replace on `example`, one by one or only together."""
    network = float64_twin(model, outermost_forms(model), {*names, *_apart(model)})
    try:
        expected = both_ways(network, example)
    except Exception as error:  # a forward pass may raise anything
        raise CompressionError(
            f"the network does not run in float64 on an image of shape {tuple(example.shape[1:])} ({first_line(error)})"
        ) from error
    guilty = _guilty(names, lambda probed: _difference_of_probes(network, probed, expected, example, rounding))
    does = "the network reads its weight without calling it" if rounding else "the network does more than call it"
    return {name: f"{does}: with a form in its place {found}" for name, found in guilty.items()}


def _difference_of_probes(
    network: nn.Module, names: list[str], expected: list[Tensor], example: Tensor, blind: bool
) -> str | None:
    probes = {name: Probe(network.get_submodule(name), blind) for name in names}
    try:
        for probe in probes.values():
            replace_module(network, probe.layer, probe)
            probe.hide_layer()
        return difference(both_ways(network, example), expected)
    except Exception as error:  # a forward pass may raise anything
        return failure(error)
    finally:
        for probe in probes.values():
            replace_module(network, probe, probe.layer)
            probe.show_layer()


def both_ways(network: nn.Module, example: Tensor, precise: bool = True) -> list[Tensor]:
    """Return what `network` returns for `example` without gradients, then with them; `precise` as in `outputs_of`."""
    return [y for gradients in (False, True) for y in outputs_of(network, example, gradients, precise)]


def failure(error: Exception) -> str:
    """Describe how a network failed."""
    return f"the network fails with {type(error).__name__}: {first_line(error)}"
