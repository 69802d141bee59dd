"""What each command does with its options. Heavy modules are imported where used: `doctor` runs without torch."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compedu.errors import CompressionError
from compedu.reading import refuse_unending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from compedu.claims import Experiment
    from compedu.claims.store import Run
    from compedu.datasets.dataset import Dataset
    from compedu.knobs import Knob
    from compedu.methods import Method
    from compedu.metrics import Report

SHIPPED = "shipped"  # in place of a file: the one that comes with the package
KNOB = "knob:"  # prefix of the names of knobs among the options


def methods(given: argparse.Namespace) -> None:
    """List all methods by family; with a name, show this method's card."""
    from compedu.methods import FAMILIES, METHODS, find
    from compedu.methods.card import card

    if given.name:
        print(card(find(given.name)))
        return
    for family, title in FAMILIES.items():
        listed = [method for method in METHODS if method.family == family]
        if listed:
            print(title)
        for method in listed:
            print(f"  {method.__name__}: {summary(method)}")
    print("compedu methods NAME shows the knobs of a method.")


def run(given: argparse.Namespace) -> None:
    """Compress a trained network with one method, or several in a row, and measure it: on one thread, as in sweeps."""
    from compedu import files
    from compedu.metrics import measure
    from compedu.reproducible import torch_threads

    method = method_with_knobs(given)
    target = None if given.save is None else place_for_file(given.save)
    model, data = network_and_data(given)
    with torch_threads(1):
        small = method(model, data)
        if target:
            try:
                written = files.save(small, target, coding=given.coding)
            except OSError as error:
                raise ValueError(f"{target} cannot be written: {error.strerror}") from error
            print(f"{target}: {written:,} bytes written", file=sys.stderr)
        report = measure(small, data, baseline=model, split=given.split)
    print(as_json(report.as_dict(), indent=2) if given.json else report)


def inspect(given: argparse.Namespace) -> None:
    """Show what each byte of a model file is for."""
    from compedu import files

    path = file_to_read(given.file)
    if given.json:
        found = files.inspect(path)
        print(as_json(asdict(found) | {"bytes": found.bytes, "totals": found.totals}, indent=2))
    else:
        print(files.describe(path))


def train(given: argparse.Namespace) -> None:
    """Train a network from scratch on one thread and keep its weights; an interrupted run resumes where it stopped."""
    from compedu.evaluation import refuse_misfit
    from compedu.networks.fitting import network_for
    from compedu.networks.recipes import remake, train_own
    from compedu.reproducible import torch_threads

    folder = None if given.folder in (None, SHIPPED) else Path(given.folder).expanduser()
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: name one for the weights")
    chosen = data_called(given.data)
    refuse_misfit(network_for(given.network, chosen), chosen)  # before anything is trained
    with torch_threads(1):
        if given.folder == SHIPPED:
            path, record = remake(given.network, chosen, given.confirm)
        else:
            path, record = train_own(given.network, chosen, folder, given.confirm)
    print(as_json(record, indent=2))
    print(f"{path}: weights of {given.network} for {chosen.name}", file=sys.stderr)


def data(given: argparse.Namespace) -> None:
    """Show a data set, or all names; --download fetches a real one."""
    from compedu import datasets

    if given.name:
        print(data_called(given.name, download=given.download))
        return
    if given.download:
        raise ValueError("--download needs the name of a data set, such as: compedu data mnist --download")
    for name in datasets.DATASETS:
        try:
            print(datasets.load(name))
        except datasets.MissingData as error:
            print(f"{name}: {error}")


def sweep(given: argparse.Namespace) -> int:
    """Measure a method at many values of one knob; an interrupted sweep resumes where it stopped."""
    from compedu.methods import Pipeline
    from compedu.sweeps import grid
    from compedu.sweeps import sweep as sweeping

    method = method_with_knobs(given)
    over = given.over.replace("-", "_")
    if isinstance(method, Pipeline):
        raise ValueError(f"a sweep varies a knob of one method, and {method!r} is a pipeline; give one of its steps")
    if getattr(given, KNOB + over, None) is not None:
        raise ValueError(f"{option(over)} is both given and varied; omit one of the two")
    points = grid(method, over, given.count)
    model, chosen = network_and_data(given)
    running = sweeping(
        points, model, chosen, split=given.split, workers=given.workers, speed=given.speed, store=given.store
    )
    done = 0
    for report in running:
        print(as_json(report.as_dict()) if given.json else figures(report), flush=True)
        done += 1
    for failure in running.failures:
        print(f"compedu sweep: skipped: {one_line(failure.message)}", file=sys.stderr)
    return 0 if done else 2


def claim(given: argparse.Namespace) -> None:
    """Show a claim of the survey on trial, with its runs and verdict; without a name, list the claims."""
    from compedu.claims import CLAIMS, experiment

    chosen = [experiment(given.name)] if given.name else CLAIMS
    in_shipped = given.store == SHIPPED
    if given.store and not given.run:
        raise ValueError("--store says where the runs of --run are kept; add --run quick or --run full")
    if given.run and not given.name and not in_shipped:
        raise ValueError(f"--run needs a claim, such as: compedu claim {CLAIMS[0].key} --run quick")
    for one in chosen:
        live = one.run(given.run == "full", one.path if in_shipped else given.store) if given.run else ()
        if given.name:
            show_claim(one, live)
        else:
            print(f"{one.key}: {one.title}; {verdict_in_words(one)}")


