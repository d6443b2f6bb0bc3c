"""Temporary mappings of 2.6.12 to 2.6.36: the caller names the window by its ``km_type``.

Slot = the type's number; with DEBUG_HIGHMEM every type has a fence before it, so type n is
slot 2n+1.  Sources: arch/i386/mm/highmem.c and arch/x86/mm/highmem_32.c, mm/highmem.c
(``debug_kmap_atomic``).
"""

from __future__ import annotations

from typing import Any

from highmem.errors import UsageError
from highmem.kernel.pages import Page
from highmem.kernel.pgtable import PAGE_SHIFT
from highmem.kernel.profile import KM_TYPES, Profile
from highmem.kernel.temporary import PAGE_MASK, WindowBase, refuse_page

__all__ = ["TypedWindows"]

_IRQ = {"KM_IRQ0", "KM_IRQ1", "KM_BIO_SRC_IRQ", "KM_BIO_DST_IRQ", "KM_BOUNCE_READ"}
_SOFTIRQ = {
    "KM_IRQ0",
    "KM_IRQ1",
    "KM_SOFTIRQ0",
    "KM_SOFTIRQ1",
    "KM_SKB_SUNRPC_DATA",
    "KM_SKB_DATA_SOFTIRQ",
    "KM_BOUNCE_READ",
}
_NMI = {"KM_NMI", "KM_NMI_PTE"}
WARN_BUDGET = 10
"""``static warn_count = 10`` of debug_kmap_atomic."""


