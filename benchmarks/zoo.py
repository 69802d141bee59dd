"""Networks that the kit has never seen, through the methods that need no training, int8 and files: exact or refused."""

import copy
import functools
import gc
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from rows import bare, digest, kept_rows, rows_options, write_rows
from torch import Tensor, nn
from zoo_networks import CLASSES, NETWORKS, build

import compedu as ce
from compedu import files
from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.forms import ActivationQuantizer, Form, weight_of
from compedu.hashing import model_digest
from compedu.methods import Method

TEMPORARY = re.compile(re.escape(tempfile.gettempdir()) + r"/\w+/file")
RESULTS = Path(__file__).with_name("ZOO.md")
LAW = 1e-9
FLOAT = 1e-3
INTEGER = 0.1
ROUNDING = 10
QUICK = ("torchvision/squeezenet1_1", "shape/gpt2")
METHODS: dict[str, Method] = {
    "magnitude": ce.MagnitudePruning(sparsity=0.5),
    "patterns": ce.PatternPruning(),
    "brain damage": ce.OptimalBrainDamage(sparsity=0.3, curvature="sampled-fisher", calibration_images=2),
    "brain surgeon": ce.OptimalBrainSurgeon(sparsity=0.3, layers="first", calibration_images=2),
    "4 bits": ce.LinearQuantization(bits=4),
    "int8": ce.LinearQuantization(activation_bits=8, calibration_images=4),
    "circulant": ce.BlockCirculantProjection(),
    "SVD": ce.TruncatedSVD(),
    "separable": ce.SeparableFilters(rank=0.2),
    "Tucker": ce.TuckerDecomposition(),
    "CP": ce.CPDecomposition(rank=0.02),
    "batch norm": ce.BatchNormReestimation(calibration_images=4),
    "filters": ce.FilterPruning(sparsity=0.4),
    "random filters": ce.RandomFilterPruning(sparsity=0.4),
    "merging": ce.NeuronMerging(sparsity=0.1),
}
COLUMNS = ("network", "exact", "refused", "wrong", "crash", "parameters, millions", "image, pixels", "what and why")
HEAD = """# The zoo

Written by `python benchmarks/zoo.py`, which keeps the rows that it finds here if they were measured with the same code
and versions (`--fresh` measures everything again).

{networks} networks that the kit was not made for (torchvision, timm, the shapes of language models), with random
weights that hide nothing and {classes} classes, go through the {methods} methods that need no training:

{settings}

A run is **exact** if all of these hold. What the method made computes in float64 what the *original* network computes
with the kernels that the compressed layers mean in place of its own (at most {law:g} of the largest output; activations
not rounded for that); where channels are taken out, the methods check the removal law themselves. A file of it, loaded
into the original network, gives the same bits. Deployed, it gives the same within {float:g} in float32
(or {rounding} times what it differs itself between float32 and float64, where its numbers cancel), and within
{integer:g} (root of the mean square) where activations are integers. The original is untouched. A run is **refused**
where the method says in one sentence of its own why it does nothing to this network; **wrong** where any of the checks
fails; a **crash** is any other error.

{counts}.
"""


def images(size: int) -> Dataset:
    """Return four images of noise."""
    x = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    return Dataset("noise", *[x, torch.arange(4)] * 3, tuple(map(str, range(CLASSES))))


def outcome(method: Method, model: nn.Module, data: Dataset, before: str) -> str:
    """Return "exact", or "refused", "wrong" or "crash" with the reason; `before` is the digest of `model`."""
    try:
        made = method(model, data)
        found = faults(model, made, data)
    except CompressionError as error:
        return f"refused: {TEMPORARY.sub('the file', str(error).splitlines()[0])}"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"crash: {type(error).__name__} in {place.name}: {error}".splitlines()[0]
    found += ["the network that was given is changed"] if model_digest(model) != before else []
    return f"wrong: {'; '.join(found)}" if found else "exact"


@torch.no_grad()
def faults(model: nn.Module, made: nn.Module, data: Dataset) -> list[str]:
    """Return what is wrong with `made`, which a method made of `model`."""
    found = []
    x = data.x_train
    y = made(data.x_train)
    if not y.isfinite().all():
        found.append("its outputs are not finite")
    if not made.compression.removed:
        exact = unrounded(made)
        distance = largest(exact(x.double()), with_weights_of(exact, model)(x.double()))
        found += [] if distance <= LAW else [f"differs by {distance:.1e} from what its kernels mean"]
    if found:
        return found  # before a file can be refused: that would hide it
    with tempfile.TemporaryDirectory() as folder:
        files.save(made, path := Path(folder) / "file")
        loaded = files.load(path, into=model)(x)
    found += [] if torch.equal(loaded, y) else [f"loaded from a file differs by {largest(loaded, y):.1e}"]
    integers = any(isinstance(module, ActivationQuantizer) for module in made.modules())
    deployed = ce.deploy(made)(x)
    distance = typical(deployed, y) if integers else largest(deployed, y)
    allowed = INTEGER if integers else max(FLOAT, ROUNDING * largest(y, copy.deepcopy(made).double()(x.double())))
    return found + ([] if distance <= allowed else [f"deployed differs by {distance:.1e}"])


