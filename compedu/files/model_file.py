"""Saving and loading a compressed model: one file, whose length is the size we report."""

import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from compedu.errors import CompressionError, FileFormatError, first_line
from compedu.files import collecting, contents, fitting, header, layers, structure, trial
from compedu.files.contents import Contents
from compedu.files.limits import DEFAULT, Limits, file_bytes
from compedu.files.schema import Layer
from compedu.files.sections import TIED
from compedu.files.streams import CODINGS
from compedu.graph.copying import whole_copy
from compedu.graph.norms import behind
from compedu.graph.own_hooks import has_hooks, move_hooks, refuse_recomputed_weights
from compedu.graph.trace import open_attentions
from compedu.layout import in_another_order
from compedu.specs import image_of
from compedu.usable import refuse_unusable
from compedu.writing import write_whole


def model_bytes(model: nn.Module, coding: str = "packed") -> bytes:
    """Return the bytes that `save` writes. `coding` is "packed", "huffman" or "ans".

    Raises `CompressionError`, naming layer and part, for numbers of a type that no file can hold, and for weights that
    are recomputed before each forward pass.
    """
    refuse_recomputed_weights(model)
    return collecting.write(model, coding)[0]


def file_sizes(model: nn.Module, *codings: str) -> dict[str, int]:
    """Return for each of the `codings`, all if none are given, how many bytes `save` writes."""
    refuse_recomputed_weights(model)
    codings = codings or CODINGS
    return dict(zip(codings, map(len, collecting.write(model, *codings)), strict=True))


def save(model: nn.Module, path: str | os.PathLike, coding: str = "packed") -> int:
    """Write `model` to the file `path`, replacing it whole or not at all; return the number of bytes written.

    The file holds weights, structure and `model.spec`, not `model.compression`. `coding`: "packed" writes every number
    with its own bits, "huffman" and "ans" entropy-code each stream that gets shorter by it. Raises `CompressionError`
    as `model_bytes` does, and for weights in channels-last order: files do not keep it, and last bits depend on it.
    """
    refuse_unusable(model)
    data = model_bytes(model, coding)
    if others := in_another_order(model):
        raise CompressionError(
            f"{others[0]} is not contiguous in memory, as channels-last tensors are not; files do not keep that order, "
            "on which the last bits of the logits depend; make all parameters and buffers contiguous first, "
            "p.data = p.data.clone(memory_format=torch.contiguous_format)"
        )
    write_whole(Path(path), data)
    return len(data)


def load(
    path: str | os.PathLike, into: nn.Module | None = None, *, example: Tensor | None = None, limits: Limits = DEFAULT
) -> nn.Module:
    """Return the model that the file `path` holds, in evaluation mode; its logits are bit-identical to the saved ones.

    Networks of compedu are built from the spec in the file, and tried on a black image. For any other, `into` is a
    network of the same classes, settings and plain attributes; a filled copy of it, with its hooks, is returned, and
    tried on the batch `example` if one is given. Layers may have fewer channels than there; a network that is tried may
    also have more. The file may come from anyone: what it asks for is bounded by the
    network and by `limits`, and nothing of it is executed. Raises `FileFormatError` for a file that is damaged,
    foreign, of another version or above the limits, `CompressionError` where file and network do not fit; nothing is
    loaded then.
    """
    return from_bytes(file_bytes(path, limits), into, str(path), example=example, limits=limits)


def from_bytes(
    data: bytes,
    into: nn.Module | None = None,
    where: str = "the model file",
    *,
    example: Tensor | None = None,
    limits: Limits = DEFAULT,
) -> nn.Module:
    """Do what `load` does with bytes in memory; `where` names them in error messages."""
    if into is not None:
        refuse_recomputed_weights(into)
    found = contents.read(data, where, limits)
    network = whole_copy(_built(found, where, limits) if into is None else into)
    network = open_attentions(network, {layer.path for layer in found.layers})
    present = 0 if into is None else sum(tensor.numel() for tensor in into.state_dict().values())
    tried = into is None or example is not None  # on an image, where layers of sizes that do not fit are found
    numbers = fitting.check(found, network, where, tried)
    limits.check("numbers", numbers, where, limits.numbers_for(len(data), present))
    filled = _fill(network, found, where).eval()
    if found.structure is not None and found.structure not in structure.checksums(filled):
        raise CompressionError(
            f"{where} was saved from a network whose modules have other classes, settings, plain attributes or forward "
            f"hooks than those of the given one; {fitting.ADVICE}"
        )
    if tried:
        _try(filled, into, example, numbers, where, limits)
    return filled


def _built(found: Contents, where: str, limits: Limits) -> nn.Module:
    """Return the network that the file names, on the meta device, as all its tensors come from the file."""
    if not found.spec:
        raise CompressionError(
            f"{where} does not name its network: it was changed after it was built, or is not one of compedu's; "
            f"call load(path, into=network); {fitting.ADVICE}"
        )
    try:
        network = structure.skeleton(found.spec, len(found.layers))
    except ValueError as error:
        raise CompressionError(f"{where} holds a network that this compedu cannot build: {error}; update it") from error
    limits.check("pixels", math.prod(image_of(network.spec)), where)
    return network


