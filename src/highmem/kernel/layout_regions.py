"""A :class:`~highmem.kernel.layout.Layout` as rows for a reader: the map, and the formulas."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from highmem.kernel.fixmap import END_OF_PERMANENT, FixedAddress
from highmem.kernel.layout_geometry import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from highmem.kernel.layout import Layout

__all__ = ["Region", "Term", "regions_of", "terms_of"]

_4G = 1 << 32


class Region(NamedTuple):
    """Addresses from ``start`` up to, not including, ``end`` (at most 1 << 32)."""

    start: int
    end: int
    name: str
    why: str
    used: bool = True
    """False for a gap, in which nothing is mapped."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


class Term(NamedTuple):
    """One constant: its kernel name, value, kind of value and how it is derived."""

    name: str
    value: int
    kind: str
    """``address``, ``bytes``, ``pfn``, ``index`` or ``count``."""
    formula: str


class _TopDown:
    """Collects regions from the top; what lies between two of them becomes a gap."""

    def __init__(self) -> None:
        self.rows: list[Region] = []
        self.ceiling = _4G

    def add(self, start: int, end: int, name: str, why: str, gap: str = "") -> None:
        end = min(end, self.ceiling)
        if start >= end:
            return
        if end < self.ceiling:
            self.rows.append(Region(end, self.ceiling, "(unused)", gap, used=False))
        self.rows.append(Region(start, end, name, why))
        self.ceiling = start


def regions_of(layout: Layout) -> tuple[Region, ...]:
    """The 4 GiB from top to bottom: ordered, disjoint and complete."""
    rows = _TopDown()
    _add_fixmap(rows, layout)
    _add_areas(rows, layout)
    _add_low(rows, layout)
    return tuple(rows.rows)


def _add_fixmap(rows: _TopDown, layout: Layout) -> None:
    top, begin, end = layout.FIXADDR_TOP, layout.FIX_KMAP_BEGIN, layout.FIX_KMAP_END
    permanent_end = next(row.index for row in layout.fixed if row.name == END_OF_PERMANENT)
    # FIX_HOLE is the page at FIXADDR_TOP; with reservetop= there is more above it.
    rows.add(top + PAGE_SIZE, _4G, "reserved top", "left alone for a hypervisor (reservetop=)")
    rows.add(top, top + PAGE_SIZE, "FIX_HOLE", "index 0, never mapped")
    _add_entries(rows, layout, 1, begin, "fixmap above windows")
    if end >= begin:
        s = layout.windows_per_cpu
        why = (
            f"indices {begin} to {end}: {s} for each of {layout.nr_cpus} CPUs; slot s of CPU c at "
            f"{layout.window_address(0, 0):#x} - (s + {s}*c) * 4096"
        )
        low, high = layout.fix_to_virt(end), layout.fix_to_virt(begin) + PAGE_SIZE
        rows.add(low, high, "temporary windows", why)
    _add_entries(rows, layout, end + 1, permanent_end, "fixmap below windows")
    _add_boot_time(rows, layout, permanent_end)


def _add_entries(rows: _TopDown, layout: Layout, first: int, behind: int, name: str) -> None:
    """One region for the fixmap indices *first* to *behind* - 1."""
    if first >= behind:
        return
    names = [row.name for row in layout.fixed if row.width and first <= row.index < behind]
    why = f"indices {first} to {behind - 1}: {', '.join(names)}"
    start, end = layout.fix_to_virt(behind - 1), layout.fix_to_virt(first) + PAGE_SIZE
    rows.add(start, end, name, why)


def _add_boot_time(rows: _TopDown, layout: Layout, permanent_end: int) -> None:
    floor = _below_fixmap(layout)
    for row in layout.fixed:
        if not row.width or row.index < permanent_end:
            continue
        start = layout.fix_to_virt(row.index + row.width - 1)
        end = layout.fix_to_virt(row.index) + PAGE_SIZE
        # Some kernels lay the next area over the boot-time part, which is over by then.
        shared = "; shares addresses with the area below, built later" if start < floor else ""
        rows.add(
            max(start, floor), end, _boot_name(row), f"{row.why}{shared}",
            "the boot-time part begins at a rounded index",
        )  # fmt: skip


