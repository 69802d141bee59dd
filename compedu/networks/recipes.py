"""How the shipped weights are made: one recipe for each network and data set, and the command that remakes them."""

import json
import platform
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save as safetensors_bytes
from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.evaluation import evaluate
from compedu.networks.fitting import network_for
from compedu.networks.shipped import checkpoint_path
from compedu.training import Recipe, fit
from compedu.writing import write_whole

RECIPES: dict[tuple[str, str], Recipe] = {
    ("lenet300", "digits"): Recipe(epochs=60, lr=2e-3, shift=1),
    ("lenet5", "digits"): Recipe(epochs=40, lr=2e-3, shift=1),
    ("lenet300", "glyphs"): Recipe(epochs=40, lr=1e-3, weight_decay=1e-1, shift=1),
    ("lenet5", "glyphs"): Recipe(epochs=40, lr=4e-3, weight_decay=1e-2, shift=1),
    ("vgg", "glyphs"): Recipe(epochs=12, lr=3e-3, weight_decay=1e-2, shift=2),
    ("resnet", "glyphs"): Recipe(epochs=12, lr=3e-3, weight_decay=1e-2, shift=2),
    ("inception", "glyphs"): Recipe(epochs=12, lr=3e-3, weight_decay=1e-2, shift=2),
    ("mobilenet", "glyphs"): Recipe(epochs=12, lr=3e-3, weight_decay=1e-2, shift=2),
    ("vgg", "cifar10"): Recipe(epochs=20, lr=3e-3, weight_decay=5e-2, shift=3, mirror=True),
    ("resnet", "cifar10"): Recipe(epochs=20, lr=4e-3, weight_decay=5e-2, shift=3, mirror=True),
    ("lenet300", "mnist"): Recipe(epochs=30, lr=1.5e-3, batch=128, shift=1),
    ("lenet5", "mnist"): Recipe(epochs=15, lr=1.5e-3, batch=128, shift=1),
}
DEFAULT = Recipe(epochs=20, lr=2e-3, shift=1)


def train_network(
    spec: str, data: Dataset, recipe: Recipe | None = None, *, resume: Path | None = None
) -> tuple[nn.Module, dict]:
    """Train network `spec` on `data` and return it with its record: spec, recipe, accuracies, versions.

    Weights are rounded to half precision before the accuracies are measured, as they are shipped. The recipe defaults
    to the one that made the shipped weights, or to `DEFAULT`. `resume` names the file that keeps the state meanwhile.
    """
    recipe = recipe or RECIPES.get((spec, data.name), DEFAULT)
    model = network_for(spec, data, seed=recipe.seed)
    losses = fit(model, data, recipe, resume=resume)
    full = evaluate(model, data, "validation")
    model.half().float()
    scores = {split: evaluate(model, data, split) for split in ("train", "validation", "test")}
    record = {
        "spec": model.spec, "data": data.name, "data_version": data.version, "data_digest": data.digest,
        "recipe": asdict(recipe), "final_training_loss": round(losses[-1], 5),
        "accuracy": {split: f"{score.correct}/{score.seen}" for split, score in scores.items()},
        "validation_accuracy_before_rounding_to_half": f"{full.correct}/{full.seen}",
        "made_with": {
            "torch": torch.__version__, "threads": torch.get_num_threads(), "python": platform.python_version(),
            "machine": platform.machine(),
        },
    }  # fmt: skip
    return model, record


def doubled(recipe: Recipe) -> Recipe:
    """Return the recipe with twice the epochs: a baseline is trained when this moves validation by < 0.3 point."""
    return replace(recipe, epochs=2 * recipe.epochs)


def write_checkpoint(model: nn.Module, record: dict, path: Path) -> None:
    """Write the weights in half precision (`path`, safetensors) and their record beside them (same name, .json)."""
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    content = safetensors_bytes(tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    record = record | {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
    write_whole(path.with_suffix(".json"), (json.dumps(record, indent=2) + "\n").encode())


def remake(spec: str, data: Dataset, folder: Path | None = None, confirm: bool = False) -> dict:
    """Train, write and return the record of one shipped network; `confirm` also trains with doubled epochs.

    An interrupted run goes on where it stopped. The files go to `folder`, by default to where the package looks.
    """
    path = checkpoint_path(spec, data.name)
    path = path if folder is None else folder / path.name
    state = path.with_suffix(".training")
    model, record = train_network(spec, data, resume=state)
    if confirm:
        recipe = doubled(Recipe(**record["recipe"]))
        again = path.with_suffix(".doubled.training")
        _, longer = train_network(spec, data, recipe, resume=again)
        record["validation_accuracy_with_doubled_epochs"] = longer["accuracy"]["validation"]
        again.unlink(missing_ok=True)
    write_checkpoint(model, record, path)
    state.unlink(missing_ok=True)
    return record
