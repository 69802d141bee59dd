"""Toy methods on the bases: one trains with a companion, one is calibrated; each is one file and one line."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from processes import ROOT, SUPPORT, closed_network
from toys.least_squares_rounding import LeastSquaresRounding
from toys.pulled_together import Mixture, PulledTogether

import compedu as ce
from compedu.datasets.digits import digits
from compedu.errors import CompressionError
from compedu.evaluation import evaluate
from compedu.files import load, save
from compedu.methods.quantization.linear import LinearQuantization

TOYS = {"PulledTogether": "pulled_together", "LeastSquaresRounding": "least_squares_rounding"}

USED = """
import contextlib, io, json, sys
import pytest, torch
torch.set_num_threads(1)
import compedu as ce
import laws
from compedu.cli import main

def printed(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(list(arguments)) == 0, arguments
    return out.getvalue()

def broken(law, cls):
    try:
        law(cls)
    except (Exception, pytest.fail.Exception) as error:
        return f"{law.__name__}: {type(error).__name__}: {error}"

name = sys.argv[1]
cls = getattr(ce, name)
json.dump({
    "package": ce.__file__, "module": cls.__module__, "listed": printed("methods"),
    "run": json.loads(printed("run", f"{name}({sys.argv[2]})", "--model", "lenet300", "--json")),
    "broken": [said for said in (broken(law, cls) for law in laws.LAWS) if said], "laws": len(laws.LAWS),
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the package with one file and one line more for each toy."""
    house = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "compedu", house / "compedu", ignore=shutil.ignore_patterns("__pycache__"))
    (house / "data" / "checkpoints").mkdir(parents=True)
    for path in (ROOT / "data" / "checkpoints").glob("lenet300-digits.*"):
        shutil.copy(path, house / "data" / "checkpoints")
    methods = house / "compedu" / "methods" / "__init__.py"
    for name, module in TOYS.items():
        shutil.copy(SUPPORT / "toys" / f"{module}.py", house / "compedu" / "methods" / "quantization")
        line = f"from compedu.methods.quantization.{module} import {name}\n"
        text = methods.read_text().replace("    LinearQuantization,\n", f"    LinearQuantization,\n    {name},\n", 1)
        methods.write_text(text.replace("\n\nMETHODS", f"\n{line}\nMETHODS", 1))
    return house


@pytest.mark.parametrize(("name", "settings"), [
    ("PulledTogether", "epochs=1, strength=0.1"), ("LeastSquaresRounding", "bits=3"),
])  # fmt: skip
def test_one_file_and_one_line_are_a_method_that_keeps_all_laws(house, name, settings):
    environment = closed_network(house)
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (environment["PYTHONPATH"], house, SUPPORT)))
    command = [sys.executable, "-W", "error", "-c", USED, name, settings]
    done = subprocess.run(command, cwd=house, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["package"].startswith(str(house)) and found["module"].endswith(f"quantization.{TOYS[name]}")
    assert found["laws"] > 15 and found["broken"] == []
    assert f"  {name}: " in found["listed"].split("quantization and binarization\n")[1].split("\nParameter")[0]
    assert found["run"]["method"] == f"{name}({settings})" or set(settings.split(", ")) <= set(
        found["run"]["method"].removeprefix(f"{name}(").removesuffix(")").split(", ")
    )
    assert found["run"]["file_bytes"] < found["run"]["baseline_file_bytes"]


@pytest.mark.parametrize(("method", "kernel"), [
    (PulledTogether(epochs=1, strength=1.0, lr=3e-3), "float32 dense, zeros multiplied as well"),
    (LeastSquaresRounding(), "float32 dense, 4-bit weights decoded to float32"),
], ids=["companion", "calibrated"])  # fmt: skip
def test_a_toy_loads_from_its_file_and_deploys_with_a_named_kernel(tmp_path, method, kernel):
    model, data = ce.load("lenet5", "digits")
    few = data.shortened(train=320, validation=200, test=8)
    small = method(model, few)
    assert save(small, tmp_path / "toy.ce") == (tmp_path / "toy.ce").stat().st_size
    with torch.inference_mode():
        expected = small(few.x_validation)
        assert torch.equal(load(tmp_path / "toy.ce")(few.x_validation), expected)
        deployed = ce.deploy(small, few.example)
        torch.testing.assert_close(deployed(few.x_validation), expected, rtol=1e-4, atol=1e-4)
    assert deployed.kernels == dict.fromkeys(("conv1", "conv2", "fc1", "fc2"), kernel)


# The companion


def test_weights_join_the_centers_of_a_mixture_that_moved():
    model, data = ce.load("lenet300", "digits")
    small = PulledTogether(epochs=4, strength=0.3, centers=9)(model, data)
    kept = [np.unique(small.get_submodule(name).dense().detach().numpy()) for name in ("fc1", "fc2", "fc3")]
    values = np.unique(np.concatenate(kept))
    assert 3 < len(values) <= 9
    began = Mixture(torch.cat([model.get_submodule(name).weight.flatten() for name in ("fc1", "fc2", "fc3")]), 9)
    assert not np.isin(values[values != 0], began.centers.detach().numpy()).any()
    assert evaluate(small, data).correct > 0.9 * evaluate(model, data).correct


# The calibrated method against an oracle


def by_least_squares(rows, scales, top, inputs, damping):
    """Round each column, then let numpy find the least-squares fit of all columns that are left, from the inputs."""
    ridge = np.sqrt(damping * np.square(inputs).mean()) * np.eye(inputs.shape[1])
    x = np.vstack([inputs / np.sqrt(len(inputs)), ridge])
    codes = np.zeros_like(rows)
    for row, (weights, scale) in enumerate(zip(rows, scales, strict=True)):
        left = weights.copy()
        for place in range(len(weights)):
            codes[row, place] = np.clip(np.round(left[place] / scale), -top, top)
            fixed = codes[row, : place + 1] * scale - weights[: place + 1]
            change, *_ = np.linalg.lstsq(x[:, place + 1 :], -x[:, : place + 1] @ fixed, rcond=None)
            left[place + 1 :] = weights[place + 1 :] + change
    return codes


def read_by(layer, x):
    """What the rows of a layer's weight are multiplied with, by loops over positions in numpy."""
    x = x.detach().double().numpy()
    if isinstance(layer, torch.nn.Linear):
        return x
    high, wide = layer.kernel_size
    return np.concatenate(
        [
            x[:, :, i : i + high, j : j + wide].reshape(len(x), -1)
            for i in range(x.shape[2] - high + 1)
            for j in range(x.shape[3] - wide + 1)
        ]
    )


def test_rounding_equals_numpys_least_squares_on_what_the_compressed_prefix_gives():
    model, data = ce.build("lenet5(size=16, width=0.15)", seed=3), digits(size=16)
    few = data.shortened(train=40, validation=8, test=8)
    small = LeastSquaresRounding(bits=3, damping=0.05, calibration_images=40)(model, few)
    prefix = {
        "conv1": lambda net, x: x,
        "conv2": lambda net, x: net.pool1(net.relu1(net.conv1(x))),
        "fc1": lambda net, x: net.pool2(net.relu2(net.conv2(net.pool1(net.relu1(net.conv1(x)))))).flatten(1),
    }
    for name, upto in prefix.items():
        layer, form = model.get_submodule(name), small.get_submodule(name)
        inputs = read_by(layer, upto(small, few.x_train))
        rows = layer.weight.detach().double().flatten(1).numpy()
        scales = form.scale.double().flatten().numpy()
        np.testing.assert_allclose(scales, np.abs(rows).max(1) / 3, rtol=1e-6)
        expected = by_least_squares(rows, scales, 3, inputs, 0.05)
        assert (form.codes().flatten(1).numpy() == expected).mean() > 0.999
        assert (np.round(rows / scales[:, None]) != expected).mean() > 0.05  # rounding to the nearest is another thing


def test_calibrated_rounding_keeps_more_of_the_network_than_rounding_to_the_nearest():
    model, data = ce.load("lenet5", "digits")
    ours, plain = LeastSquaresRounding(bits=2, calibration_images=512), LinearQuantization(bits=2)
    assert evaluate(ours(model, data), data).correct > evaluate(plain(model, data), data).correct + 40


def test_layers_that_no_image_reaches_or_that_read_zeros_are_named():
    model = ce.build("lenet300(size=8, width=0.1)", seed=1)
    model.spare = torch.nn.Linear(3, 3)
    with torch.no_grad():
        model.fc1.bias.fill_(-1e6)
    data = digits(size=8).shortened(train=16, validation=8, test=8)
    small = LeastSquaresRounding()(model, data)
    reasons = {skipped.layer: skipped.reason for skipped in small.compression.skipped}
    assert reasons["spare"] == "no calibration image reaches it" and "reads zeros alone" in reasons["fc2"]
    with pytest.raises(CompressionError, match="found nothing to compress: .*spare: no calibration image reaches it"):
        LeastSquaresRounding(layers="spare")(model, data)
