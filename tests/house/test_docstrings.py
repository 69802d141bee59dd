"""Every example in a docstring gives what stands below it."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest
import torch

PACKAGE = Path(__file__).parents[2] / "compedu"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_examples_of_a_module_hold(path):
    module = import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"))
    failed, tried = doctest.testmod(module, extraglobs={"torch": torch})
    assert tried > 0 and failed == 0, "the report of the example is printed above"
