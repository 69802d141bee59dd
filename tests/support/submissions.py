"""Submissions of a course's learners: solved, wrong, untouched, and one that attacks its grading."""

import ast
import copy
import re

import nbformat.v4 as v4

WRONG = {  # by the name of the cell
    "interval": "def interval(correct, total):\n    return (1.0, 1.0) if correct == total else (0.0, 1.0)",
    "paired": "def paired(broke, fixed):\n    return 0.5",
    "dense-bytes": "def dense_bytes(parameters):\n    return 32 * parameters",
    "criteria": "def criteria_of(a, a_small, s, s_small):\n    return a / a_small, a / a_small, 1, s / s_small",
    "largest-rank": "def largest_rank(rows, columns):\n    return rows * columns // (rows + columns + 1)",
    "quantized-bytes": "def quantized_bytes(weights, others, bits):\n    return weights * bits / 8",
    "budget": "answer = LinearQuantization(bits=8)",
    "gap-bytes": "def gap_bytes(places, density, bits):\n    return places * density * bits / 8",
    "thin": "def thin(tensors, gone):\n    return dict(tensors)",
    "quantizer": "def quantizer(weights, bits):\n    return torch.round(weights)",
    "straight-through": "def straight_through(x, step, top):\n    return x, torch.ones_like(x)",
    "pruned-file": 'answer = "dense.compedu"\nce.save(model, answer)',
    "outlier": 'rescued = {"learner": learner, "layer": "fc1", "channel": 0, "rescue": ce.LinearQuantization(bits=8)}',
    "four-bits": 'path = "eight-bits.compedu"\n'
    'ce.save(ce.LinearQuantization(bits=8)(ce.load("mobilenet", DATA)[0]), path)',
    "break-even": "def break_even(shape):\n    return shape[0] * shape[1] // (shape[0] + shape[1])",
    "hard-filter": "stubborn = [[0, 1, 0], [1, -4, 1], [0, 1, 0]]",
    "rank-budget": "def rank_budget(tables, limit):\n    return {name: 1 for name in tables}",
    "soft-gradient": "def soft_gradient(student, teacher, temperature):\n    return student.mean(), student",
    "fair-comparisons": 'def fair_comparisons(log):\n    return ["fair"] * len(log)',
    "missing-class": "def missing_class(logits, labels, missing):\n    return 100.0",
}
FORGED = """
import builtins, sys
import compedu.course, compedu.course.answers, compedu.course.checks
import IPython.display

class Always(float):
    def yes(self, *others):
        return True
    def same(self, *others):
        return self
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = yes
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __abs__ = __float__ = same
    __hash__ = float.__hash__

def check(*given, **named):
    return "right: so it is"

def always(*given):
    return [Always(0.5)] * 4

for module in (compedu.course, compedu.course.checks, compedu.course.answers):
    module.check = module.called = module.number = module.numbers = check
compedu.course.checks.CHECKS = dict.fromkeys(compedu.course.checks.CHECKS, check)
real = compedu.course.answers.reply
compedu.course.answers.reply = lambda answer, question: real(always, question)
sys.modules["compedu.course.plain"].decode = lambda text: {"answer": Always(0.5), "changed": False}
interval = paired = dense_bytes = criteria_of = largest_rank = quantized_bytes = gap_bytes = thin = always
answer = Always(0.5)
"""
DESTRUCTIVE = """
import os, pathlib, shutil
found = []
for place in {places!r}:
    try:
        found += [str(path) for path in pathlib.Path(place).rglob("*") if "SOLUTION" in path.read_text(errors="ignore")]
    except OSError as refusal:
        pass
    shutil.rmtree(place, ignore_errors=True)
print("found", found)
"""
LOUD = 'for _ in range(100):\n    print("x" * 1_000_000)'
AT_ONCE = 'print("x" * 150_000_000)'


def graded(cell) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("grade"))


def answered(author, answers=None):
    """The imports, solution and locked cells of an author's notebook, some solutions exchanged: the rest takes time."""
    notebook = copy.deepcopy(author)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    kept = [cell for cell in cells if _prepares(cell) or not _name(cell).startswith("predict")]
    for cell in kept:
        cell.source = (answers or {}).get(_name(cell), cell.source)
    notebook.cells = kept
    return notebook


def untouched(released):
    """A released notebook as it is, without the cells that lead neither to an answer nor to a live report.

    Those that stay predict, tell what was predicted, show an explorer's report, are graded, or make a name for one that
    stays.
    """
    notebook = copy.deepcopy(released)
    kept = []
    wanted = set()
    for cell in reversed(notebook.cells):
        if cell.cell_type != "code":
            continue
        made, read = _names(cell.source)
        if _tells(cell) or graded(cell) or _name(cell) != "predict" or _prepares(cell) or made & wanted:
            kept.append(cell)
            wanted = wanted - made | read
    notebook.cells = kept[::-1]
    return notebook


def _tells(cell) -> bool:
    return re.search(r"predict\(|\w\.(reveal|show)\(|\.settle\(\)", cell.source) is not None


def _names(source) -> tuple[set[str], set[str]]:
    """The names that a cell makes or changes, and those that it reads."""
    tree = ast.walk(ast.parse(source))
    made, read = set(), set()
    for node in tree:
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            made.add(node.name)
        elif isinstance(node, ast.alias):
            made.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
            made.add(ast.unparse(node).partition(".")[0].partition("[")[0])
    return made, read


def attacking(released, places):
    """A released notebook, shortened, that forges its checks, deletes what it finds and shows a lot."""
    notebook = answered(released)
    attacks = [FORGED, DESTRUCTIVE.format(places=list(map(str, places))), LOUD, AT_ONCE]
    first = [v4.new_code_cell(source) for source in attacks]
    notebook.cells = [*first, *(cell for cell in notebook.cells if graded(cell))]
    return notebook


def _name(cell) -> str:
    return cell.metadata.get("nbgrader", {}).get("grade_id", "predict")


def _prepares(cell) -> bool:
    lines = ("import compedu as ce", "from compedu.methods.", "import torch", "IMAGES =", "NETWORK")
    return any(line.startswith(lines) for line in cell.source.splitlines()) and "explorers" not in cell.source
