"""The learner's chapters, made from the author's notebooks by nbgrader: no solutions, hidden tests or outputs in them.

Needs nbgrader, but neither its database nor a network. Imports nothing of the package: a build can load it alone.
"""

import difflib
import re
import sys
from pathlib import Path

STUB = "# YOUR ANSWER HERE"  # what stands in place of a solution
_SECOND_STUB = re.compile(rf"^(\w+ = \.\.\..*)\n{STUB}$", re.MULTILINE)  # below a line such as guess = ...
_MARKS = {  # the lines that nbgrader cuts by, with their edge and region
    f"### {edge} {region}": (edge, region)
    for edge in ("BEGIN", "END")
    for region in ("SOLUTION", "HIDDEN TESTS", "MARK SCHEME")
}
_EDGE = r"(?:begin|start|end|stop|close)\w{0,4}"
_REGION = r"(?:solution|answer|hidden|tests|mark(?:ing)?[\s_]*scheme)"
_LIKE_A_MARK = re.compile(  # the words of a mark in either order
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
    """The notebooks below a folder, as relative paths in the order of their names; hidden folders are left out."""
    found = (path.relative_to(folder) for path in Path(folder).rglob("*.ipynb"))
    return sorted(path for path in found if not any(part.startswith(".") for part in path.parts))


def release(source, destination) -> list[Path]:
    """Write the released version of each notebook below `source` to its place below `destination`.

    Returns the relative paths; other notebooks below `destination`, of an earlier release, are removed. Raises
    `ValueError` that names the notebook where a region is not closed or lies in a cell that is not marked for it, and
    where `destination` would touch the author's notebooks.
    """
    source = Path(source)
    destination = Path(destination)
    here = source.resolve()
    there = destination.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise ValueError(f"{destination} and the author's notebooks in {source} overlap: name another folder")
    texts = {name: released_text(source / name) for name in chapters(source)}
    destination.mkdir(parents=True, exist_ok=True)
    for name in chapters(destination):
        (destination / name).unlink()
    for name, text in texts.items():
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        (destination / name).write_text(text, encoding="utf-8")
    return list(texts)


def released_text(path) -> str:
    """The released version of one author's notebook, as the text of an .ipynb file."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    return nbformat.writes(without_solutions(notebook, path), version=4) + "\n"


def without_solutions(notebook, name, keep_outputs=False):
    """The notebook with stubs for solutions, without hidden tests and outputs, its test cells locked.

    `keep_outputs` keeps what ordinary cells printed, for pages of executed chapters; outputs of solution and test cells
    go in any case. Raises `ValueError` that begins with `name`, the notebook's own.
    """
    resources = {}
    try:
        for step in _steps(keep_outputs):
            notebook, resources = step(notebook, resources)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{name} cannot be released: {error}") from error
    for number, cell in enumerate(notebook.cells):
        for line, text in enumerate(cell.source.splitlines(), 1):
            if text.strip() in _MARKS:
                at = f"{name}, cell {number}, line {line}"
                raise ValueError(f"{at}: {text.strip()!r} is left: a region stands in a cell that is marked for it")
        if cell.cell_type == "code" and cell.metadata.get("nbgrader"):
            cell.outputs = []
            cell.execution_count = None
    return notebook


def only_whole_marks(notebook, resources):
    """Refuse a line that looks like a mark of a region and is none, and a region without its BEGIN or its END line.

    What such a line was meant to hide would be shown. A step of a release, also nbgrader's own: before all others.
    """
    for number, cell in enumerate(notebook.cells):
        opened = None
        at = ""
        for line, text in enumerate(cell.source.splitlines(), 1):
            at = f"cell {number}, line {line}: {text.strip()!r}"
            edge, region = _MARKS.get(text.strip(), (None, None))
            if edge is None and _looks_like_a_mark(text, cell.cell_type):
                raise ValueError(f"{at} is no mark; the marks are {', '.join(_MARKS)}, each on a line of its own")
            if (edge == "BEGIN" and opened) or (edge == "END" and opened != region):
                raise ValueError(f"{at}: {f'{opened} is still open' if opened else 'nothing is open'} there")
            opened = {"BEGIN": region, "END": None}.get(edge, opened)
        if opened:
            raise ValueError(f"{at}: the cell ends here, and {opened} is still open: '### END {opened}' is missing")
    return notebook, resources


def _looks_like_a_mark(text, cell_type) -> bool:
    """Tell of a line that is no mark: three hashes in code, a comment with the words of one, letters close to one."""
    _, sign, comment = text.partition("#")
    if cell_type == "code" and "###" in sign + comment:
        return True
    words = re.sub(r"^[\W_]+", "", comment if sign else text)
    near = [f"{edge} {region}" for edge, region in _MARKS.values()]
    spoken = re.sub(r"[\W_]+", " ", words).strip().upper()
    return bool(difflib.get_close_matches(spoken, near, cutoff=0.8) or (sign and _LIKE_A_MARK.match(words)))


def one_place_to_fill(notebook, resources):
    """Take the stub away where a line above it, such as `guess = ...`, already says what to fill in.

    A step of a release, also nbgrader's own (docs/nbgrader_config.py): after the solutions went, before checksums.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = _SECOND_STUB.sub(r"\1", cell.source)
    return notebook, resources


def behind(steps, neighbor, step):
    """The steps of nbgrader, which are classes, with `step` right behind the one whose name is `neighbor`.

    >>> behind([int, str], "int", list)
    [<class 'int'>, <class 'list'>, <class 'str'>]
    """
    names = [each.__name__ for each in steps]
    if neighbor not in names:
        raise ValueError(
            f"nbgrader has no step {neighbor} here, behind which {step.__name__} stands, but only {', '.join(names)}; "
            "install a version that compedu[course] allows, or name the step that does its work now"
        )
    place = names.index(neighbor) + 1
    return [*steps[:place], step, *steps[place:]]


def _steps(keep_outputs):
    try:
        from nbgrader import preprocessors
    except ImportError as error:
        raise ImportError("releasing chapters needs nbgrader: pip install 'compedu[course]'") from error
    made = {step: getattr(preprocessors, step)() for step in _STEPS if not (keep_outputs and step == "ClearOutput")}
    made["ClearSolutions"].code_stub = {"python": STUB}  # nbgrader's own raises: a chapter could not be run to its end
    steps = [made[step].preprocess for step in _STEPS if step in made]
    steps.insert(_STEPS.index("ClearSolutions") + 1, one_place_to_fill)
    return [only_whole_marks, *steps]


if __name__ == "__main__":
    for chapter in release(*sys.argv[1:]):
        print(chapter)
