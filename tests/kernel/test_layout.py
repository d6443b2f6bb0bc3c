"""Every constant of the layout against linux-facts.md sections 9.3 to 9.5."""

from __future__ import annotations

import pytest

from highmem.errors import ProfileError
from highmem.kernel.fixmap import GEOMETRIES, Geometry
from highmem.kernel.layout import Layout, pc_ram

G2 = 2 << 30


def layout(
    geometry: Geometry | str, *, s: int, nr_cpus: int = 32, pae: bool = False,
    ram: int | tuple[tuple[int, int], ...] = G2, highmem: bool = True,
) -> Layout:  # fmt: skip
    geometry = GEOMETRIES[geometry] if isinstance(geometry, str) else geometry
    return Layout.of(
        geometry, windows_per_cpu=s, nr_cpus=nr_cpus, pae=pae, ram=ram, highmem=highmem
    )


# Section 9.3, all four configurations that were booted.
DEBIAN = {
    "5.10.0-32-686": layout("5.10", s=20),
    "5.10.0-32-686-pae": layout("5.10", s=20, pae=True),
    "6.1.0-50-686": layout("6.1", s=16),
    "6.1.0-50-686-pae": layout("6.1", s=16, pae=True),
}
DEBIAN_CONSTANTS = {
    "FIX_KMAP_BEGIN": (68, 68, 68, 68),
    "FIX_KMAP_END": (707, 707, 579, 579),
    "FIXADDR_TOP": (0xFFFFF000, 0xFFFFF000, 0xFFFFF000, 0xFFFFF000),
    "FIXADDR_START": (0xFFD38000, 0xFFD38000, 0xFFDB8000, 0xFFDB8000),
    "FIXADDR_TOT_START": (0xFF9FE000, 0xFF9FE000, 0xFF9FE000, 0xFF9FE000),
    "CPU_ENTRY_AREA_BASE": (0xFF400000, 0xFF400000, 0xFF400000, 0xFF400000),
    "LDT_BASE_ADDR": (0xFF000000, 0xFF200000, 0xFF000000, 0xFF200000),
    "PKMAP_BASE": (0xFEC00000, 0xFF000000, 0xFEC00000, 0xFF000000),
    "LAST_PKMAP": (1024, 512, 1024, 512),
    "VMALLOC_END": (0xFEBFE000, 0xFEFFE000, 0xFEBFE000, 0xFEFFE000),
    "MAXMEM": (0x36BFE000, 0x36FFE000, 0x36BFE000, 0x36FFE000),
    "high_memory": (0xF6BFE000, 0xF6FFE000, 0xF6BFE000, 0xF6FFE000),
    "VMALLOC_START": (0xF73FE000, 0xF77FE000, 0xF73FE000, 0xF77FE000),
    "highstart_pfn": (0x36BFE, 0x36FFE, 0x36BFE, 0x36FFE),
    "max_low_pfn": (0x36BFE, 0x36FFE, 0x36BFE, 0x36FFE),
    "PMD_SIZE": (4 << 20, 2 << 20, 4 << 20, 2 << 20),
    "PAGE_OFFSET": (0xC0000000, 0xC0000000, 0xC0000000, 0xC0000000),
    "VMALLOC_OFFSET": (8 << 20, 8 << 20, 8 << 20, 8 << 20),
}
# (cpu, slot): the page number of the address (five digits in the table).
DEBIAN_WINDOWS = {
    (0, 0): (0xFFFBB, 0xFFFBB, 0xFFFBB, 0xFFFBB),
    (1, 0): (0xFFFA7, 0xFFFA7, 0xFFFAB, 0xFFFAB),
    (2, 0): (0xFFF93, 0xFFF93, 0xFFF9B, 0xFFF9B),
    (3, 0): (0xFFF7F, 0xFFF7F, 0xFFF8B, 0xFFF8B),
    (0, 1): (0xFFFBA, 0xFFFBA, 0xFFFBA, 0xFFFBA),
    (1, 1): (0xFFFA6, 0xFFFA6, 0xFFFAA, 0xFFFAA),
    (31, -1): (0xFFD3C + 20, 0xFFD3C + 20, 0xFFDBC + 16, 0xFFDBC + 16),
}


