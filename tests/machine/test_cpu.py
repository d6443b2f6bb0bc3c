"""Accesses of one CPU, its TLB and the bits that it sets: Intel SDM volume 3A, 4.6 to 4.10."""

from __future__ import annotations

import pytest

from highmem.errors import BusError, MachineError
from highmem.machine.bus import OpKind
from highmem.machine.cpu import CpuFeatures
from highmem.machine.paging import ACCESSED, DIRTY, GLOBAL, NX, PRESENT, PSE, RW, USER, PageFault
from support.small_machine import SmallMachine

PAGE, FRAME, OTHER = 0x5000, 0x400000, 0x401000
KERNEL = PRESENT | RW

both = pytest.mark.parametrize("pae", [False, True], ids=["two-level", "PAE"])


def mapped(entry: int = FRAME | KERNEL, **options: object) -> SmallMachine:
    small = SmallMachine(**options)  # type: ignore[arg-type]
    small.map(PAGE, entry)
    small.memory.write(FRAME, b"\x11" * 4096)
    small.memory.write(OTHER, b"\x22" * 4096)
    return small


@both
def test_an_access_reaches_the_frame(pae: bool) -> None:
    small = mapped(pae=pae)
    small.cpu.write32(PAGE + 8, 0xDEADBEEF)
    assert small.memory.read32(FRAME + 8) == 0xDEADBEEF
    assert small.cpu.read16(PAGE + 8) == 0xBEEF
    assert small.cpu.read8(PAGE + 11) == 0xDE
    assert small.cpu.translate(PAGE + 0xABC) == FRAME + 0xABC


@both
def test_a_changed_entry_is_not_seen_before_invlpg(pae: bool) -> None:
    small = mapped(pae=pae)
    assert small.cpu.read8(PAGE) == 0x11
    small.map(PAGE, OTHER | KERNEL)
    assert small.cpu.read8(PAGE) == 0x11
    small.cpu.invlpg(PAGE + 0x123)
    assert small.cpu.read8(PAGE) == 0x22


@both
def test_a_cleared_entry_still_translates_until_invlpg(pae: bool) -> None:
    small = mapped(pae=pae)
    small.cpu.read8(PAGE)
    small.map(PAGE, 0)
    assert small.cpu.read8(PAGE + 5) == 0x11
    small.cpu.invlpg(PAGE)
    with pytest.raises(PageFault) as caught:
        small.cpu.read8(PAGE + 5)
    assert (caught.value.address, caught.value.error_code) == (PAGE + 5, 0)
    assert small.cpu.cr2 == PAGE + 5


@both
def test_an_entry_that_is_not_present_is_never_cached(pae: bool) -> None:
    small = mapped(0, pae=pae)
    with pytest.raises(PageFault):
        small.cpu.read8(PAGE)
    small.map(PAGE, FRAME | KERNEL)
    assert small.cpu.read8(PAGE) == 0x11


def test_a_cr3_load_drops_all_but_global_entries() -> None:
    small = mapped(FRAME | KERNEL | GLOBAL)
    small.map(PAGE + 0x1000, FRAME | KERNEL)
    for page in (PAGE, PAGE + 0x1000):
        small.cpu.read8(page)
        small.map(page, OTHER | KERNEL)
    small.cpu.load_cr3(small.cr3)
    assert small.cpu.read8(PAGE) == 0x11
    assert small.cpu.read8(PAGE + 0x1000) == 0x22


@pytest.mark.parametrize("features", [CpuFeatures(pge=False), CpuFeatures()])
def test_the_global_bit_means_nothing_without_pge(features: CpuFeatures) -> None:
    small = mapped(FRAME | KERNEL | GLOBAL, features=features)
    small.cpu.set_pge(False)
    small.cpu.read8(PAGE)
    small.map(PAGE, OTHER | KERNEL)
    small.cpu.load_cr3(small.cr3)
    assert small.cpu.read8(PAGE) == 0x22


