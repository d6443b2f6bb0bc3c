"""Tiny writers of memory images, after the published formats and not after the readers.

LiME: its README, "LiME Memory Range Header Version 1".  ELF: the System V ABI, chapter 5, and
``struct elf_prstatus`` of Linux.  kdump and flattened: makedumpfile's IMPLEMENTATION file.
LZO: Documentation/staging/lzo.rst of Linux.  Snappy: its format_description.txt.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import zstandard

__all__ = [
    "FLAGS",
    "PAGE",
    "Kdump",
    "elf",
    "elf_core",
    "flattened",
    "lime",
    "lzo_literals",
    "note",
    "prstatus",
    "qemu_state",
    "snappy_literals",
]

PAGE = 4096
FLAGS = {"none": 0, "zlib": 1, "lzo": 2, "snappy": 4, "zstd": 0x20}


def lime(*ranges: tuple[int, bytes], version: int = 1) -> bytes:
    """A LiME image of (physical address, content)."""
    return b"".join(
        struct.pack("<IIQQQ", 0x4C694D45, version, at, at + len(data) - 1, 0) + data
        for at, data in ranges
    )


# -- notes ----------------------------------------------------------------------------


def note(name: bytes, kind: int, content: bytes) -> bytes:
    """One note with its paddings."""
    name += b"\0"
    padded = name + bytes(-len(name) % 4) + content + bytes(-len(content) % 4)
    return struct.pack("<III", len(name), len(content), kind) + padded


def prstatus(pid: int, **registers: int) -> bytes:
    """An NT_PRSTATUS note of i386; registers by name, those not given are 0."""
    order = "ebx ecx edx esi edi ebp eax ds es fs gs orig_eax eip cs eflags esp ss"
    content = bytearray(144)
    struct.pack_into("<i", content, 24, pid)
    struct.pack_into("<17I", content, 72, *(registers.get(name, 0) for name in order.split()))
    return note(b"CORE", 1, bytes(content))


def qemu_state(cr0: int, cr2: int, cr3: int, cr4: int, *, rip: int = 0, rsp: int = 0) -> bytes:
    """QEMU's own note, QEMUCPUState version 1."""
    general = [0] * 18
    general[6], general[16] = rsp, rip
    content = struct.pack("<II18Q", 1, 440, *general) + bytes(240)
    return note(b"QEMU", 0, content + struct.pack("<6Q", cr0, 0, cr2, cr3, cr4, 0))


# -- ELF ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """A program header: type 1 is PT_LOAD, 4 PT_NOTE."""

    kind: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int


