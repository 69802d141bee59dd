"""The removal law on every classification network of torchvision: removed channels against silent ones, in float64."""

import functools
import gc
import inspect
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from rows import bare, digest, kept_rows, rows_options, write_rows
from torch import Tensor, nn

import compedu.graph
from compedu.errors import CompressionError
from compedu.graph import Channels
from compedu.graph.removal import silence_layer
from compedu.torchvision_import import import_torchvision

RESULTS = Path(__file__).with_name("REMOVAL_LAW.md")
FRACTION = 0.4
LAW = 1e-9
TEETH = 1e-3
SIZES = (32, 64, 128, 224, 299)  # of the images, in pixels; the first that a network accepts is taken
QUICK = ("squeezenet1_1", "shufflenet_v2_x0_5")
OPTIONS = {
    "googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}, "vit_b_16": {"image_size": 32},
    "vit_b_32": {"image_size": 64}, "vit_l_16": {"image_size": 32}, "vit_l_32": {"image_size": 64},
    "vit_h_14": {"image_size": 28},
}  # fmt: skip
COLUMNS = (
    "network", "verdict", "difference", "change by silence", "layers that shrink", "parameters left",
    "parameters, millions", "image, pixels",
)  # fmt: skip
HEAD = """# The removal law on torchvision's networks

Written by `python benchmarks/removal_law.py`, which keeps the rows that it finds here if they were measured with the
same code and versions (`--fresh` measures everything again).

From each of the {networks} classification networks that torchvision {torchvision} lists, {percent} % of the channels
of every removable group are taken out at once, chosen at random. The law: the smaller network computes what the network
with the same channels silent computes (filters, biases, and scales, shifts and means of their batch norms at zero).
**exact**: the largest difference between the two outputs, relative to the largest output, is at most {law:g} in
float64, and at least one group really lost channels. **refused**: no channel could be removed; the reason stands
there. **wrong**: the outputs differ. {counts}.

"Change by silence" is the same distance between the silent and the whole network: it says that what was taken out
mattered, so that the law was put to the test (at least {teeth:g} is asked for). "Layers that shrink": how many of the
Conv2d and Linear layers lost filters of their own; the others keep theirs because they make the network's output,
because an operation behind them (a normalization over channels, attention, a reshape to a fixed size) mixes channels or
counts on their number, or because repeated shuffles couple all their channels into one (shufflenet). In transformers
the hidden layers of the perceptrons are nearly all that can go. The layers that read removed channels shrink with them,
which counts in "parameters left"; layers of two channels or fewer lose none at {percent} %.

Weights are random (torchvision's own start), with {classes} classes; norms, biases, layer scales and weights that start
at zero are redrawn, since at their start they would hide errors. The image is the smallest of {sizes}
pixels that the network accepts (in training too, where it has auxiliary heads); vision transformers are built for
images of two by two patches. All networks are compared in float64: the network is silenced in place, and given up
before the smaller one runs, so that the largest fit into memory too (8 GB). `Channels.remove` checks the same law by
itself at every call; here that check is switched off, and the comparison is made without it.
"""


def build(name: str) -> nn.Module:
    """Return the network `name` with random weights from seed 0 that hide nothing, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = import_torchvision().models.get_model(name, weights=None, num_classes=10, **OPTIONS.get(name, {}))
        with torch.no_grad():
            enliven(model)
    return model.eval()


def enliven(model: nn.Module) -> None:
    """Redraw in place what is nearly the identity or zero in a network that has learned nothing."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(0, 0.3)
        elif parameter.dim() == 1 or name.endswith("layer_scale"):
            parameter.uniform_(0.5, 1.5)
        elif not parameter.any():
            parameter.normal_(0, 0.1)


def example_for(model: nn.Module) -> tuple[Tensor, Channels]:
    """Return the smallest image that `model` accepts and the channels found with it.

    An auxiliary head can need a larger image than the network itself. Raises the `CompressionError` of the largest.
    """
    refusal = None
    for size in [model.image_size] if hasattr(model, "image_size") else SIZES:
        example = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
        try:
            with torch.no_grad():
                model(example)
        except (RuntimeError, AssertionError, ValueError):
            continue
        try:
            return example, Channels(model, example)
        except CompressionError as error:
            refusal = error
    raise refusal or CompressionError(f"it accepts no square image of {SIZES} pixels")


def chosen(channels: Channels) -> dict[str, list[int]]:
    """Return for each group which channels go, at random."""
    generator = torch.Generator().manual_seed(2)
    return {
        group.name: torch.randperm(group.size, generator=generator)[: group.removable(FRACTION)].tolist()
        for group in channels.groups
        if group.removable(FRACTION)
    }