@pytest.mark.parametrize("pge", [True, False])
def test_toggling_pge_drops_everything_and_rewriting_it_nothing(pge: bool) -> None:
    small = mapped(FRAME | KERNEL | GLOBAL)
    small.cpu.read8(PAGE)
    small.map(PAGE, OTHER | KERNEL)
    small.cpu.set_pge(pge)
    assert small.cpu.cr4_pge is pge
    assert small.cpu.read8(PAGE) == (0x11 if pge else 0x22)


def test_each_cpu_has_a_tlb_of_its_own() -> None:
    small = mapped(cpus=2)
    first, second = small.machine.cpus
    assert first.read8(PAGE) == second.read8(PAGE) == 0x11
    small.map(PAGE, OTHER | KERNEL)
    first.invlpg(PAGE)
    assert first.read8(PAGE) == 0x22
    assert second.read8(PAGE) == 0x11


@both
def test_a_read_sets_accessed_on_the_way_and_a_write_dirty_at_the_leaf(pae: bool) -> None:
    small = mapped(pae=pae)
    small.set_directory(0, 0x3000 | KERNEL)
    small.cpu.read8(PAGE)
    assert small.entry(PAGE) == FRAME | KERNEL | ACCESSED
    assert small.memory.read32(small.directory) == 0x3000 | KERNEL | ACCESSED
    small.cpu.write8(PAGE, 0)
    assert small.entry(PAGE) == FRAME | KERNEL | ACCESSED | DIRTY
    assert small.memory.read32(small.directory) == 0x3000 | KERNEL | ACCESSED
    if pae:
        assert small.memory.read64(small.cr3) == 0x2000 | PRESENT, "a PDPTE has no A bit"


def test_the_upper_half_of_a_pae_entry_survives_accessed_and_dirty() -> None:
    small = mapped(NX | FRAME | KERNEL, pae=True)
    small.cpu.write8(PAGE, 1)
    assert small.entry(PAGE) == NX | FRAME | KERNEL | ACCESSED | DIRTY


def test_a_write_through_a_clean_cached_entry_walks_again() -> None:
    small = mapped()
    small.cpu.read8(PAGE)
    small.map(PAGE, OTHER | KERNEL)
    small.cpu.write8(PAGE, 0x33)
    assert small.memory.read8(OTHER) == 0x33
    assert small.memory.read8(FRAME) == 0x11
    assert small.entry(PAGE) & DIRTY


def test_a_write_through_a_clean_cached_entry_faults_when_the_table_entry_is_gone() -> None:
    small = mapped()
    small.cpu.read8(PAGE)
    small.map(PAGE, 0)
    with pytest.raises(PageFault) as caught:
        small.cpu.write8(PAGE, 0)
    assert caught.value.error_code == 0b10
    with pytest.raises(PageFault):
        small.cpu.read8(PAGE)  # the fault dropped the stale entry too


def test_a_dirty_cached_entry_sets_no_bit_again() -> None:
    small = mapped()
    small.cpu.write8(PAGE, 0)
    small.map(PAGE, FRAME | KERNEL)
    small.cpu.write8(PAGE, 1)
    assert small.entry(PAGE) == FRAME | KERNEL


def test_preset_bits_are_not_written() -> None:
    small = mapped(FRAME | KERNEL | ACCESSED | DIRTY)
    small.observe()
    small.cpu.write8(PAGE, 0)
    assert OpKind.ACCESSED_DIRTY_SET not in [op.kind for op in small.ops]


def test_a_refused_access_marks_the_directory_but_not_the_leaf() -> None:
    small = mapped()
    small.set_directory(0, 0x3000 | KERNEL | USER)
    with pytest.raises(PageFault):
        small.cpu.read8(PAGE, user=True)
    assert small.memory.read32(small.directory) & ACCESSED
    assert small.entry(PAGE) == FRAME | KERNEL


