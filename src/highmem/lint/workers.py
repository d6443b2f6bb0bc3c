"""Work on many files, in this process or in several."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from highmem.errors import UsageError
from highmem.processes import end_workers, interrupts_held, worker_pool

__all__ = ["Workers"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")
_WAITING = 4
"""Pieces of work handed over for each worker at a time: memory stays small."""
_FEW = 3
"""Pieces that are no reason to start a process."""


class Workers:
    """Processes that are started at the first need and kept for all that is to do."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        self._collecting = gc.get_threshold()
        _collect_seldom()
        return self

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        gc.set_threshold(*self._collecting)
        if self._pool is None:
            return
        if kind is not None:
            end_workers()
        self._pool.shutdown(cancel_futures=True)

    def run(
        self, work: Callable[[Sequence[Item]], Answer], pieces: Sequence[Sequence[Item]]
    ) -> Iterator[Answer]:
        """What *work* answers to each piece, in no order.

        UsageError where a worker was killed.
        """
        few = _FEW if self._pool is None else 1
        if self._jobs == 1 or len(pieces) <= few:
            yield from map(work, pieces)
            return
        if self._pool is None:
            self._pool = worker_pool(self._jobs, _collect_seldom)
        try:
            yield from _in_pool(self._pool, work, pieces, self._jobs)
        except BrokenProcessPool:
            why = "a worker process was killed (out of memory? try a smaller -j)"
            raise UsageError(why) from None


def _in_pool(
    pool: ProcessPoolExecutor,
    work: Callable[[Sequence[Item]], Answer],
    pieces: Sequence[Sequence[Item]],
    jobs: int,
) -> Iterator[Answer]:
    left = list(reversed(pieces))
    running: set[Future[Answer]] = set()
    while left or running:
        while left and len(running) < jobs * _WAITING:
            with interrupts_held():
                running.add(pool.submit(work, left.pop()))
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def _collect_seldom() -> None:
    """Much is made and hardly anything in a circle: looking for that cost a tenth of the time."""
    gc.set_threshold(50_000, 20, 20)
