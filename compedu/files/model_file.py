"""Saving and loading a compressed model: one file, whose length is the size we report."""

import copy
import os
from pathlib import Path

from torch import nn

from compedu import networks
from compedu.errors import CompressionError, FileFormatError
from compedu.files import contents, layers
from compedu.files.contents import TIED, Contents, Layer
from compedu.files.streams import CODINGS
from compedu.graph.norms import behind
from compedu.graph.own_hooks import has_hooks, move_hooks, refuse_recomputed_weights
from compedu.graph.trace import open_attentions
from compedu.layout import in_another_order
from compedu.writing import write_whole

FITTING = "load into a network of the structure that was saved"


def model_bytes(model: nn.Module, coding: str = "packed") -> bytes:
    """Return the bytes that `save` writes. `coding` is "packed", "huffman" or "ans".

    Raises `CompressionError`, naming layer and part, for numbers of a type that no file can hold, and for weights that
    are made anew before each forward pass.
    """
    refuse_recomputed_weights(model)
    return contents.write(model, coding)[0]


def file_sizes(model: nn.Module, *codings: str) -> dict[str, int]:
    """Return for each of the `codings`, all if none is given, how many bytes `save` writes."""
    refuse_recomputed_weights(model)
    codings = codings or CODINGS
    return dict(zip(codings, map(len, contents.write(model, *codings)), strict=True))


def save(model: nn.Module, path: str | os.PathLike, coding: str = "packed") -> int:
    """Write `model` to the file `path`, replacing it whole or not at all; return the number of bytes written.

    The file holds weights, structure and `model.spec`, not `model.compression`. `coding`: "packed" writes every number
    with its own bits, "huffman" and "ans" entropy-code each stream that gets shorter by it. Raises `CompressionError`
    as `model_bytes` does, and for weights that lie channels last: no file keeps that, and last bits hang on it.
    """
    if others := in_another_order(model):
        raise CompressionError(
            f"{others[0]} lies in memory in another order than row after row, such as channels last, which no file "
            "keeps and the last bits of the logits hang on; lay all parameters and buffers in the usual order first, "
            "p.data = p.data.clone(memory_format=torch.contiguous_format)"
        )
    data = model_bytes(model, coding)
    write_whole(Path(path), data)
    return len(data)


def load(path: str | os.PathLike, into: nn.Module | None = None) -> nn.Module:
    """Return the model that the file `path` holds, in evaluation mode; its logits are bit-identical to the saved ones.

    Networks of compedu are built from the spec in the file. For any other, `into` is a network of the same structure;
    a filled copy of it is returned. Raises `FileFormatError` for a file that is damaged, foreign or of a newer version,
    `CompressionError` where file and network do not fit; nothing is loaded then.
    """
    return from_bytes(Path(path).read_bytes(), into, str(path))


def from_bytes(data: bytes, into: nn.Module | None = None, where: str = "the model file") -> nn.Module:
    """Do what `load` does with bytes in memory; `where` names them in error messages."""
    found = contents.read(data, where)
    if into is None and not found.spec:
        raise CompressionError(f"{where} does not name its network: load(path, into=network); {FITTING}")
    if into is not None:
        refuse_recomputed_weights(into)
    try:
        network = networks.build(found.spec) if into is None else copy.deepcopy(into)
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise CompressionError(f"{where} holds a network that this compedu cannot build: {error}; update it") from error
    network = open_attentions(network, {layer.path for layer in found.layers})
    return _fill(network, found, where).eval()


def _fill(network: nn.Module, found: Contents, where: str) -> nn.Module:
    """Put every layer of the file in its place; identities and empty places too, as methods may have put them there."""
    filled: dict[str, nn.Module] = {}
    for path in found.identities:
        if type(there := _at(network, path, where)) is not nn.Identity:
            network = _placed(network, path, _left(there, nn.Identity(), path, where), where)
    for path in found.absent:
        network = _placed(network, path, None, where)
    for index, layer in enumerate(found.layers):
        made = _made(network, layer, found.tensors(index), where)
        network = _placed(network, layer.path, made, where)
        filled[layer.path] = made
    for path, earlier in found.aliases:
        network = _placed(network, path, _at(network, earlier, where), where)
    network = _folded(network, filled, where)
    _check_complete(network, filled, where)
    return network


def _folded(network: nn.Module, filled: dict[str, nn.Module], where: str) -> nn.Module:
    """Leave of batch norms that carry an activation, and of which the file has nothing, what is left when folded."""
    known = {id(module) for module in filled.values()}
    for path, module in list(network.named_modules()):
        if id(module) not in known and isinstance(rest := behind(module), nn.Sequential):
            network = _placed(network, path, _left(module, rest, path, where), where)
    return network


def _check_complete(network: nn.Module, filled: dict[str, nn.Module], where: str) -> None:
    """Raise `CompressionError` unless all layers with numbers are the file's, and each of these is in its place."""
    known = {id(module) for module in filled.values()}
    missing = [path or "(network)" for path, module in network.named_modules()
               if layers.own_tensors(module) and id(module) not in known]
    if missing:
        raise CompressionError(
            f"{where} holds nothing for {', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}; {FITTING}"
        )
    displaced = [path for path, module in filled.items() if _at(network, path, where) is not module]
    if displaced or len(known) < len(filled):
        raise CompressionError(f"{where} keeps layers apart that the network shares; {FITTING}")


def _made(network: nn.Module, layer: Layer, tensors: dict, where: str) -> nn.Module:
    for record in layer.records:
        if record.kind == TIED:
            path, name = record.details
            if path == layer.path:  # two names of one tensor in one module
                tensors[name] = layers.owned(tensors[name])
                tensors[record.name] = tensors[name]
            else:
                tensors[record.name] = getattr(_at(network, path, where), name)
    if not layer.kind.startswith(layers.KEPT):
        try:
            return layers.make(layer.kind, layer.geometry, dict(layer.settings), tensors)
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise FileFormatError(
                f"{where}: layer {layer.path!r} of kind {layer.kind} cannot be rebuilt ({error!r}); "
                "update compedu if a newer one wrote the file"
            ) from error
    there = _at(network, layer.path, where)
    if layers.kind_of(there) != layer.kind:
        raise CompressionError(
            f"{where}: layer {layer.path!r} is of class {layer.kind.removeprefix(layers.KEPT)}, the network has "
            f"{type(there).__name__} there; {FITTING}"
        )
    try:
        return layers.fill(there, tensors)
    except KeyError as error:
        raise CompressionError(f"{where}: {type(there).__name__} at {layer.path!r} has no tensor {error}") from error


def _at(network: nn.Module, path: str, where: str) -> nn.Module:
    try:
        return network.get_submodule(path)
    except AttributeError as error:
        raise CompressionError(f"{where} holds a layer {path!r} that the network lacks; {FITTING}") from error


def _left(norm: nn.Module, rest: nn.Module, path: str, where: str) -> nn.Module:
    """Return the `rest` that the file has in the place of a folded `norm`, with the size that networks may ask for."""
    if has_hooks(norm):
        raise CompressionError(
            f"{where} holds a network without {path!r}, at which the given network has forward hooks: remove these"
        )
    if hasattr(norm, "num_features"):
        rest.num_features = norm.num_features
    return rest


def _placed(network: nn.Module, path: str, module: nn.Module | None, where: str) -> nn.Module:
    """Put `module` at `path`, with the hooks of what was there; return the network, `module` for the empty path."""
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
