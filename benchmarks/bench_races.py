"""Memory of a kernel over races: each is run, waited for and closed, and the kernel must not grow with their number."""

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jupyter_client.manager import start_new_kernel
from table import DATA, Estimate, Section, Target, options, write

SAID = """
One Jupyter kernel, and in it one race after another, as a cell has it: `race = ce.explore(ce.{method},
model, data, race=True)`, shown, `run()`, `settle()`, `close()`; {teacher} teaches, on {images} images. The kernel keeps
each explorer as the value of its cell. *Kernel* is the resident memory after each race, in MB; *more* is the growth
since the one before. The first races load libraries and compile kernels, and fill what is kept of a network. The
target is about the mean growth with each race after the third.
"""
HEAD = ("race", "kernel", "more")
SETTLED = 3  # races after which nothing is new any more
LIMIT_MB = 3
START = """
import os
os.environ["OMP_NUM_THREADS"] = "1"
import compedu as ce
model, data = ce.load({teacher!r}, {data!r})
data = data.shortened(train={images}, validation={images}, test=10)
"""
OPEN = "race = ce.explore(ce.{method}, model, data, race=True)\nrace"
RACE = "race.run().settle(600)\nprint(race.state)"
CLOSE = "race.close()"
RESIDENT = "print(open('/proc/self/status').read().split('VmRSS:')[1].split()[0])"


@dataclass(frozen=True)
class Settings:
    """How many races, of which method, and the teacher with its images."""

    races: int = 10
    method: str = "SoftTargetDistillation(student='lenet5(width=0.25)', epochs=5)"
    teacher: str = "vgg"
    data: str = DATA
    images: int = 512


QUICK = Settings(
    races=2, method="SoftTargetDistillation(student='lenet300', epochs=1)", teacher="lenet5", data="digits", images=64
)


@contextlib.contextmanager
def kernel() -> Iterator[Callable[[str], str]]:
    """Start a kernel and give the function that runs code in it and returns what it printed."""
    manager, client = start_new_kernel(stderr=subprocess.DEVNULL)  # it warns that it listens

    def run(code: str) -> str:
        printed = []

        def hear(message: dict) -> None:
            if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
                printed.append(message["content"]["text"])

        reply = client.execute_interactive(code, output_hook=hear, timeout=600)["content"]
        if reply["status"] != "ok":
            raise RuntimeError(f"{code} failed: {reply['ename']}: {reply['evalue']}")
        return "".join(printed).strip()

    try:
        yield run
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def after_each(settings: Settings) -> list[float]:
    """Return the resident memory of a kernel in MB before the first race and after each one."""
    with kernel() as run:
        run(START.format(teacher=settings.teacher, data=settings.data, images=settings.images))
        found = [int(run(RESIDENT)) / 1024]
        for _ in range(settings.races):
            run(OPEN.format(method=settings.method))
            state = run(RACE)
            assert state.endswith("FINAL"), f"the race ended as {state}"
            run(CLOSE)
            found.append(int(run(RESIDENT)) / 1024)
            print(f"{found[-1]:.0f} MB", flush=True)
    return found


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section."""
    settings, path = options(__doc__, Settings(), QUICK, given)
    found = after_each(settings)
    grown = [after - before for before, after in itertools.pairwise(found)]
    rows = [("none yet", f"{found[0]:.0f}", "")]
    rows += [
        (str(i), f"{mb:.0f}", f"{more:+.1f}")
        for i, (mb, more) in enumerate(zip(found[1:], grown, strict=True), start=1)
    ]
    targets = ()
    if settled := grown[SETTLED:]:
        mean = sum(settled) / len(settled)
        targets = (
            Target("mean growth with each race after the third", LIMIT_MB, Estimate(mean, mean, mean), " MB", 1),
        )
    said = SAID.format(method=settings.method, teacher=settings.teacher, images=settings.images)
    write(Section("races", "Memory of a kernel over races", said, HEAD, rows, targets), path)


if __name__ == "__main__":
    main(sys.argv[1:])
