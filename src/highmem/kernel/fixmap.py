"""``enum fixed_addresses``: which page at the top of the address space is for what.

An index counts pages down from FIXADDR_TOP, so an entry that a configuration adds before
FIX_KMAP_BEGIN moves every temporary window down by a page
(``arch/x86/include/asm/fixmap.h``; before 2.6.30 ``fixmap_32.h``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from highmem.errors import ProfileError
from highmem.kernel.layout_geometry import GEOMETRIES, PAGE_SIZE, Geometry

__all__ = [
    "END_OF_FIXED",
    "END_OF_PERMANENT",
    "GEOMETRIES",
    "MAX_IO_APICS",
    "FixedAddress",
    "Geometry",
    "fixed_addresses",
]

MAX_IO_APICS = 64
"""``asm/apicdef.h`` on 32 bits, 2.6.24 to 6.1."""
END_OF_PERMANENT = "__end_of_permanent_fixed_addresses"
END_OF_FIXED = "__end_of_fixed_addresses"

_FIX_ACPI_PAGES = 4


class FixedAddress(NamedTuple):
    """One enumerator: its page is at ``FIXADDR_TOP - (index << 12)``."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    name: str
    width: int
    """Pages from this index on that belong to it; 0 for a bare mark and for the name of a
    range's last page, which is counted in its first."""
    why: str
    """What the pages are for and what configures them."""


class _Entry(NamedTuple):
    present: bool
    name: str
    last: str
    """The name of the range's last page; empty for a single page."""
    width: int
    why: str


def fixed_addresses(
    geometry: Geometry, *, windows_per_cpu: int, nr_cpus: int, pae: bool, highmem: bool = True
) -> tuple[FixedAddress, ...]:
    """The whole enum of this configuration, in order of index.

    *windows_per_cpu* is KM_TYPE_NR or KM_MAX_IDX, *nr_cpus* the compiled-in NR_CPUS.  *highmem*
    is CONFIG_HIGHMEM.  Raises ProfileError for counts below one.
    """
    if windows_per_cpu < 1 or nr_cpus < 1:
        raise ProfileError(f"{windows_per_cpu} windows for {nr_cpus} CPUs: both must be at least 1")
    entries = _permanent(geometry, windows_per_cpu, nr_cpus, highmem)
    rows = list(_number(entries, 0))
    end = _next_index(rows)
    rows.append(FixedAddress(end, END_OF_PERMANENT, 0, "FIXADDR_START is the page of this index"))
    if geometry.ohci1394 == "after-permanent":
        # An enumerator after the mark takes the next value; the mark's own page stays empty.
        rows += _number([_ohci1394(True)], end + 1)
    btmap_end, count = _boot_time(geometry, end, 512 if pae else 1024)
    rows += _number([_btmap(geometry, count)], btmap_end)
    rows += _number(_after_boot_time(geometry), btmap_end + count)
    rows.append(FixedAddress(_next_index(rows), END_OF_FIXED, 0, "end of everything fixed"))
    return tuple(rows)


def _number(entries: list[_Entry], first: int) -> Iterator[FixedAddress]:
    index = first
    for entry in entries:
        if not entry.present:
            continue
        yield FixedAddress(index, entry.name, entry.width, entry.why)
        if entry.last:
            last = index + entry.width - 1
            yield FixedAddress(last, entry.last, 0, f"last page of {entry.name}")
        index += entry.width


def _next_index(rows: list[FixedAddress]) -> int:
    return max(row.index + max(row.width, 1) for row in rows)


def _ohci1394(present: bool) -> _Entry:
    why = "FireWire debugging from boot on (CONFIG_PROVIDE_OHCI1394_DMA_INIT)"
    return _Entry(present, "FIX_OHCI1394_BASE", "", 1, why)


def _acpi(present: bool) -> _Entry:
    return _Entry(
        present, "FIX_ACPI_BEGIN", "FIX_ACPI_END", _FIX_ACPI_PAGES, "ACPI tables (CONFIG_ACPI)"
    )


def _permanent(g: Geometry, windows: int, nr_cpus: int, highmem: bool) -> list[_Entry]:
    """Every entry before the permanent end, in the enum's order (a table)."""
    return [*_above_windows(g, nr_cpus), *_from_windows(g, windows, nr_cpus, highmem)]


