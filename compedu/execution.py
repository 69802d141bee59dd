"""Chapters executed from top to bottom by papermill, with their defaults or in their fast profile.

A chapter has its fast profile in its metadata, {"compedu": {"fast": {"IMAGES": 300}}}: other values for the settings
in its cell tagged `parameters`. So the fast profile changes sizes, and every cell still runs.
"""

import hashlib
import os
import threading
import time
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path

from compedu.shipped import shipped

CELL_SECONDS = 600  # a cell that takes longer counts as hanging
LONG_S = 5.0  # a log names the cells that took longer
WORDS = 60  # characters of a cell that are shown
PROGRESS = ("", "line", "log")
MADE_WITH = "compedu_package"  # in the metadata of an executed chapter: the digest of the package that it ran on


def fast_profile(path) -> dict:
    """The settings of a chapter's fast profile, from its metadata.

    Raises a `ValueError` that names the chapter if a setting is not assigned in its cell tagged `parameters`.
    """
    import nbformat
    import papermill

    profile = dict(nbformat.read(path, as_version=4).metadata.get("compedu", {}).get("fast", {}))
    known = papermill.inspect_notebook(str(path)) if profile else {}
    for name in profile:
        if name not in known:
            raise ValueError(f"{path}: the fast profile sets {name}; the cell tagged 'parameters' has {sorted(known)}")
    return profile


def is_executed(executed, source, fast=False) -> bool:
    """Whether `executed` is the complete result of executing the current notebook `source` in this profile.

    A copy that another version of the package or of its data made does not count.
    """
    import nbformat

    if not Path(executed).is_file():
        return False
    given = nbformat.read(executed, as_version=4)
    ran = [cell for cell in given.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    wanted = nbformat.read(source, as_version=4).cells
    return (
        [(cell.cell_type, cell.source) for cell in ran] == [(cell.cell_type, cell.source) for cell in wanted]
        and dict(given.metadata.get("papermill", {}).get("parameters", {})) == (fast_profile(source) if fast else {})
        and given.metadata.get(MADE_WITH) == package_digest()
        and all(cell.execution_count for cell in ran if cell.cell_type == "code" and cell.source.strip())
    )


@lru_cache(maxsize=1)
def package_digest() -> str:
    """The identity of what a chapter runs on: a digest of the package's code and of what it ships."""
    code = Path(__file__).parent
    digest = hashlib.sha256()
    for folder, pattern in ((code, "*.py"), (code, "*.js"), (shipped("data"), "*")):
        for path in sorted(folder.rglob(pattern)):
            if path.is_file():
                digest.update(f"{path.relative_to(folder).as_posix()}\n{path.stat().st_size}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class CellsShown:
    """Tells how far a chapter is, cell by cell: a line redrawn each second, or in a log a line for each long cell.

    `begins` is papermill's hook for the beginning of a cell. A line is redrawn only on a terminal, where `redrawn`.
    """

    def __init__(self, name: str, count: int, redrawn: bool):
        from tqdm import tqdm

        self.name = name
        self.count = count
        self._number = 0
        self._words = ""
        self._chapter_began = self._cell_began = time.monotonic()
        self._line = tqdm(bar_format="{desc}", disable=None if redrawn else True, leave=False, dynamic_ncols=True)
        self._over = threading.Event()
        if not self._line.disable:
            threading.Thread(target=self._redraw, name="compedu progress", daemon=True).start()

    def __enter__(self) -> "CellsShown":
        return self

    def __exit__(self, *error) -> None:
        self._tell_long_cell()
        self._over.set()
        self._line.close()

    def begins(self, cell, cell_index: int) -> None:
        """Note that a cell begins, and with it that the one before has ended."""
        self._tell_long_cell()
        self._cell_began = time.monotonic()
        self._number = cell_index + 1
        self._words = " ".join(cell.source.split())[:WORDS]

    def _tell_long_cell(self) -> None:
        seconds = time.monotonic() - self._cell_began
        if self._line.disable and self._number and seconds > LONG_S:
            print(f"{self._place()} took {seconds:.0f} s  {self._words}", flush=True)

    def _place(self) -> str:
        return f"{self.name}: cell {self._number} of {self.count}" if self._number else f"{self.name}: starting"

    def _redraw(self) -> None:
        while not self._over.wait(1.0):
            seconds = time.monotonic() - self._chapter_began
            self._line.set_description_str(f"{self._place()}, {seconds:.0f} s  {self._words}")


def execute(source, destination, fast=False, folder=None, sync=True, progress=""):
    """Run the notebook `source`, write the executed copy to `destination` and return it.

    `folder` is where the chapter runs and writes its files, by default the destination's. `sync` makes explorers
    compute before a cell ends (COMPEDU_SYNC=1). `progress` is "line" for one line that is redrawn on a terminal, "log"
    for a line per long cell, which a line also becomes where there is no terminal. Widget states are not stored: a
    figure would take 5 MB. A failing cell raises papermill's `PapermillExecutionError`, and the copy shows it.
    """
    import nbformat
    import papermill

    if progress not in PROGRESS:
        raise ValueError(f"progress={progress!r}: allowed are {', '.join(map(repr, PROGRESS))}")
    parameters = fast_profile(source) if fast else {}
    count = len(nbformat.read(source, as_version=4).cells) + bool(parameters)  # papermill adds a cell of settings
    name = "/".join(Path(source).parts[-2:])  # a chapter and its gallery have one name
    destination = Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    made_with = package_digest()  # before: the package may change while a chapter runs
    showing = CellsShown(name, count, progress == "line") if progress else nullcontext()
    with environment(COMPEDU_SYNC="1" if sync else None), showing as shown:
        notebook = papermill.execute_notebook(
            str(source),
            str(destination),
            parameters=parameters,
            kernel_name="python3",
            cwd=str(folder or destination.parent),
            execution_timeout=CELL_SECONDS,
            store_widget_state=False,
            progress_bar=False,
            on_cell_start=shown and shown.begins,
        )
    notebook.metadata[MADE_WITH] = made_with
    nbformat.write(notebook, destination)
    return notebook


@contextmanager
def environment(**values: str | None):
    """Set environment variables inside the block, which a kernel started there inherits; None removes one."""
    before = {name: os.environ.get(name) for name in values}
    _set_all(values)
    try:
        yield
    finally:
        _set_all(before)


def _set_all(values):
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
