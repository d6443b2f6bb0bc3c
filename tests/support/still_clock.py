"""What several CPUs did while their clock stood still now and then, in the order it was done.

A small scheduler and well-behaved tasks of the local era: a task with an open window stays on
its CPU, any other may go on elsewhere in the same instant.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from highmem.kernel.layout import Layout
from highmem.trace.schema import Argument, Batch, Function, Kind, Strings
from support.tracedat_writer import Machine, Page, call, switch

__all__ = ["CPUS", "RAM", "Done", "Life", "as_pages", "as_read_by_cpu"]

CPUS = 4
RAM = 2 << 30
_TASKS = 6
_PFN = 0x40000


@dataclass(frozen=True)
class Done:
    """One event."""

    time: int
    cpu: int
    pid: int
    kind: Kind
    value: int = 0
    next_pid: int = 0


@dataclass
class Life:
    """Lets the tasks live for some steps."""

    layout: Layout
    rng: random.Random
    still: float
    """How often the clock does not move between two steps."""
    once: bool = False
    """No task comes to a CPU twice in one instant: then the records tell the order."""
    events: list[Done] = field(default_factory=list)
    time: int = 1_000_000
    running: list[int] = field(default_factory=lambda: [0] * CPUS)
    open: dict[int, list[int]] = field(default_factory=dict)
    home: dict[int, int] = field(default_factory=dict)
    """Where a task waits that holds a window."""
    came: dict[int, int] = field(default_factory=dict)
    """When a task last came to a CPU."""

    def live(self, steps: int) -> list[Done]:
        """Everything that happens, in its order; in the end all windows are closed."""
        for _ in range(steps):
            if self.rng.random() >= self.still:
                self.time += self.rng.choice((1, 10, 1000))
            self._step(self.rng.randrange(CPUS))
        for cpu in range(CPUS):
            self._end(cpu)
        return self.events

    def _step(self, cpu: int) -> None:
        pid, draw = self.running[cpu], self.rng.random()
        held = self.open.setdefault(pid, [])
        if pid == 0 or draw < 0.15:
            self._switch(cpu)
        elif draw < 0.6 and len(held) < 3:
            self._map(cpu, pid)
        elif held:
            self._add(cpu, Kind.UNMAP, held.pop())

    def _map(self, cpu: int, pid: int) -> None:
        address = self.layout.window_address(cpu, len(self.open[pid]))
        self._add(cpu, Kind.MAP, _PFN + self.rng.randrange(64))
        self._add(cpu, Kind.MAP_RETURN, address)
        self.open[pid].append(address)

    def _switch(self, cpu: int) -> None:
        free = [p for p in range(1, _TASKS) if p not in self.running]
        if self.once:
            free = [pid for pid in free if self.came.get(pid) != self.time]
        here = [p for p in free if self.home.get(p, cpu) == cpu]
        self._to(cpu, self.rng.choice([*here, 0]))

    def _to(self, cpu: int, following: int) -> None:
        pid = self.running[cpu]
        if pid == following:
            return
        self._add(cpu, Kind.SWITCH, next_pid=following)
        if pid and self.open.get(pid):
            self.home[pid] = cpu
        self.home.pop(following, None)
        self.running[cpu] = following
        self.came[following] = self.time

    def _end(self, cpu: int) -> None:
        self.time += 5000
        waiting = [pid for pid, at in self.home.items() if at == cpu]
        for pid in (self.running[cpu], *waiting):
            self._to(cpu, pid)
            while pid and self.open.get(pid):
                self._add(cpu, Kind.UNMAP, self.open[pid].pop())

    def _add(self, cpu: int, kind: Kind, value: int = 0, next_pid: int = 0) -> None:
        pid = self.running[cpu]
        self.events.append(Done(self.time, cpu, pid, kind, value, next_pid))


def as_pages(machine: Machine, events: list[Done]) -> dict[int, list[Page]]:
    """Sub-buffers with *events*; in place of each value its number in *events*."""
    pages: dict[int, list[Page]] = {}
    letters = {Kind.MAP: "m", Kind.MAP_RETURN: "r", Kind.UNMAP: "u"}
    for number, done in enumerate(events):
        mine = pages.setdefault(done.cpu, [])
        if not mine or len(mine[-1].data) > machine.page_size - 256:
            mine.append(Page(machine, done.time))
        if done.kind is Kind.SWITCH:
            data = switch(machine, done.pid, b"one", 0, done.next_pid, b"other")
        else:
            data = call(machine, letters[done.kind], done.pid, number)
        mine[-1].record(done.time, data)
    return pages


def as_read_by_cpu(events: list[Done], strings: Strings) -> Batch:
    """*events* as a text has them: by time, and of one time those of the first CPU first."""
    function = {
        Kind.MAP: Function.KMAP_LOCAL_PFN_PROT,
        Kind.MAP_RETURN: Function.KMAP_LOCAL_PFN_PROT,
        Kind.UNMAP: Function.KUNMAP_LOCAL_INDEXED,
        Kind.SWITCH: Function.NONE,
    }
    batch = Batch.empty(len(events), strings)
    batch.comm[:] = strings.number("task")
    batch.state[:] = strings.number("R")
    for row, done in enumerate(sorted(events, key=lambda one: (one.time, one.cpu))):
        batch.line[row] = row + 1
        batch.time[row], batch.cpu[row], batch.pid[row] = done.time, done.cpu, done.pid
        batch.kind[row], batch.function[row] = done.kind, function[done.kind]
        batch.argument[row] = Argument.PFN if done.kind is Kind.MAP else Argument.ADDRESS
        batch.value[row], batch.next_pid[row] = done.value, done.next_pid
        batch.km_type[row] = batch.caller[row] = -1
    return batch
