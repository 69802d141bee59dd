"""The same figures as tables, for screen readers, copying and files."""

import csv
import html
import io
from collections.abc import Iterable, Sequence

from compedu.columns import html_table
from compedu.explorers.words import bytes_text, percent
from compedu.metrics import Report

WAIT = "<p class='compedu-quiet'>the table appears when the measurement is complete</p>"


def captioned(head: Iterable[str], rows: Iterable[Iterable], caption: str) -> str:
    """Return a table of the panel."""
    return html_table(head, rows, caption, class_="compedu-table")


def layers_table(report: Report | None) -> str:
    """Return an HTML table of each layer's form, cost and kernel, and of the layers that were skipped."""
    if report is None or not report.layers:
        return WAIT
    head = ("layer", "form", "shape", "file", "bits a weight", "MACs", "error", "runs on")
    rows = [
        (
            row.name, row.form, "×".join(map(str, row.shape)), bytes_text(row.bytes), _text(row.bits_per_weight, ".2f"),
            _text(row.macs, ","), _text(row.error, ".1%"), row.kernel or "",
        )
        for row in report.layers
    ]  # fmt: skip
    text = captioned(head, rows, "Layers of the compressed network; MACs are multiply-accumulates for one image")
    if report.uncounted:
        text += f"<p class='compedu-quiet'>not counted: {html.escape(', '.join(report.uncounted))}</p>"
    if report.skipped:
        skipped = [(skip.layer, skip.reason, skip.step) for skip in report.skipped]
        text += captioned(("layer", "reason", "by"), skipped, "Skipped layers")
    return text


def criteria_table(report: Report | None) -> str:
    """Return an HTML table of the survey's criteria for this network (Cheng et al. 2018, evaluation section)."""
    if report is None:
        return WAIT
    rows = [
        ("compression rate α, by parameters", _number(report.compression_rate)),
        ("compression rate α, by bytes of the file", _number(report.compression_rate_bytes)),
        ("index space saving β as printed in the survey (α − 1)", _number(report.index_space_saving_printed)),
        ("standard space saving (1 − 1/α)", _number(report.index_space_saving)),
        ("speed-up rate δ, measured", _number(report.speed_up_rate)),
    ]
    return captioned(("criterion", "value"), rows, "The survey's criteria")


def points_table(groups: Iterable[tuple[str, Sequence[Report]]]) -> str:
    """Return an HTML table of the points of the trade-off curve, each once, with the names of all groups it is in."""
    names: dict[tuple[str, ...], dict[str, None]] = {}
    for name, reports in groups:
        for report in reports:
            if report.file_bytes is not None:
                figures = (percent(report.accuracy), bytes_text(report.file_bytes), _coded(report))
                names.setdefault((report.method or "dense", *figures), {})[name] = None
    rows = [(", ".join(found), *point) for point, found in names.items()]
    return captioned(("shown as", "method", "accuracy", "file", "entropy-coded"), rows, "Points of the trade-off curve")


def _coded(report: Report) -> str:
    return "" if report.entropy_coded_bytes is None else bytes_text(report.entropy_coded_bytes)


def _text(value: float | None, style: str) -> str:
    return "" if value is None else format(value, style)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


def csv_text(reports: Iterable[Report]) -> str:
    """Return reports as comma-separated values, one line each, with the measured figures."""
    columns = (
        "method", "model", "data", "split", "correct", "total", "accuracy", "file_bytes", "entropy_coded_bytes",
        "parameters", "macs",
    )  # fmt: skip
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*columns, "speed_up", "speed_low", "speed_high", "speed_verdict"])
    for report in reports:
        values = [getattr(report, column) for column in columns] + _speed(report)
        writer.writerow(["" if value is None else value for value in values])
    return buffer.getvalue()


def _speed(report: Report) -> list:
    timing = report.latency
    if timing is None or timing.speed_up_interval is None:
        return [None] * 4
    return [timing.speed_up, *timing.speed_up_interval, timing.verdict]
