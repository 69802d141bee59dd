"""What is installed, what this machine can do, what is missing, and what to do about it."""

import importlib
import json
import os
import pkgutil
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

import compedu
from compedu.errors import CompressionError, MissingData, first_line
from compedu.shipped import is_checkout, shipped

PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest tested version
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
CPU_FLAGS = {"AVX2": "avx2", "AVX-512": "avx512_f", "AVX-512 VNNI": "avx512_vnni", "AVX VNNI": "avx_vnni"}


class FindingState(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    NOTE = "note"  # it works, with a limitation
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One finding of an area: its state, what was found, and what to do (`cure`)."""

    area: str
    state: FindingState
    text: str
    cure: str = ""


def report() -> str:
    """All findings as text by area, one per line, with the cure of what is missing below it, and a count at the end."""
    lines = []
    area = None
    findings = list(examine())
    for found in findings:
        if found.area != area:
            area = found.area
            lines.append(area)
        lines.append(f"  {found.state:8}{found.text}")
        if found.cure:
            lines.append(f"{'':10}-> {found.cure}")
    missing = sum(found.state == FindingState.MISSING for found in findings)
    lines.append(f"{missing} missing" if missing else "Nothing is missing.")
    return "\n".join(lines)


def examine() -> Iterator[Finding]:
    """Examine everything, one finding after another; never raises because of what it finds."""
    for look in (python, packages, processor, kernels, jupyter, parts, shipped_files, claims, data_sets, browser):
        area = look.__name__.replace("_", " ").capitalize()
        try:
            for state, text, *cure in look():
                yield Finding(area, state, text, *cure)
        except Exception as error:  # a broken installation is what this command is for
            yield Finding(area, FindingState.MISSING, f"{type(error).__name__}: {error}", "install compedu again")


def python():
    """This Python, and whether the tests ran on its version."""
    text = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}: {sys.executable}"
    low, high = (".".join(map(str, version)) for version in PYTHONS)
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        yield FindingState.OK, text
    else:
        yield FindingState.NOTE, text, f"the tests ran on Python {low} to {high}: use one of them if something fails"


def tested_versions() -> dict[str, str]:
    """The tested versions, by package."""
    lines = shipped("requirements", "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def packages():
    """The dependencies of compedu, compared with the tested versions."""
    tested = {_canonical(name): version for name, version in tested_versions().items()}
    optional = set()
    for requirement in metadata.requires("compedu") or []:
        name = _canonical(re.match(r"[\w.-]+", requirement).group())
        extra = re.search(r"extra == ['\"]([\w-]+)", requirement)
        version = _installed(name)
        if version is None and extra:
            optional.add(extra.group(1))
        elif version is None:
            yield FindingState.MISSING, name, f"pip install {name}=={tested[name]}"
        elif version.split("+")[0] != tested[name]:
            cure = f"if it fails: pip install {name}=={tested[name]}"
            yield FindingState.NOTE, f"{name} {version}; the tests ran with {tested[name]}", cure
        elif not extra:
            yield FindingState.OK, f"{name} {version}"
    for extra in sorted(optional):
        yield (
            FindingState.NOTE,
            f"the extra '{extra}' is not complete",
            f'only if you need it: install compedu again with [{extra}], as the README\'s "Installation in words" says',
        )


def processor():
    """What torch computes with."""
    import torch

    able = torch.cpu.get_capabilities()
    flags = [name for name, flag in CPU_FLAGS.items() if able.get(flag)]
    cores = f"{torch.get_num_threads()} threads on {os.cpu_count()} logical cores"
    yield FindingState.OK, f"torch {torch.__version__}: {cores}; {', '.join(flags) or 'no AVX instructions'}"
    if torch.cuda.is_available():
        yield (
            FindingState.NOTE,
            f"{torch.cuda.get_device_name(0)} is there; compedu computes and measures on the processor",
        )


def kernels():
    """Which arithmetic a deployed network uses on this machine."""
    from compedu.deployment import available

    int8 = available()
    text = f"8-bit integers: {int8.name} ({int8.reason})"
    if int8.name == "simulated":
        yield (
            FindingState.NOTE,
            text,
            "quantized networks run in float here: sizes and accuracy hold, speed-ups do not show",
        )
    else:
        yield FindingState.OK, text


def jupyter():
    """JupyterLab, and whether its widgets are those of the kernel's Python."""
    program = shutil.which("jupyter-lab")
    ours = Path(sys.executable).parent
    if program and Path(program).parent.resolve() != ours.resolve():
        yield (
            FindingState.NOTE,
            f"jupyter-lab on the PATH is {program}",
            f"start it by `compedu lab`, which uses {ours}",
        )
    for extension in ("anywidget", "jupyterlab-plotly", "@jupyter-widgets/jupyterlab-manager"):
        yield _extension(extension)


def _extension(name):
    from jupyter_core.paths import jupyter_path

    packages = {"jupyterlab-plotly": "plotly", "@jupyter-widgets/jupyterlab-manager": "jupyterlab_widgets"}
    package = packages.get(name, name)
    found = (Path(path) / name / "package.json" for path in jupyter_path("labextensions"))
    file = next((path for path in found if path.exists()), None)
    version = metadata.version(package)
    if file is None:
        return FindingState.MISSING, f"{package} in JupyterLab", f"pip install --force-reinstall {package}=={version}"
    front = json.loads(file.read_text(encoding="utf-8"))["version"]
    # The front ends of plotly and of the widget manager have their own version numbers; anywidget's must match.
    if name == "anywidget" and front.split(".")[:2] != version.split(".")[:2]:
        return (
            FindingState.MISSING,
            f"anywidget {version}, but JupyterLab has {front}",
            f"pip install anywidget=={version}",
        )
    return FindingState.OK, f"{package} {version}; in JupyterLab {front}"


def parts():
    """Every module of compedu, imported: after an interrupted update some cannot be."""
    names = [found.name for found in pkgutil.walk_packages(compedu.__path__, "compedu.", onerror=lambda name: None)]
    broken = {}
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            broken.setdefault(f"{type(error).__name__}: {first_line(error)}", []).append(name)
    for reason, same in broken.items():
        more = f" and {len(same) - 1} more" if len(same) > 1 else ""
        yield FindingState.MISSING, f"{same[0]}{more} cannot be loaded: {reason}", "install compedu again"
    if not broken:
        yield FindingState.OK, f"all {len(names)} modules can be loaded"


def shipped_files():
    """Chapters, trained networks and sweeps that come with compedu."""
    yield FindingState.OK, f"a checkout in {shipped()}" if is_checkout() else f"installed in {shipped().parent}"
    kinds = {
        "chapters": shipped("notebooks" if is_checkout() else "chapters").rglob("*.ipynb"),
        "networks with trained weights": shipped("data", "checkpoints").glob("*.safetensors"),
        "sweeps": shipped("data", "sweeps").rglob("*.json*"),
    }
    for kind, files in kinds.items():
        count = len(list(files))
        yield (
            (FindingState.OK, f"{count} {kind}")
            if count
            else (FindingState.MISSING, f"0 {kind} in {shipped()}", "install compedu again")
        )


def claims():
    """The claims on trial, and whether the runs behind their verdicts are there."""
    for claim in importlib.import_module("compedu.claims").CLAIMS:
        for plan in ("quick", "full"):
            try:
                yield (
                    FindingState.OK,
                    f"{claim.key}: {len(claim.stored(plan == 'full'))} stored runs of the {plan} plan",
                )
            except CompressionError:
                cure = claim.command(plan == "full")
                yield FindingState.MISSING, f"{claim.key}: stored runs of the {plan} plan", cure


def data_sets():
    """Data sets that are generated, and real ones found on this machine."""
    datasets = importlib.import_module("compedu.datasets")
    for name in datasets.DATASETS:
        if name in datasets.MADE_HERE:
            yield FindingState.OK, f"{name}: comes with compedu"
            continue
        try:
            yield FindingState.OK, repr(datasets.load(name))
        except MissingData as error:
            yield FindingState.NOTE, f"{name}: not on this machine (optional)", str(error).split(". ")[-1]


def browser_program() -> str | None:
    """Return the program of a Chromium on this machine, or None; the variable COMPEDU_CHROMIUM names another one."""
    return os.environ.get("COMPEDU_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


def browser():
    """A browser for the tests of explorers and pages; learners use their own."""
    program = browser_program()
    if program:
        yield FindingState.OK, f"for tests: {program}"
    else:
        yield (
            FindingState.NOTE,
            "no Chromium: browser tests are skipped",
            "install it, or name its program in COMPEDU_CHROMIUM",
        )


def _canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
