"""Which layers of student and teacher are compared: a list of pairs, or a word that finds them in any two networks."""

import math

import torch
from torch import Tensor, nn

from compedu.errors import CompressionError
from compedu.methods.distillation.shared.features import INPUT, name_meant
from compedu.methods.hooks import hooked
from compedu.reproducible import seeded

Pairs = tuple[tuple[str, str], ...]
Size = tuple[int, ...]  # (H, W) of a map

RESOLUTIONS = "resolutions"
EMBEDDING = "embedding"
FOUND = (RESOLUTIONS, EMBEDDING)  # words that `found_pairs` knows
EMBEDDINGS = (f"{INPUT}last", f"{INPUT}last")
ALLOWED = "'resolutions', 'embedding', or pairs student=teacher such as 'conv1=conv1, input of fc1=last'"


def named_pairs(text: str, where: str) -> Pairs:
    """Return the pairs that `text` lists, "conv1=conv2, fc1"; a term without = names a layer of both networks.

    Raises `ValueError`, which says `where`, for a list that is empty, for a term that is not a pair, and for a pair
    that is listed twice.

    >>> named_pairs("conv1=conv2, fc1", "M.compared")
    (('conv1', 'conv2'), ('fc1', 'fc1'))
    """
    pairs = []
    for term in text.split(","):
        own, *theirs = (name.strip() for name in term.split("="))
        if len(theirs) > 1 or not all((own, *theirs)):
            raise ValueError(f"{where} must be {ALLOWED}; {term.strip()!r} in {text!r} is not a pair of layers")
        pairs.append((own, theirs[0] if theirs else own))
    if twice := [pair for pair in pairs if pairs.count(pair) > 1]:
        raise ValueError(f"{where} lists the layers {'='.join(twice[0])!r} twice in {text!r}: name each pair once")
    return tuple(pairs)


def found_pairs(word: str, student: nn.Module, teacher: nn.Module, image: Tensor, caller: str) -> Pairs:
    """Return the pairs of layers that `word` means in these two networks, for one `image` (1, C, H, W).

    "resolutions": the last maps of each size in the student, and those of the teacher whose size is nearest, as a
    ratio. "embedding": what the last layers with weights read. Raises `CompressionError`, which begins with `caller`,
    where a network has no such layer.
    """
    learner = f"{caller}: its student"
    master = f"{caller}: its teacher"
    if word == EMBEDDING:
        return names_meant((EMBEDDINGS,), student, teacher, image, learner, master)
    own = resolutions_of(student, image, learner, learned=True)
    theirs = resolutions_of(teacher, image, master)
    return tuple((name, theirs[nearest(size, list(theirs))]) for size, name in own.items())


def names_meant(
    pairs: Pairs, student: nn.Module, teacher: nn.Module, image: Tensor, learner: str, master: str
) -> Pairs:
    """Return `pairs` with the names of the layers that first, middle and last mean in these networks, for one `image`.

    Raises `CompressionError`, which names the student `learner` and the teacher `master`, for a layer that neither a
    name nor a word is.
    """
    return tuple(
        (name_meant(student, own, image, learner), name_meant(teacher, theirs, image, master)) for own, theirs in pairs
    )


def nearest(size: Size, sizes: list[Size]) -> Size:
    """Return that of `sizes` whose area is closest to that of `size`, as a ratio; of two, the larger.

    >>> nearest((8, 8), [(28, 28), (14, 14), (7, 7)])
    (7, 7)
    """
    return min(sizes, key=lambda other: (abs(math.log(math.prod(other) / math.prod(size))), -math.prod(other)))


def resolutions_of(model: nn.Module, image: Tensor, whose: str, learned: bool = False) -> dict[Size, str]:
    """Return the sizes (H, W) of the maps inside `model`, in order, and the last layer that gives maps of each.

    Maps of one position are left out, as they show no place, and of a network that is to be `learned` those that no
    weight that trains leads to. Raises `CompressionError`, which begins with `whose` network it is, where there are
    none.
    """
    outputs = _outputs(model, image)
    maps = {
        name: y
        for name, y in outputs.items()
        if y.ndim == 4 and math.prod(y.shape[2:]) > 1 and y.is_floating_point() and (y.requires_grad or not learned)
    }
    if not maps:
        raise CompressionError(
            f"{whose} has no feature maps (N, C, H, W) of more than one position that one layer gives: choose pairs of "
            f"layers by name, student=teacher; its layers are {', '.join(outputs)}"
        )
    return {tuple(y.shape[2:]): name for name, y in maps.items()}


def _outputs(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return the outputs for `image` of all modules that run once and give one tensor, in the order they finish."""
    outputs: dict[str, list[object]] = {}
    modules = {name: module for name, module in model.named_modules() if name}

    def keep(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        outputs.setdefault(name, []).append(output)

    with hooked(modules, after=keep), torch.enable_grad(), seeded(0):
        model.eval()(image)
    return {name: given[0] for name, given in outputs.items() if len(given) == 1 and isinstance(given[0], Tensor)}
