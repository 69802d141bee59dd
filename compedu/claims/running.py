"""Running an experiment: every run once, on one torch thread, stored as soon as it is done."""

from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm.std import tqdm

from compedu.claims.store import Run, RunStore
from compedu.claims.trial import Plan, Series
from compedu.errors import CompressionError
from compedu.processes import KILLED, end_with_parent
from compedu.reproducible import torch_threads

Cell = tuple[Any, int]


def run(series: Series, plan: Plan, store: str | Path | None = None) -> tuple[Run, ...]:
    """Return the runs of `plan` in order; an interrupted experiment with a `store` resumes where it stopped."""
    kept = None if store is None else RunStore(store)
    cells = {series.run_key(*cell): cell for cell in plan.cells()}
    found = {} if kept is None else {key: run for key, run in kept.stored.by_key.items() if key in cells}
    todo = [(key, cell) for key, cell in cells.items() if key not in found]
    compute = _apart if series.apart else _here
    made = compute(series.compute, [cell for _, cell in todo])
    with torch_threads(1):
        bar = tqdm(made, desc=series.key, total=len(todo), unit="run", disable=None, leave=False)
        for (key, _), one in zip(todo, bar, strict=False):
            found[key] = one
            if kept is not None:
                kept.keep(key, one)
    return tuple(found[key] for key in cells)


def _here(compute: Callable[..., Run], cells: list[Cell]) -> Iterator[Run]:
    for cell in cells:
        yield compute(*cell)


def _apart(compute: Callable[..., Run], cells: list[Cell]) -> Iterator[Run]:
    """Compute each seed in a process of its own, so that memory placement is part of the spread."""
    for _, same in groupby(cells, key=lambda cell: cell[1]):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent) as process:
            for cell in same:
                try:
                    yield process.submit(_on_one_thread, compute, cell).result()
                except BrokenExecutor as error:
                    raise CompressionError(f"{KILLED}; finished runs are in the store, if one was named") from error


def _on_one_thread(compute: Callable[..., Run], cell: Cell) -> Run:
    with torch_threads(1):
        return compute(*cell)
