"""Adding a method is one file and one line: done here in a copy of the package, and everything else follows."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from processes import ROOT, SUPPORT, closed_network

SOURCE = '''\
"""Coarse grid: every weight becomes a multiple of one coarse step."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compedu.forms import Geometry, Masked
from compedu.knobs import knob, method
from compedu.methods.layer_method import LayerMethod


def on_grid(weights: Tensor, step: float) -> Tensor:
    """Return `weights`, each rounded to a multiple of `step` times the largest of them.

    >>> on_grid(torch.tensor([0.9, -2.0, 0.2]), 0.5).tolist()
    [1.0, -2.0, 0.0]
    """
    width = step * weights.abs().max()
    return torch.round(weights / width) * width if width > 0 else weights.clone()


@method
class CoarseGrid(LayerMethod):
    r"""Round every weight of a layer to a coarse grid; what becomes zero is not stored.

    $\\hat w = \\Delta\\,\\mathrm{round}(w / \\Delta)$ with $\\Delta = s \\max |w|$ in each layer.
    Stored: the weights that are not zero, at full precision, and their positions as gaps.
    Skips: layers that are not linear or convolutional; forms of any kind.
    Paper: none; made for a test.
    """

    family: ClassVar[str] = "quantization"
    identity_settings: ClassVar[dict[str, Any]] = {"step": 0.0}

    step: float = knob(
        default=0.25, help="step of the grid as a fraction of the largest weight", low=0, high=1,
        slider_range=(0.0, 0.5),
    )

    def compress_layer(self, name: str, layer: nn.Module) -> nn.Module:
        """Return the layer with its weights on the grid."""
        weight = on_grid(layer.weight.detach(), self.step)
        return Masked(Geometry.of(layer), weight, weight != 0, layer.bias)
