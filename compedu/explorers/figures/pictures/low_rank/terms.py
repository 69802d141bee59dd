"""Canonical polyadic decomposition: how large its terms are beside their sum, which shows terms that cancel out."""

import math

import numpy as np

from compedu.explorers.figures.colors import DENSE, LIVE, VERMILLION
from compedu.explorers.figures.pictures.low_rank import weights_left
from compedu.explorers.figures.pictures.picture import (
    bars,
    facts_of,
    line,
    percent_text,
    relative_error,
    untouched,
    weight_after,
)
from compedu.explorers.figures.plots import MAIN
from compedu.explorers.view import View
from compedu.forms import weight_of

MUCH = 2.0  # times the norm of their sum: terms that are together larger than this mostly cancel


def term_norms(view: View, layer: str) -> np.ndarray:
    """Return the norm of each term of a layer of four factors, largest first; none for other layers."""
    form = facts_of(view, layer)
    if form is None or len(form.factors) != 4:
        return np.zeros(0, dtype=np.float32)
    into, down, along, out = (weight_of(factor).detach().double() for factor in form.factors)
    sizes = into.flatten(1).norm(dim=1) * down.flatten(1).norm(dim=1) * along.flatten(1).norm(dim=1)
    return (sizes * out.flatten(1).norm(dim=0)).sort(descending=True).values.float().numpy()


def cancelling(view: View, layer: str) -> float:
    """Return the root of the sum of the squared norms of all terms, in norms of their sum: 1 if they are orthogonal."""
    made = weight_after(view, layer)
    norm = 0.0 if made is None else float(made.double().norm())
    total = math.sqrt(float((term_norms(view, layer).astype(np.float64) ** 2).sum()))
    return total / norm if norm > 0 else 0.0


def main(view: View, layer: str) -> list[dict]:
    """Return the norm of each term, and that of the whole weight."""
    norms = term_norms(view, layer)
    weight = weight_of(view.layer_pair(layer)[0]).detach()
    count = np.arange(1, len(norms) + 1, dtype=np.int32)
    ends = [0.5, max(len(norms), 1) + 0.5]
    color = VERMILLION if cancelling(view, layer) > MUCH else LIVE
    return [
        bars(MAIN, count, norms, "norm of a term", color),
        line(MAIN, ends, [float(weight.norm())] * 2, "norm of the dense weight", DENSE, line={"dash": "dot"}),
    ]


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    norms = term_norms(view, layer)
    if facts_of(view, layer) is None:
        return untouched(layer)
    if len(norms) == 0:
        return f"{layer}: not four factors"
    error = percent_text(relative_error(view, layer)) or "unknown"
    return f"{layer}: {len(norms)} terms, {cancelling(view, layer):.1f} x their sum, error {error}"


PICTURE = weights_left.over_weights("terms", main, "norms of the terms; dotted: dense weight", say)
