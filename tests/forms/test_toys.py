"""What methods to come need of forms and blocks: toys of one file each, registered by one line, obey every law."""

import copy

import laws
import pytest
import torch
from torch import nn
from toys.bottleneck import Bottleneck, Bottlenecks
from toys.code_book import CodeBook, Quantiles
from toys.four_factors import CanonicalPolyadic
from toys.local_means import LocalMeans, SignsAndLocalMeans

from compedu import files
from compedu.deployment import deploy
from compedu.errors import CompressionError
from compedu.files import layers
from compedu.forms import Factored, Form, Geometry, Masked
from compedu.methods import MagnitudePruning
from compedu.metrics import measure

TOYS = (Quantiles, CanonicalPolyadic, SignsAndLocalMeans, Bottlenecks)


@pytest.fixture(autouse=True, scope="module")
def registered():
    """The one line that each form and block needs: it stands in FORMS or BLOCKS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(layers.FORM_KINDS, "CodeBook", CodeBook)
        patch.setitem(layers.FORM_KINDS, "LocalMeans", LocalMeans)
        patch.setitem(layers.BLOCK_KINDS, "Bottleneck", Bottleneck)
        yield


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("cls", TOYS, ids=lambda cls: cls.__name__)
def test_every_toy_obeys(cls, law):
    law(cls)


KERNELS = {
    Quantiles: {"float32 dense, decoded from CodeBook"},
    CanonicalPolyadic: {"four layers in sequence", "float32 dense"},
    SignsAndLocalMeans: {"float32 dense, decoded from LocalMeans, output scaled"},
    Bottlenecks: {"float32 dense"},
}


@pytest.mark.parametrize("cls", TOYS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("make", laws.NETWORKS, ids=lambda make: make.__name__)
def test_every_toy_is_deployed_with_named_kernels(cls, make):
    model = laws.compressed(laws.quick(cls), make)
    if model is None:
        assert make is laws.normalised_linear and cls is CanonicalPolyadic
        return
    deployed = deploy(model, laws.data().example)
    torch.testing.assert_close(laws.logits(deployed), laws.logits(model), rtol=1e-4, atol=1e-5)
    names = set(deployed.kernels.values())
    assert names - {"float32 normalization, not folded", "float32 dense"} == KERNELS[cls] - {"float32 dense"}
    folded = cls is not SignsAndLocalMeans
    assert any("not folded" in name for name in names) == (not folded and make is not laws.plain)


def test_a_kernel_is_decoded_once(monkeypatch):
    calls = []
    for form in (CodeBook, LocalMeans):
        dense = form.dense
        monkeypatch.setattr(form, "dense", lambda self, dense=dense: calls.append(self) or dense(self))
    for cls in (Quantiles, SignsAndLocalMeans):
        deployed = deploy(cls()(laws.plain()), laws.data().example)
        calls.clear()
        deployed(laws.data().example)
        assert calls == []


def test_a_kernel_of_its_own_is_one_line(monkeypatch):
    from compedu.deployment import registry

    class Looked(nn.Module):
        def __init__(self, form):
            super().__init__()
            self.form = form

        def forward(self, input):
            return self.form(input)

    kernel = registry.Kernel(CodeBook, "float32 looked up", Looked, late=True)
    monkeypatch.setattr(registry, "KERNELS", (kernel, *registry.KERNELS))
    model = laws.compressed(Quantiles(), laws.plain)
    deployed = deploy(model, laws.data().example)
    assert set(deployed.kernels.values()) == {"float32 looked up"}
    assert sum(isinstance(layer, Looked) for layer in deployed.modules()) == 4
    torch.testing.assert_close(laws.logits(deployed), laws.logits(model))