def _boot_name(row: FixedAddress) -> str:
    return "boot-time mappings" if row.name == "FIX_BTMAP_END" else row.name


def _below_fixmap(layout: Layout) -> int:
    """The end of the first area below the fixmap."""
    if layout.CPU_ENTRY_AREA_BASE is not None:
        return layout.CPU_ENTRY_AREA_BASE + _entry_area_size(layout)
    if layout.highmem:
        return layout.pkmap_address(layout.LAST_PKMAP)
    return layout.VMALLOC_END


def _entry_area_size(layout: Layout) -> int:
    pages = layout.geometry.cpu_entry_area_pages_per_cpu * layout.nr_cpus + 1
    return pages << PAGE_SHIFT


def _add_areas(rows: _TopDown, layout: Layout) -> None:
    cea, ldt = layout.CPU_ENTRY_AREA_BASE, layout.LDT_BASE_ADDR
    gap = f"rounding to PMD_SIZE ({layout.PMD_SIZE >> 20} MiB)"
    if cea is not None:
        pages = layout.geometry.cpu_entry_area_pages_per_cpu
        why = f"read-only IDT, then {pages} pages for each of {layout.nr_cpus} CPUs"
        rows.add(cea, cea + _entry_area_size(layout), "CPU entry area", why, gap)
    if ldt is not None:
        why = "a process's LDT under page-table isolation"
        rows.add(ldt, ldt + layout.PMD_SIZE, "LDT remap", why, gap)
    if layout.highmem:
        why = f"LAST_PKMAP = {layout.LAST_PKMAP} pages, one page table, shared by all CPUs: kmap()"
        end = layout.pkmap_address(layout.LAST_PKMAP)
        rows.add(layout.PKMAP_BASE, end, "permanent (pkmap)", why, gap)
    why = "vmalloc(), ioremap(), modules"
    guard = "guard of two pages"
    rows.add(layout.VMALLOC_START, layout.VMALLOC_END, "vmalloc", why, guard)


def _add_low(rows: _TopDown, layout: Layout) -> None:
    megabytes = layout.VMALLOC_OFFSET >> 20
    why = f"page frames 0 to {layout.max_low_pfn - 1:#x}, physical address + PAGE_OFFSET"
    guard = f"hole before vmalloc: VMALLOC_OFFSET, {megabytes} MiB, catches overruns"
    if layout.VMALLOC_START - layout.high_memory != layout.VMALLOC_OFFSET:
        guard += ", with rounding"
    rows.add(layout.PAGE_OFFSET, layout.high_memory, "low memory", why, guard)
    rows.add(0, layout.PAGE_OFFSET, "user space", "the process's own")


def terms_of(layout: Layout) -> tuple[Term, ...]:
    """Every constant, each after those that it is derived from."""
    return (*_fixmap_terms(layout), *_area_terms(layout), *_memory_terms(layout))


def _fixmap_terms(layout: Layout) -> list[Term]:
    s, n = layout.windows_per_cpu, layout.nr_cpus
    reserve = layout.geometry.reservetop_param
    top = f"lowered by reservetop={reserve:#x}" if reserve else "the last page of the 4 GiB"
    boot = "FIXADDR_TOP - (__end_of_fixed_addresses << 12)"
    return [
        Term("PAGE_OFFSET", layout.PAGE_OFFSET, "address", "CONFIG_VMSPLIT_*"),
        Term("PMD_SIZE", layout.PMD_SIZE, "bytes", "what one page table maps"),
        Term("FIXADDR_TOP", layout.FIXADDR_TOP, "address", top),
        Term("windows per CPU", s, "count", "KM_TYPE_NR (up to 5.10), KM_MAX_IDX (5.11 on)"),
        Term("FIX_KMAP_BEGIN", layout.FIX_KMAP_BEGIN, "index", "fixmap entries above the windows"),
        Term("FIX_KMAP_END", layout.FIX_KMAP_END, "index", f"FIX_KMAP_BEGIN + {s}*{n} - 1"),
        Term(
            "FIXADDR_START", layout.FIXADDR_START, "address",
            f"FIXADDR_TOP - ({END_OF_PERMANENT} << 12)",
        ),
        Term("FIXADDR_TOT_START", layout.FIXADDR_TOT_START, "address", boot),
    ]  # fmt: skip