@pytest.mark.parametrize("name", DEBIAN_CONSTANTS)
@pytest.mark.parametrize("column", range(4), ids=list(DEBIAN))
def test_debian_constants(name: str, column: int) -> None:
    assert getattr(list(DEBIAN.values())[column], name) == DEBIAN_CONSTANTS[name][column]


@pytest.mark.parametrize(("cpu", "slot"), DEBIAN_WINDOWS)
@pytest.mark.parametrize("column", range(4), ids=list(DEBIAN))
def test_debian_windows(cpu: int, slot: int, column: int) -> None:
    found = list(DEBIAN.values())[column]
    assert found.window_address(cpu, slot) == DEBIAN_WINDOWS[cpu, slot][column] << 12


@pytest.mark.parametrize(("kernel", "lowest"), [("5.10", 0xFFD3C000), ("6.1", 0xFFDBC000)])
def test_debian_lowest_window(kernel: str, lowest: int) -> None:
    found = DEBIAN[f"{kernel}.0-{'32' if kernel == '5.10' else '50'}-686"]
    assert found.fix_to_virt(found.FIX_KMAP_END) == lowest
    assert found.window_address(31, found.windows_per_cpu - 1) == lowest
    assert found.is_window(lowest)
    assert not found.is_window(lowest - 1)


def test_debian_areas_as_seen_alive() -> None:
    # Section 9.3, evidence: LIVE.
    found = DEBIAN["5.10.0-32-686"]
    assert found.virt_to_fix(0xFFFFB000) == 4  # I/O APIC
    assert found.virt_to_fix(0xFFFFC000) == 3  # local APIC
    assert (found.VMALLOC_END - found.VMALLOC_START) >> 10 == 122880  # VmallocTotal, kB
    assert found.pkmap_nr(0xFEC06000) == 6
    assert found.is_pkmap(0xFEC33000)
    assert DEBIAN["5.10.0-32-686-pae"].is_pkmap(0xFF001000)


# Section 9.4, config variants: kernel, PAE, S, NR_CPUS; CPU1 slot 0, PKMAP_BASE, MAXMEM.
VARIANTS = [
    ("5.10", False, 41, 32, 0xFFF92000, 0xFE800000, 0x367FE000),
    ("5.10", True, 41, 32, 0xFFF92000, 0xFEE00000, 0x36DFE000),
    ("5.10", False, 20, 8, 0xFFFA7000, 0xFF000000, 0x36FFE000),
    ("5.10", False, 20, 64, 0xFFFA7000, 0xFE400000, 0x363FE000),
    ("5.10", True, 20, 8, 0xFFFA7000, 0xFF600000, 0x375FE000),
    ("5.10", True, 20, 64, 0xFFFA7000, 0xFE800000, 0x367FE000),
    ("6.1", False, 33, 32, 0xFFF9A000, 0xFEC00000, 0x36BFE000),
    ("6.1", True, 33, 32, 0xFFF9A000, 0xFEE00000, 0x36DFE000),
    ("6.1", False, 16, 8, 0xFFFAB000, 0xFF000000, 0x36FFE000),
    ("6.1", False, 16, 64, 0xFFFAB000, 0xFE400000, 0x363FE000),
    ("6.1", True, 16, 8, 0xFFFAB000, 0xFF600000, 0x375FE000),
    ("6.1", True, 16, 64, 0xFFFAB000, 0xFE800000, 0x367FE000),
]


