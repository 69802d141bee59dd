"""What `deploy` makes: the same network, folded, chained in integers where its layers are coded, each kernel named."""

import contextlib
import copy
import math
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compedu.deployment import deploy
from compedu.deployment.integer_chain import Clip, IntegerChain, MaxPool, Multiply, Quantize, runner
from compedu.deployment.kernels import csr, int8
from compedu.deployment.kernels.simulated import Simulated
from compedu.errors import CompressionError
from compedu.files import save
from compedu.forms import (
    ActivationQuantizer,
    BlockCirculant,
    CReLUFilters,
    Factored,
    Form,
    Geometry,
    Masked,
    Quantized,
)
from compedu.graph import fold_batch_norm
from compedu.networks.lenet5 import lenet5
from compedu.networks.lenet300 import lenet300
from compedu.networks.resnet import resnet
from compedu.networks.vgg import vgg

NATIVE = int8.available().name == int8.NAME
ENGINE = (int8.OneDNN() if NATIVE else Simulated()).name
NETWORKS = {
    "lenet300": lambda: lenet300(size=16),
    "lenet5": lambda: lenet5(size=16),
    "vgg": lambda: vgg(size=16, width=0.25),
    "resnet": lambda: resnet(size=16, width=0.5, blocks=2),
}


def images(count: int = 6, channels: int = 1, size: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def lively(model: nn.Module, seed: int = 1) -> nn.Module:
    """Return the network in evaluation mode with weights and batch norms that do something, from one seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model.modules():
            if type(layer) in (nn.Conv2d, nn.Linear):
                fan_in = layer.weight[0].numel()
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
                if layer.bias is not None:
                    layer.bias.copy_(torch.randn(len(layer.bias), generator=generator) * 0.1)
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.copy_(torch.randn(layer.num_features, generator=generator) * 0.2)
                layer.running_var.copy_(torch.rand(layer.num_features, generator=generator) + 0.5)
                layer.weight.copy_(torch.rand(layer.num_features, generator=generator) + 0.5)
    return model.eval()


def quantized(model: nn.Module, *inputs: torch.Tensor, bits: int = 8, act_bits: int = 8, keep: tuple = ()) -> nn.Module:
    """Return a copy with coded layers, calibrated on `inputs`; the layers named in `keep` stay as they are."""
    model, ranges = copy.deepcopy(model).eval(), {}
    with contextlib.suppress(ValueError):  # a network that cannot be traced keeps its batch norms
        model = fold_batch_norm(model)
    plain = {name: layer for name, layer in model.named_modules() if type(layer) in (nn.Conv2d, nn.Linear)}
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: ranges.update({name: args[0].aminmax()}))
        for name, layer in plain.items()
    ]
    with torch.no_grad():
        model(*inputs)
    for hook in hooks:
        hook.remove()
    for name in ranges.keys() - set(keep):
        geometry, top = Geometry.of(plain[name]), max(2 ** (bits - 1) - 1, 1)
        scale = plain[name].weight.detach().flatten(1).abs().amax(1).view(geometry.per_output) / top
        coded = Quantized(geometry, plain[name].weight, scale, bits, plain[name].bias)
        coded.act = ActivationQuantizer.for_range(*map(float, ranges[name]), act_bits)
        model.set_submodule(name, coded)
    return model.eval()


def plain_output(model: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(*inputs)


def relative_error(y: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((y - wanted).norm() / wanted.norm()).item()


def assert_chain_equals_twin(chain: IntegerChain, *inputs: torch.Tensor) -> None:
    """Assert for every step that native and exact arithmetic turn the same input into the same output."""
    twin, plan = Simulated(torch.float64), chain.plan
    registers = dict(zip(plan.inputs, inputs, strict=True))
    with torch.no_grad():
        for step in plan.steps:
            tensors = [registers[source] for source in step.sources]
            wanted = runner(step, twin)(*[t.clone() if isinstance(t, torch.Tensor) else t for t in tensors])
            registers[step.target] = runner(step, chain.engine)(*tensors)
            if isinstance(wanted, torch.Tensor) and wanted.dtype == torch.uint8:
                distance = (registers[step.target].int() - wanted.int()).abs()
                assert distance.max() <= 1 and distance.sum() <= 1e-4 * wanted.numel(), step.name
            elif isinstance(wanted, torch.Tensor):
                torch.testing.assert_close(registers[step.target], wanted, rtol=1e-5, atol=1e-5)


def net(forward, **layers: nn.Module) -> nn.Module:
    """Return a network of the given layers and forward."""
    model = type("Net", (nn.Module,), {"forward": forward})()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


def conv(inside: int = 8, out: int = 8, size: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(inside, out, size, padding=size // 2, **options)


def check_chain(model: nn.Module, *inputs: torch.Tensor, tolerance: float = 0.03, **options):
    """Deploy the quantized network; compare with its twin step by step and with the float network; return it."""
    model = lively(model)
    wanted = plain_output(model, *inputs)
    deployed = deploy(quantized(model, *inputs, **options))
    assert_chain_equals_twin(deployed.body, *[deployed.prepared(x) for x in inputs])
    assert relative_error(deployed(*inputs), wanted) < tolerance
    return deployed


def kinds(deployed) -> list[type]:
    return [type(step) for step in deployed.plan.steps]


# --- networks in float32 ---


@pytest.mark.parametrize("name", NETWORKS)
def test_a_deployed_network_computes_what_the_network_computes(name):
    model, x = lively(NETWORKS[name]()), images()
    torch.testing.assert_close(deploy(model)(x), plain_output(model, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_model_is_untouched(name):
    model = NETWORKS[name]().train()
    before, modules = copy.deepcopy(model.state_dict()), list(model.modules())
    deploy(model, images())
    assert model.training and list(model.modules()) == modules
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_batch_normalization_is_folded_away():
    deployed = deploy(lively(vgg(size=16, width=0.25)))
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in deployed.modules())
    assert set(deployed.kernels.values()) == {"float32 dense"} and "features.norm1_1" not in deployed.kernels


def test_batch_normalization_that_cannot_be_folded_is_named():
    model = lively(net(lambda self, x: self.conv(self.norm(x)), norm=nn.BatchNorm2d(1), conv=conv(1, 4)))
    deployed, x = deploy(model), images()
    assert deployed.kernels == {"norm": "float32 normalization, not folded", "conv": "float32 dense"}
    torch.testing.assert_close(deployed(x), plain_output(model, x), rtol=1e-5, atol=1e-5)


def test_networks_with_convolutions_run_channels_last():
    assert deploy(lenet5(size=16)).channels_last
    assert not deploy(lenet300(size=16)).channels_last
    deployed = deploy(vgg(size=16, width=0.25))
    weight = deployed.body.get_submodule("features.conv1_2").weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def test_weights_that_have_both_orders_at_once_get_the_strides_of_channels_last():
    layers = conv(1), conv(8, 6), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 4, 1)
    deployed = deploy(nn.Sequential(*layers))
    for place, layer in enumerate(layers):
        weight = deployed.body.get_submodule(str(place)).weight
        assert torch.equal(weight, layer.weight)
        assert weight.stride() == torch.empty(weight.shape).to(memory_format=torch.channels_last).stride()


def test_a_view_that_channels_last_tensors_do_not_allow_still_works():
    layers = {"conv": conv(1, 4), "fc": nn.Linear(1024, 5)}
    model = lively(net(lambda self, x: self.fc(self.conv(x).view(x.size(0), -1)), **layers))
    torch.testing.assert_close(deploy(model)(images()), plain_output(model, images()), rtol=1e-4, atol=1e-4)


def test_no_gradient_and_no_training():
    deployed = deploy(lenet5(size=16))
    assert not deployed(images()).requires_grad and not deployed.training
    assert not any(parameter.requires_grad for parameter in deployed.parameters())
    with pytest.raises(ValueError, match="does not train"):
        deployed.train()
    assert deployed.eval() is deployed


def test_the_input_is_not_written_to():
    layers = {"relu": nn.ReLU(inplace=True), "fc": nn.Linear(256, 3)}
    model = net(lambda self, x: self.fc(F.relu_(self.relu(x + 0)).flatten(1)), **layers)
    x = images()
    before = x.clone()
    deploy(model)(x)
    deploy(quantized(model, x))(x)
    assert torch.equal(x, before)


def test_an_example_that_does_not_fit_shows_at_once():
    with pytest.raises(RuntimeError):
        deploy(lenet5(size=16), images(size=28))
    with pytest.raises(RuntimeError):
        deploy(quantized(lively(lenet5(size=16)), images()), images(channels=3))


def test_a_network_in_double_precision_is_deployed_in_single_precision():
    model, x = lively(lenet5(size=16)).double(), images().double()
    deployed = deploy(model)
    assert deployed(x).dtype == torch.float32
    torch.testing.assert_close(deployed(x).double(), plain_output(model, x), rtol=1e-4, atol=1e-4)


# --- forms in float32 ---


def random(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def masked(out: int, inside: int, density: float) -> Masked:
    weight = random(out, inside)
    keep = torch.rand(out, inside, generator=torch.Generator().manual_seed(3)) < density
    return Masked(Geometry("linear", (out, inside)), weight, keep, random(out))


def float_forms() -> dict[str, tuple[Form, str]]:
    convolution = Geometry("conv2d", (8, 4, 3, 3), padding=(1, 1))
    factored = Factored(Geometry("linear", (12, 20)), nn.Linear(20, 3, bias=False), nn.Linear(3, 12))
    return {
        "sparse": (masked(512, 1024, 0.08), csr.NAME),
        "too dense": (masked(512, 1024, 0.12), "float32 dense, zeros multiplied as well"),
        "too small": (masked(10, 64, 0.01), "float32 dense, zeros multiplied as well"),
        "masked conv": (
            Masked(convolution, random(8, 4, 3, 3), random(8, 4, 3, 3, seed=4) > 0, None),
            "float32 dense, zeros multiplied as well",
        ),
        "decoded": (
            Quantized(convolution, random(8, 4, 3, 3), torch.tensor(0.4), 4, random(8)),
            "float32 dense, 4-bit weights decoded to float32",
        ),
        "circulant": (BlockCirculant(convolution, random(2, 9, 4), random(8), flips=3), "float32 FFT"),
        "factored": (factored, "two layers in sequence"),
        "crelu": (CReLUFilters(convolution, random(4, 4, 3, 3), random(4)), "float32 dense, base filters once"),
    }


@pytest.mark.parametrize("name", float_forms())
def test_a_form_computes_the_same_and_its_kernel_is_named(name):
    form, kernel = float_forms()[name]
    inside = form.geometry.shape[1]
    x = random(5, inside) if form.geometry.kind == "linear" else random(5, inside, 9, 9)
    deployed = deploy(nn.Sequential(OrderedDict(layer=form, relu=nn.ReLU())))
    assert deployed.kernels["layer"] == kernel and deployed.notes == ()
    torch.testing.assert_close(deployed(x), plain_output(form, x).relu(), rtol=1e-4, atol=1e-4)


def test_a_single_layer_can_be_deployed():
    form, kernel = float_forms()["factored"]
    deployed, x = deploy(form), random(4, 20)
    assert deployed.kernels == {"0": kernel, "0.first": "float32 dense", "0.second": "float32 dense"}
    torch.testing.assert_close(deployed(x), plain_output(form, x))


def test_sparse_rows_hold_only_the_weights_that_are_left():
    form = masked(512, 1024, 0.04)
    layer = deploy(nn.Sequential(form)).body.get_submodule("0")
    assert layer.rows.values().numel() == int(form.mask.sum()) and layer.rows.layout == torch.sparse_csr


def test_crelu_multiplies_only_the_base_filters():
    form, _ = float_forms()["crelu"]
    layers = [layer for layer in deploy(nn.Sequential(form)).modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [4]


def test_forms_with_rounded_inputs_that_have_no_integer_kernel_say_so():
    form, _ = float_forms()["circulant"]
    form.act = ActivationQuantizer.for_range(-2.0, 2.0, 4)
    deployed, x = deploy(nn.Sequential(form)), random(2, 4, 9, 9)
    assert deployed.kernels == {"0": "float32 FFT, inputs rounded in float32"}
    torch.testing.assert_close(deployed(x), plain_output(form, x), rtol=1e-4, atol=1e-4)


# --- chains of integers ---


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_codes_of_a_chain_equal_exact_arithmetic(name, bits):
    model, x = quantized(lively(NETWORKS[name]()), images(), bits=bits, act_bits=bits), images()
    deployed = deploy(model)
    assert_chain_equals_twin(deployed.body, deployed.prepared(x))
    assert relative_error(deployed(x), IntegerChain(deployed.plan, Simulated(torch.float64))(x)) < 0.01


@pytest.mark.parametrize("name", NETWORKS)
def test_a_chain_computes_what_its_forms_compute(name):
    model, x = lively(NETWORKS[name]()), images()
    small = quantized(model, x)
    deployed = deploy(small)
    assert relative_error(deployed(x), plain_output(small, x)) < 0.02
    assert relative_error(deployed(x), plain_output(model, x)) < 0.05


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_bit_width_runs_on_integers_and_is_named(bits):
    model, x = quantized(lively(lenet5(size=16)), images(), bits=bits, act_bits=max(bits, 2)), images()
    deployed = deploy(model)
    held = f", {bits}-bit weights and {max(bits, 2)}-bit inputs held in 8 bits"
    assert set(deployed.kernels.values()) == {ENGINE + (held if bits < 8 else "")}
    assert_chain_equals_twin(deployed.body, deployed.prepared(x))
    assert relative_error(deployed(x), plain_output(model, x)) < 0.25  # a tie at few bits is a large step


def test_no_float_stands_between_the_layers_of_lenet5():
    deployed = deploy(quantized(lively(lenet5(size=16)), images()))
    assert deployed.plan.breaks == ()
    assert kinds(deployed).count(Quantize) == 1 and isinstance(deployed.plan.steps[0], Quantize)


def test_shortcuts_are_values_as_in_the_forms_and_added_inside_the_second_convolution():
    deployed = deploy(quantized(lively(resnet(size=16, width=0.5, blocks=2)), images()))
    assert deployed.plan.breaks == ("pool",)
    sums = {step.name: step.product for step in deployed.plan.steps if isinstance(step, Multiply) and step.product.adds}
    assert len(sums) == 6
    assert sums["stage1.0.conv2"].target is None and sums["stage1.0.conv2"].low == 0.0
    assert "stage1.0.conv2: conv2d with 8-bit weights + values + ReLU to values" in str(deployed.plan)


def test_an_addend_that_is_read_later_is_not_overwritten():
    def forward(self, x):
        x = self.first(x).relu()
        return self.last(torch.cat([(self.second(x) + x).relu(), x], 1))

    deployed = check_chain(net(forward, first=conv(1), second=conv(), last=conv(16, 4)), images())
    sums = [step for step in deployed.plan.steps if isinstance(step, Multiply) and step.product.adds]
    assert [step.keep_addend for step in sums] == [True]


def test_a_sum_that_is_broadcast_is_added_in_float():
    def forward(self, x):
        x = self.first(x).relu()
        return self.last((x + self.gate(F.adaptive_avg_pool2d(x, 1))).relu())

    deployed = check_chain(net(forward, first=conv(1), gate=conv(8, 8, 1), last=conv(8, 4)), images())
    assert any(isinstance(step, Multiply) and step.product.adds for step in deployed.plan.steps)


def test_a_sum_behind_a_linear_layer_is_added_in_float():
    def forward(self, x):
        return self.last((self.first(x) + x).relu())

    deployed = check_chain(net(forward, first=nn.Linear(16, 16), last=nn.Linear(16, 4)), images())
    assert "add" in deployed.plan.breaks


def test_concatenated_codes_stay_codes():
    def forward(self, x):
        x = self.first(x).relu()
        return self.last(torch.cat([self.left(x).relu(), self.right(x).relu()], dim=1))

    deployed = check_chain(net(forward, first=conv(1), left=conv(), right=conv(size=1), last=conv(16, 4)), images())
    assert deployed.plan.breaks == () and kinds(deployed).count(Quantize) == 1


def test_averages_are_taken_of_values_as_in_the_forms():
    def forward(self, x):
        x = self.first(x).relu()
        y = self.last(torch.cat([self.left(x), self.right(self.pool(x))], 1).relu())
        return self.fc(F.adaptive_avg_pool2d(y, (1, 1)).flatten(1))

    layers = {"first": conv(1), "left": conv(), "pool": nn.AvgPool2d(3, 1, 1), "right": conv(), "last": conv(16, 4)}
    deployed = check_chain(net(forward, **layers, fc=nn.Linear(4, 3)), images())
    assert deployed.plan.breaks == ("pool", "adaptive_avg_pool2d")


MAX_POOLS = [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1, ceil_mode=True), lambda x: F.max_pool2d(x, 2, stride=1)]


@pytest.mark.parametrize("pool", MAX_POOLS, ids=["2x2", "3x3", "function"])
def test_max_pooling_stays_on_codes(pool):
    layers = {"pool": pool} if isinstance(pool, nn.Module) else {}
    act = (lambda self, x: self.pool(x)) if layers else (lambda self, x: pool(x))
    layers |= {"first": conv(1), "second": conv(8, 4)}
    model = net(lambda self, x: self.second(act(self, self.first(x)).relu()), **layers)
    deployed = check_chain(model, images())
    assert kinds(deployed) == [Quantize, Multiply, MaxPool, Clip, Multiply]


RELUS = [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), F.relu, F.relu6, torch.relu]


@pytest.mark.parametrize("relu", RELUS, ids=lambda relu: getattr(relu, "__name__", str(relu)))
def test_a_relu_is_fused_with_the_layer_in_front(relu):
    layers = {"act": relu} if isinstance(relu, nn.Module) else {}
    act = (lambda self, x: self.act(x)) if layers else (lambda self, x: relu(x))
    model = net(lambda self, x: self.second(act(self, self.first(x))), first=conv(1), second=conv(8, 4), **layers)
    assert kinds(check_chain(model, images())) == [Quantize, Multiply, Multiply]


def test_values_below_zero_survive_where_only_one_reader_is_behind_a_relu():
    def forward(self, x):
        x = self.first(x)
        return self.second(x.relu()) + self.third(torch.sigmoid(x))

    deployed = check_chain(net(forward, first=conv(1), second=conv(8, 4), third=conv(8, 4)), images())
    assert "sigmoid" in deployed.plan.breaks


def test_two_readers_of_one_tensor_share_its_codes_unless_their_grids_differ():
    def forward(self, x):
        x = self.first(x).relu()
        return self.second(x) + self.third(x)

    model = quantized(lively(net(forward, first=conv(1), second=conv(8, 4), third=conv(8, 4))), images())
    assert kinds(deploy(model)).count(Quantize) == 1
    model.third.act = ActivationQuantizer.for_range(0.0, 4.0, 3)
    deployed, x = deploy(model), images()
    assert kinds(deployed).count(Quantize) == 3
    assert relative_error(deployed(x), plain_output(model, x)) < 0.06


def test_layers_left_out_break_the_chain_and_are_named():
    model, x = lively(vgg(size=16, width=0.25)), images()
    deployed = deploy(quantized(model, x, keep=("features.conv1_1", "features.conv3_1", "fc")))
    assert deployed.plan.breaks == (
        "features.conv1_1",
        "features.pool2",
        "features.conv3_1",
        "pool",
        "flatten",
        "fc",
    )
    assert deployed.kernels["features.conv3_1"] == "float32 dense"
    assert deployed.kernels["features.conv3_2"] == ENGINE
    assert_chain_equals_twin(deployed.body, deployed.prepared(x))
    assert relative_error(deployed(x), plain_output(model, x)) < 0.03


def test_functions_without_meaning_on_codes_run_in_float():
    def forward(self, x):
        x = torch.sigmoid(self.first(x)) * 2
        x, rest = self.second(x).chunk(2, 1)
        return self.third(x - rest).reshape(x.shape[0], -1)

    deployed = check_chain(net(forward, first=conv(1), second=conv(), third=conv(4, 4)), images())
    assert {"sigmoid", "mul", "chunk", "sub"} <= set(deployed.plan.breaks)
    assert "getattr_1" not in deployed.plan.breaks


def test_an_input_that_was_overwritten_is_seen_overwritten():
    def forward(self, x):
        x = self.first(x)
        y = self.silu(x)  # overwrites x
        return self.second(y) + self.third(x)

    layers = {"first": conv(1), "silu": nn.SiLU(inplace=True), "second": conv(8, 4), "third": conv(8, 4)}
    check_chain(net(forward, **layers), images())


def test_several_inputs_and_outputs_and_a_default():
    def forward(self, x, y, extra=None):
        return {"sum": self.first(x) + self.second(y), "parts": (self.first(x), x)}

    model, x, y = lively(net(forward, first=conv(1, 4), second=conv(1, 4))), images(), images(seed=5)
    deployed, wanted = deploy(quantized(model, x, y)), plain_output(model, x, y)
    got = deployed(x, y)
    assert relative_error(got["sum"], wanted["sum"]) < 0.03
    assert relative_error(got["parts"][0], wanted["parts"][0]) < 0.03 and torch.equal(got["parts"][1], x)


def test_constants_of_the_network_are_part_of_the_chain():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(1, 4)
            self.register_buffer("shift", torch.tensor(0.5))

        def forward(self, x):
            return self.conv(x - self.shift)

    check_chain(Shifted(), images())


def test_a_batch_of_one_gives_the_same_codes():
    deployed, x = deploy(quantized(lively(lenet5(size=16)), images())), images()
    torch.testing.assert_close(torch.cat([deployed(image[None]) for image in x]), deployed(x), rtol=1e-5, atol=1e-5)


def test_low_rank_layers_with_quantized_factors_are_chained():
    model = nn.Sequential(OrderedDict(flatten=nn.Flatten(), fc=nn.Linear(256, 30)))
    layer = Factored(Geometry("linear", (30, 256)), nn.Linear(256, 12, bias=False), nn.Linear(12, 30))
    model.fc = layer
    x = images()
    deployed = deploy(quantized(lively(model), x))
    assert deployed.kernels == {"fc": "two layers in sequence", "fc.first": ENGINE, "fc.second": ENGINE}
    assert relative_error(deployed(x), plain_output(model, x)) < 0.03


# --- forms and deployment mean the same network ---


def apart(model: nn.Module, *inputs: torch.Tensor, **options) -> float:
    """Return the largest difference between the quantized network and what it is deployed as, in spreads of outputs."""
    small = quantized(lively(model), *inputs, **options)
    wanted = plain_output(small, *inputs)
    return ((deploy(small)(*inputs) - wanted).abs().max() / wanted.std()).item()


def joined_with_its_source(self, x):
    a = self.a(x).relu()
    return self.fc(torch.cat([a, self.b(a)], 1).mean((2, 3)))


def joined_first_and_read_alone_later(self, x):
    a, b = self.a(x), 9 * self.b(x)
    return self.fc(torch.cat([a, b], 1).mean((2, 3))) + self.c(a).mean((2, 3))


def joined_then_cut(self, x):
    a = self.a(x)
    return self.fc(torch.cat([a, 7 * self.b(a), torch.full_like(a, 3.0)], 1)[:, 4:20].tanh().mean((2, 3)))


def cut_off_for_one_reader_only(self, x):
    a = self.a(x)
    return self.fc(a.flatten(1).relu()) + self.f2(a.mean((2, 3)))


def joined_then_pooled_for_one_reader_only(self, x):
    a = torch.cat([self.a(x), self.b(x)], 1)
    return self.fc(F.max_pool2d(a, 2).relu().flatten(1)) + self.f2(a.mean((2, 3)))


def excited(self, x):
    a = self.a(x).relu()
    return self.c(a * torch.sigmoid(self.b(F.adaptive_avg_pool2d(a, 1)))).mean((2, 3))


def dense_block(self, x):
    a = self.a(x)
    b = self.b(a.relu())
    return self.fc(torch.cat([a, b], 1).mean((2, 3))) + self.c(torch.cat([b, a], 1).relu()).mean((2, 3))


GRIDS = {
    joined_with_its_source: {"a": conv(1), "b": conv(), "fc": nn.Linear(16, 5)},
    joined_first_and_read_alone_later: {"a": conv(1), "b": conv(1), "c": conv(8, 5), "fc": nn.Linear(16, 5)},
    joined_then_cut: {"a": conv(1), "b": conv(), "fc": nn.Linear(16, 5)},
    cut_off_for_one_reader_only: {"a": conv(1), "fc": nn.Linear(2048, 5), "f2": nn.Linear(8, 5)},
    joined_then_pooled_for_one_reader_only: {
        "a": conv(1),
        "b": conv(1),
        "fc": nn.Linear(1024, 5),
        "f2": nn.Linear(16, 5),
    },
    excited: {"a": conv(1), "b": conv(size=1), "c": conv(8, 5)},
    dense_block: {"a": conv(1), "b": conv(), "c": conv(16, 5), "fc": nn.Linear(16, 5)},
}


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("forward", GRIDS, ids=lambda forward: forward.__name__)
def test_no_reader_sees_a_tensor_on_the_grid_of_another(forward, bits):
    assert apart(net(forward, **GRIDS[forward]), images(), bits=bits, act_bits=bits) < 0.02


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_residual_network_is_the_same_network_in_forms_and_deployed_at_every_width(bits):
    assert apart(resnet(size=16, width=0.5, blocks=2), images(), bits=bits, act_bits=bits) < 0.05


def pieces_and_the_whole(self, x):
    parts = self.a(x).split([3, 5], 1)
    return self.b(torch.cat([parts[1], parts[0]], 1)) + self.b(torch.cat(parts, 1))


def named_by_keyword(self, x):
    return torch.flatten(input=F.max_pool2d(input=F.relu(input=self.a(x)), kernel_size=2), start_dim=1)


def largest_with_places(self, x):
    y, _ = F.max_pool2d(self.a(x), 2, return_indices=True)
    return self.b(y) + self.b(self.a(x).flatten(2).max(2).values[..., None, None])


def tokens(self, x):
    return self.fc(self.a(x).permute(0, 2, 3, 1)).transpose(1, 3)


def a_number_added(self, x):
    return self.b(self.a(x)) + x.size(0)


def left_out(self, x, mask=None):
    return self.b(self.a(x)) if mask is None else self.b(mask)


@pytest.mark.parametrize(
    "forward",
    [
        pieces_and_the_whole,
        named_by_keyword,
        largest_with_places,
        tokens,
        a_number_added,
        left_out,
    ],
    ids=lambda forward: forward.__name__,
)
def test_the_graph_is_followed_as_it_is_written(forward):
    assert apart(net(forward, a=conv(1), b=conv(), fc=nn.Linear(8, 3)), IMAGES) < 0.02


def test_a_single_image_without_a_batch_is_taken_as_by_the_forms():
    pools = nn.MaxPool2d(2), nn.MaxPool2d(2)
    model = nn.Sequential(conv(1), nn.ReLU(), pools[0], conv(8, 4), conv(4, 32), pools[1], conv(32, 2))
    assert apart(model, IMAGES[0]) < 0.02


def test_a_layer_whose_sums_might_not_fit_in_32_bits_is_simulated_and_named():
    layer = Quantized(Geometry("linear", (4, 150_528)), torch.ones(4, 150_528), torch.tensor(1 / 127), 8, None)
    layer.act = ActivationQuantizer.for_range(0.0, 1.0)
    model, x = nn.Sequential(OrderedDict(wide=layer, relu=nn.ReLU())), torch.ones(2, 150_528)
    deployed = deploy(model)
    torch.testing.assert_close(deployed(x), torch.full((2, 4), 150_528.0), rtol=1e-6, atol=0)
    assert deployed.kernels == {"wide": "simulated int8, float64 arithmetic, as its sums might not fit in 32 bits"}


@pytest.mark.parametrize("keep", [(), ("a",), ("b",)], ids=["all", "b", "a"])
def test_inputs_that_are_not_numbers_are_refused_by_name(keep):
    model = net(lambda self, x: self.b(self.a(x)), a=conv(1), b=conv())
    model, x = quantized(lively(model), IMAGES, keep=keep), images()
    x[1, 0, 3, 3] = math.nan
    with pytest.raises(CompressionError, match="gives NaN, for which integers have no code"):
        deploy(model)(x)


def test_values_that_become_nan_inside_are_refused_and_infinite_ones_are_not():
    model = net(lambda self, x: self.b(torch.log(self.a(x) - 1e9)), a=conv(1), b=conv())
    deployed = deploy(quantized(lively(net(lambda self, x: self.b(self.a(x)), a=conv(1), b=conv())), IMAGES))
    x = images()
    x[0, 0, 0, 0], x[0, 0, 5, 5] = math.inf, -math.inf
    assert deployed(x).isfinite().all()
    small = quantized(lively(net(lambda self, x: self.b(self.a(x)), a=conv(1), b=conv())), IMAGES)
    model.a, model.b = small.a, small.b
    with pytest.raises(CompressionError, match="'log' gives NaN"):
        deploy(model)(IMAGES)


def doubled_through_a_view(self, x):
    y = self.a(x)
    y.view(len(IMAGES), -1).mul_(2)
    return self.b(y)


def half_overwritten(self, x):
    y = self.a(x)
    first, _ = y.chunk(2, 1)
    first.relu_()
    return self.b(y) + y


def half_added_to(self, x):
    y = self.a(x)
    first, _ = y.chunk(2, 1)
    first += 1
    return self.b(y)


def overwritten_under_two_names(self, x):
    y = self.a(x)
    z = y
    y += 1
    return self.b(z)


def relu_behind_a_slice(self, x):
    y = self.a(x)
    part = y[:, 2:6]
    y = F.relu(y, True)
    return self.b(torch.cat([part, y[:, 2:6]], 1))


IMAGES = images()


@pytest.mark.parametrize("keep", [(), ("a", "b")], ids=["integers", "float"])
@pytest.mark.parametrize(
    "forward, chained",
    [
        (doubled_through_a_view, False),
        (half_overwritten, False),
        (half_added_to, False),
        (overwritten_under_two_names, True),
        (relu_behind_a_slice, False),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_overwritten_through_another_name_is_seen_overwritten(forward, chained, keep):
    model = net(forward, a=conv(1), b=conv())
    assert apart(model, IMAGES, keep=keep) < 0.02
    notes = deploy(quantized(lively(model), IMAGES, keep=keep)).notes
    assert bool(notes) is not chained and (chained or "shares, which is read afterwards" in notes[-1])


class Untraceable(nn.Module):
    """A network whose forward depends on the data."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = conv(1), nn.BatchNorm2d(8), conv(8, 4)
        self.again = self.second

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        return self.second(x) if x.sum() > 0 else self.again(-x)


def test_a_network_that_cannot_be_traced_runs_layer_by_layer_and_says_so():
    model, x = lively(Untraceable()), images()
    float_only = deploy(model)
    assert torch.equal(float_only(x), plain_output(model, x)) and "cannot be traced" in float_only.notes[-1]
    small = quantized(model, x)
    small.again = small.second
    blind = deploy(small)  # nothing shows that the layers are called and not read
    assert "as Quantized" in blind.kernels["first"] and torch.equal(blind(x), plain_output(small, x))
    deployed = deploy(small, x)
    assert deployed.kernels == {
        "first": f"{ENGINE}, not chained",
        "norm": "float32 normalization, not folded",
        "second": f"{ENGINE}, not chained",
    }
    assert deployed.plan is None and isinstance(deployed.body.again, IntegerChain)
    assert relative_error(deployed(x), plain_output(model, x)) < 0.03


@pytest.mark.parametrize(
    "write, words",
    [
        (lambda y: torch._foreach_mul_([y], 2.0), "'_foreach_mul_' overwrites the tensors of a list"),
        (lambda y: torch._foreach_mul_([y.flatten(1)], 2.0), "overwrites the tensors of a list"),
        (lambda y: torch._foreach_add_((y,), (y,)), "overwrites the tensors of a list"),
        (lambda y: torch._foreach_add_(other=(y,), self=(y,)), "overwrites the tensors of a list"),
        (lambda y: torch.mul(y, 2.0, out=y), "'mul' writes into a tensor that it is given as `out`"),
        (lambda y: torch.ops.aten.mul_.Scalar(y.flatten(1), 2.0), "overwrites a tensor that 'a' shares"),
        (lambda y: torch.ops.aten.mul_.Scalar(y, 2.0), ""),
        (lambda y: F.threshold(threshold=0.1, value=0.0, input=y, inplace=True), ""),
    ],
)
def test_operations_that_overwrite_more_than_one_tensor_run_as_they_are_written(write, words):
    def forward(self, x):
        y = self.a(x)
        write(y)
        return self.fc(y.mean((2, 3)))

    model, x = lively(net(forward, a=conv(1, 4), fc=nn.Linear(4, 3))), images()
    deployed = deploy(model)
    assert [words in note for note in deployed.notes] == ([True] if words else [])
    torch.testing.assert_close(deployed(x), plain_output(model, x), rtol=1e-4, atol=1e-4)


def test_a_layer_that_never_runs_is_named_so():
    model = net(lambda self, x: self.used(x), used=conv(1, 4), spare=conv(1, 4))
    assert deploy(model).kernels == {"used": "float32 dense", "spare": "never runs at inference"}


def test_a_machine_without_the_instructions_simulates_and_says_so(monkeypatch):
    model, x = quantized(lively(lenet5(size=16)), images()), images()
    native = deploy(model)(x)
    monkeypatch.setattr(int8, "available", lambda: int8.Capability("simulated", "no VNNI here"))
    deployed = deploy(model)
    assert set(deployed.kernels.values()) == {"simulated int8, float32 arithmetic"}
    assert deployed.notes == ("integer layers are simulated: no VNNI here",)
    assert relative_error(deployed(x), native) < 0.01


def test_a_copy_of_a_deployed_network_computes_the_same():
    deployed, x = deploy(quantized(lively(lenet5(size=16)), images())), images()
    assert torch.equal(copy.deepcopy(deployed)(x), deployed(x))


# --- parameters beside layers, and layers inside of layers ---


def test_layers_of_a_network_with_parameters_of_its_own_run_as_they_would_without():
    layers = {"first": masked(512, 1024, 0.05), "second": masked(512, 512, 0.05), "norm": nn.BatchNorm1d(512)}
    model = net(lambda self, x: self.norm(self.second(self.first(x) * self.scale)), **layers)
    model.scale, model.spare = nn.Parameter(random(512)), nn.Parameter(random(3))
    deployed, x = deploy(model.eval()), random(4, 1024)
    assert deployed.kernels == {
        "": "float32, parameters of its own: scale",
        "first": csr.NAME,
        "second": csr.NAME,
        "norm": "float32 normalization, not folded",
    }
    torch.testing.assert_close(deployed(x), plain_output(model, x), rtol=1e-4, atol=1e-4)
    spare = net(lambda self, x: self.first(x), first=masked(512, 1024, 0.05))
    spare.scale = nn.Parameter(random(512))
    assert deploy(spare).kernels[""] == "never runs at inference"


def test_a_layer_beside_a_parameter_that_is_read_runs_only_if_it_is_called_or_read_itself():
    def inside(self, x):
        return F.linear(self.called(x), self.read.weight) * self.scale

    part = net(inside, called=nn.Linear(4, 3), read=nn.Linear(3, 2), spare=nn.Linear(3, 3))
    part.scale, part.unused = nn.Parameter(random(2)), nn.Parameter(random(2))
    model, x = net(lambda self, x: self.part(x), part=part).eval(), random(3, 4)
    deployed = deploy(model, x)
    assert deployed.kernels == {
        "part": "float32, parameters of its own: scale",
        "part.called": "float32 dense",
        "part.read": "float32 dense",
        "part.spare": "never runs at inference",
    }
    torch.testing.assert_close(deployed(x), plain_output(model, x))


def test_a_batch_norm_that_carries_an_activation_runs_where_nothing_folds_it():
    class Active(nn.BatchNorm2d):
        def __init__(self, channels):
            super().__init__(channels)
            self.act = nn.ReLU()

        def forward(self, x):
            return self.act(super().forward(x))

    model = lively(net(lambda self, x: self.a(self.norm(x)), norm=Active(1), a=conv(1, 4)))
    assert deploy(model).kernels == {"norm": "float32 normalization, not folded", "a": "float32 dense"}


def test_parts_of_attention_are_named_and_stay_layers_whose_weight_can_be_read():
    block = nn.TransformerEncoderLayer(512, 2, 512, batch_first=True).eval()
    block.linear1, block.linear2 = masked(512, 512, 0.05), masked(512, 512, 0.05)
    model = net(lambda self, x: self.block(x) + self.place, block=block)
    model.place = nn.Parameter(random(1, 1, 512))
    deployed, x = deploy(model.eval()), random(2, 5, 512)
    assert deployed.kernels == {
        "": "float32, parameters of its own: place",
        "block.self_attn": "float32 MultiheadAttention",
        "block.self_attn.out_proj": "float32 dense",
        "block.linear1": "float32 dense, from Masked",
        "block.linear2": "float32 dense, from Masked",
        "block.norm1": "float32 LayerNorm",
        "block.norm2": "float32 LayerNorm",
    }
    with torch.enable_grad():  # the reference runs the layers one by one
        torch.testing.assert_close(deployed(x), model(x).detach(), rtol=1e-4, atol=1e-4)


def test_tensors_of_five_dimensions_stay_beside_convolutions():
    model = net(lambda self, x: self.a(x).relu() * self.scale.mean((0, 1, 2)), a=conv(1, 4))
    model.scale = nn.Parameter(random(2, 2, 2, 1, 1))
    model.register_buffer("place", random(1, 2, 3, 4, 5))
    deployed, x = deploy(model.eval()), images()
    assert deployed.body.a.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(deployed(x), plain_output(model, x), rtol=1e-4, atol=1e-4)
    volume = net(lambda self, x: self.b(self.a(x)[:, None]).mean((2, 3, 4)), a=conv(1, 4), b=nn.Conv3d(1, 2, 3))
    torch.testing.assert_close(deploy(volume)(x), plain_output(volume, x), rtol=1e-4, atol=1e-4)


def test_a_deployed_network_is_not_saved(tmp_path):
    model = lively(lenet5(size=16))
    with pytest.raises(CompressionError):  # its tensors are of another memory format
        save(deploy(model), tmp_path / "file")
    integers = deploy(quantized(model, images()))
    for deployed in (integers, nn.Sequential(integers)):
        with pytest.raises(CompressionError, match="is a deployed network.*save the model from which it was made"):
            save(deployed, tmp_path / "file")
    assert not list(tmp_path.iterdir())
