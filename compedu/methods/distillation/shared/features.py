"""Features: outputs of named layers in a forward pass, and regressors that map a student's to a teacher's."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.forms import Block, Form, Reordered
from compedu.methods.hooks import hooked
from compedu.methods.layers import NORMALIZATIONS
from compedu.reproducible import seeded

WORDS = ("first", "middle", "last")  # of the layers with weights, in the order in which they run
INPUT = "input of "  # in front of a layer: what it reads, not what it returns


def layer_called(model: nn.Module, name: str, whose: str) -> nn.Module:
    """Return the module of `model` called `name`; raise `CompressionError`, which says `whose`, if there is none."""
    modules = {own: module for own, module in model.named_modules() if own}
    if name not in modules:
        raise CompressionError(
            f"{whose} has no layer {name!r}; its layers are {', '.join(modules)}; the words {', '.join(WORDS)} work too"
        )
    return modules[name]


def name_meant(model: nn.Module, name: str, image: Tensor, whose: str) -> str:
    """Return `name` with the word first, middle or last in it replaced by the layer that is meant, "input of last" too.

    The order is that in which the layers with weights run for `image` (1, C, H, W), not that in which the network lists
    them. Raises `CompressionError`, which says `whose` layer it is, where there is none.
    """
    modules = dict(model.named_modules())
    prefix = INPUT if name.startswith(INPUT) and name not in modules else ""
    layer = name.removeprefix(prefix)
    if layer in WORDS and layer not in modules:
        order = layers_in_order(model, image)
        if not order:
            raise CompressionError(f"{whose} has no layer {layer!r}, as no layer with weights runs")
        distinct = list(dict.fromkeys(order))
        return prefix + {"first": order[0], "middle": distinct[len(distinct) // 2], "last": order[-1]}[layer]
    layer_called(model, layer, whose)
    return name


def layers_in_order(model: nn.Module, image: Tensor) -> list[str]:
    """Return the layers with weights in the order in which they begin to run for `image`, once for each call.

    A form or block is one layer. A module whose own weights are arrays, in which no other layer runs, is one too;
    normalizations are not, as they have only a few values for each channel.
    """
    order: list[str] = []
    running: list[str] = []
    around: set[str] = set()

    def begin(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        around.update(running)
        running.append(name)
        order.append(name)

    def end(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        running.pop()

    with hooked(_with_weights(model), before=begin, after=end), torch.no_grad(), seeded(0):
        model.eval()(image)
    return [name for name in order if name not in around]


def _with_weights(model: nn.Module) -> dict[str, nn.Module]:
    """Return the forms, blocks and modules with weights of their own, by name; not what is inside of forms."""
    found: dict[str, nn.Module] = {}
    whole: list[str] = []
    for name, module in model.named_modules():
        if not name or isinstance(module, (*NORMALIZATIONS, Reordered)) or name.startswith(tuple(whole)):
            continue
        if isinstance(module, (Form, Block)):
            whole.append(f"{name}.")
            found[name] = module
        elif any(weight.ndim > 1 and weight.numel() for weight in module.parameters(recurse=False)):
            found[name] = module
    return found


def unit(vectors: Tensor) -> Tensor:
    """Return `vectors` (..., F) divided by their norms; vectors that are 0 stay 0, with a finite gradient."""
    norms = vectors.norm(dim=-1, keepdim=True)
    return vectors / norms.masked_fill(norms == 0, 1.0)


def at_least_single(values: Tensor) -> Tensor:
    """Return `values` in float32 where they have half precision, in which squares overflow and few digits are left."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