def silence(model: nn.Module, channels: Channels, removal: dict[str, list[int]]) -> None:
    """Zero in place the channels of `removal`."""
    for group in channels.groups:
        gone = torch.zeros(group.size + 1, dtype=torch.bool)
        gone[removal.get(group.name, [])] = True
        for member in group.members:
            if member.side == "output":
                silence_layer(model.get_submodule(member.layer), gone[member.channels])


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest entry of `expected`."""
    assert found.shape == expected.shape and expected.isfinite().all(), "outputs cannot be compared"
    return float((found - expected).abs().max() / expected.abs().max())


def layers(model: nn.Module) -> dict[str, int]:
    """Return the number of outputs of every Conv2d and Linear by name."""
    return {n: len(m.weight) for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}


def measured(name: str) -> tuple[str, ...]:
    """Return the row of the table for one network; the network itself is freed before the smaller one runs."""
    model = build(name)
    count = sum(p.numel() for p in model.parameters())
    sizes = layers(model)
    try:
        example, channels = example_for(model)
    except CompressionError as error:
        return name, f"refused: {' '.join(str(error).split())}", "", "", "", "", f"{count / 1e6:.1f}", ""
    removal = chosen(channels)
    if not removal:
        reasons = Counter(reason for _, reason in channels.left_out).most_common(3)
        return name, f"refused: {'; '.join(reason for reason, _ in reasons)}", "", "", "", "", f"{count / 1e6:.1f}", ""
    smaller = channels.remove(model, removal, verify=False)
    shrunk = sum(size < sizes[layer] for layer, size in layers(smaller).items())
    left = sum(p.numel() for p in smaller.parameters()) / count
    with torch.no_grad():
        whole = model.double()(example.double())
        silence(model, channels, removal)
        silent = model(example.double())
        del model
        gc.collect()
        difference = relative(smaller.double()(example.double()), silent)
    change = relative(whole, silent)
    verdict = "exact" if difference <= LAW and change >= TEETH else "**wrong**"
    return (
        name, verdict, f"{difference:.1e}", f"{change:.2g}", f"{shrunk} of {len(sizes)} ({shrunk / len(sizes):.0%})",
        f"{left:.0%}", f"{count / 1e6:.1f}", str(example.shape[-1]),
    )  # fmt: skip


@functools.cache
def fingerprint() -> str:
    """Return what a row depends on: the code that finds, removes and compares channels, and torch's versions."""
    folder = Path(inspect.getfile(compedu.graph)).parent
    code = [bare(path.read_text()) for path in sorted(folder.glob("*.py"))]
    parts = (build, enliven, example_for, chosen, silence, relative, measured)
    code += [bare(inspect.getsource(part)) for part in parts]
    settings = (FRACTION, SIZES, sorted(OPTIONS.items()), torch.__version__, import_torchvision().__version__)
    return digest(code, settings)


def finished(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the rows of an earlier run that still hold, by network."""
    return kept_rows(path, COLUMNS, fingerprint())


def write(rows: dict[str, tuple[str, ...]], networks: Sequence[str], path: Path) -> None:
    """Write the table of what is known so far, whole or not at all."""
    verdicts = Counter(row[1].partition(":")[0].strip("*") for row in rows.values())
    counts = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in ("exact", "refused", "wrong"))
    missing = f", {len(networks) - len(rows)} not measured yet" if len(rows) < len(networks) else ""
    head = HEAD.format(
        networks=len(networks), torchvision=import_torchvision().__version__.partition("+")[0], law=LAW, teeth=TEETH,
        percent=round(100 * FRACTION), counts=f"Of {len(networks)}: {counts}{missing}", classes=10,
        sizes=", ".join(map(str, SIZES)),
    )  # fmt: skip
    write_rows(path, head, COLUMNS, [rows[name] for name in networks if name in rows], fingerprint())


def main(given: Sequence[str] | None = None) -> None:
    """Measure what is not in the table yet, one network after the other, and write the table after each."""
    asked = rows_options(__doc__, RESULTS, given)
    models = import_torchvision().models
    networks = QUICK if asked.quick else models.list_models(module=models)
    rows = {} if asked.fresh else finished(asked.out)
    for position, name in enumerate(networks, 1):
        began = time.perf_counter()
        if name not in rows:
            rows[name] = measured(name)
            write(rows, networks, asked.out)
        print(f"{position}/{len(networks)} {' | '.join(rows[name])} ({time.perf_counter() - began:.0f} s)", flush=True)
        gc.collect()


if __name__ == "__main__":
    main(sys.argv[1:])
