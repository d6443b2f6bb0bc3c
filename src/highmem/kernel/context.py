"""Who runs, and under which restrictions: tasks, per-CPU state, the counts that nest.

Only what the mapping code reads or writes is here: the preempt count with its interrupt
parts, the page-fault-disable count, migration, and the switch from one task to the next.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from highmem.kernel.bug import KernelBug, KernelLog, Severity, Splat
from highmem.kernel.profile import Profile
from highmem.machine.cpu import Cpu

__all__ = ["Context", "KmapCtrl", "PerCpu", "Task", "TaskState"]


class TaskState(enum.Enum):
    """Whether a task can run."""

    RUNNING = "R"
    UNINTERRUPTIBLE = "D"
    DEAD = "X"


@dataclass(slots=True, eq=False)
class KmapCtrl:
    """``current->kmap_ctrl`` (include/linux/sched.h, 5.11 on).

    ``idx`` is KM_INCR times the number of windows that the task holds; ``pteval[i]`` is the
    entry that slot i has whenever the task runs, 0 for none.
    """

    pteval: list[int]
    idx: int = 0


@dataclass(slots=True, eq=False)
class Task:
    """What of ``struct task_struct`` the mapping code uses."""

    pid: int
    comm: str
    kmap_ctrl: KmapCtrl
    cpu: int = 0
    state: TaskState = TaskState.RUNNING
    preempt_count: int = 0
    """The preempt-disable depth while the task does not run; while it runs, PerCpu's."""
    pagefault_disabled: int = 0
    migrate_disabled: int = 0

    def __str__(self) -> str:
        return f"{self.comm}/{self.pid}"


@dataclass(slots=True, eq=False)
class PerCpu:
    """The per-CPU variables of one CPU."""

    id: int
    cpu: Cpu
    current: Task
    idle: Task
    preempt_count: int = 0
    """The preempt-disable part of ``preempt_count()``; the interrupt parts follow."""
    hardirq_count: int = 0
    softirq_count: int = 0
    nmi_count: int = 0
    kmap_atomic_idx: int = 0
    """``__kmap_atomic_idx`` (stack era): how many atomic windows are live on this CPU."""
    kmap_first: int = 0
    """KM_TYPE_NR (KM_MAX_IDX) * cpu: the index of this CPU's slot 0 from FIX_KMAP_BEGIN."""
    lazy_mode: bool = False
    lazy_queue: list[tuple[str, int, int]] = field(default_factory=list)
    invalidate_other: bool = False
    """``cpu_tlbstate.invalidate_other``: with PTI, other address spaces need a flush later."""


