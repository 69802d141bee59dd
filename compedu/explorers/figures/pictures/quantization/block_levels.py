"""Block formats: the weights in the scales of their blocks, the values that a format has, the error of each filter."""

import numpy as np

from compedu.explorers.figures.colors import DENSE, LIVE, VERMILLION
from compedu.explorers.figures.pictures.picture import Picture, Table, as_matrix, bars, layer_names, line, percent_text
from compedu.explorers.figures.pictures.quantization import quantized_weights
from compedu.explorers.figures.pictures.quantization.quantized_weights import (
    filter_errors,
    rounding_form,
    staircase,
    weight_error,
    weights_before,
)
from compedu.explorers.figures.plots import BELOW, BESIDE, MAIN
from compedu.explorers.view import View
from compedu.forms import Codes, Floats, Form

BINS = 91
FEW = 64  # values whose bars are wide enough to be seen apart


def main(view: View, layer: str) -> list[dict]:
    """Return the histogram of the weights in scales, those beyond the last values, and the weights of each value."""
    units, values, places = in_scales(view, layer)
    low, high = _rounded_range(values)
    reach = max(high, float(np.abs(units).max()))
    counts, edges = np.histogram(units, BINS, (-reach, reach))
    clipped = np.histogram(units[(units < low) | (units > high)], edges)[0]
    middle = (edges[1:] + edges[:-1]) / 2
    width = 2 * reach / BINS
    times = np.bincount(places, minlength=len(values))
    thin = width if len(values) <= FEW else width / 4  # the bar of a value stands where it is, however far the next
    return [
        bars(MAIN, middle, counts.astype(np.int32), "weights", DENSE, width=width),
        bars(MAIN, middle, clipped.astype(np.int32), "clipped weights", VERMILLION, width=width),
        bars(
            MAIN, values.astype(np.float32), times.astype(np.int32), "weights with this value",
            LIVE, width=thin,
        ),
    ]  # fmt: skip


def below(view: View, layer: str) -> list[dict]:
    """Return value against weight, steps of unequal width and height, and the relative error of each filter."""
    units, values, _ = in_scales(view, layer)
    reach = max(_rounded_range(values)[1], float(np.abs(units).max()))
    x, y = ([-reach, reach], [-reach, reach]) if len(values) == 0 else staircase(values, reach)
    errors = filter_errors(view, layer)
    return [
        line(BELOW, [-reach, reach], [-reach, reach], "unchanged", DENSE, line={"dash": "dot", "width": 1}),
        line(BELOW, x, y, "value"),
        bars(BESIDE, np.arange(len(errors), dtype=np.int32), errors, "error, %", VERMILLION),
    ]


def in_scales(view: View, layer: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all weights of a layer divided by their scales, the values of its format, and the place of each weight.

    Without a format the largest weight is 1, and there are no values.
    """
    weights = weights_before(view, layer)
    form = _block_form(view, layer)
    if form is None:
        unit = float(np.abs(weights).max()) or 1.0
        return weights.reshape(-1) / unit, np.zeros(0), np.zeros(0, dtype=np.int64)
    units = weights / as_matrix(form.weight_scales())
    return units.reshape(-1), as_matrix(form.level_values).reshape(-1), as_matrix(form.codes()).reshape(-1)


def _block_form(view: View, layer: str) -> Form | None:
    """Return the form of a layer if its weights are scaled values of a table."""
    form = rounding_form(view, layer)
    return None if form is None or form.level_values is None else form


def _rounded_range(values: np.ndarray) -> tuple[float, float]:
    """Return the ends of what is rounded, not clipped: half a step beyond the first and last value."""
    if len(values) == 0:
        return -1.0, 1.0
    return float(1.5 * values[0] - 0.5 * values[1]), float(1.5 * values[-1] - 0.5 * values[-2])


def bits_per_weight(form: Form) -> float:
    """Return how many bits the codes and scales of a layer take for each code, before entropy coding."""
    parts = [part for part in form.stored_weight().values() if isinstance(part, (Codes, Floats))]
    bits = sum(
        part.tensor.numel() * (part.bits if isinstance(part, Codes) else 8 * part.tensor.dtype.itemsize)
        for part in parts
    )
    return bits / max(form.free_numbers(), 1)


def zero_share(form: Form) -> float:
    """Return which share of the weights has the value 0."""
    return float((form.dense() == 0).float().mean())


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    form = _block_form(view, layer)
    if form is None:
        return quantized_weights.say(view, layer)
    return (
        f"{layer}: {bits_per_weight(form):.3g} bits, {percent_text(zero_share(form))} are 0, "
        f"error {weight_error(view, layer)}"
    )


def table(view: View) -> Table:
    """Return the bits and the error of each layer."""
    rows = []
    for name in layer_names(view):
        form = _block_form(view, name)
        if form is None:
            rows.append((name, "float" if rounding_form(view, name) is None else "unknown", "", "", ""))
            continue
        _, values, places = in_scales(view, name)
        used = f"{len(np.unique(places))} of {len(values)}"
        rows.append(
            (name, f"{bits_per_weight(form):.3g}", used, percent_text(zero_share(form)), weight_error(view, name))
        )
    return ("layer", "bits a weight, with scales", "values used", "zeros", "error of the weights"), rows


PICTURE = Picture(
    name="weights",
    main=main,
    below=below,
    headings=("in scales of a block: gray = weights, blue = values", "value against weight | filters' errors, %"),
    say=say,
    table=table,
    axes=quantized_weights.PICTURE.axes,
)
