"""Files that are read: a named pipe or a device, which may have no end, is refused before it is opened."""

from pathlib import Path

from compedu.errors import CompressionError


def refuse_unending(path: Path, cure: str) -> None:
    """Raise `CompressionError` where what stands at `path` is neither a file nor a folder; `cure` says what to do."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise CompressionError(f"{path} is no ordinary file: {cure}")
