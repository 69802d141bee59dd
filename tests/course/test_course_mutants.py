"""Checks of exercises against answers thought out beforehand: no wrong one passes, no right one is refused."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from course_mutants import RIGHT, WRONG, cut, mcnemar, saving, searched, sides, survey, wilson, without_kernel

import compedu as ce
from compedu.course import check, outlier, quantization
from compedu.course.answers import Elsewhere, reply
from compedu.course.outlier import planted
from compedu.course.plain import decode, encode
from compedu.methods.low_rank.truncated_svd import TruncatedSVD
from compedu.methods.method import Method
from compedu.methods.quantization.linear import LinearQuantization
from compedu.methods.training.fine_tune import FineTune
from compedu.networks.shipped import trained as trained_network

SEEDS = (0, 1)  # of the cases
CHARACTERS = 3  # the seed of those that files are measured on
FACTORED = TruncatedSVD(rank={"fc1": 30}, layers="fc1") | LinearQuantization(bits=5)


def answers(table):
    return [pytest.param(name, answer, id=f"{name}, {how}") for name in table for how, answer in table[name].items()]


@pytest.mark.parametrize("name, answer", answers(WRONG))
def test_no_wrong_answer_passes(name, answer):
    for seed in SEEDS:
        with pytest.raises(AssertionError, match="(?s).{30}"):
            check(name, answer, seed=seed)


@pytest.mark.parametrize("name, answer", answers(RIGHT))
def test_no_right_answer_is_refused(name, answer):
    for seed in SEEDS:
        assert check(name, answer, seed=seed).startswith("right: ")


def test_no_draw_of_images_refuses_the_best_bias_of_those_that_were_given():
    for seed in range(25):
        assert check("missing_class", lambda z, y, c: searched(z, y, c, range(0, 130, 2)), seed=seed)


def test_every_exercise_has_six_wrong_and_three_right_answers():
    assert all(len(WRONG[name]) >= 6 and len(RIGHT[name]) >= 3 for name in WRONG.keys() | RIGHT.keys())
    for wrong, right in ((BUDGET_WRONG, BUDGET_RIGHT), (RESCUE_WRONG, RESCUE_RIGHT), (FOUR_WRONG, FOUR_RIGHT)):
        assert len(wrong) >= 8 and len(right) >= 3
    assert len(FILES_WRONG) >= 8


class Always(float):
    """A number that agrees with everything."""

    def _yes(self, *others):
        return True

    def _self(self, *others):
        return self

    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __ne__ = _yes
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __abs__ = __float__ = __floordiv__ = _self
    __hash__ = float.__hash__


class AlwaysWhole(int):
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = Always._yes
    __int__ = __index__ = __floordiv__ = __mul__ = __add__ = Always._self
    __hash__ = int.__hash__


class AlwaysFits(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, arguments=(), named=None):
        return True if "shape" in str(function) else super().__torch_function__(function, types, arguments, named)


@pytest.mark.parametrize("name, answer", [
    ("interval", lambda k, n: (Always(0.5), Always(0.5))),
    ("paired", lambda b, f: Always(0.5)),
    ("dense_bytes", lambda p: Always(1)),
    ("criteria", lambda a, b, s, t: (Always(1), Always(1), Always(1), Always(1))),
    ("largest_rank", lambda m, n: AlwaysWhole(1)),
    ("quantized_bytes", lambda w, o, b: Always(1)),
    ("gap_bytes", lambda p, d, b: Always(1)),
    ("thin", lambda t, g: {name: tensor.as_subclass(AlwaysFits) for name, tensor in t.items()}),
    ("break_even", lambda s: AlwaysWhole(1)),
    ("hard_filter", torch.ones(3, 3).as_subclass(AlwaysFits)),
    ("hard_filter", [[Always(1)] * 3] * 3),
])  # fmt: skip
def test_a_number_that_agrees_with_everything_is_judged_by_its_value(name, answer):
    with pytest.raises(AssertionError):
        check(name, answer, seed=0)


class Bribed(Method):
    """Says that it trains nothing, and returns a network that was trained elsewhere."""

    family = "pruning"

    def compress(self, task):
        return LinearQuantization(bits=5)(task.model)


class Disguised(Bribed):
    def __repr__(self):
        return "LinearQuantization(bits=8)"


BUDGET_WRONG = {
    "too large": LinearQuantization(bits=8),
    "the two that the tour joins, with fewer bits": TruncatedSVD(rank={"fc1": 100, "conv2": 25}, layers="fc1 conv2")
    | LinearQuantization(bits=4),
    "one bit": LinearQuantization(bits=1),
    "trains": FineTune(epochs=1),
    "trains before": FineTune(epochs=1) | FACTORED,
    "a class": LinearQuantization,
    "a text": "LinearQuantization(bits=4)",
    "a list": [TruncatedSVD(rank=60), LinearQuantization(bits=5)],
    "of a class that no chapter has": Bribed(),
    "under another's name": Disguised(),
    "without end": LinearQuantization(bits=8) | LinearQuantization(bits=8) | LinearQuantization(bits=8)
    | LinearQuantization(bits=8) | LinearQuantization(bits=8) | LinearQuantization(bits=8)
    | LinearQuantization(bits=8) | LinearQuantization(bits=8) | FACTORED,
}  # fmt: skip
BUDGET_RIGHT = (
    FACTORED,
    TruncatedSVD(rank={"fc1": 40}, layers="fc1") | LinearQuantization(bits=4),
    TruncatedSVD(rank={"fc1": 40, "conv2": 20}, layers="fc1 conv2") | LinearQuantization(bits=5),
)


@pytest.mark.parametrize("answer", BUDGET_WRONG.values(), ids=BUDGET_WRONG)
def test_a_budget_is_met_by_a_method_of_the_library_that_trains_nothing(answer):
    with pytest.raises(AssertionError):
        check("budget", answer)


@pytest.mark.parametrize("answer", BUDGET_RIGHT, ids=repr)
def test_different_methods_meet_the_budget(answer):
    assert check("budget", answer).startswith("right: ")


def saved(method, network="lenet5", data="glyphs", coding="packed"):
    model = trained_network(network, data)
    return written(method(model) if method else model, coding)


def written(model, coding="packed"):
    path = Path(tempfile.mkdtemp()) / "small.compedu"
    ce.save(model, path, coding)
    return path


def damaged():
    path = Path(tempfile.mkdtemp()) / "damaged.compedu"
    path.write_bytes(saved(FACTORED).read_bytes()[:-40])
    return str(path)


FILES_WRONG = {
    "the dense network": lambda: saved(None),
    "factored, few bits, no weight taken away": lambda: str(saved(FACTORED, coding="ans")),
    "eight bits alone": lambda: saved(LinearQuantization(bits=8)),
    "two bits": lambda: saved(LinearQuantization(bits=2)),
    "chance": lambda: saved(ce.RandomPruning(sparsity=0.9) | LinearQuantization(bits=8)),
    "another network": lambda: saved(LinearQuantization(bits=4), "lenet300"),
    "other images": lambda: saved(FACTORED, "lenet5", "digits"),
    "damaged": damaged,
    "a folder": tempfile.mkdtemp,
    "the network itself": lambda: ce.load("lenet5", "glyphs")[0],
    "no such file": lambda: "nothing.compedu",
    "bytes": lambda: saved(FACTORED).read_bytes(),
}
FILES_RIGHT = {
    "pruned by LAMP": lambda: saved(ce.MagnitudePruning(sparsity=0.8, budget="lamp") | LinearQuantization(bits=8)),
    "pruned further, fewer bits": lambda: saved(
        ce.MagnitudePruning(sparsity=0.83, budget="lamp") | LinearQuantization(bits=6), coding="huffman"
    ),
}


@pytest.mark.parametrize("answer", FILES_WRONG.values(), ids=FILES_WRONG)
def test_a_file_that_is_large_or_bad_or_of_another_network_fails(answer):
    with pytest.raises(AssertionError):
        check("pruned_file", answer(), seed=CHARACTERS)


@pytest.mark.parametrize("answer", FILES_RIGHT.values(), ids=FILES_RIGHT)
def test_different_small_files_pass(answer):
    assert check("pruned_file", answer(), seed=CHARACTERS).startswith("right: ")


@pytest.fixture
def few_characters(monkeypatch):
    """Fewer images than an exercise measures on, as the answers here are far from its limits."""
    for module in (outlier, quantization):
        monkeypatch.setattr(module, "CHARACTERS", 500)


LEARNER, OTHER = "ada", "4711"  # their outliers are in different layers
FLAT = {"bits": 4, "scales": "tensor"}  # 4 bits with a scale for each layer: what the outlier breaks


@cache
def place(learner):
    """The layer and channel in which the learner's network has weights far larger than those of the trained one."""
    trained, own = trained_network("lenet5", "glyphs"), planted(learner)
    return next(
        (name, channel)
        for name in ("conv1", "conv2", "fc1")
        for channel, largest in enumerate(tops(own, name).tolist())
        if largest > 10 * tops(trained, name).median()
    )


