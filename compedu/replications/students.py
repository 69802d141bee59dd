"""A replication at our scale: the same small student, taught in every way of the library, beside its controls.

    python -m compedu.replications.students

computes the runs that are not stored yet and prints all of them. A student learns from few images of `glyphs`, from the
same weights for each way, over several seeds; `vgg` teaches it. Each way has its default settings, but for the
temperature of soft targets and of the assistant, the better of 4 and 10 on validation images with three other seeds,
and for layers that do not fit. Some defaults were chosen after short tries with other seeds; nothing was tuned for this
table. The test images are used once, for the figures.
"""

from dataclasses import replace
from pathlib import Path

from compedu.columns import Columns
from compedu.methods import (
    AttentionTransfer,
    BayesianDarkKnowledge,
    ContrastiveDistillation,
    DecoupledDistillation,
    FitNets,
    LogitMatching,
    ModelCompression,
    NeuronSelection,
    RandomTeacher,
    RelationalDistillation,
    SimilarityPreserving,
    TeacherAssistant,
)
from compedu.methods.distillation.controls import controls
from compedu.methods.method import Method
from compedu.metrics.seeds import mean, student_interval
from compedu.networks.shipped import trained
from compedu.replications.races import RACES, SEEDS, SOFT, TRAINING
from compedu.replications.stored import stored_reports
from compedu.shipped import shipped_sweep
from compedu.sweeps.running import sweep

RACED = RACES[0]  # soft targets, with the teacher and the images of all ways here
SPLIT = "test"
COPIES = 2  # of each image in the transfer set of model compression, which then has more images
CONTROLS = ("alone", "longer", "label smoothing", "temperature 1", "random teacher")
ALONE = "alone"
TAUGHT: dict[str, Method] = {
    "soft targets": SOFT,
    "decoupled": DecoupledDistillation(**TRAINING),
    "logit matching": LogitMatching(**TRAINING),
    "hints (FitNets)": FitNets(hint="features.conv3_2", guided="conv2", **TRAINING),
    "attention maps": AttentionTransfer(**TRAINING),
    "relations": RelationalDistillation(**TRAINING),
    "similarity": SimilarityPreserving(**TRAINING),
    "contrastive": ContrastiveDistillation(**TRAINING),
    "selected neurons": NeuronSelection(**TRAINING),
    "many teachers": BayesianDarkKnowledge(**TRAINING),
    "teacher assistant": TeacherAssistant(temperature=SOFT.temperature, **TRAINING),
    "model compression": ModelCompression(copies=COPIES, **TRAINING | {"epochs": TRAINING["epochs"] // (COPIES + 1)}),
}


def arms() -> dict[str, Method]:
    """Return all ways by name, the controls of soft targets first."""
    found = controls(SOFT)
    return {name: found[name] for name in CONTROLS} | TAUGHT


def seeded(method: Method, seed: int) -> Method:
    """Return a way with another seed, that of a method inside it included."""
    inner = {"distillation": replace(method.distillation, seed=seed)} if isinstance(method, RandomTeacher) else {}
    return replace(method, seed=seed, **inner)


def path() -> Path:
    """Return the file of the runs."""
    return shipped_sweep(RACED.data, RACED.teacher, "students")


def remake() -> None:
    """Compute and store missing runs, a seed of all ways after the other."""
    data = RACED.images()
    teacher = trained(RACED.teacher, RACED.data)
    for seed in SEEDS:
        points = [seeded(method, seed) for method in arms().values()]
        found = sweep(points, teacher, data, split=SPLIT, store=path())
        for report in found:
            print(f"seed {seed}: {report.method}: {report.accuracy:.2%}", flush=True)
        for failure in found.failures:
            print(f"seed {seed}: {failure}", flush=True)


def gains() -> dict[str, list[float]]:
    """Return the points of accuracy by which each way is ahead of the student alone, one for each stored seed."""
    runs = {(name, seed): seeded(method, seed) for name, method in arms().items() for seed in SEEDS}
    stored = {report.method: report.accuracy for report in stored_reports(path(), runs.values(), SPLIT)}
    reached = {name: {} for name in arms()}
    for (name, seed), method in runs.items():
        if repr(method) in stored:
            reached[name][seed] = stored[repr(method)]
    alone = reached[ALONE]
    return {name: [100 * (one[seed] - alone[seed]) for seed in one if seed in alone] for name, one in reached.items()}


def table() -> Columns:
    """Return the gains with their intervals.

    The intervals are Student's over the seeds. As there are many ways, a way "helps" or "hurts" if its interval at a
    confidence that shares 5 % among all of them (Bonferroni) excludes zero.
    """
    led = {name: points for name, points in gains().items() if name != ALONE and len(points) > 1}
    shared = 1 - 0.05 / max(1, len(led))
    rows = [("", "seeds", "points to alone", "95 % interval", "verdict")]
    for name, points in sorted(led.items(), key=lambda pair: -mean(pair[1])):
        low, high = student_interval(points)
        least, most = student_interval(points, shared)
        verdict = "helps" if least > 0 else "hurts" if most < 0 else "undecided"
        kind = f"{name} (control)" if name in CONTROLS else name
        rows.append((kind, str(len(points)), f"{mean(points):+.2f}", f"{low:+.2f} to {high:+.2f}", verdict))
    return Columns(rows, left={0, 4})


if __name__ == "__main__":
    remake()
    print(table())