def _try(
    filled: nn.Module, into: nn.Module | None, example: Tensor | None, numbers: int, where: str, limits: Limits
) -> None:
    """Run the network on the batch `example`, or on a black image; raise `FileFormatError` where it takes too much."""
    take = partial(trial.take_image, filled) if example is None else partial(trial.take_batch, filled, example)
    allowed = limits.activations_for(numbers)
    wanted = _excess(take, allowed, where)
    if wanted and into is not None and example is not None:  # the given network may take as much
        allowed = limits.activations_for(numbers, trial.most_numbers(whole_copy(into).eval(), example))
        wanted = _excess(take, allowed, where)
    limits.check("activations", wanted, where, allowed)


def _excess(take: Callable[[int], None], allowed: int, where: str) -> int:
    """Run a network by `take`; return 0, or how many numbers an operation wants that are more than `allowed`.

    Whatever a network raises whose layers do not fit each other becomes a `FileFormatError`.
    """
    try:
        take(allowed)
    except trial.TooMuch as more:
        return more.numbers
    except contents.CONTRADICTIONS as error:
        raise FileFormatError(
            f"{where} holds layers that do not fit each other ({first_line(error)}); {header.ADVICE}"
        ) from error
    return 0


def _fill(network: nn.Module, found: Contents, where: str) -> nn.Module:
    """Put every layer of the file in its place; identities and empty places too, which methods may have left."""
    filled: dict[str, nn.Module] = {}
    for layer in [layer for layer in found.layers if layer.kind in layers.BLOCK_KINDS]:
        filled[layer.path] = _made(network, layer, {}, where)  # first, as anything else may be inside one
        network = _placed(network, layer.path, filled[layer.path], where)
    for path in found.identities:
        if type(there := _at(network, path, where)) is not nn.Identity:
            network = _placed(network, path, _left(there, nn.Identity(), path, where), where)
    for path in found.absent:
        network = _placed(network, path, None, where)
    for layer, parts in found.sections(where):
        if layer.path in filled:
            continue
        pairs = zip(layer.records, parts, strict=True)
        tensors = {record.name: part.tensor for record, part in pairs if part is not None}
        made = _made(network, layer, tensors, where)
        network = _placed(network, layer.path, made, where)
        filled[layer.path] = made
    for path, earlier in found.aliases:
        network = _placed(network, path, _at(network, earlier, where), where)
    network = _folded(network, filled, where)
    _check_complete(network, filled, where)
    return network


def _folded(network: nn.Module, filled: dict[str, nn.Module], where: str) -> nn.Module:
    """Reduce batch norms that contain an activation, and are not in the file, to what remains when they are folded."""
    known = {id(module) for module in filled.values()}
    for path, module in list(network.named_modules()):
        if id(module) not in known and isinstance(rest := behind(module), nn.Sequential):
            network = _placed(network, path, _left(module, rest, path, where), where)
    return network


def _check_complete(network: nn.Module, filled: dict[str, nn.Module], where: str) -> None:
    """Raise `CompressionError` unless all layers with tensors are the file's, and each of these is in its place."""
    known = {id(module) for module in filled.values()}
    missing = [
        path or "(network)"
        for path, module in network.named_modules()
        if layers.own_tensors(module) and id(module) not in known
    ]
    if missing:
        named = f"{', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}"
        raise CompressionError(f"{where} holds nothing for {named}; {fitting.ADVICE}")
    displaced = [path for path, module in filled.items() if _at(network, path, where) is not module]
    if displaced or len(known) < len(filled):
        raise CompressionError(f"{where} holds separate layers where the network shares one; {fitting.ADVICE}")


def _made(network: nn.Module, layer: Layer, tensors: dict, where: str) -> nn.Module:
    for record in layer.records:
        if record.kind == TIED:
            path, name = record.details
            if path == layer.path:  # two names of one tensor in one module
                tensors[name] = layers.owned(tensors[name])
                tensors[record.name] = tensors[name]
            else:
                tensors[record.name] = getattr(_at(network, path, where), name)
    try:
        if layer.kind.startswith(layers.KEPT):
            return layers.fill(_at(network, layer.path, where), tensors)
        return layers.make(layer.kind, layer.geometry, layer.settings, tensors)
    except contents.CONTRADICTIONS as error:
        raise FileFormatError(
            f"{where}: layer {layer.path!r} of kind {layers.class_name(layer.kind)} cannot be rebuilt ({error!r}); "
            f"{header.ADVICE}"
        ) from error


def _at(network: nn.Module, path: str, where: str) -> nn.Module:
    try:
        return network.get_submodule(path)
    except AttributeError as error:
        raise CompressionError(f"{where} holds a layer {path!r} that the network lacks; {fitting.ADVICE}") from error


def _left(norm: nn.Module, rest: nn.Module, path: str, where: str) -> nn.Module:
    """Return the `rest` that the file has in place of a folded `norm`, with the size that networks may read."""
    if has_hooks(norm):
        raise CompressionError(
            f"{where} holds a network without {path!r}, where the given network has forward hooks; remove these"
        )
    if hasattr(norm, "num_features"):
        rest.num_features = norm.num_features
    return rest


def _placed(network: nn.Module, path: str, module: nn.Module | None, where: str) -> nn.Module:
    """Put `module` at `path`, with the hooks of what it replaces; return the network, `module` for the empty path."""
    parent, _, name = path.rpartition(".")
    holder = _at(network, parent, where)
    if path and name not in holder._modules:
        _at(network, path, where)
    before = holder._modules[name] if path else network
    if before is not None and module is not None and module is not before:
        move_hooks(before, module)
    if not path:
        return module
    holder._modules[name] = module
    return network
