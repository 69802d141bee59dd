"""The set-up: one list of tested versions, commands that exist, a tree that stays small, and the doctor's report."""

import os
import re
import subprocess
import sys
import tomllib

import nbformat
import pytest
from exercise_notebook import exercise_notebook
from packaging.requirements import Requirement
from processes import ROOT, closed_network, network_uses, run

import compedu
from compedu import doctor
from compedu.claims import CLAIMS, Experiment
from compedu.errors import CompressionError
from compedu.execution import execute, fast_profile
from compedu.shipped import is_checkout, shipped

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MEGABYTE = 1_000_000


def tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def requirements():
    groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    return [requirement for group in groups for requirement in group]


@pytest.mark.parametrize("requirement", sorted(set(requirements())))
def test_every_dependency_has_a_tested_version_inside_its_range(requirement):
    wanted = Requirement(requirement)
    tested = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in doctor.tested_versions().items()}
    assert wanted.name in tested
    assert wanted.specifier.contains(tested[wanted.name])


def test_the_version_is_written_the_same_everywhere():
    version = PROJECT["project"]["version"]
    assert compedu.__version__ == version
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_tracked_tree_stays_small():
    sizes = {path: path.stat().st_size for path in tracked()}
    assert {path.name: size for path, size in sizes.items() if size > 5 * MEGABYTE} == {}
    assert sum(sizes.values()) < 30 * MEGABYTE  # half of it weights, a quarter stored results


def test_notebooks_are_committed_without_outputs():
    for path in tracked():
        if path.suffix == ".ipynb":
            cells = nbformat.read(path, as_version=4).cells
            assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path.name


def make(*words, **variables):
    command = ["make", "--dry-run", "--always-make", *words, *(f"{name}={value}" for name, value in variables.items())]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_make_lab_installs_and_passes_options_on():
    printed = make("lab", LAB_ARGS="--no-browser", PYTHON=sys.executable)
    assert "-m venv" in printed and "--constraint requirements/constraints.txt" in printed
    assert re.search(r"compedu lab .*-- --no-browser", printed)


def test_make_test_makes_the_environment_first():
    printed = make("test", PYTHON=sys.executable)
    assert printed.index("-m venv") < printed.index("-m pytest")


@pytest.mark.parametrize("target", ["site", "bench", "release", "wheel", "doctor", "clean", "help"])
def test_every_target_is_described_and_can_be_made(target):
    assert make(target, PYTHON=sys.executable)
    assert target == "help" or f"make {target} " in run(["make", "help"], ROOT, os.environ)


def test_continuous_integration_requires_the_browser_and_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text().splitlines()
    assert any("COMPEDU_REQUIRE_BROWSER=1" in line for line in lines) and lines[-1].endswith("make test")
    assert subprocess.run(["bash", "-n", script], capture_output=True).returncode == 0


def test_importing_compedu_imports_neither_jupyter_nor_torch(tmp_path):
    code = "import sys, compedu; print({'ipywidgets', 'plotly', 'jupyterlab', 'torch'} & set(sys.modules))"
    assert run([sys.executable, "-c", code], tmp_path, closed_network(tmp_path)).strip() == "set()"


def test_shipped_files_of_a_checkout_are_in_its_own_folders():
    assert is_checkout()
    assert shipped("requirements", "constraints.txt").exists()
    assert shipped("data") == ROOT / "data"


def test_the_doctor_reports_every_area_with_a_cure_for_what_is_missing():
    report = doctor.report()
    areas = ("Python", "Packages", "Processor", "Kernels", "Jupyter", "Parts", "Shipped files", "Claims", "Data sets")
    for area in (*areas, "Browser"):
        assert f"\n{area}\n" in f"\n{report}"
    assert all(found.cure for found in doctor.examine() if found.state == "missing")
    assert re.search(r"ok +torch 2\.13", report) and re.search(r"8-bit integers: \S", report)


