from __future__ import annotations

import pytest

from highmem.errors import MachineError
from highmem.machine.tlb import Tlb, TlbEntry


def entry(page: int, *, mask: int = 0xFFF, is_global: bool = False, base: int = 0) -> TlbEntry:
    return TlbEntry(page, base, mask, True, False, False, is_global, True, 0xFFFF)


def pages(tlb: Tlb) -> list[int]:
    return [held.page for held in tlb]


def test_a_fill_is_found_for_every_address_of_the_page() -> None:
    tlb = Tlb()
    tlb.fill(entry(0x5000))
    assert tlb.lookup(0x5000) is tlb.lookup(0x5FFF) is not None
    assert tlb.lookup(0x4FFF) is None
    assert (tlb.hits, tlb.misses, tlb.fills) == (2, 1, 1)


def test_peek_does_not_count() -> None:
    tlb = Tlb()
    tlb.fill(entry(0xC00000, mask=0x3FFFFF))
    assert tlb.peek(0xC01000) is not None
    assert tlb.peek(0x5000) is None
    assert tlb.hits == tlb.misses == 0


def test_the_entry_filled_first_goes_first_even_if_used_since() -> None:
    tlb = Tlb(2)
    assert tlb.fill(entry(0x1000)) is None
    assert tlb.fill(entry(0x2000)) is None
    tlb.lookup(0x1000)
    victim = tlb.fill(entry(0x3000))
    assert victim is not None
    assert victim.page == 0x1000
    assert pages(tlb) == [0x2000, 0x3000]
    assert tlb.evictions == 1
    assert len(tlb) == 2


def test_refilling_a_page_replaces_it_in_its_place() -> None:
    tlb = Tlb(2)
    tlb.fill(entry(0x1000, is_global=True))
    tlb.fill(entry(0x2000))
    tlb.fill(entry(0x1000, base=0x9000))
    assert pages(tlb) == [0x1000, 0x2000]
    found = tlb.lookup(0x1000)
    assert found is not None
    assert found.base == 0x9000
    assert tlb.flush_nonglobal() == 2, "the replaced entry was the only global one"


@pytest.mark.parametrize("shift", [21, 22])
def test_a_large_page_is_one_entry(shift: int) -> None:
    tlb = Tlb(large_shift=shift)
    size = 1 << shift
    tlb.fill(entry(3 * size, mask=size - 1))
    assert len(tlb) == 1
    assert tlb.lookup(3 * size) is tlb.lookup(4 * size - 1) is not None
    assert tlb.lookup(4 * size) is None
    assert tlb.flush_one(3 * size + 0x5000) == 1
    assert tlb.lookup(3 * size) is None


def test_flush_one_drops_global_entries_and_no_neighbour() -> None:
    tlb = Tlb()
    for page in (0x1000, 0x2000, 0x3000):
        tlb.fill(entry(page, is_global=True))
    assert tlb.flush_one(0x2ABC) == 1
    assert tlb.flush_one(0x2ABC) == 0
    assert pages(tlb) == [0x1000, 0x3000]
    assert tlb.flushes == 2


def test_flush_one_drops_a_small_and_a_large_entry_of_one_address() -> None:
    tlb = Tlb()
    tlb.fill(entry(0x400000, mask=0x3FFFFF))
    tlb.fill(entry(0x401000))
    assert tlb.flush_one(0x401000) == 2
    assert len(tlb) == 0


def test_discard_is_no_flush() -> None:
    tlb = Tlb()
    tlb.fill(entry(0x1000))
    assert tlb.discard(0x1000) == 1
    assert tlb.flushes == 0


def test_flush_nonglobal_keeps_global_entries_large_or_small() -> None:
    tlb = Tlb()
    tlb.fill(entry(0x1000, is_global=True))
    tlb.fill(entry(0x2000))
    tlb.fill(entry(0x400000, mask=0x3FFFFF, is_global=True))
    tlb.fill(entry(0x800000, mask=0x3FFFFF))
    assert tlb.flush_nonglobal() == 2
    assert pages(tlb) == [0x1000, 0x400000]
    assert tlb.lookup(0x7FFFFF) is not None
    assert tlb.flush_all() == 2
    assert tlb.lookup(0x7FFFFF) is None
    assert tlb.flushes == 2


def test_flush_nonglobal_without_global_entries_drops_all() -> None:
    tlb = Tlb()
    tlb.fill(entry(0x1000))
    assert tlb.flush_nonglobal() == 1
    assert tlb.flushes == 1


def test_evicting_the_last_global_entry_forgets_that_there_was_one() -> None:
    tlb = Tlb(1)
    tlb.fill(entry(0x400000, mask=0x3FFFFF, is_global=True))
    tlb.fill(entry(0x1000))
    assert tlb.lookup(0x400000) is None
    assert tlb.flush_nonglobal() == 1


def test_a_tlb_needs_room() -> None:
    with pytest.raises(MachineError, match="makes no sense"):
        Tlb(0)
