"""Temporary mappings: what the three eras share, and the index stack of 2.6.37 to 5.10.

A *window* is one page-table entry below ``kmap_pte``; slot s of CPU c is entry
``kmap_pte - (s + S*c)`` and address ``__fix_to_virt(FIX_KMAP_BEGIN + s + S*c)``, S being
KM_TYPE_NR or KM_MAX_IDX.  Each era is one class with the same interface; every function
does its steps in the kernel's order, its flaws included, since what a failed check leaves
behind is what a kernel person has to understand.

Sources: arch/x86/mm/highmem_32.c, arch/x86/mm/iomap_32.c, include/linux/highmem.h.
"""

from __future__ import annotations

from typing import Any, Protocol

from highmem.errors import UsageError
from highmem.kernel.bug import NotAnAddressError
from highmem.kernel.context import Context
from highmem.kernel.layout import Layout
from highmem.kernel.pages import Page, PageAddresses
from highmem.kernel.pgtable import PAGE_SHIFT, PageTables
from highmem.kernel.profile import Profile

__all__ = ["StackWindows", "TemporaryMappings", "WindowBase", "refuse_page"]

PAGE_MASK = 0xFFFFF000


def refuse_page(address: object, function: str, refuses: bool = True) -> int:
    """The address as a number, or NotAnAddressError for a ``struct page *``.

    Kernels up to 2.6.35 do not check (*refuses* false): there the pointer's value is used.
    """
    if isinstance(address, Page):
        if refuses:
            raise NotAnAddressError(function)
        return address.address
    if not isinstance(address, int):
        raise NotAnAddressError(function)
    return address & 0xFFFFFFFF


class TemporaryMappings(Protocol):
    """What every era offers.  *km_type* is the typed era's; the others ignore it."""

    def kmap_atomic_prot(self, page: Page, prot: int, km_type: int | None = None) -> int:
        """Map a page; returns the address."""

    def kmap_atomic_prot_pfn(self, pfn: int, prot: int, km_type: int | None = None) -> int:
        """Map a frame; returns the address."""

    def kunmap_atomic(self, address: object, km_type: int | None = None) -> None:
        """Undo a mapping, given its address."""

    def depth(self) -> int:
        """How many windows are open where this era counts them."""


class WindowBase:
    """The address rule and the entries of windows, shared by the eras."""

    __slots__ = (
        "_addresses",
        "_context",
        "_debug",
        "_features",
        "_first",
        "_kmap_pte",
        "_last",
        "_layout",
        "_per_cpu",
        "_tables",
        "kmap_pte",
    )

    def __init__(
        self,
        profile: Profile,
        layout: Layout,
        context: Context,
        tables: PageTables,
        addresses: PageAddresses,
        kmap_pte: int,
    ) -> None:
        self._features = profile.features
        self._debug = profile.debug_highmem
        self._layout = layout
        self._context = context
        self._tables = tables
        self._addresses = addresses
        self._per_cpu = profile.windows_per_cpu
        self.kmap_pte = kmap_pte
        """Linear address of the entry of FIX_KMAP_BEGIN."""
        self._kmap_pte = kmap_pte - layout.PAGE_OFFSET
        self._first = layout.fix_to_virt(layout.FIX_KMAP_BEGIN)
        self._last = layout.fix_to_virt(layout.FIX_KMAP_END)

    def pte_of(self, idx: int) -> int:
        """Physical address of the entry ``kmap_pte - idx``; *idx* counts from FIX_KMAP_BEGIN
        and may leave the area on either side, as it may in the kernel."""
        return self._kmap_pte - idx * self._tables.entry_size

    def vaddr_of(self, idx: int) -> int:
        """``__fix_to_virt(FIX_KMAP_BEGIN + idx)``."""
        return self._first - (idx << PAGE_SHIFT)

    def in_windows(self, vaddr: int) -> bool:
        """Whether page-aligned *vaddr* is a window of any CPU."""
        return self._last <= vaddr <= self._first

    def kpte_clear_flush(self, where: int, vaddr: int) -> None:
        """Clear the entry at *where*, then flush the TLB entry of *vaddr* on this CPU: two
        arguments that a mis-ordered unmap makes disagree."""
        self._tables.pte_clear(where)
        self._tables.flush_tlb_one_kernel(vaddr)

    def kmap_atomic_to_page(self, address: int) -> int:
        """The frame behind *address*: linear below FIXADDR_START, else from the window's entry.

        Exists up to 4.2.  For a permanent window it is wrong, as in the kernel: those lie
        below FIXADDR_START and are taken for low memory.
        """
        if not self._features.has_kmap_atomic_to_page:
            raise UsageError("this kernel has no kmap_atomic_to_page() (it went in 4.3)")
        layout = self._layout
        if address < layout.FIXADDR_START:
            return (address - layout.PAGE_OFFSET) >> PAGE_SHIFT
        if address >= layout.FIXADDR_TOP:
            raise self._context.bug_on(
                "virt_to_fix", "vaddr >= FIXADDR_TOP || vaddr < FIXADDR_START", vaddr=address
            )
        idx = layout.virt_to_fix(address) - layout.FIX_KMAP_BEGIN
        return self._tables.pte_pfn(self._tables.read(self.pte_of(idx)))


