"""Features: outputs of named layers in a forward pass, and regressors that map a student's to a teacher's."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.methods.hooks import hooked
from compedu.methods.layers import compressible
from compedu.reproducible import seeded

WORDS = ("first", "middle", "last")  # of the layers with weights, in the order of the network's modules


def layer_called(model: nn.Module, name: str, whose: str) -> nn.Module:
    """Return the module of `model` called `name`, or the one meant by the words first, middle, last.

    Raises `CompressionError`, which says `whose` layer it is, for any other name.
    """
    modules = {own: module for own, module in model.named_modules() if own}
    if name in modules:
        return modules[name]
    layers = list(compressible(model)[0].values())
    if name not in WORDS or not layers:
        raise CompressionError(
            f"{whose} has no layer {name!r}; its layers are {', '.join(modules)}; the words {', '.join(WORDS)} work too"
        )
    return layers[{"first": 0, "middle": len(layers) // 2, "last": -1}[name]]


def unit(vectors: Tensor) -> Tensor:
    """Return `vectors` (..., F) divided by their norms; vectors that are 0 stay 0, with a finite gradient."""
    norms = vectors.norm(dim=-1, keepdim=True)
    return vectors / norms.masked_fill(norms == 0, 1.0)


@contextlib.contextmanager
def captured(model: nn.Module, names: Sequence[str], whose: str) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of the layers `names` of `model` in the one forward pass inside the block, by name.

    Gradients pass through them. Raises `CompressionError`, which says `whose` layer it is, for a layer that
    `layer_called` does not find, that no image reaches, that runs more than once, or that does not return one tensor.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if name in outputs:
            raise CompressionError(f"layer {name!r} of {whose} runs more than once in a pass: which output is meant?")
        if not isinstance(output, Tensor):
            raise CompressionError(f"layer {name!r} of {whose} returns a {type(output).__name__}, not one tensor")
        outputs[name] = output.clone()  # a later layer may change it in place

    with hooked({name: layer_called(model, name, whose) for name in names}, after=keep):
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


def features_of(model: nn.Module, names: Sequence[str], x: Tensor, whose: str) -> tuple[Tensor, ...]:
    """Return the outputs (N, ...) of the layers `names` of `model` for images `x` (N, C, H, W), in order."""
    with captured(model, names, whose) as outputs, torch.no_grad(), seeded(0):
        model.eval()(x)
    return tuple(outputs[name] for name in names)
