"""The learner's lab book: predictions, answers and looks at the test split, in one file in the learner's folder."""

import html
import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from compedu.errors import CompressionError
from compedu.writing import write_whole

PAGE = (
    "<!doctype html><html lang='en'><meta charset='utf-8'><title>Lab book</title><style>body{{font:15px sans-serif;"
    "margin:2em}}td,th{{padding:4px 12px;text-align:left;border-bottom:1px solid #ccc}}"
    "td:last-child{{white-space:nowrap}}"
    "</style><h1>Lab book</h1>{}</html>"
)
KINDS = ("prediction", "measurement", "answer", "test split")


class LabBook:
    """A list of entries in a JSON file; every entry is written at once, so that nothing is lost when a kernel dies.

    `path` is the file, by default lab-book.json in the current folder. A file that is no lab book is an error, never
    overwritten.
    """

    def __init__(self, path: str | Path = "lab-book.json"):
        self.path = Path(path)
        self._read()

    @property
    def entries(self) -> list[dict[str, Any]]:
        """All entries, oldest first; each has kind, name, time and its content."""
        return self._read()

    def write(self, kind: str, name: str, **content: Any) -> dict[str, Any]:
        """Append an entry and return it; `kind` is one of `KINDS`, `content` anything that JSON holds."""
        if kind not in KINDS:
            raise ValueError(f"a lab book has entries of the kinds {', '.join(KINDS)}, not {kind!r}")
        entry = {
            "kind": kind, "name": name, "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        } | content  # fmt: skip
        entries = [*self._read(), entry]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, (json.dumps({"lab book": 1, "entries": entries}, indent=1) + "\n").encode())
        return entry

    def first(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return the first entry of this kind and name, or None: of predictions it is the one that counts."""
        return next((e for e in self.entries if (e["kind"], e["name"]) == (kind, name)), None)

    def newest(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return the newest entry of this kind and name, or None."""
        return next((e for e in reversed(self.entries) if (e["kind"], e["name"]) == (kind, name)), None)

    def export(self, path: str | Path) -> Path:
        """Write the lab book as a web page that needs nothing else, and return its path.

        Predictions stand beside what was measured, one row each; everything else follows in the order of its writing.
        """
        asked = dict.fromkeys(e["name"] for e in self.entries if e["kind"] in ("prediction", "measurement"))
        rest = [e for e in self.entries if e["kind"] not in ("prediction", "measurement")]
        tables = [
            _table(
                "Predictions", ("question", "predicted", "measured", "difference", "when"),
                map(self._confronted, asked),
            ),
            _table(
                "Notes", ("kind", "about", "content", "when"),
                [(e["kind"], e["name"], _content(e), _when(e)) for e in rest],
            ),
        ]  # fmt: skip
        Path(path).write_text(PAGE.format("".join(tables)), encoding="utf-8")
        return Path(path)

    def _confronted(self, name: str) -> tuple[str, ...]:
        """Return the row of a prediction: the first number that was committed, the newest that was measured."""
        said, found = self.first("prediction", name), self.newest("measurement", name)
        unit = (said or found).get("unit", "")
        value, measured = (said or {}).get("value", ""), (found or {}).get("measured", "")
        numbers = all(isinstance(one, (int, float)) for one in (value, measured))
        gap = f"{measured - value:+.3g}" if numbers else ""
        return (
            (said or {}).get("question", name), f"{value} {unit}", f"{measured} {unit}" if found else "", gap,
            _when(said or found),
        )  # fmt: skip

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return content["entries"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CompressionError(
                f"{self.path} is not a lab book ({error}); move it away, or name another file"
            ) from error


def _content(entry: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in entry.items() if name not in ("kind", "name", "time"))


def _when(entry: dict[str, Any]) -> str:
    return entry["time"][:16].replace("T", " ")


def _table(title: str, head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return an HTML table under its title."""
    heads = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h2>{title}</h2><table><tr>{heads}</tr>{body}</table>"
