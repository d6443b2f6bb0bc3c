"""``struct page``, zones, and how a page gets an address.

Sources: include/linux/mm.h and mmzone.h (page flags, page_to_pfn with FLATMEM),
mm/highmem.c (``page_address`` and its hash).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from highmem.kernel.context import Context
from highmem.kernel.layout import Layout
from highmem.kernel.pgtable import PAGE_SHIFT
from highmem.kernel.profile import Profile

__all__ = ["Page", "PageAddresses", "Pages", "Zone"]

ZONE_SHIFT = 30
"""Where the zone's number stands in ``page->flags`` on i386 (bits 31:30)."""
DMA_PFNS = 4096
"""ZONE_DMA is the first 16 MiB."""
PA_HASH_ORDER = 7
"""``page_address_htable`` has 1 << 7 buckets."""


class Zone(enum.IntEnum):
    """The zones of i386, with the numbers that page flags hold."""

    DMA = 0
    NORMAL = 1
    HIGHMEM = 2
    MOVABLE = 3


class Page(NamedTuple):
    """A ``struct page``: the page frame ``pfn``, described at ``address`` in mem_map."""

    pfn: int
    flags: int
    address: int
    """Where the struct stands: mem_map + pfn * sizeof(struct page)."""

    @property
    def zone(self) -> Zone:
        """The zone that the flags say."""
        return Zone(self.flags >> ZONE_SHIFT)

    @property
    def highmem(self) -> bool:
        """``PageHighMem(page)``: in ZONE_HIGHMEM, or in a MOVABLE zone made from it."""
        return self.flags >> ZONE_SHIFT >= Zone.HIGHMEM

    def __repr__(self) -> str:
        return f"Page(pfn={self.pfn:#x}, zone={self.zone.name})"


