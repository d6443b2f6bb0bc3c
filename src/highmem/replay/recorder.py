"""The statistics of a replay: callers, CPUs, tasks, depths, hold times."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from highmem.replay.histogram import add_counts, bucket_of
from highmem.replay.mappings import MappingBuilder
from highmem.replay.state import Event, InFlight, Window
from highmem.replay.verdict import CallerStats, CpuStats, TaskStats, Verdict
from highmem.trace.schema import Strings

if TYPE_CHECKING:
    from highmem.findings import Where

__all__ = ["Recorder"]

_MOST_TASKS = 4096
"""Tasks kept by name; the rest count together, so that a recording cannot fill memory."""
_MOST_CALLERS = 1024
"""The same for callers."""


class Recorder:
    """Fills a verdict's statistics while events go by."""

    __slots__ = ("mappings", "strings", "verdict")

    def __init__(self, verdict: Verdict, strings: Strings, mappings: MappingBuilder) -> None:
        self.verdict = verdict
        self.mappings = mappings
        self.strings = strings

    def task_name(self, event: Event) -> str:
        """``comm-pid``, as ftrace writes it."""
        return f"{self.strings[event.comm]}-{event.pid}"

    def cpu(self, cpu: int) -> CpuStats:
        """The statistics of one CPU."""
        found = self.verdict.cpus.get(cpu)
        if found is None:
            found = self.verdict.cpus[cpu] = CpuStats(cpu)
        return found

    def count(self, kind: str, by: int = 1) -> None:
        """One more thing of *kind* that the recording does not let one know."""
        unknown = self.verdict.unknown
        unknown[kind] = unknown.get(kind, 0) + by

    def not_judged(self, reason: str) -> None:
        """One more return event that could not be predicted."""
        reasons = self.verdict.not_judged
        reasons[reason] = reasons.get(reason, 0) + 1

    def opened(self, window: Window, depth: int) -> None:
        """A window was opened; it is the *depth*-th of its stack."""
        verdict = self.verdict
        if window.permanent:
            return
        verdict.depths[depth] = verdict.depths.get(depth, 0) + 1
        cpu = self.cpu(window.cpu)
        cpu.deepest = max(cpu.deepest, depth)
        task = self.task(window.task)
        task.maps += 1
        task.deepest = max(task.deepest, depth)

    def task(self, name: str) -> TaskStats:
        """The statistics of one task; past the first few thousand all others share one."""
        tasks = self.verdict.tasks
        found = tasks.get(name)
        if found is None:
            name = name if len(tasks) < _MOST_TASKS else "(other tasks)"
            found = tasks.setdefault(name, TaskStats(name))
        return found

    def caller(self, caller: str, make: bool) -> CallerStats | None:
        """The statistics of one caller, by its function; past the first thousand all others
        share one.  None if there are none and none are to be made."""
        callers, name = self.verdict.callers, caller_name(caller)
        found = callers.get(name)
        if found is None and len(callers) >= _MOST_CALLERS:
            name = "(other callers)"
            found = callers.get(name)
        if found is None and make:
            found = callers[name] = CallerStats(name)
        return found

    def called(self, caller: str, depth: int) -> None:
        """A map call returned to *caller*, which nests *depth* deep with it."""
        stats = self.caller(caller, make=True)
        assert stats is not None
        stats.maps += 1
        stats.deepest = max(stats.deepest, depth)

    def closed(self, window: Window, event: Event) -> None:
        """A window was closed by its own unmap."""
        held = max(0, event.time - window.time)
        self.mapping(window, event.line, event.time)
        bucket = bucket_of(held)
        holds = self.verdict.holds
        holds[bucket] = holds.get(bucket, 0) + 1
        stats = self.caller(window.caller, make=False) if window.caller else None
        if stats is None:
            return
        stats.closed += 1
        stats.total_ns += held
        stats.holds[bucket] = stats.holds.get(bucket, 0) + 1
        stats.consider(held, window.line)

    def add_cpu(self, cpu: int, low: int, unmaps: int, depths: dict[int, int]) -> None:
        """Add what an engine counted on one CPU: map calls of *low* pages, unmaps of windows, and
        windows by their depth."""
        verdict = self.verdict
        if low or unmaps or depths:
            maps = low + add_counts(verdict.depths, depths)
            stats = self.cpu(cpu)
            stats.maps += maps
            stats.unmaps += unmaps
            stats.deepest = max(stats.deepest, *depths, 0)
            verdict.map_calls += maps
            verdict.unmap_calls += unmaps

    def add_caller(
        self, stats: CallerStats | None, numbers: Sequence[int], holds: dict[int, int]
    ) -> None:
        """The same of one caller: maps, deepest, longest_ns, longest_line and total_ns; None
        stands for windows whose caller was not recorded."""
        closed = add_counts(self.verdict.holds, holds)
        if stats is not None:
            maps, deepest, longest, line, total, *_ = numbers
            stats.maps += maps
            stats.deepest = max(stats.deepest, deepest)
            stats.total_ns += total
            stats.closed += closed
            add_counts(stats.holds, holds)
            if line:
                stats.consider(longest, line)

    def mapping(self, window: Window, close_line: int, close_ns: int) -> None:
        """Hand *window* on as a row of MAPPING_COLUMNS."""
        self.mappings.add(
            (
                window.line,
                window.time,
                close_line,
                close_ns,
                window.cpu,
                window.pid,
                window.comm,
                window.caller_number,
                window.address,
                window.page_value,
                window.argument,
                window.depth,
                window.permanent,
            )
        )

    def find(
        self,
        name: str,
        where: Where,
        what: str,
        kernel_does: str,
        evidence: tuple[str, ...],
        *,
        certain: bool = True,
    ) -> None:
        """Add a finding."""
        # Here and below: most recordings show none, and wait for no catalogue of rules.
        from highmem.findings import Confidence, Finding, rule

        confidence = Confidence.CERTAIN if certain else Confidence.LIKELY
        self.verdict.findings.append(
            Finding(rule(name), where, what, kernel_does, evidence, confidence)
        )

    def entered(self, flight: InFlight, event: Event) -> Where:
        """The place where the call *flight* was entered; *event* is of the same task."""
        from highmem.findings import Where

        task = self.task_name(event)
        return Where(line=flight.line, time_ns=flight.time, cpu=flight.cpu, task=task)

    def where(self, event: Event, address: int | None = None) -> Where:
        """The place of *event* in the recording."""
        from highmem.findings import Where

        task = self.task_name(event)
        return Where(line=event.line, time_ns=event.time, cpu=event.cpu, task=task, address=address)


@lru_cache(maxsize=4096)
def caller_name(caller: str) -> str:
    """The function of ``copy_page_range+0x1bf``, with its module if any."""
    symbol, plus, rest = caller.partition("+")
    module = rest.partition(" ")[2]
    return f"{symbol} {module}" if plus and module else symbol
