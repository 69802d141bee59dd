"""The course's parts: checks fail for known mistakes and pass different right answers; the lab book loses nothing."""

import ast
import json
import math
import re
import tempfile
from functools import cache
from math import comb
from pathlib import Path

import numpy as np
import pytest

import compedu as ce
from compedu.course import LabBook, check, predict, show
from compedu.errors import CompressionError
from compedu.methods.pruning.magnitude import MagnitudePruning
from compedu.methods.pruning.shared.masks import keep_largest
from compedu.methods.quantization.linear import LinearQuantization
from compedu.methods.training.fine_tune import FineTune

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SEED = 3  # of the cases, so that characters are drawn once


def wilson(correct, total, z=1.959964):
    share, square = correct / total, z * z / total
    middle, half = share + square / 2, z * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))


def wilson_by_search(correct, total):
    def end(low, high):
        for _ in range(80):
            middle = (low + high) / 2
            inside = abs(correct / total - middle) <= 1.959964 * math.sqrt(middle * (1 - middle) / total)
            low, high = (low, middle) if inside == (low_side) else (middle, high)
        return (low + high) / 2

    share = correct / total
    low_side = True
    low = 0.0 if correct == 0 else end(0.0, share)
    low_side = False
    high = 1.0 if correct == total else end(share, 1.0)
    return low, high


def wald(correct, total):
    share = correct / total
    half = 1.96 * math.sqrt(share * (1 - share) / total)
    return max(0.0, share - half), min(1.0, share + half)


def exact(broke, fixed):
    n = broke + fixed
    return min(1.0, 2 * sum(comb(n, i) for i in range(min(broke, fixed) + 1)) / 2**n)


def scipy_exact(broke, fixed):
    from scipy.stats import binomtest

    return float(binomtest(broke, broke + fixed).pvalue) if broke + fixed else 1.0


def chi_squared(broke, fixed):
    """The usual approximation of the exact test: wrong where few images differ."""
    from scipy.stats import chi2

    return float(chi2.sf((broke - fixed) ** 2 / (broke + fixed), 1)) if broke + fixed else 1.0


def wilson_plain(correct, total):
    share, square = correct / total, 1.959964**2 / total
    middle, half = share + square / 2, (square * share * (1 - share) + square**2 / 4) ** 0.5
    return (middle - half) / (1 + square), (middle + half) / (1 + square)


def filled_gaps(places, density, bits):
    """A weight needs one code, and one more for each whole filler in the gap before it, a geometric number."""
    through = (1 - density) ** (2**bits - 1)
    return places * density / (1 - through) * bits / 8


def thinned(tensors, gone, made_by=("stem", "norm", "conv2", "norm2"), read_by=("conv1.weight", "fc.weight")):
    kept = [channel for channel in range(len(tensors["stem.weight"])) if channel not in gone]
    cut = {name: value[kept] for name, value in tensors.items() if name.split(".")[0] in made_by}
    return tensors | cut | {name: tensors[name][:, kept] for name in read_by}


def unshifted(tensors, gone):
    """Leaves the shifts of the wrong channels: sorted by size instead of by place."""
    order = tensors["norm.bias"].argsort()
    return thinned(tensors, gone) | {
        "norm.bias": thinned(tensors | {"norm.bias": tensors["norm.bias"][order]}, gone)["norm.bias"]
    }


def first_variances(tensors, gone):
    """Keeps the variances of the first channels, whichever are left."""
    cut = thinned(tensors, gone)
    return cut | {name: tensors[name][: len(cut[name])] for name in ("norm.running_var", "norm2.running_var")}


def zeroed(tensors, gone):
    """Zeroes the filters and leaves everything else, the shifts of the batch norms included, as it was."""
    cut = {name: value.clone() for name, value in tensors.items()}
    for name in ("stem.weight", "conv2.weight"):
        cut[name][gone] = 0
    return cut


def other_names(tensors, gone):
    """Forgets one tensor and gives two that nobody asked for."""
    cut = thinned(tensors, gone)
    return {name: value for name, value in cut.items() if name != "fc.bias"} | {"extra": cut["fc.bias"], "more": 1}


