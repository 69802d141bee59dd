"""Memory that a method takes on top of the network: the peak of a fresh process, with torch's and torch-pruning's."""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.utils.prune
from table import Section, options, write
from torch import nn

import compedu as ce
from compedu.datasets.dataset import Dataset
from compedu.methods import Method
from compedu.torchvision_import import import_torchvision

LIMIT = 3.0
SAID = """
The peak of the memory that a process holds while one method compresses one network of torchvision, above what it held
before the call, divided by the size of the network (its parameters and buffers). Each figure is of a process of its
own, in which the same method has compressed the smallest network of the table ({warm}) before, so that libraries are
loaded and kernels are compiled; the peak is reset right before the call (`/proc/self/clear_refs`), and freed memory
goes back to the system at once (`MALLOC_MMAP_THRESHOLD_`). The result, a network of its own, counts too: about 1 for a
dense copy, 1.25 with masks. Images are {size} x {size} pixels, {images} of them where a method reads images. Bold
where a method of ours takes more than {limit:g} times the network.
"""


@dataclass(frozen=True)
class Settings:
    """Networks of torchvision, arms by name, and the sides of the images."""

    networks: tuple[str, ...] = ("resnet18", "resnet50")
    arms: tuple[str, ...] = ()
    size: int = 64
    images: int = 16


def ours(method: Method) -> Callable[[nn.Module, Dataset], object]:
    """Return a call of one of our methods."""
    return lambda model, data: method(model, data)


def torch_prune(model: nn.Module, data: Dataset) -> object:
    """Prune every layer by magnitude with torch.nn.utils.prune, in place."""
    for layer in [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]:
        torch.nn.utils.prune.l1_unstructured(layer, "weight", 0.8)
    return model


def torch_pruning(model: nn.Module, data: Dataset) -> object:
    """Take half of the filters out with torch-pruning, in place."""
    import torch_pruning

    torch_pruning.pruner.BasePruner(
        model,
        data.example,
        torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=0.5,
        ignored_layers=[model.fc],
    ).step()
    return model


ARMS: dict[str, Callable[[nn.Module, Dataset], object]] = {
    "torch.nn.utils.prune, l1_unstructured": torch_prune,
    "torch-pruning, filters by l1": torch_pruning,
    **{
        repr(method): ours(method)
        for method in (
            ce.MagnitudePruning(), ce.MagnitudePruning(sparsity=0.5, budget="global"),
            ce.MagnitudePruning(budget="lamp"),
            ce.RandomPruning(), ce.PatternPruning(), ce.OptimalBrainDamage(calibration_images=16),
            ce.OptimalBrainDamage(calibration_images=16, curvature="empirical-fisher"),
            ce.OptimalBrainSurgeon(calibration_images=16), ce.NeuronMerging(), ce.FilterPruning(),
            ce.FilterPruning(criterion="group"), ce.FilterPruning(criterion="taylor", calibration_images=16),
            ce.RandomFilterPruning(), ce.LinearQuantization(), ce.LinearQuantization(clipping="mse"),
            ce.LinearQuantization(activation_bits=8, calibration_images=16), ce.BlockCirculantProjection(),
            ce.TruncatedSVD(), ce.BatchNormReestimation(calibration_images=16),
        )
    },
}  # fmt: skip
QUICK = Settings(networks=("resnet18",), arms=("MagnitudePruning()",), size=32)


def images(size: int, count: int) -> Dataset:
    """Return images of noise."""
    x = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))
    return Dataset("noise", *[x, torch.arange(count) % 10] * 3, tuple("0123456789"))


def network(name: str) -> nn.Module:
    """Return a network of torchvision with random weights."""
    torch.manual_seed(0)
    return import_torchvision().models.get_model(name, weights=None, num_classes=10).eval()


def resident(entry: str) -> int:
    """Return an entry of /proc/self/status in bytes: VmRSS for what is held now, VmHWM for the peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(entry))
    return 1024 * int(line.split()[1])


def measure_here(arm: str, name: str, size: int, count: int) -> float:
    """Return the peak of this process during one call of `arm`, above what it held before, over the network's size."""
    data = images(size, count)
    small = network("resnet18")
    ARMS[arm](small, images(32, 2))
    del small
    model = network(name)
    own = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    kept = ARMS[arm](model, data)
    peak = resident("VmHWM")
    assert kept is not None
    return (peak - before) / own


def measured(arm: str, name: str, settings: Settings) -> float:
    """Return what `measure_here` finds in a fresh process."""
    asked = json.dumps([arm, name, settings.size, settings.images])
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, "--here", asked], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{arm} on {name} failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout)


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section."""
    settings, path = options(__doc__, Settings(arms=tuple(ARMS)), QUICK, given)
    rows = []
    for arm in settings.arms:
        found = [measured(arm, name, settings) for name in settings.networks]
        foreign = ARMS[arm] in (torch_prune, torch_pruning)
        cells = [f"{times:.1f}" if foreign or times <= LIMIT else f"**{times:.1f}**" for times in found]
        rows.append((arm if foreign else f"`{arm}`", *cells))
        print(*rows[-1], flush=True)
    said = SAID.format(warm=settings.networks[0], size=settings.size, images=settings.images, limit=LIMIT)
    write(Section("memory", "Memory of a method, in sizes of the network", said, ("", *settings.networks), rows), path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--here"]:
        print(measure_here(*json.loads(sys.argv[2])))
    else:
        main(sys.argv[1:])
