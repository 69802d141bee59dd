"""The integer law on thousands of random networks: forms, deployed networks and integer arithmetic in float64."""

import copy
import functools
import itertools
import random
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import random_graphs
import torch
from random_graphs import Network, draft
from rows import bare, digest, kept_rows, rows_options, write_rows
from torch import Tensor, nn

import compedu as ce
from compedu.datasets.dataset import Dataset
from compedu.deployment.integer_chain import IntegerChain
from compedu.deployment.kernels.simulated import Simulated
from compedu.errors import CompressionError
from compedu.forms import Quantized
from compedu.graph.trace import replace_module

RESULTS = Path(__file__).with_name("INTEGER_LAW.md")
NETWORKS = 5000
ROUND = 100
QUICK = 4
WIDTHS = (8, 4, 2)
# of the largest output: between float64 and float64, between float32 and float64
EXACT = 1e-10
CLOSE = 1e-4
UNSTABLE = 1e-3  # of the largest output: networks that float32 alone moves further say nothing
TIE = 2.0**-20  # of a grid's length: how near to the middle between two codes float32 may take the other one
DRAWS = 40
VERDICTS = ("chained", "layer by layer", "refused", "wrong")
COLUMNS = (
    "networks", *(f"{bits} bits: {what}" for bits in WIDTHS for what in VERDICTS), "why not chained"
)  # fmt: skip
HEAD = """# The integer law on random networks

Written by `python benchmarks/integer_law.py`, which keeps the rows that it finds here if they were measured with the
same code (`--fresh` measures everything again).

{networks:,} networks of random graphs: branches, sums and products, concatenations with parts and constants, stacks,
slices and halves, flattening, tokens, shuffles, max and average pooling, tensors with several readers, layers
called twice, convolutions with strides, dilation, groups, depthwise ones too, linear layers on vectors and on tokens,
batch norms over two, three and four dimensions, layer norms, functions that clip, and in-place operations, also
through views. Each is quantized by `LinearQuantization` at {widths} bits, weights and activations alike.

The law: the quantized network in float64, what it is deployed as (by the engine of this machine and by the simulated
one), and the same layers in integers and float64, implemented independently, give the same outputs; at {first}
bits so do the original network in float64 and what it is deployed as in float32. Same: no output differs by more than
{exact:g} of the largest one between float64 and float64; between float32 and float64 by {close:g}, or ten times what
float32 alone changes in that network. Where a value lies within 2^-20 of a grid's length of the middle between two
codes, the last bits of float32 decide which it takes, so images are drawn until none does. **Chained**: codes go from
layer to layer. **Layer by layer**: each layer runs on integers between values in float32, for the reason given
there. **Refused**: by a named error, or not applicable, for the reason given there. **Wrong**: anything else.
{counts}.
"""


