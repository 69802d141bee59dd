"""The learner's lab book: predictions, answers and uses of the test split, in one file in the learner's folder."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

from compedu.columns import html_table
from compedu.course.amounts import amount, difference
from compedu.errors import CompressionError
from compedu.reading import refuse_unending
from compedu.writing import alone, write_whole

PAGE = (
    "<!doctype html><html lang='en'><meta charset='utf-8'><title>Lab book</title><style>body{{font:15px sans-serif;"
    "margin:2em}}td,th{{padding:4px 12px;text-align:left;border-bottom:1px solid #ccc}}"
    "td:last-child{{white-space:nowrap}}"
    "</style><h1>Lab book</h1>{}</html>"
)
KINDS = ("prediction", "measurement", "answer", "test split")


@dataclass(frozen=True)
class Page:
    """A lab book as a web page in the file `path`; a notebook shows where to find it."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Your lab book is now a page too, {self.path}: open it in a browser."


class LabBook:
    """A list of entries in a JSON file; every entry is written immediately, so that nothing is lost when a kernel dies.

    `path` is the file, by default lab-book.json in the current folder. A file that is not a lab book is an error, and
    never overwritten.
    """

    def __init__(self, path: str | Path = "lab-book.json"):
        self.path = Path(path)
        self._read()

    @property
    def entries(self) -> list[dict[str, Any]]:
        """All entries, oldest first; each has kind, name, time and its content."""
        return self._read()

    def write(self, kind: str, name: str, **content: Any) -> dict[str, Any] | None:
        """Append an entry and return it; `kind` is one of `KINDS`, `content` any JSON data.

        An answer whose `text` is still a placeholder is not written: a line says so, and None is returned.
        """
        if kind not in KINDS:
            raise ValueError(f"a lab book has entries of the kinds {', '.join(KINDS)}, not {kind!r}")
        if kind == "answer" and "text" in content and _is_placeholder(content["text"]):
            print(f"not written down yet, {name!r}: put a sentence of your own in place of the three dots")
            return None
        entry = {
            "kind": kind, "name": name, "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        } | content  # fmt: skip
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with alone(self.path):  # two notebooks may write to one book
            entries = [*self._read(), entry]
            write_whole(self.path, (json.dumps({"lab book": 1, "entries": entries}, indent=1) + "\n").encode())
        return entry

    def first(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return the first entry of this kind and name, or None: the first prediction is the one that counts."""
        return next((e for e in self.entries if (e["kind"], e["name"]) == (kind, name)), None)

    def newest(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return the newest entry of this kind and name, or None."""
        return next((e for e in reversed(self.entries) if (e["kind"], e["name"]) == (kind, name)), None)

    def export(self, path: str | Path) -> Page:
        """Write the lab book as a self-contained web page, and return it.

        Predictions are listed beside the measurements, one row each; everything else follows in order of time.
        """
        asked = dict.fromkeys(e["name"] for e in self.entries if e["kind"] in ("prediction", "measurement"))
        rest = [e for e in self.entries if e["kind"] not in ("prediction", "measurement")]
        tables = [
            _table(
                "Predictions", ("question", "predicted", "measured", "difference", "when"),
                chain.from_iterable(map(self._confronted, asked)),
            ),
            _table(
                "Notes", ("kind", "about", "content", "when"),
                [(e["kind"], e["name"], _content(e), _when(e)) for e in rest],
            ),
        ]  # fmt: skip
        write_whole(Path(path), PAGE.format("".join(tables)).encode())
        return Page(Path(path))

    def _confronted(self, name: str) -> list[tuple[str, ...]]:
        """Return the rows of a prediction: one, or for a curve one for each setting below its name."""
        entries = [e for e in self.entries if e["name"] == name]
        said = [e for e in entries if e["kind"] == "prediction"]
        found = next((e for e in reversed(entries) if e["kind"] == "measurement"), {})
        if said and "settings" in said[0]:
            return _curve(said[0], found)
        return [_single(name, said, found)]

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        refuse_unending(self.path, "name another one for the lab book")
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return content["entries"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CompressionError(
                f"{self.path} is not a lab book ({error}); move it away, or name another file"
            ) from error


def _single(name: str, said: list[dict[str, Any]], found: dict[str, Any]) -> tuple[str, ...]:
    """Return the row of a number: the first prediction, which counts, later ones, and the newest measurement."""
    head = said[0] if said else found
    unit = head.get("unit", "")
    predicted, *later = [amount(e.get("value", ""), unit) for e in said] or [""]
    return (
        head.get("question", name),
        predicted + (f" (later: {', '.join(later)}; the first counts)" if later else ""),
        amount(found["measured"], unit) if "measured" in found else "",
        difference(head.get("value"), found.get("measured"), unit), _when(head),
    )  # fmt: skip


def _curve(said: dict[str, Any], found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the name of a curve of accuracies, and a row in percent for each of its settings.

    Of settings that gave no network nothing was measured: a measurement names the others.
    """
    measured = dict(zip(found.get("settings", ()), found.get("measured", ()), strict=False))
    rows: list[tuple[str, ...]] = [(said["name"], "", "", "", _when(said))]
    for setting, value in zip(said["settings"], said["value"], strict=True):
        if setting in measured:
            right = 100 * measured[setting]
            answer = (amount(right, "%"), difference(100 * value, right, "%"))
        else:
            answer = ("no network" if measured else "", "")
        rows.append((f"\u2003{setting}", amount(100 * value, "%"), *answer, ""))
    return rows


def _is_placeholder(text: Any) -> bool:
    """Tell whether a text is still empty: no words, or the three dots of a chapter after at most one word."""
    if not isinstance(text, str):
        return text is ...
    words = text.replace("...", " ").replace("\u2026", " ").split()
    return not words or (len(words) == 1 and text.rstrip().endswith(("...", "\u2026")))


def _content(entry: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in entry.items() if name not in ("kind", "name", "time"))


def _when(entry: dict[str, Any]) -> str:
    return entry["time"][:16].replace("T", " ")


def _table(title: str, head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return an HTML table under its title, or that there is nothing to show."""
    rows = list(rows)
    if not rows:
        return f"<h2>{title}</h2><p>none yet</p>"
    return f"<h2>{title}</h2>{html_table(head, rows)}"
