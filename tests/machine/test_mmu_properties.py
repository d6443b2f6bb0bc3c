"""Laws that hold for any tables and any history."""

from __future__ import annotations

from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from highmem.machine.paging import (
    ACCESSED,
    DIRTY,
    GLOBAL,
    NX,
    PRESENT,
    RW,
    USER,
    PageFault,
    page_fault,
    permits,
)
from support.small_machine import SmallMachine

PAGES = [n << 12 for n in range(6)]
FRAMES = [0x400000 + (n << 12) for n in range(4)]

flags = st.sets(st.sampled_from([PRESENT, RW, USER, GLOBAL, ACCESSED, DIRTY])).map(sum)
entries = st.tuples(st.sampled_from(FRAMES), flags, st.booleans())
accesses = st.tuples(st.sampled_from(PAGES), st.integers(0, 7))
histories = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from(PAGES), entries),
        st.tuples(st.just("access"), st.sampled_from(PAGES), st.integers(0, 7)),
        st.tuples(st.just("reload"), st.just(0), st.just(0)),
        st.tuples(st.just("wp"), st.just(0), st.integers(0, 1)),
    ),
    max_size=40,
)


def attempt(small: SmallMachine, address: int, access: int) -> int | tuple[int, int]:
    """The physical address, or the fault's address and error code."""
    try:
        return small.cpu.translate(
            address, write=bool(access & 1), user=bool(access & 2), fetch=bool(access & 4)
        )
    except PageFault as fault:
        return fault.address, fault.error_code


def expected(small: SmallMachine, address: int, access: int) -> int | tuple[int, int]:
    """What the tables say, with no TLB between."""
    walked = small.cpu.walk(address)
    allowed = permits(walked.rw, walked.user, walked.nx, access, small.cpu.cr0_wp)
    if walked.physical is not None and allowed:
        return walked.physical
    fault = page_fault(walked, small.cpu.mode, access)
    return fault.address, fault.error_code


def set_entry(small: SmallMachine, page: int, entry: tuple[int, int, bool]) -> None:
    frame, bits, nx = entry
    small.map(page, frame | bits | (NX if nx and small.pae else 0))


@given(histories, st.booleans(), st.integers(1, 8))
def test_with_invlpg_after_every_change_the_tlb_cannot_be_seen(
    history: list[tuple[str, int, object]], pae: bool, capacity: int
) -> None:
    small = SmallMachine(pae=pae, tlb_capacity=capacity)
    for do, page, what in history:
        if do == "set":
            set_entry(small, page, cast(tuple[int, int, bool], what))
            small.cpu.invlpg(page)
        elif do == "reload":
            small.cpu.load_cr3(small.cr3)
        elif do == "wp":
            small.cpu.cr0_wp = bool(what)
        else:
            assert isinstance(what, int)
            wanted = expected(small, page + 0x123, what)
            assert attempt(small, page + 0x123, what) == wanted


@given(histories, st.booleans(), st.integers(1, 8))
def test_the_tlb_stays_within_its_capacity_and_holds_only_what_was_mapped(
    history: list[tuple[str, int, object]], pae: bool, capacity: int
) -> None:
    small = SmallMachine(pae=pae, tlb_capacity=capacity)
    mapped: dict[int, set[int]] = {page: set() for page in PAGES}
    for do, page, what in history:
        if do == "set":
            frame, bits, _ = entry = cast(tuple[int, int, bool], what)
            set_entry(small, page, entry)
            if bits & PRESENT:
                mapped[page].add(frame)
        elif do == "access":
            assert isinstance(what, int)
            attempt(small, page, what)
        tlb = small.cpu.tlb
        assert len(tlb) <= capacity
        assert tlb.fills >= len(tlb) + tlb.evictions
        assert all(held.base in mapped[held.page] for held in tlb)


@given(st.lists(accesses, max_size=30), st.dictionaries(st.sampled_from(PAGES), entries))
def test_accesses_change_nothing_in_the_tables_but_accessed_and_dirty(
    wanted: list[tuple[int, int]], mapping: dict[int, tuple[int, int, bool]]
) -> None:
    small = SmallMachine()
    for page, entry in mapping.items():
        set_entry(small, page, entry)
    before = {page: small.entry(page) for page in PAGES}
    written = set()
    for page, access in wanted:
        result = attempt(small, page, access)
        if isinstance(result, int) and access & 1:
            written.add(page)
    for page in PAGES:
        gained = before[page] ^ small.entry(page)
        assert gained & ~(ACCESSED | DIRTY) == 0
        assert before[page] & small.entry(page) == before[page], "the silicon clears no bit"
        assert not gained & DIRTY or page in written
        assert page not in written or small.entry(page) & DIRTY