def elf(
    loads: Sequence[Load],
    body: bytes = b"",
    *,
    bits: int = 32,
    machine: int = 3,
    kind: int = 4,
    order: int = 1,
    count: int | None = None,
    many: bool = False,
) -> bytes:
    """An ELF file: header, program headers, then *body* (offsets are the caller's).

    *many* writes the count as section 0's ``sh_info`` behind the program headers, as the ABI has it
    for 65535 and more.
    """
    wide = bits == 64
    head_size, entry, section = (64, 56, 64) if wide else (52, 32, 40)
    number = len(loads) if count is None else count
    end = head_size + entry * len(loads)
    ident = b"\x7fELF" + bytes((bits // 32, order, 1)) + bytes(9)
    shape = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
    fields = (kind, machine, 1, 0, head_size, end if many else 0, 0, head_size, entry)
    counts = (0xFFFF if many else number, section if many else 0, int(many), 0)
    out = ident + struct.pack(shape, *fields, *counts)
    for load in loads:
        if wide:
            out += struct.pack(
                "<II6Q",
                load.kind,
                0,
                load.offset,
                load.vaddr,
                load.paddr,
                load.filesz,
                load.memsz,
                0,
            )
        else:
            out += struct.pack(
                "<8I", load.kind, load.offset, load.vaddr, load.paddr, load.filesz, load.memsz, 0, 0
            )
    if many:
        header = bytearray(section)
        struct.pack_into("<I", header, 44 if wide else 28, number)
        out += header
    return out + body


def elf_core(
    *ranges: tuple[int, bytes],
    bits: int = 32,
    notes: bytes = b"",
    linear: int | None = None,
    machine: int = 3,
    beyond: int = 0,
) -> bytes:
    """A core of (physical address, content) with *notes*.

    ``p_vaddr`` is the address plus *linear*, or 0; *beyond* is how much more ``p_memsz`` is.
    """
    at = (64 + 56 * (len(ranges) + 1)) if bits == 64 else (52 + 32 * (len(ranges) + 1))
    loads = [Load(4, at, 0, 0, len(notes), len(notes))]
    body, at = notes, at + len(notes)
    for paddr, data in ranges:
        vaddr = 0 if linear is None else paddr + linear & (1 << bits) - 1
        loads.append(Load(1, at, vaddr, paddr, len(data), len(data) + beyond))
        body, at = body + data, at + len(data)
    return elf(loads, body, bits=bits, machine=machine)


# -- kdump ----------------------------------------------------------------------------


def lzo_literals(data: bytes) -> bytes:
    """*data* (at least 19 bytes) as LZO1X without a match: one run of literals, end mark."""
    more = len(data) - 3 - 15
    zeros, last = divmod(more - 1, 255)
    return b"\0" * (1 + zeros) + bytes((last + 1,)) + data + b"\x11\0\0"


def snappy_literals(data: bytes) -> bytes:
    """*data* (1 to 65536 bytes) as raw Snappy: one run of literals."""
    length, rest = b"", len(data)
    while rest > 127:
        length, rest = length + bytes((rest & 127 | 128,)), rest >> 7
    return length + bytes((rest, 61 << 2)) + struct.pack("<H", len(data) - 1) + data


PACK: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "zlib": zlib.compress,
    "lzo": lzo_literals,
    "snappy": snappy_literals,
    "zstd": zstandard.ZstdCompressor().compress,
}


@dataclass
class Kdump:
    """A kdump compressed dump of *pages* (frame number to content); :meth:`build` writes it.

    *ram* are frames that the machine has, by default those in the file.  *packed* replaces what
    :data:`PACK` makes of a frame, with its flags.  *descriptors* may change the entries (offset,
    size, flags) at the last moment, *header* and *sub* the fields by name.
    """

    pages: Mapping[int, bytes]
    ram: Sequence[int] = ()
    bits: int = 32
    packing: str = "zlib"
    version: int = 6
    vmcoreinfo: bytes = b""
    notes: bytes = b""
    machine: bytes = b"i686"
    release: bytes = b""
    status: int = 0
    bitmaps: int = 2
    max_mapnr: int | None = None
    split: tuple[int, int] | None = None
    share_equal: bool = True
    packed: Mapping[int, tuple[bytes, int]] = field(default_factory=dict)
    descriptors: Callable[[list[list[int]]], None] | None = None
    header: Mapping[str, int] = field(default_factory=dict)
    sub: Mapping[str, int] = field(default_factory=dict)

    def build(self) -> bytes:
        """The bytes of the file."""
        present = set(self.pages) | set(self.packed)
        ram = set(self.ram) | present
        mapnr = max(ram, default=0) + 1 if self.max_mapnr is None else self.max_mapnr
        blocks = -(-mapnr // (8 * PAGE)) or 1
        extra_at = PAGE + 256  # notes and VMCOREINFO lie behind the sub header
        extra = self.vmcoreinfo + bytes(-len(self.vmcoreinfo) % 4) + self.notes
        sub_blocks = -(-(256 + len(extra)) // PAGE)
        head = self._header(mapnr, sub_blocks, blocks * self.bitmaps).ljust(PAGE, b"\0")
        sub = self._sub(mapnr, extra_at).ljust(256, b"\0") + extra
        maps = [_bitmap(ram, blocks), _bitmap(present, blocks)][2 - self.bitmaps :]
        table, data = self._pages(sorted(present), (1 + sub_blocks + blocks * self.bitmaps) * PAGE)
        return head + sub.ljust(sub_blocks * PAGE, b"\0") + b"".join(maps) + table + data

    def _header(self, mapnr: int, sub_blocks: int, bitmap_blocks: int) -> bytes:
        uts = [b"Linux", b"node", self.release, b"#1 SMP", self.machine, b""]
        names = b"".join(name.ljust(65, b"\0") for name in uts)
        values = {
            "status": self.status,
            "block_size": PAGE,
            "sub_hdr_size": sub_blocks,
            "bitmap_blocks": bitmap_blocks,
            "max_mapnr": min(mapnr, 0xFFFFFFFF),
            "total_ram_blocks": 0,
            "device_blocks": 0,
            "written_blocks": 0,
            "current_cpu": 1,
            "nr_cpus": 2,
        } | dict(self.header)  # table
        time = bytes(10 if self.bits == 32 else 22)  # padding of the names, then a timeval
        packed = struct.pack("<10I", *(value & 0xFFFFFFFF for value in values.values()))
        return b"KDUMP   " + struct.pack("<i", self.version) + names + time + packed

    def _sub(self, mapnr: int, extra_at: int) -> bytes:
        start, end = self.split or (0, 0)
        notes_at = extra_at + len(self.vmcoreinfo) + -len(self.vmcoreinfo) % 4
        values = {
            "phys_base": 0,
            "dump_level": 1,
            "split": int(self.split is not None),
            "start_pfn": start & 0xFFFFFFFF,
            "end_pfn": end & 0xFFFFFFFF,
            "offset_vmcoreinfo": extra_at if self.vmcoreinfo else 0,
            "size_vmcoreinfo": len(self.vmcoreinfo),
            "offset_note": notes_at if self.notes else 0,
            "size_note": len(self.notes),
            "offset_eraseinfo": 0,
            "size_eraseinfo": 0,
            "start_pfn_64": start,
            "end_pfn_64": end,
            "max_mapnr_64": mapnr,
        } | dict(self.sub)  # table
        shape = "<IiiIIQIQIQIQQQ" if self.bits == 32 else "<QiiQQQQQQQQQQQ"
        count = (1, 2, 5, 7, 9, 11, 14)[max(0, min(self.version, 6))]
        full = struct.pack(shape, *values.values())
        # What an older version has not, holds whatever was in memory there.
        known = struct.calcsize("<" + shape[1 : 1 + count])
        return full[:known] + b"\xa5" * (len(full) - known)

    def _pages(self, pfns: Sequence[int], at: int) -> tuple[bytes, bytes]:
        if self.split:
            pfns = [pfn for pfn in pfns if self.split[0] <= pfn < self.split[1]]
        entries: list[list[int]] = []
        data, places = bytearray(), {}
        begin = at + 24 * len(pfns)
        for pfn in pfns:
            content, flags = self.packed.get(pfn) or self._pack(self.pages[pfn])
            if content not in places or not self.share_equal:
                places[content] = begin + len(data)
                data += content
            entries.append([places[content], len(content), flags])
        if self.descriptors:
            self.descriptors(entries)
        mask = (1 << 64) - 1
        return b"".join(struct.pack("<QIIQ", a & mask, s, f, 0) for a, s, f in entries), bytes(data)

    def _pack(self, page: bytes) -> tuple[bytes, int]:
        content = PACK[self.packing](page)
        if self.packing in ("zlib", "zstd") and len(content) >= PAGE:
            return page, 0
        return content, FLAGS[self.packing]


def _bitmap(pfns: set[int], blocks: int) -> bytes:
    bits = bytearray(blocks * PAGE)
    for pfn in pfns:
        if pfn >> 3 < len(bits):
            bits[pfn >> 3] |= 1 << (pfn & 7)
    return bytes(bits)


def flattened(
    dump: bytes, *, piece: int = 5000, end: bool = True, backwards: bool = False
) -> bytes:
    """*dump* in makedumpfile's flattened format, in pieces of so many bytes."""
    pieces = [(at, dump[at : at + piece]) for at in range(0, len(dump), piece)]
    if backwards:
        pieces.reverse()
    head = (b"makedumpfile\0\0\0\0" + struct.pack(">qq", 1, 1)).ljust(4096, b"\0")
    body = b"".join(struct.pack(">qq", at, len(data)) + data for at, data in pieces)
    return head + body + (struct.pack(">qq", -1, -1) if end else b"")
