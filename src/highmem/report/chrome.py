"""Mappings as Chrome trace events (JSON): opens in the Perfetto UI and in chrome://tracing.

A process stands for a CPU, one more for the permanent windows.  Mappings are asynchronous
events (``b`` and ``e`` with an id), because windows are not last in, first out across tasks:
from 5.11 on two tasks of one CPU may hold the same window at overlapping times.  All events
of one window have one name, which is what viewers make a track of.  Times are microseconds
with the nanoseconds as fraction.
"""

from __future__ import annotations

import json
from typing import Any, TextIO

import numpy as np

from highmem import __version__
from highmem.findings import Finding
from highmem.kernel.layout import Layout
from highmem.replay.mappings import Mappings
from highmem.replay.verdict import Verdict
from highmem.report.windows import NO_CALLER, Row, WindowNames, rows_of

__all__ = ["ChromeTrace", "depth_steps"]

_PERMANENT = 1 << 20
"""The process of the permanent windows; the others are the CPU's number plus 1."""
_FINDINGS = _PERMANENT + 1


class ChromeTrace:
    """A sink that writes each mapping to *stream* as it comes; memory does not grow."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._names = WindowNames()
        self._processes: set[int] = set()
        self._threads: dict[tuple[int, int], str] = {}
        self._events = 0
        self._mappings = 0
        stream.write('{"displayTimeUnit":"ns","traceEvents":[')

    def begin(self, layout: Layout) -> None:
        """Windows have numbers from now on."""
        self._names.begin(layout)

    def add(self, mappings: Mappings) -> None:
        """The next batch."""
        for row in rows_of(mappings):
            self._mapping(row)
        for cpu, time, depth in depth_steps(mappings):
            self._event("C", cpu + 1, time, name="depth", args={"windows": depth})

    def _mapping(self, row: Row) -> None:
        window = self._names.of(row.address, row.permanent)
        process = _PERMANENT if row.permanent else row.cpu + 1
        thread = window.rank if window.number is None else window.number
        self._processes.add(process)
        self._threads.setdefault((process, thread), window.name)
        self._mappings += 1
        same: dict[str, Any] = {
            "tid": thread,
            "cat": "kmap",
            "name": window.name,
            "id": f"{self._mappings:#x}",
        }
        args: dict[str, Any] = {row.page_kind: f"{row.page:#x}"} if row.page_kind else {}
        args |= {
            "address": f"{row.address:#010x}",
            "caller": row.caller or NO_CALLER,
            "task": row.task,
            "depth": row.depth,
            "line": row.open_line,
        }
        if row.permanent:
            args["cpu"] = row.cpu
        if row.close_ns < 0:
            args["open_at_end"] = True
        self._event("b", process, row.open_ns, **same, args=args)
        if row.close_ns >= 0:
            end = max(row.close_ns, row.open_ns)
            self._event("e", process, end, **same, args={"line": row.close_line})

    def finish(self, verdict: Verdict) -> None:
        """Findings, names, and what this is a trace of."""
        for found in verdict.findings:
            self._finding(found)
        for process in sorted(self._processes):
            name = {_PERMANENT: "permanent windows", _FINDINGS: "findings"}.get(process)
            self._metadata("process_name", process, name=name or f"CPU {process - 1}")
            order = 0 if process == _FINDINGS else process
            self._metadata("process_sort_index", process, sort_index=order)
        for (process, thread), name in sorted(self._threads.items()):
            self._metadata("thread_name", process, thread, name=name)
            self._metadata("thread_sort_index", process, thread, sort_index=thread)
        about = {
            "highmem": __version__,
            "recording": verdict.name,
            "profile": verdict.profile.name,
            "kernel": verdict.profile.title,
            "mappings": self._mappings,
            "findings": len(verdict.findings),
        }
        self._stream.write(f'\n],"otherData":{_dump(about)}}}\n')

    def _finding(self, found: Finding) -> None:
        where = found.where
        process = _FINDINGS if where.cpu is None else where.cpu + 1
        self._processes.add(process)
        args = {
            "what": found.what,
            "kernel_does": found.kernel_does,
            "level": found.rule.level.value,
            "confidence": found.confidence.value,
            "line": where.line,
            "task": where.task,
            "evidence": list(found.evidence),
        }
        scope = "g" if where.cpu is None else "p"
        time = where.time_ns or 0
        about = {"tid": 0, "cat": "finding", "name": found.rule.name, "s": scope, "args": args}
        self._event("i", process, time, **about)

    def _metadata(self, kind: str, process: int, thread: int = 0, **args: object) -> None:
        self._event("M", process, 0, tid=thread, name=kind, args=args)

    def _event(self, phase: str, process: int, ns: int, **members: Any) -> None:
        # The time is put in as text: a float would lose nanoseconds.
        rest = _dump(members)[1:]
        time = f"{ns // 1000}.{ns % 1000:03d}"
        comma = "," if self._events else ""
        self._events += 1
        self._stream.write(f'{comma}\n{{"ph":"{phase}","pid":{process},"ts":{time},{rest}')


_dump = json.JSONEncoder(separators=(",", ":")).encode


def depth_steps(mappings: Mappings) -> list[tuple[int, int, int]]:
    """How many temporary windows are open, at each change: (cpu, time in ns, windows).

    A map that nests *d* deep makes it *d*, its unmap *d* - 1, so nothing has to be remembered
    between batches.  It counts the windows of the CPU (stack and typed era), of the task that
    runs there (local era).  In the order of events, which decides where times are equal.
    """
    columns = mappings.columns
    temporary = columns["permanent"] == 0
    closed = temporary & (columns["close_ns"] >= 0)
    depth = columns["depth"].astype(np.int64)
    line = np.concatenate([columns["open_line"][temporary], columns["close_line"][closed]])
    time = np.concatenate([columns["open_ns"][temporary], columns["close_ns"][closed]])
    cpu = np.concatenate([columns["cpu"][temporary], columns["cpu"][closed]])
    value = np.concatenate([depth[temporary], depth[closed] - 1])
    order = np.lexsort((line, time))
    return list(
        zip(
            cpu[order].tolist(),
            time[order].tolist(),
            np.maximum(value, 0)[order].tolist(),
            strict=True,
        )
    )