class TypedWindows(WindowBase):
    """One window per CPU and ``km_type``; nothing is nested, nothing is counted."""

    __slots__ = ("_checks", "_kdb", "_km_types", "_per_type", "kgdb_active", "warn_count")

    def __init__(self, profile: Profile, *rooms: Any) -> None:
        super().__init__(profile, *rooms)
        self._km_types = profile.features.km_types
        self._per_type = 2 if profile.debug_highmem else 1
        built = profile.trace_irqflags or not profile.features.context_check_needs_irqflags
        self._checks = profile.debug_highmem and built
        self._kdb = profile.features.context_check_kdb and profile.kgdb_kdb
        self.kgdb_active = False
        self.warn_count = WARN_BUDGET

    def slot_of(self, km_type: int | None) -> int:
        """The slot of a type, its fence counted in; UsageError for what is no type here."""
        if km_type is None or not 0 <= km_type < self._km_types:
            raise UsageError(
                f"this kernel's kmap_atomic needs a km_type from 0 to {self._km_types - 1}, "
                f"not {km_type}"
            )
        return km_type * self._per_type + (self._per_type - 1)

    def depth(self) -> int:
        """How many windows of this CPU have an entry."""
        first = self._context.this.kmap_first
        read, none = self._tables.read, self._tables.pte_none
        return sum(not none(read(self.pte_of(first + slot))) for slot in range(self._per_cpu))

    def kmap_atomic_prot(self, page: Page, prot: int, km_type: int | None = None) -> int:
        """Map *page* in this CPU's window of *km_type*; returns the address."""
        features = self._features
        idx = self.slot_of(km_type) + self._context.this.kmap_first
        self._context.pagefault_disable()
        if features.busy_check == "before-highmem-test":
            self._bug_if_busy(idx)
        if not page.highmem:
            return self._layout.PAGE_OFFSET + (page.pfn << PAGE_SHIFT)
        if features.context_check != "none":
            self.debug_kmap_atomic(km_type)
        if features.busy_check == "always" or (features.busy_check == "debug" and self._debug):
            self._bug_if_busy(idx)
        vaddr = self.vaddr_of(idx)
        self._tables.set_pte(self.pte_of(idx), self._tables.pfn_pte(page.pfn, prot))
        if features.map_flushes_tlb:
            self._tables.flush_tlb_one_kernel(vaddr)
        if features.lazy_flush_on_map:
            self._tables.arch_flush_lazy_mmu_mode()
        return vaddr

    def kmap_atomic_prot_pfn(self, pfn: int, prot: int, km_type: int | None = None) -> int:
        """Map a frame that need not have a struct page; an entry in use is overwritten."""
        idx = self.slot_of(km_type) + self._context.this.kmap_first
        self._context.pagefault_disable()
        if self._features.context_check == "pages-and-pfns":
            self.debug_kmap_atomic(km_type)
        self._tables.set_pte(self.pte_of(idx), self._tables.pfn_pte(pfn, prot))
        if self._features.map_flushes_tlb:
            self._tables.flush_tlb_one_kernel(self.vaddr_of(idx))
        if self._features.lazy_flush_on_pfn_map:
            self._tables.arch_flush_lazy_mmu_mode()
        return self.vaddr_of(idx)

    def kunmap_atomic(self, address: object, km_type: int | None = None) -> None:
        """Undo the mapping of *km_type* on this CPU, whose address this must be."""
        refuses = self._features.unmap_refuses_page
        vaddr = refuse_page(address, "kunmap_atomic", refuses) & PAGE_MASK
        idx = self.slot_of(km_type) + self._context.this.kmap_first
        mode = self._features.unmap_clears
        if mode == "own-window":
            self._clear_own(idx, vaddr)
        elif mode == "always":
            self._clear_always(idx, vaddr)
        elif self._debug:
            self._clear_for_debug(idx, vaddr)
        self._context.pagefault_enable()

    def iounmap_atomic(self, address: object, km_type: int | None = None) -> None:
        """Undo ``iomap_atomic_prot_pfn``: clears on an exact match, says nothing otherwise."""
        vaddr = refuse_page(address, "iounmap_atomic", False) & PAGE_MASK
        idx = self.slot_of(km_type) + self._context.this.kmap_first
        if vaddr == self.vaddr_of(idx):
            self.kpte_clear_flush(self.pte_of(idx), vaddr)
        self._context.pagefault_enable()

    def _bug_if_busy(self, idx: int) -> None:
        entry = self._tables.read(self.pte_of(idx))
        if not self._tables.pte_none(entry):
            raise self._context.bug_on(
                "kmap_atomic_prot",
                "!pte_none(*(kmap_pte-idx))",
                vaddr=self.vaddr_of(idx),
                pte=entry,
            )

    def _clear_own(self, idx: int, vaddr: int) -> None:
        """2.6.20 on: clear on an exact match; any other address is checked in debug only."""
        if vaddr == self.vaddr_of(idx):
            self.kpte_clear_flush(self.pte_of(idx), vaddr)
        elif self._debug:
            if vaddr < self._layout.PAGE_OFFSET:
                raise self._context.bug_on("kunmap_atomic", "vaddr < PAGE_OFFSET", vaddr=vaddr)
            if vaddr >= self._layout.high_memory:
                raise self._context.bug_on("kunmap_atomic", "vaddr >= high_memory", vaddr=vaddr)
        if self._features.lazy_flush_on_unmap:
            self._tables.arch_flush_lazy_mmu_mode()

    def _clear_always(self, idx: int, vaddr: int) -> None:
        """2.6.19: the type's entry is cleared whatever the address, unless debug objects."""
        if self._debug:
            if self._layout.PAGE_OFFSET <= vaddr < self._layout.high_memory:
                return
            self._bug_unless_own(idx, vaddr)
        self.kpte_clear_flush(self.pte_of(idx), vaddr)

    def _clear_for_debug(self, idx: int, vaddr: int) -> None:
        """2.6.12 to 2.6.18 with DEBUG_HIGHMEM; without it the entry stays until the next map."""
        if vaddr < self._layout.FIXADDR_START:
            return
        self._bug_unless_own(idx, vaddr)
        self.kpte_clear_flush(self.pte_of(idx), vaddr)

    def _bug_unless_own(self, idx: int, vaddr: int) -> None:
        if vaddr != self.vaddr_of(idx):
            raise self._context.bug_on(
                "kunmap_atomic",
                "vaddr != __fix_to_virt(FIX_KMAP_BEGIN+idx)",
                vaddr=vaddr,
                own=self.vaddr_of(idx),
            )

    # debug_kmap_atomic

    def debug_kmap_atomic(self, km_type: int | None) -> None:
        """Warn about a type that does not fit the context (2.6.25 to 2.6.36, DEBUG_HIGHMEM).

        Three independent rules, each a WARN_ON(1) and one off the budget of ten; up to
        2.6.31 the budget is unsigned and, once it is passed within a call, never stops.
        """
        assert km_type is not None
        if not self._checks:
            return
        signed = self._features.context_check_new_types
        if self.warn_count < 0 if signed else self.warn_count == 0:
            return
        name = KM_TYPES[km_type]
        if self._context.in_interrupt() and not self._allowed_in_interrupt(name):
            self._complain("type not allowed in this interrupt context", name)
        if why := self._needs_more_atomic(name):
            self._complain(why, name)
        if self._kdb and name == "KM_KDB" and not self.kgdb_active:
            self._complain("KM_KDB while kgdb is not active", name)

    def _complain(self, condition: str, name: str) -> None:
        self._context.warn_on("debug_kmap_atomic", condition, type=name)
        self.warn_count -= 1
        if not self._features.context_check_new_types:
            self.warn_count &= 0xFFFFFFFF

    def _allowed_in_interrupt(self, name: str) -> bool:
        context, new = self._context, self._features.context_check_new_types
        if new and context.in_nmi():
            return name in _NMI
        if context.in_irq():
            return name in _IRQ or (new and name == "KM_IRQ_PTE")
        return context.irqs_disabled() or name in _SOFTIRQ

    def _needs_more_atomic(self, name: str) -> str:
        context, new = self._context, self._features.context_check_new_types
        if name in _IRQ or (new and name in _NMI | {"KM_IRQ_PTE"}):
            return "" if context.irqs_disabled() else "type needs interrupts off"
        if name in {"KM_SOFTIRQ0", "KM_SOFTIRQ1"}:
            safe = context.in_interrupt() or context.irqs_disabled()
            return "" if safe else "type needs a soft interrupt or interrupts off"
        return ""
