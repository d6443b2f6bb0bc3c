"""Which RAM is low memory: linux-facts.md 9.5 and 9.1."""

from __future__ import annotations

import pytest

from highmem.errors import UsageError
from highmem.kernel.layout_ram import Memory, memparse, pc_ram, ram_ranges, split_memory

MAXMEM = 0x36BFE000  # section 9.3, 686
MAXMEM_PFN = MAXMEM >> 12
MB_PAGES = 256


def split(
    *ranges: tuple[int, int], pae: bool = False, highmem: bool = True, param: int | None = None
) -> Memory:
    return split_memory(ranges, MAXMEM=MAXMEM, pae=pae, highmem=highmem, highmem_param=param)


def test_little_ram_is_all_low() -> None:
    found = split((0, 512 << 20))
    assert found.max_low_pfn == found.max_pfn == 512 * MB_PAGES
    assert found.highstart_pfn == found.highend_pfn
    assert found.zones == (("DMA", 0, 4096), ("Normal", 4096, 512 * MB_PAGES))


def test_very_little_ram_is_all_dma() -> None:
    assert split((0, 8 << 20)).zones == (("DMA", 0, 8 * MB_PAGES),)


def test_ram_of_exactly_maxmem_has_no_high_memory() -> None:
    assert split((0, MAXMEM)).zones[-1].name == "Normal"
    assert split((0, MAXMEM + 4096)).zones[-1] == ("HighMem", MAXMEM_PFN, MAXMEM_PFN + 1)


def test_a_partial_last_page_does_not_count() -> None:
    assert split((0, (512 << 20) + 4095)).max_pfn == 512 * MB_PAGES


@pytest.mark.parametrize(("pae", "max_pfn"), [(False, 1 << 20), (True, 1 << 24)])
def test_ram_is_capped_at_what_the_tables_reach(pae: bool, max_pfn: int) -> None:
    assert split((0, 128 << 30), pae=pae).max_pfn == max_pfn


def test_ram_that_begins_above_the_cap_is_not_seen() -> None:
    ranges = pc_ram(5 << 30)
    assert split(*ranges, pae=False).max_pfn == 0xC0000000 >> 12
    assert split(*ranges, pae=True).max_pfn == 0x180000


def test_without_highmem_the_rest_is_lost() -> None:
    found = split((0, 2 << 30), highmem=False)
    assert found.max_pfn == found.max_low_pfn == MAXMEM_PFN
    assert [zone.name for zone in found.zones] == ["DMA", "Normal"]


@pytest.mark.parametrize(
    ("param", "max_pfn"),
    [(0, MAXMEM_PFN), (1 << 20, MAXMEM_PFN + 256), (8 << 30, (2 << 30) >> 12)],
)
def test_highmem_parameter_trims_the_top(param: int, max_pfn: int) -> None:
    found = split((0, 2 << 30), param=param)
    assert (found.max_low_pfn, found.max_pfn) == (MAXMEM_PFN, max_pfn)


def test_highmem_parameter_takes_from_low_memory() -> None:
    found = split((0, 512 << 20), param=128 << 20)
    assert found.zones[-1] == ("HighMem", 384 * MB_PAGES, 512 * MB_PAGES)


@pytest.mark.parametrize("param", [449 << 20, 512 << 20, 600 << 20])
def test_highmem_parameter_must_leave_64_megabytes(param: int) -> None:
    assert split((0, 512 << 20), param=param).max_low_pfn == 512 * MB_PAGES


def test_highmem_parameter_may_leave_just_64_megabytes() -> None:
    assert split((0, 512 << 20), param=448 << 20).max_low_pfn == 64 * MB_PAGES


def test_highmem_parameter_means_nothing_without_highmem() -> None:
    found = split((0, 512 << 20), highmem=False, param=128 << 20)
    assert found.max_low_pfn == 512 * MB_PAGES


@pytest.mark.parametrize(
    ("size", "ranges"),
    [
        (2 << 30, ((0, 2 << 30),)),
        (0xDFFFF000, ((0, 0xDFFFF000),)),
        (0xE0000000, ((0, 0xC0000000), (1 << 32, 0x120000000))),
        (5 << 30, ((0, 0xC0000000), (1 << 32, 0x180000000))),
    ],
)
def test_pc_ram_leaves_a_hole_below_4g(size: int, ranges: tuple[tuple[int, int], ...]) -> None:
    assert pc_ram(size) == ranges
    assert sum(end - start for start, end in ranges) == size


def test_firmware_keeps_the_top_of_the_lower_part() -> None:
    assert pc_ram(5 << 30, firmware=4096)[0] == (0, 0xC0000000 - 4096)


def test_ranges_are_put_in_order() -> None:
    assert ram_ranges([(1 << 20, 2 << 20), (0, 4096)]) == ((0, 4096), (1 << 20, 2 << 20))


@pytest.mark.parametrize(
    "ram", [0, -4096, [], [(4096, 4096)], [(0, 8192), (4096, 12288)], [(-4096, 4096)]]
)
def test_ram_that_makes_no_sense_is_refused(ram: int | list[tuple[int, int]]) -> None:
    with pytest.raises(UsageError):
        ram_ranges(ram)


def test_less_than_a_page_is_refused() -> None:
    with pytest.raises(UsageError, match="not one whole page"):
        split((0, 4095))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512M", 512 << 20), ("2g", 2 << 30), ("64K", 64 << 10), ("0x20000000", 512 << 20),
        ("0x2M", 2 << 20), ("1T", 1 << 40), ("4096", 4096), ("0", 0), (" 1G ", 1 << 30),
    ],
)  # fmt: skip
def test_memparse(text: str, size: int) -> None:
    assert memparse(text) == size


@pytest.mark.parametrize("text", ["", "M", "1.5G", "-1M", "2GiB", "12X", "0x", "010M", "1 G"])
def test_memparse_refuses(text: str) -> None:
    with pytest.raises(UsageError):
        memparse(text)
