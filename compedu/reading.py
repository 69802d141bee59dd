"""Reading files: named pipes and devices, which may have no end, are refused before they are opened."""

from pathlib import Path

from compedu.errors import CompressionError


def refuse_unending(path: Path, cure: str) -> None:
    """Raise `CompressionError` if `path` exists but is neither a file nor a folder; `cure` says what to do."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise CompressionError(f"{path} is not an ordinary file: {cure}")
