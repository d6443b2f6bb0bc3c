"""Temporary mappings since 5.11: ``kmap_local_page`` and ``kmap_atomic`` on top of it.

The index and the entries belong to the *task* (``current->kmap_ctrl``): its windows are
cleared when it is switched out and written again when it comes back, always on the same
CPU, since holding a window disables migration.

Sources: mm/highmem.c, include/linux/highmem-internal.h, kernel/sched/core.c (5.11, 6.1).
"""

from __future__ import annotations

from typing import Any

from highmem.kernel.context import KmapCtrl, PerCpu, Task
from highmem.kernel.pages import Page
from highmem.kernel.pgtable import PAGE_SHIFT
from highmem.kernel.profile import Profile
from highmem.kernel.temporary import PAGE_MASK, WindowBase, refuse_page

__all__ = ["LocalWindows"]


class LocalWindows(WindowBase):
    """5.11 on: slot = the task's ``kmap_ctrl.idx``, KM_INCR a window.

    The bound, the busy check and the order check are always compiled in.
    """

    __slots__ = ("_force_map", "_guards", "_km_incr", "_rt")

    def __init__(self, profile: Profile, *rooms: Any) -> None:
        super().__init__(profile, *rooms)
        self._guards = profile.guard_slots
        self._km_incr = 2 if profile.guard_slots else 1
        self._force_map = profile.maps_low_pages
        self._rt = profile.preempt_rt and profile.features.rt_branches

    @property
    def km_incr(self) -> int:
        """KM_INCR: 2 with a guard slot before each slot in use, else 1."""
        return self._km_incr

    # The index.

    def kmap_local_idx_push(self) -> int:
        """The slot for a new window of the running task."""
        context = self._context
        if context.in_irq() and not context.irqs_disabled():
            context.warn_on_once("kmap_local_idx_push", "in_hardirq() && !irqs_disabled()")
        ctrl = context.this.current.kmap_ctrl
        ctrl.idx += self._km_incr
        if ctrl.idx >= self._per_cpu:
            raise context.bug_on("kmap_local_idx_push", "kmap_ctrl.idx >= KM_MAX_IDX", idx=ctrl.idx)
        return ctrl.idx - 1

    def kmap_local_idx(self) -> int:
        """The slot of the running task's top window, -1 if it holds none."""
        return self._context.this.current.kmap_ctrl.idx - 1

    def kmap_local_idx_pop(self) -> None:
        """One window less."""
        ctrl = self._context.this.current.kmap_ctrl
        ctrl.idx -= self._km_incr
        if ctrl.idx < 0:
            raise self._context.bug_on("kmap_local_idx_pop", "kmap_ctrl.idx < 0", idx=ctrl.idx)

    def depth(self) -> int:
        """How many windows the running task holds."""
        return self._context.this.current.kmap_ctrl.idx // self._km_incr

    # Mapping.

    def kmap_local_pfn_prot(self, pfn: int, prot: int) -> int:
        """``__kmap_local_pfn_prot``: a window for a frame, in the running task."""
        context, tables = self._context, self._tables
        context.migrate_disable()
        context.preempt_disable()
        slot = self.kmap_local_idx_push()
        idx = slot + context.this.kmap_first
        vaddr = self.vaddr_of(idx)
        where = self.pte_of(idx)
        entry = tables.read(where)
        if not tables.pte_none(entry):
            raise context.bug_on(
                "__kmap_local_pfn_prot", "!pte_none(*(kmap_pte - idx))", vaddr=vaddr, pte=entry
            )
        value = tables.pfn_pte(pfn, prot)
        tables.set_pte(where, value)
        tables.arch_flush_lazy_mmu_mode()
        context.this.current.kmap_ctrl.pteval[slot] = value
        context.preempt_enable()
        return vaddr

    def kmap_local_page_prot(self, page: Page, prot: int) -> int:
        """``__kmap_local_page_prot``: a low page keeps its linear address and changes nothing,
        unless FORCE_MAP is on."""
        if not self._force_map and not page.highmem:
            return self._layout.PAGE_OFFSET + (page.pfn << PAGE_SHIFT)
        return self.kmap_local_pfn_prot(page.pfn, prot)

    def kmap_atomic_prot(self, page: Page, prot: int, km_type: int | None = None) -> int:
        """A local window with preemption (on PREEMPT_RT: migration) and page faults off."""
        self._atomic_begin()
        return self.kmap_local_page_prot(page, prot)

    def kmap_atomic_prot_pfn(self, pfn: int, prot: int, km_type: int | None = None) -> int:
        """The same for a frame that need not have a struct page."""
        self._atomic_begin()
        return self.kmap_local_pfn_prot(pfn, prot)

    def _atomic_begin(self) -> None:
        if self._rt:
            self._context.migrate_disable()
        else:
            self._context.preempt_disable()
        self._context.pagefault_disable()

    # Unmapping.

    def kunmap_local(self, address: object) -> None:
        """Undo the latest map of this task, whose address this must be."""
        self.kunmap_local_indexed(refuse_page(address, "kunmap_local"))

    def kunmap_atomic(self, address: object, km_type: int | None = None) -> None:
        """:meth:`kunmap_local`, then page faults and preemption on again."""
        self.kunmap_local_indexed(refuse_page(address, "kunmap_atomic"))
        self._context.pagefault_enable()
        if self._rt:
            self._context.migrate_enable()
        else:
            self._context.preempt_enable()

    def kunmap_local_indexed(self, kvaddr: int) -> None:
        """Clear the entry of the task's *top* window, flush the TLB entry of the *address*.

        At depth 0 the "top" is slot -1: the entry before the CPU's slot 0 is cleared and
        ``pteval[-1]`` written, which is the very word of ``idx``; then BUG_ON(idx < 0).
        """
        context = self._context
        vaddr = kvaddr & PAGE_MASK
        if not self.in_windows(vaddr):
            self._outside(vaddr)
            return
        context.preempt_disable()
        ctrl = context.this.current.kmap_ctrl
        slot = ctrl.idx - 1
        idx = slot + context.this.kmap_first
        if vaddr != self.vaddr_of(idx):
            context.warn_on_once(
                "kunmap_local_indexed",
                "addr != __fix_to_virt(FIX_KMAP_BEGIN + idx)",
                vaddr=vaddr,
                top=self.vaddr_of(idx),
            )
        self.kpte_clear_flush(self.pte_of(idx), vaddr)
        self._tables.arch_flush_lazy_mmu_mode()
        if slot >= 0:
            ctrl.pteval[slot] = 0
        else:
            ctrl.idx = 0
        self.kmap_local_idx_pop()
        context.preempt_enable()
        context.migrate_enable()

    def _outside(self, vaddr: int) -> None:
        """An address that is no window: with FORCE_MAP always a warning, else only below
        PAGE_OFFSET; anything else (low memory, vmalloc, a permanent window) is silent."""
        if self._force_map:
            self._context.warn_on_once("kunmap_local_indexed", "1 (FORCE_MAP)", vaddr=vaddr)
        elif vaddr < self._layout.PAGE_OFFSET:
            self._context.warn_on_once("kunmap_local_indexed", "addr < PAGE_OFFSET", vaddr=vaddr)

    # Context switch, fork, exit.

    @staticmethod
    def _slots(ctrl: KmapCtrl) -> range:
        """0 to idx - 1.  After a push that hit its BUG, idx is past the end of pteval[], where
        the kernel would read on in task_struct; what it finds there is not modelled."""
        return range(min(ctrl.idx, len(ctrl.pteval)))

    def kmap_local_sched_out(self, this: PerCpu) -> None:
        """``__kmap_local_sched_out``: clear the leaving task's entries on this CPU; its index
        and pteval[] stay, which is why an interrupt in the middle does no harm."""
        ctrl = this.current.kmap_ctrl
        for slot in self._slots(ctrl):
            value = ctrl.pteval[slot]
            if self._guards and slot % 2 == 0:
                if value:
                    self._context.warn_on_once("__kmap_local_sched_out", "guard slot in use")
                continue
            if self._tables.pte_none(value):
                self._context.warn_on_once("__kmap_local_sched_out", "pte_none(pteval)", slot=slot)
                continue
            idx = slot + this.kmap_first
            self.kpte_clear_flush(self.pte_of(idx), self.vaddr_of(idx))
            self._tables.arch_flush_lazy_mmu_mode()

    def kmap_local_sched_in(self, this: PerCpu) -> None:
        """``__kmap_local_sched_in``: write the arriving task's entries again; no busy check and
        no TLB flush (none is needed: they were not present)."""
        ctrl = this.current.kmap_ctrl
        for slot in self._slots(ctrl):
            value = ctrl.pteval[slot]
            if self._guards and slot % 2 == 0:
                if value:
                    self._context.warn_on_once("__kmap_local_sched_in", "guard slot in use")
                continue
            if self._tables.pte_none(value):
                self._context.warn_on_once("__kmap_local_sched_in", "pte_none(pteval)", slot=slot)
                continue
            self._tables.set_pte(self.pte_of(slot + this.kmap_first), value)
            self._tables.arch_flush_lazy_mmu_mode()

    def kmap_local_fork(self, child: Task) -> None:
        """A child starts without windows; warns once if its parent forked holding some."""
        if child.kmap_ctrl.idx:
            self._context.warn_on_once(
                "kmap_local_fork", "tsk->kmap_ctrl.idx", idx=child.kmap_ctrl.idx
            )
        child.kmap_ctrl.idx = 0
        child.kmap_ctrl.pteval = [0] * self._per_cpu

    def kmap_assert_nomap(self) -> None:
        """On the way back to user mode: complains once (DEBUG_LOCKS_WARN_ON) about a window
        still held.  A kernel whose lock debugging is off (it was tainted) stays silent."""
        ctrl = self._context.this.current.kmap_ctrl
        if ctrl.idx:
            self._context.warn_on_once(
                "exit_to_user_mode_prepare", "current->kmap_ctrl.idx", idx=ctrl.idx
            )

    # Converters.

    def held_page(self, address: int) -> int | None:
        """The frame of the running task's window that holds *address*, as kmap_to_page of 6.1
        looks it up; None if it is not in the range that it tests.

        Its upper bound is exclusive, so slot 0 of CPU 0 (FIX_KMAP_BEGIN itself) is missed.
        """
        base = address & PAGE_MASK
        if not self._last <= base < self._first:
            return None
        self._context.warn_on_once("__kmap_to_page", "addr in the local window area", addr=base)
        this = self._context.this
        for slot in range(this.current.kmap_ctrl.idx):
            if base == self.vaddr_of(slot + this.kmap_first):
                return self._tables.pte_pfn(this.current.kmap_ctrl.pteval[slot])
        return None
