"""Hints that exercises of several chapters share: each is an `AssertionError` that a wrong answer gets."""

from collections.abc import Collection

from compedu.course.answers import few, kind_of


def refuse_wrong_rank(given: float, rows: int, columns: int, layer: str, question: str = "") -> None:
    """Raise an `AssertionError` with a hint unless `given` is the largest rank that saves something in a matrix.

    `layer` says what the matrix belongs to; the `question` ends the hint where the rank is too large or too small.
    """
    assert given == given // 1, f"a rank is a whole number, you give {given!r}"
    rank = int(given)
    made = rank * (rows + columns)
    dense = rows * columns
    told = f"for {layer} you give {rank}: the factors then hold {made:,} numbers"
    assert made < dense, f"{told}, the matrix {dense:,}. That saves nothing{question}"
    assert rank >= 0, f"{told}. Where no rank saves anything, the answer is 0"
    assert made + rows + columns >= dense, f"{told}; one rank more would still save something{question}"


def refuse_other_names(answer: object, wanted: Collection[str], what: str = "tensors") -> None:
    """Raise an `AssertionError` that names what is missing and what is superfluous in a dictionary of tensors."""
    assert isinstance(answer, dict), f"return a dictionary of all {len(wanted)} {what} by name, not a {kind_of(answer)}"
    wrong = {
        "missing": [name for name in wanted if name not in answer],
        "too many": [name for name in answer if name not in wanted],
    }
    said = "; ".join(f"{what}: {few(names)}" for what, names in wrong.items() if names)
    assert not said, f"return a dictionary of all {len(wanted)} {what} under the same names; {said}"
