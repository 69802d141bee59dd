"""A report as text to read: every figure with its unit and its interval."""

import textwrap

from compedu.columns import in_columns
from compedu.metrics.accuracy import Change
from compedu.metrics.latency import Latency
from compedu.metrics.report import LayerRow, Report

WIDTH = 88  # characters of a line after its name: a notebook breaks longer ones in the middle of a word
_LAYER_COLUMNS = ("layer", "form", "shape", "bytes", "bits/weight", "parameters", "MACs", "error", "what runs")
_TEXT_COLUMNS = (0, 1, 2, 8)


def card(report: Report) -> str:
    """Return the report as lines of text; what was not measured has no line."""
    lines = [
        f"{report.method or 'no method'}: {report.model} on {report.data}, {report.split} split"
        + (f"  (measuring: {report.seen:,} of {report.total:,} images)" if report.partial else "")
    ]
    for name, text in _entries(report):
        parts = [line for part in text.split("\n") for line in textwrap.wrap(part, WIDTH)]
        lines += [f"  {'' if index else name:<11} {part}" for index, part in enumerate(parts)]
    if report.layers:
        lines += ["", *in_columns([_LAYER_COLUMNS, *map(_cells, report.layers)], _TEXT_COLUMNS)]
    if report.skipped:
        lines += ["", "not compressed:", *(f"  {s.layer}: {s.reason}  ({s.step})" for s in report.skipped)]
    return "\n".join(lines)


def _entries(report: Report) -> list[tuple[str, str]]:
    low, high = report.accuracy_interval
    return [
        (
            "accuracy",
            f"{report.accuracy:.2%}, 95 % interval {low:.2%} to {high:.2%} "
            f"({report.correct:,} of {report.seen:,} correct); loss {report.loss:.4f}"
            + (" nats" if report.criterion is None else ""),
        ),
        ("correct if", report.criterion or ""),
        ("change", _change(report.change)),
        ("size", _size(report)),
        ("", ", ".join(f"{role} {size:,}" for role, size in (report.size_by_role or {}).items())),
        ("parameters", _count(report.parameters, report.baseline_parameters)),
        ("MACs", _count(report.macs, report.baseline_macs, " for one image")),
        ("not counted", ", ".join(report.uncounted)),
        ("speed", _speed(report.latency)),
        ("criteria", _criteria(report)),
        ("machine", _machine(**report.machine)),
    ]


def _machine(cpu: str, threads: int, torch: str) -> str:
    return f"{cpu}, {_counted(threads, 'thread')}, torch {torch}"


def _change(change: Change | None) -> str:
    if change is None:
        return ""
    low, high = (100 * end for end in change.interval)
    return (
        f"{100 * change.difference:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}\n"
        f"broke {change.broke:,}, fixed {change.fixed:,} (exact McNemar test, p {_probability(change.p_value)})"
    )


def _probability(p: float) -> str:
    """Return a probability with its sign of relation; one below the smallest float is not called 0."""
    return f"= {p:.2g}" if p > 0 else "< 1e-300"


def _size(report: Report) -> str:
    if report.file_bytes is None:
        return ""
    baseline = "" if report.baseline_file_bytes is None else f" (baseline {report.baseline_file_bytes:,})"
    text = f"{report.file_bytes:,} bytes packed{baseline}"
    if report.entropy_coded_bytes is not None:
        coded = (
            ""
            if report.baseline_entropy_coded_bytes is None
            else f" (baseline {report.baseline_entropy_coded_bytes:,})"
        )
        text += f"\n{report.entropy_coded_bytes:,} bytes entropy-coded{coded}"
    return text


def _count(number: int | None, baseline: int | None, unit: str = "") -> str:
    if number is None:
        return ""
    return f"{number:,}{unit}" + ("" if baseline is None else f" (baseline {baseline:,})")


def _speed(latency: Latency | None) -> str:
    if latency is None:
        return ""
    images = _counted(latency.batch_size, "image")
    threads = _counted(latency.threads, "thread")
    text = (
        f"{latency.latency_ms:.3g} ms for {images} on {threads}, quartiles {latency.spread_ms[0]:.3g} to "
        f"{latency.spread_ms[1]:.3g}, {latency.rounds} rounds"
    )
    if latency.verdict is None:
        return text
    (low, high) = latency.speed_up_interval
    (same_low, same_high) = latency.a_a_interval
    return (
        f"{latency.verdict}: {latency.speed_up:.3g} times the baseline's speed, 95 % interval {low:.3g} to {high:.3g}\n"
        f"the baseline against itself {latency.a_a:.3g}, {same_low:.3g} to {same_high:.3g}\n{text}"
    )


def _criteria(report: Report) -> str:
    figures = (
        ("alpha", report.compression_rate, "by parameters"),
        ("alpha", report.compression_rate_bytes, "by bytes"),
        ("beta", report.index_space_saving_printed, "as printed"),
        ("beta", report.index_space_saving, "standard"),
        ("delta", report.speed_up_rate, "measured"),
    )
    known = [f"{name} {value:.3g} {how}" for name, value, how in figures if value is not None]
    return ", ".join(known[:3]) + (f"\n{', '.join(known[3:])}" if known[3:] else "")


def _cells(row: LayerRow) -> tuple[str, ...]:
    return (
        row.name,
        row.form,
        "x".join(map(str, row.shape)),
        f"{row.bytes:,}",
        _decimals(row.bits_per_weight, ".2f"),
        f"{row.parameters:,}",
        _decimals(row.macs, ","),
        _decimals(row.error, ".3f"),
        row.kernel or "",
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _decimals(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
