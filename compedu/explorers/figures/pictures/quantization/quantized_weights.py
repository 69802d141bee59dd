"""Quantization: the weights and the codes that they become, the quantizer itself, the error of each filter."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from compedu.errors import CompressionError
from compedu.explorers.figures.colors import DENSE, LIVE, PALE_LIVE, VERMILLION
from compedu.explorers.figures.pictures.picture import (
    GROWING,
    Picture,
    Table,
    as_matrix,
    bars,
    dense_matrix,
    facts_of,
    kind_now,
    labels,
    layer_names,
    line,
    percent_text,
)
from compedu.explorers.figures.places import LEFT, RIGHT_END, across
from compedu.explorers.figures.plots import BELOW, BESIDE, MAIN
from compedu.explorers.view import View
from compedu.explorers.words import percent
from compedu.forms import Form, weight_of
from compedu.graph import fold_batch_norm
from compedu.metrics import costs

BINS = 91
MOST_BINS = 2000  # where an outlier lies many steps away
SAMPLE = 300
MOST_CODES = 512  # bars of codes: further ones would be thinner than a pixel
MOST_LABELED = 7  # codes whose shares fit above their bars
MOST_OUTLINED = 64  # codes whose bars are wider than their outlines


def main(view: View, layer: str) -> list[dict]:
    """Return the histogram of the weights in steps of their grid, its clipped ends, and the weights of each code.

    A whole number of bins makes a step, so that the bar of a code is as high as the bins below it together. The axis is
    linear: on a logarithmic one the code 0, which can hold nearly all weights, looks hardly larger than the others.
    """
    steps, codes, low, high = in_steps(view, layer)
    top = max(-float(low.min()), float(high.max()))
    reach = math.ceil(max(top, float(np.abs(steps).max()) - 0.5)) + 0.5
    bins = min(int(2 * reach) * max(1, BINS // int(2 * reach)), MOST_BINS)
    counts, edges = np.histogram(steps, bins, (-reach, reach))
    clipped = np.histogram(steps[(steps < low - 0.5) | (steps > high + 0.5)], edges)[0]
    middle = (edges[1:] + edges[:-1]) / 2
    width = 2 * reach / bins
    used, times = np.unique([] if codes is None else codes, return_counts=True)
    if len(used) > MOST_CODES:
        used, times = np.unique([], return_counts=True)
    whole = np.issubdtype(used.dtype, np.integer)
    return [
        bars(MAIN, middle, counts.astype(np.int32), "weights", DENSE, width=width),
        bars(MAIN, middle, clipped.astype(np.int32), "clipped weights", VERMILLION, width=width),
        bars(
            MAIN, used.astype(np.int32 if whole else np.float32), times.astype(np.int32), "weights with this code",
            width=1 if whole else width,
            marker={"color": PALE_LIVE, "line": {"width": int(len(used) <= MOST_OUTLINED), "color": LIVE}},
            **labels(100 * times / max(times.sum(), 1), MOST_LABELED, "%"),
        ),
    ]  # fmt: skip


def below(view: View, layer: str) -> list[dict]:
    """Return code against weight, and the relative error of each filter.

    The staircase of the quantizer is drawn where it gives every code; otherwise, as with codes that were not rounded to
    the nearest one, a sample of the weights as dots, which no line joins: nothing is known between them.
    """
    steps, _codes, low, high = in_steps(view, layer)
    reach = max(0.5 - float(low.min()), float(high.max()) + 0.5, float(np.abs(steps).max()))
    x, y, mode = _code_against_weight(view, layer, reach)
    errors = filter_errors(view, layer)
    return [
        line(BELOW, [-reach, reach], [-reach, reach], "unchanged", DENSE, line={"dash": "dot", "width": 1}),
        line(BELOW, x, y, "code", mode=mode, marker={"size": 3, "color": LIVE}),
        bars(BESIDE, np.arange(len(errors), dtype=np.int32), errors, "error, %", VERMILLION),
    ]


def _code_against_weight(view: View, layer: str, reach: float) -> tuple[Any, Any, str]:
    """Return the coordinates of the graph, and how they are drawn."""
    levels = _levels(view, layer)
    if levels is not None:
        return *staircase(levels, reach), "lines"
    steps, codes, _low, _high = in_steps(view, layer)
    if codes is None:
        return [-reach, reach], [-reach, reach], "lines"
    some = slice(None, None, max(1, len(steps) // SAMPLE))
    return steps[some], codes[some].astype(np.float32), "markers"


def staircase(levels: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of the function that rounds each number from -`reach` to `reach` to the nearest of `levels`.

    >>> staircase(np.array([-1, 0, 1]), 1.5)
    (array([-1.5, -0.5, -0.5,  0.5,  0.5,  1.5]), array([-1, -1,  0,  0,  1,  1]))
    """
    thresholds = (levels[1:] + levels[:-1]) / 2
    return np.concatenate([[-reach], np.repeat(thresholds, 2), [reach]]), np.repeat(levels, 2)


