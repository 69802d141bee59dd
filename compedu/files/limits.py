"""How much a reader accepts from a file that anyone may have written."""

import os
from dataclasses import dataclass
from pathlib import Path

from compedu.errors import FileFormatError

LEAST_NUMBERS = 2**22  # numbers that any file may hold: the networks of this package at twice their width
LEAST_ACTIVATIONS = 2**24  # that any trial may take: the networks of this package on the largest images
WIDER = 8  # times what the network takes into which the file is loaded: as much as Net2Wider multiplies at once
NUMBERS_PER_BYTE = 256  # files of networks with one weight in a thousand left, entropy-coded, stay below


@dataclass(frozen=True)
class Limits:
    """The most that a file may ask for: bytes, layers, numbers in them, in an image (`pixels`), between its layers.

    Dense weights count with all their numbers, and images where the network is built from its name in the file. By
    default `numbers` is 256 for each byte of the file, at least 4 million, and at least what the network holds into
    which the file is loaded. These are counted from what the file declares, before any of it is decoded. `activations`
    are the numbers of any one operation while the loaded network is tried, counted before it runs: by default 16
    million, at least what the layers hold, and at least 8 times what the network takes into which the file is loaded.
    """

    bytes: int = 2**31
    layers: int = 4096
    pixels: int = 2**15
    numbers: int | None = None
    activations: int | None = None

    def check(self, what: str, wanted: int, where: str, allowed: int | None = None) -> None:
        """Raise `FileFormatError` where a file wants more of `what`, the name of a limit, than is allowed."""
        allowed = getattr(self, what) if allowed is None else allowed
        if wanted > allowed:
            raise FileFormatError(
                f"{where} asks for {wanted:,} {what}, allowed are {allowed:,}; if you trust it, load it with "
                f"limits=Limits({what}={wanted})"
            )

    def numbers_for(self, file_bytes: int, present: int = 0) -> int:
        """Return how many numbers a file of `file_bytes` may hold, for a network in memory that holds `present`."""
        if self.numbers is not None:
            return self.numbers
        # A network's own numbers count three times: as dense weights, as what is stored of them, and as positions.
        return max(LEAST_NUMBERS, NUMBERS_PER_BYTE * file_bytes, 3 * present)

    def activations_for(self, numbers: int, present: int = 0) -> int:
        """Return how much a trial may take, for layers of `numbers` and a network in memory that takes `present`."""
        if self.activations is not None:
            return self.activations
        return max(LEAST_ACTIVATIONS, numbers, WIDER * present)


DEFAULT = Limits()


def file_bytes(path: str | os.PathLike, limits: Limits) -> bytes:
    """Return what the file `path` holds; raise `FileFormatError` if it is not a file, as a pipe, or is too long."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise FileFormatError(f"{path} is not a file, so it holds no model; name a file that compedu.save wrote")
    limits.check("bytes", path.stat().st_size, str(path))
    return path.read_bytes()
