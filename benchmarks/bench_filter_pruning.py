"""Our filter pruning against torch-pruning alone: the same channel counts, time of the call, speed, accuracy."""

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version

import torch_pruning
from rounds import again, timed, timed_networks
from table import DATA, Estimate, Section, grid, options, write
from torch import nn

import compedu as ce
from compedu.compression import compression_of
from compedu.datasets.dataset import Dataset
from compedu.evaluation import Evaluation
from compedu.graph import find_channels
from compedu.metrics import Change, Latency, costs
from compedu.metrics.latency import WARM_UP
from compedu.reproducible import torch_threads
from compedu.training import Recipe, fit

OURS = "ours"
THEIRS = "torch-pruning"
Gone = dict[str, set[int]]  # layer at which torch-pruning began -> channels taken out
CRITERIA = {
    "group, p=1": torch_pruning.importance.GroupMagnitudeImportance(p=1),
    "first layer's filters": torch_pruning.importance.GroupMagnitudeImportance(
        p=1, group_reduction="first", normalizer=None, target_types=[nn.Conv2d, nn.Linear]
    ),
}
PAIRS = (("l1", "group, p=1"), ("l1", "first layer's filters"), ("group", "group, p=1"))  # ours, theirs
SAID = """
`FilterPruning(sparsity=...)` against torch-pruning {version} alone: `BasePruner`, uniform `pruning_ratio`, the output
layer ignored, and either of two criteria. *Group, p=1*, is `GroupMagnitudeImportance(p=1)`: the mean L1 norm over
all layers of a group, those that read the channels and batch norms included; our `group` is the same but for depthwise
filters, which it counts too. *First layer's filters* is the L1 norm of the filters that make the channels in the
group's first layer. Our `l1` is the mean over all layers that make the channels: the same choice where no sum couples
layers, as in `vgg`.
Before anything is timed, both networks must have the same shapes, hence the same MACs and parameters, and
torch-pruning's counter must agree with ours on the parameters and, layer by layer, on the MACs.

*The call*, one thread, interleaved; ratios are torch-pruning's time divided by ours, above 1 where ours is faster.
Theirs copies the network, builds its graph and prunes the copy. Ours copies, follows the channels, prunes, and checks
in float64 that the smaller network computes what the one with zeroed channels does. "First" is a call on a network
never seen before; a later call on the same network ("again", as a slider makes it) knows which channels are
coupled. *Latency*: both results deployed by `compedu.deploy`, batch {batch}, one thread. "Gone alike" is the share of
the channels taken out by ours that torch-pruning takes out too. A "?" marks ratios whose A/A arm failed.

{speed}

*Accuracy* on the validation split, of the deployed networks. Fine-tuning: {images:,} training images, {epochs:g}
epoch(s), peak learning rate {lr:g}, the same recipe and the same order of images for both sides, once for each seed of
that order. Differences are ours minus torch-pruning's on the same images, in points, with the paired 95 % interval; one
that holds 0 tells nothing. The interval is about the images; what the order of training images does, the seeds show.
*Pruned* is before any training, with batch-norm statistics that fit neither network any more: what counts is the
accuracy after fine-tuning.
"""
SPEED_HEAD = (
    "network", "ratio", "criterion of ours", "criterion of torch-pruning", "gone alike", "MACs", "parameters",
    "call, ms: ours first, again", "call, ms: torch-pruning",
    "call: torch-pruning / ours, first", "call: torch-pruning / ours, again", "call: torch-pruning / itself",
    "latency, ms: ours, torch-pruning", "latency: torch-pruning / ours",
    "latency: torch-pruning / itself", "latency of ours is",
)  # fmt: skip
HEAD = (
    "network", "ratio", "criterion of ours", "criterion of torch-pruning", "dense", "pruned: ours",
    "pruned: torch-pruning", "difference",
    "fine-tuned: ours", "fine-tuned: torch-pruning", "differences",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Networks, data, channel ratios, fine-tuning, and seconds for each comparison."""

    networks: tuple[str, ...] = ("vgg", "resnet")
    data: str = DATA
    ratios: tuple[float, ...] = (0.25, 0.5, 0.75)
    images: int = 2048
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=1, lr=1e-3))
    seeds: tuple[int, ...] = (0, 1, 2)
    batch: int = 64
    budget_s: float = 5.0


QUICK = Settings(networks=("lenet5",), data="digits", ratios=(0.5,), images=32, seeds=(0,), batch=2, budget_s=0.0)


def torch_pruned(model: nn.Module, data: Dataset, ratio: float, criterion: str) -> tuple[nn.Module, Gone]:
    """Return a copy of `model`, pruned by torch-pruning, and which channels went, by the layer at which it began."""
    copied = copy.deepcopy(model)
    *_, last = (layer for layer in copied.modules() if isinstance(layer, nn.Linear))
    pruner = torch_pruning.pruner.BasePruner(
        copied, data.example, CRITERIA[criterion], pruning_ratio=ratio, ignored_layers=[last]
    )
    pruner.step()
    return copied, {name: set(numbers) for name, _, numbers in pruner.pruning_history()}


def counted(ours: nn.Module, theirs: nn.Module, data: Dataset) -> tuple[int, int]:
    """Return MACs and parameters of both; raise `AssertionError` where shapes or the two sides' counters differ."""
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1], "the two sides keep different numbers of channels"
    macs = costs.macs(ours, data)
    parameters = sum(costs.parameters(ours).values())
    _, found, operations, _ = torch_pruning.utils.count_ops_and_params(ours, data.example, layer_wise=True)
    assert found == parameters, f"we count {parameters} parameters, torch-pruning {found}"
    for name, count in macs.layers.items():
        layer = ours.get_submodule(name)
        weights = layer.weight.numel()  # torch-pruning adds one operation at each place for a bias
        found = operations[layer] * weights / (weights + (0 if layer.bias is None else len(layer.bias)))
        assert found == count, f"{name}: we count {count} MACs, torch-pruning {found}"
    return macs.total, parameters


