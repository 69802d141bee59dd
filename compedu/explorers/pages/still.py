"""What a notebook keeps of an explorer: a picture and its figures in words, for when there is no kernel."""

import html
from collections.abc import Sequence
from typing import Any

from compedu.explorers.panel.screen import in_words
from compedu.explorers.view import View

WAKE = "The explorer as it was last seen. Run this cell to turn its knobs."
# An output of a widget whose kernel is gone says so in a line without any element, beside which this picture stands.
STYLE = (
    "<style>.jp-OutputArea:has(.compedu-still) .jp-OutputArea-output.jupyter-widgets:not(:has(*))"
    "{display: none}</style>"
)


def still_form(view: View, images: Sequence[dict[str, Any]], hidden: bool) -> dict[str, str]:
    """Return HTML and plain text of the view; `images` are PNG data URLs with name, width and height.

    Where the answers are `hidden` until a prediction is committed, neither contains them.
    """
    name = repr(view.method)
    said = f"{name}: the answers are hidden until a prediction is committed." if hidden else in_words(view)
    shown = () if hidden else [_image(image, said) for image in images if str(image["url"]).startswith(PNG)]
    return {
        "text/plain": said,
        "text/html": f"{STYLE}<div class='compedu-still'><p><em>{WAKE}</em></p>"
        f"<p>{html.escape(said)}</p>{''.join(shown)}</div>",
    }


PNG = "data:image/png;base64,"


def _image(image: dict[str, Any], said: str) -> str:
    src = html.escape(str(image["url"]), quote=True)
    alt = html.escape(f"{image['name']}: {said}", quote=True)
    return f"<img src='{src}' alt='{alt}' width='{int(image['width'])}' height='{int(image['height'])}'>"
