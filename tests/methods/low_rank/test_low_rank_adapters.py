"""Low-rank adapters: the product in NumPy, changes of low rank that are learned, and a base that nothing moves."""

import copy

import numpy as np
import pytest
import torch
from headers import altered
from torch import nn

import compedu as ce
from compedu import files
from compedu.compression import compression_of
from compedu.deployment import deploy
from compedu.errors import CompressionError
from compedu.forms import ActivationQuantizer, Adapted, BlockFloats, Geometry, Quantized
from compedu.forms.adapted import adapter_pair
from compedu.methods import LowRankAdapters
from compedu.metrics import costs
from compedu.testing.networks import Odd, data, lively, normalized, plain
from compedu.testing.trying import logits


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def adapted(geometry: Geometry, rank: int, base: nn.Module | None = None, alpha: float = 2.0) -> Adapted:
    base = geometry.layer(random(*geometry.shape), random(geometry.shape[0], seed=1)) if base is None else base
    pair = (one.layer(random(*one.shape, seed=2), None) for one in adapter_pair(geometry, rank))
    return Adapted(geometry, base, *pair, alpha)


def frozen_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if ".base." in name}


def assert_same_base(model: nn.Module, before: dict[str, torch.Tensor]) -> None:
    after = frozen_tensors(model)
    assert before and after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_weight_is_the_base_plus_the_scaled_product():
    form = adapted(Geometry("linear", (6, 9)), 3, alpha=2.5)
    a = form.down.weight.detach().numpy()
    b = form.up.weight.detach().numpy()
    wanted = form.base.weight.detach().numpy() + 2.5 / 3 * b @ a
    np.testing.assert_allclose(form.dense().detach().numpy(), wanted, rtol=1e-12)


def test_the_kernel_of_a_convolution_is_the_sum_over_the_channels_between():
    geometry = Geometry("conv2d", (4, 3, 3, 2), (2, 1), (1, 0), (1, 2))
    form = adapted(geometry, 2, alpha=1.0)
    wanted = form.base.weight.detach().numpy().copy()
    up = form.up.weight.detach().numpy()
    for out in range(4):
        for channel in range(3):
            for between in range(2):
                kernel = form.down.weight.detach().numpy()[between, channel]
                wanted[out, channel] += up[out, between, 0, 0] * kernel / 2
    np.testing.assert_allclose(form.dense().detach().numpy(), wanted, rtol=1e-12)
    x = random(2, 3, 9, 8)
    torch.testing.assert_close(form(x), geometry.apply(x, torch.from_numpy(wanted), form.bias), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", [plain, normalized])
@pytest.mark.parametrize("bits", [2, 4])
def test_before_training_the_network_is_the_quantized_one(make, bits):
    quantized = ce.LinearQuantization(bits=bits, clipping="mse")(make())
    made = LowRankAdapters(bits=bits, epochs=0)(make())
    assert torch.equal(logits(made), logits(quantized))
    assert all(not form.up.weight.any() and form.down.weight.any() for form in forms(made).values())


def forms(model: nn.Module) -> dict[str, Adapted]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Adapted)}


