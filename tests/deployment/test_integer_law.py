"""The integer law: forms, deployed networks and integers in float64 agree on random networks, and it has teeth."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from compedu.deployment.kernels.product import Grid
from compedu.forms import ActivationQuantizer, Geometry, Quantized

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    law, random_graphs = importlib.import_module("integer_law"), importlib.import_module("random_graphs")


@st.composite
def networks(draw):
    """Networks of random graphs that torch can run."""
    made = random_graphs.draft(lambda options: draw(st.sampled_from(list(options))))
    with torch.no_grad():
        try:
            made(law.pictures(made, 0, 2))
        except RuntimeError:  # a view that the order of memory does not allow
            assume(False)
    return made


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), st.sampled_from(law.WIDTHS))
def test_forms_and_deployed_networks_mean_the_same_whole_numbers(made, bits):
    kind, why = law.verdict(made, bits)
    assert kind != "wrong", why
    assert kind == "chained" or "shares, which is read afterwards" in why or "ties" in why


def normalized_tokens():
    """A network whose batch norm behind a linear layer normalizes the tokens, which are as many as the features."""
    operations = (
        random_graphs.Operation("conv", (0,), lambda net, x: net.layers["a"](x)),
        random_graphs.Operation("tokens", (1,), lambda net, x: x.flatten(2).transpose(1, 2)),
        random_graphs.Operation("norm", (2,), lambda net, x: net.layers["norm"](net.layers["fc"](x))),
    )
    layers = {"a": nn.Conv2d(3, 4, 2, 2), "fc": nn.Linear(4, 9), "norm": nn.BatchNorm1d(9)}
    return random_graphs.lively(random_graphs.Network(3, operations, layers, [3]), 0)


@pytest.mark.parametrize(
    "made, place, mistake",
    [
        (lambda: law.network(7), "compedu.deployment.deploy.hidden_write", lambda traced: None),
        (
            lambda: law.network(1),
            "compedu.deployment.kernels.product.Grid.codes",
            lambda grid, x: (x / grid.scale + grid.zero_point).clamp(0, grid.top).to(torch.uint8),
        ),
        (normalized_tokens, "compedu.graph.folding.dimensions", lambda traced: dict.fromkeys(traced.graph.nodes, 2)),
    ],
    ids=["writes through views are not followed", "codes are cut off", "every linear output is taken for flat"],
)
def test_the_law_finds_a_mistake(monkeypatch, made, place, mistake):
    assert law.verdict(made(), 8)[0] != "wrong"
    module, _, name = place.rpartition(".")
    monkeypatch.setattr(Grid if module.endswith("Grid") else sys.modules[module], name, mistake)
    assert law.verdict(made(), 8)[0] == "wrong"


def test_whole_numbers_round_as_the_formula_says_and_know_how_near_a_tie_is():
    layer = Quantized(Geometry("linear", (1, 2)), torch.tensor([[1.0, -0.5]]), torch.tensor(0.5), 8, torch.ones(1))
    layer.act = ActivationQuantizer(1.0, 3, 4)
    exact = law.WholeNumbers(layer)
    y = exact(torch.tensor([[1.25, 200.0]], dtype=torch.float64))
    assert y.item() == 2 * 0.5 * 1 - 1 * 0.5 * 12 + 1 and exact.nearest == 0.25 / 16


def test_the_table_is_written_and_finished_rows_are_kept(tmp_path, monkeypatch, capsys):
    path = tmp_path / "LAW.md"
    monkeypatch.setattr(law, "QUICK", 1)
    law.main(["--quick", "--out", str(path)])
    rows = law.finished(path)
    assert list(rows) == ["0 to 0", "1 to 1"]
    places = [place for kind in law.VERDICTS for place in law.places(kind)]
    assert all(sum(int(row[place]) for place in places) == 3 for row in rows.values())
    assert "Of 6 quantized networks: " in path.read_text() and not re.search(r"\{\w", path.read_text())
    monkeypatch.setattr(law, "measured", lambda first, count: pytest.fail(f"{first} was measured again"))
    law.main(["--quick", "--out", str(path)])
    path.write_text(path.read_text().replace(law.fingerprint(), "of other code"))
    assert law.finished(path) == {}
    with pytest.raises(SystemExit):
        law.main(["--quick"])
    assert "--out" in capsys.readouterr().err


def test_a_crash_is_a_wrong_answer_and_the_rest_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(law.ce, "deploy", lambda *inputs: 1 / 0)
    row = law.measured(1, 1)
    assert [row[place] for place in law.places("wrong")] == ["1", "1", "1"]
    assert "ZeroDivisionError" in row[-1] and "1 at 8 bits" in capsys.readouterr().out


def test_the_committed_table_has_many_networks_and_none_is_wrong():
    text = law.RESULTS.read_text()
    found = re.search(r"Of ([\d,]+) quantized networks: ([\d,]+) chained .*, 0 wrong \(0.0%\)", text)
    whole, chained = (int(number.replace(",", "")) for number in found.groups())
    rows = re.findall(r"^\| (\d+) to (\d+) \|", text, re.MULTILINE)
    assert whole == len(law.WIDTHS) * sum(int(last) - int(first) + 1 for first, last in rows) and chained >= whole / 2
    assert whole >= 3 * 5000