def tops(network, name):
    return network.get_submodule(name).weight.detach().flatten(1).abs().amax(1)


def rescue(how, learner=LEARNER, **others):
    layer, channel = place(learner)
    return {"learner": learner, "layer": layer, "channel": channel, "rescue": how} | others


def moved_back(learner=LEARNER):
    """Scales the outlier down, and the weights that read it up: then a scale for each layer is enough."""
    layer, channel = place(learner)
    network = planted(learner)
    maker, reader = network.get_submodule(layer), network.get_submodule({"conv2": "fc1", "fc1": "fc2"}[layer])
    times = float(tops(network, layer)[channel] / tops(network, layer).median())
    each = reader.weight.shape[1] // len(maker.weight)
    with torch.no_grad():
        for tensor in (maker.weight, maker.bias):
            tensor[channel] /= times
        reader.weight[:, channel * each : (channel + 1) * each] *= times
    return LinearQuantization(**FLAT)(network)


RESCUE_WRONG = {
    "one scale for each layer": ("few enough, but .* points are lost", lambda: rescue(LinearQuantization(**FLAT))),
    "everything to 8 bits": (
        "layer and channel are right, .* takes 25.* allowed are 13.5%",
        lambda: rescue(LinearQuantization(bits=8)),
    ),
    "8 bits, entropy-coded": (
        "takes 25.* each number with its own bits",
        lambda: rescue(written(LinearQuantization(bits=8, scales="tensor")(planted(LEARNER)), "ans")),
    ),
    "a clip that keeps the outlier": (
        "few enough, but .* points are lost .* must .* a range, no longer reach",
        lambda: rescue(LinearQuantization(clipping="percentile", weight_coverage=0.9999, **FLAT)),
    ),
    "the clip of least squared error": (
        "the other channels of conv2 have to share",
        lambda: rescue(LinearQuantization(clipping="mse", **FLAT), learner=OTHER),
    ),
    "another layer": (
        "largest weight of channel 1 of conv2 is .* that of an ordinary channel",
        lambda: rescue(LinearQuantization(bits=4), layer="conv2", channel=1),
    ),
    "the layer that reads it": (
        "that of an ordinary channel of fc2",
        lambda: rescue(LinearQuantization(bits=4), layer="fc2", channel=3),
    ),
    "counted from one": (
        "is 1.* times that of an ordinary channel of fc1",
        lambda: rescue(LinearQuantization(bits=4), channel=place(LEARNER)[1] + 1),
    ),
    "counted from the end": (
        "fc1 has output channels 0 to 499, the first axis of its weight",
        lambda: rescue(LinearQuantization(bits=4), channel=place(LEARNER)[1] - 500),
    ),
    "between two": (
        "fc1 has output channels 0 to 499",
        lambda: rescue(LinearQuantization(bits=4), channel=place(LEARNER)[1] + 0.5),
    ),
    "a name for a channel": (
        "fc1 has output channels .* this is 'the largest'",
        lambda: rescue(LinearQuantization(bits=4), channel="the largest"),
    ),
    "no layer": (
        "one of conv1, conv2, fc1, fc2, not",
        lambda: rescue(LinearQuantization(bits=4), layer=place(LEARNER)),
    ),
    "another learner's outlier": (
        "that of an ordinary channel of conv2",
        lambda: rescue(LinearQuantization(bits=4), learner=OTHER) | {"learner": LEARNER},
    ),
    "another learner's network": (
        "not hold your network: the channels of conv1 are others, or in another order",
        lambda: rescue(written(LinearQuantization(bits=4)(planted(OTHER)))),
    ),
    "the trained network": ("not hold your network", lambda: rescue(saved(LinearQuantization(bits=4)))),
    "another kind of network": (
        "holds another network, lenet300.* save lenet5",
        lambda: rescue(saved(LinearQuantization(bits=4), "lenet300")),
    ),
    "for other images": (
        "not hold your network",
        lambda: rescue(saved(LinearQuantization(bits=4), "lenet5", "digits")),
    ),
    "the planted network, as it is": ("takes 100.0%", lambda: rescue(written(planted(LEARNER)))),
    "trained again": (
        "trains; this can be done without training",
        lambda: rescue(FineTune(epochs=1) | LinearQuantization(bits=4)),
    ),
    "no such file": ("there is no file nothing.compedu", lambda: rescue("nothing.compedu")),
    "a network": ("give a method, or the path of a file", lambda: rescue(planted(LEARNER))),
    "no learner": (
        "put your name, or your number, in quotes",
        lambda: rescue(LinearQuantization(bits=4)) | {"learner": ...},
    ),
    "a number without quotes": (
        "put your name, or your number, in quotes",
        lambda: rescue(LinearQuantization(bits=4)) | {"learner": 4711},
    ),
    "one part missing": (
        "with 'learner', 'layer', 'channel', 'rescue', and nothing else, not a dict.* with 'learner'",
        lambda: {name: part for name, part in rescue(FACTORED).items() if name != "layer"},
    ),
    "a list": (
        "give a dictionary with 'learner', .* not list",
        lambda: list(rescue(LinearQuantization(bits=4)).values()),
    ),
    "a method alone": (
        "give a dictionary with 'learner', .* not LinearQuantization",
        lambda: LinearQuantization(bits=4),
    ),
    "dots": ("still three dots", lambda: ...),
}
RESCUE_RIGHT = {
    "a scale for each channel": lambda: rescue(LinearQuantization(bits=4)),
    "as a file, numbers of numpy": lambda: rescue(
        str(written(LinearQuantization(bits=4, grid="affine")(planted(LEARNER)), "huffman")),
        channel=np.int64(place(LEARNER)[1]),
    ),
    "clipped before the outlier, a scalar of torch": lambda: rescue(
        LinearQuantization(clipping="percentile", weight_coverage=0.97, **FLAT),
        channel=torch.tensor(place(LEARNER)[1]),
    ),
    "its scale moved into the next layer": lambda: rescue(written(moved_back())),
    "8 bits in the small layer alone": lambda: rescue(
        LinearQuantization(bits={"conv1": 4, "conv2": 8, "fc1": 4, "fc2": 4}, scales="tensor"), learner=OTHER
    ),
}


