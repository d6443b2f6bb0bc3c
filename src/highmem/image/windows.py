"""The windows of an image: which were open, onto which frame, and whether they should be.

An image stops a machine anywhere, also between two steps of a call.  From 2.6.37 on a temporary
window's index goes up before its entry is written and comes down after it is cleared, so an
entry above the index is never a call in progress; an entry missing below it may be.  A permanent
window's entry is written before its count rises, and cleared after it fell to 0.
Sources: mm/highmem.c, arch/x86/mm/highmem_32.c, Linux 2.6.37 to 6.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from highmem.findings import Finding
from highmem.image.tasks import CpuTask, Tasks, cpu_tasks, per_cpu
from highmem.image.view import ImageKernel
from highmem.kernel.families import KM_TYPES, Era
from highmem.machine.entry import ACCESSED, DIRTY, PRESENT

__all__ = [
    "CpuWindows",
    "PermanentWindow",
    "TemporaryWindow",
    "Windows",
    "read_windows",
    "slot_name",
]


@dataclass(frozen=True, slots=True)
class TemporaryWindow:
    """One temporary window whose entry is not empty."""

    cpu: int
    slot: int
    address: int
    entry: int
    pfn: int
    page: int | None
    """Address of the frame's ``struct page``, None if it is not known."""
    held: bool | None
    """Whether the CPU's index covers it, None if the index is not known."""

    @property
    def present(self) -> bool:
        """Whether the entry maps anything."""
        return bool(self.entry & PRESENT)


@dataclass(frozen=True, slots=True)
class CpuWindows:
    """What is known of the windows of one CPU."""

    cpu: int
    online: bool | None
    task: CpuTask | None
    index: int | None
    """The index up to which slots are in use: the CPU's own (2.6.37 to 5.10) or that of the
    task that runs on it (5.11 on)."""
    index_how: str
    missing: tuple[int, ...]
    """Slots below the index with an empty entry: a call in progress, or damage."""


@dataclass(frozen=True, slots=True)
class PermanentWindow:
    """One permanent window that is mapped or counted."""

    nr: int
    address: int
    entry: int
    pfn: int
    page: int | None
    count: int | None
    """``pkmap_count``: 0 free, 1 mapped without a user, more: users plus one."""

    @property
    def present(self) -> bool:
        """Whether the entry maps anything."""
        return bool(self.entry & PRESENT)


@dataclass(frozen=True, slots=True)
class Windows:
    """All windows of an image, and what is wrong with them."""

    cpus: tuple[CpuWindows, ...]
    temporary: tuple[TemporaryWindow, ...]
    permanent: tuple[PermanentWindow, ...]
    last_pkmap_nr: int | None
    pkmap_count_at: int | None
    kmap_prot: int
    asleep: tuple[CpuTask, ...]
    """Tasks that hold local windows but do not run: their entries wait in kmap_ctrl (5.11 on)."""
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]


def read_windows(kernel: ImageKernel) -> Windows:
    """Read every window of *kernel* and judge it."""
    from highmem.image.judge import judge_windows

    tasks, notes = cpu_tasks(kernel)
    temporary, cpus = _temporary(kernel, tasks)
    windows = Windows(
        cpus,
        temporary,
        _permanent(kernel),
        kernel.last_pkmap_nr,
        kernel.pkmap_count_at if kernel.pkmap_count is not None else None,
        kernel.kmap_prot,
        tuple(task for task in tasks.all if task.cpu is None and task.held),
        notes,
        (),
    )
    return judge_windows(kernel, windows)


def slot_name(kernel: ImageKernel, slot: int) -> str:
    """How the kernel calls a slot: its ``km_type`` in the typed era, else its number."""
    profile = kernel.profile
    if profile.era is not Era.TYPED:
        return str(slot)
    number, guard = divmod(slot, 2) if profile.debug_highmem else (slot, 1)
    return KM_TYPES[number] if guard and number < len(KM_TYPES) else f"fence {slot}"


