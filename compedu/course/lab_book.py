"""The learner's lab book: predictions, answers and looks at the test split, in one file in the learner's folder."""

import html
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from compedu.errors import CompressionError
from compedu.writing import write_whole

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
        entry = {"kind": kind, "name": name, "time": datetime.now().astimezone().isoformat(timespec="seconds")} | content
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
        """Write the lab book as a web page that needs nothing else, and return its path."""
        rows = "".join(
            f"<tr><td>{html.escape(e['time'])}</td><td>{html.escape(e['kind'])}</td><td>{html.escape(e['name'])}</td>"
            f"<td>{html.escape(_content(e))}</td></tr>"
            for e in self.entries
        )
        page = (
            "<!doctype html><html lang='en'><meta charset='utf-8'><title>Lab book</title><style>body{font:15px sans-serif;"
            "margin:2em}td,th{padding:4px 12px;text-align:left;border-bottom:1px solid #ccc}</style><h1>Lab book</h1>"
            f"<table><tr><th>time</th><th>kind</th><th>about</th><th>content</th></tr>{rows}</table></html>"
        )
        Path(path).write_text(page, encoding="utf-8")
        return Path(path)

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return content["entries"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CompressionError(f"{self.path} is not a lab book ({error}); move it away, or name another file") from error


def _content(entry: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in entry.items() if name not in ("kind", "name", "time"))
