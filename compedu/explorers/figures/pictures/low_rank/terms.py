"""Canonical polyadic decomposition: how large its terms are beside their sum, which shows terms that cancel out."""

import numpy as np
import torch
from torch import Tensor

from compedu.explorers.figures.colors import DENSE, LIVE, VERMILLION
from compedu.explorers.figures.pictures.low_rank import weights_left
from compedu.explorers.figures.pictures.picture import (
    bars,
    facts_of,
    line,
    percent_text,
    relative_error,
    unfactored,
)
from compedu.explorers.figures.plots import MAIN
from compedu.explorers.view import View
from compedu.forms import weight_of
from compedu.methods.low_rank.shared.polyadic import CANCELLED, cancellation


def terms(view: View, layer: str) -> list[Tensor]:
    """Return the columns (1, size, terms) along each axis of a layer of four factors; none for other layers."""
    form = facts_of(view, layer)
    if form is None or len(form.factors) != 4:
        return []
    into, down, along, out = (weight_of(factor).detach().double() for factor in form.factors)
    return [out.flatten(1)[None], *(factor.flatten(1).T[None] for factor in (into, down, along))]


def term_norms(view: View, layer: str) -> np.ndarray:
    """Return the norm of each term of a layer of four factors, largest first; none for other layers."""
    factors = terms(view, layer)
    if not factors:
        return np.zeros(0, dtype=np.float32)
    norms = torch.stack([factor[0].norm(dim=0) for factor in factors]).prod(0)
    return norms.sort(descending=True).values.float().numpy()


def main(view: View, layer: str) -> list[dict]:
    """Return the norm of each term, orange where they mostly cancel out, and that of the dense weight."""
    factors = terms(view, layer)
    norms = term_norms(view, layer)
    weight = weight_of(view.layer_pair(layer)[0]).detach()
    count = np.arange(1, len(norms) + 1, dtype=np.int32)
    ends = [0.5, max(len(norms), 1) + 0.5]
    color = VERMILLION if factors and cancellation(factors) > CANCELLED else LIVE
    return [
        bars(MAIN, count, norms, "norm of a term", color),
        line(MAIN, ends, [float(weight.norm())] * 2, "norm of the dense weight", DENSE, line={"dash": "dot"}),
    ]


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    factors = terms(view, layer)
    if facts_of(view, layer) is None:
        return unfactored(view, layer)
    if not factors:
        return f"{layer}: not four factors"
    error = percent_text(relative_error(view, layer)) or "unknown"
    count = factors[0].shape[-1]
    return f"{layer}: {count} terms, squares {cancellation(factors):.1f}x the sum's, error {error}"


PICTURE = weights_left.over_weights("terms", main, "norms of the terms; dotted: dense weight", say, "term")
