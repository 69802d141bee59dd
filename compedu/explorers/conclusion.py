"""What a learner has seen in an explorer, as a sentence computed from their own measurements."""

from compedu.explorers.view import View
from compedu.explorers.words import bytes_text, percent, times_text
from compedu.metrics import Report


def conclusion(view: View, points: float) -> str:
    """Return which of the settings measured here has the smallest file and loses at most `points` percentage points.

    What it loses is the difference as measured, without its interval. If all lose more, the sentence says which one
    loses least.
    """
    measured = [(report.file_bytes, report) for report in view.seen.values() if report.file_bytes is not None]
    if not measured:
        return "Nothing is measured here yet: move the slider, or press Run."
    limit = f"{points:g} point{'' if points == 1 else 's'}"
    few = f"{len(measured)} setting{'s' if len(measured) > 1 else ''} measured here"
    lost = [round(100 * (view.baseline.accuracy - report.accuracy), 9) for _, report in measured]  # 90 % to 89 % is 1
    kept = [pair for pair, loss in zip(measured, lost, strict=True) if loss <= points]
    if not kept:
        size, best = max(measured, key=lambda pair: pair[1].accuracy)
        return f"{few}: none loses at most {limit}. The best is {_named(view, best, size)}."
    size, best = min(kept, key=lambda pair: (pair[0], -pair[1].accuracy))
    return f"{few}: the smallest file that loses at most {limit} is {_named(view, best, size)}."


def _named(view: View, report: Report, size: int) -> str:
    dense = view.baseline.file_bytes
    beside = "" if dense is None else f", {times_text(dense / size)} the dense file"
    return f"{report.method} with {percent(report.accuracy)} and {bytes_text(size)}{beside}"
