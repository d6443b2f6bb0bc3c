"""``Kernel``: a booted kernel with its mapping system, on a machine.

>>> from highmem.kernel.kernel import Kernel
>>> kernel = Kernel.boot("debian-5.10-686", ram=2 << 30, cpus=4)
>>> page = kernel.alloc_page()
>>> with kernel.on(1):
...     window = kernel.kmap_atomic(page)
...     kernel.write32(window, 0x2A)
...     kernel.kunmap_atomic(window)
>>> f"{window:#x}"
'0xfffa7000'

Every call acts on the CPU chosen with :meth:`Kernel.on` (CPU 0 at first) and on the task
that runs there, as a kernel function does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from highmem.errors import UsageError
from highmem.kernel.boot import BootTables, build_tables
from highmem.kernel.bug import KernelLog
from highmem.kernel.context import Context, KmapCtrl, PerCpu, Task, TaskState
from highmem.kernel.layout import Layout
from highmem.kernel.local import LocalWindows
from highmem.kernel.oops import kernel_page_fault
from highmem.kernel.pages import Page, PageAddresses, Pages
from highmem.kernel.permanent import PermanentMappings, WaitQueue
from highmem.kernel.pgtable import PAGE_SHIFT, PageTables
from highmem.kernel.profile import Era, Profile, load_profile
from highmem.kernel.temporary import PAGE_MASK, StackWindows
from highmem.kernel.typed import TypedWindows
from highmem.machine.cpu import CpuFeatures
from highmem.machine.machine import Machine
from highmem.machine.memory import PhysicalMemory
from highmem.machine.paging import PageFault, Walk, walk

__all__ = ["Kernel"]

P = ParamSpec("P")
R = TypeVar("R")

_ERAS: dict[Era, type[StackWindows | TypedWindows | LocalWindows]] = {
    Era.TYPED: TypedWindows,
    Era.STACK: StackWindows,
    Era.LOCAL: LocalWindows,
}


class Kernel:
    """One kernel on one machine.  Make it with :meth:`boot`.

    ``temporary`` and ``permanent`` are the two kinds of windows, ``log`` what the kernel
    complained about, ``layout`` every derived address.
    """

    def __init__(self, profile: Profile, machine: Machine, layout: Layout) -> None:
        self.profile = profile
        self.machine = machine
        self.layout = layout
        self.log = KernelLog()
        self.tables: BootTables = build_tables(profile, layout, machine.memory)
        self._next_pid = 1
        percpu = [self._bring_up(cpu.id) for cpu in machine.cpus]
        self.context = Context(profile, percpu, self.log)
        self.pages = Pages(layout, layout.geometry.sizeof_struct_page, self.tables.frames)
        self.addresses = PageAddresses(profile, layout, self.context)
        self.ptes = PageTables(profile, machine.memory, self.context)
        self.temporary: StackWindows | TypedWindows | LocalWindows = _ERAS[profile.era](
            profile,
            layout,
            self.context,
            self.ptes,
            self.addresses,
            layout.PAGE_OFFSET + self.tables.kmap_pte,
        )
        self.permanent = PermanentMappings(
            profile,
            layout,
            self.context,
            self.ptes,
            self.addresses,
            pkmap_page_table=self.tables.pkmap_page_table,
            pfn_to_page=self.pages.page,
            flush_tlb_all=self._flush_tlb_all,
        )
        if isinstance(self.temporary, LocalWindows):
            local = self.temporary
            self.context.on_switch = (local.kmap_local_sched_out, local.kmap_local_sched_in)

    @classmethod
    def boot(
        cls,
        profile: Profile | str,
        *,
        ram: int = 2 << 30,
        cpus: int = 1,
        memory: PhysicalMemory | None = None,
        tlb_capacity: int = 64,
    ) -> Kernel:
        """Boot *profile* (or the one of that name) with *ram* bytes on *cpus* CPUs.

        UsageError if the kernel was compiled for fewer CPUs; ProfileError for a bad profile.
        """
        if isinstance(profile, str):
            profile = load_profile(profile)
        if not 1 <= cpus <= profile.nr_cpus:
            raise UsageError(f"{profile.name} was compiled for 1 to {profile.nr_cpus} CPUs")
        layout = profile.layout(ram)
        features = CpuFeatures(pge=profile.pge, nx=profile.nx and profile.pae)
        machine = Machine(
            layout.max_pfn << PAGE_SHIFT,
            cpus=cpus,
            pae=profile.pae,
            features=features,
            tlb_capacity=tlb_capacity,
            memory=memory,
        )
        return cls(profile, machine, layout)

    def _bring_up(self, cpu_id: int) -> PerCpu:
        cpu = self.machine.cpus[cpu_id]
        cpu.load_cr3(self.tables.cr3)
        idle = self._make_task("swapper", 0, cpu_id)
        percpu = PerCpu(cpu_id, cpu, current=idle, idle=idle)
        percpu.kmap_first = self.profile.windows_per_cpu * cpu_id
        return percpu

    def _flush_tlb_all(self, percpu: PerCpu) -> None:
        """``__flush_tlb_all``: toggling CR4.PGE drops global entries too; without PGE there are
        none and a CR3 reload does."""
        cpu = percpu.cpu
        if self.profile.pge:
            cpu.set_pge(False)
            cpu.set_pge(True)
        else:
            cpu.load_cr3(self.tables.cr3)

    # Who runs.

    @contextmanager
    def on(self, cpu: int, task: Task | None = None) -> Iterator[Kernel]:
        """Run what is in the block on *cpu* (in *task*, switching to it), then come back."""
        before = self.context.this
        self.run_on(cpu, task)
        try:
            yield self
        finally:
            self.context.this = before

    def run_on(self, cpu: int, task: Task | None = None) -> None:
        """From here on calls act on *cpu*; with *task*, that CPU switches to it first."""
        if not 0 <= cpu < len(self.context.cpus):
            raise UsageError(f"no CPU {cpu}: this machine has {len(self.context.cpus)}")
        self.context.this = self.context.cpus[cpu]
        if task is not None and task is not self.context.this.current:
            if task.migrate_disabled and task.cpu != cpu:
                raise UsageError(f"task {task} is pinned to CPU {task.cpu} while it holds a window")
            self.context.switch_to(task)

    @property
    def current(self) -> Task:
        """The task that runs on the CPU in use."""
        return self.context.this.current

    def _make_task(self, comm: str, pid: int, cpu: int) -> Task:
        slots = self.profile.windows_per_cpu if self.profile.era is Era.LOCAL else 0
        return Task(pid, comm, KmapCtrl([0] * slots), cpu=cpu)

    def spawn(self, comm: str, pid: int | None = None) -> Task:
        """A new task, not running yet; its pid is the next free one unless given."""
        if pid is None:
            self._next_pid += 1
            pid = self._next_pid
        return self._make_task(comm, pid, self.context.this.id)

    def fork(self, comm: str | None = None) -> Task:
        """A child of the running task, as ``copy_process`` makes it: its kmap_ctrl starts as a
        copy of the parent's and ``kmap_local_fork`` empties it."""
        parent = self.current
        child = self.spawn(comm or parent.comm)
        if isinstance(self.temporary, LocalWindows):
            child.kmap_ctrl.idx = parent.kmap_ctrl.idx
            child.kmap_ctrl.pteval = list(parent.kmap_ctrl.pteval)
            self.temporary.kmap_local_fork(child)
        return child

    def exit_to_user_mode(self) -> None:
        """The running task goes back to user mode (5.11 on checks that it holds nothing)."""
        if isinstance(self.temporary, LocalWindows):
            self.temporary.kmap_assert_nomap()

    # Pages.

    def alloc_page(self, *, highmem: bool = True) -> Page:
        """A free page, from high memory if there is any."""
        return self.pages.alloc_page(highmem=highmem)

    def pfn_to_page(self, pfn: int) -> Page:
        """The page of a frame number."""
        return self.pages.page(pfn)

    def page_address(self, page: Page) -> int | None:
        """The kernel address of *page*, None for a high page that is not kmap()ed."""
        return self.addresses.page_address(page)

    # Temporary mappings.

    @property
    def kmap_prot(self) -> int:
        """The protection bits of every window of this kernel."""
        return self.ptes.kmap_prot

    @property
    def kmap_pte(self) -> int:
        """Linear address of the page-table entry of FIX_KMAP_BEGIN."""
        return self.temporary.kmap_pte

    def kmap_atomic(self, page: Page, km_type: int | None = None) -> int:
        """``kmap_atomic(page)`` = ``kmap_atomic_prot(page, kmap_prot)``."""
        return self.temporary.kmap_atomic_prot(page, self.ptes.kmap_prot, km_type)

    def kmap_atomic_prot(self, page: Page, prot: int, km_type: int | None = None) -> int:
        """A temporary window with protection *prot*."""
        return self.temporary.kmap_atomic_prot(page, prot, km_type)

    def kmap_atomic_pfn(self, pfn: int, km_type: int | None = None) -> int:
        """A temporary window for a frame."""
        return self.temporary.kmap_atomic_prot_pfn(pfn, self.ptes.kmap_prot, km_type)

    def kmap_atomic_prot_pfn(self, pfn: int, prot: int, km_type: int | None = None) -> int:
        """A temporary window for a frame with protection *prot*."""
        return self.temporary.kmap_atomic_prot_pfn(pfn, prot, km_type)

    def kunmap_atomic(self, address: object, km_type: int | None = None) -> None:
        """Undo the latest atomic mapping; NotAnAddressError for a page."""
        self.temporary.kunmap_atomic(address, km_type)

    def kmap_local_page(self, page: Page) -> int:
        """``kmap_local_page(page)`` (5.11 on)."""
        return self._local().kmap_local_page_prot(page, self.ptes.kmap_prot)

    def kmap_local_page_prot(self, page: Page, prot: int) -> int:
        """The same with protection *prot*."""
        return self._local().kmap_local_page_prot(page, prot)

    def kmap_local_pfn(self, pfn: int) -> int:
        """``kmap_local_pfn(pfn)`` (5.11 on)."""
        return self._local().kmap_local_pfn_prot(pfn, self.ptes.kmap_prot)

    def kunmap_local(self, address: object) -> None:
        """Undo the latest local mapping of the task; NotAnAddressError for a page."""
        self._local().kunmap_local(address)

    def _local(self) -> LocalWindows:
        if not isinstance(self.temporary, LocalWindows):
            raise UsageError(f"{self.profile.name} has no kmap_local_page(): it came in 5.11")
        return self.temporary

    def kmap_atomic_to_page(self, address: int) -> Page:
        """The page behind a temporary window's address (up to 4.2)."""
        return self.pages.page(self.temporary.kmap_atomic_to_page(address))

    # Permanent mappings.

    def kmap(self, page: Page) -> int:
        """A permanent window for *page*, shared by all who map it."""
        return self.permanent.kmap(page)

    def kunmap(self, page: Page) -> None:
        """One user of *page*'s permanent window less.  It takes the page, not the address."""
        if not isinstance(page, Page):
            raise UsageError("kunmap() takes the page, not the address that kmap() returned")
        self.permanent.kunmap(page)

    def kmap_flush_unused(self) -> None:
        """Free all permanent windows without users and flush every TLB."""
        self.permanent.kmap_flush_unused()

    def kmap_to_page(self, address: int) -> Page:
        """The page behind *address*, as far as this kernel's function knows it.

        Permanent windows from their entry; from 6.1 also the task's own local windows; any
        other address counts as low memory.
        """
        mode = self.profile.features.kmap_to_page
        if mode == "none":
            raise UsageError("this kernel has no kmap_to_page() (it came in 3.8)")
        if self.layout.is_pkmap(address):
            if mode == "warns":
                self.context.warn_on_once("__kmap_to_page", "addr in pkmap", addr=address)
            where = self.permanent.pte_of(self.layout.pkmap_nr(address))
            return self.pages.page(self.ptes.pte_pfn(self.ptes.read(where)))
        if mode == "warns" and isinstance(self.temporary, LocalWindows):
            held = self.temporary.held_page(address)
            if held is not None:
                return self.pages.page(held)
        return self.pages.page((address - self.layout.PAGE_OFFSET) >> PAGE_SHIFT)

    # Cooperative tasks: who may sleep in kmap().

    def run_tasks(
        self, bodies: dict[str, Callable[[Kernel], Generator[WaitQueue | None, None, None]]]
    ) -> None:
        """Run tasks turn by turn on the CPU in use until all have ended.

        A body is a generator function that gets this kernel; it yields where it may be
        switched out, and maps with ``yield from kernel.kmap_sleeping(page)`` where it may
        sleep.  KernelDeadlock when all that are left sleep.
        """
        running = [(self.spawn(comm), body(self)) for comm, body in bodies.items()]
        while running:
            ready = [pair for pair in running if pair[0].state is TaskState.RUNNING]
            if not ready:
                raise self.permanent.deadlock([task for task, _ in running])
            for task, body in ready:
                if task.state is not TaskState.RUNNING:
                    continue
                self.context.switch_to(task)
                try:
                    next(body)
                except StopIteration:
                    task.state = TaskState.DEAD
                    running.remove((task, body))
        self.context.switch_to(self.context.this.idle)

    def kmap_sleeping(self, page: Page) -> Generator[WaitQueue, None, int]:
        """``kmap`` inside a cooperative task: sleeps until a window is free."""
        self.context.might_sleep("kmap")
        if not page.highmem:
            return self.permanent.kmap(page)
        return (yield from self.permanent.kmap_waiting(page))

    # Memory, through this CPU's TLB and page tables.

    def read8(self, vaddr: int) -> int:
        """One byte at *vaddr*; KernelPageFault where the kernel would oops."""
        return self._access(self.context.this.cpu.read8, vaddr)

    def read32(self, vaddr: int) -> int:
        """Four bytes, little endian."""
        return self._access(self.context.this.cpu.read32, vaddr)

    def write8(self, vaddr: int, value: int) -> None:
        """Store one byte."""
        self._access(self.context.this.cpu.write8, vaddr, value)

    def write32(self, vaddr: int, value: int) -> None:
        """Store four bytes, little endian."""
        self._access(self.context.this.cpu.write32, vaddr, value)

    def read(self, vaddr: int, length: int) -> bytes:
        """*length* bytes from *vaddr* on."""
        return self._access(self.context.this.cpu.read, vaddr, length)

    def write(self, vaddr: int, data: bytes) -> None:
        """Store *data* from *vaddr* on."""
        self._access(self.context.this.cpu.write, vaddr, data)

    def _access(self, access: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        try:
            return access(*arguments, **named)
        except PageFault as fault:
            raise kernel_page_fault(self, fault) from None

    def walk(self, vaddr: int) -> Walk:
        """The page-table walk of *vaddr*, level by level, without a TLB."""
        return walk(self.machine.memory, self.machine.mode, self.tables.cr3, vaddr)

    def window_entry(self, cpu: int, slot: int) -> int:
        """The entry of a temporary window, as memory holds it."""
        idx = slot + self.profile.windows_per_cpu * cpu
        return self.ptes.read(self.temporary.pte_of(idx))

    def stale(self, vaddr: int, cpu: int | None = None) -> bool:
        """Whether a CPU's TLB (the one in use) still translates *vaddr* otherwise than the page
        tables do now."""
        percpu = self.context.this if cpu is None else self.context.cpus[cpu]
        page = vaddr & PAGE_MASK
        cached = percpu.cpu.tlb.peek(page)
        if cached is None:
            return False
        found = self.walk(page)
        return found.physical is None or found.physical != cached.base | (page & cached.mask)
