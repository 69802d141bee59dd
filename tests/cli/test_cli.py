"""The command line: every command, every knob as an option, and one clear line for every kind of bad input."""

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from processes import ROOT, closed_network

import compedu
from compedu import datasets, files, hashing, metrics, training
from compedu.cli import COMMANDS, Parser, declare_run, declare_sweep, main, options
from compedu.commands import KNOB, method_with_knobs, option, summary
from compedu.errors import CompressionError
from compedu.knobs import knobs
from compedu.methods import FAMILIES, METHODS
from compedu.methods.card import card
from compedu.networks import recipes
from compedu.networks.shipped import trained
from compedu.reproducible import torch_threads
from compedu.shipped import shipped

PIPELINE = "MagnitudePruning(sparsity=0.6) | LinearQuantization(bits=5)"
names = pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No real data sets, no time measured, and a current folder of its own."""
    monkeypatch.delenv("COMPEDU_DATA", raising=False)
    monkeypatch.setattr(metrics, "measure", partial(metrics.measure, speed=False))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def call(capsys):
    """Call `main`; returns exit code, what it printed, what it complained."""

    def called(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return called


@pytest.fixture
def good(call):
    """Call `main`, which must succeed; returns what it printed."""

    def called(*arguments):
        code, printed, complained = call(*arguments)
        assert code == 0, complained
        return printed

    return called


@pytest.fixture
def refused(call):
    """Call `main`, which must refuse in one line; returns the line without the command's name."""

    def called(*arguments):
        code, printed, complained = call(*arguments)
        assert code == 2 and printed == ""
        assert complained.endswith("\n") and complained.count("\n") == 1, complained
        where = " ".join(["compedu", *[str(name) for name in arguments[:1] if name in COMMANDS]])
        assert complained.startswith(f"{where}: ") and "Errno" not in complained and "Traceback" not in complained
        return complained.removeprefix(f"{where}: ")

    return called


def given_as(cls, *arguments):
    """The method that `compedu run CLS ...` would call."""
    return method_with_knobs(options(["run", cls.__name__, *arguments], "run"))


# Knobs


@names
def test_every_knob_is_an_option(cls):
    for name, declared in knobs(cls).items():
        for value in (declared.default, *declared.points()):
            try:
                expected = cls(**{name: value})
            except ValueError:  # a value that needs another knob to be moved as well
                continue
            assert given_as(cls, f"{option(name)}={value}") == expected


@names
def test_every_bad_value_of_every_knob_is_refused_by_name(cls, refused):
    tried = 0
    for name, declared in knobs(cls).items():
        for text in map(str, declared.bad_values()):
            if (declared.type is str and not declared.choices) or (declared.type is bool and text == "yes"):
                continue  # as text it is a value
            message = refused("run", cls.__name__, f"{option(name)}={text}")
            assert message.startswith(f"{cls.__name__}.{name} must be {declared}")
            assert text in message and declared.help in message
            tried += 1
    assert tried > 0


def test_values_by_layer_and_layers_are_typed_in_words():
    method = given_as(compedu.MagnitudePruning, "--sparsity", "conv*=0.3,*=0.9", "--layers=-last")
    assert method == compedu.MagnitudePruning(sparsity={"conv*": 0.3, "*": 0.9}, layers="-last")
    assert given_as(compedu.TruncatedSVD, "--rank", "fc1=40,*=0.5").rank == {"fc1": 40, "*": 0.5}


def test_methods_can_be_given_as_their_text():
    def given(*arguments):
        return method_with_knobs(options(["run", *arguments], "run"))

    assert repr(given(PIPELINE)) == PIPELINE
    both = given("LinearQuantization(bits=5)", "--scales", "tensor")
    assert both == compedu.LinearQuantization(bits=5, scales="tensor")
    assert given("linear-quantization") == given("LinearQuantization()") == compedu.LinearQuantization()


@pytest.mark.parametrize("command, declare", [("run", declare_run), ("sweep", declare_sweep)])
def test_no_knob_has_the_name_of_a_fixed_option(command, declare):
    parser = Parser(prog=command)
    declare(parser, METHODS[0])
    fixed = {text for action in parser._actions if not action.dest.startswith(KNOB) for text in action.option_strings}
    assert fixed >= {"--model", "--data", "--split", "--json"}
    assert {option(name) for cls in METHODS for name in knobs(cls)}.isdisjoint(fixed)