class Context:
    """The CPU that runs kernel code now, its task, and the counts.

    ``this`` is the CPU in use: every function of the kernel acts on it, as in the kernel.
    """

    __slots__ = ("_profile", "counts_preempt", "cpus", "log", "on_switch", "this")

    def __init__(self, profile: Profile, cpus: list[PerCpu], log: KernelLog) -> None:
        self._profile = profile
        self.counts_preempt = profile.preempt_count
        self.cpus = cpus
        self.this = cpus[0]
        self.log = log
        self.on_switch: tuple[Callable[[PerCpu], None], Callable[[PerCpu], None]] | None = None
        """Called before and after ``this.current`` changes (``kmap_local_sched_out/in``)."""

    # Complaints.

    def splat(
        self, severity: Severity, function: str, condition: str, state: dict[str, int | str]
    ) -> Splat:
        """A complaint by the running CPU and task."""
        return Splat(severity, function, condition, self.this.id, str(self.this.current), state)

    def bug_on(self, function: str, condition: str, **state: int | str) -> KernelBug:
        """The exception of a BUG_ON that failed, for the caller to raise."""
        splat = self.splat(Severity.BUG, function, condition, state)
        self.log.add(splat)
        return KernelBug(splat)

    def warn_on(self, function: str, condition: str, **state: int | str) -> None:
        """A WARN_ON that failed."""
        self.log.add(self.splat(Severity.WARN, function, condition, state))

    def warn_on_once(self, function: str, condition: str, **state: int | str) -> None:
        """A WARN_ON_ONCE that failed; the second time at this place is silent."""
        splat = self.splat(Severity.WARN, function, condition, state)
        self.log.add_once(f"{function}: {condition}", splat)

    # Where we are.

    def irqs_disabled(self) -> bool:
        """Whether maskable interrupts are off on this CPU."""
        return not self.this.cpu.interrupts_enabled

    def in_irq(self) -> bool:
        """In a hard interrupt (``in_hardirq()``)."""
        return self.this.hardirq_count > 0

    def in_nmi(self) -> bool:
        """In a non-maskable interrupt."""
        return self.this.nmi_count > 0

    def in_interrupt(self) -> bool:
        """In a hard or soft interrupt or NMI, or with bottom halves off."""
        this = self.this
        return bool(this.hardirq_count or this.softirq_count or this.nmi_count)

    def in_atomic(self) -> bool:
        """``preempt_count() != 0``."""
        return self.this.preempt_count != 0 or self.in_interrupt()

    def faulthandler_disabled(self) -> bool:
        """Whether a page fault now would not be handled but looked up as an exception.

        Up to 4.1 ``in_atomic()``; from 4.2 also the task's own counter (arch/x86/mm/fault.c).
        """
        return self.this.current.pagefault_disabled > 0 or self.in_atomic()

    # The counts.

    def preempt_disable(self) -> None:
        """+1 with CONFIG_PREEMPT_COUNT, else only a compiler barrier."""
        if self.counts_preempt:
            self.this.preempt_count += 1

    def preempt_enable(self) -> None:
        """The reverse of :meth:`preempt_disable`."""
        if self.counts_preempt:
            self.this.preempt_count -= 1

    def pagefault_disable(self) -> None:
        """Up to 4.1 raises the preempt count whatever the configuration; from 4.2 a counter
        in the task (include/linux/uaccess.h)."""
        if self._profile.features.fault_disable_is_preempt_count:
            self.this.preempt_count += 1
        else:
            self.this.current.pagefault_disabled += 1

    def pagefault_enable(self) -> None:
        """The reverse of :meth:`pagefault_disable`."""
        if self._profile.features.fault_disable_is_preempt_count:
            self.this.preempt_count -= 1
            return
        task = self.this.current
        task.pagefault_disabled -= 1
        if self._profile.features.fault_enable_warns and task.pagefault_disabled < 0:
            self.warn_on("pagefault_enable", "current->pagefault_disabled < 0")

    def migrate_disable(self) -> None:
        """Pin the task to its CPU; counted per task, nothing without SMP."""
        if self._profile.smp:
            self.this.current.migrate_disabled += 1

    def migrate_enable(self) -> None:
        """The reverse; warns once and does nothing if the task was not pinned."""
        if not self._profile.smp:
            return
        task = self.this.current
        if task.migrate_disabled == 0:
            self.warn_on_once("migrate_enable", "p->migration_disabled == 0")
            return
        task.migrate_disabled -= 1

    def might_sleep(self, function: str) -> None:
        """Complains where *function* could sleep and must not (CONFIG_DEBUG_ATOMIC_SLEEP)."""
        if self.in_atomic() or self.irqs_disabled():
            state: dict[str, int | str] = {"preempt_count": self.this.preempt_count}
            self.log.add(self.splat(Severity.SLEEP, function, "called in atomic context", state))

    # Interrupts.

    def irq_enter(self) -> None:
        """A hard interrupt arrives: interrupts go off, the task's state stays as it is."""
        self.this.hardirq_count += 1
        self.this.cpu.interrupts_enabled = False

    def irq_exit(self) -> None:
        """The hard interrupt is done; IRET turns interrupts on again, as they were when it
        came (else it could not have come)."""
        self.this.hardirq_count -= 1
        self.this.cpu.interrupts_enabled = True

    def softirq_enter(self) -> None:
        """A soft interrupt begins (or bottom halves are disabled)."""
        self.this.softirq_count += 1

    def softirq_exit(self) -> None:
        """The soft interrupt ends."""
        self.this.softirq_count -= 1

    # Tasks.

    def switch_to(self, task: Task) -> None:
        """The scheduler gives this CPU to *task*.

        Complains as ``schedule_debug`` does when the task that leaves is atomic, and resets
        its preempt count as that does.  Local windows go out and in (kernel/sched/core.c:
        ``prepare_task_switch``, ``finish_task_switch``).
        """
        this = self.this
        leaving = this.current
        if task is leaving:
            return
        if self.in_atomic():
            state: dict[str, int | str] = {"preempt_count": this.preempt_count}
            condition = "in_atomic_preempt_off()"
            self.log.add(self.splat(Severity.SCHED, "schedule", condition, state))
            this.preempt_count = 0
        if self.on_switch:
            self.on_switch[0](this)
        leaving.preempt_count = this.preempt_count
        this.current = task
        this.preempt_count = task.preempt_count
        task.cpu = this.id
        if self.on_switch:
            self.on_switch[1](this)
