"""Beside the network: companions, rates by pattern, other optimizers; the same bits after an interruption anywhere."""

import numpy as np
import pytest
import torch
from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.datasets.digits import digits
from compedu.errors import Cancelled, CompressionError
from compedu.reproducible import seeded
from compedu.training import SGD, SGLD, AdamW, Companion, Recipe, fit, listening

DATA = digits(size=8).shortened(train=70, validation=8, test=8)
RECIPE = Recipe(
    epochs=3, batch=32, shift=1, warm_up=0.3, weight_decay=0.1
)  # three steps an epoch, the last of 6 images
STEPS = 9
ADAMW = AdamW()
OPTIMIZERS = [ADAMW, AdamW(beta1=0.5), SGD(momentum=0.0), SGD(), SGD(nesterov=True), SGLD(), SGLD(temperature=0.0)]


def network():
    with seeded(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10))


class Beside(nn.Module):
    """A companion with parameters, a buffer that counts, and draws of its own."""

    def __init__(self):
        super().__init__()
        with seeded(1):
            self.head, self.dropout = nn.Linear(12, 10), nn.Dropout(0.2)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, maps):
        self.calls += 1
        return self.head(self.dropout(maps))


def loss_with(beside, average):
    """A loss that a companion has a part in; another one is a moving average of the network's first layer."""

    def loss(model, x, y):
        maps = model[:4](x)
        both = nn.functional.cross_entropy(model[4](maps), y) + nn.functional.cross_entropy(beside(maps), y)
        return both + 0.01 * (model[1].weight - average.weight).square().sum()

    return loss


def run(optimizer=ADAMW, own=None, path=None, stop=None):
    """Train, interrupted after step `stop`; return all that a training changes."""
    model, beside, average = network(), Beside(), network()[1].requires_grad_(False)
    companions = {"head": Companion(beside, lr=3e-3, weight_decay=0.0, optimizer=own), "average": Companion(average)}

    def follow(model, step):
        average.weight.lerp_(model[1].weight.detach(), 0.1)

    def listener(step):
        if step.done == stop:
            raise Cancelled

    given = {"optimizer": optimizer, "rates": {"1.*": 0.5, "4.bias": 10.0}, "companions": companions}
    with listening(listener):
        fit(model, DATA, RECIPE, loss=loss_with(beside, average), after_step=follow, resume=path, **given)
    assert not beside.training and not model.training
    return {
        **model.state_dict(),
        **{f"beside.{n}": v for n, v in {**beside.state_dict(), **average.state_dict()}.items()},
    }


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize("stop", [1, 2, 3, 4, 8, STEPS])  # in the rise, within an epoch, at its ends, after the last
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, optimizer, stop):
    straight = run(optimizer, own=SGD())
    with pytest.raises(Cancelled):
        run(optimizer, own=SGD(), path=tmp_path / "run", stop=stop)
    resumed = run(optimizer, own=SGD(), path=tmp_path / "run")
    assert straight.keys() == resumed.keys() and len(straight) == 11 + 3
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert int(resumed["beside.calls"]) == STEPS


def test_every_setting_counts():
    results = [run(optimizer) for optimizer in OPTIMIZERS] + [run(own=SGD())]
    weights = [tuple(result["1.weight"].flatten().tolist()) for result in results]
    assert weights[2] == weights[6]  # without heat Langevin dynamics are plain gradient descent
    assert len(set(weights)) == len(weights) - 1


def first_step(**settings):
    """By how much each parameter moves in a first step of length one."""
    model = network()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}

    def stop(step):
        raise Cancelled

    with pytest.raises(Cancelled), listening(stop):
        fit(model, DATA, Recipe(epochs=1, lr=1e-3, batch=70, warm_up=0, weight_decay=0), **settings)
    return {name: float((value.detach() - before[name]).abs().max()) for name, value in model.named_parameters()}


def test_the_first_pattern_that_fits_says_the_rate_of_a_parameter():
    moved = first_step(rates={"1.weight": 3.0, "1.*": 10.0, "*": 0.5})
    expected = {"1.weight": 3e-3, "1.bias": 1e-2, "2.weight": 5e-4, "2.bias": 5e-4, "4.weight": 5e-4, "4.bias": 5e-4}
    assert moved.pop("1.bias") < 1.1e-2 and expected.pop("1.bias")  # in front of a batch norm its gradient is noise
    assert moved == pytest.approx(expected, rel=1e-2)