def learned(form: Adapted, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The weight after minimizing the mean squared error on `x`, `y`, the adapters alone."""
    nn.init.zeros_(form.up.weight)
    trained = [p for p in form.parameters() if p.requires_grad]
    assert len(trained) == 2
    optimizer = torch.optim.LBFGS(trained, max_iter=2000, tolerance_grad=1e-12, tolerance_change=1e-15,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def closure():
        optimizer.zero_grad()
        loss = (form(x) - y).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return form.dense().detach()


def test_a_planted_change_of_low_rank_is_learned_at_its_rank_and_not_below():
    geometry = Geometry("linear", (8, 12))
    scale = torch.tensor(0.4, dtype=torch.float64)
    base = Quantized(geometry, random(8, 12), scale, 3, random(8, seed=1))
    target = base.dense().detach() + random(8, 2, seed=4) @ random(2, 12, seed=5)
    x = random(200, 12, seed=6)
    y = geometry.apply(x, target, base.bias).detach()
    errors = [float((learned(adapted(geometry, rank, base), x, y) - target).norm()) for rank in (1, 2)]
    assert errors[1] < 1e-4 and errors[0] > 1


def test_at_full_rank_a_linear_regression_reaches_the_least_squares_solution():
    geometry = Geometry("linear", (3, 5))
    base = geometry.layer(random(3, 5), None)
    x = random(60, 5, seed=7)
    y = random(60, 3, seed=8)
    wanted = np.linalg.lstsq(x.numpy(), y.numpy(), rcond=None)[0].T
    np.testing.assert_allclose(learned(adapted(geometry, 3, base), x, y).numpy(), wanted, atol=1e-5)


@pytest.fixture(scope="module")
def trained():
    model, digits = ce.load("lenet5", "digits")
    digits = digits.shortened(train=640, validation=200, test=10)
    return model, digits, LowRankAdapters(bits=3, rank=2, epochs=1)(model, digits)


def test_training_moves_the_adapters_and_nothing_else(trained):
    model, _, small = trained
    start = LowRankAdapters(bits=3, rank=2, epochs=0)(model)
    assert_same_base(small, frozen_tensors(start))
    for name, form in forms(small).items():
        assert form.up.weight.any() and not torch.equal(form.down.weight, forms(start)[name].down.weight)
    assert {name for name, p in small.named_parameters() if not p.requires_grad} == {
        name for name, _ in small.named_parameters() if ".base." in name
    }


def test_batch_norms_and_layers_that_are_skipped_stay_and_can_be_trained_again():
    model = lively(Odd())
    before = copy.deepcopy(model.state_dict())
    small = LowRankAdapters(epochs=1, layers="-head")(model, data())
    after = small.state_dict()
    same = [name for name in before if name in after and name != "up.weight"]
    assert "grouped.weight" in same and "head.weight" in same and "gain" in same
    assert all(torch.equal(before[name], after[name]) for name in same)
    assert small.head.weight.requires_grad and small.gain.requires_grad and not small.fc.base.weight.requires_grad


@pytest.mark.parametrize("through", ["the network itself", "a file", "thawed by hand"])
def test_no_later_training_moves_the_base(trained, through):
    _, digits, small = trained
    before = frozen_tensors(small)
    if through == "a file":
        small = files.from_bytes(files.model_bytes(small))
    if through == "thawed by hand":
        small = copy.deepcopy(small).requires_grad_(True)
    tuned = ce.FineTune(epochs=1, lr=1e-2)(small, digits)
    name, form = next(iter(forms(tuned).items()))
    assert not torch.equal(form.up.weight, forms(small)[name].up.weight)
    if through != "a file":
        assert_same_base(tuned, before)
    codes = {name: form.base.codes() for name, form in forms(trained[2]).items()}
    assert all(torch.equal(form.base.codes(), codes[name]) for name, form in forms(tuned).items())
    assert all(torch.equal(form.bias, forms(trained[2])[name].bias) for name, form in forms(tuned).items())


def test_a_base_that_is_thawed_while_training_runs_is_frozen_again():
    form = adapted(Geometry("linear", (3, 4)), 2)
    form.requires_grad_(True)
    assert not any(p.requires_grad for p in form.train().base.parameters())


@pytest.mark.parametrize(
    "first",
    [ce.LinearQuantization(grid="affine"), ce.BlockFormats(block=16), ce.LearnedStepQuantization(bits=2)],
)
def test_layers_that_are_quantized_keep_their_codes(first, trained):
    model, digits, _ = trained
    quantized = first(model, digits)
    made = LowRankAdapters(bits=8, epochs=0)(quantized)
    assert torch.equal(made(digits.x_test), quantized(digits.x_test))
    for name, form in forms(made).items():
        before = quantized.get_submodule(name)
        assert type(form.base) is type(before) and isinstance(before, (Quantized, BlockFloats))
        assert torch.equal(form.base.codes(), before.codes())
    tuned = ce.FineTune(epochs=1)(LowRankAdapters(epochs=1)(quantized, digits), digits)
    for name, form in forms(tuned).items():
        assert torch.equal(form.base.codes(), quantized.get_submodule(name).codes())


def test_rounded_inputs_reach_base_and_adapters(trained):
    model, digits, _ = trained
    quantized = ce.LinearQuantization(bits=4, activation_bits=4)(model, digits)
    made = LowRankAdapters(epochs=1)(quantized, digits)
    for name, form in forms(made).items():
        assert torch.equal(form.act.scale, quantized.get_submodule(name).act.scale)
        assert isinstance(form.base.act, nn.Identity)
    again = files.from_bytes(files.model_bytes(made))
    assert torch.equal(again(digits.x_test), made(digits.x_test))
    deployed = deploy(made, digits.example)
    assert deployed.kernels["fc1"] == "float32 dense, decoded from Adapted, inputs rounded in float32"
    torch.testing.assert_close(deployed(digits.x_test), made(digits.x_test), rtol=1e-3, atol=1e-3)


def test_a_deployed_network_has_the_change_merged_into_its_weight(trained):
    _, digits, small = trained
    deployed = deploy(small, digits.example)
    assert {deployed.kernels[name] for name in forms(small)} == {"float32 dense, decoded from Adapted"}
    layer = deployed.body.get_submodule("fc1")
    assert type(layer) is nn.Linear and torch.equal(layer.weight, small.fc1.dense())
    torch.testing.assert_close(deployed(digits.x_test), small(digits.x_test), rtol=1e-3, atol=1e-4)


def test_a_file_holds_the_codes_and_the_adapters(trained):
    model, _, small = trained
    rounded = len(files.model_bytes(ce.LinearQuantization(bits=3, clipping="mse")(model)))
    numbers = sum(form.down.weight.numel() + form.up.weight.numel() for form in forms(small).values())
    assert 0 < len(files.model_bytes(small)) - rounded - 4 * numbers < 250
    out, inside = model.fc1.weight.shape
    assert forms(small)["fc1"].down.weight.numel() + forms(small)["fc1"].up.weight.numel() == 2 * (out + inside)
    form = small.fc1
    assert form.free_numbers() == model.fc1.weight.numel() + 2 * (out + inside) and (form.rank, form.ranks) == (2, None)
    assert costs.parameters(small)["fc1"] == form.free_numbers() + out


def test_multiply_accumulates_are_those_of_base_and_adapters():
    images = data()
    model = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.Flatten(), nn.Linear(8 * 13 * 13, 10)).eval()
    made = LowRankAdapters(rank=2, epochs=0)(model)
    found = costs.macs(made, images).layers
    assert found == {"0": 169 * (72 + 2 * 9 + 8 * 2), "2": 13520 + 2 * (1352 + 10)}


@pytest.mark.parametrize("new", [0.0, -1.0, float("inf"), float("nan"), 8, None, "8"], ids=str)
def test_a_file_with_another_alpha_is_refused(new, trained):
    with pytest.raises(CompressionError, match="cannot be rebuilt|alpha|contradicts"):
        files.from_bytes(altered(trained[2], ("alpha", 8.0), ("alpha", new)))


def test_the_error_about_an_alpha_says_which_are_allowed():
    with pytest.raises(ValueError, match=r"an alpha of 0\.0; allowed are finite floats above 0"):
        Adapted.check_declared(Geometry("linear", (6, 9)), {"alpha": 0.0}, {})


def test_a_file_without_one_of_the_parts_is_refused(trained):
    with pytest.raises(CompressionError, match="fc1"):
        files.from_bytes(altered(trained[2], "fc1.up", "fc1.upper"))


def test_a_file_whose_parts_do_not_fit_is_refused():
    geometry = Geometry("linear", (6, 9))
    model = nn.Sequential(nn.Linear(9, 6)).eval()
    form = adapted(geometry, 2)
    form.up.bias = nn.Parameter(random(6))
    with pytest.raises(CompressionError, match="'0' lacks 3 layers that stand for it: down or up has a bias"):
        files.from_bytes(files.model_bytes(nn.Sequential(form)), into=model)
    form = adapted(geometry, 2)
    form.base = nn.Linear(9, 5).double()
    with pytest.raises(CompressionError, match="0.*the base is"):
        files.from_bytes(files.model_bytes(nn.Sequential(form)), into=model)


def test_parts_that_do_not_make_one_layer_are_refused_by_name():
    geometry = Geometry("linear", (6, 9))
    base, down, up = nn.Linear(9, 6), nn.Linear(9, 2, bias=False), nn.Linear(2, 6, bias=False)
    assert Adapted(geometry, base, down, up, 1.0).rank == 2
    for wrong in ((nn.Linear(9, 5), down, up), (base, nn.Linear(9, 2), up), (base, up, down), (base, down, base)):
        with pytest.raises(CompressionError, match="these parts do not stand for one layer"):
            Adapted(geometry, *wrong, 1.0)
    rounding = Quantized(geometry, base.weight, torch.tensor(0.1), 4, base.bias)
    rounding.act = ActivationQuantizer.for_range(0.0, 1.0)
    with pytest.raises(CompressionError, match="Quantized scales its outputs or rounds its inputs"):
        Adapted(geometry, rounding, down, up, 1.0)


def test_layers_that_get_no_adapters_are_named():
    made = LowRankAdapters(rank=9, epochs=0)(lively(Odd()))
    reasons = {skip.layer: skip.reason for skip in compression_of(made).skipped}
    assert "convolution in 2 groups; adapters would mix them" in reasons["grouped"]
    assert reasons["stem"] == "rank 9 is above its full rank; choose at most rank 8"
    assert forms(made).keys() == {"head"}
    with pytest.raises(CompressionError, match=r"is already compressed \(Adapted\)"):
        LowRankAdapters(epochs=0)(LowRankAdapters(epochs=0)(plain()))
    with pytest.raises(CompressionError, match=r"is already compressed \(Masked\)"):
        LowRankAdapters(epochs=0)(ce.MagnitudePruning()(plain()))
    with pytest.raises(CompressionError, match=r"is already compressed \(Adapted\)"):
        ce.TruncatedSVD(layers="all")(LowRankAdapters(epochs=0)(plain()))


def test_each_layer_can_have_a_rank_of_its_own():
    made = LowRankAdapters(rank={"fc*": 5, "*": 2}, epochs=0)(plain())
    assert {name: form.rank for name, form in forms(made).items()} == {"conv1": 2, "conv2": 2, "fc1": 5, "fc2": 5}
