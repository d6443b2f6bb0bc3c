"""The walk and the entry formats; facts are those of the Intel SDM volume 3A, 4.3, 4.4 and 4.6."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highmem.errors import BusError, MachineError
from highmem.machine import paging
from highmem.machine.memory import PhysicalMemory
from highmem.machine.paging import (
    DIRTY,
    GLOBAL,
    NX,
    PAT,
    PAT_LARGE,
    PRESENT,
    PSE,
    RW,
    USER,
    Access,
    PagingMode,
    WalkFailure,
    describe_flags,
    page_fault,
    permits,
    walk,
)

CR3, TABLE, DIRECTORY = 0x1000, 0x5000, 0x3000
LINEAR = 0xFFFBB123  # in the window of CPU 0 slot 0: linux-facts.md 9.1, 7.3
FULL = PRESENT | RW | USER


def two_level(entry: int, pde: int = TABLE | FULL) -> PhysicalMemory:
    memory = PhysicalMemory(1 << 24)
    memory.write32(CR3 + 4 * (LINEAR >> 22), pde)
    memory.write32(TABLE + 4 * 955, entry)  # linux-facts.md 7.3: table + 955*4
    return memory


def three_level(
    entry: int, pde: int = TABLE | FULL, pdpte: int = DIRECTORY | PRESENT
) -> PhysicalMemory:
    memory = PhysicalMemory(1 << 24)
    memory.write64(CR3 + 8 * 3, pdpte)
    memory.write64(DIRECTORY + 8 * 511, pde)
    memory.write64(TABLE + 8 * ((LINEAR >> 12) & 511), entry)
    return memory


def test_a_window_entry_seen_in_a_real_kernel_walks_to_its_frame() -> None:
    # linux-facts.md 6: PTE 0x7ea02163, read from a running 5.10-686 kernel.
    found = walk(two_level(0x7EA02163), paging.two_level(), CR3, LINEAR)
    assert found.failure is None
    assert found.physical == 0x7EA02123
    assert found.page_size == 4096
    assert (found.rw, found.user, found.nx, found.is_global) == (True, False, False, True)
    assert [step.address for step in found.steps] == [CR3 + 4 * 1023, TABLE + 955 * 4]
    assert [step.level.name for step in found.steps] == ["page directory", "page table"]


def test_a_pae_window_entry_seen_in_a_real_kernel_walks_to_its_frame() -> None:
    # linux-facts.md 6: PTE 0x800000007f0dc163, read from a running 5.10-686-pae kernel.
    found = walk(three_level(0x800000007F0DC163), paging.pae(), CR3, LINEAR)
    assert found.physical == 0x7F0DC123
    assert (found.rw, found.user, found.nx, found.is_global) == (True, False, True, True)
    names = [step.level.name for step in found.steps]
    assert names == ["PDPT", "page directory", "page table"]


def test_the_pdpte_registers_stand_in_for_the_first_table() -> None:
    memory = three_level(0x7000 | FULL, pdpte=0)
    registers = (0, 0, 0, DIRECTORY | PRESENT)
    found = walk(memory, paging.pae(), registers, LINEAR)
    assert found.physical == 0x7123
    assert found.steps[0].address is None
    assert walk(memory, paging.pae(), CR3, LINEAR).failure is WalkFailure.NOT_PRESENT


def test_cr3_low_bits_are_not_part_of_the_address() -> None:
    memory = two_level(0x7000 | FULL)
    assert walk(memory, paging.two_level(), CR3 | 0xFFF, LINEAR).physical == 0x7123
    memory = three_level(0x7000 | FULL)
    assert walk(memory, paging.pae(), CR3 | 0x1F, LINEAR).physical == 0x7123


@pytest.mark.parametrize(
    ("pdpte", "pde", "pte", "failed_at"),
    [
        (0, TABLE | FULL, FULL, "PDPT"),
        (DIRECTORY | 1, 0xFFE, FULL, "page directory"),
        (DIRECTORY | 1, TABLE | FULL, 0xFFE, "page table"),
    ],
)
def test_a_clear_present_bit_ends_the_walk(pdpte: int, pde: int, pte: int, failed_at: str) -> None:
    found = walk(three_level(pte, pde, pdpte), paging.pae(), CR3, LINEAR)
    assert found.failure is WalkFailure.NOT_PRESENT
    assert found.physical is None
    assert found.page_size == 0
    assert found.leaf.level.name == failed_at


def test_a_large_page_of_four_mebibytes() -> None:
    memory = two_level(0, pde=0x00C00000 | FULL | PSE | GLOBAL)
    found = walk(memory, paging.two_level(), CR3, LINEAR)
    assert found.physical == 0x00C00000 | (LINEAR & 0x3FFFFF)
    assert found.page_size == 4 << 20
    assert found.is_global


def test_a_large_page_of_two_mebibytes_needs_no_cr4_pse() -> None:
    memory = three_level(0, pde=0x00A00000 | FULL | PSE | NX)
    found = walk(memory, paging.pae(), CR3, LINEAR)
    assert found.physical == 0x00A00000 | (LINEAR & 0x1FFFFF)
    assert found.page_size == 2 << 20
    assert found.nx


def test_without_cr4_pse_the_ps_bit_is_ignored() -> None:
    memory = two_level(0x7000 | FULL, pde=TABLE | FULL | PSE)
    assert walk(memory, paging.two_level(pse=False), CR3, LINEAR).physical == 0x7123


@given(st.integers(0, 0x3FF), st.integers(0, 0xF), st.integers(0, 0x3FFFFF))
def test_pse36_puts_four_bits_above_the_address(base: int, high: int, offset: int) -> None:
    memory = two_level(0, pde=base << 22 | high << 13 | FULL | PSE)
    linear = LINEAR & ~0x3FFFFF | offset
    found = walk(memory, paging.two_level(phys_bits=36), CR3, linear)
    assert found.physical == high << 32 | base << 22 | offset


@pytest.mark.parametrize(
    ("mode", "reserved"),
    [
        (paging.two_level(phys_bits=36), range(17, 22)),
        (paging.two_level(phys_bits=40), range(21, 22)),
        (paging.two_level(phys_bits=52), range(21, 22)),
        (paging.two_level(phys_bits=32), range(13, 22)),
        (paging.two_level(pse36=False), range(13, 22)),
        (paging.two_level(pat=False, phys_bits=40), [12, 21]),
    ],
)
def test_reserved_bits_of_a_four_mebibyte_page(mode: PagingMode, reserved: range) -> None:
    for bit in range(9, 22):
        memory = two_level(0, pde=FULL | PSE | 1 << bit)
        failure = walk(memory, mode, CR3, LINEAR).failure
        assert (failure is WalkFailure.RESERVED) == (bit in reserved), bit


@pytest.mark.parametrize("phys_bits", [32, 36, 40, 52])
@pytest.mark.parametrize("nx", [False, True])
def test_reserved_bits_of_pae_entries(phys_bits: int, nx: bool) -> None:
    mode = paging.pae(nx=nx, phys_bits=phys_bits)
    beyond = {*range(phys_bits, 63), *(() if nx else (63,))}
    for bit in range(24, 64):
        for memory in (
            three_level(FULL | 1 << bit),
            three_level(0, pde=FULL | PSE | 1 << bit),
        ):
            failure = walk(memory, mode, CR3, LINEAR).failure
            assert (failure is WalkFailure.RESERVED) == (bit in beyond), bit
    for bit in beyond:
        memory = three_level(FULL, pde=TABLE | FULL | 1 << bit)
        assert walk(memory, mode, CR3, LINEAR).leaf.level.name == "page directory"
    for bit in range(13, 21):
        memory = three_level(0, pde=FULL | PSE | 1 << bit)
        assert walk(memory, mode, CR3, LINEAR).failure is WalkFailure.RESERVED


@pytest.mark.parametrize("bit", [1, 2, 5, 6, 7, 8, 36, 63])
def test_reserved_bits_of_a_pdpte_read_from_memory(bit: int) -> None:
    memory = three_level(FULL, pdpte=DIRECTORY | PRESENT | 1 << bit)
    found = walk(memory, paging.pae(), CR3, LINEAR)
    assert found.failure is WalkFailure.RESERVED
    assert found.leaf.level.name == "PDPT"


@pytest.mark.parametrize(("pse", "pat", "refused"), [(1, 0, True), (1, 1, False), (0, 0, False)])
def test_the_pat_bit_of_a_page_table_entry_without_pat(pse: int, pat: int, refused: bool) -> None:
    mode = paging.two_level(pse=bool(pse), pat=bool(pat))
    found = walk(two_level(0x7000 | FULL | PAT), mode, CR3, LINEAR)
    assert (found.failure is WalkFailure.RESERVED) == refused
    pae_found = walk(three_level(FULL | PAT), paging.pae(pat=bool(pat)), CR3, LINEAR)
    assert (pae_found.failure is WalkFailure.RESERVED) == (not pat)


@given(st.integers(0, 3), st.integers(0, 3), st.booleans(), st.booleans())
def test_every_level_must_agree_to_a_right(upper: int, lower: int, nx1: bool, nx2: bool) -> None:
    memory = three_level(
        0x7000 | PRESENT | lower << 1 | NX * nx2, pde=TABLE | PRESENT | upper << 1 | NX * nx1
    )
    found = walk(memory, paging.pae(), CR3, LINEAR)
    assert found.rw == bool(upper & lower & 1)
    assert found.user == bool(upper & lower & 2)
    assert found.nx == (nx1 or nx2)


@given(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 7), st.booleans())
def test_rights_are_those_of_the_sdm(rw: bool, user: bool, nx: bool, access: int, wp: bool) -> None:
    # SDM 4.6.1, one sentence at a time, for a supervisor or user address.
    by_user, by_fetch = bool(access & Access.USER), bool(access & Access.FETCH)
    allowed = True
    if access & Access.WRITE:
        allowed = (user and rw) if by_user else (rw or not wp)
    elif by_user:
        allowed = user
    if by_fetch and nx:
        allowed = False
    assert permits(rw, user, nx, access, wp) == allowed


@pytest.mark.parametrize(
    ("access", "code"),
    [
        (Access.READ, 0),
        (Access.WRITE, 0b10),
        (Access.USER, 0b100),
        (Access.WRITE | Access.USER, 0b110),
        (Access.FETCH, 0b10000),
        (Access.FETCH | Access.USER, 0b10100),
    ],
)
def test_error_codes_of_a_page_that_is_not_present(access: Access, code: int) -> None:
    mode = paging.pae()
    fault = page_fault(walk(three_level(0), mode, CR3, LINEAR), mode, access)
    assert fault.error_code == code
    assert fault.address == LINEAR
    assert (fault.level, fault.entry, fault.cause) == ("page table", 0, "not present")
    old = paging.two_level()
    without_nx = page_fault(walk(two_level(0), old, CR3, LINEAR), old, access)
    assert without_nx.error_code == code & ~0b10000


def test_a_reserved_bit_sets_two_bits_of_the_error_code() -> None:
    mode = paging.pae()
    fault = page_fault(walk(three_level(FULL | 1 << 40), mode, CR3, LINEAR), mode, Access.WRITE)
    assert fault.error_code == 0b1011
    assert fault.cause == "reserved bits set"


@pytest.mark.parametrize(
    ("pde", "pte", "access", "code", "level", "cause"),
    [
        (FULL, PRESENT | USER, Access.WRITE, 3, "page table", "write to a read-only page"),
        (
            PRESENT | RW,
            FULL,
            Access.USER,
            5,
            "page directory",
            "user access to a supervisor page",
        ),
        (FULL | NX, FULL, Access.FETCH, 17, "page directory", "fetch from a no-execute page"),
    ],
)
def test_a_protection_fault_names_the_entry_that_refused(
    pde: int, pte: int, access: Access, code: int, level: str, cause: str
) -> None:
    mode = paging.pae()
    fault = page_fault(walk(three_level(pte, TABLE | pde), mode, CR3, LINEAR), mode, access)
    assert fault.error_code == code
    assert fault.level == level
    assert cause in fault.cause
    assert str(fault).startswith(f"page fault at 0xfffbb123, error code {code:#x}: ")


def test_a_fault_for_an_access_that_nothing_refuses_is_a_mistake() -> None:
    mode = paging.two_level()
    with pytest.raises(MachineError, match="refuses nothing"):
        page_fault(walk(two_level(FULL), mode, CR3, LINEAR), mode, Access.READ)


@pytest.mark.parametrize("address", [-1, 1 << 32])
def test_a_linear_address_has_32_bits(address: int) -> None:
    with pytest.raises(MachineError, match="not a 32-bit linear address"):
        walk(PhysicalMemory(4096), paging.two_level(), 0, address)


def test_a_table_beyond_the_memory_is_a_bus_error() -> None:
    with pytest.raises(BusError):
        walk(two_level(0, pde=0x10000000 | FULL), paging.two_level(), CR3, LINEAR)


def test_flags_are_described_by_their_level() -> None:
    directory, table = paging.two_level().levels
    # linux-facts.md 6: 0x163 is kmap_prot; 7.3: 0x067 and 0x063 are PDEs seen live.
    assert describe_flags(0x163, table) == ("PRESENT", "RW", "ACCESSED", "DIRTY", "GLOBAL")
    assert describe_flags(0x067, directory) == ("PRESENT", "RW", "USER", "ACCESSED")
    assert describe_flags(PRESENT | PAT, table) == ("PRESENT", "PAT")
    large = PRESENT | PSE | PAT_LARGE | DIRTY
    assert describe_flags(large, directory) == ("PRESENT", "DIRTY", "PSE", "PAT_LARGE")
    assert describe_flags(0xFFFFFFFE, table) == ()


def test_flags_of_pae_entries() -> None:
    pointers, _, table = paging.pae().levels
    assert describe_flags(0x80000000_00000E19, table) == (
        "PRESENT",
        "PWT",
        "PCD",
        "SOFTW1",
        "SOFTW2",
        "SOFTW3",
        "NX",
    )
    assert describe_flags(NX | 0xFFF, pointers) == (
        "PRESENT",
        "PWT",
        "PCD",
        "SOFTW1",
        "SOFTW2",
        "SOFTW3",
    )


@pytest.mark.parametrize("mode", [paging.two_level(), paging.pae()])
def test_the_levels_cut_all_32_bits(mode: PagingMode) -> None:
    assert sum(level.bits for level in mode.levels) + 12 == 32
    assert [level.is_leaf for level in mode.levels][-1]
    assert mode.levels[-1].entries * mode.entry_size == 4096
