"""Worker processes, for whatever is done to many files at a time.

They are started afresh ("spawn"), not forked, so nothing that this process holds (threads,
locks, half-written files) goes over to them; they leave Ctrl-C to this process, which ends
them; and they end when it is killed.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process, resource_tracker

__all__ = ["end_workers", "interrupts_held", "worker_pool"]


def worker_pool(count: int, begin: Callable[[], None] | None = None) -> ProcessPoolExecutor:
    """A pool of *count* workers, each of which calls *begin* first.

    Submit to it inside :func:`interrupts_held`, since that may start a worker.
    """
    return ProcessPoolExecutor(count, get_context("spawn"), _begin, (begin,))


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of this.  Processes and threads that are started inside never
    get it: to them it would be a traceback, and this thread would sleep on."""
    resource_tracker.ensure_running()  # the pool would start it, and that lets Ctrl-C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_workers() -> None:
    """End all workers where they are."""
    for child in active_children():
        child.terminate()


def _begin(begin: Callable[[], None] | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin()


def _end_with_parent() -> None:
    """Where the parent is killed, a worker would go on, and then wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