@pytest.mark.parametrize("hint, answer", RESCUE_WRONG.values(), ids=RESCUE_WRONG)
def test_an_outlier_that_is_not_found_or_not_rescued_fails_with_a_hint(hint, answer, few_characters):
    with pytest.raises(AssertionError, match=hint):
        check("outlier", answer(), seed=CHARACTERS)


@pytest.mark.parametrize("answer", RESCUE_RIGHT.values(), ids=RESCUE_RIGHT)
def test_different_rescues_pass(answer, few_characters):
    assert check("outlier", answer(), seed=CHARACTERS).startswith("right: channel ")


def test_a_hint_does_not_tell_where_the_outlier_is():
    layer, channel = place(LEARNER)
    with pytest.raises(AssertionError) as hint:
        check("outlier", rescue(LinearQuantization(bits=4), layer="conv1", channel=0), seed=0)
    assert layer not in str(hint.value) and str(channel) not in str(hint.value)


def test_a_planted_network_is_the_learners_own_and_computes_what_the_trained_one_does():
    trained = trained_network("lenet5", "glyphs")
    x = torch.randn(20, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for learner, layer in ((LEARNER, "fc1"), (OTHER, "conv2")):
        own = planted(learner)
        torch.testing.assert_close(own(x), trained(x), atol=1e-4, rtol=1e-5)
        assert [(tops(own, name) > 5 * tops(own, name).median()).sum() for name in (layer, "conv1", "fc2")] == [1, 0, 0]
        again = planted(learner).parameters()
        assert all(torch.equal(tensor, other) for tensor, other in zip(own.parameters(), again, strict=True))
    assert place(LEARNER) == ("fc1", 97) and place(OTHER) == ("conv2", 35)  # the same on every machine


@pytest.mark.parametrize("name", ["", " ", 3, ..., None])
def test_a_network_is_planted_for_a_name_only(name):
    with pytest.raises(ValueError, match="your name, or your number, in quotes"):
        planted(name)


def test_a_file_that_is_a_part_of_an_answer_is_read_where_the_answer_is():
    hint, answer = RESCUE_WRONG["the trained network"]
    asked = []

    def exchange(question):
        asked.append(decode(question)["do"])
        return reply(answer(), question)

    with pytest.raises(AssertionError, match=hint):
        check("outlier", Elsewhere(exchange), seed=CHARACTERS)
    assert asked == ["describe", "read"]


def rounded_by_hand(network):
    """Rounds weights in place, to 4 bits with a scale for each filter: what is stored are still floats."""
    with torch.no_grad():
        for tensor in network.parameters():
            if tensor.ndim > 1:
                scale = tensor.abs().flatten(1).amax(1).view(-1, *(1 for _ in tensor.shape[1:])) / 7
                tensor.copy_(torch.round(tensor / scale) * scale)
    return network


def of_mobilenet(method, coding="packed"):
    return saved(method, "mobilenet", coding=coding)


FOUR_WRONG = {
    "the dense network": ("100.0% .* stored as numbers of 32 bits", lambda: of_mobilenet(None)),
    "8 bits": (
        "has 25.* allowed are 12.5%: 4 bits for each weight, with everything else",
        lambda: of_mobilenet(LinearQuantization(bits=8)),
    ),
    "8 bits, entropy-coded": (
        "has 20.* allowed are 12.5%",
        lambda: of_mobilenet(LinearQuantization(bits=8, scales="tensor"), "ans"),
    ),
    "4 bits, scales on top": (
        "has 13.* with everything else that the file holds",
        lambda: of_mobilenet(LinearQuantization(bits=4)),
    ),
    "nearest, one scale for each layer": (
        "small enough .* loses .* ranges of the filters that share a scale",
        lambda: of_mobilenet(LinearQuantization(**FLAT), "huffman"),
    ),
    "rounded, saved as floats": (
        "stored as numbers of 32 bits, though rounded",
        lambda: written(rounded_by_hand(trained_network("mobilenet", "glyphs"))),
    ),
    "rounded, floats entropy-coded": (
        "stored as numbers of 32 bits, though rounded",
        lambda: written(rounded_by_hand(trained_network("mobilenet", "glyphs")), "huffman"),
    ),
    "2 bits": ("small enough .* loses", lambda: of_mobilenet(LinearQuantization(bits=2))),
    "not trained": (
        "small enough .* loses",
        lambda: written(LinearQuantization(bits=3)(ce.build("mobilenet(size=32, classes=20)"))),
    ),
    "for other images": (
        "this mobilenet is for other images than glyphs",
        lambda: written(LinearQuantization(bits=3)(ce.build("mobilenet(size=32, channels=3)"))),
    ),
    "a network that is easier": (
        "holds another network, lenet5.* save mobilenet for glyphs",
        lambda: saved(LinearQuantization(bits=4)),
    ),
    "damaged": ("not a readable model file", damaged),
    "no such file": ("there is no file", lambda: "nothing.compedu"),
    "a method": ("give the path of a file", lambda: LinearQuantization(bits=4)),
    "dots": ("still three dots", lambda: ...),
}
FOUR_RIGHT = {
    "entropy-coded": lambda: of_mobilenet(LinearQuantization(bits=4), "huffman"),
    "from the smallest to the largest, entropy-coded": lambda: str(
        of_mobilenet(LinearQuantization(bits=4, grid="affine"), "ans")
    ),
    "pruned, 5 bits": lambda: of_mobilenet(
        ce.MagnitudePruning(sparsity=0.5, budget="lamp") | LinearQuantization(bits=5)
    ),
}


@pytest.mark.parametrize("hint, answer", FOUR_WRONG.values(), ids=FOUR_WRONG)
def test_a_file_of_more_bits_or_of_a_broken_network_fails_with_a_hint(hint, answer, few_characters):
    with pytest.raises(AssertionError, match=hint):
        check("four_bits", answer(), seed=CHARACTERS)


@pytest.mark.parametrize("answer", FOUR_RIGHT.values(), ids=FOUR_RIGHT)
def test_different_files_of_four_bits_pass(answer, few_characters):
    assert check("four_bits", answer(), seed=CHARACTERS).startswith("right: ")


def test_a_hint_names_the_seed_that_draws_its_cases_again():
    with pytest.raises(AssertionError) as first:
        check("largest_rank", lambda m, n: m * n // (m + n + 1))
    seed = int(str(first.value).split("seed=")[1].split()[0])
    with pytest.raises(AssertionError) as second:
        check("largest_rank", lambda m, n: m * n // (m + n + 1), seed=seed)
    assert str(first.value) == str(second.value)


def test_each_check_draws_new_cases_unless_an_instructor_gives_a_seed(monkeypatch):
    def asked():
        seen = []
        check("interval", lambda k, n: seen.append((k, n)) or wilson(k, n))
        return seen

    assert asked() != asked()
    monkeypatch.setenv("COMPEDU_SECRET_SEED", "5")
    assert asked() == asked()


@pytest.mark.parametrize("name, wrong, solved", [
    ("paired", lambda b, f: 0.75, mcnemar),
    ("dense_bytes", lambda p: 5 * p, lambda p: 4 * p),
    ("criteria", lambda a, b, s, t: (1.25, 1.25, 1.25, 1.25), survey),
    ("largest_rank", lambda m, n: 0, lambda m, n: (m * n - 1) // (m + n)),
    ("quantized_bytes", lambda w, o, b: w + o, lambda w, o, b: w * b // 8 + 4 * o),
    ("gap_bytes", lambda p, d, b: p, lambda p, d, b: p * d / (1 - (1 - d) ** (2**b - 1)) * b / 8),
    ("thin", lambda t, g: t, cut),
    ("break_even", lambda s: 0, lambda s: saving(*sides(s))),
    ("break_even", without_kernel, lambda s: saving(*sides(s))),
])  # fmt: skip
def test_a_hint_does_not_tell_the_value(name, wrong, solved):
    seen = []

    def answer(*given):
        seen.append((given, solved(*given)))  # the last is what the hint is about
        return wrong(*given)

    with pytest.raises(AssertionError) as hint:
        check(name, answer, seed=0)
    given, right = seen[-1]
    if name == "thin":
        values = {tuple(tensor.shape) for tensor in right.values()} - {tuple(one.shape) for one in given[0].values()}
    else:
        values = set(right) if isinstance(right, tuple) else {right}
    shown = {form.format(value) for value in values for form in ("{}", "{:.4g}", "{:.4f}", "{:.0f}", "{:,.0f}")
             if form == "{}" or name != "thin"}  # fmt: skip
    assert shown and not any(len(one) > 2 and one in str(hint.value) for one in shown)


@pytest.mark.parametrize("value", [
    3, 0.5, "text", None, True, [1, [2.5]], {"a": 1}, ..., float("inf"), LinearQuantization(bits=3), 10**30,
])  # fmt: skip
def test_plain_data_comes_back_as_it_was(value):
    assert decode(encode(value)) == value


@pytest.mark.parametrize("tensor", [
    torch.arange(6.0).reshape(2, 3).T, torch.zeros(0, 4), torch.ones(2, dtype=torch.bfloat16), torch.arange(3),
])  # fmt: skip
def test_tensors_come_back_with_their_shape_and_type(tensor):
    back = decode(encode(tensor))
    assert torch.equal(back, tensor) and back.dtype == tensor.dtype


@pytest.mark.parametrize("text", [
    "{", '{"kind": "pickle", "value": []}', '{"kind": "tensor", "value": ["float32", [1000000000], ""]}',
    '{"kind": "tensor", "value": ["save", [1], "AAAA"]}', '{"kind": "method", "value": "__import__(\'os\')"}',
    "[" * 100_000, '{"value": 1}', '{"kind": "dict", "value": 3}',
])  # fmt: skip
def test_a_text_that_is_no_plain_data_is_refused(text):
    with pytest.raises(ValueError):
        decode(text)
