from __future__ import annotations

import struct

import pytest

from highmem.image.formats.notes import read_notes, read_vmcoreinfo
from support.image_writers import note, prstatus, qemu_state


def test_registers_of_a_64_bit_machine_have_their_names() -> None:
    content = bytearray(336)
    struct.pack_into("<i", content, 32, 123)
    struct.pack_into("<27Q", content, 112, *range(100, 127))
    (cpu,) = read_notes(note(b"CORE", 1, bytes(content))).cpus
    # struct user_regs_struct of arch/x86/include/asm/user_64.h: r15 first, rip the 17th
    assert cpu.pid == 123
    assert [cpu.registers[name] for name in ("r15", "rax", "rip", "rsp", "gs")] == [
        100,
        110,
        116,
        119,
        126,
    ]


def test_a_wide_state_of_qemu_has_the_names_of_64_bits() -> None:
    facts = read_notes(qemu_state(1, 2, 3, 4, rip=0xFFFFFFFF81000000, rsp=1 << 63))
    registers = facts.cpus[0].registers
    assert (registers["rip"], registers["rsp"]) == (0xFFFFFFFF81000000, 1 << 63)
    assert "eip" not in registers and registers["r15"] == 0


def test_unknown_notes_are_passed_over() -> None:
    facts = read_notes(
        note(b"LINUX", 0x46E62B7F, bytes(512)) + prstatus(3) + note(b"CORE", 3, b"x")
    )
    assert [cpu.pid for cpu in facts.cpus] == [3] and facts.problems == ()


def test_each_run_of_notes_stands_for_itself() -> None:
    broken = struct.pack("<III", 5, 1 << 31, 1)
    facts = read_notes(bytes(400), broken, prstatus(9), prstatus(8) + bytes(200) + prstatus(7))
    # A note of zeros ends a run: the buffers of the kernel are longer than their content.
    assert [cpu.pid for cpu in facts.cpus] == [9, 8]
    assert len(facts.problems) == 1


@pytest.mark.parametrize(
    ("name_size", "size"),
    [(5, 2**32 - 1), (2**32 - 1, 0), (2**32 - 1, 2**32 - 1), (5, 1000), (0, 13), (2**32 - 4, 4)],
)
def test_a_note_of_wild_size_ends_the_reading(name_size: int, size: int) -> None:
    facts = read_notes(prstatus(1) + struct.pack("<III", name_size, size, 1) + bytes(12))
    assert [cpu.pid for cpu in facts.cpus] == [1]
    (problem,) = facts.problems
    assert (
        f"at 0xa4 of 0xbc claims {name_size:#x} bytes of name and {size:#x} of content" in problem
    )


def test_states_of_unknown_length_are_counted() -> None:
    wrong = note(b"CORE", 1, bytes(145)) + note(b"CORE", 1, b"") + note(b"QEMU", 0, bytes(431))
    facts = read_notes(
        wrong + prstatus(4) + note(b"QEMU", 0, struct.pack("<II", 2, 440) + bytes(432))
    )
    assert [cpu.pid for cpu in facts.cpus] == [4]
    assert facts.problems == ("4 notes about CPUs of unknown length, or too many",)


def test_more_cpus_than_linux_can_have_are_counted() -> None:
    facts = read_notes(prstatus(1) * 8200)
    assert len(facts.cpus) == 8192
    assert facts.problems == ("8 notes about CPUs of unknown length, or too many",)


def test_both_kinds_of_state_must_agree_on_the_cpus() -> None:
    facts = read_notes(prstatus(1) * 3 + qemu_state(0, 0, 0x1000, 0))
    assert [cpu.cr3 for cpu in facts.cpus] == [0x1000]
    assert facts.problems == ("registers of 3 CPUs, control registers of 1",)


def test_vmcoreinfo_is_made_fit_to_be_shown() -> None:
    text = b"A=1\nB=\x1b[31mred\nnothing\nC=x=y\nD=\nA=2\n\xff=\xfe\0\0\0"
    assert read_vmcoreinfo(text) == {
        "A": "2",
        "B": "\\x1b[31mred",
        "C": "x=y",
        "D": "",
        "\\xff": "\\xfe",
    }  # table


def test_a_vmcoreinfo_of_a_gigabyte_is_cut() -> None:
    found = read_vmcoreinfo(b"KEY" * 100_000 + b"=" + b"v" * (1 << 21))
    assert [(len(key), len(value)) for key, value in found.items()] == [(200, 1000)]
