from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highmem.errors import BusError
from highmem.image.tables import (
    MAY_USE,
    MAY_WRITE,
    NO_EXECUTE,
    Mappings,
    SourceMemory,
    image_mode,
    read_mappings,
)
from highmem.machine.entry import ACCESSED, GLOBAL, NX, PRESENT, PSE, RW, USER
from highmem.machine.paging import PagingMode, WalkFailure
from support.image_memory import FrameSource
from support.image_samples import SAMPLES, TlbLine, as_info_tlb, parse_tlb, sample


@pytest.mark.parametrize("cpu", [0, 1])
@pytest.mark.parametrize("name", SAMPLES)
def test_the_mappings_of_a_real_kernel_are_those_that_qemu_lists(name: str, cpu: int) -> None:
    one = sample(name)
    mappings = read_mappings(one.kernel.source, one.kernel.root.mode, one.cr3(cpu))
    theirs = one.tlb(cpu)
    assert len(theirs) > 2500
    assert as_info_tlb(mappings) == theirs
    assert len(mappings) == len(theirs), "an address twice"
    assert not len(mappings.missing) and not len(mappings.reserved)


def test_the_real_images_have_large_pages_user_pages_and_no_execute() -> None:
    lines = sample("linux-6.1-686-pae").tlb(0)
    for letter in "XGPDACTUW":
        assert any(letter in line.flags for line in lines), letter


def test_parse_tlb_takes_nx_out_of_the_physical_address() -> None:
    text = "00000000fffab000: 800000000f863000 XG-DA---W\n"
    assert parse_tlb(text) == {TlbLine(0xFFFAB000, 0xF863000, "XG-DA---W")}


# Against the scalar walk, on tables that hold anything.


FRAMES = range(0x10, 0x18)
BEYOND = 0x40


def random_world(rng: random.Random, is_pae: bool) -> tuple[FrameSource, PagingMode, int]:
    """Eight frames of tables that lead to each other, to themselves and out of the image."""
    mode = image_mode(is_pae=is_pae)
    size = mode.entry_size
    frames = {}
    for frame in FRAMES:
        words = []
        for _ in range(4096 // size):
            words.append(random_entry(rng, is_pae) if rng.random() < 0.4 else 0)
        frames[frame] = struct.pack(f"<{4096 // size}{'Q' if is_pae else 'I'}", *words)
    # The last 32 bytes of a frame with nothing behind are the ends of what a PDPT can be.
    root = rng.choice([0x10000, 0x10FE0, 0x17FE0]) if is_pae else 0x10000
    return FrameSource(frames), mode, root | rng.choice([0, 0x18])


def random_entry(rng: random.Random, is_pae: bool) -> int:
    kind = rng.random()
    entry = rng.getrandbits(12) & ~PSE | PRESENT
    if kind < 0.75:
        entry |= rng.choice([*FRAMES, rng.choice(FRAMES), BEYOND]) << 12
        entry &= ~0x1E6 if rng.random() < 0.3 else ~0  # what a PDPTE may not have
    elif kind < 0.9:
        entry |= PSE | rng.getrandbits(32) & 0xFFFFF000
    else:
        entry = rng.getrandbits(32)
    if is_pae:
        entry |= NX if rng.random() < 0.2 else 0
        entry |= rng.getrandbits(20) << 32 if rng.random() < 0.1 else 0
        entry |= rng.getrandbits(11) << 52 if rng.random() < 0.03 else 0
    return entry


def interesting(rng: random.Random, mappings: Mappings) -> list[int]:
    starts = [*mappings.address.tolist(), *mappings.reserved.address.tolist()]
    starts += mappings.missing.address.tolist()
    chosen = rng.sample(starts, min(len(starts), 60))
    found = [rng.getrandbits(32) for _ in range(20)] + [0, 0xFFFFFFFF]
    for start in chosen:
        found += [start, start + rng.randrange(1 << 22), max(0, start - 1)]
    return [address for address in found if address < 1 << 32]


def check_against_scalar(source: FrameSource, mode: PagingMode, root: int, seed: int) -> int:
    rng = random.Random(seed)
    mappings = read_mappings(source, mode, root)
    addresses = interesting(rng, mappings)
    translated = mappings.translate(addresses).tolist()
    memory, mapped = SourceMemory(source), 0
    for address, physical in zip(addresses, translated, strict=True):
        row = mappings.index(address)
        try:
            walked = memory.walk(mode, root, address)
        except BusError:
            assert physical == -1 and row is None
            assert covers(mappings.missing.address, mappings.missing.level, mode, address, -1)
            continue
        assert physical == (-1 if walked.physical is None else walked.physical)
        assert (row is None) == (walked.physical is None)
        if row is not None:
            mapped += 1
            rights = int(mappings.rights[row])
            assert bool(rights & MAY_WRITE) == walked.rw
            assert bool(rights & MAY_USE) == walked.user
            assert bool(rights & NO_EXECUTE) == walked.nx
            assert int(mappings.entry[row]) == walked.leaf.entry
            assert int(mappings.shift[row]) == walked.page_shift
        refused = covers(mappings.reserved.address, mappings.reserved.level, mode, address, 0)
        assert refused == (walked.failure is WalkFailure.RESERVED)
    return mapped


def covers(
    addresses: np.ndarray, levels: np.ndarray, mode: PagingMode, address: int, up: int
) -> bool:
    """Whether one of these entries (*up* -1: of the tables that they lead to) has *address*."""
    for start, number in zip(addresses.tolist(), levels.tolist(), strict=True):
        shift = 32 if number + up < 0 else mode.levels[number + up].shift
        if start <= address < start + (1 << shift):
            return True
    return False


@pytest.mark.parametrize("is_pae", [False, True])
@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=25, deadline=None)
def test_all_tables_at_once_say_what_each_walk_says(is_pae: bool, seed: int) -> None:
    source, mode, root = random_world(random.Random(seed), is_pae)
    check_against_scalar(source, mode, root, seed)


