"""Files of someone who knows the format: none asks for much, fails in a way of its own, or loads and cannot run."""

import copy
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import compedu as ce
from compedu import files, networks
from compedu.errors import CompressionError, FileFormatError
from compedu.files import Limits, fitting, header, limits
from compedu.forms import (
    FORMS,
    ActivationQuantizer,
    BlockFloats,
    Factored,
    Form,
    Geometry,
    Masked,
    Quantized,
    Reordered,
)
from compedu.methods import MagnitudePruning
from compedu.metrics import Report
from compedu.sweeps.models import KeptModels

FOLDER = Path(__file__).parents[2] / "benchmarks"
SPEC = "lenet300(size=8, channels=1, classes=10, width=0.02)"


@pytest.fixture(scope="module")
def attack():
    """The command of the benchmark, with the files of two networks; forgotten afterwards."""
    sys.path.insert(0, str(FOLDER))
    import file_attack
    import mutations

    whole = mutations.NETWORKS, mutations.METHODS
    mutations.NETWORKS = {"lenet300(width=0.02)": 8, "lenet5(width=0.08)": 16}
    mutations.METHODS = whole[1][:4]
    yield file_attack
    mutations.seeds.cache_clear()
    sys.path.remove(str(FOLDER))
    for name in ("file_attack", "mutations", "table"):
        sys.modules.pop(name, None)


# By the thousand: a sample of what benchmarks/file_attack.py does


def test_altered_files_are_refused_or_load_and_answer(attack):
    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32))
    def law(number):
        _, seed, data = attack.mutations.mutation(number)
        found, message = attack.outcome(seed, data)
        assert found in attack.GOOD, message

    law()


def test_what_must_not_happen_is_counted_and_the_attack_goes_on(attack, monkeypatch):
    def outcome(seed, data, inspect):
        number = next(numbers)
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 4:
            torch.ones(2**27).sum()  # half a gigabyte
        return ("forward raises", "ValueError") if number == 6 else (attack.REFUSED, "")

    found = []
    monkeypatch.setattr(attack, "outcome", outcome)
    for start in (0, 3, 5, 7):  # each in a process of its own, which counts from the start
        numbers = iter(range(start, 9))
        found += [kind for _, _, kind, _ in attack.attacked(range(start, {0: 3, 3: 5, 5: 7, 7: 9}[start]))]
    assert found[:3] == ["refused", "refused", "process killed"] and found[3:5] == ["refused", "above 200 MB"]
    assert found[5:7] == ["refused", "forward raises"] and found[7:] == ["refused", "refused"]


# What a few bytes may ask for

ASKS = """
import resource, sys
from compedu import files
from compedu.errors import CompressionError
from compedu.files import header
from compedu.files.buffers import varint

def part(kind, details, *lengths):
    return ("weight", kind, 0, details, lengths)

def layer(*parts, path="fc1", kind="Linear", geometry=(), settings=()):
    return path, kind, geometry, settings, parts

only = varint(1) + varint(7) + b"\\0" + b"\\0\\0\\0"  # the table of one symbol
two = varint(2) + varint(0) + b"\\0" + b"\\0\\x1f\\0" + b"\\1"
huffman, ans = 1, 2
spec = "lenet300(size=8, width=0.02)"
huge = ("linear", (16000, 16000))
cases = {
    "an ANS stream of 2^31": ((spec, ans, (layer(part(1, (8, False, (2**31,)), len(two))),), (), (), ()), two),
    "a Huffman stream of 2^31": ((spec, huffman, (layer(part(0, (0, (2**31,)), *[5] * 4)),), (), (), ()), only[:5] * 4),
    "99,999 blocks": (("resnet(blocks=99999)", 0, (layer(),), (), (), ()), b""),
    "100 blocks": (("resnet(blocks=100)", 0, (layer(),), (), (), ()), b""),
    "units without end": (("lenet300(width=9999)", 0, (layer(),), (), (), ()), b""),
    "images without end": (("mobilenet(size=99999)", 0, (layer(),), (), (), ()), b""),
    "a mask of 16,000 x 16,000": ((spec, 0, (layer(kind="Masked", geometry=huge),), (), (), ()), b""),
    "bits": ((spec, 0, (layer(kind="Quantized", geometry=("linear", (6, 64)), settings=(("bits", 12345678901),)),),
              (), (), ()), b""),
    "many values": ((spec, 0, ("ab",) * 300_000, (), (), ()), b""),
}
at_rest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, (value, parts) in cases.items():
    data = header.seal(value, [parts])
    for use in (files.from_bytes, files.map_of):
        try:
            use(data)
        except CompressionError as error:
            assert type(error).__name__ in ("FileFormatError", "CompressionError")
            refused = True
        else:
            refused = False
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - at_rest) // 1024
        print(f"{name}|{use.__name__}|{refused}|{grown}")
"""


