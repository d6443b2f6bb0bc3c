"""Work on many files, in this process or in several.

Workers are started afresh, not forked, and leave Ctrl-C to this process, which ends them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process, resource_tracker
from typing import Any, TypeVar

from highmem.errors import UsageError

__all__ = ["run_all"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")
_WAITING = 4
"""Pieces of work handed over for each worker at a time: memory stays small."""


def run_all(
    work: Callable[[Sequence[Item]], Answer], pieces: Sequence[Sequence[Item]], jobs: int
) -> Iterator[Answer]:
    """What *work* answers to each piece, in no order; *jobs* pieces at a time.

    UsageError where a worker was killed.
    """
    if min(jobs, len(pieces)) <= 1:
        yield from map(work, pieces)
        return
    pool = ProcessPoolExecutor(min(jobs, len(pieces)), get_context("spawn"), _begin)
    try:
        yield from _in_pool(pool, work, pieces, jobs)
    except BrokenProcessPool:
        raise UsageError("a worker process was killed (out of memory? try a smaller -j)") from None
    except BaseException:
        for child in active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


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
            running.add(_submitted(pool, work, left.pop()))
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def _submitted(pool: ProcessPoolExecutor, work: Callable[..., Any], piece: Any) -> Future[Any]:
    """Ctrl-C waits while processes are started, so that they never get it."""
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(work, piece)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
