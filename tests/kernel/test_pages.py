from __future__ import annotations

import pytest

from highmem.kernel.bug import KernelBug
from highmem.kernel.kernel import Kernel
from highmem.kernel.pages import Zone
from highmem.kernel.profile import make_profile
from support.kernel_machine import ALL, boot, high_pages, low_page

OLD_HASH = tuple(f for f in ALL if f not in ("S3", "S4", "L0", "L1"))
RELOCATED_INITRD = 0x117000


# linux-facts 10: mem_map at -m 2048, a relocated initrd of 0x117000 bytes above it.
@pytest.mark.parametrize(
    ("name", "mem_map"),
    [
        ("debian-5.10-686", 0xF56E7000),
        ("debian-6.1-686", 0xF56E7000),
        ("debian-5.10-686-pae", 0xF5AE7000),
        ("debian-6.1-686-pae", 0xF5AE7000),
    ],
)
def test_mem_map(name: str, mem_map: int) -> None:
    kernel = Kernel.boot(name)
    assert kernel.pages.mem_map == mem_map + RELOCATED_INITRD
    page = kernel.pfn_to_page(0x36BFE)
    assert page.address == kernel.pages.mem_map + 40 * 0x36BFE
    assert kernel.pages.page_at(page.address) is page


def test_size_of_struct_page_follows_the_geometry() -> None:
    assert boot("T8").pages.page_size == 32  # linux-facts 10: 2.6.32
    assert boot("S4").pages.page_size == 40


@pytest.mark.parametrize("pae", [False, True])
def test_zones(pae: bool) -> None:
    kernel = boot("S4", pae)
    first_high = kernel.layout.max_low_pfn
    zones = {
        0: Zone.DMA,
        4095: Zone.DMA,
        4096: Zone.NORMAL,
        first_high - 1: Zone.NORMAL,
        first_high: Zone.HIGHMEM,
        kernel.layout.max_pfn - 1: Zone.HIGHMEM,
    }
    for pfn, zone in zones.items():
        page = kernel.pfn_to_page(pfn)
        assert page.zone is zone
        assert page.flags >> 30 == zone  # linux-facts 9.5
        assert page.highmem is (zone is Zone.HIGHMEM)
    movable = kernel.pfn_to_page(0)._replace(flags=3 << 30)
    assert movable.highmem and movable.zone is Zone.MOVABLE
    assert repr(kernel.pfn_to_page(4096)) == "Page(pfn=0x1000, zone=NORMAL)"


def test_frames_that_do_not_exist() -> None:
    kernel = boot("S4")
    for pfn in (-1, kernel.layout.max_pfn):
        with pytest.raises(ValueError, match="not in RAM"):
            kernel.pfn_to_page(pfn)
    with pytest.raises(ValueError, match="not the address of a struct page"):
        kernel.pages.page_at(kernel.pages.mem_map + 1)


def test_the_allocator_hands_out_each_frame_once() -> None:
    kernel = boot("S4", ram=1 << 30)
    layout = kernel.layout
    high = {kernel.alloc_page().pfn for _ in range(layout.max_pfn - layout.highstart_pfn)}
    assert high == set(range(layout.highstart_pfn, layout.max_pfn))
    fallback = kernel.alloc_page()
    assert fallback.zone is Zone.NORMAL  # high memory is used up
    freed = kernel.pfn_to_page(layout.highstart_pfn)
    kernel.pages.free_page(freed)
    with pytest.raises(ValueError, match="not allocated"):
        kernel.pages.free_page(freed)
    assert kernel.alloc_page() is freed


def test_low_pages_never_come_from_the_kernels_own_frames() -> None:
    kernel = boot("S4", ram=64 << 20)
    tables = kernel.tables.frames
    mem_map = (kernel.pages.mem_map - kernel.layout.PAGE_OFFSET) >> 12
    seen = set()
    with pytest.raises(MemoryError, match="low memory"):
        while True:
            seen.add(kernel.alloc_page(highmem=False).pfn)
    with pytest.raises(MemoryError, match="any zone"):
        kernel.alloc_page()
    assert seen and min(seen) >= 256 and max(seen) < mem_map
    assert not seen & set(tables)
    assert any(pfn < 4096 for pfn in seen)


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("pae", [False, True])
def test_hash_bucket(family: str, pae: bool) -> None:
    """linux-facts 5.8: low 32 bits of page * G, shifted right by 25; 128 buckets."""
    kernel = boot(family, pae)
    multiplier = 0x9E370001 if family in OLD_HASH else 0x61C88647
    buckets = set()
    for page in high_pages(kernel, 100):
        address = kernel.kmap(page)
        product = page.address * multiplier % 2**32
        bucket = product // 2**25
        buckets.add(bucket)
        found = [e for e in kernel.addresses.htable[bucket] if e.page is page]
        assert [entry.virtual for entry in found] == [address]
    assert len(kernel.addresses.htable) == 128
    assert len(kernel.addresses) == 100
    assert len(buckets) > 20


@pytest.mark.parametrize("family", ALL)
def test_page_address(family: str) -> None:
    kernel = boot(family)
    high, low = high_pages(kernel, 1)[0], low_page(kernel)
    assert kernel.page_address(low) == 0xC0000000 + (low.pfn << 12)
    assert kernel.page_address(high) is None
    number = 3 if family.startswith("T") else None
    kernel.kmap_atomic(high, number)
    assert kernel.page_address(high) is None  # temporary windows are never recorded


@pytest.mark.parametrize("family", ALL)
def test_set_page_address_refuses_a_low_page(family: str) -> None:
    kernel = boot(family)
    with pytest.raises(KernelBug, match="!PageHighMem"):
        kernel.addresses.set_page_address(low_page(kernel), 0xFEC00000)


@pytest.mark.parametrize("family", ALL)
def test_entries_come_from_a_pool_or_belong_to_their_window(family: str) -> None:
    """linux-facts 5.8: up to 3.2 a free list with BUG_ON(empty), later by PKMAP_NR."""
    kernel = boot(family)
    last, layout = kernel.layout.LAST_PKMAP, kernel.layout
    pages = high_pages(kernel, last + 1)
    for number, page in enumerate(pages[:last]):
        kernel.addresses.set_page_address(page, layout.pkmap_address(number))
    again = layout.pkmap_address(0)
    # A removal of a page that is not there changes nothing.
    kernel.addresses.set_page_address(pages[last], None)
    assert len(kernel.addresses) == last
    if make_profile(family).features.address_map_pool:
        with pytest.raises(KernelBug, match="page_address_pool"):
            kernel.addresses.set_page_address(pages[last], again)
    kernel.addresses.set_page_address(pages[0], None)
    kernel.addresses.set_page_address(pages[last], again)
    assert kernel.page_address(pages[last]) == again
    assert kernel.page_address(pages[0]) is None


def test_pool_is_a_feature_up_to_3_2() -> None:
    with_pool = [f for f in ALL if make_profile(f).features.address_map_pool]
    assert with_pool == [*(f"T{n}" for n in range(11)), "S0", "S1"]
