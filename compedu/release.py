"""The learner's chapters, made from the author's notebooks: solutions, hidden tests and outputs taken out by nbgrader.

Needs nbgrader, but neither its database nor a network. Imports nothing of the package, so that a build can load it alone.
"""

import shutil
import sys
from pathlib import Path

_LEFTOVERS = ("BEGIN SOLUTION", "END SOLUTION", "BEGIN HIDDEN TESTS", "END HIDDEN TESTS", "BEGIN MARK SCHEME", "END MARK SCHEME")


def chapters(folder) -> list[Path]:
    """The notebooks below a folder, as paths relative to it, in the order of their names."""
    folder = Path(folder)
    found = (path.relative_to(folder) for path in folder.rglob("*.ipynb"))
    return sorted(path for path in found if not any(part.startswith(".") for part in path.parts))


def release(source, destination) -> list[Path]:
    """Writes the released version of every notebook below `source` to the same place below `destination`, which is emptied first.

    Returns the relative paths. Raises `ValueError` naming the notebook where a solution or test region is not closed or
    lies in a cell that is not marked for it.
    """
    source, destination = Path(source), Path(destination)
    if destination.resolve() in (source.resolve(), *source.resolve().parents):
        raise ValueError(f"{destination} holds the author's notebooks: release them into another folder")
    if destination.exists():
        shutil.rmtree(destination)
    destination.mkdir(parents=True)
    released = chapters(source)
    for name in released:
        target = destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(released_text(source / name), encoding="utf-8")
    return released


def released_text(path) -> str:
    """The released version of one author's notebook, as the text of an .ipynb file."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    for name in ("widgets", "papermill"):
        notebook.metadata.pop(name, None)
    return nbformat.writes(without_solutions(notebook, path), version=4) + "\n"


def without_solutions(notebook, name, keep_outputs=False):
    """The notebook after nbgrader's release steps: stubs for solutions, no hidden tests, no outputs, test cells locked.

    `keep_outputs` keeps what ordinary cells printed, for pages made from executed chapters; outputs of solution and test
    cells go in any case. Raises `ValueError` that names the notebook.
    """
    resources = {"nbgrader": {"assignment": "", "notebook": Path(name).stem, "student": ""}}
    try:
        for step in _steps(keep_outputs):
            notebook, resources = step.preprocess(notebook, resources)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{name} cannot be released: {error}") from error
    for number, cell in enumerate(notebook.cells):
        if keep_outputs and cell.metadata.get("nbgrader", {}) and cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        for mark in _LEFTOVERS:
            if mark in cell.source:
                raise ValueError(f"{name}, cell {number}: '{mark}' is left after release: each region needs its begin and its end")
    return notebook


def _steps(keep_outputs):
    from nbgrader import preprocessors as nbgrader
    from traitlets.config import Config

    config = Config()
    config.NbGraderPreprocessor.enabled = True
    # The order of nbgrader's own generate_assignment, without its database; checksums once more after hidden tests went.
    names = ["LockCells", "ClearSolutions", "ClearOutput", "CheckCellMetadata", "ClearHiddenTests", "ClearMarkScheme"]
    names += ["ComputeChecksums", "CheckCellMetadata"]
    return [getattr(nbgrader, name)(config=config) for name in names if not (keep_outputs and name == "ClearOutput")]


if __name__ == "__main__":
    for name in release(*sys.argv[1:]):
        print(name)
