"""The model file: what comes back is bit by bit what was saved, its length is the size, and damage never passes."""

import base64
import copy
import math
import os
import subprocess
import sys
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compedu import files, networks
from compedu.errors import CompressionError, FileFormatError
from compedu.files import header
from compedu.forms import (
    BLOCKS,
    FORMS,
    ActivationQuantizer,
    Adapted,
    BlockCirculant,
    CReLUFilters,
    Factored,
    Form,
    Geometry,
    Masked,
    Predicted,
    Quantized,
    Reordered,
    weight_of,
)
from compedu.forms.adapted import adapter_pair
from compedu.methods import BlockFormats, LinearQuantization

few = settings(max_examples=100, deadline=None)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def masked(layer, share=0.2):
    weight = layer.weight.detach()
    return Masked(Geometry.of(layer), weight, weight.abs() >= weight.abs().flatten().quantile(1 - share), layer.bias)


def coded(layer, bits=4, mask=None, per_channel=True):
    axes = tuple(range(1 if per_channel else 0, layer.weight.dim()))
    scale = layer.weight.detach().abs().amax(axes, keepdim=per_channel) / max(2 ** (bits - 1) - 1, 1)
    return Quantized(Geometry.of(layer), layer.weight, scale, bits, layer.bias, mask)


def circulant(layer):
    g = Geometry.of(layer)
    places = g.shape[2] * g.shape[3] if g.kind == "conv2d" else 1
    columns = random(-(-g.shape[0] // 4), -(-g.shape[1] // 4) * places, 4).to(layer.weight)
    return BlockCirculant(g, columns / 10, layer.bias, flips=7)


def factored(layer, wrap=lambda layer: layer):
    g = Geometry.of(layer)
    if g.kind == "linear":
        pair = nn.Linear(g.shape[1], 3, bias=False), nn.Linear(3, g.shape[0])
    else:
        (sv, sh), (pv, ph), (kv, kh) = g.stride, g.padding, g.shape[2:]
        pair = (
            nn.Conv2d(g.shape[1], 3, (kv, 1), (sv, 1), (pv, 0), bias=False),
            nn.Conv2d(3, g.shape[0], (1, kh), (1, sh), (0, ph)),
        )
    return Factored(g, *(wrap(layer) for layer in pair))


def reordered(layer):
    """The layer of channels in another order, behind a layer that brings them in this order."""
    g = Geometry.of(layer)
    order = torch.arange(g.shape[1]).flip(0)
    window = (1, 1) if g.kind == "conv2d" else ()
    moving = Reordered(Geometry(g.kind, (len(order), len(order), *window)), order, layer.weight.dtype)
    return Factored(g, moving, g.layer(layer.weight[:, order], layer.bias))


def crelu(layer):
    half = layer.weight.shape[0] // 2
    if isinstance(layer, nn.Linear):
        return layer
    return CReLUFilters(Geometry.of(layer), layer.weight[:half], None if layer.bias is None else layer.bias[:half])


def quantized(layer):
    form = coded(layer, 8)
    form.act = ActivationQuantizer.for_range(-0.3, 2.7, 8)
    return form


def grouped(layer):
    made = LinearQuantization(bits=3, grid="affine", scales="group", group_size=8)(nn.Sequential(layer))
    return made[0]


def in_blocks(layer):
    return BlockFormats(format="mxfp4", block=12)(nn.Sequential(layer))[0]


def predicted(layer):
    g = Geometry.of(layer)
    side = math.gcd(g.shape[1], 10)
    grid = (side, 1) if g.kind == "linear" else None
    channels = g.shape[1] // side if g.kind == "linear" else g.shape[1]
    return Predicted(g, random(g.shape[0], channels, 1).to(layer.weight) / 10, layer.bias, 1.5, 1e-3, grid)


def adapted(layer):
    g = Geometry.of(layer)
    down, up = (one.layer(random(*one.shape).to(layer.weight) / 10, None) for one in adapter_pair(g, 2))
    return Adapted(g, coded(layer, 3), down, up, 4.0)


COMPRESS = {
    "dense": lambda layer: layer,
    "masked": masked,
    "masked, all kept": lambda layer: masked(layer, 1.0),
    "8 bit with activations": quantized,
    "4 bit per tensor": lambda layer: coded(layer, 4, per_channel=False),
    "3 bit, masked": lambda layer: coded(layer, 3, layer.weight > 0),
    "3 bit, affine groups": grouped,
    "floats in blocks": in_blocks,
    "1 bit": lambda layer: coded(layer, 1),
    "circulant": circulant,
    "factored": factored,
    "factored, then masked": lambda layer: factored(layer, masked),
    "factored, then quantized": lambda layer: factored(layer, quantized),
    "reordered": reordered,
    "crelu": crelu,
    "predicted": predicted,
    "adapted": adapted,
}
SPECS = {
    "lenet300(width=0.1)": (5, 1, 28, 28),
    "lenet5(width=0.4)": (5, 1, 28, 28),
    "resnet(width=0.25, blocks=1)": (3, 1, 16, 16),
}


def compressed(model: nn.Module, compress) -> nn.Module:
    model = copy.deepcopy(model)
    for name, layer in list(model.named_modules()):
        if type(layer) in (nn.Linear, nn.Conv2d):
            model.set_submodule(name, compress(layer))
    return model.eval()


def lenet5(compress=COMPRESS["dense"], spec="lenet5"):
    return compressed(networks.build(spec), compress)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


# The law: the loaded model computes the same, bit by bit


@pytest.mark.parametrize("coding", files.CODINGS)
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kind", COMPRESS)
def test_loaded_model_gives_bit_identical_logits(kind, spec, coding, tmp_path):
    model, images = compressed(networks.build(spec), COMPRESS[kind]), random(*SPECS[spec], seed=1)
    written = files.save(model, tmp_path / "model", coding)
    loaded = files.load(tmp_path / "model")
    assert same(loaded(images), model(images))
    assert written == os.path.getsize(tmp_path / "model") == len(files.model_bytes(model, coding))
    assert loaded.spec == model.spec and not loaded.training
    assert [type(layer) for layer in loaded.modules()] == [type(layer) for layer in model.modules()]


def test_every_form_is_tried_here():
    tried = {type(module) for make in COMPRESS.values() for module in lenet5(make, "lenet5(width=0.1)").modules()}
    assert set(FORMS) <= tried


@pytest.mark.parametrize("kind", COMPRESS)
def test_saving_a_loaded_model_gives_the_same_file(kind):
    model = lenet5(COMPRESS[kind], "lenet5(width=0.4)")
    data = files.model_bytes(model, "ans")
    assert files.model_bytes(files.from_bytes(data), "ans") == data


def test_a_fresh_process_loads_the_same_model(tmp_path):
    model = lenet5(quantized, "lenet5(width=0.4)")
    files.save(model, tmp_path / "model", "ans")
    program = (
        "import sys, torch; torch.set_num_threads(1); from compedu import files\n"
        "x = torch.arange(784.0).reshape(1, 1, 28, 28) / 784\n"
        "print(files.load(sys.argv[1])(x).tolist())"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path / "model")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == str(model(torch.arange(784.0).reshape(1, 1, 28, 28) / 784).tolist())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_models_keep_their_precision(dtype):
    model = networks.build("resnet(width=0.25)").to(dtype)
    loaded = files.from_bytes(files.model_bytes(model, "ans"))
    assert all(same(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True))


def test_forms_of_a_float64_model_keep_their_precision():
    for kind, compress in COMPRESS.items():
        model, images = lenet5(compress, "lenet5(width=0.4)").double(), random(2, 1, 28, 28).double()
        assert same(files.from_bytes(files.model_bytes(model, "huffman"))(images), model(images)), kind


def test_loading_and_saving_leave_model_and_random_state_alone():
    model = lenet5(masked).train()
    before, weights = torch.get_rng_state(), copy.deepcopy(model.state_dict())
    target = networks.build("lenet5")
    target_weights = copy.deepcopy(target.state_dict())
    files.from_bytes(files.model_bytes(model, "ans"), into=target)
    assert torch.equal(torch.get_rng_state(), before) and model.training
    assert all(same(a, weights[name]) for name, a in model.state_dict().items())
    assert all(same(a, target_weights[name]) for name, a in target.state_dict().items())


def test_steps_and_skipped_layers_are_not_in_the_file():
    model = lenet5(masked)
    plain = files.model_bytes(model)
    model.compression = ("MagnitudePruning(sparsity=0.8)",) * 50
    assert files.model_bytes(model) == plain


# Any network


class Unusual(nn.Module):
    """A bare parameter, a bare buffer, shared layers, tied weights, norms of other kinds, an empty place."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(6))
        self.register_buffer("table", torch.zeros(6, dtype=torch.int64))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)
        self.first = nn.Sequential(nn.Conv1d(2, 6, 3), nn.GroupNorm(2, 6), nn.PReLU(6))
        self.again = self.first[0]
        self.inner, self.outer = nn.Linear(6, 4, bias=False), nn.Linear(6, 4)
        self.outer.weight = self.inner.weight
        self.norm, self.batch = nn.LayerNorm(4), nn.BatchNorm1d(6, eps=1e-3, momentum=None, affine=False)
        self.head: nn.Module | None = nn.Linear(3, 3)

    def forward(self, x):
        x = self.batch(self.first(x)).mean(2) + self.again(x).mean(2) + self.offset + self.table
        return self.norm(self.inner(x) + self.outer(x))


def unusual(seed: int) -> Unusual:
    model, generator = Unusual(), torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * 5)
    return model.eval()


@pytest.mark.parametrize("coding", files.CODINGS)
def test_networks_of_ordinary_modules_come_back_into_a_fresh_one(coding):
    model, images = unusual(1), random(3, 2, 9)
    model.head = None
    loaded = files.from_bytes(files.model_bytes(model, coding), into=unusual(2))
    assert same(loaded(images), model(images))
    assert loaded.head is None and loaded.again is loaded.first[0] and loaded.outer.weight is loaded.inner.weight
    assert loaded.batch.momentum is None and loaded.batch.eps == 1e-3 and loaded.table.dtype == torch.int64
    assert loaded.batch.num_batches_tracked.dtype == torch.int64
    loaded.train()(images).sum().backward()
    assert loaded.offset.grad is not None and loaded.batch.num_batches_tracked == 1


def test_shared_layers_and_tied_weights_are_stored_once():
    model = unusual(1)
    stored = [(row.layer, row.part) for row in files.map_of(files.model_bytes(model)).rows if row.bytes]
    assert ("first.0", "weight") in stored and not any(layer == "again" for layer, _ in stored)
    assert ("inner", "weight") in stored and ("outer", "weight") not in stored and ("outer", "bias") in stored


SETTINGS = {"Fire": {"squeeze": 2}, "NormalizedFactors": {"rank": 2}, "Deepened": {"normalized": True, "depth": 1}}


@pytest.mark.parametrize("names", [("0", "1"), ("0.0", "1"), ("0", "1.0")], ids=str)
@pytest.mark.parametrize("kind", BLOCKS, ids=lambda kind: kind.__name__)
def test_a_block_in_place_of_a_layer_of_two_names_comes_back_under_both(kind, names):
    def network(layer):
        return nn.Sequential(*(nn.Sequential(layer) if "." in name else layer for name in names)).eval()

    model = network(kind.drawn(Geometry("conv2d", (4, 4, 3, 3), padding=(1, 1)), **SETTINGS.get(kind.__name__, {})))
    target = network(nn.Conv2d(4, 4, 3, padding=1))
    loaded = files.from_bytes(files.model_bytes(model), into=target, example=(x := random(2, 4, 5, 5)))
    assert same(loaded(x), model(x))
    assert loaded.get_submodule(names[0]) is loaded.get_submodule(names[1])
    apart = nn.Sequential(*(copy.deepcopy(part) for part in target)).eval()
    with pytest.raises(CompressionError, match="shares '.*', the network does not"):
        files.from_bytes(files.model_bytes(model), into=apart)


def test_layers_that_were_shared_and_are_no_longer_come_back_apart():
    layer = nn.Linear(4, 4)
    target = nn.Sequential(layer, nn.ReLU(), layer)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).eval()
    loaded = files.from_bytes(files.model_bytes(model), into=target)
    assert same(loaded(random(2, 4)), model(random(2, 4))) and loaded[0] is not loaded[2]


def test_forms_that_share_a_tensor_keep_their_own_masks():
    first, second = masked(nn.Linear(6, 6)), masked(nn.Linear(6, 6))
    second._parameters["weight"] = first.latent
    model = nn.Sequential(first, second).eval()
    loaded = files.from_bytes(files.model_bytes(model), into=copy.deepcopy(model))
    assert same(loaded(random(2, 6)), model(random(2, 6)))


def test_forms_keep_every_part_of_their_geometry():
    for options in ({"stride": 2}, {"padding": (1, 0)}, {"dilation": 2}, {"groups": 2}, {"stride": 2, "groups": 2}):
        model = nn.Sequential(masked(nn.Conv2d(4, 4, 3, **options)))
        loaded = files.from_bytes(files.model_bytes(model), into=nn.Sequential(nn.Conv2d(4, 4, 3, **options)))
        assert loaded[0].geometry == model[0].geometry


def test_layers_kept_apart_do_not_go_into_a_network_that_shares_them():
    norm, pair = nn.LayerNorm(4), nn.Sequential(nn.Linear(4, 4))
    for target, model in (
        (nn.Sequential(norm, norm), nn.Sequential(nn.LayerNorm(4), nn.LayerNorm(4))),
        (nn.Sequential(pair, pair), nn.Sequential(*(nn.Sequential(nn.Linear(4, 4)) for _ in range(2)))),
    ):
        with pytest.raises(CompressionError, match="holds separate layers where the network shares one"):
            files.from_bytes(files.model_bytes(model), into=target)


def test_a_single_layer_is_a_model_too():
    for layer in (nn.Linear(5, 3), masked(nn.Linear(5, 3)), nn.PReLU()):
        loaded = files.from_bytes(files.model_bytes(layer), into=copy.deepcopy(layer))
        assert type(loaded) is type(layer) and same(loaded(random(2, 5)), layer(random(2, 5)))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2, bias=False),
        nn.Conv2d(4, 4, 3, padding="same", padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding=(1, 0), groups=4),
    ],
    ids=str,
)
def test_convolutions_come_back_with_their_settings(layer):
    model = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels)).eval()
    target = copy.deepcopy(model)
    for tensor in target.state_dict().values():
        tensor.zero_()
    loaded = files.from_bytes(files.model_bytes(model), into=target)
    assert same(loaded(random(2, 4, 9, 9)), model(random(2, 4, 9, 9))) and repr(loaded) == repr(model)


def test_removed_channels_and_folded_norms_come_back_into_the_full_network():
    full = networks.build("resnet(width=0.25)")
    small = copy.deepcopy(full)
    block = small.stage1[0]
    block.conv1.weight = nn.Parameter(block.conv1.weight[:2].detach().clone())
    block.conv1.bias = nn.Parameter(torch.tensor([0.5, -0.5]))
    block.conv2.weight = nn.Parameter(block.conv2.weight[:, :2].detach().clone())
    block.norm1 = nn.Identity()
    images = random(2, 1, 32, 32)
    for loaded in (files.from_bytes(files.model_bytes(small)), files.from_bytes(files.model_bytes(small), into=full)):
        assert same(loaded(images), small(images))
        assert loaded.stage1[0].conv1.out_channels == 2 and isinstance(loaded.stage1[0].norm1, nn.Identity)


# Sizes


@pytest.mark.parametrize("coding", files.CODINGS)
@pytest.mark.parametrize("kind", COMPRESS)
def test_the_map_adds_up_to_the_file(kind, coding, tmp_path):
    model = lenet5(COMPRESS[kind], "lenet5(width=0.4)")
    written = files.save(model, tmp_path / "model", coding)
    found = files.inspect(tmp_path / "model")
    assert found.bytes == sum(found.totals.values()) == written
    assert (found.spec, found.coding) == (model.spec, coding)
    forms = {name: module for name, module in model.named_modules() if isinstance(module, Form)}
    parts = {(name, part) for name, form in forms.items() for part in form.stored()}
    assert parts <= {(row.layer, row.part) for row in found.rows}


@pytest.mark.parametrize("kind", [kind for kind in COMPRESS if "factored" not in kind and kind != "adapted"])
def test_the_header_of_lenet5_is_below_300_bytes(kind):
    model = lenet5(COMPRESS[kind], "lenet5(size=32, classes=20)")
    for coding in files.CODINGS:
        assert files.map_of(files.model_bytes(model, coding)).totals["header"] < 300


def test_packed_parts_take_exactly_their_bits():
    model = lenet5(lambda layer: coded(layer, 3, layer.weight > 0))
    rows = {(row.layer, row.part): row for row in files.map_of(files.model_bytes(model)).rows}
    kept = int((model.fc1.mask).sum())
    assert rows["fc1", "codes"].bytes == -(-3 * kept // 8) and rows["fc1", "codes"].numbers == kept
    assert rows["fc1", "scale"].bytes == 4 * 500 and rows["fc1", "bias"].bytes == 4 * 500
    assert rows["fc1", "positions"].bytes <= -(-model.fc1.mask.numel() // 8)  # no more than a bitmap


def test_the_dense_network_takes_four_bytes_a_weight_and_the_header():
    model = networks.build("lenet5")
    weights = sum(parameter.numel() for parameter in model.parameters())
    found = files.map_of(files.model_bytes(model))
    assert found.bytes == 4 * weights + found.totals["header"]


def test_sizes_of_all_codings_are_those_of_the_files():
    model = lenet5(lambda layer: coded(layer, 4))
    sizes = files.file_sizes(model)
    assert sizes == {coding: len(files.model_bytes(model, coding)) for coding in files.CODINGS}
    assert files.file_sizes(model, "ans") == {"ans": sizes["ans"]}
    assert sizes["ans"] < sizes["huffman"] < sizes["packed"]


def test_codes_take_their_entropy_under_ans_and_at_most_a_bit_more_under_huffman():
    model = lenet5(lambda layer: coded(layer, 6))
    for coding, excess in (("ans", 0.02), ("huffman", 0.1)):
        row = next(row for row in files.map_of(files.model_bytes(model, coding)).rows if row.layer == "fc1")
        assert row.part == "codes" and coding in row.encoding and row.table_bytes > 0
        assert row.entropy <= row.bits_per_number <= row.entropy + excess


def test_the_table_names_every_part_and_role(tmp_path):
    files.save(lenet5(masked, "lenet5(width=0.4)"), tmp_path / "model", "ans")
    text = files.describe(tmp_path / "model")
    for word in ("fc1", "positions", "bias", "float32, byte 1", "bitmap, ans", "header", "indices", "lenet5(size=28"):
        assert word in text
    assert f"{os.path.getsize(tmp_path / 'model'):,} bytes, ans" in text


# Damage


INTACT = {coding: files.model_bytes(lenet5(masked, "lenet5(width=0.1)"), coding) for coding in files.CODINGS}


@pytest.mark.parametrize("coding", files.CODINGS)
@few
@given(data=st.data())
def test_any_flipped_bit_is_noticed(coding, data):
    place = data.draw(st.integers(0, 8 * len(INTACT[coding]) - 1))
    altered = bytearray(INTACT[coding])
    altered[place // 8] ^= 1 << place % 8
    with pytest.raises(FileFormatError):
        files.from_bytes(bytes(altered))


@pytest.mark.parametrize("coding", files.CODINGS)
@few
@given(data=st.data())
def test_any_cut_or_addition_is_noticed(coding, data):
    length = data.draw(st.integers(0, len(INTACT[coding]) - 1))
    with pytest.raises(FileFormatError):
        files.from_bytes(INTACT[coding][:length])
    with pytest.raises(FileFormatError, match="damaged"):
        files.from_bytes(INTACT[coding] + data.draw(st.binary(min_size=1, max_size=20)))


def test_every_bit_of_the_first_bytes_counts():
    for place in range(8 * 30):
        altered = bytearray(INTACT["ans"])
        altered[place // 8] ^= 1 << place % 8
        with pytest.raises(FileFormatError):
            files.from_bytes(bytes(altered))


def sealed(top, sections=b"", version=header.VERSION) -> bytes:
    """A file with a valid checksum around whatever content."""
    data = header.seal(top, [sections])[header.FIXED :]
    checksum = zlib.crc32(data, zlib.crc32(bytes([version])))
    return header.MAGIC + bytes([version]) + checksum.to_bytes(4, "little") + data


def test_each_kind_of_wrong_file_has_its_own_message(tmp_path):
    other = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(3)}, other)
    cases = {
        "is empty": b"",
        "is not a compedu model file": other.read_bytes(),
        "damaged": INTACT["ans"][:-1],
        "has format version 3, this compedu reads version 2; update compedu": sealed((), version=3),
        "has format version 1, this compedu reads version 2; save the model again": sealed((), version=1),
    }
    for message, data in cases.items():
        (tmp_path / "model").write_bytes(data)
        for use in (files.load, files.inspect, files.describe):
            with pytest.raises(FileFormatError, match=message) as caught:
                use(tmp_path / "model")
            assert str(tmp_path / "model") in str(caught.value)


def layer(path="conv1", kind="Linear", geometry=(), settings=(), records=()):
    return path, kind, geometry, settings, records


@pytest.mark.parametrize(
    "listed, sections",
    [
        ((layer(records=(("weight", 0, 0, (0, (2**40, 2**20)), ()),)),), b""),  # more numbers than any file holds
        ((layer(records=(("weight", 0, 0, (0, (2, 2)), ()),)),), b"\0" * 15),  # a byte short
        ((layer(records=(("weight", 0, 0, (0, (2, 2)), ()),)),), b"\0" * 17),  # a byte left over
        ((layer(records=(("weight", 9, 0, (0, (2, 2)), ()),)),), b"\0" * 16),  # a kind of part that does not exist
        ((layer(records=(("weight", 0, 0, (99, (2, 2)), ()),)),), b"\0" * 16),  # a type that does not exist
        ((layer(records=(("weight", 0, 0, (0, (-2, -2)), ()),)),), b"\0" * 16),
        ((layer(records=(("weight", 0, 0, "text", ()),)),), b""),
        ((layer("fc2", records=(("weight", 0, 0, (0, (2, 2)), (5, 0, 0, 0)),)),), b"\0" * 17),  # five bytes, no code
        ((layer(records=(("mask", 2, 1, (3, 1, 5), ()),)),), b"\0"),  # position 4 among 3 places
        (("conv1",), b""),
        (layer(), b""),
        (5, b""),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_in_spite_of_its_checksum(listed, sections):
    with pytest.raises(FileFormatError, match="contradicts itself"):
        files.from_bytes(sealed(("lenet5", 2, listed, (), (), ()), sections))


def test_a_header_of_another_form_is_refused():
    for top in ((), 5, ("lenet5", 7, (), (), (), ()), tuple(range(40))):
        with pytest.raises(FileFormatError, match="contradicts itself"):
            files.from_bytes(sealed(top))


def test_bytes_behind_the_header_are_refused():
    deflated = header.seal(("lenet5", 0, (), (), (), ()), [])[header.FIXED + 1 :]
    content = bytes([len(deflated) + 3]) + deflated + b"abc"
    version = bytes([header.VERSION])
    data = header.MAGIC + version + zlib.crc32(content, zlib.crc32(version)).to_bytes(4, "little") + content
    with pytest.raises(FileFormatError, match="does not end where its length says"):
        files.from_bytes(data)


def test_a_header_nested_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(header, "write_value", lambda value: value)
    with pytest.raises(FileFormatError, match="contradicts itself"):
        files.from_bytes(sealed(b"\xa1" * 100_000 + b"\xa0"))  # tuples of one tuple each


@pytest.mark.parametrize(
    "listed, message",
    [
        ((layer(kind="Hologram"),), "kind Hologram cannot be rebuilt"),
        ((layer(kind="Linear"),), "kind Linear cannot be rebuilt"),
        ((layer("fc1", kind="Masked", geometry=("linear", (2, 2))),), "kind Masked cannot be rebuilt"),
    ],
)
def test_a_layer_that_cannot_be_rebuilt_is_named(listed, message):
    with pytest.raises(FileFormatError, match=message):
        files.from_bytes(sealed(("lenet5", 0, listed, (), (), ())))


# Mismatches and mistakes


def test_a_network_without_a_name_needs_one_to_load_into():
    data = files.model_bytes(nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(CompressionError, match=r"into=network"):
        files.from_bytes(data)


def test_a_network_that_does_not_fit_is_refused():
    data = files.model_bytes(networks.build("lenet5(width=0.1)"))
    for target, message in (
        (networks.build("lenet300(width=0.1)"), "lacks"),
        (nn.Linear(3, 2), "lacks"),
        (nn.Sequential(networks.build("lenet5(width=0.1)")), "lacks"),
    ):
        with pytest.raises(CompressionError, match=message):
            files.from_bytes(data, into=target)


def test_layers_that_the_file_does_not_hold_are_named():
    larger = networks.build("lenet5(width=0.1)")
    larger.extra = nn.Linear(2, 2)
    with pytest.raises(CompressionError, match="holds nothing for extra"):
        files.from_bytes(files.model_bytes(networks.build("lenet5(width=0.1)")), into=larger)


def test_a_layer_of_another_class_is_refused():
    data = files.model_bytes(nn.Sequential(nn.PReLU()))
    with pytest.raises(CompressionError, match="class PReLU, the network has LayerNorm"):
        files.from_bytes(data, into=nn.Sequential(nn.LayerNorm(1)))


def test_a_network_unknown_to_this_version_is_named():
    with pytest.raises(CompressionError, match="no network is called 'capsule'"):
        files.from_bytes(sealed(("capsule", 0, (), (), (), ())))


def test_what_cannot_be_stored_is_refused_by_name_and_the_old_file_stays(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2))
    files.save(model, tmp_path / "model")
    before = (tmp_path / "model").read_bytes()
    model[0].weight = nn.Parameter(torch.zeros(2, 3, dtype=torch.complex64))
    with pytest.raises(CompressionError, match="0.weight of Sequential holds torch.complex64"):
        files.save(model, tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_file_that_cannot_be_put_in_its_place_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "something").touch()
    with pytest.raises(OSError):
        files.save(nn.Linear(3, 2), tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_a_form_that_no_file_knows_is_refused():
    class Private(Masked):
        pass

    form = masked(nn.Linear(4, 4))
    form.__class__ = Private
    with pytest.raises(CompressionError, match="Private is not in compedu.forms.FORMS"):
        files.model_bytes(nn.Sequential(form))


def test_an_unknown_coding_is_refused():
    with pytest.raises(ValueError, match="packed, huffman, ans"):
        files.model_bytes(nn.Linear(2, 2), "zip")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=40),
        lambda inner: st.lists(inner, max_size=40).map(tuple),
        max_leaves=20,
    )
)
@settings(max_examples=50, deadline=None)
def test_header_values_come_back(value):
    reader = header.Values(header.write_value(value))
    back = reader.value()
    assert back == value and repr(back) == repr(value) and reader.left == 0


# Files of earlier versions


def every_form() -> nn.Module:
    """A network with every form and known numbers: whole ones divided by powers of two, so that they are exact."""

    def layer(shape):
        count = shape[0] * shape[1]
        made = nn.Linear(shape[1], shape[0])
        made.weight = nn.Parameter((torch.arange(count) ** 2 % 61 - 30.0).reshape(shape) ** 3 / 2**15)
        made.bias = nn.Parameter(torch.arange(shape[0]) / 8)
        return made

    with_act = Quantized(
        Geometry.of(layer((8, 40))), layer((8, 40)).weight, torch.tensor(0.125), 4, layer((8, 40)).bias
    )
    with_act.act = ActivationQuantizer(0.0625, 16, 8)
    factors = Factored(Geometry("linear", (6, 8)), layer((2, 8)), layer((6, 2)))
    blocks = BlockCirculant(Geometry("linear", (8, 6)), (torch.arange(16.0) / 16).reshape(2, 2, 4), None, flips=3)
    images = nn.Conv2d(2, 3, 3, padding=1)
    images.weight, images.bias = nn.Parameter(torch.arange(54.0).reshape(3, 2, 3, 3) / 64), None
    base = CReLUFilters(Geometry("conv2d", (4, 3, 1, 1)), torch.arange(6.0).reshape(2, 3, 1, 1) / 8, None)
    norm = nn.BatchNorm2d(2, eps=2**-10)
    norm.running_mean.copy_(torch.tensor([0.5, -0.25]))
    kept = (torch.arange(320) % 7 == 0).reshape(8, 40)
    pruned = Masked(Geometry("linear", (8, 40)), layer((8, 40)).weight, kept, None)
    return nn.ModuleDict(
        {
            "norm": norm,
            "images": images,
            "base": base,
            "pruned": pruned,
            "coded": with_act,
            "factors": factors,
            "blocks": blocks,
        }
    ).eval()


VERSION_2 = {
    "huffman": (
        "Lq$YY0*MXVEuI3cluJ&-Fc60AaS|dGi3`AnO<Cm%T!AYT^&yZzNV!5=1QMLVp4dpR<OCH_uf&?MGqxNaJF<(DdHDPPnV0_c^Zi=Bx%Dj(8?iI!"
        "b=iyXT%21M^LSpMITgSBqzu1MrnBwU&1|)3V|xapDNst2N(dBIfl~HFl%)$k8aWFYt}T?5+6;e$DDVevdq<@gbB2g40oG?^h^&Tb?D6z;;xZ*<"
        "*Y7|z=FkP1=7X472G+6Y9P22$;=@po=^v%rB!_67!LF_F7kLON8}iM+neBcV=CDokm|CrBYT=1LH^Y=B@8lE^YI`KaLDnw`^&BII$^Ij>0=n5K"
        "v?BVKet)#z*GOVmA+HpLVX2Vtaj*EK9Y8@1m8I7D3x9tA0000000000000000DgS{000000e^o00000000#gE@Bjb+00034wlqNd|9iW;ZMNE~"
        "s;Z~}000000Du5MfWQDCKwyBNz~BH7ATU5sU~qttps>Ku;P3zl5EvjRFgQR+P*`ASaCm@-keHyT0RR91009610001deSLm@0001h06+i$00000"
        "00000000Se0Sb@+0s`(*06^|{9U<$zSw=6+Tt2ZZZ)gnw21MjoDMTk2J<9_EC{ZFnej>lYywyTA+jP-~As1lGFsDxXfC~TyJUriAw9h^80s<?V"
        ")SsdIgM`8?Ba2P4fGE8+M+`s$00031weoCW7}x>;1E2u_fB*mg|NIRB0S*ud0s{WQ{=mj-V)IM(2_Ge?SJ@=((6&Bck^1Y3ZnKQm#pajn5<W{("
        "ud+$op=^A?BlXu5-DerCi_I_CBz%^oUu2WFLfH9&N9(RBy3R9O7n)zNNck;FzR4$Ug|YJlkJnsNb)06lFEqbkk@8xVeUeVy3uER9AFjBj>p0D9"
        "UTJ>7d;kCd0DOIYetv#_0001h06>7i0RR9100961004Uc000mOb^!=L0s^LlR{m(nz~H5Q5+PUgu&gumY^4A*GqB(kplAR90I-YzfZzZS5C8%I"
        "0098}$^d)-000000DgXceS3Cye13U(ex-d9Ay@RUtTXg%rQj5xXaE2Ju#5nJ-~s>u0Ra5K0DOIYetrM|0Du5M0000000000000001po*100001"
        "0{H;%+Nb~k004jhK!CsiAV6S%pupe(000000RR9100"
    ),
    "ans": (
        "Lq$YY0-=LN-kAcelub^=Fbstgr^-}<1xH|3AQrs>SKtbu84ySyq+S6Av0%=SxG@qeIRT>LO002GC&~=4qq`>cPrvu<=kew1?FwG$?uLnNu=5yo"
        "`BdpSIS!QbL|)(|mAw3<48Kt3v(@GG>BX|o?Rm_mK&^c#p-=?_#)P?=%_#Y3!&xYBLu0gde)=LsK|G+<Etg&{1R{zA*dDSWsv5ov`$q?RR4Ji{"
        "@f}R(cPYuVn8d6yh>p!bqN5s`56?k<Tx+^74sou6-3FzsrN@-AW8eIn*&fc*9QI`%ORKi!7M|p~o2ImQr>1}q+fzGLzbw=`M^2OdN2rDRH!YJt"
        "i@T%WULl2_MOh~X(?Vg<^G=Bg2Y@EAa?X7Ne}4b~000000000000000etiG{00001e}4b~000002LK1~00000000030H+`}uwfsmhcbphw+a)5"
        "5&&@l1ONa4fB-;%zyKgXV1S^&-~bRHFhEdXaDb4Yu)xsZ@Bj!97$7JxI6z2HSYT*ycz}qIn4qWu000360Du7i009L6fB<}beSUrb004jhKmY&$"
        "0000000000010#f3XlK*00Ri5nt;M}<83RET-1E4sp17b&|5H#MGXK3MC4d0L?;+M%K!iZm#N4=fP_jM9c(!TYbEakB^e#|ByzQk4&WFI00ulf"
        "-(0lMJ@5bk1Bil=34q%sCH-ai$>D*tBf(B)^U^?VxfB8b000C5fa$bd=V!XuOl1N91E2r^0~7!N06Gl;0S*ud00RR65aIw3PX!y9NX6Tj%`ca1"
        "ZuQi3<aeS}i0_i6r>zVMo$B6DX#47HwszH%PQ2|_0{w#;xeg03GfCVi!rHepo=naPzIpO&zWTFmSriN2(;C`e$%MYJ!bib;I<Z1ismGO3YUc*K"
        "9|91tdIV1>1nJFthRA0ZKJRi};L-)4WnhPvd;kCd0DOIYetv#_0001h06>7i0RR910{{U400093djJ3c5Pp7seS3Cye13U(etCR+dZm35Ay@RU"
        "tTXg%r2sQCu;3J+XaE2Ju#5nJ-~bR100IC200RI30Dzw<0DJ%d00000etv#^dv<qxetCI*rF{}1SM;!~GxThw;1r-}00026i~xY(0RaI40RaF2"
        "0RaF20DOIYetrM|0Du5M0000000000000000DF9VeSLj>etv#_etv#_0001h06>7i03bkMfS|zO0RR911ONd5000C4"
    ),
}


@pytest.mark.parametrize("coding", VERSION_2)
def test_files_of_version_2_are_still_read(coding):
    model = every_form()
    target = copy.deepcopy(model)
    for name, form in model.items():
        if isinstance(form, Form):
            target[name] = form.geometry.layer(torch.zeros(form.geometry.shape), form.dense_bias())
    loaded = files.from_bytes(base64.b85decode(VERSION_2[coding]), into=target)
    for name, form in model.items():
        assert type(loaded[name]) is type(form)
        before, after = (weight_of(layer) if name != "norm" else layer.running_mean for layer in (form, loaded[name]))
        assert same(after.detach(), before.detach()), name
    assert loaded["coded"].act.scale == 0.0625 and loaded["coded"].act.zero_point == 16
    assert repr(loaded) == repr(model)
    encodings = {row.encoding for row in files.map_of(base64.b85decode(VERSION_2[coding])).rows}
    assert {f"4-bit codes, {coding}", f"3-bit gaps, {coding}"} & encodings


def test_two_names_of_one_tensor_stay_one():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.randn(4))
            self.b = self.a

        def forward(self, x):
            return x * self.a + self.b

    model, x = Two(), torch.randn(3, 4)
    loaded = files.from_bytes(files.model_bytes(model), into=Two())
    assert torch.equal(loaded(x), model(x)) and loaded.a is loaded.b


def test_messages_call_a_layer_by_the_name_of_its_class(tmp_path):
    """In the file a quantized layer goes by an older name, which says nothing to a reader."""
    quantized = LinearQuantization(bits=4)(nn.Sequential(nn.Linear(6, 4)))
    path = tmp_path / "model.compedu"
    files.save(quantized, path)
    with pytest.raises(CompressionError, match="layer '0' is of class Quantized, the network has ReLU there"):
        files.load(path, nn.Sequential(nn.ReLU()))
