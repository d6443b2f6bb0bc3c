"""The formulas of linux-facts.md 9.1 at the edges where one page more or less decides."""

from __future__ import annotations

import pytest

from highmem.kernel.fixmap import GEOMETRIES
from highmem.kernel.layout_areas import Areas, place_areas, top_of_fixmap

MB4 = 4 << 20


def place(kernel: str, *, start: int = 0, tot_start: int = 0, pages: int = 0) -> Areas:
    geometry = GEOMETRIES[kernel].but(cpu_entry_area_pages_per_cpu=pages)
    return place_areas(
        geometry, start=start, tot_start=tot_start, pmd_size=MB4, last_pkmap=1024, nr_cpus=1,
        highmem=True,
    )  # fmt: skip


@pytest.mark.parametrize("kernel", ["2.6.36", "3.18"])
def test_pkmap_leaves_a_page_below_the_boot_time_part(kernel: str) -> None:
    # Flush against its end, 1024 pages would fit; the one page more pushes the area down.
    assert place(kernel, tot_start=0xFFC00000).PKMAP_BASE == 0xFF400000
    assert place(kernel, tot_start=0xFFC01000).PKMAP_BASE == 0xFF800000


def test_pkmap_leaves_a_page_below_the_permanent_part() -> None:
    assert place("4.4", start=0xFFC00000, tot_start=0xFF001000).PKMAP_BASE == 0xFF400000
    assert place("4.4", start=0xFFC01000, tot_start=0xFF001000).PKMAP_BASE == 0xFF800000


@pytest.mark.parametrize("kernel", ["4.15", "4.19", "6.1"])
def test_cpu_entry_area_has_a_page_for_the_idt(kernel: str) -> None:
    full = 0xFF800000 + 43 * 4096
    assert place(kernel, tot_start=full, pages=43).CPU_ENTRY_AREA_BASE == 0xFF400000
    assert place(kernel, tot_start=full + 4096, pages=43).CPU_ENTRY_AREA_BASE == 0xFF800000


def test_each_area_below_an_aligned_one_takes_a_whole_page_table() -> None:
    found = place("6.1", tot_start=0xFFC00000, pages=43)
    assert found.CPU_ENTRY_AREA_BASE == 0xFF800000
    assert found.LDT_BASE_ADDR == 0xFF800000 - MB4
    assert found.PKMAP_BASE == 0xFF800000 - 2 * MB4
    assert found.VMALLOC_END == found.PKMAP_BASE - 8192


@pytest.mark.parametrize(
    ("kernel", "pmd_size", "top"),
    [("3.10", MB4, 0xFFAFF000), ("3.16", MB4, 0xFF7FF000), ("6.1", 2 << 20, 0xFF9FF000)],
)
def test_reservetop_is_aligned_to_a_page_table_since_3_16(
    kernel: str, pmd_size: int, top: int
) -> None:
    geometry = GEOMETRIES[kernel].but(reservetop_param=5 << 20)
    assert top_of_fixmap(geometry, pmd_size) == top
