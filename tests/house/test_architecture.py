"""The house rules that a machine can check: imports point down, files, functions and lines stay small, tests assert."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "compedu"
LEVELS = (  # from the ground up; a module may import from its own level and those below
    {
        "errors",
        "failing",
        "given",
        "hashing",
        "layout",
        "shipped",
        "specs",
        "knobs",
        "torchvision_import",
        "release",
        "reading",
        "reproducible",
        "usable",
        "writing",
        "memory",
        "processes",
        "compression",
        "columns",
        "draws",
    },
    {"forms"},
    {"graph"},
    {"evaluation", "identity", "training", "datasets", "networks"},
    {"methods"},
    {"files"},
    {"deployment"},
    {"metrics"},
    {"sweeps", "pairs"},
    {"replications", "testing"},
    {"claims"},
    {"course"},
    {"grading"},
    {"explorers", "cli", "commands", "lab", "doctor", "execution"},
)
MODULES = sorted(PACKAGE.rglob("*.py"))


def place(module: str) -> int:
    return next(index for index, level in enumerate(LEVELS) if module in level)


def imported(path: Path) -> set[str]:
    """The parts of compedu that a file imports, absolutely or relatively, anywhere in it."""
    package, found = path.relative_to(ROOT).parent.parts, set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            full = [*base, *((node.module or "").split(".") if node.module else [])]
            if full[:1] == ["compedu"]:
                found |= {full[1]} if len(full) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("compedu.")}
    return found - {"__version__"}


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent != PACKAGE or p.stem != "__init__"], ids=str)
def test_imports_point_downward(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    upward = {name for name in imported(path) if place(name) > place(own)}
    assert not upward, f"{path.relative_to(ROOT)} stands below {', '.join(sorted(upward))}"


def test_every_module_has_its_level():
    names = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES} - {"__init__"}
    assert names == set().union(*LEVELS)


def test_importing_compedu_imports_no_jupyter_and_no_torchvision():
    program = (
        "import sys, compedu; compedu.MagnitudePruning, compedu.measure, compedu.sweep;"
        "print([m for m in ('ipywidgets', 'plotly', 'IPython', 'anywidget', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_only_explorers_import_widgets_and_plotly():
    pattern = re.compile(r"^\s*(?:import|from) (?:ipywidgets|plotly|anywidget)\b", re.MULTILINE)
    guilty = [str(p) for p in MODULES if "explorers" not in p.parts and pattern.search(p.read_text())]
    assert guilty == []


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_files_and_functions_stay_small_and_documented(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= 320, "a file of one idea is shorter"
    assert ast.get_docstring(tree), "the file does not say what its idea is"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < 45, f"{node.name} is longer than a screen"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_line_assigns_one_thing(path):
    """Several values at once only where they belong together: unpacked from one, or swapped."""
    several = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)
    ]
    assert several == []


def test_lines_are_no_wider_than_the_settings_say():
    width = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["line-length"]
    folders = [ROOT / name for name in ("compedu", "tests", "benchmarks", "docs")]
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py")))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > width
    ]
    assert not wide, f"wider than {width} characters: {', '.join(wide)}"


def test_every_test_asserts():
    silent = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                body = ast.dump(node)
                if not any(word in body for word in ("Assert(", "raises", "assert_", "check_", "expect", "law")):
                    silent.append(f"{path.name}: {node.name}")
    assert silent == []


NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_chapters_keep_the_house_style(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code), "outputs are stored"
    assert "parameters" in code[0]["metadata"].get("tags", []), "the first code cell holds the settings"
    assert re.findall(r"^([A-Z_]+) = |^([A-Z_]+), ([A-Z_]+) = ", "".join(code[0]["source"]), re.MULTILINE)
    for cell in code:
        lines = [line for line in "".join(cell["source"]).splitlines() if "### " not in line]
        assert len(lines) <= 12, f"a cell of {len(lines)} lines: {lines[0]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_number_in_prose_without_a_cell_or_a_source(path):
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "markdown":
            prose = "".join(cell["source"])
            for allowed in (
                r"```.*?```", r"`[^`]*`", r"\$\$.*?\$\$", r"\$[^$]*\$", r"\[[A-Z][^\]]*\d{4}[^\]]*\]",
                r"LeNet-300-100|LeNet-5|MONK-[123]",
            ):  # fmt: skip
                prose = re.sub(allowed, "", prose, flags=re.DOTALL)
            assert not re.search(r"\d", prose), (
                f"a number that nothing prints: {re.search('.{0,40}[0-9].{0,20}', prose)[0]}"
            )


def test_text_is_read_and_written_with_an_encoding():
    """Without one, a file means something else on a machine of another language."""
    guilty = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
            if called in ("read_text", "write_text") and all(word.arg != "encoding" for word in node.keywords):
                guilty.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert guilty == []
