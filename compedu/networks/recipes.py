"""How the shipped weights are made: one recipe per network and data set, and the command that trains them again."""

import platform
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.evaluation import evaluate
from compedu.networks.checkpoints import read_checkpoint, write_checkpoint, write_record
from compedu.networks.fitting import network_for
from compedu.networks.own import own_path
from compedu.networks.shipped import checkpoint_path
from compedu.training import Recipe, fit

RECIPES: dict[tuple[str, str], Recipe] = {
    ("lenet300", "digits"): Recipe(epochs=60, lr=2e-3, shift=1),
    ("lenet5", "digits"): Recipe(epochs=40, lr=2e-3, shift=1),
    ("lenet300", "glyphs"): Recipe(epochs=40, lr=1e-3, weight_decay=1e-1, shift=1),
    ("lenet5", "glyphs"): Recipe(epochs=40, lr=4e-3, weight_decay=1e-2, shift=1),
    ("vgg", "glyphs"): Recipe(epochs=12, lr=3e-3, weight_decay=1e-2, shift=2),
    ("resnet", "glyphs"): Recipe(epochs=12, lr=3e-3, weight_decay=1e-2, shift=2),
    ("inception", "glyphs"): Recipe(epochs=12, lr=3e-3, weight_decay=1e-2, shift=2),
    ("mobilenet", "glyphs"): Recipe(epochs=12, lr=3e-3, weight_decay=1e-2, shift=2),
    ("vit", "glyphs"): Recipe(epochs=160, lr=1.5e-3, weight_decay=5e-2, shift=2),
    ("vgg", "cifar10"): Recipe(epochs=20, lr=3e-3, weight_decay=5e-2, shift=3, mirror=True),
    ("resnet", "cifar10"): Recipe(epochs=20, lr=4e-3, weight_decay=5e-2, shift=3, mirror=True),
    ("inception", "cifar10"): Recipe(epochs=20, lr=3e-3, weight_decay=5e-2, shift=3, mirror=True),
    ("lenet300", "mnist"): Recipe(epochs=30, lr=1.5e-3, batch=128, shift=1),
    ("lenet5", "mnist"): Recipe(epochs=15, lr=1.5e-3, batch=128, shift=1),
}
DEFAULT = Recipe(epochs=20, lr=2e-3, shift=1)
CONFIRMED = "validation_accuracy_with_doubled_epochs"  # in a record: shows that the training was long enough


def recipe_for(spec: str, data: Dataset) -> Recipe:
    """Return the recipe that made the shipped weights of this pair, or `DEFAULT`; a user's own data has none.

    The default leaves images where they are if their targets would not be true of shifted ones.
    """
    default = DEFAULT if "shift" in data.objective.unchanged_by else replace(DEFAULT, shift=0)
    return RECIPES.get((spec, data.origin and data.name), default)


def train_network(
    spec: str, data: Dataset, recipe: Recipe | None = None, *, resume: Path | None = None
) -> tuple[nn.Module, dict]:
    """Train network `spec` on `data` and return it with its record: spec, recipe, accuracies, versions.

    The accuracies are measured after rounding the weights to half precision, in which they are shipped. The recipe
    defaults to the one that made the shipped weights, or to `DEFAULT`. `resume` names the file for the state of the
    training.
    """
    recipe = recipe or recipe_for(spec, data)
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
    """Return the recipe with twice the epochs: a baseline is converged if this changes validation by < 0.3 points."""
    return replace(recipe, epochs=2 * recipe.epochs)


def train_and_keep(spec: str, data: Dataset, path: Path, confirm: bool = False) -> dict:
    """Train `spec` on `data`, write the weights to `path` and return their record; `confirm` doubles the epochs too.

    An interrupted run is resumed from the file of the same name that ends in .training.
    """
    state = path.with_suffix(".training")
    model, record = train_network(spec, data, resume=state)
    record = write_checkpoint(model, confirmed(spec, data, path, record) if confirm else record, path)
    state.unlink(missing_ok=True)
    return record


def confirmed(spec: str, data: Dataset, path: Path, record: dict) -> dict:
    """Return the record of the weights `path` with the accuracy that twice the epochs reach."""
    again = path.with_suffix(".doubled.training")
    _, longer = train_network(spec, data, doubled(Recipe(**record["recipe"])), resume=again)
    again.unlink(missing_ok=True)
    return record | {CONFIRMED: longer["accuracy"]["validation"]}


def remake(spec: str, data: Dataset, confirm: bool = False) -> tuple[Path, dict]:
    """Train the shipped weights of `spec` for `data` again, and return their path and record."""
    if data.origin != data.name:
        raise ValueError(f"weights for {data.name!r} do not come with compedu; name a folder of your own")
    path = checkpoint_path(spec, data.name)
    return path, train_and_keep(spec, data, path, confirm)


def train_own(spec: str, data: Dataset, folder: Path | None = None, confirm: bool = False) -> tuple[Path, dict]:
    """Train `spec` on `data` and keep the weights in `folder`, by default the user's; return their path and record.

    Existing weights of the same network and data stay, and so does their record. Raises `ValueError` if they were
    trained with another recipe, and, without a folder, for a pair that is shipped.
    """
    if folder is None and data.origin == data.name and checkpoint_path(spec, data.name).exists():
        raise ValueError(
            f"trained weights of {spec} for {data.name} come with compedu and stay as they are; "
            "name a folder for weights of your own"
        )
    path = own_path(spec, data, folder)
    if not path.exists() or path.with_suffix(".training").exists():
        return path, train_and_keep(spec, data, path, confirm)
    _, record = read_checkpoint(path)
    if record["recipe"] != asdict(recipe_for(spec, data)):
        raise ValueError(f"{path} was trained with another recipe; move it away, or name another folder")
    if confirm and CONFIRMED not in record:
        record = write_record(confirmed(spec, data, path, record), path)
    return path, record
