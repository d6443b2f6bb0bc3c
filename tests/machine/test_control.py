"""Control registers and the observation of every operation."""

from __future__ import annotations

import pytest

from highmem.errors import MachineError
from highmem.machine import GeneralProtection, HardwareOp, Machine, PageFault, PhysicalMemory
from highmem.machine.bus import Bus, OpKind
from highmem.machine.cpu import Cpu, CpuFeatures
from highmem.machine.paging import GLOBAL, PRESENT, RW
from support.small_machine import SmallMachine

PAGE, FRAME = 0x5000, 0x400000


def kinds(small: SmallMachine) -> list[OpKind]:
    return [op.kind for op in small.ops]


def test_a_machine_shares_one_memory_and_one_bus() -> None:
    machine = Machine(1 << 20, cpus=3)
    assert [cpu.id for cpu in machine.cpus] == [0, 1, 2]
    assert {id(cpu.memory) for cpu in machine.cpus} == {id(machine.memory)}
    assert machine.mode.name == "32-bit"
    assert Machine(1 << 20, pae=True).mode.name == "PAE"


def test_a_machine_takes_a_memory_that_exists() -> None:
    memory = PhysicalMemory(8192)
    assert Machine(1 << 30, memory=memory).memory is memory


def test_a_machine_needs_a_cpu() -> None:
    with pytest.raises(MachineError, match="makes no sense"):
        Machine(4096, cpus=0)


@pytest.mark.parametrize("bits", [31, 53])
def test_physical_addresses_have_32_to_52_bits(bits: int) -> None:
    with pytest.raises(MachineError, match="32 to 52"):
        CpuFeatures(phys_bits=bits)


def test_features_that_are_missing_cannot_be_switched_on() -> None:
    bare = CpuFeatures(pse=False, pge=False, nx=False)
    cpu = Cpu(0, PhysicalMemory(4096), Bus(), bare, pae=True)
    assert (cpu.cr4_pse, cpu.cr4_pge, cpu.efer_nxe, cpu.cr4_pae) == (False, False, False, True)
    with pytest.raises(GeneralProtection, match=r"CR4\.PGE"):
        cpu.set_pge(True)
    with pytest.raises(GeneralProtection, match=r"CR4\.PSE"):
        cpu.cr4_pse = True
    with pytest.raises(GeneralProtection, match=r"EFER\.NXE"):
        cpu.efer_nxe = True


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_cr3_has_32_bits(value: int) -> None:
    with pytest.raises(GeneralProtection, match="32-bit register"):
        SmallMachine().cpu.load_cr3(value)


@pytest.mark.parametrize("bit", [1, 2, 5, 6, 7, 8, 36, 63])
def test_mov_cr3_refuses_reserved_bits_in_a_present_pdpte(bit: int) -> None:
    small = SmallMachine(pae=True)
    small.memory.write64(0x6008, 0x2000 | PRESENT | 1 << bit)
    before = (small.cpu.cr3, small.cpu.pdptes)
    with pytest.raises(GeneralProtection, match="PDPTE 1 at 0x6008"):
        small.cpu.load_cr3(0x6000)
    assert (small.cpu.cr3, small.cpu.pdptes) == before
    small.memory.write64(0x6008, 1 << bit)
    small.cpu.load_cr3(0x6000)
    assert small.cpu.pdptes == (0, 1 << bit, 0, 0)


def test_a_changed_pdpte_is_seen_only_after_mov_cr3() -> None:
    small = SmallMachine(pae=True)
    small.map(PAGE, FRAME | PRESENT | RW)
    small.memory.write64(small.cr3, 0)
    small.cpu.read8(PAGE)
    small.cpu.load_cr3(small.cr3)
    with pytest.raises(PageFault) as caught:
        small.cpu.read8(PAGE)
    assert caught.value.level == "PDPT"


def test_changing_pge_reloads_the_pdptes() -> None:
    small = SmallMachine(pae=True)
    small.memory.write64(small.cr3 + 8, 0x2000 | PRESENT)
    small.cpu.set_pge(True)
    assert small.cpu.pdptes[1] == 0, "an unchanged PGE loads nothing"
    small.cpu.set_pge(False)
    assert small.cpu.pdptes[1] == 0x2000 | PRESENT


def test_two_level_paging_has_no_pdptes() -> None:
    assert SmallMachine().cpu.pdptes == ()


