"""What editors know of compedu is what is there, and the errors that the type checker still finds become fewer."""

import ast
import json
from pathlib import Path

import compedu

ROOT = Path(__file__).parents[2]
MOST = 397  # errors in the baseline: lower it with every one that is mended, never raise it


def test_the_stub_names_what_the_package_has_and_where_it_comes_from():
    found = {"__version__": "compedu"}
    for node in ast.parse((ROOT / "compedu" / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname: node.module for alias in node.names if alias.asname == alias.name}
    assert sorted(found) == dir(compedu)
    for name, home in found.items():
        module = __import__(home, fromlist=[name])
        assert getattr(module, name) is getattr(compedu, name), name


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "compedu" / "py.typed").exists()


def test_the_baseline_of_type_errors_shrinks_and_excuses_nothing_of_the_public_surface():
    baseline = json.loads((ROOT / ".basedpyright" / "baseline.json").read_text())["files"]
    assert sum(map(len, baseline.values())) <= MOST
    assert [path for path in baseline if "tests/" in path or path.endswith("__init__.pyi")] == []