@names
def test_help_behind_a_method_lists_its_knobs_with_meaning_range_and_default(cls, good, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    for command in ("run", "sweep"):
        shown = good(command, cls.__name__, "--help")
        section = shown.split(f"knobs of {cls.__name__}:")[1]
        assert re.findall(r"^  (--[\w-]+) VALUE", section, re.MULTILINE) == [option(name) for name in knobs(cls)]
        for declared in knobs(cls).values():
            assert f"{declared.help}; {declared}" in section and f"; {declared.default} by default" in section
        assert "--model" in shown and summary(compedu.methods.find(cls.__name__)) in shown and "$" not in summary(cls)


def test_help_without_a_method_says_how_to_see_knobs(good, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for command in COMMANDS:
        assert COMMANDS[command].run.__doc__.split(".")[0] in good(command, "--help")
    assert '"METHOD --help"' in good("run", "--help") and "--sparsity" not in good("run", "--help")
    assert "METHOD" in good("run", PIPELINE, "--help")
    assert all(command in good("--help") for command in COMMANDS)
    assert good("--version") == f"compedu {compedu.__version__}\n"


# What the commands do


def test_methods_are_listed_by_family(good):
    *lines, last = good("methods").splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert heads == [title for family, title in FAMILIES.items() if any(cls.family == family for cls in METHODS)]
    listed = [line.split(":")[0].strip() for line in lines if re.match(r"  \w", line)]
    assert listed == [cls.__name__ for cls in METHODS]
    assert last == "compedu methods NAME shows the knobs of a method." and len(lines) == len(heads) + len(listed)


@names
def test_a_method_by_name_shows_its_card(cls, good):
    assert good("methods", cls.__name__).strip() == card(cls)


def test_run_prints_what_the_library_measures(good):
    model, data = compedu.load("lenet300", "digits")
    expected = metrics.measure(compedu.MagnitudePruning(sparsity=0.9)(model, data), data, baseline=model)
    arguments = ("run", "magnitude_pruning", "--model", "lenet300", "--sparsity", "0.9")
    assert json.loads(good(*arguments, "--json")) == json.loads(json.dumps(expected.as_dict()))
    assert good(*arguments) == f"{expected}\n"


def test_run_measures_time_as_well(call, monkeypatch):
    asked = []
    monkeypatch.setattr(metrics, "measure", lambda *given, **options: asked.append(options) or "measured")
    assert call("run", "MagnitudePruning", "--model", "lenet300", "--split", "test")[:2] == (0, "measured\n")
    assert asked[0].get("speed", True) is True and asked[0]["split"] == "test"


def test_run_saves_a_model_that_later_runs_take_up(call, good, tmp_path):
    path = tmp_path / "small.ce"
    options = ("--save", path, "--coding", "ans", "--json")
    code, printed, said = call("run", "MagnitudePruning", "--model", "lenet300", *options)
    report = json.loads(printed)
    assert code == 0 and report["method"] == "MagnitudePruning()" and f"{path.stat().st_size:,} bytes written" in said
    assert report["entropy_coded_bytes"] == path.stat().st_size < report["file_bytes"]
    again = json.loads(good("run", "MagnitudePruning", "--sparsity=0", "--model", path, "--json"))
    assert again["correct"] == report["correct"] and again["file_bytes"] == report["file_bytes"]
    both = "MagnitudePruning() | LinearQuantization(bits=5)"
    in_one = json.loads(good("run", both, "--model", "lenet300", "--json"))
    in_two = json.loads(good("run", "LinearQuantization(bits=5)", "--model", path, "--json"))
    assert in_two["file_bytes"] == in_one["file_bytes"]


def test_inspect_explains_every_byte(good, tmp_path):
    files.save(compedu.LinearQuantization(bits=3)(trained("lenet300", "digits")), tmp_path / "m", coding="huffman")
    found, length = json.loads(good("inspect", tmp_path / "m", "--json")), (tmp_path / "m").stat().st_size
    assert found["bytes"] == sum(row["bytes"] for row in found["rows"]) == sum(found["totals"].values()) == length
    assert good("inspect", "m") == files.describe("m") + "\n"


def test_data_sets_are_shown_and_missing_ones_say_how_to_get_them(good, monkeypatch):
    monkeypatch.setitem(datasets.DATASETS, "glyphs", datasets.DATASETS["digits"])  # drawing them takes seconds
    lines = good("data").splitlines()
    assert len(lines) == len(datasets.DATASETS) and repr(datasets.load("digits")) in lines
    assert any(line.startswith("cifar10: ") and "compedu data cifar10 --download" in line for line in lines)
    assert "(1, 19, 19)" in good("data", "digits(size=19)")


def test_own_data_come_from_a_file(good, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (30, 28, 28), dtype=np.uint8)
    np.savez("own.npz", x_train=pixels, y_train=np.arange(30) % 10, x_test=pixels[:9], y_test=np.arange(9) % 3)
    assert "(1, 28, 28), 10 classes" in good("data", "own.npz")
    files.save(trained("lenet300", "digits"), "m.ce")
    report = json.loads(good("run", "RandomPruning", "--model", "m.ce", "--data", tmp_path / "own.npz", "--json"))
    assert (report["total"], report["data"]) == (6, str(tmp_path / "own.npz"))


def test_a_sweep_prints_its_points_and_goes_on_from_its_file(good):
    arguments = ("sweep", "MagnitudePruning", "--model", "lenet300", "--over", "sparsity", "--json", "--store=s.jsonl")
    first = [json.loads(line) for line in good(*arguments, "--count", "2").splitlines()]
    points = compedu.sweeps.grid(compedu.MagnitudePruning, "sparsity", 2)
    assert [point["method"] for point in first] == list(map(repr, points))
    stored = Path("s.jsonl").read_text()
    assert [json.loads(line) for line in good(*arguments, "--count", "2").splitlines()] == first
    assert Path("s.jsonl").read_text() == stored
    assert len(good(*arguments, "--count", "3").splitlines()) == 3
    assert Path("s.jsonl").read_text().count("\n") == stored.count("\n") + 2  # the new run and its one new point


def test_points_that_a_sweep_leaves_out_are_named(call):
    arguments = ("sweep", "TruncatedSVD", "--model", "lenet300", "--over", "rank", "--layers", "fc2", "--count", "3")
    code, printed, said = call(*arguments)
    assert code == 0 and printed.count("TruncatedSVD(") == 2
    assert said.count("\n") == 1 and "TruncatedSVD(rank=0.75" in said and "break-even" in said
    arguments = ("sweep", "TruncatedSVD", "--model", "lenet300", "--over", "allow-larger", "--rank=101", "--layers=fc2")
    code, printed, said = call(*arguments)
    assert code == 2 and printed == "" and "above its full rank" in said


def test_lab_gets_its_folder_and_jupyters_own_options(good, monkeypatch):
    asked = []
    monkeypatch.setattr("compedu.lab.open_lab", lambda *given: asked.append(given))
    good("lab", "--folder", "mine", "--", "--no-browser", "--port=9")
    good("lab")
    assert asked == [("mine", ["--no-browser", "--port=9"]), (None, [])]


def test_doctor_reports(good):
    report = good("doctor")
    assert f"torch {torch.__version__.split('+')[0]}" in report and "networks with trained weights" in report


# Claims


class Trial:
    """A claim whose shipped runs may be missing, and which notes how it is run."""

    def __init__(self, key, missing=False):
        self.key, self.title, self.missing, self.path, self.ran = key, f"title of {key}", missing, f"{key}.jsonl", []

    def stored(self, full=False):
        if self.missing:
            raise CompressionError(f"no runs of {self.key}")
        return ["stored"]

    def judge(self, runs):
        return SimpleNamespace(verdict="refuted")

    def command(self, full):
        return f"the command for {self.key}, {full=}"

    def run(self, full, store):
        self.ran.append((full, store))
        return ["live"]

    def page(self, live=()):
        return f"page of {[*live, *self.stored()]}"


@pytest.fixture
def trials(monkeypatch):
    found = {key: Trial(key, missing=key == "D1") for key in ("D1", "D2")}
    monkeypatch.setattr("compedu.claims.CLAIMS", tuple(found.values()))
    monkeypatch.setattr("compedu.claims.experiment", found.get)
    monkeypatch.setattr("compedu.claims.page.page", lambda claim, sessions: f"page of {claim.key} with {sessions}")
    return found


def test_all_claims_are_listed_also_where_runs_of_one_are_missing(good, trials):
    assert good("claim").splitlines() == [
        "D1: title of D1; no stored runs: the command for D1, full=True",
        "D2: title of D2; refuted at our scale",
    ]


def test_runs_of_a_claim_are_shown_also_where_the_shipped_ones_are_missing(call, refused, trials):
    assert call("claim", "D2", "--run", "quick") == (0, "page of ['live', 'stored']", "")
    code, printed, said = call("claim", "D1", "--run", "quick", "--store", "mine.jsonl")
    assert (code, printed) == (0, "page of D1 with {'run just now': ['live']}")
    assert said == "compedu claim: no runs of D1\n" and trials["D1"].ran == [(False, "mine.jsonl")]
    assert refused("claim", "D1") == "no runs of D1\n"


def test_the_shipped_runs_are_made_by_the_same_command(good, trials):
    good("claim", "D2", "--run", "full", "--store", "shipped")
    assert trials["D2"].ran == [(True, "D2.jsonl")]
    assert len(good("claim", "--run", "quick", "--store", "shipped").splitlines()) == 2
    assert trials["D1"].ran == [(False, "D1.jsonl")] and trials["D2"].ran[1:] == [(False, "D2.jsonl")]


# Training


@pytest.fixture
def one_epoch(monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, ("lenet300", "digits"), training.Recipe(epochs=1, shift=1))


def test_train_keeps_the_weights_and_says_how_they_were_made(good, one_epoch, tmp_path):
    record = json.loads(good("train", "lenet300", "--folder", tmp_path / "weights"))
    assert record["recipe"]["epochs"] == 1 and record["data"] == "digits"
    kept = sorted(path.name for path in (tmp_path / "weights").iterdir())
    assert [re.sub("-[0-9a-f]{10}", "-DIGEST", name) for name in kept] == [
        "lenet300-digits-DIGEST.json",
        "lenet300-digits-DIGEST.safetensors",
    ]
    assert json.loads((tmp_path / "weights" / kept[0]).read_text())["accuracy"] == record["accuracy"]


def own_data(path, seed):
    """An .npz file of 30 images for 10 classes."""
    x = np.random.default_rng(seed).integers(0, 255, (30, 28, 28), dtype=np.uint8)
    np.savez(path, x_train=x, y_train=np.arange(30) % 10, x_test=x[:9], y_test=np.arange(9) % 3)
    return path


def test_weights_belong_to_network_and_images_whatever_the_data_are_called(good, call, refused, monkeypatch, tmp_path):
    monkeypatch.setattr(recipes, "DEFAULT", training.Recipe(epochs=1))
    one, other = own_data(tmp_path / "my (1).npz", seed=0), own_data(tmp_path / "other.npz", seed=1)
    trained_on = [("lenet300(width=0.1)", one), ("lenet300(width=0.1)", other), ("lenet300(width=0.2)", one)]
    for network, data in trained_on:
        assert "trained on" in refused("run", "RandomPruning", "--model", network, "--data", data)
        good("train", network, "--data", data, "--folder", "weights")
        good("train", network, "--data", data)
    kept = sorted(path.name for path in Path("weights").glob("*.safetensors"))
    assert [re.sub("-[0-9a-f]{10}", "", name) for name in kept] == [
        "lenet300-width0.1-my-1.safetensors",
        "lenet300-width0.1-other.safetensors",
        "lenet300-width0.2-my-1.safetensors",
    ]
    places = [(network, str(data), folder) for network, data in trained_on for folder in (None, "weights")]
    digests = [hashing.model_digest(compedu.load(*place)[0]) for place in places]
    assert digests[::2] == digests[1::2] and len(set(digests)) == 3
    report = json.loads(good("run", "RandomPruning", "--model", "lenet300(width=0.2)", "--data", one, "--json"))
    assert report["data"] == str(one)
    one.rename("moved.npz")
    assert hashing.model_digest(compedu.load("lenet300(width=0.1)", "moved.npz")[0]) == digests[0]
    assert not list(shipped("data", "checkpoints").glob("*my*"))


def test_finished_weights_are_not_trained_again_and_those_of_another_recipe_stay(good, refused, monkeypatch, tmp_path):
    monkeypatch.setattr(recipes, "DEFAULT", training.Recipe(epochs=1))
    arguments = ("train", "lenet300(width=0.1)", "--data", own_data(tmp_path / "my.npz", seed=0), "--folder", "weights")
    first, steps = good(*arguments), []
    with training.listening(steps.append):
        assert good(*arguments) == first and steps == []
    (weights,) = Path("weights").glob("*.safetensors")
    written = weights.stat().st_mtime_ns, weights.stat().st_ino
    record = json.loads(good(*arguments, "--confirm"))
    assert record.pop("validation_accuracy_with_doubled_epochs") and record == json.loads(first)
    assert (weights.stat().st_mtime_ns, weights.stat().st_ino) == written, "what is confirmed stays as it was"
    before = {path: path.read_bytes() for path in Path("weights").iterdir()}
    monkeypatch.setattr(recipes, "DEFAULT", training.Recipe(epochs=2))
    assert "was trained with another recipe; move it away, or name another folder" in refused(*arguments)
    assert before == {path: path.read_bytes() for path in Path("weights").iterdir()}


def test_a_folder_called_like_a_shipped_data_set_is_not_taken_for_it(refused, monkeypatch):
    for split in ("train", "test"):
        for name in "ab":
            place = Path("digits", split, name)
            place.mkdir(parents=True)
            for index in range(5):
                pixels = np.full((28, 28), 10 * index + ord(name), np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")
    message = refused("run", "RandomPruning", "--model", "lenet300", "--data", "./digits")
    assert "no weights of 'lenet300' trained on 'digits'; train them with: compedu train" in message


def test_shipped_weights_are_replaced_only_on_request(good, refused, monkeypatch, one_epoch, tmp_path):
    before = trained("lenet300", "digits").fc1.weight
    assert "come with compedu and stay as they are; name a folder" in refused("train", "lenet300")
    assert "do not come with compedu" in refused("train", "lenet5", "--data", "digits(size=20)", "--folder", "shipped")
    monkeypatch.setattr(recipes, "checkpoint_path", lambda network, data: tmp_path / f"{network}-{data}.safetensors")
    good("train", "lenet300", "--folder", "shipped")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lenet300-digits.json", "lenet300-digits.safetensors"]
    assert torch.equal(trained("lenet300", "digits").fc1.weight, before)


INTERRUPTED = """
import os, signal, sys
from compedu import cli, training
from compedu.networks import recipes

recipes.RECIPES["lenet300", "digits"] = training.Recipe(epochs=1, shift=1)
interrupt = lambda step: step.done == 5 and os.kill(os.getpid(), signal.SIGINT)
with training.listening(interrupt):
    sys.exit(cli.main(["train", "lenet300", "--folder", "weights"]))
"""


def test_an_interrupted_training_goes_on_in_another_process_and_ends_with_the_same_bits(good, one_epoch, tmp_path):
    stopped = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], cwd=tmp_path, env=closed_network(tmp_path), timeout=300,
        capture_output=True, text=True,
    )  # fmt: skip
    assert (stopped.returncode, stopped.stdout) == (130, "")
    assert stopped.stderr == "compedu train: interrupted; the same command resumes where it stopped\n"
    (left,) = (tmp_path / "weights").iterdir()
    assert re.fullmatch(r"lenet300-digits-[0-9a-f]{10}\.training", left.name)
    steps = []
    with training.listening(steps.append):
        good("train", "lenet300", "--folder", "weights")
    assert steps[0].done == 6
    good("train", "lenet300", "--folder", "whole")
    weights, whole = (sorted((tmp_path / folder).iterdir()) for folder in ("weights", "whole"))
    assert [path.name for path in weights] == [path.name for path in whole] and len(whole) == 2
    assert [path.read_bytes() for path in weights] == [path.read_bytes() for path in whole]


def test_run_and_train_compute_on_one_thread_whatever_the_machine_has(good, one_epoch):
    seen = []
    with torch_threads(2), training.listening(lambda step: seen.append(torch.get_num_threads())):
        record = json.loads(good("train", "lenet300", "--folder", "weights"))
        good("run", "FineTune(epochs=1)", "--model", "lenet300")
        assert torch.get_num_threads() == 2
    assert set(seen) == {1} and record["made_with"]["threads"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interruption_is_one_line(number, call, monkeypatch, request):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a program in the background may ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    monkeypatch.setattr(metrics, "measure", lambda *given, **options: os.kill(os.getpid(), number))
    assert call("run", "MagnitudePruning", "--model", "lenet300") == (130, "", "compedu run: interrupted\n")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# Bad input


@pytest.mark.parametrize("arguments, words", [
    ((), "required: COMMAND"),
    (("nosuch",), "'nosuch' (choose from"),
    (("--", "run"), "run"),
    (("run",), "required: METHOD; see: compedu run --help"),
    (("run", "Pruning"), "no method is called 'Pruning'; there are: MagnitudePruning"),
    (("methods", "Pruning"), "no method is called 'Pruning'; there are: MagnitudePruning"),
    (("run", "Pruning", "--help"), "no method is called 'Pruning'"),
    (
        ("run", "MagnitudePruning", "--sparsty", "0.5"),
        "does not know '--sparsty'; see: compedu run MagnitudePruning --help",
    ),
    (("run", "MagnitudePruning", "--spars", "0.5"), "does not know '--spars'"),
    (
        ("run", "MagnitudePruning", "--bits", "5"),
        "has no knob --bits; it has: --sparsity, --budget, --calibration-images, --layers",
    ),
    (("run", "MagnitudePruning", "--layers", "-last"), "--layers needs a value; one that begins with a minus sign"),
    (("run", "MagnitudePruning", "--sparsity"), "--sparsity needs a value"),
    (("run", "MagnitudePruning", "--sparsity", "conv*=0.5,*"), "sparsity must be a number from 0 to below 1, or a"),
    (("run", "MagnitudePruning", "--layers", "nosuch"), "no layer matches 'nosuch'; the layers are conv1, conv2"),
    (("run", "MagnitudePruning", "--sparsity", "nosuch=0.5"), "MagnitudePruning.sparsity: no layer matches 'nosuch'"),
    (("run", "MagnitudePruning", "--model", "nosuch"), "no network is called 'nosuch'; there are: lenet300"),
    (("run", "MagnitudePruning", "--model", "lenet5(width=0.5)"), "no trained weights of 'lenet5(width=0.5)'"),
    (("run", "MagnitudePruning", "--model", "lenet5(width=0.5"), "cannot be read; write a name such as \"lenet5\""),
    (("run", "MagnitudePruning", "--model", "nowhere/m.ce"), "there is no file nowhere/m.ce"),
    (("run", "MagnitudePruning", "--model", "m.ce"), "there is no file m.ce"),
    (("run", "MagnitudePruning", "--model", "./"), ". is not a file, so it holds no model; name a file"),
    (("run", "MagnitudePruning", "--data", "nosuch"), "no data set is called 'nosuch'; there are: digits"),
    (("run", "MagnitudePruning", "--data", "own.npz"), "there is no file own.npz"),
    (("run", "MagnitudePruning", "--data", "mnist"), "compedu data mnist --download"),
    (("run", "MagnitudePruning", "--split", "all"), "--split: invalid choice: 'all' (choose from"),
    (("run", "MagnitudePruning", "--coding", "zip"), "--coding: invalid choice: 'zip' (choose from"),
    (("run", "MagnitudePruning", "--save", "."), ". is not an ordinary file: name another one"),
    (("run", "MagnitudePruning", "--save", os.devnull), "is not an ordinary file"),
    (("run", "MagnitudePruning", "--save", "nowhere/m.ce"), "there is no folder nowhere for m.ce: create it"),
    (("run", "MagnitudePruning(sparsity=1.5) | FineTune()"), "MagnitudePruning.sparsity must be a number from 0 to"),
    (("run", "MagnitudePruning(nosuch=1)"), "MagnitudePruning has no knob 'nosuch'; it has: sparsity"),
    (("run", "MagnitudePruning() |"), "is not a method"),
    (("run", "MagnitudePruning | FineTune"), "is not a method; write it as its repr"),
    (("run", "__import__('os').abort()"), "is not a method; write it as its repr"),
    (("run", "Nosuch() | FineTune()"), "no method is called 'Nosuch'; there are: MagnitudePruning"),
    (("run", "MagnitudePruning(sparsity={[]: 1})"), "is not a method"),
    (("run", "MagnitudePruning(sparsity=" + "-" * 100_000 + "1)"), "is not a method"),
    (("run", PIPELINE, "--bits", "5"), "--bits: the knobs of a pipeline are written in its text"),
    (("sweep", "MagnitudePruning"), "required: --over"),
    (("sweep", "MagnitudePruning", "--over", "nosuch"), "MagnitudePruning has no knob 'nosuch'; it has: sparsity"),
    (("sweep", "MagnitudePruning", "--over=sparsity", "--sparsity", "0.5"), "--sparsity is both given and varied"),
    (("sweep", "MagnitudePruning", "--over=sparsity", "--count=0"), "--count: must be a whole number from 1 on, got"),
    (("sweep", "MagnitudePruning", "--over=sparsity", "--workers=two"), "--workers: must be a whole number from 1 on"),
    (("sweep", "MagnitudePruning", "--over=sparsity", "--workers=10000"), "one process for each core of this machine"),
    (("sweep", "MagnitudePruning", "--over=sparsity", "--store", __file__), "and stays as it is: no line of versions"),
    (("sweep", "MagnitudePruning", "--over=sparsity", "--store", os.devnull), "is not an ordinary file"),
    (("sweep", "MagnitudePruning", "--over", "sparsity", "--store", "."), ". is a folder; name a file"),
    (("sweep", PIPELINE, "--over", "bits"), "a sweep varies a knob of one method"),
    (("inspect",), "required: file"),
    (("inspect", "m.ce"), "there is no file m.ce"),
    (("inspect", "."), ". is not a file, so it holds no model; name a file"),
    (("inspect", "m.ce", "n.ce"), "does not know 'n.ce'"),
    (("data", "nosuch"), "no data set is called 'nosuch'; there are: digits, glyphs, mnist"),
    (("data", "mnist"), "data set 'mnist' is not on this machine"),
    (("data", "."), "holds no images: it must have"),
    (("data", "digits(size=0)"), "data set 'digits(size=0)': Input and output sizes should be greater than 0"),
    (("data", "digits(color=1)"), "'digits(color=1)'"),
    (("data", "--download"), "--download needs the name of a data set"),
    (("train",), "required: network"),
    (("train", "nosuch"), "no network is called 'nosuch'; there are: lenet300"),
    (("train", "lenet5(width=0)"), "lenet5.width must be a positive number, got 0"),
    (("train", "lenet5(size=20)"), "cannot take images of 'digits'"),
    (("train", "lenet5", "--data", "nosuch"), "no data set is called 'nosuch'"),
    (("train", "lenet5", "--folder", __file__), "is not a folder: name one for the weights"),
    (("claim", "D99"), "no experiment is called 'D99'"),
    (("claim", "--run", "quick"), "--run needs a claim, such as: compedu claim D2 --run quick"),
    (("claim", "D4", "--store", "r.jsonl"), "--store says where the runs of --run are kept; add --run quick"),
    (("doctor", "now"), "doctor does not know 'now'"),
    (("run", "RandomPruning", "--save", ""), "--save needs a value, but got an empty string"),
    (("train", "lenet5", "--folder="), "--folder needs a value, but got an empty string"),
    (("run", "FineTune", "--model", "lenet5", "--model=vgg"), "--model is given twice; give it once"),
    (("run", "FineTune", "--lr", "0.1", "--lr", "0.2"), "--lr is given twice; give it once"),
    (("run", "RandomPruning", "--sparsity", "conv*=0.5,conv*=0.6"), "'conv*' is given twice"),
    (("run", "RandomPruning(sparsity=0.5, sparsity=0.6)"), "'sparsity' is given twice"),
    (("run", "RandomPruning(sparsity={'*': 0.5, '*': 0.6})"), "'*' is given twice"),
    (("run", "RandomPruning(**{'sparsity': 0.5})"), "values must be given by name"),
    (("data", "digits(size=8, size=9)"), "'size' is given twice"),
    (("train", "lenet5(width=9999)"), "has 42,491,561,118,940 weights; at most 268,435,456 are built"),
    (("train", "resnet(blocks=99999)"), "resnet.blocks must be a positive whole number, got 99999; the largest is 100"),
    (("lab", "--no-browser"), "options for JupyterLab follow after --"),
    (("lab", "--folder", __file__), "is a file: name a folder for your copy of the chapters"),
], ids=lambda value: " ".join(value)[:60].strip() or "nothing" if isinstance(value, tuple) else "")  # fmt: skip
def test_bad_input_is_refused_in_one_clear_line(arguments, words, refused, tmp_path):
    assert words in refused(*arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change, words", [
    (lambda intact: b"", "is empty"),
    (lambda intact: intact[:-7], "is damaged: cut short or altered"),
    (lambda intact: intact[:100] + bytes([intact[100] ^ 4]) + intact[101:], "is damaged: cut short or altered"),
    (lambda intact: b"PK" + intact, "is not a compedu model file"),
], ids=["empty", "cut", "flipped", "foreign"])  # fmt: skip
def test_a_bad_model_file_is_refused_by_every_command_that_reads_one(change, words, refused, tmp_path):
    path = tmp_path / "bad.ce"
    path.write_bytes(change(files.model_bytes(trained("lenet300", "digits"))))
    for arguments in (("inspect", path), ("inspect", path, "--json"), ("run", "FineTune", "--model", path)):
        assert refused(*arguments).startswith(f"{path} {words}")


def test_a_model_file_of_a_newer_version_says_so(refused, tmp_path, monkeypatch):
    from compedu.files import header

    with monkeypatch.context() as newer:
        newer.setattr(header, "VERSION", header.VERSION + 1)
        files.save(trained("lenet300", "digits"), "new.ce")
    assert f"new.ce has format version {header.VERSION + 1}" in refused("inspect", "new.ce")
    assert "update compedu" in refused("run", "FineTune", "--model", "new.ce")


def test_a_model_of_other_images_is_refused(refused):
    files.save(compedu.build("lenet300(size=20)"), "m.ce")
    for method in ("MagnitudePruning", "LinearQuantization(activation_bits=8)", "FineTune"):
        assert "cannot take images of 'digits', shape (1, 28, 28)" in refused("run", method, "--model", "m.ce")


def test_a_file_that_cannot_be_written_after_all_is_refused_and_leaves_nothing(refused, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    message = refused("run", "RandomPruning", "--model", "lenet300", "--save", "m.ce")
    assert message == "m.ce cannot be written: No space left on device\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written_to_is_refused_before_anything_slow(refused, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert "is not writable" in refused("run", "FineTune", "--model", "nosuch", "--save", "m.ce")


def test_a_file_that_may_not_be_read_is_refused(refused, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(files, "describe", forbidden)
    assert refused("inspect", "m.ce") == "m.ce may not be opened: change its permissions, or name another file\n"


@pytest.mark.parametrize("command", [("inspect",), ("inspect", "--json"), ("run", "FineTune", "--model")])
def test_pipes_and_devices_are_not_waited_for(command, refused, tmp_path):
    os.mkfifo("pipe.ce")
    for name in ("pipe.ce", "/dev/zero"):
        assert refused(*command, name) == f"{name} is not an ordinary file: name a model file\n"


# A real process


def process(folder, *arguments, **options):
    command = [sys.executable, "-m", "compedu.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=closed_network(folder), text=True, timeout=300, **options)


def test_a_process_prints_json_and_nothing_else(tmp_path):
    arguments = ("run", "LinearQuantization", "--bits", "4", "--model", "lenet300", "--json")
    done = process(tmp_path, *arguments, capture_output=True)
    report = json.loads(done.stdout)
    assert (done.returncode, report["method"], done.stderr) == (0, "LinearQuantization(bits=4)", "")
    assert report["latency"]["verdict"] and report["file_bytes"] < report["baseline_file_bytes"]


def test_a_process_that_refuses_ends_with_2(tmp_path):
    done = process(tmp_path, "run", "LinearQuantization", "--bits", "17", capture_output=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "compedu run: LinearQuantization.bits must be a whole number from 1 to 16, or a mapping of layer names to such "
        "values, got 17 (bits per weight)\n"
    )


def test_a_reader_that_stops_early_is_no_error(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = process(tmp_path, "--help", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed, arguments, code", [
    ((1,), ("--help",), 0), ((2,), ("--help",), 0), ((1, 2), ("nosuch",), 2), ((2,), ("nosuch",), 2),
])  # fmt: skip
def test_a_process_without_output_or_error_stream_runs_and_ends_as_any_other(tmp_path, closed, arguments, code):
    done = process(tmp_path, *arguments, preexec_fn=lambda: [os.close(stream) for stream in closed])
    assert done.returncode == code


def test_a_full_disk_under_the_output_is_named(tmp_path):
    with open("/dev/full", "w") as full:
        done = process(tmp_path, "methods", stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (2, "compedu methods: the output: No space left on device\n")


def test_doctor_and_help_work_where_torch_cannot_be_loaded(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('torch is broken')")
    program = "import sys; sys.path.insert(0, '.'); from compedu.cli import main; sys.exit(main(sys.argv[1:]))"
    for argument, words in (("doctor", "torch is broken"), ("--help", "COMMAND")):
        command = [sys.executable, "-c", program, argument]
        environment = closed_network(tmp_path)
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 and words in done.stdout, done.stderr


def test_the_installed_command_is_this_one():
    text = (ROOT / "pyproject.toml").read_text()
    assert 'compedu = "compedu.cli:main"' in text