def test_the_doctor_names_a_version_that_was_not_tested(monkeypatch):
    tested = doctor.tested_versions() | {"numpy": "1.0"}
    monkeypatch.setattr(doctor, "tested_versions", lambda: tested)
    found = [found for found in doctor.examine() if "numpy" in found.text]
    assert [(f.state, f.cure) for f in found] == [("note", "if it fails: pip install numpy==1.0")]


def test_the_doctor_names_a_missing_package_and_what_to_do(monkeypatch):
    real = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: None if name == "constriction" else real(name))
    found = [found for found in doctor.examine() if "constriction" in found.text]
    assert found[0].state == "missing" and found[0].cure.startswith("pip install constriction==")


def test_the_doctor_survives_a_part_that_fails(monkeypatch):
    def processor():
        raise OSError("torn library")

    monkeypatch.setattr(doctor, "processor", processor)
    report = doctor.report()
    assert "OSError: torn library" in report and "Browser" in report and "missing" in report.splitlines()[-1]


def test_the_doctor_loads_every_module_and_names_those_that_cannot_be(monkeypatch, tmp_path):
    assert any(found.area == "Parts" and re.search("all [0-9]{3} modules", found.text) for found in doctor.examine())
    for name, text in {"torn": "from compedu.methods import Nosuch", "half": "def half("}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    monkeypatch.setattr(compedu, "__path__", [*compedu.__path__, str(tmp_path)])
    found = [found for found in doctor.examine() if found.area == "Parts"]
    assert all(one.state == "missing" and one.cure for one in found)
    assert "compedu.torn cannot be loaded: ImportError: cannot import name 'Nosuch'" in found[1].text
    assert "compedu.half cannot be loaded: SyntaxError" in found[0].text and len(found) == 2


def test_the_doctor_says_for_each_claim_whether_its_runs_are_there(monkeypatch):
    def stored(claim, full=False):
        if full and claim.key == "D4":
            raise CompressionError("3 of 16 runs are missing")
        return [None] * 7

    monkeypatch.setattr(Experiment, "stored", stored)
    found = {one.text: (one.state, one.cure) for one in doctor.examine() if one.area == "Claims"}
    assert len(found) == 2 * len(CLAIMS)
    assert found["D4: 7 stored runs of the quick plan"] == ("ok", "")
    assert found["D4: stored runs of the full plan"] == ("missing", "compedu claim D4 --run full --store shipped")


def test_the_doctor_asks_no_other_machine(tmp_path):
    code = "from compedu.doctor import report; print(report())"
    assert "Packages" in run([sys.executable, "-c", code], tmp_path, closed_network(tmp_path))
    assert network_uses(tmp_path) == []


def test_a_chapter_runs_with_its_defaults_or_its_fast_profile(tmp_path):
    chapter = exercise_notebook()
    chapter.cells = chapter.cells[:3]
    nbformat.write(chapter, tmp_path / "chapter.ipynb")
    printed = []
    for fast in (False, True):
        done = execute(tmp_path / "chapter.ipynb", tmp_path / "done" / "chapter.ipynb", fast=fast)
        printed.append([cell.outputs[0].text for cell in done.cells if cell.get("outputs")])
    assert printed == [["images: 2000\n"], ["images: 100\n"]]


def test_a_fast_profile_may_set_only_what_the_parameters_cell_sets(tmp_path):
    chapter = exercise_notebook()
    chapter.metadata["compedu"]["fast"]["EPOCHS"] = 1
    nbformat.write(chapter, tmp_path / "chapter.ipynb")
    with pytest.raises(ValueError, match="chapter.ipynb.*EPOCHS.*IMAGES"):
        fast_profile(tmp_path / "chapter.ipynb")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_pages_for_developers_name_files_that_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    linked = [name for name in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in name]
    named = re.findall(r"`([a-z_.]+/[a-z_/.]*)`", text)
    assert linked and len(named) > 20
    assert [name for name in linked if not (ROOT / page).parent.joinpath(name).exists()] == []
    assert [name for name in named if not any((place / name).exists() for place in (ROOT, ROOT / "compedu"))] == []