@pytest.mark.parametrize(("kernel", "pae", "s", "nr_cpus", "cpu1", "pkmap", "maxmem"), VARIANTS)
def test_config_variants(
    kernel: str, pae: bool, s: int, nr_cpus: int, cpu1: int, pkmap: int, maxmem: int
) -> None:
    found = layout(kernel, s=s, nr_cpus=nr_cpus, pae=pae)
    assert found.window_address(0, 0) == 0xFFFBB000
    assert found.window_address(1, 0) == cpu1
    assert pkmap == found.PKMAP_BASE
    assert maxmem == found.MAXMEM


@pytest.mark.parametrize("name", DEBIAN)
def test_no_apei_and_no_mmconfig_change_nothing(name: str) -> None:
    plain = DEBIAN[name]
    geometry = plain.geometry.but(apei_ghes=False, pcie_mcfg=False)
    found = layout(geometry, s=plain.windows_per_cpu, pae=plain.pae)
    for constant in ("PKMAP_BASE", "MAXMEM", "FIX_KMAP_BEGIN", "FIXADDR_TOT_START"):
        assert getattr(found, constant) == getattr(plain, constant)
    assert found.FIXADDR_START == plain.FIXADDR_START + 3 * 4096


def test_firewire_debugging_moves_the_windows() -> None:
    # Section 9.2: OHCI1394 adds one entry, CPU 0 at 0xfffba000.
    geometry = GEOMETRIES["5.10"].but(ohci1394="before-apic")
    assert layout(geometry, s=20).window_address(0, 0) == 0xFFFBA000


def test_guard_slots_of_6_1() -> None:
    # Section 9.4: with DEBUG_KMAP_LOCAL the first window used on CPU 0 is slot 1.
    assert layout("6.1", s=33).window_address(0, 1) == 0xFFFBA000


def test_sizeof_struct_page() -> None:
    # Sections 9.3, 10: 40 in all four, 32 in 2.6.32.
    assert {row.geometry.sizeof_struct_page for row in DEBIAN.values()} == {40}
    assert GEOMETRIES["2.6.32"].sizeof_struct_page == 32


# Section 9.4, live parameter checks on 5.10.0-32-686.
def test_vmalloc_parameter() -> None:
    geometry = GEOMETRIES["5.10"].but(vmalloc_param=256 << 20)
    assert layout(geometry, s=20).max_low_pfn == 0x2E3FE


def test_reservetop_parameter() -> None:
    found = layout(GEOMETRIES["5.10"].but(reservetop_param=16 << 20), s=20)
    assert found.FIXADDR_TOP == 0xFEFFF000
    assert found.fix_to_virt(3) == 0xFEFFC000
    assert found.PKMAP_BASE == 0xFDC00000
    assert found.max_low_pfn == 0x35BFE


def test_highmem_parameter() -> None:
    found = layout(GEOMETRIES["5.10"].but(highmem_param=512 << 20), s=20)
    assert (found.highstart_pfn << 12, found.highend_pfn << 12) == (0x36BFE000, 0x56BFE000)
    assert found.max_pfn == 0x56BFE


@pytest.mark.parametrize("megabytes", [512, 876])
def test_ram_that_low_memory_holds(megabytes: int) -> None:
    # At 876 MB the firmware's share decides: without it RAM would end two pages above MAXMEM.
    ram = pc_ram(megabytes << 20, firmware=128 << 10)
    found = layout("5.10", s=20, ram=ram)
    end_of_ram = (megabytes << 20) - (128 << 10)
    assert found.high_memory == 0xC0000000 + end_of_ram
    assert found.highstart_pfn == found.highend_pfn == end_of_ram >> 12
    assert [zone.name for zone in found.zones] == ["DMA", "Normal"]


def test_high_zone_spans_the_pci_hole() -> None:
    # Section 9.5: PAE guest with 5 GiB, HighMem 0x36ffe to 0x17ffff.
    found = layout("5.10", s=20, pae=True, ram=pc_ram(5 << 30))
    assert found.zones[-1] == ("HighMem", 0x36FFE, 0x180000)


