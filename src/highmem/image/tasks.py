"""The tasks of an image, as far as windows need them: who runs on which CPU, who holds what.

The layout of ``struct task_struct`` depends on the configuration, so the few members that are
needed are found: ``comm`` by the name of the idle task in ``init_task``, ``tasks`` as the list
through it whose members all have a name, ``kmap_ctrl`` by the code that uses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from highmem.errors import HighmemError
from highmem.image.view import ImageKernel
from highmem.kernel.families import Era
from highmem.trace.printable import printable

__all__ = ["CpuTask", "Tasks", "cpu_tasks"]

_TASK_SPAN = 0x4000
"""More than any ``struct task_struct`` has."""
_COMM = 16
"""TASK_COMM_LEN"""
_MOST_TASKS = 1 << 16


@dataclass(frozen=True, slots=True)
class CpuTask:
    """A task: the address of its ``task_struct``, its name, and the local windows it holds."""

    address: int
    comm: str
    cpu: int | None
    """The CPU on which it runs, None if it does not."""
    index: int | None
    """``kmap_ctrl.idx``, None before 5.11 or where it is not known."""
    held: tuple[int, ...] = ()
    """The entries in ``kmap_ctrl.pteval`` below the index."""

    @property
    def idle(self) -> bool:
        """Whether it is the idle task of a CPU."""
        return self.comm == "swapper" or self.comm.startswith("swapper/")


@dataclass(frozen=True, slots=True)
class Tasks:
    """What runs where."""

    cpus: int | None
    """``nr_cpu_ids``: CPUs that there can be, None if not known."""
    online: int | None
    """``cpu_online_mask``."""
    current: dict[int, CpuTask]
    all: tuple[CpuTask, ...]
    """Every task on the list of processes, and those that run; empty where that list is not
    needed (before 5.11) or not found."""


def cpu_tasks(kernel: ImageKernel) -> tuple[Tasks, tuple[str, ...]]:
    """The tasks of *kernel*, and a sentence for each thing that could not be found out."""
    finder = _Finder(kernel)
    known = kernel.known
    notes = []
    count = known.value("nr_cpu_ids")
    if count is not None and not 1 <= count <= kernel.profile.nr_cpus:
        notes.append(f"nr_cpu_ids is {count}, which makes no sense")
        count = None
    current = {cpu: task for cpu in range(count or 0) if (task := finder.current(cpu)) is not None}
    if not current:
        notes.append("who runs on the CPUs is not known: current_task was not found")
    everyone: tuple[CpuTask, ...] = ()
    if kernel.profile.era is Era.LOCAL:
        if kernel.kmap_ctrl is None:
            notes.append("kmap_ctrl was not found: what tasks hold is not known")
        elif (listed := finder.listed()) is None:
            notes.append("the list of tasks was not found: windows of sleeping tasks are not shown")
        else:
            running = {task.address: task for task in current.values()}
            others = (finder.task(at, None) for at in listed if at not in running)
            everyone = (*running.values(), *(task for task in others if task is not None))
    return Tasks(count, known.value("__cpu_online_mask"), current, everyone), tuple(notes)


class _Finder:
    """Reads tasks of one kernel."""

    def __init__(self, kernel: ImageKernel) -> None:
        self.kernel = kernel
        self.known = kernel.known
        self.init_task = self.known.symbol("init_task")
        self.comm_at = self._comm_offset()

    def _comm_offset(self) -> int | None:
        """Where ``comm`` is: the only place in init_task that holds its name."""
        if self.init_task is None:
            return None
        try:
            raw = self.known.read(self.init_task, _TASK_SPAN)
        except HighmemError:
            return None
        at = raw.find(b"swapper")
        return at if at >= 0 and at % 4 == 0 else None

    def current(self, cpu: int) -> CpuTask | None:
        """The task that runs on *cpu*."""
        variable = per_cpu(self.kernel, "current_task", cpu)
        address = None if variable is None else self.known.word(variable)
        return None if not address else self.task(address, cpu)

    def task(self, address: int, cpu: int | None) -> CpuTask | None:
        """The task at *address*, None if there is none."""
        comm = self._comm(address)
        if comm is None:
            return None
        ctrl = self.kernel.kmap_ctrl
        index = None if ctrl is None else self.known.word(address + ctrl)
        held: tuple[int, ...] = ()
        if ctrl is not None and index is not None:
            index -= (index & 0x8000_0000) << 1
            held = self._held(address + ctrl + 4, min(index, self.kernel.profile.windows_per_cpu))
        return CpuTask(address, comm, cpu, index, held)

    def _held(self, pteval: int, index: int) -> tuple[int, ...]:
        size = self.kernel.root.mode.entry_size
        try:
            raw = self.known.read(pteval, max(0, index) * size)
        except HighmemError:
            return ()
        return tuple(np.frombuffer(raw, "<u8" if size == 8 else "<u4").tolist())

    def _comm(self, address: int) -> str | None:
        if self.comm_at is None:
            return None
        try:
            raw = self.known.read(address + self.comm_at, _COMM)
        except HighmemError:
            return None
        name, end, _ = raw.partition(b"\0")
        return printable(name) if name and end and min(name) >= 0x20 else None

    def listed(self) -> list[int] | None:
        """The addresses of all processes: the list through init_task that holds kthreadd."""
        if self.init_task is None or self.comm_at is None:
            return None
        for offset in range(0, self.comm_at, 4):
            head = self.init_task + offset
            found = []
            for at in self._members(head):
                comm = self._comm(at - offset)
                if comm is None:
                    break
                found.append((at - offset, comm))
            else:
                if any(comm == "kthreadd" for _, comm in found):
                    return [self.init_task, *(address for address, _ in found)]
        return None

    def _members(self, head: int) -> Iterator[int]:
        """Members of a ``list_head``; ends with 0, which is no task, if it is no list."""
        before, at = head, self.known.word(head)
        for _ in range(_MOST_TASKS):
            if at == head:
                return
            if not at or at % 4 or self.known.word(at + 4) != before:
                break
            yield at
            before, at = at, self.known.word(at)
        yield 0


def per_cpu(kernel: ImageKernel, name: str, cpu: int) -> int | None:
    """The address of *cpu*'s copy of a per-CPU variable."""
    variable = kernel.known.symbol(name)
    offsets = kernel.known.symbol("__per_cpu_offset")
    if variable is None:
        return None
    if offsets is None:  # without SMP there is one copy, in its place
        return variable if not kernel.profile.smp else None
    offset = kernel.known.word(offsets + 4 * cpu)
    return None if offset is None else (variable + offset) & 0xFFFFFFFF
