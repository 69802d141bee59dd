"""The wheel: package, released chapters and data, and a lab that opens in an empty folder without a network."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from processes import ROOT, closed_network, network_uses, run, running_lab

from compedu.release import chapters, released_text

pytestmark = pytest.mark.slow
SHIPPED = "compedu/_shipped/"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    run([*pip, "--wheel-dir", folder, ROOT], folder, closed_network(folder))
    return next(folder.glob("compedu-*.whl"))


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def below(names, folder):
    start = f"{SHIPPED}{folder}/"
    return {name.removeprefix(start) for name in names if name.startswith(start)}


def test_the_wheel_holds_every_chapter_as_released(wheel, names):
    assert below(names, "chapters") == {name.as_posix() for name in chapters(ROOT / "notebooks")}
    with zipfile.ZipFile(wheel) as archive:
        for name in chapters(ROOT / "notebooks"):
            shipped = archive.read(f"{SHIPPED}chapters/{name.as_posix()}").decode()
            assert shipped == released_text(ROOT / "notebooks" / name), name


def test_the_wheel_holds_data_package_and_tested_versions(names):
    tracked = subprocess.run(["git", "ls-files", "data", "compedu"], cwd=ROOT, capture_output=True, text=True).stdout
    data = {name.removeprefix("data/") for name in tracked.split() if name.startswith("data/")}
    assert data <= below(names, "data")
    assert {name for name in tracked.split() if name.startswith("compedu/")} <= set(names)
    assert below(names, "requirements") == {"constraints.txt"}


def test_the_wheel_holds_nothing_else(names):
    allowed = ("compedu/", "compedu-")
    assert [name for name in names if not name.startswith(allowed)] == []
    assert [name for name in names if name.endswith((".pyc", "/solutions.py"))] == []


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Programs of an environment with the wheel alone; what it depends on is read from the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    environment = closed_network(folder)
    run([sys.executable, "-m", "venv", "--without-pip", "venv"], folder, environment)
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / Path(sys.executable).name
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    run([*pip, wheel], folder, environment)
    # A path in a .pth file does not execute the .pth files that lie there, so the editable install stays out of sight.
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run([python, "-c", code], folder, environment).strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    jupyter = Path(sys.prefix) / "share" / "jupyter"
    shared = {"JUPYTERLAB_DIR": str(jupyter / "lab"), "JUPYTER_PATH": str(jupyter)}
    return python.parent, folder, environment | shared


def test_the_installed_package_is_the_wheels_own(installed):
    programs, folder, environment = installed
    code = "import compedu.shipped as s; print(s.__file__, s.is_checkout())"
    assert str(folder / "venv") in run([programs / "python", "-c", code], folder, environment)
    assert "False" in run([programs / "python", "-c", code], folder, environment)


def test_compedu_lab_opens_the_chapters_in_an_empty_folder_without_a_network(installed, tmp_path):
    programs, folder, environment = installed
    with running_lab([programs / "compedu", "lab", "--folder", "mine", "--"], tmp_path, environment, "mine") as get:
        listed = {entry["name"] for entry in get("api/contents/")["content"]}
    assert listed == {name.parts[0] for name in chapters(ROOT / "notebooks")}
    assert network_uses(folder) == []


def test_compedu_doctor_finds_what_the_wheel_ships(installed, tmp_path):
    programs, folder, environment = installed
    report = run([programs / "compedu", "doctor"], tmp_path, environment)
    assert f"{len(chapters(ROOT / 'notebooks'))} chapters" in report
    assert network_uses(folder) == []