def gone_alike(model: nn.Module, ours: nn.Module, gone: Gone, data: Dataset) -> float:
    """Return the share of the channels taken out of `model` in `ours` that are `gone` at torch-pruning too."""
    producers = {group.name: group.producers for group in find_channels(model, data.example).groups}
    both = [
        len(set(removed.channels) & next(gone[name] for name in producers[removed.group] if name in gone))
        for removed in compression_of(ours).removed
    ]
    return sum(both) / sum(len(removed.channels) for removed in compression_of(ours).removed)


def call_times(
    model: nn.Module, data: Dataset, method: ce.FilterPruning, criterion: str, budget_s: float
) -> tuple[Latency, Latency]:
    """Return the times of ours on a network never seen before, and on a known one, against torch-pruning's."""
    ratio = method.sparsity
    other = copy.deepcopy(model)
    unseen = [copy.deepcopy(model) for _ in range(WARM_UP + 1)]
    rounds = timed(
        {
            "first": lambda: method(unseen.pop(), data), "known": lambda: method(model, data),
            THEIRS: lambda: torch_pruned(model, data, ratio, criterion),
            again(THEIRS): lambda: torch_pruned(other, data, ratio, criterion),
        },
        budget_s, between=lambda: unseen.append(copy.deepcopy(model)),
    )  # fmt: skip
    return rounds.latency("first", THEIRS), rounds.latency("known", THEIRS)


@dataclass(frozen=True, eq=False)
class Task:
    """One network to be pruned by both sides at one ratio."""

    network: str
    model: nn.Module
    data: Dataset
    ratio: float

    @property
    def name(self) -> tuple[str, ...]:
        """The first cells of the task's rows."""
        return self.network, f"{self.ratio:.0%}"

    def method(self, criterion: str) -> ce.FilterPruning:
        """Return our method with a criterion."""
        return ce.FilterPruning(sparsity=self.ratio, criterion=criterion)

    def speed_row(self, own: str, criterion: str, settings: Settings) -> tuple[str, ...]:
        """Return what the results of our criterion and of torch-pruning's cost, and how long calls and results take."""
        method = self.method(own)
        ours = method(self.model, self.data)
        (theirs, gone) = torch_pruned(self.model, self.data, self.ratio, criterion)
        macs, parameters = counted(ours, theirs, self.data)
        first, known = call_times(self.model, self.data, method, criterion, settings.budget_s)
        deployed = {OURS: ce.deploy(ours), THEIRS: ce.deploy(theirs), again(THEIRS): ce.deploy(theirs)}
        batch = self.data.x_validation[: settings.batch]
        latency = timed_networks(deployed, batch, settings.budget_s).latency(OURS, THEIRS)
        return (
            *self.name, own, criterion, f"{gone_alike(self.model, ours, gone, self.data):.0%}", f"{macs:,}",
            f"{parameters:,}", f"{first.latency_ms:.1f}, {known.latency_ms:.1f}", f"{first.baseline_ms:.1f}",
            speed_up(first), speed_up(known), Estimate.a_a(first).text(3, "x"),
            f"{latency.latency_ms:.2f}, {latency.baseline_ms:.2f}", speed_up(latency),
            Estimate.a_a(latency).text(3, "x"), latency.verdict,
        )  # fmt: skip

    def accuracy_rows(self, dense: Evaluation, settings: Settings) -> list[tuple[str, ...]]:
        """Return the accuracies right after pruning and after equal fine-tuning, one row for each pair of criteria."""
        ours = {
            name: evaluations(lambda name=name: self.method(name)(self.model, self.data), self.data, settings)
            for name in dict(PAIRS)
        }
        theirs = {
            name: evaluations(
                lambda name=name: torch_pruned(self.model, self.data, self.ratio, name)[0], self.data, settings
            )
            for name in CRITERIA
        }
        return [(*self.name, *pair, *compared(dense, ours[pair[0]], theirs[pair[1]])) for pair in PAIRS]