@cache
def pruned_file(method, save=None):
    path = Path(tempfile.mkdtemp()) / "small.compedu"
    model, data = ce.load("lenet5", "glyphs")
    (save or ce.save)(method(model, data), path)
    return path


@cache
def another_network():
    """A small file that is whole, but of a network for other images."""
    path = Path(tempfile.mkdtemp()) / "digits.compedu"
    method = MagnitudePruning(sparsity=0.97) | LinearQuantization(bits=4)
    ce.save(method(*ce.load("lenet300", "digits")), path)
    return path


def saved_dense(model, path):
    """Saves a masked network the ordinary way, its zeros as numbers."""
    dense = ce.build("lenet5(size=32, classes=20)")
    for name, layer in dense.named_modules():
        if hasattr(layer, "weight"):
            masked = model.get_submodule(name)
            layer.weight.data, layer.bias.data = masked.dense().detach(), masked.bias.detach()
    ce.save(dense, path)


RIGHT = {
    "interval": [wilson, wilson_by_search, wilson_plain],
    "paired": [exact, scipy_exact],
    "dense_bytes": [lambda n: 4 * n, lambda n: n * 32 / 8],
    "criteria": [
        lambda a, b, s, t: (a / b, a / b - 1, 1 - b / a, s / t),
        lambda a, b, s, t: (a / b, (a - b) / b, (a - b) / a, s / t),
    ],
    "largest_rank": [
        lambda m, n: (m * n - 1) // (m + n),
        lambda m, n: max(r for r in range(m * n) if r * (m + n) < m * n),
        lambda m, n: math.ceil(m * n / (m + n)) - 1,
    ],
    "quantized_bytes": [lambda w, o, b: w * b / 8 + 4 * o, lambda w, o, b: (w * b + 32 * o) // 8],
    "gap_bytes": [filled_gaps, lambda n, d, b: sum(n * d * (1 - d) ** (k * (2**b - 1)) for k in range(5000)) * b / 8],
    "thin": [thinned, lambda tensors, gone: thinned(tensors, gone[::-1])],
}
WRONG = {
    "interval": [wald, lambda c, n: wilson(c, n, 1.645), lambda c, n: (0.0, 1.0)],
    "paired": [
        lambda b, f: exact(b, f) / 2,
        lambda b, f: 1.0 if abs(b - f) < 5 else 0.0,
        lambda b, f: 1 / 0,
        chi_squared,
    ],
    "dense_bytes": [lambda n: 32 * n, lambda n: n, lambda n: 2 * n],
    "criteria": [
        lambda a, b, s, t: (a / b, 1 - b / a, 1 - b / a, s / t),
        lambda a, b, s, t: (b / a, a / b - 1, 1 - b / a, s / t),
        lambda a, b, s, t: (a / b, a / b - 1, 1 - b / a, t / s),
    ],
    "largest_rank": [
        lambda m, n: m * n // (m + n),
        lambda m, n: min(m, n),
        lambda m, n: (m * n - 1) / (m + n),
        lambda m, n: max(1, (m * n - 1) // (m + n)),
    ],
    "quantized_bytes": [
        lambda w, o, b: w * b + 4 * o,
        lambda w, o, b: w * b / 8,
        lambda w, o, b: (w + o) * b / 8,
        lambda w, o, b: math.ceil(w * b / 8) + 2 * o,
    ],
    "gap_bytes": [
        lambda n, d, b: n * d * b / 8,
        lambda n, d, b: n * d * 32 / 8,
        lambda n, d, b: 8 * filled_gaps(n, d, b),
        lambda n, d, b: n * b / 8,
        lambda n, d, b: n * d / (1 - (1 - d) ** (2**b)) * b / 8,  # the code of all ones taken for a gap of its own
        lambda n, d, b: n * d * (1 + (1 - d) ** (2**b - 1)) * b / 8,  # one filler at most
    ],
    "thin": [
        zeroed,
        unshifted,
        first_variances,
        lambda tensors, gone: thinned(tensors, gone, read_by=("fc.weight",)),
        lambda tensors, gone: thinned(tensors, gone, made_by=("stem", "norm", "conv2")),
        lambda tensors, gone: thinned(tensors, gone) | {"conv1.weight": tensors["conv1.weight"][: -len(gone)]},
        lambda tensors, gone: thinned(tensors, [channel + 1 for channel in gone]),
        lambda tensors, gone: None,
        lambda tensors, gone: tensors["no such tensor"],
        other_names,
        lambda tensors, gone: tensors["fc.bias"],
    ],
    "pruned_file": [
        pruned_file(MagnitudePruning(sparsity=0.88, budget="lamp"), saved_dense),
        "no such file",
        3,
        Path(__file__),
        ...,
    ],
    "budget": [
        LinearQuantization(bits=3),
        "half of it",
        FineTune(),
        MagnitudePruning(sparsity=0.6) | LinearQuantization(bits=5),
        LinearQuantization(bits=5) | MagnitudePruning(sparsity=0.6),
    ],
}


@pytest.mark.parametrize("name, answer", [(name, answer) for name, answers in RIGHT.items() for answer in answers])
def test_different_right_answers_pass(name, answer):
    assert check(name, answer, seed=SEED).startswith("right: ")


@pytest.mark.parametrize("name, answer", [(name, answer) for name, answers in WRONG.items() for answer in answers])
def test_known_mistakes_fail_with_a_hint(name, answer):
    with pytest.raises(AssertionError) as error:
        check(name, answer, seed=SEED)
    assert len(str(error.value)) > 40


@pytest.mark.parametrize(
    "name, answer, hint",
    [
        ("interval", lambda c, n: 0.5, "returns 0.5 for .* expected 2 numbers"),
        ("interval", lambda c, n: ("low", "high"), "expected 2 numbers"),
        ("criteria", lambda *a: (1, 2, 3), "expected 4 numbers"),
        ("paired", lambda b, f: "rarely", "returns 'rarely' for .* expected one number"),
        ("dense_bytes", lambda n: (4, n), "expected one number"),
        ("quantized_bytes", lambda w, o, b: "many", "expected one number"),
        ("interval", lambda c, n: (1 / n for n in (1, 0)), "failed with ZeroDivisionError: division by zero"),
        ("interval", 5, "your function failed with TypeError: 'int' object is not callable"),
        ("dense_bytes", lambda n: 10**400, "fewer bytes than you say"),
        ("budget", ..., "still three dots"),
        ("pruned_file", another_network(), "holds another network, lenet300.*save lenet5"),
        ("thin", other_names, "all 20 tensors under the same names; missing: fc.bias; too many: extra, more "),
        ("thin", lambda tensors, gone: {}, "missing: stem.weight, .* and 14 more "),
        ("thin", lambda tensors, gone: None, r"given \({stem.weight, stem.bias and 18 more}, \[.*\]\)"),
    ],
)
def test_answers_of_another_kind_get_a_hint_too(name, answer, hint):
    with pytest.raises(AssertionError, match=hint):
        check(name, answer)


def test_numbers_of_numpy_are_numbers():
    assert check("largest_rank", lambda m, n: np.int64((m * n - 1) // (m + n))).startswith("right: ")
    assert check("interval", lambda c, n: np.array(wilson(c, n))).startswith("right: ")


def test_an_unknown_exercise_lists_the_known_ones():
    with pytest.raises(ValueError, match="interval, paired, dense_bytes, criteria, largest_rank"):
        check("essay", None)


def test_the_lab_book_keeps_every_entry_and_is_never_overwritten(tmp_path):
    book = LabBook(tmp_path / "book.json")
    book.write("answer", "one", text="because <b>")
    again = LabBook(tmp_path / "book.json")
    again.write("prediction", "two", value=3)
    assert [entry["name"] for entry in book.entries] == ["one", "two"]
    page = Path(book.export(tmp_path / "book.html")).read_text()
    assert "because &lt;b&gt;" in page and "<script" not in page
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    with pytest.raises(CompressionError, match="not a lab book"):
        LabBook(broken)
    assert broken.read_text() == "{}"
    with pytest.raises(ValueError, match="kinds prediction"):
        book.write("gossip", "x")


def test_the_page_of_a_lab_book_has_a_row_for_each_setting_of_a_curve(tmp_path):
    book = LabBook(tmp_path / "book.json")
    book.write("prediction", "rank 0.1 to 0.9", value=[0.5, 0.75, 0.9], settings=["r=0.1", "r=0.5", "r=0.9"])
    before = Path(book.export(tmp_path / "book.html")).read_text()
    assert "<td>\u2003r=0.1</td><td>50&nbsp;%</td><td></td><td></td>" in before
    book.write(
        "measurement", "rank 0.1 to 0.9", settings=["r=0.1", "r=0.5"], predicted=[0.5, 0.75], measured=[0.6, 0.7]
    )
    page = Path(book.export(tmp_path / "book.html")).read_text()
    assert "<td>\u2003r=0.1</td><td>50&nbsp;%</td><td>60&nbsp;%</td><td>+10 points</td>" in page
    assert "<td>\u2003r=0.5</td><td>75&nbsp;%</td><td>70&nbsp;%</td><td>-5 points</td>" in page
    assert "<td>\u2003r=0.9</td><td>90&nbsp;%</td><td>no network</td><td></td>" in page


def test_an_answer_stays_hidden_until_a_prediction_is_committed(tmp_path):
    book = LabBook(tmp_path / "book.json")
    open_question = predict("zeros", "Accuracy?", ..., "%", book)
    assert not open_question.committed and open_question.reveal(91.0).startswith("Hidden")
    assert "91" not in open_question.reveal(91.0) and book.entries == []
    first = predict("zeros", "Accuracy?", 80, "%", book)
    assert first.reveal(91.0) == "You predicted 80 %; measured: 91 %, 11 points more."
    assert predict("zeros", "Accuracy?", 91, "%", book).value == 80  # the first committed number stands
    assert json.loads((tmp_path / "book.json").read_text())["entries"][0]["value"] == 80


@pytest.mark.parametrize(
    "value, unit, hint",
    [
        ("60", "%", "give a number such as 60, without quotes; this is '60'"),
        ("many", "bits", "give a number such as 4, without quotes; this is 'many'"),
        (True, "%", "without quotes; this is True"),
        ([60], "%", "without quotes"),
        (10**400, "%", "without quotes"),
        (math.nan, "times", "this is nan"),
        ("nan %", "%", "this is 'nan %'"),
        (600, "%", "from 0 to 100; this is 600"),
        (-3, "%", "from 0 to 100; this is -3"),
        (0.6, "%", '0.6 % or 60 %? For 60 % write 60; if you do mean 0.6 %, write "0.6 %", with the quotes'),
    ],
)
def test_a_prediction_that_cannot_be_meant_commits_nothing_and_says_what_to_write(value, unit, hint, tmp_path):
    book = LabBook(tmp_path / "book.json")
    asked = predict("zeros", "Accuracy?", value, unit, book)
    assert not asked.committed and book.entries == []
    assert repr(asked).startswith("Accuracy? Not committed yet: ") and hint in repr(asked)
    assert asked.reveal(91.0).startswith("Hidden") and hint in asked.reveal(91.0) and "91" not in asked.reveal(91.0)


@pytest.mark.parametrize(
    "value, unit, meant",
    [
        ("0.6 %", "%", 0.6),
        ("60%", "%", 60),
        (0, "%", 0),
        (1, "%", 1),
        (0.5, "points", 0.5),
        (np.int64(4), "bits", 4),
    ],
)
def test_a_number_with_its_unit_is_meant_as_it_stands(value, unit, meant, tmp_path):
    book = LabBook(tmp_path / "book.json")
    assert predict("zeros", "How much?", value, unit, book).value == meant == book.entries[0]["value"]


def test_the_page_shows_every_prediction_rounded_and_with_units(tmp_path):
    book = LabBook(tmp_path / "book.json")
    for value in (60, 97, 80.12345):
        predict("zeros", "Accuracy?", value, "%", book).reveal(36.775)
    book.write("prediction", "five", value=[0.9, 0.5], unit="accuracy")
    page = book.export(tmp_path / "book.html")
    rows = re.findall("<tr>(<td>.*?)</tr>", Path(page).read_text().replace("&nbsp;", " "))
    assert rows[0].startswith(
        "<td>Accuracy?</td><td>60 % (later: 97 %, 80.1 %; the first counts)</td><td>36.8 %</td><td>-23.2 points</td>"
    )
    assert rows[1].startswith("<td>five</td><td>0.9, 0.5 accuracy</td><td></td><td></td>")
    assert repr(page) == f"Your lab book is now a page too, {page}: open it in a browser."


@pytest.mark.parametrize("text", ["...", "", "  ", "because ...", "because\u2026", ...])
def test_a_place_holder_is_no_answer(text, tmp_path, capsys):
    book = LabBook(tmp_path / "book.json")
    assert book.write("answer", "one", text=text) is None and book.entries == []
    assert capsys.readouterr().out.startswith("not written down yet, 'one': put a sentence of your own")
    book.write("answer", "one", text="the zeros are multiplied ...")
    assert len(book.entries) == 1 and capsys.readouterr().out == ""


def test_source_is_shown_without_its_docstring():
    assert "kthvalue" in repr(show(keep_largest)) and ">>>" not in repr(show(keep_largest))
    assert repr(show(MagnitudePruning)).startswith("@method\nclass MagnitudePruning")
    assert "Paper:" not in repr(show(MagnitudePruning))
    compile(repr(show(keep_largest)), "shown", "exec")


def test_a_notebook_shows_the_hint_of_a_failed_check_and_not_our_code():
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell.instance()
    try:
        shell.user_ns["given"] = lambda correct, total: (0.0, 1.0)
        with capture_output() as shown:
            done = shell.run_cell("from compedu.course import check\nprint(check('interval', given))")
    finally:
        InteractiveShell.clear_instance()
    assert isinstance(done.error_in_exec, AssertionError)  # what grading counts
    said = shown.stdout + shown.stderr
    assert "not yet: for 0 of " in said and "Traceback" not in said and "checks.py" not in said


def test_texts_and_figures_that_tell_the_answer_wait_for_the_prediction(capsys):
    waiting = predict("zeros", "How many?", ..., "%")
    committed = predict("zeros", "How many?", 60, "%")
    assert waiting.reveal(91.0, "97 too", "figure").startswith("Hidden") and waiting.show(3, "text").figures == ()
    told = committed.reveal(91.0, "a line", [1, 2])
    assert told == "You predicted 60 %; measured: 91 %, 31 points more.\na line" and told.figures == ([1, 2],)
    told._ipython_display_()
    assert capsys.readouterr().out == f"{told}\n[1, 2]\n"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.rglob("*.ipynb")), ids=lambda path: path.stem)
def test_a_cell_that_reveals_an_answer_tells_nothing_beside_the_prediction(path):
    """From the prediction to its answer nothing is printed but through it; behind the answer a lab book at most."""
    waiting = ""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        revealed = re.search(r"(\w+)\.reveal\(", source)
        if revealed:
            *before, last = ast.parse(source).body
            said = [ast.unparse(one) for one in (*before, last) if isinstance(one, ast.Expr)]
            assert all(re.match(rf"(print\()?{revealed[1]}\.reveal\(|book\.", text) for text in said), source
            loops = [one for one in before if not isinstance(one, ast.Expr)]
            assert "print(" not in "".join(map(ast.unparse, loops)), source
            assert revealed[1] == waiting
        if asked := re.search(r"^(\w+) = predict\(", source, re.MULTILINE):
            waiting = asked[1]


def test_a_later_prediction_is_written_down_and_said_not_to_count(tmp_path):
    book = LabBook(tmp_path / "book.json")
    predict("zeros", "How many?", 60, "%", book)
    again = predict("zeros", "How many?", 97, "%", book)
    assert again.value == 60 and again.later == 97
    assert "Your prediction: 60 % (your first, from the lab book: it counts; 97 is recorded beside it)" in repr(again)
    assert [entry["value"] for entry in book.entries] == [60, 97]
    assert "beside it" not in repr(predict("zeros", "How many?", 60, "%", book))