'''

USED = """
import contextlib, io, json, sys
import pytest, torch
torch.set_num_threads(1)
import compedu as ce
import laws
from compedu.cli import main
from compedu.knobs import knobs
from compedu.methods.card import card, cards
from compedu.sweeps import grid, sweep

def command(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(list(arguments))
    return {"code": code, "printed": printed.getvalue(), "said": said.getvalue()}

def broken(law):
    try:
        law(ce.CoarseGrid)
    except (Exception, pytest.fail.Exception) as error:
        return f"{law.__name__}: {type(error).__name__}: {error}"

def explored(model, data):
    explorer = ce.explore(ce.CoarseGrid, model, data)
    try:
        explorer.settle()
        (step, *_) = explorer.widget.parts["knobs"]
        before = explorer.report.method
        turned = {"kind": "knob", "name": step["name"], "place": len(step["places"]) - 1}
        explorer.widget._on_message(explorer.widget, turned, [])
        report = explorer.settle()
        return {"knob": step, "before": before, "method": repr(explorer.method), "state": explorer.state,
                "report": report.as_dict()}
    finally:
        explorer.close()

model, data = ce.load("lenet300", "digits")
explorer = explored(model, data)
last = eval(explorer["method"], vars(ce.methods))
json.dump({
    "package": ce.__file__, "methods": command("methods"), "card": command("methods", "CoarseGrid"),
    "run": command("run", "CoarseGrid", "--step", "0.5", "--model", "lenet300", "--json"),
    "refused": command("run", "CoarseGrid", "--step", "1.5"),
    "text": command("run", "CoarseGrid(step=0.5) | LinearQuantization(bits=4)", "--model", "lenet300", "--json"),
    "swept": command("sweep", "CoarseGrid", "--over", "step", "--count", "3", "--model", "lenet300", "--json"),
    "grid": [repr(method) for method in grid(ce.CoarseGrid, "step", 3)],
    "sweep": [report.as_dict() for report in sweep(grid(ce.CoarseGrid, "step", 3), model, data)],
    "same card": card(ce.CoarseGrid), "cards": cards(), "explorer": explorer,
    "measured": ce.measure(last(model, data), data, baseline=model, speed=False).as_dict(),
    "laws": len(laws.LAWS), "broken": [said for said in map(broken, laws.LAWS) if said],
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a copy of the package says and does that has one file and one line more."""
    house = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "compedu", house / "compedu", ignore=shutil.ignore_patterns("__pycache__"))
    (house / "data" / "checkpoints").mkdir(parents=True)
    for path in (ROOT / "data" / "checkpoints").glob("lenet300-digits.*"):
        shutil.copy(path, house / "data" / "checkpoints")
    (house / "compedu" / "methods" / "quantization" / "coarse_grid.py").write_text(SOURCE)
    add_to_methods(house / "compedu" / "methods" / "__init__.py")
    environment = closed_network(house)
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (environment["PYTHONPATH"], house, SUPPORT)))
    done = subprocess.run(
        [sys.executable, "-c", USED], cwd=house, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert answers["package"].startswith(str(house))
    return answers


def add_to_methods(path):
    """Name the method in the tuple, with the import that goes with it."""
    text = path.read_text()
    entry = "    LinearQuantization,\n"
    assert text.count(entry) == 1
    text = text.replace(entry, f"{entry}    CoarseGrid,\n")
    other = "from compedu.methods.quantization.linear import LinearQuantization\n"
    own = "from compedu.methods.quantization.coarse_grid import CoarseGrid\n"
    path.write_text(text.replace(other, own + other))


def printed(answer):
    assert answer["code"] == 0, answer
    return answer["printed"]


def test_all_laws_hold(found):
    assert found["laws"] > 15 and found["broken"] == []


def test_the_command_line_lists_it_in_its_family_and_shows_its_knob(found):
    listed = printed(found["methods"])
    family = listed.split("quantization and binarization\n")[1].split("\nParameter")[0]
    assert "  CoarseGrid: Round every weight of a layer to a coarse grid;" in family
    knob = "| `step` | `0.25` | a number from 0 to 1 | step of the grid as a fraction of the largest weight |"
    assert knob in printed(found["card"])


def test_the_command_line_runs_it_with_its_knob_alone_and_in_a_row(found):
    assert json.loads(printed(found["run"]))["method"] == "CoarseGrid(step=0.5)"
    both = json.loads(printed(found["text"]))
    assert both["method"] == "CoarseGrid(step=0.5) | LinearQuantization(bits=4)"
    assert both["file_bytes"] < json.loads(printed(found["run"]))["file_bytes"] < both["baseline_file_bytes"]


def test_the_command_line_refuses_a_bad_value_by_name(found):
    refused = found["refused"]
    assert (refused["code"], refused["printed"], refused["said"].count("\n")) == (2, "", 1)
    assert "CoarseGrid.step must be a number from 0 to 1, got 1.5 (step of the grid" in refused["said"]


def test_its_card_is_shown_and_stands_in_its_family(found):
    text = found["same card"]
    assert printed(found["card"]).strip() == text.strip()
    assert r"$\hat w = \Delta\,\mathrm{round}(w / \Delta)$" in text and "| `step` | `0.25` |" in text
    assert all(f"**{part}:**" in text for part in ("Stored", "Skips", "Paper"))
    family = found["cards"].split("quantization and binarization\n")[1].split("\n## ")[0]
    assert "### CoarseGrid\n" in family


def test_a_grid_and_a_sweep_work(found):
    assert found["grid"] == ["CoarseGrid(step=0.0)", "CoarseGrid()", "CoarseGrid(step=0.5)"]
    assert [report["method"] for report in found["sweep"]] == found["grid"]
    sizes = [report["file_bytes"] for report in found["sweep"]]
    assert sizes == sorted(sizes, reverse=True) and sizes[2] < sizes[0] / 5
    lines = map(json.loads, printed(found["swept"]).splitlines())
    assert [(point["method"], point["file_bytes"]) for point in lines] == list(zip(found["grid"], sizes, strict=True))


def test_its_explorer_has_a_slider_with_the_help_and_measures(found):
    explorer = found["explorer"]
    knob = explorer["knob"]
    assert knob["places"] and knob["help"].startswith("step of the grid as a fraction of the largest weight")
    assert explorer["before"] == "CoarseGrid()" and explorer["method"] == "CoarseGrid(step=0.5)"
    assert explorer["state"] == "FINAL"
    for figure in (
        "method",
        "correct",
        "total",
        "file_bytes",
        "entropy_coded_bytes",
        "parameters",
        "macs",
        "size_by_role",
    ):
        assert explorer["report"][figure] == found["measured"][figure]
