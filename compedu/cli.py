"""The command line: its commands and their options; each option that sets a knob is derived from the knob."""

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from compedu import __version__, commands
from compedu.commands import KNOB, one_line, option, summary

GIVEN = "given"  # in the parsed options: the names that had a value


class Parser(argparse.ArgumentParser):
    """Reads options, never abbreviated; invalid ones raise a `ValueError` that says what to type."""

    def __init__(self, **settings):
        super().__init__(**settings, allow_abbrev=False)
        self.register("action", None, Once)

    def error(self, message: str) -> NoReturn:
        """Raise argparse's `message`, and say what to do."""
        if lacking := re.fullmatch(r"argument (\S+): expected one argument", message):
            name = lacking[1]
            hint = "one that begins with a minus sign is joined to it, as in --layers=-last"
            raise ValueError(f"{name} needs a value; {hint}")
        raise ValueError(f"{message}; see: {self.prog} --help")


class Once(argparse.Action):
    """Stores a value; a second one for the same name, or an empty one, is refused."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        if values == "":
            raise ValueError(f"{option_string or self.metavar or self.dest} needs a value, but got an empty string")
        given = vars(namespace).setdefault(GIVEN, set())
        if self.dest in given:
            raise ValueError(f"{option_string} is given twice; give it once")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


class MethodHelp(argparse.Action):
    """--help of a command that takes a method; after the method's name it shows the knobs of that method."""

    def __call__(self, parser, namespace, values, option_string=None) -> NoReturn:
        from compedu.methods import Pipeline

        method = type(commands.method_called(namespace.method)) if namespace.method else None
        if method not in (None, Pipeline):
            usage = f"{parser.prog} {method.__name__} [--KNOB VALUE ...] [OPTION ...]"
            parser = Parser(prog=parser.prog, usage=usage, description=summary(method), add_help=False)
            self.const(parser, method)
        parser.print_help()
        parser.exit()


# The options of each command, declared on its parser.

DATA = "a data set by name, an .npz file, or a folder of images (digits)"


def declare_run(parser: Parser, shown: type | None = None) -> None:
    """Declare the options of `run`; the help shows the knobs of the method `shown`."""
    from compedu import files

    _declare_method(parser, shown, declare_run)
    parser.add_argument("--save", metavar="FILE", help="write the compressed model to this file")
    parser.add_argument("--coding", default="packed", choices=files.CODINGS, help="how the file is coded")


def declare_sweep(parser: Parser, shown: type | None = None) -> None:
    """Declare the options of `sweep`; the help shows the knobs of the method `shown`."""
    _declare_method(parser, shown, declare_sweep)
    parser.add_argument("--over", required=True, metavar="KNOB", help="the knob that is varied")
    parser.add_argument("--count", type=_number, default=9, metavar="NUMBER", help="how many values, at most (9)")
    parser.add_argument("--workers", type=_number, default=1, metavar="NUMBER", help="processes (1)")
    parser.add_argument("--speed", action="store_true", help="measure speed too, one point at a time")
    parser.add_argument("--store", metavar="FILE", help="keep the points in this file, and resume from it")


def _declare_method(parser: Parser, shown: type | None, declare: Callable) -> None:
    from compedu import datasets

    parser.add_argument(
        "method", metavar="METHOD",
        help='a name from `compedu methods`, whose knobs are options too ("METHOD --help" shows them), or a method '
        'with its knobs, such as "MagnitudePruning(sparsity=0.6) | LinearQuantization(bits=5)"',
    )  # fmt: skip
    if shown is None:
        about = "show this message, or METHOD's knobs"
        parser.add_argument("-h", "--help", nargs=0, action=MethodHelp, const=declare, help=about)
    parser.add_argument("--model", default="lenet5", help="a network with shipped weights, or a model file (lenet5)")
    parser.add_argument("--data", default="digits", help=DATA)
    parser.add_argument("--split", default="validation", choices=datasets.SPLITS, help="the images to measure on")
    parser.add_argument("--json", action="store_true", help="print JSON")
    declare_knobs(parser, shown)


def declare_knobs(parser: argparse.ArgumentParser, shown: type | None = None) -> None:
    """Declare an option for each knob of any method; only those of the method `shown` are in the help."""
    from compedu.knobs import knobs
    from compedu.methods import METHODS

    visible = knobs(shown) if shown else {}
    group = parser.add_argument_group(f"knobs of {shown.__name__}" if shown else "knobs")
    for name in visible | {name: None for method in METHODS for name in knobs(method)}:
        text = argparse.SUPPRESS
        if name in visible:
            knob = visible[name]
            by_layer = "; or by layer, as in 'conv*=%s,*=%s'" % ((knob.default,) * 2) if knob.per_layer else ""
            text = f"{knob.help}; {knob}{by_layer}; {knob.default} by default".replace("%", "%%")
        group.add_argument(option(name), dest=KNOB + name, metavar="VALUE", help=text)


def declare_methods(parser: Parser) -> None:
    """Declare the options of `methods`."""
    parser.add_argument("name", nargs="?", metavar="METHOD", help="show the card of this method (default: list all)")