def test_a_few_bytes_never_ask_for_much():
    done = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split("|") for line in done.stdout.splitlines()]
    assert len(rows) == 18 and all(int(grown) < 200 for *_, grown in rows), done.stdout
    assert all(refused == "True" for _, use, refused, _ in rows if use == "from_bytes"), done.stdout


def network_file(model=None, coding="packed") -> bytes:
    return files.model_bytes(networks.build(SPEC) if model is None else model, coding)


@pytest.mark.parametrize("limit", [Limits(bytes=100), Limits(layers=2), Limits(numbers=100), Limits(pixels=63),
                                   Limits(activations=100)])  # fmt: skip
def test_limits_are_declared_named_and_can_be_lifted(limit, tmp_path):
    path = tmp_path / "model.ce"
    path.write_bytes(network_file())
    with pytest.raises(FileFormatError, match=r"asks for [\d,]+ \w+, allowed are [\d,]+.*limits=Limits\(") as caught:
        ce.load_model(path, limits=limit)
    assert str(path) in str(caught.value)
    assert ce.load_model(path, limits=Limits(numbers=10**6)).spec == SPEC


def test_sparse_files_may_ask_for_what_the_network_they_go_into_holds(monkeypatch):
    monkeypatch.setattr(limits, "LEAST_NUMBERS", 100)
    layer = nn.Linear(400, 400, bias=False)
    kept = torch.zeros(400, 400, dtype=torch.bool)
    kept[0, :5] = True
    data = files.model_bytes(nn.Sequential(Masked(Geometry.of(layer), layer.weight, kept, None)))
    assert int(files.from_bytes(data, into=nn.Sequential(layer))[0].mask.sum()) == 5
    with pytest.raises(FileFormatError, match="numbers"):
        files.from_bytes(data, into=nn.Sequential(layer), limits=Limits(numbers=200 * len(data)))


