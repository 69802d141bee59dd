"""What methods to come need of forms and blocks: toys of one file each, registered by one line, obey every law."""

import copy
import json

import laws
import numpy as np
import pytest
import torch
from headers import altered
from torch import nn
from toys.bottleneck import Bottleneck, Bottlenecks
from toys.code_book import CodeBook, Quantiles
from toys.four_factors import CanonicalPolyadic
from toys.local_means import LocalMeans, SignsAndLocalMeans

from compedu import files
from compedu.deployment import deploy
from compedu.errors import CompressionError, MeaningChanged
from compedu.explorers.figures.pictures import pictures_of
from compedu.explorers.figures.pictures.picture import layer_names, percent_text
from compedu.explorers.view import View
from compedu.files import layers
from compedu.forms import Block, Deepened, Factored, Fire, Form, Geometry, Masked, NormalizedFactors, Separable
from compedu.forms.form import Decoded
from compedu.methods import FilterPruning, LinearQuantization, MagnitudePruning, TruncatedSVD
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
        assert make is laws.normalized_linear and cls is CanonicalPolyadic
        return
    deployed = deploy(model, laws.data().example)
    torch.testing.assert_close(laws.logits(deployed), laws.logits(model), rtol=1e-4, atol=1e-5)
    names = set(deployed.kernels.values())
    assert names - {"float32 normalization, not folded", "float32 dense"} == KERNELS[cls] - {"float32 dense"}
    folded = cls is not SignsAndLocalMeans
    assert any("not folded" in name for name in names) == (not folded and make is not laws.plain)


def test_a_weight_is_decoded_once(monkeypatch):
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


def pictured(cls, make=laws.normalized) -> tuple[View, list[str], dict[str, list[str]]]:
    """The view of an explorer behind a toy, its layers, and what each picture says of each."""
    before, after = make(), laws.compressed(laws.quick(cls), make)
    baseline = measure(before, laws.data(), speed=False)
    view = View(laws.data(), "validation", baseline, before, laws.quick(cls), "FINAL", baseline, after)
    names = [name for name in layer_names(view) if isinstance(after.get_submodule(name), (Form, Block))]
    said = {}
    for picture in pictures_of(cls):
        for name in layer_names(view):
            traces = picture.traces(view, name)
            assert json.dumps(traces, default=lambda numbers: np.asarray(numbers).tolist())
            said.setdefault(picture.name, []).append(picture.say(view, name))
        head, rows = picture.table(view)
        assert all(len(row) == len(head) for row in rows)
    return view, names, said


def test_the_picture_of_a_code_book_counts_its_levels_and_draws_them():
    view, names, said = pictured(Quantiles)
    assert names and all("2 bits, 4 of 4 codes used, error " in text for text in said["weights"])
    form = view.after.get_submodule(names[0])
    drawn = pictures_of(Quantiles)[0].main(view, names[0])[2]
    unit = view.before.get_submodule(names[0]).weight.detach().abs().max() / 127
    torch.testing.assert_close(torch.tensor(drawn["x"]), form.table.detach().sort()[0] / unit)
    assert sum(drawn["y"]) == form.indices.numel()
    assert dict.fromkeys(row[1] for row in pictures_of(Quantiles)[0].table(view)[1]) == {2: None}


def test_the_picture_of_an_output_scale_says_one_bit():
    _, _, said = pictured(SignsAndLocalMeans)
    assert all("1 bit, 2 of 2 codes used, error " in text for text in said["weights"])


def test_a_form_that_does_not_say_how_many_levels_it_has_is_counted_out():
    before = laws.plain()
    after = MagnitudePruning(sparsity=0.5)(before)
    baseline = measure(before, laws.data(), speed=False)
    view = View(laws.data(), "validation", baseline, before, Quantiles(), "FINAL", baseline, after)
    count = len(after.conv1.dense().unique())
    assert f"conv1: {count:,} different weights used, error" in pictures_of(Quantiles)[0].say(view, "conv1")


def test_the_picture_of_four_factors_names_them_their_channels_and_their_numbers():
    view, names, said = pictured(CanonicalPolyadic)
    for text in (*said["singular values"], *said["filters and ranks"]):
        name = text.partition(":")[0]
        if name not in names:
            assert "rank" in text and "factors" not in text.partition("rank")[0].replace("not factored", "")
            continue
        form = view.after.get_submodule(name)
        numbers = sum(factor.weight.numel() for factor in form.factors)
        dense = view.before.get_submodule(name).weight.numel()
        assert f"4 factors, {percent_text(numbers / dense)} of the numbers, error " in text
    kept = pictures_of(CanonicalPolyadic)[0].main(view, names[1])[1]["y"]
    assert (np.asarray(kept) > 1e-5 * max(kept)).sum() <= 4


