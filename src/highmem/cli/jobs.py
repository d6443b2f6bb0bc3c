"""Judging several recordings, each by itself, some of them at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from types import MappingProxyType
from typing import Any

from highmem.errors import HighmemError, InputError
from highmem.kernel.profile import Profile
from highmem.processes import end_workers, interrupts_held, worker_pool
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
    pool = worker_pool(workers)
    try:
        with interrupts_held():
            futures = [_submitted(pool, judge, name) for name in traces]
        return [_result(future, name) for future, name in zip(futures, traces, strict=True)]
    except BaseException:
        end_workers()
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


def _proxy(items: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(items)


def _reduce_proxy(proxy: MappingProxyType[Any, Any]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    return _proxy, (dict(proxy),)


# The fields of a Probe are one, and pickle has no way of its own for them, nor for their type.
ForkingPickler.register(MappingProxyType, _reduce_proxy)
