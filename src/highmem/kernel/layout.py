"""The kernel's address space on 32-bit x86: every constant, derived as the kernel derives it.

Addresses are unsigned 32-bit integers, page frame numbers count 4 KiB pages.  Attributes carry
the kernel's own names.  A temporary window's address follows from one rule in all eras:
``FIXADDR_TOP - ((FIX_KMAP_BEGIN + slot + windows_per_cpu * cpu) << 12)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from highmem.kernel.fixmap import END_OF_FIXED, END_OF_PERMANENT, FixedAddress, fixed_addresses
from highmem.kernel.layout_areas import place_areas, top_of_fixmap, vmalloc_start
from highmem.kernel.layout_geometry import PAGE_SHIFT, PAGE_SIZE, Geometry
from highmem.kernel.layout_ram import (
    RamRange,
    Zone,
    memparse,
    pc_ram,
    ram_ranges,
    split_memory,
)

if TYPE_CHECKING:
    from highmem.kernel.layout_regions import Region, Term

__all__ = ["Layout", "Zone", "memparse", "pc_ram"]

_PAGE_MASK = ~(PAGE_SIZE - 1)
_ADDRESS_MASK = 0xFFFF_FFFF


class Layout(NamedTuple):
    """One kernel's address space on one machine.  Made by :meth:`of`."""

    geometry: Geometry
    windows_per_cpu: int
    """KM_TYPE_NR (up to 5.10) or KM_MAX_IDX."""
    nr_cpus: int
    """NR_CPUS as compiled: the window area has room for these, present or not."""
    pae: bool
    highmem: bool
    """CONFIG_HIGHMEM."""
    ram: tuple[RamRange, ...]
    """The RAM that it was computed for, in bytes."""
    fixed: tuple[FixedAddress, ...]
    """``enum fixed_addresses``."""

    PAGE_OFFSET: int
    FIXADDR_TOP: int
    FIXADDR_START: int
    FIXADDR_TOT_START: int
    """The name of 4.15 and later; FIXADDR_BOOT_START up to 3.18."""
    FIX_KMAP_BEGIN: int
    FIX_KMAP_END: int
    """FIX_KMAP_BEGIN - 1 in a kernel that has no windows."""
    CPU_ENTRY_AREA_BASE: int | None
    LDT_BASE_ADDR: int | None
    PKMAP_BASE: int
    """Meaningless without CONFIG_HIGHMEM."""
    LAST_PKMAP: int
    PMD_SIZE: int
    """Bytes that one page table maps: 4 MiB, or 2 MiB with PAE."""
    VMALLOC_START: int
    VMALLOC_END: int
    VMALLOC_OFFSET: int
    VMALLOC_RESERVE: int
    MAXMEM: int
    """Bytes of RAM that can be mapped directly."""
    max_pfn: int
    max_low_pfn: int
    high_memory: int
    """The virtual address at which low memory ends."""
    highstart_pfn: int
    highend_pfn: int
    """Equal to highstart_pfn if there is no high memory."""
    zones: tuple[Zone, ...]

    # They follow from the others, but are asked for with every event of a trace.
    window_first: int
    """The address of slot 0 of CPU 0, the highest of all windows."""
    window_low: int
    """The address of the last slot of the last CPU."""
    window_end: int
    """Where the windows end."""
    pkmap_end: int
    """Where the permanent windows end; 0 without CONFIG_HIGHMEM."""

    @classmethod
    def of(
        cls,
        geometry: Geometry,
        *,
        windows_per_cpu: int,
        nr_cpus: int,
        pae: bool,
        ram: int | Sequence[RamRange],
        highmem: bool = True,
    ) -> Layout:
        """Derive every constant.

        *ram* is a size in bytes (one piece from address 0) or the ranges that the firmware
        reports, see :func:`pc_ram`.  Raises ProfileError if the configuration contradicts
        itself, UsageError for RAM that makes no sense.
        """
        pmd_size, last_pkmap = (2 << 20, 512) if pae else (4 << 20, 1024)
        fixed = fixed_addresses(
            geometry, windows_per_cpu=windows_per_cpu, nr_cpus=nr_cpus, pae=pae, highmem=highmem
        )
        marks = _fixmap_marks(fixed, top_of_fixmap(geometry, pmd_size))
        areas = place_areas(
            geometry,
            start=marks.FIXADDR_START,
            tot_start=marks.FIXADDR_TOT_START,
            pmd_size=pmd_size,
            last_pkmap=last_pkmap,
            nr_cpus=nr_cpus,
            highmem=highmem,
        )
        ranges = ram_ranges(ram)
        memory = split_memory(
            ranges, MAXMEM=areas.MAXMEM, pae=pae, highmem=highmem,
            highmem_param=geometry.highmem_param,
        )  # fmt: skip
        high_memory = geometry.page_offset + (memory.max_low_pfn << PAGE_SHIFT)
        first = marks.FIXADDR_TOP - (marks.FIX_KMAP_BEGIN << PAGE_SHIFT)
        return cls(
            **marks._asdict(),
            **areas._asdict(),
            **memory._asdict(),
            geometry=geometry,
            windows_per_cpu=windows_per_cpu,
            nr_cpus=nr_cpus,
            pae=pae,
            highmem=highmem,
            ram=ranges,
            fixed=fixed,
            PAGE_OFFSET=geometry.page_offset,
            LAST_PKMAP=last_pkmap,
            PMD_SIZE=pmd_size,
            VMALLOC_START=vmalloc_start(geometry, high_memory, areas.VMALLOC_END),
            VMALLOC_OFFSET=geometry.vmalloc_offset,
            high_memory=high_memory,
            window_first=first,
            window_low=marks.FIXADDR_TOP - (marks.FIX_KMAP_END << PAGE_SHIFT),
            window_end=first + PAGE_SIZE,
            pkmap_end=areas.PKMAP_BASE + (last_pkmap << PAGE_SHIFT) if highmem else 0,
        )

    def __repr__(self) -> str:
        """All but the long table of the fixmap."""
        shown = (f"{n}={value!r}" for n, value in self._asdict().items() if n != "fixed")
        return f"Layout({', '.join(shown)})"

    def fix_to_virt(self, index: int) -> int:
        """The address of the page with fixmap *index*: arithmetic alone, no range check."""
        return self.FIXADDR_TOP - (index << PAGE_SHIFT)

    def virt_to_fix(self, vaddr: int) -> int:
        """The fixmap index of the page that holds *vaddr*.

        Arithmetic alone, as ``__virt_to_fix``; an address outside the fixmap gives an index
        that no entry has.
        """
        return (self.FIXADDR_TOP - (vaddr & _PAGE_MASK)) >> PAGE_SHIFT

    def window_address(self, cpu: int, slot: int) -> int:
        """The address of temporary window *slot* of *cpu*.

        Not bounded, as in the kernel: slot ``windows_per_cpu`` of a CPU is slot 0 of the next.
        """
        return self.window_first - ((slot + self.windows_per_cpu * cpu) << PAGE_SHIFT)

    def window_of(self, vaddr: int) -> tuple[int, int] | None:
        """The CPU and slot of the window that holds *vaddr*; None outside all windows."""
        if not self.window_low <= vaddr < self.window_end:
            return None
        return divmod((self.window_end - 1 - vaddr) >> PAGE_SHIFT, self.windows_per_cpu)

    def is_window(self, vaddr: int) -> bool:
        """Whether *vaddr* lies in any CPU's temporary window.

        The kernel's test of ``kunmap_atomic`` and ``kunmap_local``, after its PAGE_MASK.
        """
        return self.window_low <= vaddr < self.window_end

    def pkmap_address(self, nr: int) -> int:
        """``PKMAP_ADDR(nr)``: the address of permanent mapping *nr*."""
        return self.PKMAP_BASE + (nr << PAGE_SHIFT)

    def pkmap_nr(self, vaddr: int) -> int:
        """``PKMAP_NR(vaddr)``: which permanent mapping, 0 to LAST_PKMAP - 1 inside the area."""
        return (vaddr - self.PKMAP_BASE) >> PAGE_SHIFT

    def is_pkmap(self, vaddr: int) -> bool:
        """Whether *vaddr* lies in the area of permanent mappings."""
        return self.PKMAP_BASE <= vaddr < self.pkmap_end

    def is_lowmem(self, vaddr: int) -> bool:
        """Whether *vaddr* lies in the direct mapping of low memory."""
        return self.PAGE_OFFSET <= vaddr < self.high_memory

    def pa(self, vaddr: int) -> int:
        """``__pa``: the physical address behind direct-mapping address *vaddr*; unchecked."""
        return (vaddr - self.PAGE_OFFSET) & _ADDRESS_MASK

    def va(self, paddr: int) -> int:
        """``__va``: the direct mapping's address of physical *paddr*.

        Unchecked 32-bit arithmetic as in the kernel: for high memory the result means nothing.
        """
        return (paddr + self.PAGE_OFFSET) & _ADDRESS_MASK

    def regions(self) -> tuple[Region, ...]:
        """The whole 4 GiB from top to bottom, without gap or overlap."""
        from highmem.kernel.layout_regions import regions_of  # here: replays need none

        return regions_of(self)

    def terms(self) -> tuple[Term, ...]:
        """Every constant with the formula that it came from."""
        from highmem.kernel.layout_regions import terms_of

        return terms_of(self)


class _Marks(NamedTuple):
    """The constants of the fixmap under their kernel names."""

    FIXADDR_TOP: int
    FIXADDR_START: int
    FIXADDR_TOT_START: int
    FIX_KMAP_BEGIN: int
    FIX_KMAP_END: int


def _fixmap_marks(fixed: tuple[FixedAddress, ...], top: int) -> _Marks:
    """What *fixed* makes of FIXADDR_TOP = *top*."""
    index = {row.name: row.index for row in fixed}
    permanent_end = index[END_OF_PERMANENT]
    # Without windows the range is empty, wherever it stands.
    begin = index.get("FIX_KMAP_BEGIN", permanent_end)
    return _Marks(
        FIXADDR_TOP=top,
        FIXADDR_START=top - (permanent_end << PAGE_SHIFT),
        FIXADDR_TOT_START=top - (index[END_OF_FIXED] << PAGE_SHIFT),
        FIX_KMAP_BEGIN=begin,
        FIX_KMAP_END=index.get("FIX_KMAP_END", begin - 1),
    )
