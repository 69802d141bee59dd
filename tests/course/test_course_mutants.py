"""Checks of exercises against answers thought out beforehand: no wrong one passes, no right one is refused."""

import tempfile
from pathlib import Path

import pytest
import torch
from course_mutants import RIGHT, WRONG, cut, mcnemar, survey, wilson

import compedu as ce
from compedu.course import check
from compedu.course.plain import decode, encode
from compedu.methods.low_rank.truncated_svd import TruncatedSVD
from compedu.methods.method import Method
from compedu.methods.quantization.linear import LinearQuantization
from compedu.methods.training.fine_tune import FineTune

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


def test_every_exercise_has_six_wrong_and_three_right_answers():
    assert all(len(WRONG[name]) >= 6 and len(RIGHT[name]) >= 3 for name in WRONG.keys() | RIGHT.keys())
    assert len(BUDGET_WRONG) >= 6 <= len(FILES_WRONG)


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
    path = Path(tempfile.mkdtemp()) / "small.compedu"
    model, images = ce.load(network, data)
    ce.save(method(model, images) if method else model, path, coding)
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