def evaluations(pruned: Callable[[], nn.Module], data: Dataset, settings: Settings) -> list[Evaluation]:
    """Return how the network that `pruned` makes does as it is, and fine-tuned with each seed."""
    tuned = [fine_tuned(pruned(), data, settings, seed) for seed in settings.seeds]
    return [evaluated(model, data) for model in (pruned(), *tuned)]


def compared(dense: Evaluation, ours: Sequence[Evaluation], theirs: Sequence[Evaluation]) -> tuple[str, ...]:
    """Return the cells of a row of accuracies; of both sides first the pruned network, then the fine-tuned ones."""
    changes = [difference(*pair) for pair in zip(ours, theirs, strict=True)]
    return (
        percent(dense), percent(ours[0]), percent(theirs[0]), changes[0],
        ", ".join(map(percent, ours[1:])), ", ".join(map(percent, theirs[1:])), "; ".join(changes[1:]),
    )  # fmt: skip


def speed_up(latency: Latency) -> str:
    """Return a ratio of times as it stands in the table, with "?" where the A/A arm failed."""
    text = Estimate.speed_up(latency).text(2, "x")
    return f"{text} ?" if latency.verdict.startswith("withheld") else text


def fine_tuned(model: nn.Module, data: Dataset, settings: Settings, seed: int) -> nn.Module:
    """Return `model`, fine-tuned in place on the first images of the training split."""
    with torch_threads(1):
        fit(model, data.shortened(train=settings.images), replace(settings.recipe, seed=seed))
    return model


def evaluated(model: nn.Module, data: Dataset) -> Evaluation:
    """Return the evaluation of the deployed `model` on the validation split."""
    return ce.evaluate(ce.deploy(model), data, "validation")


def percent(evaluation: Evaluation) -> str:
    """Return an accuracy as it stands in the table."""
    return f"{100 * evaluation.correct / evaluation.seen:.2f} %"


def difference(ours: Evaluation, theirs: Evaluation) -> str:
    """Return the accuracy of ours minus that of torch-pruning in points, with its paired interval."""
    broke = int((theirs.is_correct & ~ours.is_correct).sum())
    fixed = int((ours.is_correct & ~theirs.is_correct).sum())
    change = Change(broke, fixed, ours.seen)
    low, high = change.interval
    return f"{100 * change.difference:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section."""
    settings, path = options(__doc__, Settings(), QUICK, given)
    speed = []
    rows = []
    for network in settings.networks:
        model, data = ce.load(network, settings.data)
        dense = evaluated(model, data)
        for task in (Task(network, model, data, ratio) for ratio in settings.ratios):
            speed += [task.speed_row(*pair, settings) for pair in PAIRS]
            rows += task.accuracy_rows(dense, settings)
    said = SAID.format(
        version=version("torch-pruning"),
        batch=settings.batch,
        speed=grid(SPEED_HEAD, speed),
        images=settings.images,
        epochs=settings.recipe.epochs,
        lr=settings.recipe.lr,
    )
    title = f"Filter pruning against torch-pruning, {settings.data}"
    write(Section("filter_pruning", title, said, HEAD, rows), path)


if __name__ == "__main__":
    main(sys.argv[1:])
