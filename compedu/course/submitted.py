"""Methods and files that are answers: refused with a hint, or made a network and measured on new characters."""

from functools import lru_cache
from typing import Any

import torch
from torch import nn

from compedu import files
from compedu.course.answers import FILE_BYTES
from compedu.datasets.dataset import Dataset, normalized
from compedu.datasets.drawn import MEAN, STD
from compedu.datasets.glyphs import draw_glyphs
from compedu.errors import CompressionError
from compedu.evaluation import evaluate
from compedu.files import contents
from compedu.methods import Method
from compedu.networks.shipped import trained
from compedu.pairs import load_data
from compedu.specs import parse

# For an answer, which is untrusted.
FILE = files.Limits(bytes=FILE_BYTES, layers=64, pixels=2**12, numbers=2**22, activations=2**22)
STEPS = 8  # limit for a pipeline that is measured
BATCH = 64  # images at once: depthwise convolutions of larger batches take three times as long


def compressed(method: Any, model: nn.Module) -> nn.Module:
    """Return `model`, trained on glyphs, after a learner's method; an answer of another kind gets a hint."""
    assert isinstance(method, Method), (
        f"give a method such as MagnitudePruning(sparsity=0.5), or several joined by |, not {method!r:.60}"
    )
    assert method.needs != "training", f"{method!r} trains; this can be done without training"
    assert len(getattr(method, "steps", ())) <= STEPS, f"{method!r:.60} has more than {STEPS} steps: fewer are enough"
    try:
        return method(model, None if method.needs == "weights" else load_data("glyphs"))
    except CompressionError as refusal:
        raise AssertionError(f"{method!r} was refused: {refusal}") from refusal


def network_of(path: str, content: bytes, wanted: str) -> nn.Module:
    """Return the network of a file if it is a `wanted`; anything else raises `AssertionError` with a hint."""
    try:
        spec = contents.read(content, path, FILE).spec
        name = parse(spec)[0] if spec else "a network without a name"
        assert name == wanted, f"{path} holds another network, {spec or name}; save {wanted} for glyphs, made smaller"
        return files.from_bytes(content, where=path, limits=FILE)
    except CompressionError as refusal:
        raise AssertionError(f"{path} is not a readable model file: {refusal}") from refusal


@lru_cache(maxsize=2)
def fresh_characters(seed: int, count: int) -> Dataset:
    """Return characters that are in no split of `glyphs`, drawn from `seed` and not stored, as the split "test"."""
    drawn = draw_glyphs(count, seed=seed, split="test")
    x = normalized(torch.from_numpy(drawn.images), MEAN, STD)
    y = torch.from_numpy(drawn.labels)
    return Dataset(
        f"glyphs(seed={seed})", x_train=x[:1], y_train=y[:1], x_validation=x[:1], y_validation=y[:1],
        x_test=x, y_test=y, classes=drawn.classes, mean=MEAN, std=STD,
    )  # fmt: skip


@lru_cache(maxsize=4)
def _right_when_dense(network: str, seed: int, count: int) -> int:
    return evaluate(trained(network, "glyphs"), fresh_characters(seed, count), "test", BATCH).correct


def points_lost(small: nn.Module, network: str, seed: int, count: int) -> float:
    """Return the points that `small` loses against the trained `network` on `count` characters drawn from `seed`."""
    try:
        right = evaluate(small, fresh_characters(seed, count), "test", BATCH).correct
    except CompressionError as misfit:
        raise AssertionError(f"this {network} is for other images than glyphs: {misfit}") from misfit
    return 100 * (_right_when_dense(network, seed, count) - right) / count
