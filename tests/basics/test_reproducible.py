"""Equal seeds, equal results: whatever draws in a network draws by the seed, and a saved training is what was saved."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load as tensors_of_bytes
from safetensors.torch import save as bytes_of_tensors
from torch import nn

import compedu as ce
from compedu import hashing
from compedu.datasets.digits import digits
from compedu.errors import Cancelled, CompressionError
from compedu.evaluation import evaluate
from compedu.layout import in_another_order
from compedu.networks import build
from compedu.reproducible import seeded, torch_threads
from compedu.torchvision_import import import_torchvision
from compedu.training import SGD, SGLD, AdamW, Companion, Recipe, fit, listening
from compedu.training.saved_state import save_training, saved_training

DATA = digits(size=8).shortened(train=64, validation=32, test=8)
RECIPE = Recipe(epochs=2, batch=16, seed=3)
OPS = import_torchvision().ops


class Noisy(nn.Module):
    """A small network with `noise` between its layers."""

    def __init__(self, noise):
        super().__init__()
        with seeded(1):
            self.conv, self.fc1, self.fc2 = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 16), nn.Linear(16, 10)
        self.noise = noise

    def forward(self, x):
        return self.fc2(self.fc1(self.noise(self, self.conv(x)).tanh().flatten(1)).relu())


def called(module):
    return lambda network, x: module.train(network.training)(x)


NOISES = {
    "functional dropout": lambda network, x: F.dropout(x, 0.5, network.training),
    "dropout module": called(nn.Dropout(0.5)),
    "rrelu": called(nn.RReLU()),
    "alpha dropout": lambda network, x: F.feature_alpha_dropout(x, 0.3, network.training),
    "stochastic depth": called(OPS.StochasticDepth(0.5, "row")),
    "drop block": called(OPS.DropBlock2d(0.3, 3)),
    "a draw of its own": lambda network, x: x + torch.randn_like(x) if network.training else x,
    "numpy": lambda network, x: x * np.random.uniform(0.5, 1.5) if network.training else x,
    "python": lambda network, x: x * random.uniform(0.5, 1.5) if network.training else x,
}  # fmt: skip
noises = pytest.mark.parametrize("noise", NOISES.values(), ids=list(NOISES))


def streams():
    """The states of the random streams, as strings."""
    return str(torch.random.get_rng_state().tolist()), str(np.random.get_state()), str(random.getstate())


@pytest.fixture
def anywhere():
    """Moves the random streams elsewhere, as other code does; they are restored after the test."""

    def move(seed):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)

    with seeded(0):
        yield move


def weights(model):
    return hashing.model_digest(model)


def test_a_seeded_block_draws_by_its_seed_and_leaves_the_streams_where_they_were(anywhere):
    def drawn(seed):
        with seeded(seed):
            return torch.rand(1).item(), np.random.rand(), random.random()

    before = streams()
    first = drawn(5)
    assert streams() == before
    anywhere(9)
    assert drawn(5) == first and drawn(2**40 + 5)[1:] != first[1:] and not set(drawn(6)) & set(first)
    with seeded(5):
        drawn(7)  # a block within a block
        assert (torch.rand(1).item(), np.random.rand(), random.random()) == first
    before = streams()
    with pytest.raises(KeyError), seeded(1):
        raise KeyError
    assert streams() == before


def test_the_number_of_threads_is_put_back_even_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


def in_a_new_thread(call):
    """What `call` returns in a Python thread of its own, which has torch's number of the process."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(call).result()


