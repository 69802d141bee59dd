"""What of a model goes into a file: its layers in order, how they belong together, and the network they are from."""

from typing import NamedTuple

from torch import nn

from compedu.errors import CompressionError
from compedu.files import contents, fitting, header, layers, sections, structure, trial
from compedu.files.sections import TIED, Record
from compedu.files.streams import CODINGS
from compedu.forms import Block, Form
from compedu.forms.parts import Part
from compedu.graph.copying import inference_copy


def write(model: nn.Module, *codings: str) -> list[bytes]:
    """Return the file of `model` in each of the `codings`.

    Raises `CompressionError` for a layer that cannot be stored, `ValueError` for a coding that does not exist.
    """
    for coding in codings:
        if coding not in CODINGS:
            raise ValueError(f"coding must be one of {', '.join(CODINGS)}, got {coding!r}")
    refuse_deployed(model)
    places = _places(model)
    parts = _parts(places.holders)
    return [_write(model, places, parts, coding) for coding in codings]


def refuse_deployed(model: nn.Module) -> None:
    """Raise `CompressionError` for a network that is deployed, or has a part that is: it can only run."""
    for path, module in model.named_modules():
        if getattr(module, "only_runs", False):
            raise CompressionError(
                f"{path or 'the network'} is a deployed network, whose kernels no file can hold; save the model from "
                "which it was made, and deploy that after loading"
            )


def _write(model: nn.Module, places: "_Places", parts: list[dict[str, Part | tuple[str, str]]], coding: str) -> bytes:
    listed = []
    data = []
    for (path, layer), named in zip(places.holders, parts, strict=True):
        records = []
        for name, part in named.items():
            tied = isinstance(part, tuple)
            record, section = (Record(name, TIED, 0, part, ()), b"") if tied else _section(path, name, part, coding)
            records.append(tuple(record))
            data.append(section)
        settings = tuple(layers.settings_of(layer).items())
        listed.append((path, layers.kind_of(layer), layers.geometry_of(layer), settings, tuple(records)))
    rest = (CODINGS.index(coding), tuple(listed), *map(tuple, places[1:]))
    return header.seal((_network(model, rest), *rest), data)


def _network(model: nn.Module, rest: tuple) -> str | int:
    """Return the spec of `model` if the network that it names can hold what the file does, else a checksum.

    A network that was changed after it was built, by another activation, another layer or a hook, is no longer the one
    that its spec names: such a file would load as another network, or not at all.
    """
    spec = getattr(model, "spec", None)
    if isinstance(spec, str) and spec:
        try:
            named = structure.skeleton(spec, len(rest[1]))
            found = contents.declared((spec, *rest))
            if structure.unchanged(model, named) and (_is_within(found, named) or _is_larger(model, found, named)):
                return spec
        except ValueError:  # no such network, or another
            pass
    return structure.checksums(model)[0]


def _is_within(found: contents.Contents, network: nn.Module) -> bool:
    """Return whether no layer of `found` has more channels than `network`."""
    try:
        fitting.check(found, network, "the model")
    except ValueError:
        return False
    return True


def _is_larger(model: nn.Module, found: contents.Contents, network: nn.Module) -> bool:
    """Return whether `found` has layers of `network` with more channels, which give logits of its classes.

    Such a file is tried on an image before it is loaded. Raises `ValueError` for any other difference.
    """
    fitting.check(found, network, "the model", larger=True)
    try:
        trial.take_image(inference_copy(model))
    except contents.CONTRADICTIONS:
        return False
    return True


class _Places(NamedTuple):
    holders: list[tuple[str, nn.Module]]
    identities: list[str]
    absent: list[str]
    aliases: list[tuple[str, str]]


def _places(model: nn.Module) -> _Places:
    """Sort the modules of `model`: those with tensors, identities, places left empty, layers that occurred before."""
    places = _Places([], [], [], [])
    paths = {}
    for path, module in model.named_modules(remove_duplicate=False):
        parent = path.rpartition(".")[0]
        if path and any(parent == alias or parent.startswith(alias + ".") for alias, _ in places.aliases):
            continue
        if paths.setdefault(id(module), path) != path:
            if module.state_dict():
                places.aliases.append((path, paths[id(module)]))
            continue
        if isinstance(module, (Form, Block)) or layers.own_tensors(module):
            places.holders.append((path, module))
        if type(module) is nn.Identity and not isinstance(model.get_submodule(parent), Form):
            places.identities.append(path)
        places.absent.extend(f"{path}.{name}".lstrip(".") for name, child in module._modules.items() if child is None)
    return places


def _parts(holders: list[tuple[str, nn.Module]]) -> list[dict[str, Part | tuple[str, str]]]:
    """Return the parts of every layer by name; for a tensor that occurred before, the path and part where it did."""
    owners: dict[int, tuple[str, str]] = {}
    parts = []
    for path, layer in holders:
        _refuse_unknown(path, layer)
        named = dict(layers.parts_of(layer))
        # A form encodes its parameters, so that equal tensors need not be equal parts.
        for name, tensor in () if isinstance(layer, Form) else layers.own_tensors(layer).items():
            if name in named and owners.setdefault(id(tensor), (path, name)) != (path, name):
                named[name] = owners[id(tensor)]
        parts.append(named)
    return parts


def _refuse_unknown(path: str, layer: nn.Module) -> None:
    """Raise `CompressionError` for a form or block that no file could bring back."""
    kinds = layers.FORM_KINDS if isinstance(layer, Form) else layers.BLOCK_KINDS
    if isinstance(layer, (Form, Block)) and layers.kind_of(layer) not in kinds:
        where = "FORMS" if isinstance(layer, Form) else "BLOCKS"
        raise CompressionError(
            f"layer {path!r}: {type(layer).__name__} is not in compedu.forms.{where}, so a file of it could not be "
            "loaded; add it there"
        )
    if isinstance(layer, Block) and (layers.own_tensors(layer) or not structure.is_as_arranged(layer)):
        raise CompressionError(
            f"layer {path!r}: the block {type(layer).__name__} is no longer what its settings make, so a file of it "
            "would load as another; write a block class for this arrangement"
        )


def _section(path: str, name: str, part: Part, coding: str) -> tuple[Record, bytes]:
    try:
        return sections.write(name, part, coding)
    except ValueError as error:
        raise CompressionError(f"layer {path!r}, part {name!r}: {error}") from error