def _levels(view: View, layer: str) -> np.ndarray | None:
    """Return the codes of a layer, in order, if every weight has the nearest; None where that is not so or not known.

    Weights that lie on the grid already, as in the dense network of an explorer, do not say how they were rounded. Nor
    is there one staircase where filters have codes of their own, on affine grids.
    """
    form = rounding_form(view, layer)
    steps, codes, low, high = in_steps(view, layer)
    if form is None or codes is None or form.grid_step is None or low.min() != low.max() or high.min() != high.max():
        return None
    signs = form.levels == 2 and low.min() == -1
    levels = np.array([-1, 1]) if signs else np.arange(low.min(), high.max() + 1)
    nearest = np.where(steps < 0, -1, 1) if signs else np.clip(np.round(steps), low, high)
    mask = form.kept_weights()
    kept = slice(None) if mask is None else as_matrix(mask).reshape(-1)
    rounded = np.array_equal(nearest[kept], codes[kept]) and not np.array_equal(steps[kept], codes[kept])
    return levels if rounded else None


def in_steps(view: View, layer: str) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    """Return all weights of a layer as multiples of the grid's step, their codes, the smallest and the largest codes.

    The last two are one number each, or one for each weight. Without a uniform grid the largest weight counts as 127
    steps, and the codes are the weights of the form on that scale; an ordinary layer has no codes.
    """
    form = rounding_form(view, layer)
    weights = weights_before(view, layer)
    step = None if form is None or form.levels is None else form.grid_step
    if form is None or step is None or form.code_range is None:
        unit = float(np.abs(weights).max()) / 127 or 1.0
        made = None if form is None else as_matrix(form.dense()).reshape(-1) / unit
        return weights.reshape(-1) / unit, made, np.array(-127), np.array(127)
    low, high = (_along(end, form) for end in form.code_range)
    return weights.reshape(-1) / _along(step, form), as_matrix(form.codes()).reshape(-1), low, high


def _along(values: torch.Tensor, form: Form) -> np.ndarray:
    """Return values that broadcast against the weight as one number, or one for each weight."""
    values = values.detach().cpu()
    return (values if values.numel() == 1 else values.expand(form.geometry.shape)).numpy().reshape(-1)


def rounding_form(view: View, layer: str) -> Form | None:
    """Return the form that a layer has become, if its number of weights is unchanged."""
    _, after = view.layer_pair(layer)
    same = isinstance(after, Form) and math.prod(after.geometry.shape) == dense_matrix(view, layer).size
    return after if same else None


def weights_before(view: View, layer: str) -> np.ndarray:
    """Return the weights before rounding, as a matrix: with batch normalization folded in, where the form did so."""
    form = rounding_form(view, layer)
    latent = None if form is None else form.weights_before_rounding()
    if form is None or latent is None:
        return dense_matrix(view, layer)
    if torch.equal(latent, form.dense()):  # on the grid already: these are not the weights that were rounded
        return as_matrix(weight_of(folded(view).get_submodule(layer)))
    return as_matrix(latent)


