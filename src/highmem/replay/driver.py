"""How a replay drives the exact model: one CPU or task at a time, recorded call by call.

Only the halves of the calls that choose windows are driven (``kmap_atomic_high_prot`` and
``kunmap_atomic_high``, ``__kmap_local_pfn_prot`` and ``kunmap_local_indexed``): they are
what recordings show of every kernel, and the preempt count around them never changes an
address.  ``set_depth`` is for a recording that begins in the middle: it brings the model
into the state that an address showed the kernel to be in.
"""

from __future__ import annotations

from typing import Protocol

from highmem.errors import UsageError
from highmem.kernel.context import Task
from highmem.kernel.kernel import Kernel
from highmem.kernel.local import LocalWindows
from highmem.kernel.temporary import StackWindows

__all__ = ["Driver", "LocalDriver", "StackDriver", "make_driver"]

_MOST_TASKS = 1 << 16
"""Tasks kept by the model; those without windows are forgotten beyond this many."""


class Driver(Protocol):
    """What the replay needs of a nesting era."""

    def key(self, cpu: int, task_key: int) -> int:
        """The number of the stack that a call of this task on this CPU nests on."""

    def enter(self, cpu: int, task_key: int) -> bool:
        """The next calls are this task's on this CPU; False if the model says it cannot be there
        (it is pinned elsewhere), in which case its windows are forgotten."""

    def depth(self) -> int:
        """How many windows are open on the stack in use."""

    def map(self, pfn: int, prot: int) -> int:
        """Open a window; its address.  KernelBug as the kernel."""

    def unmap(self, vaddr: int) -> None:
        """Close the top window, given an address.  KernelBug as the kernel."""

    def set_depth(self, depth: int) -> None:
        """Make it so that *depth* windows are open."""

    def recover(self, mapping: bool) -> None:
        """Undo the counts that a BUG in the middle of a map (or unmap) call left."""


class StackDriver:
    """2.6.37 to 5.10: windows nest per CPU."""

    __slots__ = ("_context", "_kernel", "_windows")

    def __init__(self, kernel: Kernel, windows: StackWindows) -> None:
        self._kernel = kernel
        self._context = kernel.context
        self._windows = windows

    def key(self, cpu: int, task_key: int) -> int:
        """The CPU."""
        return cpu

    def enter(self, cpu: int, task_key: int) -> bool:
        """Any task can be on any CPU."""
        self._context.this = self._context.cpus[cpu]
        return True

    def depth(self) -> int:
        """``__kmap_atomic_idx``."""
        return self._context.this.kmap_atomic_idx

    def map(self, pfn: int, prot: int) -> int:
        """``kmap_atomic_high_prot``."""
        return self._windows.kmap_atomic_high_prot(self._kernel.pfn_to_page(pfn), prot)

    def unmap(self, vaddr: int) -> None:
        """``kunmap_atomic_high``."""
        self._windows.kunmap_atomic_high(vaddr)

    def set_depth(self, depth: int) -> None:
        """Entries above are cleared and flushed, those below get a placeholder frame."""
        this, ptes, windows = self._context.this, self._kernel.ptes, self._windows
        now = this.kmap_atomic_idx
        for slot in [*range(depth, now), *range(min(now, 0), min(depth, 0))]:
            idx = slot + this.kmap_first
            windows.kpte_clear_flush(windows.pte_of(idx), windows.vaddr_of(idx))
        placeholder = ptes.pfn_pte(self._kernel.layout.highstart_pfn, ptes.kmap_prot)
        for slot in range(max(now, 0), depth):
            ptes.set_pte(windows.pte_of(slot + this.kmap_first), placeholder)
        this.kmap_atomic_idx = depth

    def recover(self, mapping: bool) -> None:
        """The push of a map that hit its BUG counts a window whose entry is another's."""
        this = self._context.this
        if mapping and this.kmap_atomic_idx > 0:
            this.kmap_atomic_idx -= 1