class Pages:
    """mem_map and a page allocator: ``page(pfn)``, ``alloc_page``, ``free_page``.

    Page structs are made when asked for; the kernel's own frames (*reserved*, mem_map and the
    first MiB) are never handed out.
    """

    __slots__ = ("_allocated", "_free", "_layout", "_next", "_pages", "mem_map", "page_size")

    def __init__(self, layout: Layout, struct_size: int, reserved: range) -> None:
        self._layout = layout
        self.page_size = struct_size
        # At the top of low memory, where memblock puts it when nothing came before it.
        room = -(-layout.max_pfn // 1024) * 1024 * struct_size
        self.mem_map = (layout.high_memory - room) & ~0xFFF
        self._pages: dict[int, Page] = {}
        low_end = (self.mem_map - layout.PAGE_OFFSET) >> PAGE_SHIFT
        dma_end = min(DMA_PFNS, reserved.start, low_end)
        self._next = {
            Zone.DMA: (min(256, dma_end), dma_end),
            Zone.NORMAL: (min(max(DMA_PFNS, reserved.stop), low_end), low_end),
            Zone.HIGHMEM: (layout.highstart_pfn, layout.highend_pfn),
        }
        self._free: dict[Zone, list[int]] = {zone: [] for zone in self._next}
        self._allocated: set[int] = set()

    def page(self, pfn: int) -> Page:
        """``pfn_to_page(pfn)``; ValueError beyond the machine's memory."""
        found = self._pages.get(pfn)
        if found is None:
            if not 0 <= pfn < self._layout.max_pfn:
                raise ValueError(
                    f"page frame {pfn:#x} is not in RAM (max_pfn {self._layout.max_pfn:#x})"
                )
            flags = self.zone_of(pfn) << ZONE_SHIFT
            found = self._pages[pfn] = Page(pfn, flags, self.mem_map + pfn * self.page_size)
        return found

    def zone_of(self, pfn: int) -> Zone:
        """DMA below 16 MiB, HIGHMEM from max_low_pfn on, NORMAL between."""
        if pfn < DMA_PFNS:
            return Zone.DMA
        return Zone.NORMAL if pfn < self._layout.max_low_pfn else Zone.HIGHMEM

    def page_at(self, address: int) -> Page:
        """The page whose struct stands at *address*; ValueError if none does."""
        pfn, rest = divmod(address - self.mem_map, self.page_size)
        if rest:
            raise ValueError(f"{address:#x} is not the address of a struct page")
        return self.page(pfn)

    def alloc_page(self, *, highmem: bool = True) -> Page:
        """A free page, from high memory if wanted and there, else from low memory.

        MemoryError when the zones that may be used are empty.
        """
        zones = [Zone.NORMAL, Zone.DMA]
        for zone in [Zone.HIGHMEM, *zones] if highmem else zones:
            if self._free[zone]:
                pfn = self._free[zone].pop()
            else:
                pfn, end = self._next[zone]
                if pfn >= end:
                    continue
                self._next[zone] = (pfn + 1, end)
            self._allocated.add(pfn)
            return self.page(pfn)
        raise MemoryError("no free page in " + ("any zone" if highmem else "low memory"))

    def free_page(self, page: Page) -> None:
        """Give *page* back; ValueError if it is not allocated."""
        if page.pfn not in self._allocated:
            raise ValueError(f"{page!r} is not allocated")
        self._allocated.remove(page.pfn)
        self._free[page.zone].append(page.pfn)


@dataclass(slots=True, eq=False)
class PageAddressMap:
    """``struct page_address_map``: one entry of the hash."""

    page: Page | None = None
    virtual: int = 0


class PageAddresses:
    """``page_address()``: linear for a low page, from the hash for one that is kmap()ed.

    The hash has 128 buckets; an entry comes from a free list (up to 3.2) or is the one of
    its permanent window (later).
    """

    __slots__ = ("_context", "_layout", "_maps", "_multiplier", "_pool", "htable")

    def __init__(self, profile: Profile, layout: Layout, context: Context) -> None:
        self._layout = layout
        self._context = context
        self._multiplier = profile.features.hash_multiplier
        self._maps = [PageAddressMap() for _ in range(layout.LAST_PKMAP)]
        self._pool = list(self._maps) if profile.features.address_map_pool else None
        self.htable: list[list[PageAddressMap]] = [[] for _ in range(1 << PA_HASH_ORDER)]

    def bucket(self, page: Page) -> int:
        """``hash_ptr(page, PA_HASH_ORDER)``: the top seven bits of a 32-bit product."""
        return ((page.address * self._multiplier) & 0xFFFFFFFF) >> (32 - PA_HASH_ORDER)

    def page_address(self, page: Page) -> int | None:
        """The kernel address of *page*, or None (NULL) for a high page without a window."""
        if not page.highmem:
            return self._layout.PAGE_OFFSET + (page.pfn << PAGE_SHIFT)
        for entry in self.htable[self.bucket(page)]:
            if entry.page is page or entry.page == page:
                return entry.virtual
        return None

    def set_page_address(self, page: Page, vaddr: int | None) -> None:
        """Enter (or with None remove) the address of a high page's permanent window."""
        if not page.highmem:
            raise self._context.bug_on("set_page_address", "!PageHighMem(page)", pfn=page.pfn)
        bucket = self.htable[self.bucket(page)]
        if vaddr is not None:
            entry = self._entry_for(vaddr)
            entry.page, entry.virtual = page, vaddr
            bucket.append(entry)
            return
        for position, entry in enumerate(bucket):
            if entry.page == page:
                del bucket[position]
                if self._pool is not None:
                    self._pool.append(entry)
                return

    def _entry_for(self, vaddr: int) -> PageAddressMap:
        if self._pool is None:
            return self._maps[self._layout.pkmap_nr(vaddr)]
        if not self._pool:
            raise self._context.bug_on("set_page_address", "list_empty(&page_address_pool)")
        return self._pool.pop(0)

    def __len__(self) -> int:
        """How many pages are in the hash."""
        return sum(map(len, self.htable))
