"""How far the shown figures are measured, as one word with a reason, and what they describe."""

import html

from compedu.explorers.view import State, View

REASONS = {
    State.PREVIEW: "the figures are from an earlier measurement; they are being measured again",
    State.MEASURING: "the figures cover the images evaluated so far, and change until all are measured",
    State.FINAL: "all images are measured, with these knobs, just now",
    State.RUNNING: "the network is being trained; pale figures are from an earlier measurement",
    State.CANCELLED: "the run was stopped; pale figures are from an earlier measurement",
    State.ERROR: "these knobs give no network: the message says why",
}
LOOKS = (
    "how many compressed networks were measured on these images: each look is a choice made with them, so a final "
    "claim needs images that were never used"
)


def badge(view: View) -> tuple[str, str]:
    """Return the word of the badge and the sentence that explains it."""
    report = view.report
    trains = view.method.needs == "training"
    if view.state == State.MEASURING and report is not None:
        return f"MEASURING {report.seen} of {report.total}", REASONS[State.MEASURING]
    if view.state != State.PREVIEW:
        return view.state, REASONS[view.state]
    if report is None:
        why = "Run trains and measures" if trains else "the measurement begins"
        return "NOT RUN" if trains else "NOT MEASURED", f"no point near these knobs is known; {why}"
    if view.nearby:
        return "PREVIEW, nearby", f"measured before: {report.method}"
    if trains:
        return "STORED, not run", "the figures are from an earlier measurement; Run trains and measures now"
    return view.state, REASONS[view.state]


def about_html(view: View, looks: int) -> str:
    """Return which network is measured on which images, and how many looks these have had."""
    network = getattr(view.before, "spec", type(view.before).__name__).split("(")[0]
    where = html.escape(f"{network} on {view.data.whole_name}, {view.split}")
    count = len(view.data.split(view.split)[1])
    images = html.escape(f"data set {view.data.name}: {count} images to measure on", quote=True)
    return f"<span title='{images}'>{where}</span><br><span class='compedu-help' title='{LOOKS}'>looks: {looks}</span>"
