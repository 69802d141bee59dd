"""What a learner has seen in an explorer, as a sentence computed from their own measurements."""

from compedu.explorers.view import View
from compedu.explorers.words import bytes_text, percent, times_text
from compedu.metrics import Report


def conclusion(view: View, points: float) -> str:
    """Return which of the settings measured here has the smallest file and loses at most `points` percentage points.

    Without one, the sentence says which setting loses least.
    """
    measured = list(view.seen.values())
    if not measured:
        return "Nothing is measured here yet: move the slider, or press Run."
    kept = [report for report in measured if 100 * (view.baseline.accuracy - report.accuracy) <= points]
    few = f"{len(measured)} setting{'s' if len(measured) > 1 else ''} measured here"
    if not kept:
        best = max(measured, key=lambda report: report.accuracy)
        return f"{few}: none loses at most {points:g} points. The best is {_named(view, best)}."
    best = min(kept, key=lambda report: (report.file_bytes or 0, -report.accuracy))
    return f"{few}: the smallest file that loses at most {points:g} points is {_named(view, best)}."


def _named(view: View, report: Report) -> str:
    if report.file_bytes is None or view.baseline.file_bytes is None:
        return f"{report.method} with {percent(report.accuracy)}"
    smaller = times_text(view.baseline.file_bytes / report.file_bytes)
    return (
        f"{report.method} with {percent(report.accuracy)} and {bytes_text(report.file_bytes)}, {smaller} the dense file"
    )
