"""A small chapter in the author's version: formula, plot with a slider, an exercise with solution and hidden tests."""

import nbformat.v4 as v4

SOLUTION = "return (weights * bits + 7) // 8"
HIDDEN_TEST = "assert packed_bytes(9, 1) == 2"

PLOT = """import compedu as ce
import plotly.graph_objects as go

model = ce.build("lenet300(width=0.05)")
data = ce.load_data("digits").shortened(train=40, validation=30, test=10)
explorer = ce.explore(ce.MagnitudePruning(sparsity=0.5), model, data)
explorer"""


def exercise_notebook():
    """The chapter as a notebook object; its solved version earns three points."""
    solution = f"def packed_bytes(weights, bits):\n    ### BEGIN SOLUTION\n    {SOLUTION}\n    ### END SOLUTION"
    hidden = f"### BEGIN HIDDEN TESTS\n{HIDDEN_TEST}\n### END HIDDEN TESTS"
    cells = [
        v4.new_markdown_cell("# A small chapter\n\nThe rate is $\\alpha = \\frac{a}{a^*}$, and\n\n$$R = \\sum_i s_i$$"),
        v4.new_code_cell("IMAGES = 2000", metadata={"tags": ["parameters"]}),
        v4.new_code_cell("print('images:', IMAGES)"),
        v4.new_code_cell(PLOT),
        v4.new_code_cell("go.Figure(go.Scatter(x=[0, 1, 2], y=[0, 3, 9]))"),
        v4.new_markdown_cell("## Exercise\n\nCount the bytes of packed weights."),
        graded(v4.new_code_cell(solution), "packed-bytes", solution=True),
        graded(v4.new_code_cell("assert packed_bytes(8, 1) == 1"), "whole-bytes", points=1),
        graded(v4.new_code_cell(f"assert packed_bytes(8, 4) == 4\n{hidden}"), "started-bytes", points=2),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "compedu": {"fast": {"IMAGES": 100}}})


def graded(cell, name, solution=False, points=0):
    """Mark a cell for nbgrader: the learner's part (`solution`), or a test that gives `points`."""
    cell.metadata["nbgrader"] = {
        "grade_id": name,
        "schema_version": 3,
        "solution": solution,
        "grade": not solution,
        "locked": not solution,
        "task": False,
    }
    if not solution:
        cell.metadata["nbgrader"]["points"] = points
    return cell
