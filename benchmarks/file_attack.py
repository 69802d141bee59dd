"""Model files altered by someone who knows the format and sets the checksum right: what the reader makes of them."""

import argparse
import json
import os
import resource
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import mutations
import torch
from mutations import Seed
from table import circumstances, grid

from compedu import files
from compedu.errors import CompressionError
from compedu.specs import image_of

RESULTS = Path(__file__).with_name("FILE_ATTACK.md")
COUNT = 200_000
QUICK = 60
BATCH = 1000
# bytes beyond those of a process at rest; seconds of processor time
MEMORY = 200 * 2**20
SECONDS = 2.0
HANG = 30
INSPECTED = 4  # every fourth file is inspected too: it is decoded by the same code
REFUSED = "refused"
ANSWERS = "loads and answers"
GOOD = (REFUSED, ANSWERS)
BAD = ("another error", "forward raises", "above 200 MB", "above 2 s", "process killed")
HEAD = """# Altered model files

Written by `python benchmarks/file_attack.py`.

{seeds} intact files of small networks (every network of the kit, and one of ordinary modules with shared layers and
tied weights; pruned, quantized, factored, circulant, paired and thinned; in every coding) were altered {count:,} times,
each time with the checksum that goes with what they had become: by someone who knows the format, not by accident. Each
altered file is loaded, and every fourth inspected, in a process with one gigabyte more than it needs at rest.
**{refused}**: by `CompressionError` or `FileFormatError`, in one sentence. **{answers}**: the file is a consistent one
of other numbers, and the network returns logits for a batch of images.

What must not happen: an error of another type, a network that loads and whose forward raises, more than 200 MB of
memory beyond a process at rest, more than 2 seconds of processor time, the end of the process. {verdict}
"""


def outcome(seed: Seed, data: bytes, inspect: bool = True) -> tuple[str, str]:
    """Load and run one altered file, and inspect it; return what came of it, and the message of an error."""
    try:
        if inspect:
            files.map_of(data)
    except CompressionError:
        pass
    except Exception as error:
        return "another error", f"inspect: {error!r}"
    try:
        network = files.from_bytes(data, seed.into, example=None if seed.into is None else seed.images)
    except CompressionError as error:
        return REFUSED, str(error)
    except Exception as error:
        return "another error", f"load: {error!r}"
    return _answer(network, seed)


def _answer(network: torch.nn.Module, seed: Seed) -> tuple[str, str]:
    images = seed.images if seed.into is not None else torch.rand(2, *image_of(network.spec))
    kind = next(tensor.dtype for tensor in network.parameters() if tensor.is_floating_point())
    try:
        with torch.no_grad():
            network(images.to(kind))
    except Exception as error:
        return "forward raises", repr(error)
    return ANSWERS, ""


def measured(numbers: range) -> Iterator[tuple[int, str, str, str]]:
    """Yield number, kind of mutation, outcome and message of each, in this process, up to the first that is bad."""
    at_rest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for number in numbers:
        kind, seed, data = mutations.mutation(number)
        signal.setitimer(signal.ITIMER_PROF, HANG)
        began = time.process_time()
        found, message = outcome(seed, data, inspect=number % INSPECTED == 0)
        seconds = time.process_time() - began
        signal.setitimer(signal.ITIMER_PROF, 0)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - at_rest
        if found in GOOD and (grown > MEMORY or seconds > SECONDS):
            message = f"{grown:,} bytes, {seconds:.1f} s; {message}"
            found = "above 200 MB" if grown > MEMORY else "above 2 s"
        yield number, kind, found, message
        if found not in GOOD:
            return


def attacked(numbers: range) -> Iterator[tuple[int, str, str, str]]:
    """Yield the same from a process of its own, and go on after whatever ends it."""
    while numbers:
        last = numbers[0] - 1
        for last, *rest in _forked(numbers):
            yield last, *rest
        if last < numbers[-1] and (last < numbers[0] or rest[1] in GOOD):  # it fell silent: the next one killed it
            last += 1
            yield last, mutations.mutation(last)[0], "process killed", ""
        numbers = range(last + 1, numbers[-1] + 1)


def _forked(numbers: range) -> Iterator[tuple[int, str, str, str]]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with open(writing, "w", encoding="utf-8") as lines:
            _limit_memory()
            for line in measured(numbers):
                print(json.dumps(line), file=lines, flush=True)
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as lines:
        for line in lines:
            yield tuple(json.loads(line))
    os.waitpid(child, 0)


def _limit_memory() -> None:
    """Let this process have one gigabyte of addresses more than it has now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def write(counts: dict[str, Counter], path: Path) -> None:
    """Write the table, whole or not at all."""
    total = sum((counts[kind] for kind in counts), Counter())
    bad = sum(total[name] for name in BAD)
    verdict = "None of it happened." if not bad else f"**It happened {bad:,} times.**"
    head = HEAD.format(
        seeds=len(mutations.seeds()), count=total.total(), refused=REFUSED, answers=ANSWERS, verdict=verdict
    )
    columns = (*GOOD, *BAD)
    rows = [(kind, f"{row.total():,}", *(f"{row[name]:,}" for name in columns)) for kind, row in sorted(counts.items())]
    rows.append(("all", f"{total.total():,}", *(f"{total[name]:,}" for name in columns)))
    unfinished = path.with_name(f"{path.name}.part")
    text = f"{head}\n{grid(('what was altered', 'files', *columns), rows)}\n\n{circumstances()}\n"
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def main(given: Sequence[str] | None = None) -> None:
    """Attack with as many files as asked for; write the table, and print every outcome that must not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few files: it runs, no more")
    parser.add_argument("--count", type=int, default=COUNT, help="how many altered files")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file with the table")
    asked = parser.parse_args(given)
    if asked.quick and asked.out == RESULTS:
        parser.error("--quick measures nothing worth keeping: name another file with --out")
    torch.set_num_threads(1)
    mutations.weights()
    counts: dict[str, Counter] = defaultdict(Counter)
    count = QUICK if asked.quick else asked.count
    for start in range(0, count, BATCH):
        for number, kind, found, message in attacked(range(start, min(count, start + BATCH))):
            counts[kind][found] += 1
            if found not in GOOD:
                print(f"{number}: {kind}: {found}: {message}", flush=True)
        write(counts, asked.out)
        print(f"{min(count, start + BATCH):,} of {count:,}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
