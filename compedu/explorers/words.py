"""Figures as text with units, the same on gauges, in tables and for screen readers."""

from collections.abc import Iterable

from compedu.metrics import Change, Latency, Report

MINUS = "\N{MINUS SIGN}"


def percent(share: float, digits: int = 1) -> str:
    """Return a share in 0..1 with its unit: "87.4 %"."""
    return f"{100 * share:.{digits}f} %"


def bytes_text(count: float) -> str:
    """Return a number of bytes with its unit: "812 B", "41.2 kB", "1.20 MB"."""
    if count < 1000:
        return f"{count:.0f} B"
    return f"{count / 1000:.1f} kB" if count < 999_950 else f"{count / 1e6:.2f} MB"


def points_text(difference: float) -> str:
    """Return a difference of two shares in percentage points: "−10.6 points"."""
    return f"{100 * difference:+.1f} points".replace("-", MINUS)


def times_text(ratio: float) -> str:
    """Return a size ratio in words: "14.5 times smaller than", or, near 1, "3 % larger than"."""
    if f"{ratio:.2f}" == "1.00":
        return "as large as"
    if 1 / 1.15 < ratio < 1.15:
        return f"{100 * abs(1 - 1 / ratio):.0f} % {'smaller' if ratio > 1 else 'larger'} than"
    return f"{ratio:.1f} times smaller than" if ratio > 1 else f"{1 / ratio:.1f} times larger than"


def change_text(change: Change) -> str:
    """Return a change of accuracy with its paired 95 % interval: "−0.6 points (−1.5 to +0.2)"."""
    low, high = (f"{100 * end:+.1f}".replace("-", MINUS) for end in change.interval)
    return f"{points_text(change.difference)} ({low} to {high})"


def accuracy_lines(report: Report) -> tuple[str, ...]:
    """Return accuracy, image counts with the interval, and the change against the dense network with its own."""
    low, high = report.accuracy_interval
    lines = [percent(report.accuracy), f"{report.correct} of {report.seen}; 95 %: {100 * low:.1f} to {100 * high:.1f}"]
    if report.change is not None:
        lines.append(change_text(report.change))
    return tuple(lines)


def apart_text(change: Change) -> str:
    """Return whether a change of accuracy tells the network from the dense one."""
    low, high = change.interval
    return f"{'' if low > 0 or high < 0 else 'not '}distinguishable from the dense network"


def size_lines(report: Report, dense: Report) -> tuple[str, ...]:
    """Return the file's bytes, the ratio to the dense network's file, and the bytes when entropy-coded."""
    if report.file_bytes is None:
        return ("…", "the file is being written")
    lines = [bytes_text(report.file_bytes)]
    if dense.file_bytes is not None:
        lines.append(f"{times_text(dense.file_bytes / report.file_bytes)} {bytes_text(dense.file_bytes)}")
    if report.entropy_coded_bytes is not None:
        lines.append(f"entropy-coded {bytes_text(report.entropy_coded_bytes)}")
    return tuple(lines)


WIDEST = 30  # characters of a line below a gauge


def speed_lines(report: Report, measured: bool = True, stored: Latency | None = None) -> tuple[str, ...]:
    """Return the verdict in words, the ratio with its interval, and the kernels.

    Where nothing is measured here yet, the `stored` speed of another machine is named as such.
    """
    timing = report.latency if measured else None
    if timing is None or timing.speed_up_interval is None:
        elsewhere = () if stored is None else (f"on another machine {stored.speed_up:.1f}×",)
        return ("…", "not measured here yet", *elsewhere)
    low, high = timing.speed_up_interval
    threads = f"{timing.threads} thread{'s' if timing.threads > 1 else ''}"
    where = f"batch {timing.batch_size}, {threads}"
    names = kernels(report)
    runs = f"{where}: {' + '.join(names)}"
    withheld = timing.verdict.startswith("withheld")
    sure = "A/A arm failed" if withheld else f"95 %: {low:.2f} to {high:.2f}"
    return (
        verdict_text(timing),
        f"{timing.speed_up:.2f}×; {sure}",
        runs if len(runs) <= WIDEST else f"{where}: {len(names)} kernels",
    )


def verdict_text(timing: Latency) -> str:
    """Return the verdict on the speed: "4.1× faster", "2.8× slower", "not distinguishable", "withheld"."""
    verdict = timing.verdict or ""
    if timing.speed_up is None or verdict not in ("faster", "slower"):
        return verdict.split(":")[0]
    ratio = timing.speed_up if verdict == "faster" else 1 / timing.speed_up
    return f"{ratio:.{1 if ratio >= 1.1 else 2}f}× {verdict}"  # "1.0× faster" would contradict itself


def kernels(report: Report) -> tuple[str, ...]:
    """Return the short names of the kernels that run, without repetition, in the order of the layers."""
    names = [row.kernel.split(",")[0].removeprefix("float32 ") for row in report.layers or () if row.kernel]
    return tuple(dict.fromkeys(names))


def sentence(report: Report, dense: Report, measured: bool = True) -> str:
    """Return all three figures in words: the text form of the gauges."""
    change = report.change
    pairs = () if change is None else (f"broke {change.broke}, fixed {change.fixed}: {apart_text(change)}",)
    said = accuracy_lines(report) + pairs, size_lines(report, dense), speed_lines(report, measured)
    return " ".join(
        f"{name}: {_joined(lines)}." for name, lines in zip(("Accuracy", "Size", "Speed"), said, strict=True)
    )


def _joined(lines: Iterable[str]) -> str:
    return "; ".join(line for line in lines if line != "…")