class LocalDriver:
    """5.11 on: windows nest per task."""

    __slots__ = ("_context", "_incr", "_kernel", "_tasks", "_windows")

    def __init__(self, kernel: Kernel, windows: LocalWindows) -> None:
        self._kernel = kernel
        self._context = kernel.context
        self._windows = windows
        self._incr = windows.km_incr
        self._tasks: dict[int, Task] = {-1 - p.id: p.idle for p in kernel.context.cpus}

    def key(self, cpu: int, task_key: int) -> int:
        """The task."""
        return task_key

    def enter(self, cpu: int, task_key: int) -> bool:
        """Switches tasks where needed, so windows go out and in as in the kernel."""
        task = self._tasks.get(task_key)
        if task is None:
            task = self._new_task(task_key)
        this = self._context.cpus[cpu]
        self._context.this = this
        if this.current is task:
            return True
        fits = task.kmap_ctrl.idx == 0 or task.cpu == cpu
        self._take_off(task)
        if not fits:
            self._empty(task)
        self._context.this = this
        self._context.switch_to(task)
        return fits

    def _take_off(self, task: Task) -> None:
        """A task that the recording shows on one CPU no longer runs on another."""
        old = self._context.cpus[task.cpu]
        if old.current is task:
            self._context.this = old
            self._context.switch_to(old.idle)

    @staticmethod
    def _empty(task: Task) -> None:
        task.kmap_ctrl.idx = 0
        task.kmap_ctrl.pteval = [0] * len(task.kmap_ctrl.pteval)
        task.migrate_disabled = 0

    def forget(self, task_key: int) -> None:
        """The task is dead; its number may come back as another's."""
        task = self._tasks.get(task_key)
        if task is not None and task.pid:
            self._take_off(task)
            del self._tasks[task_key]

    def _new_task(self, task_key: int) -> Task:
        if len(self._tasks) >= _MOST_TASKS:
            running = {id(p.current) for p in self._context.cpus}
            self._tasks = {
                key: task
                for key, task in self._tasks.items()
                if key < 0 or task.kmap_ctrl.idx or id(task) in running
            }
        task = self._tasks[task_key] = self._kernel.spawn("task", task_key)
        return task

    def depth(self) -> int:
        """Windows of the running task."""
        return self._context.this.current.kmap_ctrl.idx // self._incr

    def map(self, pfn: int, prot: int) -> int:
        """``__kmap_local_pfn_prot``."""
        return self._windows.kmap_local_pfn_prot(pfn, prot)

    def unmap(self, vaddr: int) -> None:
        """``kunmap_local_indexed``."""
        self._windows.kunmap_local_indexed(vaddr)

    def set_depth(self, depth: int) -> None:
        """Through the kernel's own calls, except that nothing can be below depth 0."""
        task = self._context.this.current
        if task.kmap_ctrl.idx < 0:
            self._empty(task)
        while self.depth() > depth:
            idx = task.kmap_ctrl.idx - 1 + self._context.this.kmap_first
            self._windows.kunmap_local_indexed(self._windows.vaddr_of(idx))
        while self.depth() < depth:
            self.map(self._kernel.layout.highstart_pfn, self._kernel.kmap_prot)

    def recover(self, mapping: bool) -> None:
        """A BUG between preempt_disable and preempt_enable leaves the count and the index up,
        and the entries of the windows below, which nobody will clear."""
        this, windows = self._context.this, self._windows
        this.preempt_count = 0
        for slot in range(len(this.current.kmap_ctrl.pteval)):
            idx = slot + this.kmap_first
            if self._kernel.ptes.read(windows.pte_of(idx)):
                windows.kpte_clear_flush(windows.pte_of(idx), windows.vaddr_of(idx))
        self._empty(self._context.this.current)


def make_driver(kernel: Kernel) -> Driver:
    """The driver of the kernel's era; UsageError for the typed era, which does not nest."""
    if isinstance(kernel.temporary, StackWindows):
        return StackDriver(kernel, kernel.temporary)
    if isinstance(kernel.temporary, LocalWindows):
        return LocalDriver(kernel, kernel.temporary)
    raise UsageError(f"{kernel.profile.name}: windows of the typed era do not nest")
