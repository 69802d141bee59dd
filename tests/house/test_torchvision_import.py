"""torchvision beside a torch without its compiled operators: importable, usable, and nothing hidden."""

import importlib
import subprocess
import sys

import pytest
import torch

from compedu import torchvision_import
from compedu.torchvision_import import import_torchvision, operators_declared


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_plain_import_works_afterwards_in_a_fresh_process():
    code = (
        "from compedu.torchvision_import import import_torchvision; made = import_torchvision(); "
        "import torchvision, torchvision.transforms, torchvision.datasets; assert made is torchvision; "
        "print(torchvision.__version__)"
    )
    assert run_python(code).strip() == import_torchvision().__version__


def test_schemas_are_declared_only_where_the_compiled_operators_are_missing():
    torchvision = import_torchvision()
    assert operators_declared() is not torchvision.extension._has_ops()


def test_second_call_returns_the_same_module():
    assert import_torchvision() is import_torchvision()


def test_classification_network_and_transforms_work():
    torchvision = import_torchvision()
    network = torchvision.models.squeezenet1_1(num_classes=7).eval()
    image = torchvision.transforms.functional.hflip(torch.arange(3 * 64 * 64.0).reshape(1, 3, 64, 64))
    assert image[0, 0, 0].tolist() == list(range(63, -1, -1))
    with torch.no_grad():
        assert network(image).shape == (1, 7)


def test_missing_kernel_says_so_when_it_is_called():
    torchvision = import_torchvision()
    boxes, scores = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]), torch.tensor([0.9, 0.8])
    if torchvision.extension._has_ops():
        assert torchvision.ops.nms(boxes, scores, 0.5).tolist() == [0]
    else:
        with pytest.raises(RuntimeError, match="Couldn't load custom C\\+\\+ ops"):
            torchvision.ops.nms(boxes, scores, 0.5)


@pytest.mark.parametrize("error", [ImportError("No module named 'torchvision'"), RuntimeError("out of memory")])
def test_other_failures_are_raised_unchanged_and_nothing_is_declared(monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr(torchvision_import, "_declared", [])
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(type(error), match=str(error)):
        import_torchvision()
    assert not operators_declared()
