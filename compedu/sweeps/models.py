"""Compressed models on disk that are still to be timed."""

import contextlib
from hashlib import sha256
from pathlib import Path

from torch import nn

from compedu import files
from compedu.errors import CompressionError
from compedu.writing import write_whole


class KeptModels:
    """A folder with one model file per key; it is created with the first and removed with the last."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, key: str) -> Path:
        """Return where the model of `key` is kept."""
        return self.folder / f"{sha256(key.encode()).hexdigest()[:20]}.cedu"

    def keep(self, key: str, written: bytes) -> None:
        """Write the bytes of a model file, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.path(key), written)

    def load(self, key: str, structure: nn.Module) -> nn.Module | None:
        """Return the model of `key`, or None if its file is missing or damaged: it is then computed again.

        `structure` is a network of the same structure, for those without a spec.
        """
        path = self.path(key)
        try:
            return files.load(path, None if files.inspect(path).spec else structure)
        except (OSError, CompressionError):
            return None

    def drop(self, key: str) -> None:
        """Delete the model of `key`."""
        self.path(key).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or already gone
            self.folder.rmdir()