def unrounded(made: nn.Module) -> nn.Module:
    """Return a copy of `made` in float64 whose activations are not rounded."""
    copied = copy.deepcopy(made).double()
    for layer in copied.modules():
        if isinstance(layer, Form) and isinstance(layer.act, ActivationQuantizer):
            layer.act = nn.Identity()
    return copied


def with_weights_of(made: nn.Module, model: nn.Module) -> nn.Module:
    """Return `model` in float64 with what the layers of `made` mean in its own layers, which stay what they are."""
    meant = copy.deepcopy(model).double()
    ours = dict(made.named_modules())
    for name, layer in list(meant.named_modules()):
        if isinstance(layer, nn.modules.batchnorm._NormBase) and type(ours.get(name)) is not type(layer):
            meant.set_submodule(name, copy.deepcopy(ours[name]))  # it was folded
        elif isinstance(layer, nn.MultiheadAttention) and (opened := ours.get(f"{name}.in_proj")) is not None:
            bias = opened.dense_bias() if isinstance(opened, Form) else opened.bias
            put(layer, {"in_proj_weight": weight_of(opened), "in_proj_bias": bias})
        elif isinstance(form := ours.get(name), Form):
            put(layer, {"weight": form.dense(), "bias": form.dense_bias()})
        elif form is not None:
            put(layer, form._parameters)
            layer._buffers.update(form._buffers)
    return meant


def put(layer: nn.Module, tensors: Mapping[str, Tensor | None]) -> None:
    """Give `layer` these parameters; where it has one already, that one gets other numbers."""
    for name, tensor in tensors.items():
        if tensor is not None and layer._parameters.get(name) is not None:
            layer._parameters[name].data = tensor.detach()
        else:
            layer._parameters[name] = None if tensor is None else nn.Parameter(tensor.detach())


def largest(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest entry of `expected`."""
    return float((found - expected).abs().max() / expected.abs().max())


def typical(found: Tensor, expected: Tensor) -> float:
    """Return the root of the mean square of the differences, relative to that of `expected`."""
    return float((found - expected).norm() / expected.norm())


def measured(name: str) -> tuple[str, ...]:
    """Return the row of the table for one network."""
    model, size = build(name)
    data = images(size)
    before = model_digest(model)
    outcomes = {}
    for what, method in METHODS.items():
        began = time.perf_counter()
        with warnings.catch_warnings(action="ignore"):  # of networks that are not ours
            outcomes[what] = outcome(method, model, data, before)
        print(f"    {what}: {outcomes[what][:200]} ({time.perf_counter() - began:.0f} s)", flush=True)
        gc.collect()
    kinds = Counter(text.partition(":")[0] for text in outcomes.values())
    why = "<br>".join(f"{what} {shortened(text)}" for what, text in outcomes.items() if text != "exact")
    return (
        name, *(str(kinds[kind]) for kind in ("exact", "refused", "wrong", "crash")),
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}", str(size), why.replace("|", "/") or "-",
    )  # fmt: skip


def shortened(text: str, length: int = 200) -> str:
    """Return `text`, or its beginning."""
    return text if len(text) <= length else f"{text[:length]} ..."


@functools.cache
def fingerprint() -> str:
    """Return what a row depends on: the code of the library and of the zoo, and the versions of what it is made of."""
    folder = Path(ce.__file__).parent
    parts = ("forms", "graph", "methods", "files", "deployment")
    code = [path for part in parts for path in sorted((folder / part).rglob("*.py"))]
    code += [Path(__file__), Path(__file__).with_name("zoo_networks.py")]
    return digest([bare(path.read_text()) for path in code], torch.__version__, version("torchvision"), version("timm"))


def write(rows: dict[str, tuple[str, ...]], networks: Sequence[str], path: Path) -> None:
    """Write the table of what is known so far."""
    kinds = COLUMNS[1:5]
    totals = {kind: sum(int(row[place]) for row in rows.values()) for place, kind in enumerate(kinds, 1)}
    missing = f"; {len(networks) - len(rows)} networks are not measured yet" if len(rows) < len(networks) else ""
    counts = ", ".join(f"{count} {kind}" for kind, count in totals.items())
    head = HEAD.format(
        networks=len(networks),
        classes=CLASSES,
        methods=len(METHODS),
        law=LAW,
        float=FLOAT,
        integer=INTEGER,
        rounding=ROUNDING,
        settings="\n".join(f"- {what}: `{method!r}`" for what, method in METHODS.items()),
        counts=f"Of {len(rows) * len(METHODS)} runs: {counts}{missing}",
    )
    write_rows(path, head, COLUMNS, [rows[name] for name in networks if name in rows], fingerprint())


def main(given: Sequence[str] | None = None) -> None:
    """Measure what is not in the table yet, one network after the other, and write the table after each."""
    asked = rows_options(__doc__, RESULTS, given)
    networks = QUICK if asked.quick else tuple(NETWORKS)
    torch.set_num_threads(1)
    rows = {} if asked.fresh else kept_rows(asked.out, COLUMNS, fingerprint())
    for position, name in enumerate(networks, 1):
        began = time.perf_counter()
        if name not in rows:
            rows[name] = measured(name)
            write(rows, networks, asked.out)
        seconds = time.perf_counter() - began
        print(f"{position}/{len(networks)} {' | '.join(rows[name][:5])} ({seconds:.0f} s)", flush=True)
        gc.collect()


if __name__ == "__main__":
    main(sys.argv[1:])
