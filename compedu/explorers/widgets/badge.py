"""How far the shown figures are measured, in a word with its reason, and of what they are."""

import html

from compedu.explorers.view import View

REASONS = {
    "PREVIEW": "the figures were measured before; they are being measured again",
    "MEASURING": "the figures are of the images seen so far and change until all are measured",
    "FINAL": "all images are measured, with these knobs, here and now",
    "RUNNING": "the network is being trained; pale figures were measured before",
    "CANCELLED": "the run was stopped; pale figures were measured before",
    "ERROR": "these knobs gave no network: the message says why",
}
LOOKS = (
    "how many compressed networks were measured on these images: each look is a choice made with them, so a final "
    "claim needs images that nobody looked at"
)


def badge(view: View) -> tuple[str, str]:
    """Return the word of the badge and the sentence that explains it."""
    report = view.report
    trains = view.method.needs == "training"
    if view.state == "MEASURING" and report is not None:
        return f"MEASURING {report.seen} of {report.total}", REASONS["MEASURING"]
    if view.state != "PREVIEW":
        return view.state, REASONS[view.state]
    if report is None:
        why = "Run trains and measures" if trains else "the measurement begins"
        return "NOT RUN" if trains else "NOT MEASURED", f"no point near these knobs was measured before; {why}"
    if view.nearby:
        return "PREVIEW, nearby", f"measured before: {report.method}"
    if trains:
        return "STORED, not run", "the figures were measured before; Run trains and measures here and now"
    return view.state, REASONS[view.state]


def badge_html(view: View) -> str:
    """Return the badge as HTML."""
    word, why = badge(view)
    tip = html.escape(why, quote=True)
    return (
        f"<div class='compedu-state'><span class='compedu-badge {view.state}' role='status' title='{tip}'>"
        f"{html.escape(word)}</span></div>"
    )


def about_html(view: View, looks: int) -> str:
    """Return which network is measured on which images, and how often these were looked at."""
    network = getattr(view.before, "spec", type(view.before).__name__).split("(")[0]
    where = html.escape(f"{network} on {view.data.whole_name}, {view.split}")
    count = len(view.data.split(view.split)[1])
    images = html.escape(f"data set {view.data.name}: {count} images to look at", quote=True)
    return (
        f"<div class='compedu-about'><span title='{images}'>{where}</span><br>"
        f"<span class='compedu-help' title='{LOOKS}'>looks: {looks}</span></div>"
    )