class WholeNumbers(nn.Module):
    """A quantized layer in integers and float64, from its weights, scales and grid alone.

    `nearest` is how near a value has come to the middle between two codes, in lengths of the grid.
    """

    def __init__(self, layer: Quantized):
        super().__init__()
        per_output = (-1,) if layer.geometry.kind == "linear" else (-1, 1, 1)
        latent = layer.latent.detach()
        top = max(2 ** (layer.bits - 1) - 1, 1)
        codes = torch.where(latent < 0, -1.0, 1.0) if layer.bits == 1 else (latent / layer.scale).round()
        self.codes = codes.clamp(-top, top).double()
        self.scale = layer.scale.detach().double().reshape(per_output)
        self.bias = layer.bias
        self.step = layer.act.scale.double()
        self.zero = int(layer.act.zero_point)
        self.top = 2**layer.act.bits - 1
        self.geometry = layer.geometry
        self.per_output = per_output
        self.nearest = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for x."""
        steps = x / self.step
        inside = steps[(steps > -self.zero - 1) & (steps < self.top - self.zero + 1)]
        if inside.numel():
            self.nearest = min(self.nearest, ((inside - inside.floor()) - 0.5).abs().min().item() / (self.top + 1))
        whole = (steps.round() + self.zero).clamp(0, self.top) - self.zero
        g = self.geometry
        if g.kind == "linear":
            sums = whole @ self.codes.T
        else:
            sums = torch.conv2d(whole, self.codes, None, g.stride, g.padding, g.dilation, g.groups)
        y = sums * self.step * self.scale
        return y if self.bias is None else y + self.bias.double().reshape(self.per_output)


def in_float64(small: nn.Module) -> nn.Module:
    """Return the quantized network in float64 with the codes that it has in float32, where a weight may be on a tie."""
    model = copy.deepcopy(small)
    for layer in model.modules():
        if isinstance(layer, Quantized):
            layer.latent.copy_(layer.dense())
    return model.double()


def whole_numbers(small: nn.Module) -> nn.Module:
    """Return the quantized network in float64, with quantized layers that compute in integers."""
    model = copy.deepcopy(small).double()
    for layer in [layer for layer in small.modules() if isinstance(layer, Quantized)]:
        name = next(name for name, module in small.named_modules() if module is layer)
        replace_module(model, model.get_submodule(name), WholeNumbers(layer))
    return model


def pictures(network: Network, seed: int, count: int) -> Tensor:
    """Return images that fit the network."""
    return torch.randn(count, network.channels, 6, 6, generator=torch.Generator().manual_seed(seed))


def apart(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference, in largest outputs."""
    assert found.shape == wanted.shape, "outputs cannot be compared"
    return float((found.double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))


@torch.no_grad()
def verdict(network: Network, bits: int) -> tuple[str, str]:
    """Return "chained", "layer by layer", "refused" or "wrong", and why, for one network at one width.

    On images without ties the forms in float64 are compared with `WholeNumbers`, and so is what they are deployed as,
    by the engine of this machine and by the simulated one, where float32 may move it ten times as far as it moves the
    forms; at the largest width also what the network itself is deployed as in float32 with the network in float64.
    """
    seen = pictures(network, 0, 8)
    labels = torch.arange(8) % 2
    data = Dataset("random", seen, labels, seen, labels, seen, labels, classes=("0", "1"))
    method = ce.LinearQuantization(bits=bits, activation_bits=bits, coverage=0.97 if len(str(network)) % 3 else 1.0)
    try:
        small = method(network, data)
    except CompressionError as reason:
        return "refused", str(reason)
    reference, x = without_ties(small, network)
    if reference is None:
        return "refused", f"none of {DRAWS} draws of images keeps away from ties"
    wanted = reference(x.double())
    deployed = ce.deploy(small, seen)
    if (distance := apart(in_float64(small)(x.double()), wanted)) > EXACT:
        return "wrong", f"the forms in float64 are {distance:.1e} apart"
    pairs = [(small, {"what is deployed": deployed}, wanted)]
    if deployed.plan is not None:
        simulated = IntegerChain(deployed.plan, Simulated(torch.float64))
        pairs[0][1]["what is simulated"] = lambda images: simulated(deployed.prepared(images))
    if bits == max(WIDTHS):
        dense = copy.deepcopy(network).double()(x.double())
        pairs.append((network, {"what the network itself is deployed as": ce.deploy(network, seen)}, dense))
    for model, running, expected in pairs:
        moved = apart(model(x.clone()), expected)  # by float32 alone
        if moved > UNSTABLE:
            return "refused", "its outputs move by more than a thousandth when it is computed in float32"
        for name, run in running.items():
            if not (distance := apart(run(x.clone()), expected)) <= max(CLOSE, 10 * moved):
                return "wrong", f"{name} is {distance:.1e} apart"
    return ("chained", "") if deployed.plan is not None else ("layer by layer", deployed.notes[-1].partition(": ")[2])