@contextlib.contextmanager
def captured(model: nn.Module, names: Sequence[str], whose: str) -> Iterator[dict[str, Tensor]]:
    """Collect what the layers `names` of `model` return in the one forward pass inside the block, by name.

    "input of " in front of a name asks for what the layer reads. Gradients pass through. Raises `CompressionError`,
    which says `whose` layer it is, for a layer that is not there, that no image reaches, that runs more than once, or
    that has no single tensor to give.
    """
    outputs: dict[str, Tensor] = {}
    if not names:  # as in each step of a student that only logits teach
        yield outputs
        return
    modules = dict(model.named_modules())
    read = [name for name in names if name.startswith(INPUT) and name not in modules]
    returned = [name for name in names if name not in read]

    def keep(name: str, value: object, does: str) -> None:
        layer = name.removeprefix(INPUT) if name in read else name
        if name in outputs:
            raise CompressionError(f"layer {layer!r} of {whose} runs more than once in a pass: which one is meant?")
        if not isinstance(value, Tensor):
            raise CompressionError(f"layer {layer!r} of {whose} {does} a {type(value).__name__}, not one tensor")
        with torch.inference_mode(False):  # a tensor that a student's loss may use, also where the teacher runs without
            outputs[name] = value.clone()  # a later layer may change it in place

    def before(name: str, layer: nn.Module, inputs: tuple[object, ...]) -> None:
        keep(name, inputs[0] if inputs else None, "reads")

    def after(name: str, layer: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        keep(name, output, "returns")

    readers = {name: layer_called(model, name.removeprefix(INPUT), whose) for name in read}
    givers = {name: layer_called(model, name, whose) for name in returned}
    with hooked(readers, before=before), hooked(givers, after=after):
        yield outputs
    if missing := [name for name in names if name not in outputs]:
        raise CompressionError(f"no image reaches layer {missing[0]!r} of {whose}")


def regressor(student: Tensor, teacher: Tensor, seed: int) -> nn.Module:
    """Return a new layer that maps features like `student`'s to the shape of `teacher`'s, drawn by `seed`.

    Maps (N, C, H, W) get a convolution whose kernel size makes the output sizes agree (Romero et al. 2015,
    arXiv:1412.6550, section 2.2), features (N, ..., F) a linear layer. Raises `CompressionError` where no such layer
    exists.
    """
    from_shape = tuple(student.shape[1:])
    to_shape = tuple(teacher.shape[1:])
    maps = len(from_shape) == len(to_shape) == 3
    # Without padding, a kernel of k pixels turns a into a - k + 1.
    window = [a - b + 1 for a, b in zip(from_shape[1:], to_shape[1:], strict=False)]
    vectors = len(from_shape) == len(to_shape) >= 1 and from_shape[:-1] == to_shape[:-1]
    fits = min(window) >= 1 if maps else vectors
    if not fits:
        raise CompressionError(
            f"no layer maps features of the student, shape {from_shape}, to those of the teacher, {to_shape}: choose "
            "layers whose maps are no smaller in the student, or vectors in both"
        )
    with seeded(seed):
        if maps:
            return nn.Conv2d(from_shape[0], to_shape[0], window).to(student.dtype)
        return nn.Linear(from_shape[-1], to_shape[-1]).to(student.dtype)


def features_of(
    model: nn.Module, names: Sequence[str], x: Tensor, whose: str, gradients: bool = False
) -> tuple[Tensor, ...]:
    """Return what `captured` collects of `model` in evaluation mode for images `x` (N, C, H, W), in order of `names`.

    With `gradients`, the features lead back to the weights that train.
    """
    with captured(model, names, whose) as outputs, torch.set_grad_enabled(gradients), seeded(0):
        model.eval()(x)
    return tuple(outputs[name] for name in names)


def refuse_fixed(feature: Tensor, name: str, whose: str) -> None:
    """Raise `CompressionError` for a `feature` of a student through which no loss reaches a weight that trains."""
    if not feature.requires_grad:
        raise CompressionError(
            f"layer {name!r} of {whose} gives a feature without a gradient, which cannot be learned: it is detached, "
            "or only frozen weights or none come before it; choose another layer"
        )


def refuse_not_real(feature: Tensor, name: str, whose: str) -> None:
    """Raise `CompressionError` for a `feature` that is not made of real numbers."""
    if not feature.is_floating_point():
        raise CompressionError(
            f"layer {name!r} of {whose} gives numbers of type {feature.dtype}; features must be real numbers: choose "
            "another layer"
        )