def folded(view: View) -> nn.Module:
    """Return the dense network with its batch norms folded, where they can be."""
    return view.once("batch norm folded", lambda: _folded(view.before))


def _folded(model: nn.Module) -> nn.Module:
    try:
        return fold_batch_norm(model)
    except CompressionError:
        return model


def filter_errors(view: View, layer: str) -> np.ndarray:
    """Return the distance of each filter from the one before rounding, relative to its norm, in percent."""
    form = rounding_form(view, layer)
    weights = weights_before(view, layer)
    if form is None:
        return np.zeros(len(weights), dtype=np.float32)
    distance = np.linalg.norm(weights - as_matrix(form.dense()), axis=1)
    return (100 * distance / np.maximum(np.linalg.norm(weights, axis=1), 1e-12)).astype(np.float32)


def weight_error(view: View, layer: str) -> str:
    """Return the relative distance of the weights from those before rounding, with batch norm folded in, in percent."""
    weights = torch.from_numpy(weights_before(view, layer))
    made = torch.from_numpy(as_matrix(rounding_form(view, layer).dense()))
    return percent_text(costs.relative_error(made, weights)) or "unknown"


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    form = rounding_form(view, layer)
    if form is None:
        kind = kind_now(view, layer)
        return f"{layer}: {'not quantized' if facts_of(view, layer) is None else f'{kind}, of other weights'}"
    bits = _bits(form)
    width = "" if bits is None else "1 bit, " if bits == 1 else f"{bits} bits, "
    return f"{layer}: {width}{_zeros(form) or _used(form) + ' used'}, error {weight_error(view, layer)}"


def _zeros(form: Form) -> str:
    """Return which share of the weights the code 0 holds, in words; empty where no code stands for the weight 0."""
    codes = None if form.grid_step is None else form.codes()
    if codes is None or bool((codes != 0).all()):
        return ""
    mask = form.kept_weights()
    pruned = mask is not None and not bool(mask.all())
    return f"{percent((codes == 0).float().mean().item())} {'are' if pruned else 'become'} 0"


def _bits(form: Form) -> int | None:
    """Return how many bits encode the levels of a weight; None where the form does not state the number of levels."""
    return None if form.levels is None else (form.levels - 1).bit_length()


def _used(form: Form) -> str:
    """Return how many of its codes a form uses, or how many different weights it has where codes are unknown."""
    if form.levels is None or form.codes() is None:
        return f"{len(form.dense().detach().unique()):,} different weights"
    return f"{len(form.codes().unique())} of {form.levels} codes"


def table(view: View) -> Table:
    """Return bits, codes and error of each layer."""
    rows = []
    for name in layer_names(view):
        form = rounding_form(view, name)
        if form is None:
            rows.append((name, "float" if facts_of(view, name) is None else "unknown", "", "", "float"))
            continue
        inputs = getattr(form.act, "bits", "float")
        bits = _bits(form)
        rows.append(
            (
                name,
                "unknown" if bits is None else bits,
                _used(form).removesuffix(" codes"),
                weight_error(view, name),
                inputs,
            )
        )
    return ("layer", "bits a weight", "codes used", "error of the weights", "bits an input"), rows


PICTURE = Picture(
    name="weights",
    main=main,
    below=below,
    headings=("in grid steps: gray = weights, blue = their codes", "code against weight | filters' errors, %"),
    say=say,
    table=table,
    axes={
        MAIN.yaxis: GROWING | {"exponentformat": "SI"},
        BELOW.xaxis: {"domain": across(LEFT[0], 190), "nticks": 5},
        BELOW.yaxis: {"nticks": 4},
        BESIDE.xaxis: {"domain": across(RIGHT_END[0], 284), "visible": True, "nticks": 3},  # room for three digits
        BESIDE.yaxis: {"visible": True, "nticks": 3, "rangemode": "tozero", "side": "right"},
    },
)