def without_ties(small: nn.Module, network: Network) -> tuple[nn.Module | None, Tensor]:
    """Return the network in integers and images of which it rounds no value near the middle between two codes.

    There the last bits of float32 decide, and two ways to compute the same may differ by a code. No network: every draw
    had a tie.
    """
    for seed in range(1, DRAWS + 1):
        reference = whole_numbers(small)
        x = 1.1 * pictures(network, seed, 1)
        reference(x.double())
        if min(layer.nearest for layer in reference.modules() if isinstance(layer, WholeNumbers)) > TIE:
            return reference, x
    return None, x


def network(index: int) -> Network:
    """Return the random network of this number: the first draft that runs at all, as torch allows not every view."""
    for attempt in itertools.count():
        made = draft(random.Random(f"{index}.{attempt}").choice)
        try:
            with torch.no_grad():
                made(pictures(made, 0, 2))
        except RuntimeError:
            continue
        return made
    raise AssertionError("drafts never end")


def measured(first: int, count: int) -> tuple[str, ...]:
    """Return the row of the table for `count` networks from number `first` on."""
    found = Counter()
    reasons = Counter()
    for index in range(first, first + count):
        made = network(index)
        for bits in WIDTHS:
            try:
                kind, why = verdict(made, bits)
            except Exception as error:  # a crash is a wrong answer too, and the others are still to be measured
                kind = "wrong"
                why = f"{type(error).__name__}: {error}"
            found[bits, kind] += 1
            reasons[re.sub(r"'[\w.]+'", "an operation", " ".join(why.split()))] += kind != "chained"
            if kind == "wrong":
                print(f"{index} at {bits} bits: {why}; {made}", flush=True)
    because = "; ".join(f"{number} x {why}" for why, number in reasons.most_common() if number)
    counts = (str(found[bits, kind]) for bits in WIDTHS for kind in VERDICTS)
    return f"{first} to {first + count - 1}", *counts, because


@functools.cache
def fingerprint() -> str:
    """Return what a row depends on: the code of deployment, forms, folding and quantization, the networks, torch."""
    root = Path(ce.__file__).parent
    folders = ("deployment", "graph", "forms", "methods/quantization")
    code = [bare(path.read_text()) for folder in folders for path in sorted((root / folder).rglob("*.py"))]
    code += [bare(Path(path).read_text()) for path in (random_graphs.__file__, __file__)]
    return digest(code, torch.__version__)


def finished(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the rows of an earlier run that still hold, by their networks."""
    return kept_rows(path, COLUMNS, fingerprint())


def write(rows: dict[str, tuple[str, ...]], path: Path) -> None:
    """Write the table of what is known so far, whole or not at all."""
    totals = {kind: sum(int(row[place]) for row in rows.values() for place in places(kind)) for kind in VERDICTS}
    whole = sum(totals.values())
    counts = ", ".join(f"{number:,} {kind} ({number / whole:.1%})" for kind, number in totals.items())
    head = HEAD.format(
        networks=whole // len(WIDTHS), widths=", ".join(map(str, WIDTHS)), first=WIDTHS[0], exact=EXACT, close=CLOSE,
        counts=f"Of {whole:,} quantized networks: {counts}",
    )  # fmt: skip
    write_rows(path, head, COLUMNS, list(rows.values()), fingerprint())


def places(kind: str) -> list[int]:
    """Return the places of a verdict in a row, one for each width."""
    return [1 + width * len(VERDICTS) + VERDICTS.index(kind) for width in range(len(WIDTHS))]


def main(given: Sequence[str] | None = None) -> None:
    """Measure what is not in the table yet, some networks after the others, and write the table after each."""
    asked = rows_options(__doc__, RESULTS, given)
    total, size = (2 * QUICK, QUICK) if asked.quick else (NETWORKS, ROUND)
    torch.set_num_threads(1)
    rows = {} if asked.fresh else finished(asked.out)
    for first in range(0, total, size):
        name = f"{first} to {first + size - 1}"
        if name not in rows:
            rows[name] = measured(first, size)
            write(rows, asked.out)
        print(" | ".join(rows[name]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