def test_companions_follow_the_schedule_of_the_recipe_at_a_rate_of_their_own():
    pulled, moved = nn.Linear(1, 1, bias=False), []
    nn.init.zeros_(pulled.weight)

    def look(step):
        moved.append(pulled.weight.item())

    recipe = Recipe(epochs=4, batch=35, lr=1e-3, warm_up=0.5)
    companions = {"pulled": Companion(pulled, lr=0.5, weight_decay=0.0, optimizer=SGD(momentum=0.0))}
    with listening(look):
        fit(network(), DATA, recipe, penalty=lambda model: -pulled.weight.sum(), companions=companions)
    rates = [500 * recipe.rate(step, 8) for step in range(8)]
    np.testing.assert_allclose(moved, np.cumsum(rates), rtol=1e-5)


def test_a_network_that_is_frozen_lets_its_companion_train_alone():
    model, beside = network().requires_grad_(False), Beside()
    before = model[1].weight.clone()
    losses = fit(
        model, DATA, Recipe(epochs=12, lr=1e-2, batch=16), loss=lambda model, x, y: nn.functional.cross_entropy(
            beside(model[:4](x)), y
        ), companions={"head": Companion(beside)},
    )  # fmt: skip
    assert losses[-1] < 0.8 * losses[0] and torch.equal(model[1].weight, before)
    with pytest.raises(CompressionError, match="the network has no parameter that can be trained"):
        fit(model, DATA, RECIPE, companions={"head": Companion(beside.requires_grad_(False))})


# Optimizers against their formulas


def quadratic(curvature):
    """A training set of one image and a loss w^T H w / 2, whatever the image."""
    x, y = torch.zeros(8, 1, 2, 2), torch.zeros(8, dtype=torch.long)
    data = Dataset("none", *(part for _ in range(3) for part in (x, y)), classes=("0", "1"))
    return data, lambda model, x, y: 0.5 * (curvature * model.weight.square()).sum()


