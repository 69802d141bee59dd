"""Networks that cannot be used as they are: what is wrong is said in one sentence, by the name of the layer."""

from functools import partial

import pytest
import torch
from torch import nn

import compedu as ce
from compedu.datasets.digits import digits
from compedu.errors import CompressionError
from compedu.evaluation import evaluate
from compedu.methods.layers import selected
from compedu.networks import build
from compedu.reproducible import seeded
from compedu.training import Recipe, fit

DATA = digits(size=8).shortened(train=32, validation=16, test=8)


class Net(nn.Module):
    """A convolution and two linear layers."""

    def __init__(self):
        super().__init__()
        with seeded(0):
            self.conv, self.fc, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 16), nn.Linear(16, 10)

    def forward(self, x):
        return self.head(self.fc(self.conv(x).relu().flatten(1).to(self.fc.weight.dtype)).to(x.dtype).relu())


def on_meta():
    with torch.device("meta"):
        return Net()


def changed(change):
    model = Net()
    change(model)
    return model


UNUSABLE = {
    "conv.weight of Net has no values, because it is on the meta device": on_meta,
    "fc.weight of Net has no shape yet, because its lazy module": lambda: changed(
        lambda m: setattr(m, "fc", nn.LazyLinear(9))
    ),
    "table of Net holds torch.float8_e4m3fn": lambda: changed(
        lambda m: m.register_buffer("table", torch.zeros(4).to(torch.float8_e4m3fn))
    ),
    "table of Net holds torch.complex64": lambda: changed(
        lambda m: m.register_buffer("table", torch.zeros(4, dtype=torch.complex64))
    ),
    "table of Net is sparse": lambda: changed(lambda m: m.register_buffer("table", torch.eye(4).to_sparse())),
    "fc.weight of Net is torch.bfloat16, conv.weight torch.float32": lambda: changed(lambda m: m.fc.bfloat16()),
}
USES = {
    "magnitude": ce.MagnitudePruning(), "int8": ce.LinearQuantization(activation_bits=8),
    "filters": ce.FilterPruning(), "surgeon": ce.OptimalBrainSurgeon(calibration_images=8),
    "training": ce.FineTune(epochs=1), "measure": partial(ce.measure, speed=False),
    "deploy": lambda model, data: ce.deploy(model), "save": lambda model, data: ce.save(model, "never.ce"),
}  # fmt: skip


@pytest.mark.parametrize("use", USES.values(), ids=list(USES))
@pytest.mark.parametrize("words, make", UNUSABLE.items(), ids=list(UNUSABLE))
def test_tensors_that_cannot_be_computed_with_are_refused_by_name(words, make, use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CompressionError) as refusal:
        use(make().eval(), DATA)
    assert words in str(refusal.value) and not list(tmp_path.iterdir())


class Unusually(Net):
    """Gives its layers keywords, lists and numbers."""

    def __init__(self):
        super().__init__()
        self.mixed, self.norm = Mixed(), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.fc(input=self.norm(input=self.conv(input=x)).relu().flatten(1)).relu()
        return self.head(input=self.mixed([x, x], 0.5, shift=1))


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 16)

    def forward(self, parts, factor, shift):
        return self.inner(parts[0]) * factor + parts[1] + shift


