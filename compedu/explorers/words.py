"""Numbers in words, with units: the same text on gauges, in tables and for screen readers."""

from compedu.metrics import Report


def bytes_text(count: float) -> str:
    """Return a number of bytes with its unit: "812 B", "41.2 kB", "1.20 MB"."""
    if count < 1000:
        return f"{count:.0f} B"
    return f"{count / 1000:.1f} kB" if count < 1e6 else f"{count / 1e6:.2f} MB"


def accuracy_text(report: Report) -> str:
    """Return accuracy with counts, and the change against the dense network on the same images."""
    text = f"{report.accuracy:.1%} ({report.correct} of {report.total})"
    if report.change is not None:
        points = 100 * report.change.difference
        text += f" · {points:+.1f} point (broke {report.change.broke}, fixed {report.change.fixed})"
    return text


def size_text(report: Report, dense: Report) -> str:
    """Return the file's bytes, packed and entropy-coded, and the ratio to the dense network's file."""
    if report.file_bytes is None:
        return "not measured"
    text = bytes_text(report.file_bytes)
    if report.coded_bytes is not None:
        text += f", entropy-coded {bytes_text(report.coded_bytes)}"
    if dense.file_bytes is None:
        return text
    return f"{text} · dense {bytes_text(dense.file_bytes)} = {dense.file_bytes / report.file_bytes:.1f} times"


def speed_text(report: Report) -> str:
    """Return the measured speed ratio with its interval, and the verdict in words."""
    timing = report.latency
    if timing is None:
        return "not measured here (a stored speed of another machine is never shown as yours)"
    low, high = timing.interval
    return (
        f"{timing.speed_up:.2f} times [{low:.2f}, {high:.2f}]: {timing.verdict} · batch {timing.batch_size}, "
        f"{timing.threads} thread{'s' if timing.threads > 1 else ''}"
    )


def sentence(report: Report, dense: Report) -> str:
    """Return one sentence that says all three figures: the text form of the gauges."""
    return f"Accuracy {accuracy_text(report)}. File {size_text(report, dense)}. Speed {speed_text(report)}."