def test_cr0_wp_binds_the_supervisor() -> None:
    small = mapped(FRAME | PRESENT)
    assert small.cpu.cr0_wp
    with pytest.raises(PageFault) as caught:
        small.cpu.write8(PAGE, 0)
    assert caught.value.error_code == 0b11
    small.cpu.cr0_wp = False
    small.cpu.write8(PAGE, 0x44)
    assert small.memory.read8(FRAME) == 0x44
    small.cpu.cr0_wp = True
    with pytest.raises(PageFault, match="TLB entry"):
        small.cpu.write8(PAGE, 0)


def test_user_writes_need_rw_whatever_wp_says() -> None:
    small = mapped(FRAME | PRESENT | USER)
    small.cpu.cr0_wp = False
    assert small.cpu.read8(PAGE, user=True) == 0x11
    with pytest.raises(PageFault) as caught:
        small.cpu.write8(PAGE, 0, user=True)
    assert caught.value.error_code == 0b111


def test_a_refusal_by_a_stale_entry_is_spurious_and_gone_on_retry() -> None:
    small = mapped(FRAME | PRESENT)
    small.cpu.read8(PAGE)
    small.map(PAGE, FRAME | KERNEL)
    with pytest.raises(PageFault) as caught:
        small.cpu.write8(PAGE, 0x55)
    assert (caught.value.error_code, caught.value.level) == (0b11, None)
    small.cpu.write8(PAGE, 0x55)
    assert small.memory.read8(FRAME) == 0x55


def test_no_execute_stops_fetches_only() -> None:
    small = mapped(NX | FRAME | KERNEL, pae=True)
    assert small.cpu.read8(PAGE) == 0x11
    with pytest.raises(PageFault) as caught:
        small.cpu.fetch(PAGE)
    assert caught.value.error_code == 0b10001
    small.map(PAGE + 0x1000, OTHER | KERNEL)
    assert small.cpu.fetch(PAGE + 0x1000, 3) == b"\x22" * 3


def test_bit_63_is_reserved_while_nxe_is_clear() -> None:
    small = mapped(NX | FRAME | KERNEL, pae=True)
    small.cpu.efer_nxe = False
    assert small.cpu.efer_nxe is False
    with pytest.raises(PageFault) as caught:
        small.cpu.fetch(PAGE)
    assert caught.value.error_code == 0b1001, "P and RSVD, and no I/D without NXE"
    small.cpu.efer_nxe = True
    assert small.cpu.read8(PAGE) == 0x11


def test_a_large_page_is_cached_as_one() -> None:
    small = SmallMachine()
    small.set_directory(2, 0x400000 | KERNEL | PSE)
    small.memory.write8(0x400000 + 0x3FF000, 0x66)
    small.cpu.read8(0x800000)
    small.set_directory(2, 0)
    assert small.cpu.read8(0x800000 + 0x3FF000) == 0x66
    assert len(small.cpu.tlb) == 1
    small.cpu.invlpg(0x900000)
    with pytest.raises(PageFault):
        small.cpu.read8(0x800000)


def test_changing_pse_changes_the_meaning_of_ps_and_drops_everything() -> None:
    small = SmallMachine()
    small.set_directory(2, 0x4000 | KERNEL | PSE)
    small.memory.write32(0x4000, FRAME | KERNEL)
    small.memory.write8(FRAME, 0x77)
    small.cpu.cr4_pse = False
    assert small.cpu.cr4_pse is False
    assert small.cpu.read8(0x800000) == 0x77
    small.cpu.cr4_pse = True
    with pytest.raises(BusError) as caught:
        small.cpu.read8(0x800000)
    assert caught.value.address == 1 << 33, "bit 14 is now a PSE-36 bit, number 33"