def test_the_picture_of_a_block_counts_its_numbers():
    view, names, said = pictured(Bottlenecks)
    assert names == ["fc"]
    block = view.after.fc
    numbers = block.narrow.weight.numel() + block.wide.weight.numel()
    told = f"fc: Bottleneck, {numbers} numbers in place of {view.before.fc.weight.numel()} weights"
    assert told in said["filters"] and any("all stored" in text for text in said["filters"])


def test_pictures_follow_the_hierarchy_of_classes():
    class Special(FilterPruning):
        """A criterion of one's own."""

    assert pictures_of(Special) == pictures_of(FilterPruning) != pictures_of(MagnitudePruning)


def test_a_method_enters_a_block_and_a_file_keeps_what_it_made():
    block = laws.compressed(Bottlenecks(), laws.plain)
    pruned = MagnitudePruning(sparsity=0.5)(block)
    assert isinstance(pruned.fc1, Bottleneck) and isinstance(pruned.fc1.narrow, Masked)
    loaded = files.from_bytes(files.model_bytes(pruned))
    assert isinstance(loaded.fc1.narrow, Masked) and torch.equal(laws.logits(loaded), laws.logits(pruned))


def test_a_block_that_was_changed_after_it_was_made_is_not_written():
    model = copy.deepcopy(laws.compressed(Bottlenecks(), laws.plain))
    model.fc1.relu = nn.ReLU6()
    with pytest.raises(CompressionError, match="fc1.*Bottleneck is no longer what its settings make"):
        files.model_bytes(model)


def test_an_unregistered_form_or_block_is_refused_by_name(monkeypatch):
    for kinds, name, cls in (
        (layers.FORM_KINDS, "CodeBook", Quantiles),
        (layers.BLOCK_KINDS, "Bottleneck", Bottlenecks),
    ):
        monkeypatch.delitem(kinds, name)
        with pytest.raises(CompressionError, match=f"{name} is not in compedu.forms"):
            files.model_bytes(laws.compressed(cls(), laws.plain))


def test_a_weight_that_is_scaled_behind_the_layer_cannot_be_read_apart():
    form = laws.compressed(SignsAndLocalMeans(), laws.plain).fc1
    with pytest.raises(CompressionError, match="weight of LocalMeans is read by itself"):
        _ = form.weight
    result = SignsAndLocalMeans()(laws.attentive(), laws.data())
    reasons = {skipped.layer: skipped.reason for skipped in result.compression.skipped}
    assert "works only where it is called" in reasons["again"]
    assert isinstance(result.spread, LocalMeans) and not isinstance(result.again, Form)


def test_an_output_scale_costs_one_multiplication_an_output():
    form = LocalMeans(Geometry("linear", (3, 5)), torch.ones(3, 5), torch.ones(3), None)
    assert form.macs(7) == 7 * (15 + 3)


@pytest.mark.parametrize("new", [0, -1, 10**9, 2**62, None, "4", 1.0], ids=str)
def test_a_block_of_other_settings_is_refused(new):
    model = laws.compressed(Bottlenecks(), laws.plain)
    with pytest.raises(CompressionError):
        files.from_bytes(altered(model, ("width", 4), ("width", new)))


@pytest.mark.parametrize("new", [1, 2, 3, 5, 11, 10**9, None, "4"], ids=str)
def test_another_number_of_factors_is_refused(new):
    model = laws.compressed(CanonicalPolyadic(), laws.plain)
    with pytest.raises(CompressionError):
        files.from_bytes(altered(model, ("factors", 4), ("factors", new)))


def test_factors_that_do_not_make_one_layer_are_refused_by_name():
    g = Geometry("conv2d", (8, 3, 3, 3), padding=(1, 1))
    down, along = nn.Conv2d(3, 2, (3, 1), padding=(1, 0)), nn.Conv2d(2, 8, (1, 3), padding=(0, 1))
    with pytest.raises(CompressionError, match="first has a bias before padding"):
        Factored(g, down, along)
    down.bias = None
    assert Factored(g, down, along).ranks == (2,)
    for wrong in ((down,), (along, down), (down, nn.Conv2d(2, 8, 3, padding=1)), (down, nn.Conv2d(2, 9, (1, 3)))):
        with pytest.raises(ValueError, match="factors|channels"):
            Factored(g, *wrong)