def show_claim(chosen: "Experiment", live: "Sequence[Run]") -> None:
    """Print the page of a claim; where shipped runs are missing, the page of the `live` ones, and what is missing."""
    from compedu.claims.page import page

    try:
        print(chosen.page(live), end="")
    except CompressionError as missing:
        if not live:
            raise
        print(page(chosen, {"run just now": live}), end="")
        print(f"compedu claim: {one_line(missing)}", file=sys.stderr)


def verdict_in_words(claim: "Experiment") -> str:
    """Return the verdict on a claim from its shipped runs, or the command that produces them."""
    try:
        return f"{claim.judge(claim.stored(full=True)).verdict} at our scale"
    except CompressionError:
        return f"no stored runs: {claim.command(full=True)}"


def lab(given: argparse.Namespace) -> None:
    """Open JupyterLab on your own copy of the chapters; options after -- go to JupyterLab."""
    from compedu.lab import open_lab

    open_lab(given.folder, given.arguments)


def doctor(given: argparse.Namespace) -> None:
    """Report what is installed, which kernels this CPU has, what is missing and what to do."""
    from compedu.doctor import report

    print(report())


# What several commands share.


def option(name: str) -> str:
    """Return the command-line option of a knob."""
    return "--" + name.replace("_", "-")


def summary(thing: type | Callable) -> str:
    """Return the first sentence of a docstring, its formulas as plain text."""
    return (thing.__doc__ or "").strip().splitlines()[0].replace("$", "").replace(r"\times", "x")


def one_line(thing: object) -> str:
    """Return `thing` as text in one line."""
    return " ".join(str(thing).split())


def as_json(values: dict, **style: Any) -> str:
    """Return `values` as JSON; raises `ValueError` for numbers that JSON lacks, such as NaN."""
    return json.dumps(values, allow_nan=False, **style)


def figures(report: "Report") -> str:
    """Return the three figures of a report in one line."""
    low, high = report.accuracy_interval
    share = "accuracy" if report.criterion is None else f"correct ({report.criterion})"
    text = f"{report.method}: {share} {report.accuracy:.2%} ({low:.2%} to {high:.2%}), {report.file_bytes:,} bytes"
    if report.latency is None:
        return text
    return f"{text}, {report.latency.speed_up:.3g} times the speed ({report.latency.verdict})"


def method_called(text: str) -> "Method":
    """Return the method with this name or `repr`, such as "A(x=0.5) | B()"."""
    from compedu.methods import find
    from compedu.sweeps import method_of

    if "(" not in text and "|" not in text:
        return find(text)()
    return method_of(text)


def method_with_knobs(given: argparse.Namespace) -> "Method":
    """Return the method that METHOD names, with the knobs given as options; `ValueError` for unknown knobs."""
    from compedu.knobs import knobs
    from compedu.methods import Pipeline

    method = method_called(given.method)
    values = {key: text for key, text in vars(given).items() if text is not None}
    knob_texts = {key.removeprefix(KNOB): text for key, text in values.items() if key.startswith(KNOB)}
    if knob_texts and isinstance(method, Pipeline):
        raise ValueError(f"{option(next(iter(knob_texts)))}: the knobs of a pipeline are written in its text")
    known = knobs(method)
    for name in knob_texts.keys() - known.keys():
        raise ValueError(f"{type(method).__name__} has no knob {option(name)}; it has: {', '.join(map(option, known))}")
    return replace(method, **{name: value_of(known[name], text) for name, text in knob_texts.items()})


def value_of(knob: "Knob", text: str) -> Any:
    """Return the value of `text`; what cannot be parsed stays a string, which the method refuses by name."""
    from compedu.specs import RepeatedName

    try:
        return knob.parse(text)
    except RepeatedName:
        raise
    except ValueError:
        return text


def network_and_data(given: argparse.Namespace) -> tuple["nn.Module", "Dataset"]:
    """Return the trained network and the data that a command names; --model may be a model file."""
    from compedu import files, pairs

    chosen = data_called(given.data)
    if is_path(given.model):
        return files.load(file_to_read(given.model)), chosen
    return pairs.load(given.model, chosen)


def data_called(name: str, download: bool = False) -> "Dataset":
    """Return the data set called `name`, an .npz file, or a folder of images."""
    from compedu import datasets

    if is_path(name) and not Path(name).expanduser().exists():
        raise FileNotFoundError(2, "", name)
    try:
        return datasets.load(name, download=download)
    except RuntimeError as error:  # of torch, for a knob such as size=0; of torchvision, for a failed download
        raise ValueError(f"data set {name!r}: {error}") from error


def is_path(name: str) -> bool:
    """Tell whether `name` means a file or folder rather than a network or data set with its knobs."""
    path = Path(name).expanduser()
    return path.is_file() or ("(" not in name and (path.name != name or path.suffix != ""))


def file_to_read(name: str) -> Path:
    """Return the path called `name`; pipes and devices are refused, as they may be endless."""
    path = Path(name).expanduser()
    refuse_unending(path, "name a model file")
    return path


def place_for_file(name: str) -> Path:
    """Return the path called `name` if a file can be written there: checked before an hour of training, not after."""
    path = Path(name).expanduser()
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not an ordinary file: name another one for the model")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} for {path.name}: create it, or name another file")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"the folder {path.parent} is not writable: name a file in another one")
    return path
