"""The scripts in benchmarks/ as modules, imported as a command would."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


class Scripts(dict):
    """The modules of the folder by name, each imported at its first use."""

    def __missing__(self, name):
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def scripts():
    """The modules of the folder, imported as `python benchmarks/bench_....py` would; forgotten afterwards."""
    sys.path.insert(0, str(FOLDER))
    yield Scripts()
    sys.path.remove(str(FOLDER))
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)
