"""The learner's chapters, generated from the author's notebooks by nbgrader: no solutions, hidden tests or outputs.

Needs nbgrader, but neither its database nor a network. Imports nothing else of the package: a build can load it alone.
"""

import difflib
import re
import sys
from pathlib import Path

STUB = "# YOUR ANSWER HERE"  # replaces a solution
_SECOND_STUB = re.compile(rf"^(\w+ = \.\.\..*)\n{STUB}$", re.MULTILINE)  # below a line such as guess = ...
_MARKERS = {  # the lines that delimit regions for nbgrader, with their edge and region
    f"### {edge} {region}": (edge, region)
    for edge in ("BEGIN", "END")
    for region in ("SOLUTION", "HIDDEN TESTS", "MARK SCHEME")
}
_EDGE = r"(?:begin|start|end|stop|close)\w{0,4}"
_REGION = r"(?:solution|answer|hidden|tests|mark(?:ing)?[\s_]*scheme)"
_LIKE_A_MARKER = re.compile(  # the words of a marker in either order
    rf"{_EDGE}[\s_:-]*(?:(?:of|the)[\s_:-]+)*{_REGION}"
    rf"|(?:the\s+)?(?:{_REGION}|hidden[\s_:-]*test|tests?[\s_:-]*hidden)s?[\s_:-]*{_EDGE}\b",
    re.IGNORECASE,
)

# The order of nbgrader's own generate_assignment without its database: checksums come last, once hidden tests are gone.
_STEPS = (
    "LockCells",
    "ClearSolutions",
    "ClearOutput",
    "CheckCellMetadata",
    "ClearHiddenTests",
    "ClearMarkScheme",
    "ComputeChecksums",
    "CheckCellMetadata",
)


def chapters(folder) -> list[Path]:
    """The notebooks below a folder, as sorted relative paths; hidden folders are ignored."""
    found = (path.relative_to(folder) for path in Path(folder).rglob("*.ipynb"))
    return sorted(path for path in found if not any(part.startswith(".") for part in path.parts))


def release(source, destination) -> list[Path]:
    """Write the released version of each notebook below `source` to its place below `destination`.

    Returns the relative paths; other notebooks below `destination`, of an earlier release, are removed. Raises
    a `ValueError` that names the notebook if a region is not closed or is in a cell that is not tagged for it, and if
    `destination` overlaps the author's notebooks.
    """
    source = Path(source)
    destination = Path(destination)
    here = source.resolve()
    there = destination.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise ValueError(f"{destination} and the author's notebooks in {source} overlap: name another folder")
    released = {name: released_text(source / name) for name in chapters(source)}
    destination.mkdir(parents=True, exist_ok=True)
    for name in chapters(destination):
        (destination / name).unlink()
    for name, text in released.items():
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        (destination / name).write_text(text, encoding="utf-8")
    return list(released)


def released_text(path) -> str:
    """The released version of an author's notebook, as the text of an .ipynb file."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    return nbformat.writes(without_solutions(notebook, path), version=4) + "\n"


def without_solutions(notebook, name, keep_outputs=False):
    """The notebook with stubs for solutions, without hidden tests and outputs, its test cells locked.

    `keep_outputs` keeps the outputs of ordinary cells, for pages of executed chapters; those of solution and test cells
    are always removed. Raises a `ValueError` that begins with `name`, the name of the notebook.
    """
    resources = {}
    try:
        for step in _steps(keep_outputs):
            notebook, resources = step(notebook, resources)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{name} cannot be released: {error}") from error
    for number, cell in enumerate(notebook.cells):
        for line, text in enumerate(cell.source.splitlines(), 1):
            if text.strip() in _MARKERS:
                at = f"{name}, cell {number}, line {line}"
                raise ValueError(f"{at}: {text.strip()!r} is left: a region belongs in a cell that is tagged for it")
        if cell.cell_type == "code" and cell.metadata.get("nbgrader"):
            cell.outputs = []
            cell.execution_count = None
    return notebook


def only_whole_marks(notebook, resources):
    """Refuse a line that resembles the marker of a region but is not one, and a region without its BEGIN or END line.

    What such a line was meant to hide would be shown. The first step of a release, also of nbgrader's own.
    """
    for number, cell in enumerate(notebook.cells):
        opened = None
        at = ""
        for line, text in enumerate(cell.source.splitlines(), 1):
            at = f"cell {number}, line {line}: {text.strip()!r}"
            edge, region = _MARKERS.get(text.strip(), (None, None))
            if edge is None and _looks_like_a_marker(text, cell.cell_type):
                raise ValueError(
                    f"{at} is not a marker; the markers are {', '.join(_MARKERS)}, each on a line of its own"
                )
            if (edge == "BEGIN" and opened) or (edge == "END" and opened != region):
                raise ValueError(f"{at}: {f'{opened} is still open' if opened else 'nothing is open'} there")
            opened = {"BEGIN": region, "END": None}.get(edge, opened)
        if opened:
            raise ValueError(f"{at}: the cell ends here, and {opened} is still open: '### END {opened}' is missing")
    return notebook, resources


def _looks_like_a_marker(text, cell_type) -> bool:
    """Tell whether a line resembles a marker: three hashes in code, a comment with its words, or a similar spelling."""
    _, sign, comment = text.partition("#")
    if cell_type == "code" and "###" in sign + comment:
        return True
    words = re.sub(r"^[\W_]+", "", comment if sign else text)
    near = [f"{edge} {region}" for edge, region in _MARKERS.values()]
    spoken = re.sub(r"[\W_]+", " ", words).strip().upper()
    return bool(difflib.get_close_matches(spoken, near, cutoff=0.8) or (sign and _LIKE_A_MARKER.match(words)))


def one_place_to_fill(notebook, resources):
    """Remove the stub where a line above it, such as `guess = ...`, already says what to fill in.

    A step of a release, also of nbgrader's own (docs/nbgrader_config.py), between solutions and checksums.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = _SECOND_STUB.sub(r"\1", cell.source)
    return notebook, resources


def behind(steps, neighbor, step):
    """The steps of nbgrader, which are classes, with `step` inserted right after the one named `neighbor`.

    >>> behind([int, str], "int", list)
    [<class 'int'>, <class 'list'>, <class 'str'>]
    """
    names = [each.__name__ for each in steps]
    if neighbor not in names:
        raise ValueError(
            f"nbgrader has no step {neighbor} here, after which {step.__name__} belongs, but only {', '.join(names)}; "
            "install a version that compedu[course] allows, or name the step that replaces it"
        )
    place = names.index(neighbor) + 1
    return [*steps[:place], step, *steps[place:]]


def _steps(keep_outputs):
    try:
        from nbgrader import preprocessors
    except ImportError as error:
        raise ImportError("releasing chapters needs nbgrader: install compedu with its extra [course]") from error
    made = {step: getattr(preprocessors, step)() for step in _STEPS if not (keep_outputs and step == "ClearOutput")}
    made["ClearSolutions"].code_stub = {
        "python": STUB
    }  # nbgrader's own stub raises: a chapter could not be run to its end
    steps = [made[step].preprocess for step in _STEPS if step in made]
    steps.insert(_STEPS.index("ClearSolutions") + 1, one_place_to_fill)
    return [only_whole_marks, *steps]


if __name__ == "__main__":
    for chapter in release(*sys.argv[1:]):
        print(chapter)
