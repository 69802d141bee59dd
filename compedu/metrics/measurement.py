"""Measuring a model: cheap figures first, then accuracy image by image, then time."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from compedu import files
from compedu.compression import compression_of
from compedu.datasets.dataset import Dataset, refuse_no_data
from compedu.datasets.objectives import CLASSIFICATION
from compedu.deployment import Deployed, deploy
from compedu.errors import Cancelled, CompressionError
from compedu.evaluation import Evaluation, evaluate, evaluating, refuse_misfit
from compedu.graph.own_hooks import refuse_recomputed_weights
from compedu.methods.finite import check_finite
from compedu.metrics import costs
from compedu.metrics.accuracy import Change
from compedu.metrics.known_evaluations import known_evaluation
from compedu.metrics.latency import Timing, time_networks
from compedu.metrics.layers import References, layer_rows
from compedu.metrics.machine import machine
from compedu.metrics.report import Flip, Report

VERSION = 1  # raised when the same model would give another report: stored points become invalid
BATCH = 128  # small, as the first batch is the first figure that a learner sees


@dataclass(frozen=True, eq=False)
class Baseline:
    """The network with which others are compared, prepared once: deployed twice, for the A/A arm."""

    model: nn.Module
    data: Dataset
    split: str
    deployed: Deployed
    again: Deployed
    evaluation: Evaluation
    parameters: int
    macs: int
    file_bytes: int
    entropy_coded_bytes: int
    references: References

    @classmethod
    def of(cls, model: nn.Module, data: Dataset, split: str = "validation") -> "Baseline":
        """Prepare `model`, which must not change afterwards; raise as `measure` does."""
        _refuse_unmeasurable(model, data)
        deployed = deploy(model, data.example)
        macs = costs.macs(model, data, deployed.kernels).total
        sizes = files.file_sizes(model, "packed", "ans")
        return cls(
            model=model,
            data=data,
            split=split,
            deployed=deployed,
            again=deploy(model, data.example),
            evaluation=known_evaluation(
                model, data, split, lambda: finite(evaluate(deployed, data, split, BATCH), model)
            ),
            parameters=sum(costs.parameters(model).values()),
            macs=macs,
            file_bytes=sizes["packed"],
            entropy_coded_bytes=sizes["ans"],
            references=References.of(model),
        )


def measure(
    model: nn.Module,
    data: Dataset,
    *,
    baseline: nn.Module | Baseline | None = None,
    split: str = "validation",
    speed: bool | Timing = True,
    on_partial: Callable[[Report], None] | None = None,
    stale: Callable[[], bool] | None = None,
) -> Report:
    """Return what `model` measures on `split` of `data`, against a `baseline` if one is given.

    Accuracy and time are those of the deployed network, sizes those of files really written. A network as `baseline`
    is prepared again at each call; pass a `Baseline` for many calls. `speed` may be a `Timing`; False leaves time out.
    `on_partial` gets a report after the first batch of images and at each refinement, each with `partial` set. `stale`
    is called between batches and rounds; where it returns True, `measure` raises `Cancelled`. Raises
    `CompressionError` for weights or logits that are not finite, for images that do not fit the network, and for a
    `Baseline` of other data.
    """
    for report in measuring(model, data, baseline=baseline, split=split, speed=speed, stale=stale):
        if report.partial and on_partial is not None:
            on_partial(report)
    return report


def measuring(
    model: nn.Module,
    data: Dataset,
    *,
    baseline: nn.Module | Baseline | None = None,
    split: str = "validation",
    speed: bool | Timing = True,
    stale: Callable[[], bool] | None = None,
) -> Iterator[Report]:
    """Yield ever more complete reports, the last one with `partial` unset; arguments and errors as for `measure`."""
    go_on = _checking(stale)
    _refuse_unmeasurable(model, data)
    baseline = _prepared(baseline, data, split)
    deployed = deploy(model, data.example)
    macs = costs.macs(model, data, deployed.kernels)
    known = _identity(model, data, split) | _counts(model, macs, baseline)
    guard = deployed.register_forward_pre_hook(lambda network, inputs: go_on())
    try:
        itself = baseline is not None and baseline.model is model  # its predictions are known
        for evaluation in [baseline.evaluation] if itself else evaluating(deployed, data, split, BATCH):
            answers = _answers(finite(evaluation, model), baseline)
            yield Report(**known, **answers, partial=True)
            if "file_bytes" not in known:
                go_on()
                known |= _sizes(model, macs, deployed, baseline)
    finally:
        guard.remove()
    if speed:
        timing = speed if isinstance(speed, Timing) else Timing()
        pair = None if baseline is None else (baseline.deployed, baseline.again)
        known["latency"] = time_networks(deployed, data.split(split)[0], pair, timing, go_on)
    yield Report(**known, **answers)


def _refuse_unmeasurable(model: nn.Module, data: Dataset) -> None:
    check_finite(model)
    refuse_no_data(data)
    refuse_recomputed_weights(model)  # before a copy is made: a weight that a pass computed cannot be copied
    refuse_misfit(model, data)


def _checking(stale: Callable[[], bool] | None) -> Callable[[], None]:
    """Return a function that raises `Cancelled` once `stale` returns True."""

    def go_on() -> None:
        if stale is not None and stale():
            raise Cancelled("the measurement is no longer wanted")

    return go_on


def _prepared(baseline: nn.Module | Baseline | None, data: Dataset, split: str) -> Baseline | None:
    if baseline is not None and not isinstance(baseline, Baseline):
        return Baseline.of(baseline, data, split)
    same = baseline is None or baseline.data is data or baseline.data.digest == data.digest
    if not same or (baseline is not None and baseline.split != split):
        raise CompressionError(
            f"the baseline was prepared on {baseline.data!r}, {baseline.split} split, not on {data!r}, {split} split; "
            "prepare it with Baseline.of(model, data, split)"
        )
    return baseline


def finite(evaluation: Evaluation, model: nn.Module) -> Evaluation:
    """Return `evaluation`; raise `CompressionError` where its loss, and so a logit, is not finite."""
    if not math.isfinite(evaluation.loss):
        raise CompressionError(
            f"{name_of(model)} gives logits that are not finite among the first {evaluation.seen} images, though its "
            "weights are finite: activations overflow; use a milder setting, or train with a lower learning rate"
        )
    return evaluation


def name_of(model: nn.Module) -> str:
    """Return the spec of `model`, or its class where it is not one of our networks."""
    return getattr(model, "spec", type(model).__name__)


def _identity(model: nn.Module, data: Dataset, split: str) -> dict[str, Any]:
    compression = compression_of(model)
    return {
        "method": " | ".join(compression.steps),
        "model": name_of(model),
        "data": data.name,
        "split": split,
        "machine": machine(),
        "skipped": compression.skipped,
    }


def _counts(model: nn.Module, macs: costs.Macs, baseline: Baseline | None) -> dict[str, Any]:
    counts = {
        "parameters": sum(costs.parameters(model).values()),
        "macs": macs.total,
        "uncounted": macs.uncounted,
    }
    return (
        counts
        if baseline is None
        else counts
        | {
            "baseline_parameters": baseline.parameters,
            "baseline_macs": baseline.macs,
            "baseline_file_bytes": baseline.file_bytes,
            "baseline_entropy_coded_bytes": baseline.entropy_coded_bytes,
        }
    )


def _sizes(model: nn.Module, macs: costs.Macs, deployed: Deployed, baseline: Baseline | None) -> dict[str, Any]:
    packed = files.model_bytes(model, "packed")
    written = files.map_of(packed)
    references = None if baseline is None else baseline.references
    return {
        "file_bytes": len(packed),
        "entropy_coded_bytes": len(files.model_bytes(model, "ans")),
        "size_by_role": written.totals,
        "layers": layer_rows(model, written, macs.layers, deployed.kernels, references),
    }


def _answers(evaluation: Evaluation, baseline: Baseline | None) -> dict[str, Any]:
    """Return the fields that follow from the predictions, alone and against the baseline's on the same images."""
    answers = {
        "correct": evaluation.correct,
        "seen": evaluation.seen,
        "total": evaluation.of,
        "loss": evaluation.loss,
    }
    if evaluation.objective.kind != CLASSIFICATION:
        answers |= {"criterion": evaluation.objective.criterion}
    if baseline is None:
        return answers
    before = baseline.evaluation.predictions[: evaluation.seen]
    after = evaluation.predictions
    was = baseline.evaluation.is_correct[: evaluation.seen]
    now = evaluation.is_correct
    change = {"change": Change.between(was, now)}
    if evaluation.objective.kind != CLASSIFICATION:  # answers that are no classes do not flip
        return answers | change
    flips = {
        name: tuple(
            Flip(image, int(evaluation.labels[image]), int(before[image]), int(after[image]))
            for image in which.nonzero().squeeze(1).tolist()
        )
        for name, which in (("newly_wrong", was & ~now), ("newly_right", now & ~was))
    }
    return answers | flips | change