def test_what_is_no_file_is_refused_by_name(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(FileFormatError, match="is not a file"):
            files.inspect(path)


# Places, kinds, shapes, types: each altered header is refused


def test_every_form_has_a_rule_for_its_parts():
    assert all("check_declared" in vars(form) for form in FORMS)
    with pytest.raises(ValueError, match="Form does not say what it stores"):
        Form.check_declared(Geometry("linear", (2, 2)), {}, {})


def quantized(layer: nn.Linear) -> Quantized:
    form = Quantized(
        Geometry.of(layer), layer.weight, layer.weight.detach().abs().amax(1, keepdim=True) / 7, 4, layer.bias
    )
    form.act = ActivationQuantizer.for_range(-1, 2, 8)
    return form


def thin() -> nn.Module:
    """A network with a masked layer, a quantized one and a dense one."""
    model = networks.build(SPEC)
    model.fc1 = Masked(Geometry.of(model.fc1), model.fc1.weight, model.fc1.weight > 0, model.fc1.bias)
    model.fc2 = quantized(model.fc2)
    return model.eval()


def rewritten(old, new, data=None) -> bytes:
    """The file of `thin` with the value `new` wherever its header has `old`, and a right checksum."""

    def walk(value):
        if type(value) is type(old) and value == old:
            return new
        return tuple(map(walk, value)) if isinstance(value, tuple) else value

    data = network_file(thin()) if data is None else data
    value, reader = header.unseal(data, "")
    changed = walk(value)
    assert changed != value
    return header.seal(changed, [reader.take(reader.left)])


@pytest.mark.parametrize("old, new", [
    ("fc1", 7), ("fc1", "fc9"), ("fc1", "fc2"), ("fc1", ""), ("fc1", "flatten"), ("Masked", "Quantized"), ("Masked", 3),
    ("Masked", "Factored"), ("Masked", "Hologram"), ("Masked", "=LayerNorm"), ("linear", "conv2d"),
    ("linear", "cubic"),    ((6, 64), (7, 64)), ((6, 64), (6, 65)), ((6, 64), (64, 6)), ((6, 64), (0, 64)),
    ((6, 64), (6, 2**40)),
    ((6, 64), ()), (("bits", 4), ("bits", 5)), (("bits", 4), ("bits", 2**40)), (("bits", 4), ("bits", None)),
    (("bits", 8), ("bits", 0)),    (("bits", 4), ("bits", 4, 4)), (("bits", 4), ("tib", 4)),
    ((4, True, (12,)), (4, False, (12,))),
    ("weight", "positions"), ("positions", "positive"), ("bias", None), ("fc2.act", "fc1.act.act"), ("act.scale", "x"),
    (SPEC, "lenet300(size=8, channels=1, classes=9, width=0.02)"), (SPEC, None),
    (SPEC, "lenet5"), (SPEC, "lenet300(width={[]: 1})"), (SPEC, "(" * 999), (SPEC, True),
], ids=str)  # fmt: skip
def test_an_altered_header_is_refused(old, new):
    assert files.from_bytes(network_file(thin())).fc2.bits == 4
    with pytest.raises(CompressionError):
        files.from_bytes(rewritten(old, new))


def in_blocks(format: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A network whose second layer is in a block format, of six scales: one and a half block in each of three rows."""
    model = nn.Sequential(nn.Linear(4, 12), nn.Linear(12, 3)).to(dtype)
    torch.manual_seed(0)
    nn.init.normal_(model[1].weight)
    return ce.BlockFormats(format=format, block=8, layers="1")(MagnitudePruning(sparsity=0.5)(model))


@pytest.mark.parametrize("old, new", [
    (("format", "mxfp4"), ("format", "mxfp6_e2m3")), (("format", "mxfp4"), ("format", "nf4")),
    (("format", "mxfp4"), ("format", "fp4")), (("format", "mxfp4"), ("format", 4)),
    (("format", "mxfp4"), ("format", ())), (("format", "mxfp4"), ("form", "mxfp4")),
    (("block", 8), ("block", 4)), (("block", 8), ("block", 0)), (("block", 8), ("block", 12)),
    (("block", 8), ("block", -8)), (("block", 8), ("block", 8.5)), (("block", 8), ("block", True)),
    (("block", 8), ("block", 2**31)), (("block", 8), ("block", None)),
    (("block", 8), ("dtype", "float16")), ((4, False, (18,)), (4, True, (18,))), ((4, False, (18,)), (3, False, (18,))),
    ((4, False, (18,)), (4, False, (17,))), ((8, False, (3, 2)), (8, True, (3, 2))), ((3, 2), (2, 3)), ((3, 2), (6,)),
    ("scale", "scales"), ("codes", "code"), ("positions", "bias"),
], ids=str)  # fmt: skip
def test_an_altered_header_of_a_block_format_is_refused(old, new):
    data = files.model_bytes(in_blocks("mxfp4"), "packed")
    assert files.from_bytes(data, into=in_blocks("mxfp4"))[1].format == "mxfp4"
    with pytest.raises(CompressionError):
        files.from_bytes(rewritten(old, new, data), into=in_blocks("mxfp4"))


@pytest.mark.parametrize("block", [0, -8, 2**31, True, "8", None])
def test_a_block_that_holds_no_weights_is_refused_as_one(block):
    with pytest.raises(ValueError, match=f"blocks of {block!r} weights"):
        BlockFloats.check_declared(Geometry("linear", (3, 12)), {"format": "mxfp4", "block": block}, {})


@pytest.mark.parametrize("format, part, value, reason", [
    ("mxfp4", "codes", 15, "a code above 14, the last of mxfp4"), ("mxint8", "codes", 255, "a code above 254"),
    ("mxfp8_e4m3", "codes", 253, "a code above 252"), ("mxfp8_e5m2", "codes", 247, "a code above 246"),
    ("mxfp6_e2m3", "codes", 63, "a code above 62"), ("mxfp4", "scale", 255, "a scale of NaN"),
    ("mxfp4", "scale", 254, "a weight too large for torch.float32"), ("nf4", "scale", float("nan"), "not a positive"),
    ("nf4", "scale", 0.0, "not a positive"), ("nf4", "scale", -1.0, "not a positive"),
    ("nf4", "scale", float("inf"), "not a positive"),
])  # fmt: skip
def test_codes_and_scales_that_mean_nothing_are_refused(format, part, value, reason, monkeypatch):
    model = in_blocks(format)
    stored = BlockFloats.stored_weight

    def forged(form):
        parts = stored(form)
        parts[part].tensor.view(-1)[0] = value
        if reason.startswith("a weight"):
            parts["codes"].tensor[:] = 0
        return parts

    monkeypatch.setattr(BlockFloats, "stored_weight", forged)
    data = files.model_bytes(model)
    with pytest.raises(FileFormatError, match=f"'1' of kind BlockFloats cannot be rebuilt.*{reason}"):
        files.from_bytes(data, into=model)


def test_the_type_of_decoded_weights_is_one_of_a_network():
    data = files.model_bytes(in_blocks("mxint8", torch.float16))
    assert files.from_bytes(data, into=in_blocks("mxint8", torch.float16))[1].weight.dtype == torch.float16
    for new in ("float8", "int8", "float32", 16, ()):
        with pytest.raises(CompressionError):
            files.from_bytes(rewritten(("dtype", "float16"), ("dtype", new), data), into=in_blocks("mxint8"))


def in_another_order() -> nn.Module:
    """A layer of two factors: five channels in another order, then a dense layer, in double precision."""
    torch.manual_seed(0)
    order = Reordered(Geometry("linear", (5, 5)), torch.tensor([3, 0, 4, 1, 2]))
    return nn.Sequential(Factored(Geometry("linear", (6, 5)), order, nn.Linear(5, 6))).double().eval()


@pytest.mark.parametrize("old, new", [
    ((3, False, (5,)), (3, True, (5,))), ((3, False, (5,)), (4, False, (5,))), ((3, False, (5,)), (3, False, (6,))),
    ((3, False, (5,)), (3, False, (5, 1))), ("order", "orders"), ("Reordered", "Masked"), ((5, 5), (5, 4)),
    ((5, 5), (4, 4)), ((5, 5), (6, 6)), ((5, 5), (5, 5, 1, 1)), ((5, 5), (2**20, 2**20)),
    (("dtype", "float64"), ("dtype", "float32")), (("dtype", "float64"), ("dtype", "int8")),
    (("dtype", "float64"), ("kind", "float64")), (("dtype", "float64"), ("dtype", 64)), ("0.second", "0.third"),
], ids=str)  # fmt: skip
def test_an_altered_header_of_channels_in_another_order_is_refused(old, new):
    model = in_another_order()
    data = files.model_bytes(model)
    assert torch.equal(files.from_bytes(data, into=model)[0].dense(), model[0].dense())
    with pytest.raises(CompressionError):
        files.from_bytes(rewritten(old, new, data), into=model)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 3], [0, 1, 2, 3, 5], [7, 7, 7, 7, 7]])
def test_numbers_that_are_no_order_of_channels_are_refused(order):
    model = in_another_order()
    model[0].first.order[:] = torch.tensor(order)
    with pytest.raises(FileFormatError, match=r"'0\.first' of kind Reordered cannot be rebuilt.*not one of 5 channels"):
        files.from_bytes(files.model_bytes(model), into=model)


def test_lists_of_paths_are_texts_once_each_and_shared_as_in_the_network():
    value, reader = header.unseal(network_file(), "")
    parts = reader.take(reader.left)
    for place, listed in (
        (3, (1,)),
        (3, ("fc1", "fc1")),
        (3, ("nowhere",)),
        (3, "fc1"),
        (4, ("a.b",)),
        (4, (None,)),
        (5, (("relu1",),)),
        (5, (("relu1", 2),)),
        (5, (("relu1", "fc1"),)),
        (5, (("fc2", ""),)),
        (5, (("fc1", "fc2"),) * 2),
    ):
        with pytest.raises(CompressionError):
            files.from_bytes(header.seal((*value[:place], listed, *value[place + 1 :]), [parts]))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_quantizer_without_a_grid_is_refused(scale):
    model = thin()
    model.fc2.act.scale.fill_(scale)
    with pytest.raises(FileFormatError, match=r"'fc2\.act' of kind ActivationQuantizer cannot be rebuilt"):
        files.from_bytes(network_file(model))


def test_layers_that_do_not_fit_each_other_are_refused():
    model = networks.build(SPEC)
    model.fc1 = nn.Linear(64, 5)  # smaller than the network's, as if channels were removed: but those of fc2 were not
    with pytest.raises(FileFormatError, match="holds layers that do not fit each other"):
        files.from_bytes(network_file(model))
    data, example = files.model_bytes(nn.Sequential(nn.Linear(4, 2), nn.Linear(3, 2))), torch.zeros(2, 4)
    into = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    with pytest.raises(FileFormatError, match="do not fit each other"):
        files.from_bytes(data, into=into, example=example)


def test_layers_larger_than_the_networks_are_refused():
    for saved, target in (
        (nn.Linear(4, 3), nn.Linear(4, 2)),
        (nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 1)),
        (nn.PReLU(3), nn.PReLU(2)),
        (nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3)),
        (nn.BatchNorm2d(3), nn.BatchNorm2d(2)),
        (nn.LayerNorm(2), nn.LayerNorm(3)),
        (nn.Linear(2, 2).double(), nn.Sequential(nn.Linear(2, 2))[0].half()),
    ):
        target = nn.Sequential(target, nn.Linear(2, 2).to(next(target.parameters()).dtype))
        with pytest.raises(CompressionError):
            files.from_bytes(files.model_bytes(nn.Sequential(saved, nn.Linear(2, 2))), into=target)


def test_a_network_with_more_channels_is_loaded_where_it_is_tried():
    def network(channels):
        layers = nn.Conv2d(1, channels, 3), nn.BatchNorm2d(channels), nn.PReLU(channels), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(channels, 2)).eval()

    wide, narrow, x = network(5), network(3), torch.randn(2, 1, 3, 3)
    data = files.model_bytes(wide)
    with pytest.raises(CompressionError, match="with more channels is loaded only with example="):
        files.from_bytes(data, into=narrow)
    loaded = files.from_bytes(data, into=narrow, example=x)
    assert torch.equal(loaded(x), wide(x)) and narrow[0].out_channels == 3
    wide[4] = nn.Linear(7, 2)  # larger too, but not as what it reads
    with pytest.raises(FileFormatError, match="do not fit each other"):
        files.from_bytes(files.model_bytes(wide), into=narrow, example=x)


def test_a_network_with_more_channels_is_saved_under_its_name_where_they_fit_each_other():
    wide = networks.build(SPEC)
    hidden = wide.fc1.out_features
    wide.fc1 = nn.Linear(wide.fc1.in_features, hidden + 2)
    assert files.map_of(files.model_bytes(wide)).spec == ""
    wide.fc2 = nn.Linear(hidden + 2, wide.fc2.out_features)
    data = files.model_bytes(wide)
    x = torch.randn(3, 1, 8, 8)
    assert files.map_of(data).spec == SPEC and torch.equal(files.from_bytes(data)(x), wide.eval()(x))


# A network that was changed is not the one that its spec names


def changed_networks():
    tanh, larger, shared, hooked, inside, before, own, attribute = (networks.build(SPEC) for _ in range(8))
    hooked.register_forward_hook(lambda model, inputs, y: 3 * y)
    inside.fc1.register_forward_hook(lambda layer, inputs, y: 3 * y)
    before.relu1.register_forward_pre_hook(lambda layer, inputs: (-inputs[0],))
    own.forward = type(own).forward.__get__(own)
    attribute.flatten.start_dim = 2
    tanh.relu1 = nn.Tanh()
    larger.fc3 = nn.Linear(2, 20)
    shared.fc2 = shared.fc1
    return {
        "another activation": tanh, "a larger layer": larger, "a shared layer": shared, "a hook": hooked,
        "a hook of a layer": inside, "a hook before": before, "a forward of its own": own, "a setting": attribute,
    }  # fmt: skip


@pytest.mark.parametrize("change", changed_networks())
def test_a_changed_network_is_not_saved_under_its_name(change):
    model = changed_networks()[change]
    data = network_file(model)
    assert files.map_of(data).spec == "" and files.map_of(network_file()).spec == SPEC
    with pytest.raises(CompressionError, match="it was changed after it was built"):
        files.from_bytes(data)
    with pytest.raises(CompressionError, match=fitting.ADVICE):
        files.from_bytes(data, into=networks.build(SPEC))
    loaded = files.from_bytes(data, into=copy.deepcopy(model))
    assert [type(module) for module in loaded.modules()] == [type(module) for module in model.modules()]


def test_modules_without_numbers_must_be_those_that_were_saved():
    def network(*inside):
        return nn.Sequential(nn.Conv2d(1, 2, 3), *inside, nn.Flatten(), nn.Linear(2, 2)).eval()

    data = files.model_bytes(network(nn.LeakyReLU(0.1), nn.MaxPool2d(2)))
    images = torch.randn(2, 1, 4, 4)
    same = files.from_bytes(data, into=network(nn.LeakyReLU(0.1), nn.MaxPool2d(2)))
    assert same(images).shape == (2, 2)
    for inside in (
        (nn.LeakyReLU(0.2), nn.MaxPool2d(2)),
        (nn.ReLU(), nn.MaxPool2d(2)),
        (nn.LeakyReLU(0.1), nn.AvgPool2d(2)),
    ):
        with pytest.raises(CompressionError, match="other classes, settings"):
            files.from_bytes(data, into=network(*inside))


class Powers(nn.Module):
    """A module without parameters whose setting is an attribute, which nothing shows."""

    def __init__(self, power, function=torch.relu):
        super().__init__()
        self.power, self.function = power, function

    def forward(self, x):
        return self.function(x) ** self.power


@pytest.mark.parametrize(
    "saved, other",
    [
        (lambda: nn.Conv1d(8, 8, 3, padding=1), lambda: nn.Conv1d(8, 8, 3, padding=2, dilation=2)),
        (lambda: nn.LayerNorm(16, eps=1.0), lambda: nn.LayerNorm(16)),
        (lambda: nn.TransformerEncoderLayer(16, 2, 8, norm_first=True), lambda: nn.TransformerEncoderLayer(16, 2, 8)),
        (lambda: nn.TransformerEncoderLayer(16, 2, 8, activation="gelu"), lambda: nn.TransformerEncoderLayer(16, 2, 8)),
        (lambda: nn.GroupNorm(2, 8), lambda: nn.GroupNorm(4, 8)),
        (lambda: nn.MultiheadAttention(16, 2), lambda: nn.MultiheadAttention(16, 4)),
        (lambda: nn.ConvTranspose2d(3, 3, 2, 2), lambda: nn.ConvTranspose2d(3, 3, 2)),
        (lambda: nn.BatchNorm3d(3, eps=0.1), lambda: nn.BatchNorm3d(3)),
        (lambda: Powers(5), lambda: Powers(1)),
        (lambda: Powers([1, 2]), lambda: Powers([2, 1])),
        (lambda: Powers(1), lambda: Powers(1, torch.tanh)),
    ],
)
def test_modules_of_a_network_must_have_the_settings_that_they_had_when_saved(saved, other):
    data = files.model_bytes(nn.Sequential(saved(), nn.Linear(2, 2)).eval())
    assert files.from_bytes(data, into=nn.Sequential(saved(), nn.Linear(2, 2)))
    with pytest.raises(CompressionError, match="other classes, settings"):
        files.from_bytes(data, into=nn.Sequential(other(), nn.Linear(2, 2)))


def test_a_network_with_hooks_goes_into_one_that_has_them_and_one_without_into_both():
    def network(hooked):
        model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        if hooked:
            model[0].register_forward_hook(lambda layer, inputs, y: 3 * y)
        return model

    hooked, bare = (files.model_bytes(network(hooks)) for hooks in (True, False))
    for data, target in ((hooked, True), (bare, True), (bare, False)):
        assert files.from_bytes(data, into=network(target))
    with pytest.raises(CompressionError, match="forward hooks"):
        files.from_bytes(hooked, into=network(False))


def test_what_a_network_is_given_later_and_the_channels_it_loses_leave_it_its_name():
    model = networks.build(SPEC)
    model.remark, model.epochs = "mine", 3
    assert files.map_of(network_file(model)).spec == SPEC
    small, full = (nn.Sequential(nn.Linear(2, width), nn.PReLU(width), nn.Linear(width, 2)) for width in (2, 3))
    assert files.from_bytes(files.model_bytes(small), into=full)(torch.ones(1, 2)).shape == (1, 2)


# Caches and stores


@pytest.mark.parametrize("content", [b"", b"CEDU", b"CEDU\2" + bytes(40), b"\x80\4cos\nsystem\n."])
def test_a_damaged_model_that_waits_to_be_timed_counts_as_none(content, tmp_path):
    kept = KeptModels(tmp_path / "models")
    assert kept.load("key", networks.build(SPEC)) is None
    kept.keep("key", network_file())
    assert kept.load("key", networks.build(SPEC)).spec == SPEC
    kept.path("key").write_bytes(content)
    assert kept.load("key", networks.build(SPEC)) is None


def test_a_report_whose_entries_are_of_other_types_is_refused():
    model, data = networks.build(SPEC), ce.load_data("digits(size=8)").shortened(train=8, validation=8, test=8)
    whole = ce.measure(model, data, baseline=model, speed=False).as_dict()
    assert Report.from_dict(whole).as_dict() == whole
    for name in ("method", "data", "correct", "loss", "machine", "size_by_role", "change", "latency", "layers"):
        for wrong in ("x", [[1]], {"a": []}, True, 5.5):
            if (name in ("method", "data") and wrong == "x") or (name == "loss" and wrong == 5.5):
                continue
            with pytest.raises((ValueError, KeyError)):
                Report.from_dict(whole | {name: wrong})
