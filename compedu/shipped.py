"""Where the files that come with the package are: next to the code in a wheel, in the project folder in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_IN_WHEEL = _PACKAGE / "_shipped"


def is_checkout() -> bool:
    """True where the package runs from a checkout of the project, False where it was installed from a wheel."""
    return not _IN_WHEEL.is_dir()


def shipped(*parts: str) -> Path:
    """Path of a file or folder of the package, such as `shipped("data", "checkpoints")`; it may not exist."""
    return (_PACKAGE.parent if is_checkout() else _IN_WHEEL).joinpath(*parts)


def shipped_sweep(data: str, network: str, name: str) -> Path:
    """Path of the shipped sweep `name`, usually a method's, for a network and its data; it may not exist."""
    return shipped("data", "sweeps", data, network, f"{name}.jsonl")
