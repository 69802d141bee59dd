"""Writing files: whole or not at all, by one process at a time, under names that every file system accepts."""

import contextlib
import errno
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ABANDONED_S = 3600.0  # no writer pauses for an hour between two blocks: it was killed


def safe_name(text: str, longest: int = 40) -> str:
    """Return the letters, digits and dots of `text`, joined by hyphens: readable, but not unique.

    >>> safe_name("my data (1).v2")
    'my-data-1-.v2'
    """
    return re.sub(r"[^A-Za-z0-9.]+", "-", text)[:longest].strip("-.")


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically, replacing what is there; an error leaves that as it was.

    Unfinished copies of the file that killed processes left behind are removed. An `OSError` names `path`.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    _remove_abandoned(path)
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except OSError as error:
        if error.errno is not None:
            raise OSError(
                error.errno, error.strerror, str(path)
            ) from error  # the unfinished file means nothing to the reader
        raise
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(path.name)}\.\d+-\d+\.part")
    with contextlib.suppress(OSError):
        for entry in os.scandir(path.parent):
            if pattern.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > ABANDONED_S:
                os.unlink(entry.path)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one process or thread at a time change the file `path`, by a lock file that is removed afterwards."""
    from filelock import FileLock

    beside = path.with_name(f".{path.name}.lock")
    with FileLock(beside):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # a waiting process notices that the file is gone, and makes its own
                beside.unlink()


def append_lines(path: Path, lines: bytes) -> int:
    """Append `lines` to `path`, all or none, and return its new size; the caller holds `alone(path)`."""
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            if file.write(lines) != len(lines):
                # A disk takes part of a write only when it is full.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            file.truncate(end)
            raise
    return end + len(lines)
