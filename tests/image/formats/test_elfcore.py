from __future__ import annotations

import io
import random
import struct
from pathlib import Path

import pytest

from highmem.errors import InputError
from highmem.image.formats.opening import open_source
from highmem.image.formats.source import ImageSource
from support.image_reading import check_source, content, short_id, spans
from support.image_writers import Load, elf, elf_core, note, prstatus, qemu_state

RANDOM = random.Random(3).randbytes(1 << 16)
LOW, HIGH = RANDOM[:8192], RANDOM[8192 : 8192 + 5 * 4096]
TOP32, TOP64 = 2**32 - 1, 2**64 - 1

both_classes = pytest.mark.parametrize("bits", [32, 64])


def opened(tmp_path: Path, data: bytes) -> ImageSource:
    path = tmp_path / "vmcore"
    path.write_bytes(data)
    return open_source([str(path)])


@both_classes
def test_loads_are_memory_at_their_physical_address(tmp_path: Path, bits: int) -> None:
    source = opened(tmp_path, elf_core((0, LOW), (0x100000, HIGH), bits=bits))
    assert source.format == f"ELF{bits} core"
    assert source.notes == () and not source.damaged
    assert content(source) == {0: LOW, 0x100000: HIGH}
    assert source.ram == source.ranges
    assert (source.claims.machine, source.claims.linear_offset) == ("i386", None)
    check_source(source)


@both_classes
def test_another_reader_of_elf_sees_the_same_loads(tmp_path: Path, bits: int) -> None:
    elffile = pytest.importorskip("elftools.elf.elffile", reason="pyelftools is not installed")
    data = elf_core((0x5000, LOW), (0x100000, HIGH), bits=bits, notes=prstatus(7), linear=1 << 30)
    segments = list(elffile.ELFFile(io.BytesIO(data)).iter_segments("PT_LOAD"))
    assert content(opened(tmp_path, data)) == {
        segment["p_paddr"]: segment.data() for segment in segments
    }


def test_memory_above_4_gib_is_read_from_a_64_bit_core(tmp_path: Path) -> None:
    source = opened(tmp_path, elf_core((0, LOW), (1 << 32, HIGH), bits=64))
    assert spans(source)[1] == (1 << 32, (1 << 32) + len(HIGH))
    assert source.pages([(1 << 20) + 4])[0].tobytes() == HIGH[4 * 4096 :]


@both_classes
def test_registers_and_vmcoreinfo_come_from_the_notes(tmp_path: Path, bits: int) -> None:
    notes = (
        prstatus(1, eip=0xC1000000, esp=0xF6543210)
        + prstatus(2, eip=0xC1000004)
        + qemu_state(0x80050033, 0xB7F00000, 0x01B48000, 0x690, rip=0xC1000000, rsp=0xF6543210)
        + qemu_state(0x80050033, 0, 0x01B49000, 0x690)
        + note(b"VMCOREINFO", 0, b"OSRELEASE=6.1.0-50-686-pae\nPAGESIZE=4096\nnonsense\n")
    )
    claims = opened(tmp_path, elf_core((0, LOW), bits=bits, notes=notes)).claims
    assert [(cpu.cpu, cpu.source, cpu.cr3) for cpu in claims.cpus] == [
        (0, "QEMU", 0x01B48000),
        (1, "QEMU", 0x01B49000),
    ]
    first = claims.cpus[0]
    assert (first.cr0, first.cr2, first.cr4) == (0x80050033, 0xB7F00000, 0x690)
    assert (first.registers["eip"], first.registers["esp"]) == (0xC1000000, 0xF6543210)
    assert claims.vmcoreinfo == {"OSRELEASE": "6.1.0-50-686-pae", "PAGESIZE": "4096"}
    assert claims.page_size == 4096


def test_a_core_of_the_kernel_has_general_registers_only(tmp_path: Path) -> None:
    notes = prstatus(0, eip=0xC1012345) + prstatus(4711, esp=0xF5000000, eflags=0x246)
    cpus = opened(tmp_path, elf_core((0, LOW), notes=notes)).claims.cpus
    assert [(cpu.source, cpu.pid, cpu.cr3) for cpu in cpus] == [
        ("NT_PRSTATUS", 0, None),
        ("NT_PRSTATUS", 4711, None),
    ]
    assert cpus[0].registers["eip"] == 0xC1012345
    assert (cpus[1].registers["esp"], cpus[1].registers["eflags"]) == (0xF5000000, 0x246)