@pytest.mark.parametrize("length", [2, 4, 8])
@both
def test_words_may_cross_a_page_end(pae: bool, length: int) -> None:
    small = mapped(pae=pae)
    small.map(PAGE + 0x1000, 0x700000 | KERNEL)
    address = PAGE + 0x1000 - length // 2
    value = 0x8877665544332211 & ((1 << 8 * length) - 1)
    getattr(small.cpu, f"write{8 * length}")(address, value)
    raw = value.to_bytes(length, "little")
    assert small.memory.read(FRAME + 0x1000 - length // 2, length // 2) == raw[: length // 2]
    assert small.memory.read(0x700000, length - length // 2) == raw[length // 2 :]
    assert getattr(small.cpu, f"read{8 * length}")(address) == value
    inside = PAGE + 0x100
    getattr(small.cpu, f"write{8 * length}")(inside, value)
    assert getattr(small.cpu, f"read{8 * length}")(inside) == value


def test_a_word_over_a_page_end_is_stored_whole_or_not_at_all() -> None:
    small = mapped()
    with pytest.raises(PageFault) as caught:
        small.cpu.write32(PAGE + 0xFFE, 0)
    assert caught.value.address == PAGE + 0x1000
    assert small.memory.read(FRAME + 0xFFE, 2) == b"\x11\x11"


def test_a_block_goes_page_by_page_and_stops_at_the_fault() -> None:
    small = mapped()
    assert small.cpu.read(PAGE + 0xFF0, 16) == b"\x11" * 16
    with pytest.raises(PageFault):
        small.cpu.write(PAGE + 0xFF0, b"z" * 32)
    assert small.memory.read(FRAME + 0xFF0, 16) == b"z" * 16
    small.map(PAGE + 0x1000, OTHER | KERNEL)
    small.cpu.write(PAGE + 0xFF0, bytes(range(32)))
    assert small.cpu.read(PAGE + 0xFF0, 32) == bytes(range(32))
    assert small.memory.read(OTHER, 16) == bytes(range(16, 32))


def test_addresses_wrap_at_four_gibibytes() -> None:
    small = SmallMachine()
    small.set_directory(1023, 0x4000 | KERNEL)
    small.memory.write32(0x4000 + 4 * 1023, FRAME | KERNEL)
    small.map(0, OTHER | KERNEL)
    small.cpu.write32(0xFFFFFFFE, 0xAABBCCDD)
    assert small.memory.read16(FRAME + 0xFFE) == 0xCCDD
    assert small.memory.read16(OTHER) == 0xAABB


def test_an_address_beyond_32_bits_is_refused_even_with_a_full_tlb() -> None:
    small = mapped()
    small.cpu.read8(PAGE)
    with pytest.raises(MachineError, match="32-bit linear address"):
        small.cpu.read8((1 << 32) + PAGE)


def test_a_translation_beyond_the_memory_is_a_bus_error() -> None:
    small = mapped(0x10000000 | KERNEL)
    with pytest.raises(BusError):
        small.cpu.read32(PAGE)


def test_eviction_makes_a_changed_entry_visible() -> None:
    small = mapped(tlb_capacity=2)
    small.cpu.read8(PAGE)
    small.map(PAGE, OTHER | KERNEL)
    for page in (0x6000, 0x7000):
        small.map(page, FRAME | KERNEL)
        small.cpu.read8(page)
    assert small.cpu.tlb.evictions == 1
    assert small.cpu.read8(PAGE) == 0x22


@both
def test_entries_are_read_and_written_by_physical_address(pae: bool) -> None:
    small = SmallMachine(pae=pae)
    place = small.entry_address(PAGE)
    if pae:
        small.cpu.write_entry32(place + 4, 0x80000000)
    small.cpu.write_entry32(place, FRAME | 0x163)
    assert small.cpu.read_entry(place) == (NX if pae else 0) | FRAME | 0x163
    assert small.cpu.walk(PAGE).physical == FRAME


def test_a_walk_has_no_effect() -> None:
    small = mapped()
    small.observe()
    assert small.cpu.walk(PAGE).physical == FRAME
    assert small.entry(PAGE) == FRAME | KERNEL
    assert len(small.cpu.tlb) == 0
    assert small.ops == []
