"""The chapters, each executed once for all tests of a run, by whichever process comes first."""

import os
from pathlib import Path
from unittest import mock

from filelock import FileLock
from processes import ROOT, closed_network, network_uses, of_this_project

from compedu.execution import execute
from compedu.release import chapters

NOTEBOOKS = ROOT / "notebooks"
CHAPTERS = chapters(NOTEBOOKS)
FOLDER = Path(os.environ["COMPEDU_TESTS"], "executed")  # one for all processes of a run


def executed(name: Path) -> Path:
    """The copy of a chapter in its fast profile, as a page shows it, executed in an empty home and without a network.

    Tests read it, and never write to it.
    """
    copy = FOLDER / name
    work = FOLDER / "work" / name
    work.mkdir(parents=True, exist_ok=True)
    with FileLock(work / "lock"):
        if not copy.exists():
            with mock.patch.dict(os.environ, of_this_project(closed_network(work)), clear=True):
                execute(NOTEBOOKS / name, work / "copy.ipynb", fast=True, folder=work)
            assert network_uses(work) == []
            copy.parent.mkdir(exist_ok=True)
            (work / "copy.ipynb").rename(copy)
    return copy
