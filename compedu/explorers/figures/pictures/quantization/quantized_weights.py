"""Quantization: the weights on their grid, the staircase from weight to code, the error of each filter."""

import math

import numpy as np
import torch

from compedu.explorers.figures.colors import DENSE, LIVE, VERMILLION
from compedu.explorers.figures.pictures.picture import (
    Picture,
    Table,
    as_matrix,
    bars,
    dense_matrix,
    facts_of,
    kind_now,
    layer_names,
    line,
    percent_text,
)
from compedu.explorers.figures.places import LEFT, across
from compedu.explorers.figures.plots import BELOW, BESIDE, MAIN
from compedu.explorers.view import View
from compedu.forms import Form
from compedu.metrics import costs

BINS = 91
SAMPLE = 300


def main(view: View, layer: str) -> list[dict]:
    """Return the histogram of the weights in steps of their grid, its clipped ends, and how often each code is used."""
    steps, codes, top = in_steps(view, layer)
    reach = max(top + 0.5, float(np.abs(steps).max()))
    counts, edges = np.histogram(steps, BINS, (-reach, reach))
    middle = (edges[1:] + edges[:-1]) / 2
    width = edges[1] - edges[0]
    clipped = np.where(np.abs(middle) > top + 0.5, counts, 0)
    used, times = (np.arange(0), np.arange(0)) if codes is None else np.unique(codes, return_counts=True)
    used = used.astype(np.int32 if np.issubdtype(used.dtype, np.integer) else np.float32)
    return [
        bars(MAIN, middle, counts.astype(np.int32), "weights", DENSE, width=width),
        bars(MAIN, middle, clipped.astype(np.int32), "clipped weights", VERMILLION, width=width),
        line(
            MAIN, used, times.astype(np.int32), "weights with this code", LIVE,
            mode="markers", marker={"size": 5, "color": LIVE},
        ),
    ]  # fmt: skip


def below(view: View, layer: str) -> list[dict]:
    """Return code against weight for a sample of weights, and the relative error of each filter."""
    steps, codes, _top = in_steps(view, layer)
    order = np.argsort(steps[:: max(1, len(steps) // SAMPLE)])
    some = steps[:: max(1, len(steps) // SAMPLE)][order]
    stairs = some if codes is None else codes[:: max(1, len(steps) // SAMPLE)][order]
    reach = float(np.abs(some).max(initial=1.0))
    errors = filter_errors(view, layer)
    return [
        line(BELOW, [-reach, reach], [-reach, reach], "unchanged", DENSE, line={"dash": "dot", "width": 1}),
        line(BELOW, some, stairs.astype(np.float32), "code", LIVE, line={"shape": "hv"}),
        bars(BESIDE, np.arange(len(errors), dtype=np.int32), errors, "error, %", VERMILLION),
    ]


def in_steps(view: View, layer: str) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Return all weights of a layer as multiples of the grid's step, their codes, and the largest code.

    Without a uniform grid the largest weight counts as 127 steps, and the codes are the weights of the form on that
    scale; an ordinary layer has no codes.
    """
    form = rounding_form(view, layer)
    weights = weights_before(view, layer)
    if form is None or form.levels is None or form.grid_step is None:
        unit = float(np.abs(weights).max()) / 127 or 1.0
        made = None if form is None else as_matrix(form.dense()).reshape(-1) / unit
        return weights.reshape(-1) / unit, made, 127
    step = form.grid_step.detach().cpu().numpy().reshape(-1, 1)
    return (weights / step).reshape(-1), as_matrix(form.codes()).reshape(-1), form.levels // 2


def rounding_form(view: View, layer: str) -> Form | None:
    """Return the form that a layer has become, if its number of weights is unchanged."""
    _, after = view.layer_pair(layer)
    same = isinstance(after, Form) and math.prod(after.geometry.shape) == dense_matrix(view, layer).size
    return after if same else None


def weights_before(view: View, layer: str) -> np.ndarray:
    """Return the weights before rounding, as a matrix: with batch normalization folded in, where the form did so."""
    form = rounding_form(view, layer)
    latent = None if form is None else form.weights_before_rounding()
    return dense_matrix(view, layer) if latent is None else as_matrix(latent)


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
    used = _used(form)
    how = f"{used} used" if bits is None else f"{bits} bits, {used} used"
    return f"{layer}: {how}, error {weight_error(view, layer)}"


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
    headings=("in grid steps: orange = clipped, blue = codes", "code against weight | filters' errors, %"),
    say=say,
    table=table,
    axes={
        MAIN.yaxis: {"type": "log", "dtick": 1, "exponentformat": "SI"},
        BELOW.xaxis: {"domain": across(LEFT[0], 190), "nticks": 5},
        BELOW.yaxis: {"nticks": 3},
        BESIDE.xaxis: {"visible": True, "nticks": 3},
        BESIDE.yaxis: {"visible": True, "nticks": 3, "rangemode": "tozero", "side": "right"},
    },
)