METHODS = [
    ce.MagnitudePruning(), ce.LinearQuantization(activation_bits=8), ce.FilterPruning(criterion="taylor"),
    ce.OptimalBrainDamage(calibration_images=8), ce.OptimalBrainSurgeon(calibration_images=8), ce.FineTune(epochs=1),
    ce.BatchNormReestimation(calibration_images=8), ce.BlockCirculantProjection(),
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_layers_that_get_keywords_lists_and_numbers_are_handled(method):
    result = method(Unusually().eval(), DATA)
    report = ce.measure(result, DATA, speed=False)
    assert report.total == 16 and torch.isfinite(ce.deploy(result)(DATA.example)).all()


# Hooks


class Failing:
    """A hook that is an object."""

    def __call__(self, *given):
        raise RuntimeError("the recorder is full")


def fail(*given):
    raise RuntimeError("the recorder is full")


@pytest.mark.parametrize(
    "hook", [fail, Failing(), partial(fail, 1), Failing().__call__], ids=["function", "object", "partial", "method"]
)
@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("place", ["fc2", ""])
def test_an_error_in_a_hook_is_not_blamed_on_the_images(hook, kind, place):
    model = build("lenet300(size=8, width=0.05)")
    getattr(model.get_submodule(place), kind)(hook)
    said = rf"^a hook of {place or 'the network'} \(\w+\) raised RuntimeError: the recorder is full; fix or remove it"
    with pytest.raises(CompressionError, match=said):
        evaluate(model, DATA)
    with pytest.raises(CompressionError, match=said):
        fit(model, DATA, Recipe(epochs=1))


def test_an_error_behind_a_hook_is_not_blamed_on_it():
    model, seen = build("lenet300(size=10, width=0.05)"), []
    model.fc1.register_forward_pre_hook(lambda *given: seen.append(given))
    with pytest.raises(CompressionError, match="cannot take images of 'digits"):
        evaluate(model, DATA)
    assert seen


# Names


def test_layers_are_selected_by_any_name_they_have():
    names = ["conv,1", "conv 2", "block[0]", "b*", "fc"]
    layers = {name: nn.Linear(1, 1) for name in names}
    for name in names:
        assert name in selected(layers, f'"{name}"') and name not in selected(layers, f'-"{name}"')
    assert list(selected(layers, "block[0]")) == ["block[0]"] and list(selected(layers, "fc, block[0]")) == names[2::2]
    assert list(selected(layers, 'fc,"conv,1" "conv 2"')) == ["conv,1", "conv 2", "fc"]
    model = nn.Sequential()
    model.add_module("flatten", nn.Flatten())
    model.add_module("fc [a, b]", nn.Linear(64, 16))
    model.add_module("head", nn.Linear(16, 10))
    for given in ({"layers": '"fc [a, b]"'}, {"sparsity": {"fc [a, b]": 0.5, "*": 0.0}}):
        method = ce.MagnitudePruning(**given)
        assert not method(model.eval(), DATA).get_submodule("fc [a, b]").mask.all()
        assert eval(repr(method), {"MagnitudePruning": ce.MagnitudePruning}) == method
    with pytest.raises(
        CompressionError, match="no layer matches 'nosuch'; .* a comma or a space must be in double quotes"
    ):
        ce.MagnitudePruning(layers="nosuch")(model, DATA)


class Unsteady(Net):
    """A network whose forward pass changes the network; `last` is a buffer."""

    def __init__(self, change):
        super().__init__()
        self.register_buffer("last", torch.zeros(()))
        self.norm = nn.BatchNorm2d(1)
        self.change = change

    def forward(self, x):
        self.change(self, x)
        return super().forward(self.norm(x)) + self.last


def halves_a_weight(model, x):
    with torch.no_grad():
        model.fc.weight.mul_(0.5)


def puts_another_weight(model, x):
    model.fc.weight.data = model.fc.weight.data / 2


def keeps_an_average(model, x):
    model.last = 0.9 * model.last + 0.1 * x.mean()


def counts(model, x):
    model.last += 1


def trains(model, x):
    model.norm.train()


UNSTEADY = {
    halves_a_weight: "it writes into fc.weight", puts_another_weight: "it writes into fc.weight",
    trains: "it puts norm into training mode", keeps_an_average: "it answers differently for the same image",
    counts: "it answers differently for the same image",
}  # fmt: skip
RUNNING = {
    "measure": lambda model: ce.measure(model, DATA, speed=False),
    "brain damage": lambda model: ce.OptimalBrainDamage(calibration_images=8)(model, DATA),
    "fine-tuning": lambda model: ce.FineTune(epochs=1)(model, DATA),
}


@pytest.mark.parametrize("use", RUNNING)
@pytest.mark.parametrize("change", UNSTEADY, ids=lambda change: change.__name__)
def test_a_network_that_its_own_forward_pass_changes_is_refused_and_is_as_it_was(change, use):
    model = Unsteady(change).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CompressionError, match=f"changes with each forward pass: {UNSTEADY[change]}"):
        RUNNING[use](model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module.training for module in model.modules())


def test_what_a_pass_settles_or_keeps_beside_its_answers_is_no_obstacle():
    def renorm(model, x):
        model.last = torch.zeros(()) + 0
        model.seen = x
        model.fc.weight.data = torch.renorm(model.fc.weight.data, 2, 0, 0.1)

    model = Unsteady(renorm).eval()
    with pytest.raises(CompressionError, match="writes into fc.weight"):
        ce.measure(model, DATA, speed=False)
    with torch.no_grad():
        model(DATA.example)
    assert ce.measure(model, DATA, speed=False).total == 16


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_no_numbers_are_not_taken_for_a_change(value):
    model = Unsteady(lambda model, x: setattr(model, "last", torch.tensor(value))).eval()
    with pytest.raises(CompressionError, match="logits that are not finite"):
        ce.measure(model, DATA, speed=False)


def test_a_buffer_that_each_pass_changes_goes_on_changing_when_deployed():
    model = Unsteady(counts).eval()
    deployed = ce.deploy(model)
    assert "changes the buffer last" in " ".join(deployed.notes)
    first, again = deployed(DATA.example), deployed(DATA.example)
    torch.testing.assert_close(again - first, torch.ones_like(first))
    assert int(model.last) == 0