def test_nobody_looking_sees_the_same_machine() -> None:
    def drive(small: SmallMachine) -> tuple[object, ...]:
        cpu = small.cpu
        cpu.write_entry32(small.entry_address(PAGE), FRAME | 0x103)
        cpu.write64(PAGE + 0xFFC - 0x10, 0x1122334455667788)
        cpu.invlpg(PAGE)
        cpu.interrupts_enabled = False
        values = (cpu.read16(PAGE), cpu.fetch(PAGE, 4), cpu.read(PAGE, 9), cpu.read8(PAGE))
        tlb = cpu.tlb
        return (*values, small.entry(PAGE), tlb.hits, tlb.misses, cpu.interrupts_enabled)

    watched, alone = SmallMachine(), SmallMachine()
    watched.observe()
    assert drive(watched) == drive(alone)
    assert watched.ops
    assert not alone.ops


def test_a_first_write_shows_its_bits_its_fill_and_itself() -> None:
    small = SmallMachine()
    small.map(PAGE, FRAME | PRESENT | RW)
    small.observe()
    small.cpu.write32(PAGE + 4, 0x99)
    assert small.ops == [
        HardwareOp(OpKind.ACCESSED_DIRTY_SET, 0, small.entry_address(PAGE), FRAME | 0x63, 4),
        HardwareOp(OpKind.TLB_FILL, 0, PAGE, FRAME, 4096),
        HardwareOp(OpKind.MEMORY_WRITE, 0, FRAME + 4, 0x99, 4),
    ]


def test_every_kind_of_operation_is_observed() -> None:
    small = SmallMachine(tlb_capacity=1)
    small.map(PAGE, FRAME | PRESENT | RW | GLOBAL)
    small.map(0x6000, FRAME | PRESENT | RW)
    small.observe()
    cpu = small.cpu
    cpu.read32(PAGE)
    cpu.write32(0x6000, 1)
    cpu.fetch(PAGE)
    cpu.write_entry32(0x7000, 3)
    cpu.read_entry(0x7000)
    cpu.invlpg(PAGE)
    cpu.load_cr3(small.cr3)
    cpu.set_pge(False)
    cpu.cr0_wp = False
    cpu.efer_nxe = False
    cpu.interrupts_enabled = False
    with pytest.raises(PageFault):
        cpu.read8(0x9000)
    assert set(kinds(small)) == set(OpKind)


def test_flushes_say_how_many_entries_went() -> None:
    small = SmallMachine()
    for page, flags in ((0x4000, GLOBAL), (0x5000, 0), (0x6000, 0)):
        small.map(page, FRAME | PRESENT | flags)
        small.cpu.read8(page)
    small.observe()
    small.cpu.invlpg(0x4000)
    small.cpu.invlpg(0x4000)
    small.cpu.load_cr3(small.cr3)
    small.cpu.set_pge(False)
    found = [(op.kind, op.value) for op in small.ops if op.kind.name.startswith("TLB")]
    assert found == [
        (OpKind.TLB_FLUSH_ONE, 1),
        (OpKind.TLB_FLUSH_ONE, 0),
        (OpKind.TLB_FLUSH_NONGLOBAL, 2),
        (OpKind.TLB_FLUSH_ALL, 0),
    ]


def test_a_fault_is_observed_with_its_error_code() -> None:
    small = SmallMachine()
    small.observe()
    with pytest.raises(PageFault):
        small.cpu.write8(PAGE + 3, 0, user=True)
    assert small.ops == [HardwareOp(OpKind.FAULT, 0, PAGE + 3, 0b110)]


def test_accesses_of_every_width_are_observed_once_per_page() -> None:
    small = SmallMachine()
    for page in (PAGE, PAGE + 0x1000):
        small.map(page, FRAME | 0x63)
        small.cpu.read8(page)
    small.observe()
    cpu = small.cpu
    for width in (8, 16, 32, 64):
        getattr(cpu, f"write{width}")(PAGE, width)
        assert getattr(cpu, f"read{width}")(PAGE) == width
    cpu.write(PAGE + 0xFFE, b"abcd")
    cpu.read16(PAGE + 0xFFF)
    assert [op.size for op in small.ops] == [1, 1, 2, 2, 4, 4, 8, 8, 2, 2, 1, 1]
    assert small.ops[8].value == int.from_bytes(b"ab", "little")


def test_the_observer_may_act_between_two_operations() -> None:
    small = SmallMachine(cpus=2)
    small.map(PAGE, FRAME | 0x63)
    other = small.machine.cpus[1]

    def write_after_fill(op: HardwareOp) -> None:
        if op.kind is OpKind.TLB_FILL and op.cpu == 0:
            other.write8(PAGE, 0x42)

    small.machine.bus.observer = write_after_fill
    assert small.cpu.read8(PAGE) == 0x42
