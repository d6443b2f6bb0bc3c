"""Page-table entries as the kernel makes, writes and reads them, lazy MMU mode included.

An entry is addressed by the physical address that holds it.  The kernel itself goes
through the direct map (``kmap_pte`` is a linear address there), which is the same place.
Sources: arch/x86/include/asm/pgtable.h, pgtable-2level.h, pgtable-3level.h.
"""

from __future__ import annotations

from highmem.kernel.context import Context
from highmem.kernel.profile import Profile
from highmem.machine.memory import PhysicalMemory
from highmem.machine.paging import ACCESSED, DIRTY, GLOBAL, NX, PRESENT, RW

__all__ = ["PAGE_SHIFT", "PAGE_SIZE", "PageTables"]

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT


class PageTables:
    """Reads and writes entries of one kernel, and counts nothing else.

    ``kmap_prot`` is what every window is mapped with (PAGE_KERNEL; up to 4.16 it may hold bits
    that the machine lacks), ``supported_pte_mask`` the bits that a present entry may have.
    """

    __slots__ = (
        "_context",
        "_inverts",
        "_lazy_in_interrupt",
        "_memory",
        "_none_mask",
        "_paravirt",
        "_pti",
        "entry_size",
        "frame_mask",
        "kmap_prot",
        "pae",
        "supported_pte_mask",
    )

    def __init__(self, profile: Profile, memory: PhysicalMemory, context: Context) -> None:
        features = profile.features
        self._memory = memory
        self._context = context
        self.pae = profile.pae
        self.entry_size = 8 if profile.pae else 4
        self.frame_mask = 0x000FFFFFFFFFF000 if profile.pae else 0xFFFFF000
        word = (1 << (8 * self.entry_size)) - 1
        mask = word if profile.nx else word & ~NX
        if not profile.pge:
            mask &= ~GLOBAL
        # From 4.17 on isolation takes GLOBAL out of PAGE_KERNEL, before out of every entry.
        default_mask = mask & ~GLOBAL if profile.pti else mask
        self.supported_pte_mask = mask if features.default_kernel_pte_mask else default_mask
        page_kernel = (PRESENT | RW | ACCESSED | DIRTY | GLOBAL | NX) & word
        self.kmap_prot = (
            page_kernel & default_mask if features.default_kernel_pte_mask else page_kernel
        )
        ignored = ACCESSED | DIRTY if features.pte_none_ignores_accessed_dirty and self.pae else 0
        self._none_mask = ~ignored
        self._inverts = self.pae and features.inverts_absent_frames
        self._paravirt = profile.paravirt_lazy
        self._lazy_in_interrupt = features.lazy_mode_in_interrupt
        self._pti = profile.pti

    # Values.

    def pfn_pte(self, pfn: int, prot: int) -> int:
        """The entry that maps frame *pfn* with *prot*, unsupported bits removed if present.

        On PAE from 4.18 a not-present, non-zero *prot* gets its frame bits inverted (L1TF).
        """
        if prot & PRESENT:
            return (pfn << PAGE_SHIFT) & self.frame_mask | (prot & self.supported_pte_mask)
        entry = (pfn << PAGE_SHIFT) & self.frame_mask
        if self._inverts and prot:
            entry ^= self.frame_mask
        return entry | prot

    def pte_none(self, entry: int) -> bool:
        """Whether *entry* counts as empty."""
        return not entry & self._none_mask

    def pte_pfn(self, entry: int) -> int:
        """The frame that *entry* maps."""
        frame = entry & self.frame_mask
        if self._inverts and entry and not entry & PRESENT:
            frame ^= self.frame_mask
        return frame >> PAGE_SHIFT

    # Entries in memory.

    def read(self, where: int) -> int:
        """The entry at physical address *where*, as memory holds it now."""
        return self._memory.read64(where) if self.pae else self._memory.read32(where)

    def set_pte(self, where: int, entry: int) -> None:
        """Write *entry*; in lazy MMU mode under a hypervisor it is queued instead."""
        if self._paravirt and self._lazy():
            self._context.this.lazy_queue.append(("set", where, entry))
        else:
            self._write(where, entry)

    def pte_clear(self, where: int) -> None:
        """Write 0; queued likewise."""
        self.set_pte(where, 0)

    def _write(self, where: int, entry: int) -> None:
        """PAE entries are two words: set high then low, cleared low then high, so that no
        moment shows a present entry with a wrong half (native_set_pte, native_pte_clear)."""
        write = self._context.this.cpu.write_entry32
        if not self.pae:
            write(where, entry)
        elif entry:
            write(where + 4, entry >> 32)
            write(where, entry & 0xFFFFFFFF)
        else:
            write(where, 0)
            write(where + 4, 0)

    def flush_tlb_one_kernel(self, vaddr: int) -> None:
        """INVLPG on this CPU only; with PTI other address spaces are marked for later."""
        this = self._context.this
        if self._paravirt and self._lazy():
            this.lazy_queue.append(("invlpg", vaddr, 0))
            return
        this.cpu.invlpg(vaddr)
        if self._pti:
            this.invalidate_other = True

    # Lazy MMU mode.

    def _lazy(self) -> bool:
        this = self._context.this
        return this.lazy_mode and (self._lazy_in_interrupt or not self._context.in_interrupt())

    def arch_enter_lazy_mmu_mode(self) -> None:
        """Entries may be queued from now on; nothing on bare hardware."""
        if self._paravirt:
            self._context.this.lazy_mode = True

    def arch_leave_lazy_mmu_mode(self) -> None:
        """What was queued takes effect, and entries are written at once again."""
        if self._paravirt:
            self._drain()
            self._context.this.lazy_mode = False

    def arch_flush_lazy_mmu_mode(self) -> None:
        """What was queued takes effect; the mode stays."""
        if self._paravirt and self._lazy():
            self._drain()

    def _drain(self) -> None:
        this = self._context.this
        queue, this.lazy_queue = this.lazy_queue, []
        for what, where, value in queue:
            if what == "set":
                self._write(where, value)
            else:
                this.cpu.invlpg(where)
