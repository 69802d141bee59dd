"""Chapters executed from top to bottom by papermill, with their defaults or in their fast profile.

A chapter has its fast profile in its metadata, {"compedu": {"fast": {"IMAGES": 300}}}: other values for the settings
in its cell tagged `parameters`. So the fast profile changes sizes, and every cell still runs.
"""

import os
from pathlib import Path

CELL_SECONDS = 600  # a cell that takes longer counts as hanging


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
    """Whether `executed` is the complete result of executing the current notebook `source` in this profile."""
    import nbformat

    if not Path(executed).is_file():
        return False
    given = nbformat.read(executed, as_version=4)
    ran = [cell for cell in given.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    wanted = nbformat.read(source, as_version=4).cells
    return (
        [(cell.cell_type, cell.source) for cell in ran] == [(cell.cell_type, cell.source) for cell in wanted]
        and dict(given.metadata.get("papermill", {}).get("parameters", {})) == (fast_profile(source) if fast else {})
        and all(cell.execution_count for cell in ran if cell.cell_type == "code" and cell.source.strip())
    )


def execute(source, destination, fast=False, folder=None, sync=True):
    """Run the notebook `source`, write the executed copy to `destination` and return it.

    `folder` is where the chapter runs and writes its files, by default the destination's. `sync` makes explorers
    compute before a cell ends (COMPEDU_SYNC=1). Widget states are not stored: a figure would take 5 MB. A failing cell
    raises papermill's `PapermillExecutionError`, and the copy shows it.
    """
    import papermill

    destination = Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    before = os.environ.pop("COMPEDU_SYNC", None)
    if sync:
        os.environ["COMPEDU_SYNC"] = "1"  # the kernel inherits it
    try:
        return papermill.execute_notebook(
            str(source),
            str(destination),
            parameters=fast_profile(source) if fast else {},
            kernel_name="python3",
            cwd=str(folder or destination.parent),
            execution_timeout=CELL_SECONDS,
            store_widget_state=False,
            progress_bar=False,
        )
    finally:
        os.environ.pop("COMPEDU_SYNC", None)
        if before is not None:
            os.environ["COMPEDU_SYNC"] = before