def _above_windows(g: Geometry, nr_cpus: int) -> list[_Entry]:
    """What stands before FIX_KMAP_BEGIN: the only entries that move the windows (a table)."""
    one = _single
    visws = "SGI Visual Workstation (CONFIG_X86_VISWS_APIC)"
    return [
        one(True, "FIX_HOLE", "index 0 is never mapped: the last page of the address space"),
        one(g.fix_vdso, "FIX_VDSO", "the vsyscall page"),
        _Entry(
            g.pvclock, "PVCLOCK_FIXMAP_BEGIN", "PVCLOCK_FIXMAP_END",
            (nr_cpus - 1) // (PAGE_SIZE // g.pvti_size) + 1,
            f"paravirtual clock, {g.pvti_size} bytes per CPU (CONFIG_PARAVIRT_CLOCK)",
        ),
        one(g.dbgp_earlycon, "FIX_DBGP_BASE", "USB debug port"),
        one(g.dbgp_earlycon, "FIX_EARLYCON_MEM_BASE", "early console"),
        _ohci1394(g.ohci1394 == "before-apic"),
        one(g.local_apic, "FIX_APIC_BASE", "local APIC (CONFIG_X86_LOCAL_APIC)"),
        _Entry(
            g.io_apic, "FIX_IO_APIC_BASE_0", "FIX_IO_APIC_BASE_END", MAX_IO_APICS,
            "MAX_IO_APICS I/O APICs (CONFIG_X86_IO_APIC)",
        ),
        one(g.visws, "FIX_CO_CPU", visws),
        one(g.visws, "FIX_CO_APIC", visws),
        one(g.visws, "FIX_LI_PCIA", visws),
        one(g.visws, "FIX_LI_PCIB", visws),
        one(g.f00f, "FIX_F00F_IDT", "IDT for the Pentium's F00F bug (CONFIG_X86_F00F_BUG)"),
        one(g.cyclone, "FIX_CYCLONE_TIMER", "IBM Cyclone timer (CONFIG_X86_CYCLONE_TIMER)"),
        one(g.ro_idt, "FIX_RO_IDT", "read-only IDT"),
    ]  # fmt: skip


def _from_windows(g: Geometry, windows: int, nr_cpus: int, highmem: bool) -> list[_Entry]:
    """The windows and what stands between them and the permanent end (a table)."""
    one = _single
    poke = "patching kernel text"
    return [
        _Entry(
            highmem or g.kmap_rule == "always", "FIX_KMAP_BEGIN", "FIX_KMAP_END",
            windows * nr_cpus, f"temporary windows: {windows} for each of {nr_cpus} CPUs",
        ),
        _acpi(g.acpi == "permanent"),
        one(g.pcie_mcfg, "FIX_PCIE_MCFG", "PCI Express configuration (CONFIG_PCI_MMCONFIG)"),
        one(g.paravirt_bootmap, "FIX_PARAVIRT_BOOTMAP", "hypervisor's boot page (PARAVIRT)"),
        one(g.text_poke == "poke0-first", "FIX_TEXT_POKE0", poke),
        one(g.text_poke != "none", "FIX_TEXT_POKE1", poke),
        one(g.text_poke == "poke1-first", "FIX_TEXT_POKE0", poke),
        one(g.lnw_vrtc, "FIX_LNW_VRTC", "Intel MID's clock (CONFIG_X86_INTEL_MID)"),
        _Entry(
            g.gdt_remap, "FIX_GDT_REMAP_BEGIN", "FIX_GDT_REMAP_END", nr_cpus,
            "read-only GDT of each CPU",
        ),
        one(g.apei_ghes, "FIX_APEI_GHES_IRQ", "hardware errors (CONFIG_ACPI_APEI_GHES)"),
        one(g.apei_ghes, "FIX_APEI_GHES_NMI", "hardware errors (CONFIG_ACPI_APEI_GHES)"),
    ]  # fmt: skip


def _single(present: bool, name: str, why: str) -> _Entry:
    return _Entry(present, name, "", 1, why)


def _btmap(geometry: Geometry, count: int) -> _Entry:
    # END is the lower index: early_ioremap() hands the slots out from BEGIN.
    why = f"{count} boot-time mappings of early_ioremap() (rule {geometry.btmap_rule})"
    return _Entry(True, "FIX_BTMAP_END", "FIX_BTMAP_BEGIN", count, why)


def _after_boot_time(g: Geometry) -> list[_Entry]:
    return [
        _single(True, "FIX_WP_TEST", "test at boot that the CPU honours write protection"),
        _acpi(g.acpi == "after-btmap"),
        _ohci1394(g.ohci1394 == "at-end"),
        _single(g.tboot, "FIX_TBOOT_BASE", "trusted boot (CONFIG_INTEL_TXT)"),
    ]


def _boot_time(geometry: Geometry, end: int, ptrs_per_pte: int) -> tuple[int, int]:
    """Index and number of the boot-time mappings, *end* being the permanent end."""
    rule = geometry.btmap_rule
    if rule == "at-end-16":
        return end, 16
    if rule == "round-512-256":
        return _round_up_past(end, 512), 256
    if rule == "round-256":
        return _round_up_past(end, 256), 256
    count = 256 if rule == "if-crossing-256" else 512
    # They must share one page table, for there is only one at that time (bm_pte).
    crosses = (end ^ (end + count - 1)) & -ptrs_per_pte
    return (_round_up_past(end, count) if crosses else end), count


def _round_up_past(index: int, unit: int) -> int:
    # The kernel's own arithmetic: an index that is a multiple already goes to the next one.
    return index + unit - (index & (unit - 1))
