"""Tucker decomposition: the singular values of a convolution along outputs and inputs, and how many are kept."""

import numpy as np

from compedu.explorers.figures.colors import DENSE, LIVE, ORANGE
from compedu.explorers.figures.pictures.low_rank import weights_left
from compedu.explorers.figures.pictures.picture import (
    facts_of,
    line,
    percent_text,
    relative_error,
    unfactored,
)
from compedu.explorers.figures.plots import MAIN
from compedu.explorers.view import View
from compedu.forms import weight_of
from compedu.methods.low_rank.tucker import TuckerDecomposition


def spectra(view: View, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the singular values of the dense weight unfolded along its inputs, and along its outputs."""

    def values() -> tuple[np.ndarray, np.ndarray]:
        inputs, outputs = TuckerDecomposition().spectra(weight_of(view.layer_pair(layer)[0]).detach())
        return inputs.numpy(), outputs.numpy()

    return view.once(("channel spectra", layer), values)


def ranks(view: View, layer: str) -> tuple[int, int] | None:
    """Return the channels (inputs, outputs) of the core of a layer of three factors; None for other layers."""
    form = facts_of(view, layer)
    if form is None or len(form.factors) != 3 or form.ranks is None:
        return None
    inputs, outputs = form.ranks
    return inputs, outputs


def main(view: View, layer: str) -> list[dict]:
    """Return both spectra of the dense weight, the kept part of each filled."""
    kept = ranks(view, layer) or (0, 0)
    traces = []
    for values, rank, color, name in zip(
        spectra(view, layer), kept, (ORANGE, LIVE), ("inputs", "outputs"), strict=True
    ):
        count = np.arange(1, len(values) + 1, dtype=np.int32)
        traces.append(line(MAIN, count, values, f"{name}: singular value", DENSE, line={"color": color, "dash": "dot"}))
        traces.append(line(MAIN, count[:rank], values[:rank], f"{name}: kept", color, fill="tozeroy"))
    return traces


def say(view: View, layer: str) -> str:
    """Say in words what the picture shows."""
    if facts_of(view, layer) is None:
        return unfactored(view, layer)
    kept = ranks(view, layer)
    if kept is None:
        return f"{layer}: not three factors"
    inputs, outputs = (len(values) for values in spectra(view, layer))
    error = percent_text(relative_error(view, layer)) or "unknown"
    return f"{layer}: {kept[0]}/{inputs} inputs, {kept[1]}/{outputs} outputs, error {error}"


PICTURE = weights_left.over_weights("channels", main, "singular values: inputs orange, outputs blue", say, "rank")
