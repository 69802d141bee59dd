"""The laws of all methods, for a method of your own: `check_method(MyMethod)`."""

from collections.abc import Callable, Sequence

from compedu.methods import Method
from compedu.testing import knob_laws, layer_laws, result_laws

Law = Callable[[type[Method]], None]
LAWS: tuple[Law, ...] = (*knob_laws.LAWS, *result_laws.LAWS, *layer_laws.LAWS)


def check_method(cls: type[Method], laws: Sequence[Law] = LAWS) -> None:
    """Try `laws` on the method class `cls`; raise `AssertionError` that says which ones it breaks, and how.

    A law is tried on small networks and a few images; what a method takes long for takes long here too. A method of a
    package of its own need not be in `METHODS`; its forms have to be in `compedu.forms.FORMS` to be stored.
    """
    broken: dict[str, Exception] = {}
    for law in laws:
        try:
            law(cls)
        except Exception as error:  # whatever a method raises beside what a law allows breaks the law
            broken[law.__name__] = error
    if broken:
        said = "\n".join(f"  {name.replace('_', ' ')}: {_shown(error)}" for name, error in broken.items())
        first = next(iter(broken.values()))
        raise AssertionError(f"{cls.__name__} breaks {len(broken)} of {len(laws)} laws:\n{said}") from first


def _shown(error: Exception) -> str:
    """Return kind and message of an error in one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if message else ''}{message}"[:300]


__all__ = ["LAWS", "Law", "check_method"]