@pytest.mark.parametrize(
    "optimizer", [SGD(momentum=0.0), SGD(momentum=0.7), SGD(momentum=0.7, nesterov=True)], ids=repr
)
def test_momentum_and_decay_equal_the_recurrence_in_numpy(optimizer):
    data, loss = quadratic(torch.tensor([[1.0, 3.0]]))
    model, recipe = nn.Linear(2, 1, bias=False), Recipe(epochs=12, batch=8, lr=0.1, weight_decay=0.2)
    w, v = model.weight.detach().double().numpy().copy(), 0
    for step in range(12):
        g = (np.array([[1.0, 3.0]]) + 0.2) * w
        v = optimizer.momentum * v + g
        w = w - recipe.rate(step, 12) * (g + optimizer.momentum * v if optimizer.nesterov else v)
    fit(model, data, recipe, loss=loss, optimizer=optimizer)
    np.testing.assert_allclose(model.weight.detach().numpy(), w, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_langevin_dynamics_sample_from_the_posterior(temperature):
    """Of a quadratic loss it is Gaussian; chains of step size e have variance T / (N h) / (1 - e h / 2) exactly."""
    curvature, rate, decay, chains = torch.tensor([[1.0], [4.0]]), 0.1, 0.5, 20_000
    data, loss = quadratic(curvature)
    model = nn.Linear(chains, 2, bias=False)
    recipe = Recipe(epochs=80, batch=8, lr=rate, weight_decay=decay, warm_up=1.0)
    flat = Flat(**vars(recipe))
    fit(model, data, flat, loss=loss, optimizer=SGLD(temperature=temperature))
    found = model.weight.detach().double().var(1, correction=0).numpy()
    h = curvature.flatten().numpy() + decay
    np.testing.assert_allclose(found, temperature / (8 * h) / (1 - rate * h / 2), rtol=5 * (2 / chains) ** 0.5)


class Flat(Recipe):
    """A recipe of one learning rate, as chains have."""

    def rate(self, step, steps):
        return self.lr


# Refusals


def check_refusal(match, **settings):
    with pytest.raises(CompressionError, match=match):
        fit(network(), DATA, RECIPE, **settings)


def test_settings_that_cannot_be_meant_are_refused_by_name():
    check_refusal(
        r"fit: the optimizer must be one of AdamW\(...\), SGD\(...\), SGLD\(...\) of .*, got 'adam'", optimizer="adam"
    )
    check_refusal(r"rates: no trainable parameter matches '\*\.gate'; there are 1.weight", rates={"*.gate": 2.0})
    for factor in (0, -1.0, float("nan"), float("inf"), "fast", True):
        check_refusal(r"rates\['1.\*'\] must be a factor of the learning rate above 0, got", rates={"1.*": factor})
    check_refusal(
        r"companions\['head'\] must be a Companion\(module, ...\), got Linear", companions={"head": nn.Linear(1, 1)}
    )
    for name in ("a.b", "", "a/b", 3):
        check_refusal(r"companions: a name must be an identifier", companions={name: Companion(nn.Linear(1, 1))})
    shared = nn.Linear(2, 2)
    both = {"one": Companion(shared), "two": Companion(nn.Sequential(shared))}
    check_refusal(r"companions\['two'\]: its parameter 0.weight also belongs to companion 'one'", companions=both)


def test_a_part_of_the_network_is_no_companion():
    model = network()
    with pytest.raises(CompressionError, match=r"its parameter weight also belongs to the network and would .* rates="):
        fit(model, DATA, RECIPE, companions={"part": Companion(model[1])})


@pytest.mark.parametrize(("settings", "match"), [
    ({"module": "head"}, "Companion.module must be a torch module, got 'head'"),
    ({"lr": 0.0}, r"Companion.lr must be above 0, got 0\.0"),
    ({"lr": float("nan")}, "Companion.lr must be above 0, got nan"),
    ({"weight_decay": -1.0}, r"Companion.weight_decay must be at least 0, got -1\.0"),
    ({"optimizer": torch.optim.SGD}, "Companion: the optimizer must be one of AdamW"),
], ids=["module", "lr", "nan", "decay", "optimizer"])  # fmt: skip
def test_a_companion_says_what_is_wrong_with_it(settings, match):
    with pytest.raises(CompressionError, match=match):
        Companion(**{"module": nn.Linear(1, 1)} | settings)


@pytest.mark.parametrize(("cls", "settings", "match"), [
    (AdamW, {"beta1": 1.0}, r"AdamW.beta1 must be in \[0, 1\), got 1\.0"),
    (AdamW, {"beta2": -0.1}, r"AdamW.beta2 must be in \[0, 1\), got -0\.1"),
    (AdamW, {"eps": 0.0}, r"AdamW.eps must be above 0, got 0\.0"),
    (SGD, {"momentum": 1.0}, r"SGD.momentum must be in \[0, 1\), got 1\.0"),
    (SGD, {"momentum": 0.0, "nesterov": True}, r"SGD.nesterov must be False where momentum is 0, got True"),
    (SGLD, {"temperature": -1.0}, r"SGLD.temperature must be at least 0, got -1\.0"),
], ids=["beta1", "beta2", "eps", "momentum", "nesterov", "temperature"])  # fmt: skip
def test_an_optimizer_says_what_is_wrong_with_it(cls, settings, match):
    with pytest.raises(ValueError, match=match):
        cls(**settings)


def test_what_the_last_step_leaves_of_a_companion_as_no_number_is_named():
    broken = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(broken.weight)
    with pytest.raises(CompressionError, match=r"diverged at its last step: root/weight is not finite"):
        fit(
            network(), DATA, Recipe(epochs=1, batch=70), penalty=lambda model: broken.weight.abs().sqrt().sum(),
            companions={"root": Companion(broken)},
        )  # fmt: skip


class Counting(nn.Module):
    """Scales its input by how often it was called: a buffer of training that no state dict holds."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.calls += 1
        return x * (1 + 0.01 * self.calls)


def test_buffers_that_no_state_dict_holds_are_resumed_too(tmp_path):
    def train(path=None, stop=None):
        def listener(step):
            if step.done == stop:
                raise Cancelled

        model = nn.Sequential(Counting(), *network(), nn.Identity())
        model[-1].register_buffer("seen", model[0].calls, persistent=False)
        with listening(listener):
            fit(model, DATA, RECIPE, resume=path)
        return model

    straight = train()
    with pytest.raises(Cancelled):
        train(tmp_path / "run", stop=3)
    resumed = train(tmp_path / "run")
    assert int(resumed[0].calls) == int(straight[0].calls) == STEPS
    assert resumed[-1].seen is resumed[0].calls
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def test_a_rate_of_frozen_parameters_alone_is_refused():
    model = network()
    model[1].weight.requires_grad_(False)
    with pytest.raises(CompressionError, match="rates: no trainable parameter matches '1.weight'; there are 1.bias"):
        fit(model, DATA, RECIPE, rates={"1.weight": 2.0})
