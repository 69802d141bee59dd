"""What axe, the checker of web accessibility, finds on a page."""

from axe_playwright_python.sync_playwright import Axe

GRAVE = ("serious", "critical")


def grave_faults(page, within: str | None = None) -> list[str]:
    """Return the serious and critical faults of a page, or of what the selector `within` matches."""
    found = Axe().run(page, context=within).response["violations"]
    return [
        f"{fault['id']}: {fault['help']}: {node['html'][:200]}"
        for fault in found
        if fault["impact"] in GRAVE
        for node in fault["nodes"]
    ]
