"""The table of results: each benchmark writes its own section of RESULTS.md, with the machine and the versions."""

import argparse
import os
import platform
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from compedu.metrics import Latency
from compedu.metrics.latency import median_interval
from compedu.metrics.machine import cpu_name
from compedu.writing import alone, write_whole

RESULTS = Path(__file__).with_name("RESULTS.md")
DATA = "glyphs"  # the images of every benchmark, and with them the shipped weights
PACKAGES = ("torch", "numpy", "ipywidgets", "anywidget", "plotly")
HEAD = """# Benchmarks

Written by `make bench`; each script of this folder replaces its own section. Times of different sections may be hours
apart, on a machine that others use too: only ratios of interleaved runs carry over. Every figure is a median, followed
by a 95 % interval of the median. A target counts as met or missed when the whole interval says so.
"""


@dataclass(frozen=True)
class Estimate:
    """A median with its 95 % interval."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Return the median of at least six `values`."""
        return cls(statistics.median(values), *median_interval(list(values)))

    @classmethod
    def speed_up(cls, latency: Latency) -> "Estimate":
        """Return the speed-up that was measured against a baseline."""
        return cls(latency.speed_up, *latency.speed_up_interval)

    @classmethod
    def a_a(cls, latency: Latency) -> "Estimate":
        """Return the ratio of the baseline to itself."""
        return cls(latency.a_a, *latency.a_a_interval)

    def text(self, digits: int = 2, unit: str = "") -> str:
        """Return the figure as it stands in a table, such as "3.61x (3.58 to 3.66)"."""
        return f"{self.median:.{digits}f}{unit} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(frozen=True)
class Target:
    """A promise about one figure, such as "preview" at most 30 " ms", and what was found."""

    what: str
    limit: float
    found: Estimate
    unit: str
    digits: int = 0
    at_least: bool = False

    @property
    def missed(self) -> bool:
        """Whether the whole interval breaks the promise."""
        return self.found.high < self.limit if self.at_least else self.found.low > self.limit

    @property
    def verdict(self) -> str:
        """Whether the whole interval keeps the promise ("met"), breaks it ("missed"), or holds the limit ("open")."""
        kept = self.found.low >= self.limit if self.at_least else self.found.high <= self.limit
        return "met" if kept else "**missed**" if self.missed else "open: the interval holds the limit"

    @property
    def row(self) -> tuple[str, ...]:
        """The target as a row of a table."""
        side = "at least" if self.at_least else "at most"
        return self.what, f"{side} {self.limit:g}{self.unit}", self.found.text(self.digits, self.unit), self.verdict


@dataclass(frozen=True)
class Section:
    """What one benchmark found: prose, one table, the targets, and in Markdown what explains the figures."""

    name: str
    title: str
    said: str
    head: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    targets: tuple[Target, ...] = ()
    explained: str = ""

    @property
    def text(self) -> str:
        """The section in Markdown, between the two marks by which it is found again."""
        parts = [f"<!-- {self.name} -->\n## {self.title}", self.said.strip(), grid(self.head, self.rows)]
        if self.targets:
            parts.append(grid(("target", "limit", "measured", "verdict"), (target.row for target in self.targets)))
        if self.explained:
            parts.append(self.explained.strip())
        return "\n\n".join((*parts, circumstances(), f"<!-- end of {self.name} -->"))


def grid(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a Markdown table."""
    lines = [[str(cell).replace("|", r"\|") for cell in row] for row in (head, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def circumstances() -> str:
    """Return when, on which machine and with which versions, and how busy that machine was meanwhile."""
    load = f"load average of the last minutes {', '.join(f'{value:.1f}' for value in os.getloadavg())}"
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"*{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {cpu_name()}, {os.cpu_count()} cores, torch on "
        f"{torch.get_num_threads()} thread(s) unless said otherwise; {load}; {platform.system()}, Python "
        f"{platform.python_version()}, {versions}.*"
    )


def write(section: Section, path: Path) -> None:
    """Put `section` into the file `path`, in place of its predecessor; the other sections stay, sorted by name."""
    with alone(path):
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        kept = {
            found[1]: found[0] for found in re.finditer(r"<!-- (\w+) -->\n.*?<!-- end of \1 -->", before, re.DOTALL)
        }
        sections = kept | {section.name: section.text}
        text = "\n\n".join([HEAD.strip(), *(sections[name] for name in sorted(sections))]) + "\n"
        write_whole(path, text.encode())
    print(section.text)


def options(about: str, full: Any, quick: Any, given: Sequence[str] | None) -> tuple[Any, Path]:
    """Return the settings, `full` or with --quick `quick`, and the file to write, from a command line."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="the smallest settings: it runs, no more")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file whose section is replaced")
    asked = parser.parse_args(given)
    if asked.quick and asked.out == RESULTS:
        parser.error("--quick measures nothing worth keeping: name another file with --out")
    return (quick if asked.quick else full), asked.out
