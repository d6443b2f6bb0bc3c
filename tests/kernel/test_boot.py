"""The page tables of a booted kernel, walked as the silicon walks them (linux-facts 7.3)."""

from __future__ import annotations

import pytest

from highmem.kernel.kernel import Kernel
from highmem.machine.paging import NX, WalkFailure
from support.kernel_machine import boot, high_pages

every_table = pytest.mark.parametrize("pae", [False, True])


@every_table
@pytest.mark.parametrize("ram", [64 << 20, 512 << 20, 876 << 20, 1 << 30, 2 << 30])
def test_every_low_page_and_no_other_is_in_the_direct_map(pae: bool, ram: int) -> None:
    kernel = boot("S4", pae, ram=ram)
    layout = kernel.layout
    large = layout.PMD_SIZE
    for pfn in range(layout.max_low_pfn):
        # Inside a large page its two ends stand for the rest.
        offset = (pfn << 12) % large
        inner = pfn << 12 >= large and (pfn << 12) - offset + large <= layout.max_low_pfn << 12
        if inner and 4096 <= offset < large - 4096:
            continue
        walked = kernel.walk(layout.PAGE_OFFSET + (pfn << 12))
        assert walked.physical == pfn << 12
        assert walked.page_size == (large if inner else 4096)
        assert walked.is_global and walked.rw and not walked.user and walked.nx is pae
    for address in (layout.high_memory, layout.PAGE_OFFSET - 4096, layout.VMALLOC_START):
        assert kernel.walk(address).failure is WalkFailure.NOT_PRESENT


@every_table
def test_entries_of_the_direct_map(pae: bool) -> None:
    kernel = boot("S4", pae)
    bit63 = NX if pae else 0
    assert kernel.walk(0xC0001000).leaf.entry == 0x1163 | bit63
    # A large page of low memory: the same with PSE.
    assert kernel.walk(0xC0800000).leaf.entry == 0x8001E3 | bit63
    isolated = boot("S4", pae, pti=True)
    assert isolated.walk(0xC0001000).leaf.entry == 0x1063 | bit63


@pytest.mark.parametrize(
    ("name", "flags"), [("debian-5.10-686", 0x063), ("debian-5.10-686-pae", 0x067)]
)
def test_directory_entry_of_the_windows(name: str, flags: int) -> None:
    """7.3 [LIVE]: PDE 0x01cae063 and 0x01d60067; table + 955*4, CPU 1 at table + 0xd38."""
    kernel = Kernel.boot(name, cpus=2)
    pae = name.endswith("pae")
    page = high_pages(kernel, 1)[0]
    with kernel.on(1 if pae else 0):
        step = kernel.walk(kernel.kmap_atomic(page)).leaf
    directory = kernel.walk(0xFFFBB000).steps[-2].entry
    assert directory & 0xFFF == flags
    assert step.address is not None
    assert step.address & 0xFFF == (0xD38 if pae else 955 * 4)


@every_table
def test_permanent_windows_hang_on_one_directory_entry(pae: bool) -> None:
    kernel = boot("S4", pae)
    layout = kernel.layout
    last = layout.LAST_PKMAP
    assert layout.PKMAP_BASE % layout.PMD_SIZE == 0
    parents = {kernel.walk(layout.PKMAP_BASE + (n << 12)).steps[-2] for n in range(last)}
    assert len(parents) == 1
    size = 8 if pae else 4
    for number in (0, 1, last - 1):
        leaf = kernel.walk(layout.PKMAP_BASE + (number << 12)).leaf
        assert leaf.address == kernel.tables.pkmap_page_table + number * size
        assert leaf.address == kernel.permanent.pte_of(number)


@every_table
@pytest.mark.parametrize("family", ["T0", "T10", "S0", "S4", "L1"])
@pytest.mark.parametrize("debug", [False, True])
def test_kmap_pte_is_linear_over_page_tables(pae: bool, family: str, debug: bool) -> None:
    """1: the entry of window i is kmap_pte[-i], also where a page table ends (64 CPUs)."""
    kernel = boot(family, pae, debug, nr_cpus=64)
    layout = kernel.layout
    total = 64 * kernel.profile.windows_per_cpu
    tables = set()
    for index in range(total):
        walked = kernel.walk(layout.fix_to_virt(layout.FIX_KMAP_BEGIN + index))
        where = walked.leaf.address
        assert where == kernel.kmap_pte - layout.PAGE_OFFSET - index * kernel.ptes.entry_size
        assert where is not None
        tables.add(where >> 12)
    spans = total * 4096 // layout.PMD_SIZE
    assert len(tables) >= max(1, spans)
    if total > layout.PMD_SIZE // 4096:
        assert len(tables) > 1


@every_table
def test_the_windows_of_64_cpus_work(pae: bool) -> None:
    kernel = boot("S4", pae, True, nr_cpus=64, cpus=64)
    page = high_pages(kernel, 1)[0]
    seen = set()
    for cpu in range(64):
        with kernel.on(cpu):
            address = kernel.kmap_atomic(page)
            assert kernel.read32(address) == page.pfn
            seen.add(address)
    assert len(seen) == 64


@every_table
def test_tables_lie_in_low_memory_apart_from_each_other(pae: bool) -> None:
    kernel = boot("S4", pae)
    tables = kernel.tables
    assert tables.cr3 == tables.swapper_pg_dir
    assert tables.frames.stop <= kernel.layout.max_low_pfn
    places = [tables.swapper_pg_dir, tables.fixmap_tables, tables.pkmap_page_table]
    assert len({place >> 12 for place in places}) == 3
    assert all(place >> 12 in tables.frames for place in places)
    assert kernel.machine.cpus[0].mode.entry_size == (8 if pae else 4)


def test_pae_reaches_memory_beyond_4_gib() -> None:
    kernel = boot("S4", True, ram=8 << 30)
    page = kernel.pfn_to_page(0x1F0000)
    address = kernel.kmap_atomic(page)
    kernel.write32(address, 0x12345678)
    assert kernel.machine.memory.read32(0x1F0000000) == 0x12345678
    assert kernel.kmap(kernel.pfn_to_page(0x100000)) == kernel.layout.PKMAP_BASE + 0x1000
