"""ELF cores of a whole machine: QEMU's ``dump-guest-memory`` and the kernel's /proc/vmcore.

Each PT_LOAD header says which bytes of the file are which physical memory (``p_paddr``); where
``p_memsz`` is more than ``p_filesz`` the rest is RAM that was not written.  PT_NOTE headers
lead to the notes.  A dump of QEMU with paging has one PT_LOAD for each run of mapped addresses,
so the same memory may be named many times; all of them point at the same place of the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from highmem.errors import InputError
from highmem.image.formats.flat import FlatSource
from highmem.image.formats.mapped import MappedFile
from highmem.image.formats.notes import MAX_NOTES, NoteFacts, read_notes
from highmem.image.formats.segments import MAX_SEGMENTS, Segments, as_ranges
from highmem.image.formats.source import PHYSICAL_LIMIT, Claims, RamRange

__all__ = ["MAGIC", "open_elf"]

MAGIC = b"\x7fELF"
_ET_CORE = 4
_PT_LOAD, _PT_NOTE = 1, 4
_PN_XNUM = 0xFFFF
_MACHINES = {3: "i386", 8: "mips", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}
_NO_CORES = {
    1: "an object file or kernel module",
    2: "a program (a vmlinux belongs to the symbols)",
    3: "a shared object (a vmlinux belongs to the symbols)",
}

_Table = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Class:
    """Where a class of ELF has its fields: struct formats and numpy's for program headers."""

    bits: int
    header: struct.Struct  # e_type, e_machine, e_phoff, e_shoff, e_phentsize, e_phnum
    sh_info: int
    program: np.dtype[np.void]


def _fields(*names: str) -> np.dtype[np.void]:
    return np.dtype([(name[1:], "<u8" if name[0] == "8" else "<u4") for name in names])


_CLASSES = {
    1: _Class(
        32,
        struct.Struct("<16xHH8xII6xHH"),
        28,
        _fields("4type", "4offset", "4vaddr", "4paddr", "4filesz", "4memsz", "4flags", "4align"),
    ),
    2: _Class(
        64,
        struct.Struct("<16xHH12xQQ6xHH"),
        44,
        _fields("4type", "4flags", "8offset", "8vaddr", "8paddr", "8filesz", "8memsz", "8align"),
    ),
}  # table


def open_elf(file: MappedFile) -> FlatSource:
    """The image in *file*.  Ranges that the file does not hold are left out and counted.

    Raises InputError for an ELF file that is no little endian core, or holds no memory.
    """
    head = file.bytes_at(0, 64)
    shape = _CLASSES.get(head[4]) if len(head) > 5 else None
    if shape is None or len(head) < shape.header.size or head[5] != 1:
        cause = "big endian" if len(head) > 5 and head[5] == 2 else "its header makes no sense"
        raise InputError(file.name, f"an ELF file that cannot be read: {cause}")
    kind, machine, phoff, shoff, entry_size, count = shape.header.unpack_from(head)
    if kind != _ET_CORE:
        raise InputError(file.name, f"{_NO_CORES.get(kind, 'an ELF file')}, not a memory image")
    if count == _PN_XNUM:
        count = _real_count(file, shoff + shape.sh_info)
    programs, notes = _program_headers(file, shape, phoff, entry_size, count)
    found = _read_all_notes(file, programs[programs["type"] == _PT_NOTE], notes)
    loads = programs[programs["type"] == _PT_LOAD]
    segments = _segments(file, loads, notes)
    claims = Claims(
        machine=_MACHINES.get(machine, f"machine {machine} of ELF"),
        page_size=_page_size(found),
        cpus=found.cpus,
        vmcoreinfo=found.vmcoreinfo,
        linear_offset=_linear_offset(loads, shape.bits),
    )
    return FlatSource(
        f"ELF{shape.bits} core",
        (file,),
        segments,
        claims=claims,
        notes=(*notes, *found.problems),
        ram=_ram(loads),
        damaged=bool(notes),
    )


