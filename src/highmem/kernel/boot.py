"""Page tables of a booting kernel: the direct map, the fixmap, the permanent windows.

What ``paging_init`` leaves (arch/x86/mm/init_32.c): ``swapper_pg_dir`` with low memory
mapped at PAGE_OFFSET (large pages inside, 4 KiB at the edges), the fixmap's page tables one
after the other so that ``kmap_pte`` is linear, and the one page table of the pkmap area.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from highmem.kernel.layout import Layout
from highmem.kernel.pgtable import PAGE_SHIFT, PAGE_SIZE
from highmem.kernel.profile import Profile
from highmem.machine.memory import PhysicalMemory
from highmem.machine.paging import ACCESSED, DIRTY, GLOBAL, NX, PRESENT, PSE, RW, USER

__all__ = ["BootTables", "build_tables"]

KERNEL_START = 0x1000000
"""Where the kernel image lies (CONFIG_PHYSICAL_START); its tables follow from here."""


class BootTables(NamedTuple):
    """Where the tables are (physical addresses)."""

    swapper_pg_dir: int
    cr3: int
    fixmap_tables: int
    kmap_pte: int
    """Physical address of the entry of FIX_KMAP_BEGIN."""
    pkmap_page_table: int
    frames: range
    """The frames that the tables take."""


class _Builder:
    """Writes entries before paging is on, so straight into memory."""

    def __init__(self, profile: Profile, layout: Layout, memory: PhysicalMemory) -> None:
        self.layout = layout
        self.memory = memory
        self.pae = profile.pae
        self.next_table = min(KERNEL_START, (layout.max_low_pfn << PAGE_SHIFT) // 4) & -PAGE_SIZE
        self.size = 8 if profile.pae else 4
        self.per_table = PAGE_SIZE // self.size
        self.global_bit = GLOBAL if profile.pge and not profile.pti else 0
        self.nx = NX if profile.pae and profile.nx else 0
        # Seen live: directory entries are _KERNPG_TABLE (0x063) on two-level tables and
        # _PAGE_TABLE (0x067) on PAE.
        self.table_flags = PRESENT | RW | ACCESSED | DIRTY | (USER if profile.pae else 0)
        self.root = self.alloc_tables(1)
        self.pmds = self.alloc_tables(4) if profile.pae else 0
        if profile.pae:
            for index in range(4):
                self.put(self.root + index * 8, (self.pmds + index * PAGE_SIZE) | PRESENT)

    def alloc_tables(self, count: int) -> int:
        """*count* zeroed pages in a row, each a page table."""
        where = self.next_table
        self.next_table += count * PAGE_SIZE
        self.memory.write(where, bytes(count * PAGE_SIZE))
        return where

    def put(self, where: int, entry: int) -> None:
        if self.pae:
            self.memory.write64(where, entry)
        else:
            self.memory.write32(where, entry)

    def get(self, where: int) -> int:
        return self.memory.read64(where) if self.pae else self.memory.read32(where)

    def pmd_of(self, vaddr: int) -> int:
        """Where the entry of *vaddr* stands that points to a page table (or a large page)."""
        if self.pae:
            return self.pmds + (vaddr >> 21) * 8
        return self.root + (vaddr >> 22) * 4

    def map_pages(self, vaddr: int, entry: int, count: int) -> None:
        """Map as many pages, of one page table, to frames that follow each other."""
        pmd = self.get(self.pmd_of(vaddr))
        if not pmd & PRESENT:
            pmd = self.alloc_tables(1) | self.table_flags
            self.put(self.pmd_of(vaddr), pmd)
        index = (vaddr >> PAGE_SHIFT) % self.per_table
        entries = range(entry, entry + count * PAGE_SIZE, PAGE_SIZE)
        packed = struct.pack(f"<{count}{'Q' if self.pae else 'I'}", *entries)
        self.memory.write((pmd & 0xFFFFF000) + index * self.size, packed)

    def direct_map(self) -> None:
        """PAGE_KERNEL (0x163), or with PSE PAGE_KERNEL_LARGE (0x1e3), for each low frame."""
        layout = self.layout
        low_end = layout.max_low_pfn << PAGE_SHIFT
        flags = PRESENT | RW | ACCESSED | DIRTY | self.global_bit | self.nx
        phys = 0
        while phys < low_end:
            vaddr = layout.PAGE_OFFSET + phys
            whole = phys % layout.PMD_SIZE == 0 and phys + layout.PMD_SIZE <= low_end
            if whole and phys:
                self.put(self.pmd_of(vaddr), phys | flags | PSE)
                phys += layout.PMD_SIZE
            else:
                behind = min(low_end, (phys & -layout.PMD_SIZE) + layout.PMD_SIZE)
                self.map_pages(vaddr, phys | flags, (behind - phys) >> PAGE_SHIFT)
                phys = behind

    def fixmap(self) -> tuple[int, int]:
        """The fixmap's page tables and the entry of FIX_KMAP_BEGIN, physical addresses.

        ``page_table_kmap_check`` makes them follow one another; ``kmap_pte - idx`` needs it.
        """
        layout = self.layout
        bottom = min(layout.FIXADDR_TOT_START, layout.fix_to_virt(layout.FIX_KMAP_END))
        first = bottom & -layout.PMD_SIZE
        count = -(-(0x100000000 - first) // layout.PMD_SIZE)
        tables = self.alloc_tables(count)
        for index in range(count):
            where = self.pmd_of(first + index * layout.PMD_SIZE)
            self.put(where, (tables + index * PAGE_SIZE) | self.table_flags)
        begin = layout.fix_to_virt(layout.FIX_KMAP_BEGIN)
        return tables, tables + ((begin - first) >> PAGE_SHIFT) * self.size

    def pkmap(self) -> int:
        """The page table of the permanent windows: one directory entry, all of it."""
        table = self.alloc_tables(1)
        self.put(self.pmd_of(self.layout.PKMAP_BASE), table | self.table_flags)
        return table


def build_tables(profile: Profile, layout: Layout, memory: PhysicalMemory) -> BootTables:
    """Lay out a booted kernel's page tables in *memory*."""
    builder = _Builder(profile, layout, memory)
    builder.direct_map()
    tables, kmap_pte = builder.fixmap()
    pkmap = builder.pkmap()
    return BootTables(
        swapper_pg_dir=builder.root,
        cr3=builder.root,
        fixmap_tables=tables,
        kmap_pte=kmap_pte,
        pkmap_page_table=pkmap,
        frames=range(builder.root >> PAGE_SHIFT, builder.next_table >> PAGE_SHIFT),
    )