@pytest.fixture
def on_three_threads():
    """Sets torch's number for this thread and those to come."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("elsewhere", [1, 5])
def test_the_last_of_two_threads_to_leave_a_block_puts_the_number_back(elsewhere, on_three_threads):
    with ThreadPoolExecutor(1) as there:
        here, other = torch_threads(1), torch_threads(elsewhere)
        here.__enter__()
        there.submit(other.__enter__).result()
        assert (torch.get_num_threads(), there.submit(torch.get_num_threads).result()) == (1, elsewhere)
        here.__exit__(None, None, None)
        assert (torch.get_num_threads(), there.submit(torch.get_num_threads).result()) == (3, elsewhere)
        assert in_a_new_thread(torch.get_num_threads) == elsewhere  # which matrix products there look at, too
        there.submit(other.__exit__, None, None, None).result()
        assert there.submit(torch.get_num_threads).result() == 3
    assert torch.get_num_threads() == in_a_new_thread(torch.get_num_threads) == 3


@pytest.mark.parametrize("elsewhere", [1, 5])
def test_a_thread_that_leaves_its_block_first_changes_nothing_for_the_other(elsewhere, on_three_threads):
    with ThreadPoolExecutor(1) as there, torch_threads(1):
        other = torch_threads(elsewhere)
        there.submit(other.__enter__).result()
        there.submit(other.__exit__, None, None, None).result()
        assert in_a_new_thread(torch.get_num_threads) == torch.get_num_threads() == 1
    assert torch.get_num_threads() == in_a_new_thread(torch.get_num_threads) == 3


def test_blocks_within_blocks_put_back_what_each_of_them_found(on_three_threads):
    with torch_threads(1):
        with torch_threads(5), torch_threads(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == in_a_new_thread(torch.get_num_threads) == 1
    with pytest.raises(RuntimeError), torch_threads(0):
        raise AssertionError("there is no such number")
    assert torch.get_num_threads() == in_a_new_thread(torch.get_num_threads) == 3


# Training


@noises
def test_whatever_draws_in_training_draws_by_the_seed_so_that_runs_repeat_and_resume(noise, anywhere, tmp_path):
    def stop(step):
        if step.done == 3:
            raise Cancelled

    results = []
    for interrupted in (False, False, True):
        anywhere(len(results))
        model, before, path = Noisy(noise), streams(), tmp_path / str(len(results))
        if interrupted:
            with pytest.raises(Cancelled), listening(stop):
                fit(model, DATA, RECIPE, resume=path)
            anywhere(9)
            model, before = Noisy(noise), streams()
        fit(model, DATA, RECIPE, resume=path)
        assert streams() == before
        results.append(weights(model))
    assert results[0] == results[1] == results[2]
    quiet, other = Noisy(lambda network, x: x), Noisy(noise)
    fit(quiet, DATA, RECIPE)
    fit(other, DATA, replace(RECIPE, seed=4))
    assert len({results[0], weights(quiet), weights(other)}) == 3


METHODS = [
    ce.FineTune(epochs=1, batch=16), ce.GradualPruning(epochs=1, batch=16),
    ce.SoftTargetDistillation(epochs=1, batch=16, student="lenet300(size=8, width=0.1)"),
    ce.LinearQuantization(bits=8, activation_bits=8), ce.OptimalBrainDamage(calibration_images=16),
    ce.OptimalBrainSurgeon(calibration_images=16),
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_network_that_draws_even_in_evaluation_gives_one_result_for_one_key(method, anywhere):
    results = []
    for place in (1, 2):
        anywhere(place)
        model, before = Noisy(lambda network, x: F.dropout(x, 0.3)), streams()
        result = method(model, DATA)
        found = evaluate(result, DATA)
        assert streams() == before
        results.append((weights(result), found.loss, found.predictions.tolist()))
    assert results[0] == results[1]


# The order in memory


class Windows(nn.Module):
    """A network of three convolutions, one of them with a window of one pixel."""

    def __init__(self):
        super().__init__()
        with seeded(2):
            self.a, self.b = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 24, 1)
            self.c, self.fc = nn.Conv2d(24, 32, 3, padding=1), nn.Linear(32, 10)

    def forward(self, x):
        return self.fc(self.c(self.b(self.a(x).relu()).relu()).relu().mean((2, 3)))


ORDERED = [
    ce.LinearQuantization(bits=8), ce.LinearQuantization(layers="a"), ce.MagnitudePruning(layers="fc"),
    ce.FilterPruning(sparsity=0.5), ce.FineTune(epochs=1, batch=16),
]  # fmt: skip


@pytest.mark.parametrize("method", ORDERED, ids=repr)
def test_what_a_method_makes_of_a_network_channels_last_is_what_is_loaded_again(method, tmp_path):
    last = Windows().eval().to(memory_format=torch.channels_last)
    assert in_another_order(last) == ["a.weight", "b.weight", "c.weight"]
    result = method(last, DATA)
    ce.save(result, tmp_path / "m.ce")
    for into in (Windows(), Windows().to(memory_format=torch.channels_last)):
        loaded = ce.load_model(tmp_path / "m.ce", into=into)
        with torch.inference_mode():
            assert torch.equal(loaded(DATA.x_validation), result(DATA.x_validation))
    assert in_another_order(last) == ["a.weight", "b.weight", "c.weight"]


def test_a_network_channels_last_is_not_saved_as_another_one(tmp_path):
    network = Windows().eval().to(memory_format=torch.channels_last)
    with pytest.raises(CompressionError, match=r"a\.weight is not contiguous in memory, as channels-last tensors"):
        ce.save(network, tmp_path / "m.ce")
    assert not (tmp_path / "m.ce").exists() and ce.measure(network, DATA, speed=False).file_bytes > 0
    for tensor in network.parameters():
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    ce.save(network, tmp_path / "m.ce")
    loaded = ce.load_model(tmp_path / "m.ce", into=Windows())
    with torch.inference_mode():
        assert torch.equal(loaded(DATA.x_validation), network(DATA.x_validation))
    transposed = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    transposed[1].weight = nn.Parameter(torch.rand(64, 10).T)
    assert in_another_order(transposed) == ["1.weight"]


# Saved trainings


def saved(tmp_path):
    """A file with the state of a training, and how to go on from it."""
    path = tmp_path / "run.training"
    fit(build("lenet300(size=8, width=0.02)"), DATA, RECIPE, resume=path)

    def go_on(network="lenet300(size=8, width=0.02)", data=DATA, recipe=RECIPE, **settings):
        model = network if isinstance(network, nn.Module) else build(network)
        return fit(model, data, recipe, resume=path, **settings)

    return path, go_on


def test_a_state_of_another_training_is_refused_by_name(tmp_path, monkeypatch):
    _path, go_on = saved(tmp_path)
    assert len(go_on()) == 2
    x, tanh = DATA.x_train.clone(), build("lenet300(size=8, width=0.02)")
    x[-1, 0, 0, 0] += 1
    tanh.relu1 = nn.Tanh()
    others = {
        "network": ({"network": "lenet300(size=8, width=0.03)"}, {"network": tanh}),
        "recipe": ({"recipe": replace(RECIPE, lr=1e-4)},),
        "data set": ({"data": replace(DATA, x_train=x)},),
        "optimizer": ({"optimizer": SGD()}, {"optimizer": AdamW(beta1=0.8)}, {"optimizer": SGLD()}),
        "rates": ({"rates": {"fc1*": 2.0}},),
        "companion 'prior'": ({"companions": {"prior": Companion(nn.Linear(2, 2))}},),
    }
    for name, settings in others.items():
        for other in settings:
            with pytest.raises(
                CompressionError, match=rf"run\.training is from a training with another {name}; delete"
            ):
                go_on(**other)
    monkeypatch.setattr(torch, "__version__", "0.1")
    with pytest.raises(CompressionError, match="version of torch; delete it to start again"):
        go_on()


def test_a_state_of_another_companion_is_refused_by_name(tmp_path):
    def train(**settings):
        model, beside = build("lenet300(size=8, width=0.02)"), {"prior": Companion(nn.Linear(2, 2), **settings)}
        return fit(model, DATA, RECIPE, companions=beside, resume=tmp_path / "run", optimizer=SGD(momentum=0.5))

    assert len(train(lr=0.1)) == len(train(lr=0.1, optimizer=SGD(momentum=0.5))) == 2
    for other in ({"lr": 0.2}, {"lr": 0.1, "weight_decay": 0.5}, {"lr": 0.1, "optimizer": SGD(momentum=0.6)}):
        with pytest.raises(CompressionError, match="from a training with another companion 'prior'; delete it"):
            train(**other)


def test_a_state_that_an_older_version_saved_is_refused_by_name(tmp_path):
    path, go_on = saved(tmp_path)
    state = tensors_of_bytes(path.read_bytes()[32:])
    state["identity"] = torch.frombuffer(bytearray(b'["structure", {}, "data", "2.0"]'), dtype=torch.uint8)
    content = bytes_of_tensors(state)
    path.write_bytes(sha256(content).digest() + content)
    with pytest.raises(CompressionError, match=r"run\.training was saved by an older version of compedu; delete it"):
        go_on()


def test_flipped_bits_and_cuts_of_a_saved_training_are_noticed(tmp_path):
    path = tmp_path / "run.training"
    save_training(path, {"recipe": "one"}, {"model.weight": torch.arange(6.0), "losses": torch.ones(2)})
    whole = path.read_bytes()
    assert saved_training(path, {"recipe": "one"}).keys() == {"model.weight", "losses"}
    damaged = [whole[: len(whole) // 2], b"", whole + b"x", b"nonsense"]
    damaged += [
        whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :] for place in range(len(whole))
    ]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(CompressionError, match=r"run\.training is not a saved training, or is damaged.*delete it"):
            saved_training(path, {"recipe": "one"})


def test_a_damaged_state_stops_the_training_before_anything_is_taken_up(tmp_path):
    path, go_on = saved(tmp_path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    model = build("lenet300(size=8, width=0.02)")
    before = weights(model)
    with pytest.raises(CompressionError, match="checksum"):
        go_on(model)
    assert weights(model) == before and path.read_bytes() == content


def test_a_training_goes_on_with_as_many_threads_as_it_began_with(tmp_path):
    seen, path = [], tmp_path / "run.training"

    def stop(step):
        seen.append(torch.get_num_threads())
        if step.done == 2 and len(seen) == 2:
            raise Cancelled

    with torch_threads(2), pytest.raises(Cancelled), listening(stop):
        fit(build("lenet300(size=8, width=0.02)"), DATA, RECIPE, resume=path)
    with torch_threads(1), listening(stop):
        fit(build("lenet300(size=8, width=0.02)"), DATA, RECIPE, resume=path)
        assert torch.get_num_threads() == 1
    assert seen == [2] * 8
