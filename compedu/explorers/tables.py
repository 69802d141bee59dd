"""The same figures as tables: for screen readers, for copying, for a file."""

import csv
import html
import io
from collections.abc import Iterable

from compedu.explorers.words import bytes_text
from compedu.metrics import Report


def layers_table(report: Report | None) -> str:
    """Return an HTML table of what each layer became, what it costs and which kernel runs it; and what was skipped."""
    if report is None or not report.layers:
        return "<span class='compedu-quiet'>the table appears after the first measurement</span>"
    head = ("layer", "form", "shape", "file", "bits a weight", "MACs", "error", "runs on")
    rows = [
        (
            row.name, row.form, "×".join(map(str, row.shape)), bytes_text(row.bytes), f"{row.bits_per_weight:.2f}",
            f"{row.macs:,}", "" if row.error is None else f"{row.error:.1%}", row.kernel,
        )
        for row in report.layers
    ]  # fmt: skip
    text = html_table(head, rows, "Layers of the compressed network")
    if report.skipped:
        text += html_table(("skipped layer", "reason"), [(s.layer, s.reason) for s in report.skipped], "Skipped layers")
    return text


def criteria_table(report: Report | None) -> str:
    """Return an HTML table of the survey's criteria for this network (Cheng et al. 2018, evaluation section)."""
    if report is None:
        return ""
    rows = [
        ("compression rate α, by parameters", _number(report.compression_rate)),
        ("compression rate α, by bytes of the file", _number(report.compression_rate_bytes)),
        ("index space saving β as printed in the survey (α − 1)", _number(report.index_space_saving_printed)),
        ("space saving as usual (1 − 1/α)", _number(report.index_space_saving)),
        ("speed-up rate δ, measured", _number(report.speed_up_rate)),
    ]
    return html_table(("criterion", "value"), rows, "The survey's criteria")


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


def html_table(head: Iterable[str], rows: Iterable[Iterable[str]], caption: str) -> str:
    """Return an HTML table with a caption and column heads."""
    top = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table class='compedu-table'><caption>{html.escape(caption)}</caption><tr>{top}</tr>{body}</table>"


def csv_text(reports: Iterable[Report]) -> str:
    """Return reports as comma-separated values, one line each: the figures that were measured."""
    columns = (
        "method", "model", "data", "split", "correct", "total", "accuracy", "file_bytes", "coded_bytes", "parameters", "macs",
    )  # fmt: skip
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*columns, "speed_up", "speed_low", "speed_high", "speed_verdict"])
    for report in reports:
        timing = report.latency
        speed = ("", "", "", "") if timing is None else (timing.speed_up, *timing.interval, timing.verdict)
        values = [getattr(report, column) for column in columns]
        writer.writerow(["" if value is None else value for value in values] + list(speed))
    return buffer.getvalue()