def test_reservetop_of_older_kernels() -> None:
    # Section 9.1: -r - 4096 as is; through 2.6.30 the vmalloc reserve grows by as much.
    reserve = 5 << 12
    for kernel, grows in (("2.6.30", True), ("2.6.36", False)):
        plain = layout(kernel, s=13, nr_cpus=8)
        found = layout(GEOMETRIES[kernel].but(reservetop_param=reserve), s=13, nr_cpus=8)
        assert 0xFFFFF000 - reserve == found.FIXADDR_TOP
        assert (reserve if grows else 0) == found.VMALLOC_RESERVE - plain.VMALLOC_RESERVE


def test_vmalloc_of_2_6_27() -> None:
    # Section 9.1: vmalloc=N is N itself, the start is rounded down to 8 MiB.
    found = layout(GEOMETRIES["2.6.27"].but(vmalloc_param=256 << 20), s=13, nr_cpus=8)
    assert found.VMALLOC_RESERVE == 256 << 20
    assert found.MAXMEM == 0x40000000 - (256 << 20)
    small = layout("2.6.27", s=13, nr_cpus=8, ram=(100 << 20) + 4096)
    assert small.high_memory == 0xC6401000
    assert small.VMALLOC_START == 0xC7000000


@pytest.mark.parametrize(
    ("page_offset", "lowmem"),
    # 9.1's MAXMEM with 9.3's VMALLOC_END 0xfebfe000 and 128 MiB.
    [
        (0xB0000000, 0x46BFE000), (0x80000000, 0x76BFE000), (0x78000000, 0x7EBFE000),
        (0x40000000, 0xB6BFE000),
    ],
)  # fmt: skip
def test_other_splits(page_offset: int, lowmem: int) -> None:
    found = layout(GEOMETRIES["5.10"].but(page_offset=page_offset), s=20, ram=4 << 30)
    assert lowmem == found.MAXMEM
    assert found.high_memory == page_offset + lowmem
    assert found.va(0x1234) == page_offset + 0x1234


def test_without_highmem_vmalloc_ends_below_the_ldt() -> None:
    found = layout("5.10", s=20, highmem=False)
    assert found.LDT_BASE_ADDR is not None
    assert found.VMALLOC_END == found.LDT_BASE_ADDR - 8192
    assert found.max_pfn == found.max_low_pfn == found.MAXMEM >> 12
    assert not found.is_pkmap(found.PKMAP_BASE)


def test_an_old_kernel_without_highmem_has_no_windows() -> None:
    found = layout("2.6.24", s=13, nr_cpus=8, highmem=False)
    assert found.VMALLOC_END == found.FIXADDR_START - 8192
    assert not found.is_window(found.fix_to_virt(found.FIX_KMAP_BEGIN))
    assert found.window_of(found.fix_to_virt(found.FIX_KMAP_BEGIN)) is None
    assert "temporary windows" not in [row.name for row in found.regions()]


def test_a_slot_beyond_the_last_is_the_next_cpus_first() -> None:
    # Section 3: without DEBUG_HIGHMEM nothing bounds the stack.
    found = DEBIAN["5.10.0-32-686"]
    assert found.window_address(0, 20) == found.window_address(1, 0)
    assert found.window_of(found.window_address(0, 20)) == (1, 0)


@pytest.mark.parametrize(
    ("changes", "nr_cpus", "message"),
    [
        ({}, 4096, "leave nothing for it"),
        ({"vmalloc_param": 0x3FFFF000}, 32, "leave nothing for it"),
        ({"reservetop_param": 0x50000000}, 32, "leaves the kernel no address space"),
        ({"vmalloc_rule": "below-4g", "vmalloc_param": 4096}, 32, "vmalloc would start at"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(
    changes: dict[str, int], nr_cpus: int, message: str
) -> None:
    with pytest.raises(ProfileError, match=message):
        layout(GEOMETRIES["5.10"].but(**changes), s=41, nr_cpus=nr_cpus)
