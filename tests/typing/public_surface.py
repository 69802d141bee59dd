"""The public surface as the README and the chapters use it; never run: `make check` has a type checker read it.

An ignored error is one that must be found: without it, the comment itself is an error.
"""

from typing import assert_type

from torch import nn

import compedu as ce
from compedu.claims import Experiment
from compedu.datasets.dataset import Dataset
from compedu.deployment.deploy import Deployed
from compedu.explorers import Explorer
from compedu.methods import Method, Pipeline
from compedu.metrics import Report

model, data = ce.load("lenet5", "glyphs")
assert_type(model, nn.Module)
assert_type(data, Dataset)

method = ce.MagnitudePruning(sparsity=0.9)
assert_type(method, ce.MagnitudePruning)
assert_type(method(model, data), nn.Module)
assert_type(ce.MagnitudePruning(sparsity={"conv*": 0.3, "*": 0.9}, layers="-last"), ce.MagnitudePruning)
assert_type(ce.TruncatedSVD(rank=8) | ce.FineTune(epochs=1), Pipeline)
assert_type(ce.SoftTargetDistillation(temperature=4.0, student="lenet5(width=0.25)").temperature, float)

report = ce.measure(method(model, data), data, baseline=model)
assert_type(report, Report)
assert_type(report.accuracy, float)
assert_type(report.accuracy_interval, tuple[float, float])
assert_type(report.file_bytes, int | None)

assert_type(ce.explore(ce.MagnitudePruning, model, data), Explorer)
assert_type(list(ce.sweep([method], model, data)), list[Report])
assert_type(ce.controls(ce.SoftTargetDistillation()), dict[str, Method])
assert_type(ce.deploy(model), Deployed)
assert_type(ce.save(model, "model.compedu"), int)
assert_type(ce.load_model("model.compedu"), nn.Module)
assert_type(ce.load_data("digits"), Dataset)
assert_type(ce.build("lenet5"), nn.Module)
assert_type(ce.experiment("D4"), Experiment)
assert_type(ce.METHODS, tuple[type[Method], ...])

ce.MagnitudePruning(sparsty=0.9)  # pyright: ignore[reportCallIssue]
ce.MagnitudePruning(sparsity="much")  # pyright: ignore[reportArgumentType]
ce.MagnitudePruning(0.9)  # pyright: ignore[reportCallIssue]
ce.LinearQuantization(bits=2.5)  # pyright: ignore[reportArgumentType]
method.sparsity = 0.5  # pyright: ignore[reportAttributeAccessIssue]
ce.MagnitudePrunning  # pyright: ignore[reportAttributeAccessIssue]