def _temporary(
    kernel: ImageKernel, tasks: Tasks
) -> tuple[tuple[TemporaryWindow, ...], tuple[CpuWindows, ...]]:
    """The windows that are not empty, and the CPUs that exist or have one."""
    layout, per = kernel.layout, kernel.profile.windows_per_cpu
    total = per * kernel.profile.nr_cpus
    lowest = layout.window_address(0, total - 1)
    entries = kernel.entries_from(lowest, total)[::-1].tolist()
    empty = ACCESSED | DIRTY if _ignores_accessed_dirty(kernel) else 0
    by_cpu: dict[int, list[int]] = {cpu: [] for cpu in range(tasks.cpus or 0)}
    for number, entry in enumerate(entries):
        if entry & ~empty:
            by_cpu.setdefault(number // per, []).append(number % per)
    windows, cpus = [], []
    for cpu, slots in sorted(by_cpu.items()):
        state = _cpu(kernel, tasks, cpu, slots)
        cpus.append(state)
        for slot in slots:
            entry = entries[cpu * per + slot]
            pfn = kernel.entry_pfn(entry)
            page = kernel.pfn_to_page(pfn)
            windows.append(
                TemporaryWindow(
                    cpu, slot, layout.window_address(cpu, slot), entry, pfn,
                    None if page is None else page.address, _held(kernel, state, slot),
                )
            )  # fmt: skip
    return tuple(windows), tuple(cpus)


def _ignores_accessed_dirty(kernel: ImageKernel) -> bool:
    return kernel.profile.pae and kernel.profile.features.pte_none_ignores_accessed_dirty


def _cpu(kernel: ImageKernel, tasks: Tasks, cpu: int, slots: list[int]) -> CpuWindows:
    online = None if tasks.online is None or cpu >= 32 else bool(tasks.online >> cpu & 1)
    task = tasks.current.get(cpu)
    index, how = _index(kernel, cpu, task, tasks)
    below = range(min(index or 0, kernel.profile.windows_per_cpu))
    first = 1 if kernel.profile.guard_slots else 0
    step = 2 if kernel.profile.guard_slots else 1
    missing = tuple(slot for slot in below[first::step] if slot not in slots)
    return CpuWindows(cpu, online, task, index, how, missing)


def _index(
    kernel: ImageKernel, cpu: int, task: CpuTask | None, tasks: Tasks
) -> tuple[int | None, str]:
    """The index that tells which slots of *cpu* are in use, and where it is from."""
    if tasks.cpus is not None and cpu >= tasks.cpus:
        return 0, "there is no such CPU"
    if kernel.profile.era is Era.TYPED:
        return None, "this kernel has none: the caller names the slot"
    if kernel.profile.era is Era.LOCAL:
        if task is None or task.index is None:
            return None, "not known"
        return task.index, f"kmap_ctrl of {task.comm}"
    variable = per_cpu(kernel, "__kmap_atomic_idx", cpu)
    value = None if variable is None else kernel.known.word(variable)
    if value is None:
        return None, "not known"
    return value - ((value & 0x8000_0000) << 1), "__kmap_atomic_idx"


def _held(kernel: ImageKernel, state: CpuWindows, slot: int) -> bool | None:
    if state.index is None:
        return None
    return slot < state.index and (not kernel.profile.guard_slots or slot % 2 == 1)


def _permanent(kernel: ImageKernel) -> tuple[PermanentWindow, ...]:
    """The permanent windows that are mapped or counted."""
    counts = kernel.pkmap_count
    empty = ACCESSED | DIRTY if _ignores_accessed_dirty(kernel) else 0
    found = []
    for nr, entry in enumerate(kernel.pkmap_entries):
        count = None if counts is None else counts[nr]
        if not entry & ~empty and not count:
            continue
        pfn = kernel.entry_pfn(entry)
        page = kernel.pfn_to_page(pfn) if entry & PRESENT else None
        address = None if page is None else page.address
        found.append(
            PermanentWindow(nr, kernel.layout.pkmap_address(nr), entry, pfn, address, count)
        )
    return tuple(found)
