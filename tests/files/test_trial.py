"""Loaded networks are tried on an image: what that allocates is bounded, and known before it is allocated."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from compedu import files, networks
from compedu.errors import FileFormatError
from compedu.files import Limits, limits, trial

# Thin, wide, thin: few numbers, all of them 0, and thus few bytes; but one image takes gigabytes between the layers.
HOSTILE = """
import resource, sys
import torch
from torch import nn
from compedu import files, networks
from compedu.errors import FileFormatError
from compedu.files import structure, trial

def written(model, dtype):
    for tensor in model.state_dict().values():
        tensor.zero_()
    trial.take_image = lambda *_: None  # who writes the file need not try it
    return files.model_bytes(model.to(dtype), "ans")

def vgg(channels):
    model = networks.build("vgg(size=104, channels=3, width=0.05)")
    inside = model.features
    inside.conv1_1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
    inside.norm1_1 = nn.BatchNorm2d(channels)
    inside.conv1_2 = nn.Conv2d(channels, inside.conv1_2.out_channels, 3, padding=1, bias=False)
    return model

def lenet5(channels):
    model = networks.build("lenet5(size=181, channels=1, width=0.05)")
    model.conv1 = nn.Conv2d(1, channels, 5)
    model.conv2 = nn.Conv2d(channels, model.conv2.out_channels, 5)
    return model

kind, channels, dtype = sys.argv[1], int(sys.argv[2]), getattr(torch, sys.argv[3])
usual = trial.take_image
data = written(globals()[kind](channels), dtype)
trial.take_image = usual
resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
at_rest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    files.from_bytes(data)
    found = "loaded"
except FileFormatError as error:
    found = str(error)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - at_rest) // 1024
print(f"{len(data)}|{files.map_of(data).spec}|{grown}|{found}")
"""


@pytest.mark.parametrize("case", [
    ("vgg", 40_000, "float32"), ("lenet5", 30_000, "float32"), ("lenet5", 500, "float64"),
    ("lenet5", 500, "float32"), ("lenet5", 500, "float16"),
], ids=str)  # fmt: skip
def test_a_small_file_never_asks_for_much_between_its_layers(case):
    command = [sys.executable, "-W", "ignore", "-c", HOSTILE, *map(str, case)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    size, spec, grown, found = done.stdout.strip().split("|")
    assert spec and int(size) < 1300
    # What is allowed are 64 MB in single precision, of which a layer and its activation hold some at once.
    assert "activations, allowed are" in found and int(grown) < (400 if case[2] == "float64" else 200), done.stdout


def test_how_much_a_trial_may_take_is_declared_and_can_be_lifted():
    data = files.model_bytes(networks.build("vgg(size=32, width=0.05)"))
    with pytest.raises(FileFormatError, match=r"asks for [\d,]+ activations, allowed are 2,000; ") as caught:
        files.from_bytes(data, limits=Limits(activations=2000))
    wanted = int(str(caught.value).rpartition("=")[2].rstrip(")"))
    assert wanted > 2000 and files.from_bytes(data, limits=Limits(activations=10 * wanted))


class Outer(nn.Module):
    """A product of each channel with each other, of which no layer knows."""

    def __init__(self, channels: int):
        super().__init__()
        self.first, self.last = nn.Linear(2, channels), nn.Linear(channels, 2)
        self.runs = 0

    def forward(self, x):
        self.runs += 1
        y = self.first(x)
        return self.last((y[:, :, None] * y[:, None, :]).sum(2))


def test_a_network_that_is_given_may_take_as_much_as_it_does_anyway(monkeypatch):
    x = torch.randn(3, 2)
    wide, narrow = files.model_bytes(Outer(30)), Outer(20)
    monkeypatch.setattr(limits, "LEAST_ACTIVATIONS", 100)
    loaded = files.from_bytes(wide, into=narrow, example=x)  # 2700 numbers, where the given one takes 1200
    assert loaded(x).shape == (3, 2) and narrow.runs == 0
    monkeypatch.setattr(limits, "WIDER", 2)
    with pytest.raises(FileFormatError, match=r"asks for 2,700 activations, allowed are 2,400; "):
        files.from_bytes(wide, into=narrow, example=x)
    assert files.from_bytes(wide, into=narrow, example=x, limits=Limits(activations=2700))
    assert files.from_bytes(files.model_bytes(narrow), into=narrow, example=x)


class Picky(nn.Module):
    """An operation whose result has a size that depends on values: two numbers for each that is there."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x).isfinite().nonzero()


def test_what_depends_on_values_is_counted_when_it_is_known(monkeypatch):
    model, x = Picky(), torch.randn(100, 2)
    data = files.model_bytes(model)
    assert torch.equal(files.from_bytes(data, into=model, example=x)(x), model(x))
    with pytest.raises(FileFormatError, match=r"asks for 400 activations, allowed are 300; "):
        files.from_bytes(data, into=model, example=x, limits=Limits(activations=300))


def test_counting_changes_nothing_and_sees_what_is_unfolded():
    layer, x = nn.Conv2d(2, 3, 3, groups=1), torch.randn(4, 2, 8, 8)
    with torch.no_grad(), trial.Counted(10**6) as counted:
        found = layer(x)
    assert torch.equal(found, layer(x)) and counted.most == 4 * 6 * 6 * 18
    with torch.inference_mode(), trial.Counted(10**6) as counted:
        nn.Conv2d(4, 8, 1, groups=4)(torch.randn(1, 4, 5, 5))
    assert counted.most == 8 * 25
    with pytest.raises(trial.TooMuch), trial.Counted(10**6) as counted:
        torch.ones(2).expand(10**9, 2).clone()