def declare_train(parser: Parser) -> None:
    """Declare the options of `train`."""
    parser.add_argument("network", help='such as "lenet5" or "lenet5(width=0.5)"')
    parser.add_argument("--data", default="digits", help=DATA)
    parser.add_argument(
        "--folder",
        help=f"where the weights go (default: your own, where --model finds them); `{commands.SHIPPED}` stands for "
        "that of the package itself, whose weights are then replaced",
    )
    parser.add_argument(
        "--confirm", action="store_true", help="also train twice as long, to check that the training is long enough"
    )


def declare_data(parser: Parser) -> None:
    """Declare the options of `data`."""
    parser.add_argument("name", nargs="?", help="a data set (default: all)")
    parser.add_argument("--download", action="store_true", help="fetch it if it is not on this machine")


def declare_inspect(parser: Parser) -> None:
    """Declare the options of `inspect`."""
    parser.add_argument("file", help="a model file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def declare_claim(parser: Parser) -> None:
    """Declare the options of `claim`."""
    parser.add_argument("name", nargs="?", metavar="CLAIM", help="a claim, such as D4 (default: list all)")
    parser.add_argument("--run", choices=("quick", "full"), help="run it here as well: minutes")
    parser.add_argument(
        "--store", metavar="FILE",
        help=f"keep these runs in this file, and resume from it; `{commands.SHIPPED}` stands for the file of the "
        "package itself, whose missing runs are then added (default: the runs are shown, but not kept)",
    )  # fmt: skip


def declare_lab(parser: Parser) -> None:
    """Declare the options of `lab`."""
    parser.add_argument("--folder", default=None, help="your folder (default: made in the current one)")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="options for JupyterLab, after --")


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text!r}")
    return int(text)


class Command(NamedTuple):
    """A command: what it does, and the declaration of its options."""

    run: Callable[[argparse.Namespace], int | None]
    declare: Callable[[Parser], None] = lambda parser: None


COMMANDS: dict[str, Command] = {
    "methods": Command(commands.methods, declare_methods),
    "run": Command(commands.run, declare_run),
    "inspect": Command(commands.inspect, declare_inspect),
    "train": Command(commands.train, declare_train),
    "data": Command(commands.data, declare_data),
    "sweep": Command(commands.sweep, declare_sweep),
    "claim": Command(commands.claim, declare_claim),
    "lab": Command(commands.lab, declare_lab),
    "doctor": Command(commands.doctor),
}
WITH_METHOD = ("run", "sweep")  # their --help is defined here


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 2 with one clear line for bad input, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_closed_streams()
    name = arguments[0] if arguments and arguments[0] in COMMANDS else ""
    where = f"compedu {name}".strip()
    try:
        try:
            given = options(arguments, name)
            with _termination_interrupts():
                code = COMMANDS[name].run(given) or 0
        except SystemExit as ended:  # argparse has shown a help text
            code = ended.code or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has closed the pipe, as in `compedu methods | head`
        _drop_output()
        return 0
    except OSError as error:
        print(f"{where}: {about_file(error)}", file=sys.stderr)
        if error.filename is None:  # flushing the remaining output at exit would fail again
            _drop_output()
    except ValueError as error:  # all errors of compedu about knobs, models, data and files are ValueErrors
        print(f"{where}: {one_line(error)}", file=sys.stderr)
    except KeyboardInterrupt:
        stored = name in ("sweep", "claim") and any(text.startswith("--store") for text in arguments)
        goes_on = name == "train" or stored
        hint = "; the same command resumes where it stopped" if goes_on else ""
        print(f"{where}: interrupted{hint}", file=sys.stderr)
        return 130
    return 2


@contextlib.contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: trainings are saved, workers ended, partial files removed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _open_closed_streams() -> None:
    """Give a process that was started without output or error stream one that discards everything."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _drop_output() -> None:
    """Discard the pending output, which the interpreter would otherwise try to write again."""
    with contextlib.suppress(OSError):  # an output that is not a file, as in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def options(arguments: list[str], name: str) -> argparse.Namespace:
    """Return the options of the command `name`; those of other commands are not declared, which saves time."""
    parser = Parser(prog="compedu", description="Learn neural-network compression by turning knobs.")
    parser.add_argument("--version", action="version", version=f"compedu {__version__}")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for known, command in COMMANDS.items():
        about = summary(command.run)
        added = parsers.add_parser(known, help=about, description=about, add_help=known not in WITH_METHOD)
        if known == name:
            command.declare(added)
    given, rest = parser.parse_known_args(arguments)
    if not name:
        raise ValueError(f"a command comes first: {', '.join(COMMANDS)}")
    if rest:
        hint = "; options for JupyterLab follow after --" if name == "lab" else ""
        method = f" {given.method}" if isinstance(getattr(given, "method", None), str) else ""
        raise ValueError(f"{name} does not know {rest[0]!r}{hint}; see: compedu {name}{method} --help")
    return given


def about_file(error: OSError) -> str:
    """Return what is wrong with a file, in words."""
    place = error.filename
    if isinstance(error, FileNotFoundError) and place:
        return f"there is no file {place}"
    if isinstance(error, IsADirectoryError) and place:
        return f"{place} is a folder; name a file"
    if isinstance(error, PermissionError) and place:
        return f"{place} may not be opened: change its permissions, or name another file"
    return one_line(f"{place or 'the output'}: {error.strerror}" if error.strerror else error)


if __name__ == "__main__":
    sys.exit(main())