@both_classes
def test_virtual_addresses_tell_the_linear_offset(tmp_path: Path, bits: int) -> None:
    assert (
        opened(tmp_path, elf_core((0, HIGH), linear=0xC0000000)).claims.linear_offset == 0xC0000000
    )
    none = TOP32 if bits == 32 else TOP64
    at = 52 + 32 * 3 if bits == 32 else 64 + 56 * 3
    loads = [
        Load(1, at, 0x80000000, 0, 4096, 4096),
        Load(1, at, 0x80300000, 0x300000, 8192, 8192),
        Load(1, at, none, 0x900000, 20480, 20480),  # high memory has no address there
    ]
    source = opened(tmp_path, elf(loads, HIGH, bits=bits))
    assert source.claims.linear_offset == 0x80000000


def test_a_dump_with_paging_names_the_same_memory_many_times(tmp_path: Path) -> None:
    at = 52 + 32 * 4
    loads = [
        Load(1, at, 0xC0000000, 0, 20480, 20480),
        Load(1, at + 4096, 0x08048000, 0x1000, 4096, 4096),
        Load(1, at, 0xB7000000, 0, 8192, 8192),
        Load(1, TOP32, 0xFEC00000, 0xFEC00000, 0, 4096),  # a device: nothing in the file
    ]
    source = opened(tmp_path, elf(loads, HIGH))
    assert content(source) == {0: HIGH}
    assert source.notes == ()
    assert source.claims.linear_offset == 0xC0000000


@both_classes
def test_what_was_not_written_is_ram_but_not_in_the_image(tmp_path: Path, bits: int) -> None:
    source = opened(tmp_path, elf_core((0, LOW), (0x10000, HIGH), bits=bits, beyond=0x1000))
    assert spans(source) == [(0, 8192), (0x10000, 0x15000)]
    assert [tuple(piece) for piece in source.ram] == [(0, 12288), (0x10000, 0x16000)]
    check_source(source)


@both_classes
def test_descending_and_overlapping_ranges(tmp_path: Path, bits: int) -> None:
    source = opened(tmp_path, elf_core((0x4000, HIGH), (0x3000, LOW), (0x9000, LOW), bits=bits))
    assert content(source) == {0x3000: LOW[:4096] + HIGH + LOW[:0] + LOW}
    assert source.notes == ("1 overlapping range: the first in the file counts",)


@both_classes
def test_a_truncated_core_keeps_what_is_there(tmp_path: Path, bits: int) -> None:
    source = opened(
        tmp_path, elf_core((0, LOW), (0x10000, HIGH), (0x90000, LOW), bits=bits)[:-9000]
    )
    assert content(source) == {0: LOW, 0x10000: HIGH[: -9000 + 8192]}
    assert source.damaged
    assert source.notes == (
        "1 of 3 ranges is beyond the end of the file: left out",
        "1 of 3 ranges is cut off by the end of the file",
    )
    check_source(source)


@pytest.mark.parametrize(
    ("load", "cause"),
    [
        (Load(1, TOP64, 0, 0, 4096, 4096), "beyond the end of the file"),
        (Load(1, TOP64 - 100, 0, 0, 4096, 4096), "beyond the end of the file"),
        (Load(1, 2**63, 0, 0, TOP64, TOP64), "beyond what x86 can address"),
        (Load(1, 0, 0, TOP64, 4096, 4096), "beyond what x86 can address"),
        (Load(1, 0, 0, TOP64 - 4095, 4096, 4096), "beyond what x86 can address"),
        (Load(1, 0, 0, 2**52 - 4095, 4096, 4096), "beyond what x86 can address"),
        (Load(1, 0, 0, 1, TOP64, TOP64), "beyond what x86 can address"),
        (Load(1, 0, 0, 2**51, 2**51, 2**51), "cut off by the end of the file"),
    ],
)
def test_absurd_numbers_are_counted_and_left_out(tmp_path: Path, load: Load, cause: str) -> None:
    good = Load(1, 64 + 2 * 56, 0, 0x10000, len(HIGH), len(HIGH))
    source = opened(tmp_path, elf([load, good], HIGH, bits=64))
    assert source.read(0x10000, len(HIGH)) == HIGH
    (found,) = source.notes
    assert found.startswith("1 of 2 ranges is ") and cause in found and source.damaged
    check_source(source)


