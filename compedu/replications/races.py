"""Stored races: how accurate a student became, alone and taught, while it learned, for several seeds.

    python -m compedu.replications.races

computes the seeds that are not stored yet and prints how all of them ended. Explorers draw them behind a live race.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from compedu import datasets
from compedu.columns import in_columns
from compedu.datasets.dataset import Dataset
from compedu.errors import CompressionError
from compedu.evaluation import evaluate, glance
from compedu.knobs import knobs
from compedu.methods import AttentionTransfer, SoftTargetDistillation, TrainingMethod
from compedu.methods.method import Method, inputs_key
from compedu.metrics.accuracy import Change
from compedu.metrics.seeds import mean, student_interval
from compedu.networks.shipped import trained
from compedu.reproducible import torch_threads
from compedu.shipped import shipped
from compedu.training import Step, side_by_side
from compedu.writing import write_whole

SEEDS = range(10, 18)
SPLIT = "validation"
WATCHED = 1000  # images of the split on which a lane is evaluated as it learns
LOOKS = 25  # how often that is, in a stored race


@dataclass(frozen=True)
class Raced:
    """A teacher, how many training images there are, and the method whose student races its control."""

    teacher: str
    data: str
    train: int
    method: Method

    @property
    def path(self) -> Path:
        """The file of the stored races, such as data/races/vgg-glyphs.json."""
        return shipped("data", "races", f"{self.teacher}-{self.data}.json")

    def images(self) -> Dataset:
        """Return the data that the students learn from: few training images, so that a teacher can matter."""
        return datasets.load(self.data).shortened(train=self.train)


TRAINING = {"student": "lenet5(width=0.25)", "epochs": 40, "lr": 2e-3}
SOFT = SoftTargetDistillation(temperature=10.0, **TRAINING)  # the better of 4 and 10 with the seeds 1 to 3
RACES = (
    Raced("vgg", "glyphs", 1000, SOFT),
    Raced("vgg", "glyphs", 1000, AttentionTransfer(**TRAINING)),
)


@dataclass(frozen=True)
class StoredRace:
    """One seed: accuracies 0..1 on the first images of the split at some `steps`, and on all of them at the end.

    `alone` and `taught` have one value a step that was looked at; `broke`, `fixed` and `total` count the images of the
    change from alone to taught.
    """

    seed: int
    steps: tuple[int, ...]
    alone: tuple[float, ...]
    taught: tuple[float, ...]
    ends: tuple[float, float]  # alone, taught: on all images
    broke: int
    fixed: int
    total: int

    @property
    def change(self) -> Change:
        """The change from alone to taught."""
        return Change(self.broke, self.fixed, self.total)

    @classmethod
    def of(cls, record: dict[str, Any]) -> "StoredRace":
        """Return the race that was stored as `record`."""
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
        }
        return cls(**known)


def lanes(method: Method) -> tuple[Method, Method]:
    """Return a method and its control, taught and alone: all but what comes from the teacher is equal, steps too."""
    if not type(method).alone:
        raise ValueError(
            f"{type(method).__name__} has no control, its student without the teacher (`alone`): a race needs one"
        )
    alone = replace(method, **type(method).alone)
    if isinstance(alone, TrainingMethod) and alone.trainings > 1:
        alone = replace(alone, epochs=alone.trainings * alone.epochs)
    return method, alone


def race_key(method: Method, inputs: str) -> str:
    """Return the identity of a race whatever its seed, on the network and data of that `inputs_key`."""
    seedless = replace(method, seed=0) if "seed" in knobs(method) else method
    return f"{seedless.key_on(inputs)}|{SPLIT}|{WATCHED}"


def stored_races(method: Method, model: nn.Module, data: Dataset) -> tuple[StoredRace, ...]:
    """Return the stored races of `method`, of any seed, taught by `model` on `data`."""
    return races_on(model, data)(method)


def races_on(model: nn.Module, data: Dataset) -> Callable[[Method], tuple[StoredRace, ...]]:
    """Return a function from a method to its stored races, of any seed, taught by `model` on `data`; files are read."""
    paths = dict.fromkeys(raced.path for raced in RACES if raced.data == data.origin and raced.path.is_file())
    known = {key: races for path in paths for key, races in read_races(path).items()}
    inputs = inputs_key(model, data) if known else ""
    return lambda method: known.get(race_key(method, inputs), ())


def read_races(path: Path) -> dict[str, tuple[StoredRace, ...]]:
    """Return the races in a file by `race_key`; raise `CompressionError` for a file that holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {key: tuple(map(StoredRace.of, races)) for key, races in content.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise CompressionError(f"{path} does not hold races ({error}): delete it, and compute them anew") from error


def run_race(method: Method, model: nn.Module, data: Dataset) -> StoredRace:
    """Train both lanes of `method` side by side, on one thread of torch, and return how it went."""
    pair = lanes(method)
    x, y = (part[:WATCHED] for part in data.split(SPLIT))
    reached: tuple[dict[int, float], ...] = ({}, {})

    def look(lane: int, step: Step) -> None:
        if step.done * LOOKS // step.steps > (step.done - 1) * LOOKS // step.steps:
            reached[lane][step.done] = glance(step.model, x, y, data)

    with torch_threads(1):
        networks = side_by_side([partial(one, model, data) for one in pair], look)
        taught, alone = (evaluate(network, data, SPLIT) for network in networks)
    change = Change.between(alone.is_correct, taught.is_correct)
    ends = (alone.correct / alone.seen, taught.correct / taught.seen)
    return StoredRace(
        getattr(method, "seed", 0), tuple(reached[0]), tuple(reached[1].values()), tuple(reached[0].values()), ends,
        change.broke, change.fixed, change.total,
    )  # fmt: skip


def remake(raced: Raced) -> Iterator[StoredRace]:
    """Compute and store the seeds that are missing, each as soon as it is known, and yield all of them."""
    model = trained(raced.teacher, raced.data)
    data = raced.images()
    key = race_key(raced.method, inputs_key(model, data))
    stored = read_races(raced.path) if raced.path.is_file() else {}
    known = {race.seed: race for race in stored.get(key, ())}
    for seed in SEEDS:
        if seed not in known:
            known[seed] = run_race(replace(raced.method, seed=seed), model, data)
            stored[key] = tuple(known.values())
            text = json.dumps({one: [vars(race) for race in races] for one, races in stored.items()}, indent=1)
            raced.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(raced.path, f"{text}\n".encode())
        yield known[seed]


def main() -> None:
    """Compute what is missing and print it."""
    for raced in RACES:
        print(f"{raced.method!r}, taught by {raced.teacher} on {raced.train} images of {raced.data}")
        races = list(remake(raced))
        led = [100 * race.change.difference for race in races]
        rows = [
            (str(race.seed), *(f"{end:.1%}" for end in race.ends), f"{points:+.1f}")
            for race, points in zip(races, led, strict=True)
        ]
        print("\n".join(in_columns([("seed", "alone", "taught", "points"), *rows], left=set())))
        low, high = student_interval(led)
        print(f"{mean(led):+.2f} points ({low:+.2f} to {high:+.2f}), {SPLIT} images, {len(races)} seeds")


if __name__ == "__main__":
    main()
