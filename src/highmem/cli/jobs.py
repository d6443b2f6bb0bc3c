"""Judging several recordings, each by itself, some of them at the same time.

Workers are started afresh ("spawn"), not forked, so nothing that this process holds (threads,
locks, half-written files) goes over to them; and they leave Ctrl-C to this process, which
ends them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process, resource_tracker
from multiprocessing.reduction import ForkingPickler
from types import MappingProxyType
from typing import Any

from highmem.errors import HighmemError, InputError
from highmem.kernel.profile import Profile
from highmem.replay.verdict import Verdict
from highmem.trace.probes import ProbeTable

__all__ = ["Judge", "judge_all"]


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges a recording by its name: the verdict, or in one line why there is none."""

    profile: Profile | None
    ram: int | None
    probes: ProbeTable | None

    def __call__(self, name: str) -> Verdict | str:
        """Judge the recording *name*."""
        # Errors come back as text: not every exception survives the way between processes.
        from highmem.replay import replay
        from highmem.trace import read_trace

        try:
            return replay(read_trace(name, probes=self.probes), self.profile, self.ram)
        except InputError as error:
            return str(error)
        except HighmemError as error:
            return f"{name}: {error}"


def judge_all(judge: Judge, traces: Sequence[str], jobs: int) -> Iterator[Verdict | str]:
    """What *judge* says of each of *traces*, in their order; *jobs* of them at a time."""
    if min(jobs, len(traces)) <= 1:
        return map(judge, traces)
    return iter(_in_workers(judge, traces, min(jobs, len(traces))))


def _in_workers(judge: Judge, traces: Sequence[str], workers: int) -> list[Verdict | str]:
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin_worker)
    try:
        with _interrupts_held():
            futures = [_submitted(pool, judge, name) for name in traces]
        return [_result(future, name) for future, name in zip(futures, traces, strict=True)]
    except BaseException:
        for child in active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, judge: Judge, name: str) -> Future[Verdict | str]:
    try:
        return pool.submit(judge, name)
    except BrokenProcessPool as error:  # so soon that not all are handed over
        future: Future[Verdict | str] = Future()
        future.set_exception(error)
        return future


def _result(future: Future[Verdict | str], name: str) -> Verdict | str:
    try:
        return future.result()
    except BrokenProcessPool:
        return f"{name}: not judged: a worker process was killed (out of memory? try a smaller -j)"


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of this.  Processes and threads that are started inside never
    get it: to them it would be a traceback, and this thread would sleep on."""
    resource_tracker.ensure_running()  # the pool would start it, and that lets Ctrl-C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Where the parent is killed, a worker would go on, and then wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _proxy(items: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(items)


def _reduce_proxy(proxy: MappingProxyType[Any, Any]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    return _proxy, (dict(proxy),)


# The fields of a Probe are one, and pickle has no way of its own for them, nor for their type.
ForkingPickler.register(MappingProxyType, _reduce_proxy)