def _real_count(file: MappedFile, at: int) -> int:
    """The number of program headers where it does not fit the header: section 0's sh_info."""
    word = file.bytes_at(at, 4)
    if len(word) < 4:
        raise InputError(file.name, "its count of program headers is beyond its end")
    return int.from_bytes(word, "little")


def _program_headers(
    file: MappedFile, shape: _Class, at: int, entry_size: int, count: int
) -> tuple[_Table, list[str]]:
    if entry_size != shape.program.itemsize:
        raise InputError(file.name, f"its program headers have {entry_size} bytes each")
    if count > MAX_SEGMENTS:
        raise InputError(file.name, f"{count} program headers, more than {MAX_SEGMENTS}")
    notes = []
    here = min(count, max(0, file.size - at) // entry_size)
    if here < count:
        notes.append(f"{count - here} of {count} program headers are beyond the end of the file")
    table = file.data[at : at + here * entry_size] if here else file.data[:0]
    return table.view(shape.program), notes


def _segments(file: MappedFile, loads: _Table, notes: list[str]) -> Segments:
    """The ranges that the file holds; appends what is wrong with others to *notes*."""
    loads = loads[loads["filesz"] > 0]
    start, size, offset = (loads[name].astype(np.uint64) for name in ("paddr", "filesz", "offset"))
    limit, end = np.uint64(PHYSICAL_LIMIT), np.uint64(file.size)
    possible = (start < limit) & (size <= limit - np.minimum(start, limit))
    inside = offset < end
    short = inside & (size > end - np.minimum(offset, end))
    for count, what in (
        (~possible, "beyond what x86 can address: left out"),
        (possible & ~inside, "beyond the end of the file: left out"),
        (possible & short, "cut off by the end of the file"),
    ):
        if number := int(np.count_nonzero(count)):
            notes.append(f"{number} of {len(loads)} ranges {'is' if number == 1 else 'are'} {what}")
    kept = possible & inside
    size = np.minimum(size[kept], end - offset[kept])
    return Segments.build(start[kept], size, offset[kept])


def _ram(loads: _Table) -> tuple[RamRange, ...]:
    """RAM by the headers where that is more than what was written."""
    start, size = loads["paddr"].astype(np.uint64), loads["memsz"].astype(np.uint64)
    limit = np.uint64(PHYSICAL_LIMIT)
    kept = (start < limit) & (size <= limit - np.minimum(start, limit)) & (size > 0)
    if not np.any(loads["memsz"][kept] > loads["filesz"][kept]):
        return ()
    first = start[kept].astype(np.int64)
    order = np.argsort(first, kind="stable")
    return as_ranges(first[order], (first + size[kept].astype(np.int64))[order])


def _linear_offset(loads: _Table, bits: int) -> int | None:
    """Virtual minus physical address of most bytes; None where virtual ones are not given."""
    none = np.uint64((1 << bits) - 1)
    virtual, physical = loads["vaddr"].astype(np.uint64), loads["paddr"].astype(np.uint64)
    given = (virtual != physical) & (virtual != 0) & (virtual != none) & (physical != none)
    if not given.any():
        return None
    offsets, which = np.unique((virtual - physical)[given] & none, return_inverse=True)
    weight = np.bincount(which, loads["memsz"][given].astype(np.float64))
    return int(offsets[int(weight.argmax())])


def _page_size(found: NoteFacts) -> int | None:
    text = (found.vmcoreinfo or {}).get("PAGESIZE", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else None


def _read_all_notes(file: MappedFile, headers: _Table, problems: list[str]) -> NoteFacts:
    blobs, budget = [], MAX_NOTES
    for header in headers[:1024]:
        offset, size = int(header["offset"]), int(header["filesz"])
        part = file.bytes_at(offset, min(size, budget))
        if len(part) < min(size, budget):
            problems.append(f"{size - len(part):#x} bytes of notes are beyond the end of the file")
        budget -= len(part)
        blobs.append(part)
    return read_notes(*blobs)
