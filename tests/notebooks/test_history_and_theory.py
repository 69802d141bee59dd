"""What chapters and docstrings say of who was first, and of the theory: named by its source, and computed once."""

import json
import re

import pytest
import torch
from executed_chapters import CHAPTERS, NOTEBOOKS
from torch import nn

import compedu as ce
from compedu.forms import Geometry
from compedu.methods import FineTune, IterativePruning
from compedu.methods.pruning.shared.budgets import erdos_renyi_densities
from compedu.methods.pruning.shared.weight_groups import column_labels
from compedu.methods.pruning.structured_sparsity import weakest

CHAPTER, GALLERY = NOTEBOOKS / "02_pruning.ipynb", NOTEBOOKS / "gallery" / "02_pruning.ipynb"


def sentences(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = " ".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return " ".join(text.split()).replace(". ", ".\n").splitlines()


def test_rounds_of_pruning_and_retraining_are_those_of_optimal_brain_damage():
    for path in (CHAPTER, GALLERY):
        assert any("LeCun 1990" in one and ("ounds" in one or "iterate" in one) for one in sentences(path)), path
    for method in (IterativePruning, FineTune):
        assert "LeCun, Denker, Solla 1990" in method.__doc__


def test_that_small_networks_do_as_well_is_said_of_those_who_found_it():
    said = [one for one in sentences(CHAPTER) if "small network" in one and "[" in one]
    assert any("[Liu 2019]" in one for one in said)
    assert all(one.find("[Liu 2019]") < one.find("[Blalock 2020]") for one in said if "[Blalock 2020]" in one)


@pytest.mark.parametrize("name", [name for name in CHAPTERS if name.stem not in ("00_start_here", "01_tour")], ids=str)
def test_the_papers_that_a_chapter_cites_are_in_its_list(name):
    *body, papers = " ".join(sentences(NOTEBOOKS / name)).split("**Papers.**")
    cited = set(re.findall(r"\[((?:[A-Z][a-z]+)+ \d{4})[],]", " ".join(body)))
    listed = set(re.findall(r"\[((?:[A-Z][a-z]+)+ \d{4})[],]", papers))
    assert cited - listed <= {"Thrun 1991"}


def test_erdos_renyi_shares_are_those_of_rigls_variant_for_kernels():
    shapes = {"conv": (50, 20, 5, 3), "fc": (500, 800)}
    densities = erdos_renyi_densities(shapes, 0.1)
    raw = {"conv": (20 + 50 + 5 + 3) / (20 * 50 * 5 * 3), "fc": (800 + 500) / (800 * 500)}  # w = h = 1 drop out
    assert densities["conv"] / raw["conv"] == pytest.approx(densities["fc"] / raw["fc"])
    formula = r"1 - \varepsilon\, \frac{n_{in} + n_{out} + w + h}{n_{in}\, n_{out}\, w\, h}"
    assert any(formula in one and "Evci 2020" in one for one in [" ".join(sentences(CHAPTER))])


def test_a_channel_of_zero_weights_still_adds_beta_minus_gamma_mu_over_sigma():
    norm = nn.BatchNorm2d(3).eval()
    for place, value in {"weight": 2.0, "bias": 0.5, "running_mean": 3.0, "running_var": 4.0}.items():
        getattr(norm, place).data.fill_(value)
    expected = 0.5 - 2.0 * 3.0 / (4.0 + norm.eps) ** 0.5
    torch.testing.assert_close(norm(torch.zeros(1, 3, 2, 2)), torch.full((1, 3, 2, 2), expected))
    assert any(r"$\beta - \gamma \mu / \sigma$" in one for one in sentences(CHAPTER))


def test_shapes_fall_because_of_the_first_layers_window():
    model, data = ce.load("lenet5", "glyphs")
    data = data.shortened(train=1, validation=500)
    names = ("conv1", "conv2", "fc1", "fc2")
    weights = {name: model.get_submodule(name).weight.data.flatten(1) for name in names}
    scores = [weights[name].square().mean(0).sqrt() for name in names]
    equal, together = (dict(zip(names, weakest(scores, 0.5, budget), strict=True)) for budget in ("uniform", "global"))
    labels = column_labels(Geometry.of(model.get_submodule("conv1")))
    assert labels.shape[0] == 1 and labels.numel() == 25  # each place serves all filters
    assert len(equal["conv1"]) == 12 and len(together["conv1"]) < 3

    def accuracy(gone):
        pruned = {f"{name}.weight": model.get_submodule(name).weight.data.clone() for name in gone}
        for name, columns in gone.items():
            pruned[f"{name}.weight"].flatten(1)[:, columns] = 0
        return (
            100
            * sum(
                (
                    torch.func.functional_call(model, pruned, (data.x_validation,)).argmax(1) == data.y_validation
                ).tolist()
            )
            / 500
        )

    first, others = {"conv1": equal["conv1"]}, {name: equal[name] for name in names[1:]}
    with torch.inference_mode():
        assert accuracy(equal) < accuracy(first) < accuracy(others) < accuracy(together)