def test_random_worlds_have_mappings_refusals_and_missing_tables() -> None:
    totals = np.zeros(3, int)
    for seed in range(20):
        source, mode, root = random_world(random.Random(seed), bool(seed % 2))
        mappings = read_mappings(source, mode, root)
        totals += [len(mappings) > 0, len(mappings.reserved) > 0, len(mappings.missing) > 0]
    assert (totals > 3).all(), totals


# Cases by hand, from the SDM's tables.


def two_level(entries: dict[int, int], tables: dict[int, dict[int, int]]) -> FrameSource:
    def frame(content: dict[int, int]) -> bytes:
        return struct.pack("<1024I", *(content.get(n, 0) for n in range(1024)))

    return FrameSource({1: frame(entries), **{n: frame(c) for n, c in tables.items()}})


def test_pse36_puts_bits_13_to_20_above_bit_32() -> None:
    source = two_level({5: 0x00400000 | 0x3 << 13 | PSE | PRESENT}, {})
    mappings = read_mappings(source, image_mode(is_pae=False), 0x1000)
    assert mappings.physical.tolist() == [0x3_0040_0000]
    assert mappings.translate([5 << 22 | 0x123]).tolist() == [0x3_0040_0123]


def test_without_pse_the_bit_means_nothing() -> None:
    source = two_level({5: 0x2000 | PSE | PRESENT}, {2: {7: 0x9000 | PRESENT}})
    mappings = read_mappings(source, image_mode(is_pae=False, pse=False), 0x1000)
    assert mappings.address.tolist() == [5 << 22 | 7 << 12]


def test_reserved_bit_21_of_a_large_page_maps_nothing() -> None:
    source = two_level({5: 1 << 21 | PSE | PRESENT}, {})
    mappings = read_mappings(source, image_mode(is_pae=False), 0x1000)
    assert not len(mappings)
    assert mappings.reserved.address.tolist() == [5 << 22]


def test_a_directory_that_is_its_own_table_ends() -> None:
    source = two_level(dict.fromkeys(range(1024), 0x1000 | RW | PRESENT), {})
    mappings = read_mappings(source, image_mode(is_pae=False), 0x1000)
    assert len(mappings) == 1 << 20
    assert set(mappings.physical.tolist()) == {0x1000}
    assert mappings.tables == 2  # the directory, and itself as the only page table


def test_rights_need_every_level_and_one_no_execute_is_enough() -> None:
    def frame(content: dict[int, int]) -> bytes:
        return struct.pack("<512Q", *(content.get(n, 0) for n in range(512)))

    source = FrameSource(
        {
            1: struct.pack("<4Q", 0x2001, 0, 0, 0).ljust(4096, b"\0"),
            2: frame({0: 0x3000 | PRESENT | RW | USER, 1: 0x3000 | PRESENT | USER | NX}),
            3: frame({0: 0x5000 | PRESENT | RW | USER, 1: 0x6000 | PRESENT | RW}),
        }
    )
    mappings = read_mappings(source, image_mode(is_pae=True), 0x1000)
    assert dict(zip(mappings.address.tolist(), mappings.rights.tolist(), strict=True)) == {
        0x000000: MAY_WRITE | MAY_USE,
        0x001000: MAY_WRITE,
        0x200000: MAY_USE | NO_EXECUTE,
        0x201000: NO_EXECUTE,
    }