@both_classes
def test_more_headers_than_the_header_can_count(tmp_path: Path, bits: int) -> None:
    count = 70_000
    entry = 56 if bits == 64 else 32
    at = (64 if bits == 64 else 52) + entry * count + (64 if bits == 64 else 40)
    shape = "<II6Q" if bits == 64 else "<8I"
    flags = (0,) if bits == 64 else ()
    body = b"".join(struct.pack("<I", number) for number in range(count))
    # Every other word of memory: no two of them can be joined.
    loads = b"".join(
        struct.pack(shape, 1, *flags, at + 4 * n, 0, 8 * n, 4, 4, *(0,) * (2 - len(flags)))
        for n in range(count)
    )
    header = elf([], bits=bits, many=True, count=count)
    size = 64 if bits == 64 else 52
    field = (
        struct.pack("<Q", size + entry * count)
        if bits == 64
        else struct.pack("<I", size + entry * count)
    )
    start = 40 if bits == 64 else 32  # e_shoff: the section header now is behind all of them
    head = header[:start] + field + header[start + len(field) : size]
    source = opened(tmp_path, head + loads + header[size:] + body)
    assert len(source.ranges) == count and source.notes == ()
    assert source.read(8 * 69_999, 4) == struct.pack("<I", 69_999)
    page = struct.unpack("<1024I", source.pages([1])[0].tobytes())
    assert page[::2] == tuple(range(512, 1024)) and not any(page[1::2])


def wrong(data: bytes, **fields: tuple[str, int, int]) -> bytes:
    changed = bytearray(data)
    for shape, at, value in fields.values():
        struct.pack_into(shape, changed, at, value)
    return bytes(changed)


CORE32, CORE64 = elf_core((0, LOW)), elf_core((0, LOW), bits=64)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (elf([], LOW, kind=1), "an object file or kernel module, not a memory image"),
        (elf([], LOW, kind=2), "a program .a vmlinux belongs to the symbols., not a memory image"),
        (elf([], LOW, kind=3, bits=64), "a shared object"),
        (elf([], LOW, kind=77), "an ELF file, not a memory image"),
        (elf([], LOW, order=2), "big endian"),
        (b"\x7fELF", "its header makes no sense"),
        (CORE32[:40], "its header makes no sense"),
        (wrong(CORE32, klass=("B", 4, 9)), "its header makes no sense"),
        (wrong(CORE32, entry=("<H", 42, 56)), "its program headers have 56 bytes each"),
        (wrong(CORE64, entry=("<H", 54, 0)), "its program headers have 0 bytes each"),
        (wrong(CORE32, phoff=("<I", 28, TOP32)), "2 of 2 program headers are beyond the end"),
        (wrong(CORE64, phoff=("<Q", 32, TOP64)), "2 of 2 program headers are beyond the end"),
        (wrong(CORE32, count=("<H", 44, 0xFFFF), at=("<I", 32, TOP32)), "count of program headers"),
        (wrong(CORE64, count=("<H", 56, 0xFFFF), at=("<Q", 40, TOP64)), "count of program headers"),
        (elf([], LOW, many=True, count=TOP32), "4294967295 program headers, more than"),
        (elf([], LOW), "without any memory in it"),
        (elf([Load(1, 84, 0, 0, 0, 4096)], LOW), "without any memory in it"),
    ],
    ids=short_id,
)
def test_what_is_no_readable_core_is_refused(tmp_path: Path, data: bytes, cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        opened(tmp_path, data)


def test_headers_cut_off_at_the_end_are_counted(tmp_path: Path) -> None:
    data = wrong(elf([Load(1, 0, 0, 0, 52, 52)]), count=("<H", 44, 3))
    source = opened(tmp_path, data)
    assert source.read(0, 52) == data[:52]
    assert source.notes == ("2 of 3 program headers are beyond the end of the file",)


def test_notes_beyond_the_end_of_the_file_are_counted(tmp_path: Path) -> None:
    at = 64 + 3 * 56
    loads = [
        Load(4, TOP64 - 3, 0, 0, 1 << 40, 0),
        Load(4, at + len(LOW), 0, 0, 1 << 40, 0),
        Load(1, at, 0, 0, len(LOW), len(LOW)),
    ]
    source = opened(tmp_path, elf(loads, LOW + prstatus(5, eip=9), bits=64))
    assert source.claims.cpus[0].registers["eip"] == 9
    assert source.notes == (
        "0x10000000000 bytes of notes are beyond the end of the file",
        f"{(1 << 40) - 164:#x} bytes of notes are beyond the end of the file",
    )


@pytest.mark.parametrize(
    ("machine", "name"), [(62, "x86_64"), (40, "arm"), (999, "machine 999 of ELF")]
)
def test_other_machines_are_named(tmp_path: Path, machine: int, name: str) -> None:
    assert opened(tmp_path, elf_core((0, LOW), machine=machine)).claims.machine == name