_PKMAP_FORMULAS = {
    "fixaddr-boot-start": "(FIXADDR_BOOT_START - 4096*(LAST_PKMAP + 1)) & PMD_MASK",
    "fixaddr-start": "(FIXADDR_START - 4096*(LAST_PKMAP + 1)) & PMD_MASK",
    "cpu-entry-area": "(CPU_ENTRY_AREA_BASE - 4096) & PMD_MASK",
    "cpu-entry-area-from-start": "(CPU_ENTRY_AREA_BASE - 4096) & PMD_MASK",
    "ldt-remap": "(LDT_BASE_ADDR - 4096) & PMD_MASK",
}


def _area_terms(layout: Layout) -> list[Term]:
    found = []
    rule = layout.geometry.pkmap_rule
    if layout.CPU_ENTRY_AREA_BASE is not None:
        origin = "START" if rule == "cpu-entry-area-from-start" else "TOT_START"
        pages = f"{layout.geometry.cpu_entry_area_pages_per_cpu}*{layout.nr_cpus}"
        formula = f"(FIXADDR_{origin} - 4096*({pages} + 1)) & PMD_MASK"
        found.append(Term("CPU_ENTRY_AREA_BASE", layout.CPU_ENTRY_AREA_BASE, "address", formula))
    if layout.LDT_BASE_ADDR is not None:
        formula = "(CPU_ENTRY_AREA_BASE - 4096) & PMD_MASK"
        found.append(Term("LDT_BASE_ADDR", layout.LDT_BASE_ADDR, "address", formula))
    if layout.highmem:
        formula = "512 with PAE, else 1024: one page table"
        found.append(Term("LAST_PKMAP", layout.LAST_PKMAP, "count", formula))
        found.append(Term("PKMAP_BASE", layout.PKMAP_BASE, "address", _PKMAP_FORMULAS[rule]))
    found.append(
        Term("VMALLOC_END", layout.VMALLOC_END, "address", f"{_vmalloc_above(layout)} - 2*4096")
    )
    return found


def _vmalloc_above(layout: Layout) -> str:
    if layout.highmem:
        return "PKMAP_BASE"
    if layout.LDT_BASE_ADDR is not None:
        return "LDT_BASE_ADDR"
    return "FIXADDR_START" if layout.CPU_ENTRY_AREA_BASE is None else "CPU_ENTRY_AREA_BASE"


def _memory_terms(layout: Layout) -> list[Term]:
    end, start = "VMALLOC_END", "high_memory + VMALLOC_OFFSET"
    if layout.geometry.vmalloc_rule == "below-4g":
        end = "4 GiB"
        start = "(high_memory + 2*VMALLOC_OFFSET - 1), down to a multiple of VMALLOC_OFFSET"
    reserve = "128 MiB unless vmalloc= is given"
    return [
        Term("__VMALLOC_RESERVE", layout.VMALLOC_RESERVE, "bytes", reserve),
        Term("MAXMEM", layout.MAXMEM, "bytes", f"{end} - PAGE_OFFSET - __VMALLOC_RESERVE"),
        Term("max_pfn", layout.max_pfn, "pfn", "end of RAM that the kernel uses"),
        Term("max_low_pfn", layout.max_low_pfn, "pfn", "max_pfn, at most MAXMEM >> 12"),
        Term("high_memory", layout.high_memory, "address", "PAGE_OFFSET + (max_low_pfn << 12)"),
        Term("VMALLOC_OFFSET", layout.VMALLOC_OFFSET, "bytes", "hole that catches overruns"),
        Term("VMALLOC_START", layout.VMALLOC_START, "address", start),
        Term("highstart_pfn", layout.highstart_pfn, "pfn", "first page frame of high memory"),
        Term("highend_pfn", layout.highend_pfn, "pfn", "behind the last one"),
    ]
