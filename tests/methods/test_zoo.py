"""A sample of the zoo: networks that the kit was not made for, through every method that needs no training."""

import sys
from pathlib import Path

import pytest
import torch
from benchmark_scripts import scripts  # noqa: F401  a fixture
from torch import nn

import compedu as ce
from compedu.errors import CompressionError
from compedu.hashing import model_digest

SAMPLE = ("shape/bert", "shape/gpt2", "shape/tied", "timm/test_efficientnet")


@pytest.fixture(scope="module")
def zoo(scripts):
    return scripts["zoo"]


@pytest.mark.parametrize("name", SAMPLE)
def test_every_method_is_exact_or_refuses(zoo, name):
    network, exact, refused, wrong, crash, *_, why = zoo.measured(name)
    assert network == name and (wrong, crash) == ("0", "0"), why
    assert int(exact) + int(refused) == len(zoo.METHODS) and int(exact) >= 3


def tried(zoo, method) -> str:
    model, size = zoo.build("shape/gpt2")
    return zoo.outcome(method, model, zoo.images(size), model_digest(model))


def test_what_is_wrong_is_called_wrong(zoo):
    pruning = ce.MagnitudePruning(sparsity=0.5)

    def changed(model, data):
        made = pruning(model, data)
        head = next(module for module in made.modules() if type(module).__name__ == "Masked")
        head.register_forward_hook(lambda layer, inputs, output: 1.001 * output)
        return made

    def writing(model, data):
        with torch.no_grad():
            model.head.bias.add_(1)
        return pruning(model, data)

    def refusing(model, data):
        raise CompressionError("it says why")

    assert tried(zoo, pruning) == "exact"
    assert "from what its kernels mean" in tried(zoo, changed)
    assert tried(zoo, writing) == "wrong: the network that was given is changed"
    assert tried(zoo, refusing) == "refused: it says why"
    assert tried(zoo, lambda model, data: {}["missing"]).startswith("crash: KeyError")


def test_the_zoo_has_enough_of_all_kinds(zoo):
    kinds = [name.partition("/")[0] for name in sys.modules["zoo_networks"].NETWORKS]
    assert len(kinds) >= 60 and min(map(kinds.count, ("torchvision", "timm", "shape"))) >= 5


def test_finished_rows_are_kept(zoo, tmp_path: Path, monkeypatch):
    path = tmp_path / "ZOO.md"
    monkeypatch.setattr(zoo, "measured", lambda name: (name, "12", "0", "0", "0", "0.1", "64", "-"))
    zoo.main(["--quick", "--out", str(path)])
    assert f"Of {2 * len(zoo.METHODS)} runs: 24 exact, 0 refused, 0 wrong, 0 crash." in path.read_text()
    monkeypatch.setattr(zoo, "measured", lambda name: pytest.fail(f"{name} was measured again"))
    zoo.main(["--quick", "--out", str(path)])


def test_modules_of_the_network_keep_their_class(zoo):
    model, _ = zoo.build("shape/tied")
    made = zoo.with_weights_of(zoo.unrounded(ce.MagnitudePruning(sparsity=0.5, layers="head")(model)), model)
    assert type(made.head) is nn.Linear and made.head.weight.dtype == torch.float64