def test_a_pdpte_with_accessed_set_by_qemu_counts_and_one_with_rw_does_not() -> None:
    table = struct.pack("<512Q", *([0x5000 | PRESENT] * 512))
    frames = {
        1: struct.pack("<4Q", 0x2000 | PRESENT | ACCESSED, 0x2000 | PRESENT | RW, 0, 0).ljust(
            4096, b"\0"
        ),
        2: struct.pack("<512Q", 0x3000 | PRESENT, *([0] * 511)),
        3: table,
    }
    mappings = read_mappings(FrameSource(frames), image_mode(is_pae=True), 0x1000)
    assert len(mappings) == 512
    assert mappings.reserved.address.tolist() == [1 << 30]


@pytest.mark.parametrize("root", [0x20000, 0xFFFFFFE0, 0x1FF0])
def test_a_root_that_the_image_lacks_is_one_missing_table(root: int) -> None:
    source = FrameSource({1: bytes(4096)})
    for is_pae in (False, True):
        mappings = read_mappings(source, image_mode(is_pae=is_pae), root)
        present = root & 0xFFFFF000 == 0x1000  # 0x1ff0 is cut to a place inside the frame
        assert not len(mappings)
        assert len(mappings.missing) == (0 if present else 1)
        assert (mappings.frames == -1).all()


def test_a_pdpt_over_the_end_of_the_image_is_missing() -> None:
    # 32 bytes from 0x1fe0 on are the last of the frame; one that is cut off cannot be asked for.
    class Cut(FrameSource):
        def read(self, paddr: int, size: int) -> bytes:
            if paddr + size > 0x1FF0:
                return super().read(0x2000, size)
            return super().read(paddr, size)

    mappings = read_mappings(Cut({1: bytes(4096)}), image_mode(is_pae=True), 0x1FE0)
    assert len(mappings.missing) == 1


# Ranges and runs.


def test_between_has_every_page_with_a_byte_in_the_range() -> None:
    source = two_level(
        {0: 0x2000 | PRESENT, 1: 0x00400000 | PSE | PRESENT},
        {2: {n: (0x100 + n) << 12 | PRESENT for n in (0, 1, 5)}},
    )
    mappings = read_mappings(source, image_mode(is_pae=False), 0x1000)
    addresses = mappings.address.tolist()
    for start, end, wanted in [
        (0, 1 << 32, [0, 0x1000, 0x5000, 0x400000]),
        (0xFFF, 0x1000, [0]),
        (0x1000, 0x1001, [0x1000]),
        (0x2000, 0x5000, []),
        (0x500000, 0x500001, [0x400000]),
        (0x800000, 0x900000, []),
        (0, 0, []),
    ]:
        assert addresses[mappings.between(start, end)] == wanted, (start, end)


@given(seed=st.integers(0, 1 << 32), exact=st.booleans())
@settings(max_examples=20, deadline=None)
def test_runs_hold_the_same_pages_as_before(seed: int, exact: bool) -> None:
    rng = random.Random(seed)
    # Entries that often go on with the next frame.
    table, frame = {}, 0x100
    for n in range(200):
        frame = frame + 1 if rng.random() < 0.8 else rng.randrange(0x100, 0x400)
        if rng.random() < 0.9:
            table[n] = frame << 12 | PRESENT | rng.choice([0, 0, 0, GLOBAL, ACCESSED])
    source = two_level({0: 0x2000 | RW | USER | PRESENT}, {2: table})
    mappings = read_mappings(source, image_mode(is_pae=False), 0x1000)
    cuts = [rng.randrange(200) << 12 for _ in range(3)]
    runs = mappings.runs(cuts=cuts, exact=exact)
    seen: dict[int, int] = {}
    for address, size, physical in zip(
        runs.address.tolist(), runs.size.tolist(), runs.physical.tolist(), strict=True
    ):
        pages = range(0, size, 4096)
        seen |= {address + offset: physical + offset for offset in pages}
        assert not any(address < cut < address + size for cut in cuts)
        kept = ~0 if exact else ~ACCESSED
        flags = {table[(address + offset) >> 12] & 0xFFF & kept for offset in pages}
        assert len(flags) == 1
    assert seen == dict(zip(mappings.address.tolist(), mappings.physical.tolist(), strict=True))
    ends = (runs.address + runs.size)[:-1]
    for n in np.flatnonzero(runs.address[1:] == ends).tolist():
        goes_on = runs.physical[n + 1] == runs.physical[n] + runs.size[n]
        first, second = (int(runs.entry[k]) & 0xFFF for k in (n, n + 1))
        alike = (first ^ second) & (0xFFF if exact else ~ACCESSED) == 0
        # With ACCESSED left aside a run's first entry stands for all of its flags.
        assert not (goes_on and alike and int(runs.address[n + 1]) not in cuts and not exact)