class StackWindows(WindowBase):
    """2.6.37 to 5.10: slot = a per-CPU counter, ``__kmap_atomic_idx``.

    The counter is the number of live windows; its push and pop check nothing without
    DEBUG_HIGHMEM: one map too many takes slot 0 of the next CPU, an unmap at depth 0 clears
    the entry before slot 0.
    """

    __slots__ = ("_map_function", "_unmap_function")

    def __init__(self, profile: Profile, *rooms: Any) -> None:
        super().__init__(profile, *rooms)
        split = profile.features.inline_front_half
        self._map_function = "kmap_atomic_high_prot" if split else "kmap_atomic_prot"
        self._unmap_function = "kunmap_atomic_high" if split else "__kunmap_atomic"

    # include/linux/highmem.h

    def kmap_atomic_idx_push(self) -> int:
        """The slot for a new window; the counter goes up by one."""
        this = self._context.this
        idx = this.kmap_atomic_idx
        this.kmap_atomic_idx = idx + 1
        if self._debug:
            if self._context.in_irq() and not self._context.irqs_disabled():
                self._context.warn_on_once("kmap_atomic_idx_push", "in_irq() && !irqs_disabled()")
            strict = self._features.overflow_check == "greater-or-equal"
            if idx > self._per_cpu or (strict and idx == self._per_cpu):
                sign = ">=" if strict else ">"
                raise self._context.bug_on(
                    "kmap_atomic_idx_push", f"idx {sign} KM_TYPE_NR", idx=idx
                )
        return idx

    def kmap_atomic_idx(self) -> int:
        """The slot of the top window, -1 if there is none."""
        return self._context.this.kmap_atomic_idx - 1

    def kmap_atomic_idx_pop(self) -> None:
        """The counter goes down by one."""
        this = self._context.this
        this.kmap_atomic_idx -= 1
        if self._debug and this.kmap_atomic_idx < 0:
            raise self._context.bug_on("kmap_atomic_idx_pop", "idx < 0", idx=this.kmap_atomic_idx)

    def depth(self) -> int:
        """How many windows are live on this CPU."""
        return self._context.this.kmap_atomic_idx

    # arch/x86/mm/highmem_32.c

    def kmap_atomic_prot(self, page: Page, prot: int, km_type: int | None = None) -> int:
        """Map *page* for this CPU until :meth:`kunmap_atomic`; returns the address.

        Page faults (and preemption) are off from here on, for a low page too.
        """
        if self._features.explicit_preempt_disable:
            self._context.preempt_disable()
        self._context.pagefault_disable()
        if not page.highmem:
            return self._layout.PAGE_OFFSET + (page.pfn << PAGE_SHIFT)
        return self.kmap_atomic_high_prot(page, prot)

    def kmap_atomic_high_prot(self, page: Page, prot: int) -> int:
        """The second half for a high page (a function of its own from 5.8 on)."""
        idx = self.kmap_atomic_idx_push() + self._context.this.kmap_first
        vaddr = self.vaddr_of(idx)
        where = self.pte_of(idx)
        entry = self._tables.read(where)
        if not self._tables.pte_none(entry):
            raise self._context.bug_on(
                self._map_function, "!pte_none(*(kmap_pte-idx))", vaddr=vaddr, pte=entry
            )
        self._tables.set_pte(where, self._tables.pfn_pte(page.pfn, prot))
        if self._features.lazy_flush_on_map:
            self._tables.arch_flush_lazy_mmu_mode()
        return vaddr

    def kmap_atomic_prot_pfn(self, pfn: int, prot: int, km_type: int | None = None) -> int:
        """Map a frame that need not have a struct page; an entry in use is overwritten."""
        if self._features.explicit_preempt_disable:
            self._context.preempt_disable()
        self._context.pagefault_disable()
        idx = self.kmap_atomic_idx_push() + self._context.this.kmap_first
        self._tables.set_pte(self.pte_of(idx), self._tables.pfn_pte(pfn, prot))
        if self._features.lazy_flush_on_pfn_map:
            self._tables.arch_flush_lazy_mmu_mode()
        return self.vaddr_of(idx)

    def kunmap_atomic(self, address: object, km_type: int | None = None) -> None:
        """Undo the latest :meth:`kmap_atomic_prot` of this CPU, whose address this must be."""
        self.kunmap_atomic_high(refuse_page(address, "kunmap_atomic"))
        self._context.pagefault_enable()
        if self._features.explicit_preempt_disable:
            self._context.preempt_enable()

    def kunmap_atomic_high(self, kvaddr: int) -> None:
        """``__kunmap_atomic`` (``kunmap_atomic_high`` from 5.8 on) without the enabling.

        Which entry is cleared comes from the counter, which TLB entry is flushed from the
        address; only DEBUG_HIGHMEM compares them.
        """
        vaddr = kvaddr & PAGE_MASK
        if self.in_windows(vaddr):
            self._clear_top(vaddr, lazy_flush=self._features.lazy_flush_on_unmap)
        elif self._debug:
            function = self._unmap_function
            if vaddr < self._layout.PAGE_OFFSET:
                raise self._context.bug_on(function, "vaddr < PAGE_OFFSET", vaddr=vaddr)
            if vaddr >= self._layout.high_memory:
                raise self._context.bug_on(function, "vaddr >= high_memory", vaddr=vaddr)

    def iounmap_atomic(self, kvaddr: object) -> None:
        """Undo ``iomap_atomic_prot_pfn``: neither a lazy flush nor a check of other addresses."""
        vaddr = refuse_page(kvaddr, "iounmap_atomic", False) & PAGE_MASK
        if self.in_windows(vaddr):
            self._clear_top(vaddr, lazy_flush=False)
        self._context.pagefault_enable()
        if self._features.explicit_preempt_disable:
            self._context.preempt_enable()

    def _clear_top(self, vaddr: int, *, lazy_flush: bool) -> None:
        idx = self.kmap_atomic_idx() + self._context.this.kmap_first
        if self._debug and vaddr != self.vaddr_of(idx):
            self._context.warn_on_once(
                self._unmap_function,
                "vaddr != __fix_to_virt(FIX_KMAP_BEGIN + idx)",
                vaddr=vaddr,
                top=self.vaddr_of(idx),
            )
        self.kpte_clear_flush(self.pte_of(idx), vaddr)
        self.kmap_atomic_idx_pop()
        if lazy_flush:
            self._tables.arch_flush_lazy_mmu_mode()
