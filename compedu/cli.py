"""The command line: every option that sets a knob is derived from the knob."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from compedu import datasets, files
from compedu.knobs import Knob, knobs
from compedu.methods import METHODS, TOPICS, Method, find


def methods(given: argparse.Namespace) -> None:
    """List all methods by family, with their knobs."""
    for topic, family in TOPICS.items():
        listed = [method for method in METHODS if method.topic == topic]
        if listed:
            print(family)
        for method in listed:
            print(f"  {method.__name__}: {summary(method)}")
            for name, knob in knobs(method).items():
                print(f"      {option(name)} {knob.default!r}: {knob.help} ({knob})")


def run(given: argparse.Namespace) -> None:
    """Compress a trained network with one method and measure it."""
    method = built(find(given.method), given.knobs)
    model, data = network_and_data(given)
    small = method(model, data)
    if given.save:
        files.save(small, given.save, coding=given.coding)
    from compedu.metrics import measure

    report = measure(small, data, baseline=model, split=given.split)
    print(json.dumps(report.as_dict(), indent=2) if given.json else report)


def inspect(given: argparse.Namespace) -> None:
    """Show what each byte of a model file is for."""
    if given.json:
        print(json.dumps(asdict(files.inspect(given.file)), indent=2))
    else:
        print(files.describe(given.file))


def train(given: argparse.Namespace) -> None:
    """Train a network from scratch and keep its weights; an interrupted run goes on where it stopped."""
    from compedu.networks.recipes import remake

    folder = Path(given.folder) if given.folder else None
    record = remake(given.network, datasets.load(given.data), folder, confirm=given.confirm)
    print(json.dumps(record, indent=2))


def data(given: argparse.Namespace) -> None:
    """Show a data set, or all names; --download fetches a real one."""
    for name in [given.name] if given.name else list(datasets.DATASETS):
        try:
            print(datasets.load(name, download=given.download))
        except datasets.MissingData as error:
            if given.name:
                raise
            print(f"{name}: {error}")


def sweep(given: argparse.Namespace) -> None:
    """Measure a method at many values of one knob; an interrupted sweep goes on where it stopped."""
    from compedu.sweeps import grid
    from compedu.sweeps import sweep as sweeping

    method = built(find(given.method), given.knobs)
    model, chosen = network_and_data(given)
    points = grid(method, given.over, given.count)
    for report in sweeping(points, model, chosen, split=given.split, workers=given.workers, speed=given.speed, store=given.store):
        print(json.dumps(report.as_dict()) if given.json else one_line(report))


def lab(given: argparse.Namespace) -> None:
    """Open JupyterLab on your own copy of the chapters; options after -- go to JupyterLab."""
    from compedu.lab import open_lab

    open_lab(given.folder, given.arguments)


def doctor(given: argparse.Namespace) -> None:
    """Tell what is installed, which kernels this CPU has, what is missing and what to do."""
    from compedu.doctor import report

    print(report())


class Command(NamedTuple):
    """A command: what it does, and how its options are declared."""

    run: Callable[[argparse.Namespace], None]
    declare: Callable[[argparse.ArgumentParser], None]


def option(name: str) -> str:
    """Return the command-line option of a knob."""
    return "--" + name.replace("_", "-")


def summary(thing: type | Callable) -> str:
    """Return the first sentence of a docstring."""
    return (thing.__doc__ or "").strip().splitlines()[0]


def one_line(thing: object) -> str:
    """Return a text as one line."""
    return " ".join(str(thing).split())


def built(method: type[Method], texts: list[str]) -> Method:
    """Return `method` with the knobs given as ["--name", "value", ...]; `ValueError` for what cannot be read."""
    declared = knobs(method)
    parser = argparse.ArgumentParser(prog=f"compedu run {method.__name__}", add_help=False, exit_on_error=False)
    for name, knob in declared.items():
        parser.add_argument(option(name), dest=name, type=_reader(knob), help=knob.help)
    try:
        given, rest = parser.parse_known_args(texts)
    except argparse.ArgumentError as error:
        raise ValueError(f"{method.__name__}: {error}") from error
    if rest:
        known = ", ".join(map(option, declared))
        raise ValueError(f"{method.__name__} does not know {rest[0]!r}; its knobs are: {known}")
    return method(**{name: value for name, value in vars(given).items() if value is not None})


def _reader(knob: Knob) -> Callable[[str], object]:
    def read(text: str) -> object:
        try:
            return knob.parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {knob}") from None

    return read


def network_and_data(given: argparse.Namespace) -> tuple:
    """Return the trained network and the data that a command names; --model may be a model file."""
    from compedu.networks.shipped import trained

    chosen = datasets.load(given.data)
    path = Path(given.model)
    return (files.load(path) if path.is_file() else trained(given.model, chosen.name.split("(")[0])), chosen


def _on(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", metavar="METHOD", help="a name from `compedu methods`; its knobs are options too")
    parser.add_argument("--model", default="lenet5", help="a network with shipped weights, or a model file")
    parser.add_argument("--data", default="digits", help="a data set by name, an .npz file, or a folder of images")
    parser.add_argument("--split", default="validation", choices=datasets.SPLITS)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run(parser: argparse.ArgumentParser) -> None:
    _on(parser)
    parser.add_argument("--save", metavar="FILE", help="write the compressed model to this file")
    parser.add_argument("--coding", default="packed", choices=files.CODINGS, help="how the file is coded")


def _sweep(parser: argparse.ArgumentParser) -> None:
    _on(parser)
    parser.add_argument("--over", required=True, metavar="KNOB", help="the knob that is varied")
    parser.add_argument("--count", type=int, default=9, help="how many values")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--speed", action="store_true", help="measure speed too, one point at a time")
    parser.add_argument("--store", metavar="FILE", help="keep the points in this file")


def _train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", help='such as "lenet5" or "lenet5(width=0.5)"')
    parser.add_argument("--data", default="digits")
    parser.add_argument("--folder", help="where the weights go (default: where the package looks)")
    parser.add_argument("--confirm", action="store_true", help="also train with twice the epochs, to see that it is enough")


def _data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a data set (default: all)")
    parser.add_argument("--download", action="store_true", help="fetch it if it is not on this machine")


def _inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _lab(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", default=None, help="your folder (default: made in the current one)")
    parser.add_argument("arguments", nargs="*", help="options for JupyterLab, after --")


COMMANDS: dict[str, Command] = {
    "methods": Command(methods, lambda parser: None),
    "run": Command(run, _run),
    "inspect": Command(inspect, _inspect),
    "train": Command(train, _train),
    "data": Command(data, _data),
    "sweep": Command(sweep, _sweep),
    "lab": Command(lab, _lab),
    "doctor": Command(doctor, lambda parser: None),
}
TAKES_KNOBS = ("run", "sweep")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 2 with one clear line for bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="compedu", description="Learn neural-network compression by turning knobs.")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        about = summary(command.run)
        command.declare(parsers.add_parser(name, help=about, description=about, allow_abbrev=False))
    given, rest = parser.parse_known_args(arguments)
    if rest and given.command not in TAKES_KNOBS:
        parser.error(f"{given.command} does not know {rest[0]!r}")
    given.knobs = rest
    try:
        COMMANDS[given.command].run(given)
    except (ValueError, OSError) as error:  # all errors of compedu about models, data and files are ValueErrors
        print(f"compedu {given.command}: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"compedu {given.command}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
