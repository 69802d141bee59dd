"""A confined process: another user, no network, empty home folders, no course files, limits on all resources.

This takes Linux with util-linux (unshare, setpriv, prlimit) and root. Elsewhere nothing is started, and the
instructor's page says what to do (docs/instructors.md).
"""

import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from compedu.datasets.dataset import cache_folder
from compedu.errors import CompressionError
from compedu.shipped import is_checkout, shipped

PROGRAMS = ("unshare", "setpriv", "prlimit", "mount", "sh")
USERS = range(61184, 65520)  # user ids without an account: systemd assigns them to transient services
KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "VIRTUAL_ENV", "OMP_NUM_THREADS", "COMPEDU_SYNC")
PRIVATE = ("/root", "/home", "/tmp", "/var/tmp", "/dev/shm")  # each is replaced by an empty private folder
ROOM = "512m"  # the size limit of such a folder


@dataclass(frozen=True)
class ProcessLimits:
    """Limits of each process of a submission: seconds of CPU time, bytes of memory and of a file, counts."""

    seconds: int = 1800
    memory: int = 16 * 2**30  # of address space: an interpreter with torch reserves several GB
    file: int = 64 * 2**20
    files: int = 1024
    processes: int = 512

    def options(self) -> list[str]:
        """Return the options of prlimit."""
        return [
            f"--cpu={self.seconds}", f"--as={self.memory}", f"--fsize={self.file}", f"--nofile={self.files}",
            f"--nproc={self.processes}", "--core=0",
        ]  # fmt: skip


class Confinement:
    """A folder `work` with copies of a submission's files, and the command that runs a program there, confined.

    `hidden` are folders that the program must not see. A context manager: at its end the folder is removed.
    """

    def __init__(self, submission: str | Path, hidden: Iterable[str | Path] = (), limits: ProcessLimits | None = None):
        self.limits = limits or ProcessLimits()
        self.user = random.SystemRandom().choice(USERS)
        self.folder = Path(tempfile.mkdtemp(prefix="compedu-"))
        # short, as the path of a socket must be
        self.work = self.folder / "work"
        self.sockets = self.folder / "s"
        try:
            shutil.copytree(submission, self.work, symlinks=True)
            self.sockets.mkdir()
            own = [shipped("notebooks"), shipped("tests")] if is_checkout() else []
            self.hidden = {Path(path).resolve() for path in (*PRIVATE, Path.home(), *own, *hidden)}
        except BaseException:  # without a context, nothing else removes the copies
            self._remove()
            raise

    def __enter__(self) -> "Confinement":
        return self

    def __exit__(self, *error: object) -> None:
        self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def check(self) -> None:
        """Raise `CompressionError` with the reason if programs cannot be confined here."""
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing or os.geteuid() != 0:
            reason = f"{', '.join(missing)} is missing" if missing else "only root may"
        else:
            command = self.command([sys.executable, "-c", ""])
            done = subprocess.run(command, env=self.environment(), capture_output=True, text=True)
            reason = done.stderr.strip() if done.returncode else ""
        if reason:
            raise CompressionError(
                f"submissions cannot be confined on this machine ({reason}); grade as root on Linux, or in a container "
                "as docs/instructors.md shows, with c.ExecuteApart.confine = False"
            )

    def command(self, program: list[str]) -> list[str]:
        """Return the command that runs `program` confined, and ends all its processes when it ends or is killed."""
        self.give(self.folder, *self.folder.rglob("*"))
        ends = ["setpriv", "--pdeathsig=KILL"]  # end with the parent
        spaces = [*ends, "unshare", "--net", "--ipc", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        identity = [f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        rights = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        inner = ["setpriv", *identity, *rights, "prlimit", *self.limits.options(), "--", *program]
        return [*spaces, "--", "sh", "-c", self._view(), "sh", *inner]

    def environment(self) -> dict[str, str]:
        """Return the environment of a confined program: a few inherited variables, and a home in its folder."""
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        home = str(self.work)
        return kept | {
            "HOME": home, "USER": "submission", "LOGNAME": "submission", "COMPEDU_CACHE": str(cache_folder()),
            "TMPDIR": "/tmp",
        }  # fmt: skip

    def give(self, *paths: Path) -> None:
        """Make the program's user the owner of files."""
        for path in paths:
            os.chown(path, self.user, self.user, follow_symlinks=False)

    def _view(self) -> str:
        """Return the shell commands that hide folders, and restore what an interpreter needs of them, read-only."""
        needed = {Path(path).resolve() for path in (sys.base_prefix, sys.prefix, cache_folder(), *sys.path) if path}
        needed = {path for path in needed if path.is_dir() and self._is_hidden(path)} - self.hidden
        places = {path: f"/mnt/{number}" for number, path in enumerate([*sorted(needed), self.folder])}
        lines = ["set -e", "mount -t tmpfs tmpfs /mnt"]
        for path, place in places.items():
            lines += [f"mkdir {place}", f"mount --bind {shlex.quote(str(path))} {place}"]
        for path in sorted({*self.hidden, *places}, key=lambda path: len(path.parts)):
            there = shlex.quote(str(path))
            if path in places:
                lines += [f"mkdir -p {there}", f"mount --bind {places[path]} {there}"]
                lines += [f"mount -o remount,bind,ro {there}"] if path != self.folder else []
            else:
                mode = "1777" if str(path) in PRIVATE[2:] else "755"
                lines.append(f"if [ -d {there} ]; then mount -t tmpfs -o mode={mode},size={ROOM} tmpfs {there}; fi")
        return "\n".join([*lines, "umount /mnt/*", "umount /mnt", f"cd {shlex.quote(str(self.work))}", 'exec "$@"'])

    def _is_hidden(self, path: Path) -> bool:
        return any(path.is_relative_to(hidden) for hidden in self.hidden)