def test_a_chain_of_four_equals_its_dense_layer_with_biases_behind_all_padding():
    torch.manual_seed(0)
    chain = (
        nn.Conv2d(6, 4, 1, bias=False), nn.Conv2d(4, 4, (3, 1), (2, 1), (1, 0), (2, 1), groups=2, bias=False),
        nn.Conv2d(4, 4, (1, 5), (1, 3), (0, 2), groups=4), nn.Conv2d(4, 10, 1),
    )  # fmt: skip
    g = Geometry("conv2d", (10, 6, 3, 5), (2, 3), (1, 2), (2, 1))
    form = Factored(g, *(layer.double() for layer in chain))
    x = torch.randn(2, 6, 13, 17, dtype=torch.float64)
    torch.testing.assert_close(form(x), laws.by_law(form, x), rtol=1e-10, atol=1e-12)
    assert form.ranks == (4, 4, 4) and form.macs(1) == sum(layer.weight.numel() for layer in chain)


BLOCK_LAYERS = (
    lambda g: Separable.drawn(g), lambda g: Fire.drawn(g, squeeze=3), lambda g: NormalizedFactors.drawn(g, rank=3),
    lambda g: Deepened.drawn(g, normalized=True, depth=2),
)  # fmt: skip


@pytest.mark.parametrize("make", BLOCK_LAYERS, ids=["separable", "fire", "normalized factors", "deepened"])
def test_every_block_stands_where_a_convolution_stood_and_comes_back_from_a_file(make):
    state = torch.random.get_rng_state()
    model = laws.normalized()
    name, layer = next(
        (n, m) for n, m in model.named_modules() if getattr(m, "kernel_size", 0) == (3, 3) and n != "conv"
    )
    block = make(Geometry.of(layer)).eval()
    assert torch.equal(torch.random.get_rng_state(), state)
    x = torch.zeros(1, layer.in_channels, 12, 12)
    assert block(x).shape == layer(x).shape
    model.set_submodule(name, block)
    loaded = files.from_bytes(files.model_bytes(model))
    again = loaded.get_submodule(name)
    assert type(again) is type(block) and torch.equal(laws.logits(loaded), laws.logits(model))
    assert again.free_numbers() == block.free_numbers() > 0


def test_a_form_that_forgets_its_output_scale_is_found_out(monkeypatch):
    def forgetful(self, input):
        return self.geometry.apply(self.act(input), self.dense(), self.bias)

    monkeypatch.setattr(LocalMeans, "forward", forgetful)
    with pytest.raises(MeaningChanged, match=r"conv1: outputs differ by"):
        SignsAndLocalMeans()(laws.plain(), laws.data())


def test_a_scaled_layer_takes_no_factors_place():
    factored = TruncatedSVD(rank=4)(laws.plain(), laws.data())
    scaled = SignsAndLocalMeans().compress_layer("x", factored.conv2.first)
    with pytest.raises(CompressionError, match="factors need dense weights; LocalMeans scale their outputs as well"):
        Factored(factored.conv2.geometry, scaled, factored.conv2.second)
    with pytest.raises(CompressionError, match="is a factor of a Factored, which needs a dense weight"):
        SignsAndLocalMeans(layers="conv2*")(factored, laws.data())


class Chain(Factored):
    """A form that nobody registered."""


def test_an_unregistered_form_whose_layers_round_their_inputs_keeps_them():
    factored = LinearQuantization(bits=4, activation_bits=2)(TruncatedSVD(rank=4)(laws.plain()), laws.data())
    known = factored.conv2
    factored.conv2 = Chain(known.geometry, known.first, known.second).eval()
    deployed = deploy(factored, laws.data().example)
    assert deployed.kernels["conv2"] == "float32 dense, as Chain, inputs rounded in float32"
    torch.testing.assert_close(laws.logits(deployed), laws.logits(factored), rtol=1e-4, atol=1e-5)


def test_normalized_factors_normalize_channels_of_tokens_too():
    block = NormalizedFactors.drawn(Geometry("linear", (6, 5)), rank=4).train()
    tokens = torch.randn(8, 4, 5)  # as many tokens as channels: a norm of the wrong axis would run as well
    flat = copy.deepcopy(block)(tokens.flatten(0, 1)).unflatten(0, (8, 4))
    torch.testing.assert_close(block(tokens), flat, rtol=1e-5, atol=1e-5)


def test_a_stand_in_for_a_layer_is_not_saved():
    model = nn.Sequential(Decoded(laws.compressed(SignsAndLocalMeans(), laws.plain).fc1))
    with pytest.raises(CompressionError, match="Decoded"):
        files.model_bytes(model)
    with pytest.raises(CompressionError, match="no file holds one"):
        Decoded.restore(Geometry("linear", (1, 1)), {}, {})
