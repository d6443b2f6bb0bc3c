"""The headers of a kdump compressed dump (makedumpfile's IMPLEMENTATION, diskdump_mod.h).

The file is in blocks of ``block_size`` bytes:

=================================== ======================================================
blocks                              what
=================================== ======================================================
1                                   ``struct disk_dump_header``
sub_hdr_size                        ``struct kdump_sub_header``; notes and VMCOREINFO behind it
bitmap_blocks / 2                   bit *n* set: frame *n* is RAM
bitmap_blocks / 2                   bit *n* set: frame *n* is in the file
the rest                            a page descriptor for each frame in the file, then pages
=================================== ======================================================

The structures have ``long`` and pointers in them, so a 32-bit machine's file has them at other
offsets than a 64-bit machine's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from highmem.errors import InputError
from highmem.image.formats.mapped import MappedFile
from highmem.trace.printable import printable

__all__ = ["BLOCK", "MAGIC", "MAX_MAPNR", "Header", "read_header"]

MAGIC = b"KDUMP   "

BLOCK = 4096
"""The only block size of x86: a page."""

MAX_MAPNR = 1 << 28
"""Frames (1 TiB); a 32-bit machine has at most 2^24, and a dump that claims more is refused."""

_INCOMPLETE = 0x8  # DUMP_DH_COMPRESSED_INCOMPLETE in status: makedumpfile ran out of room


class _Layout(NamedTuple):
    """Where the two structures have their fields.

    header: status, block_size, sub_hdr_size, bitmap_blocks, max_mapnr, total_ram_blocks,
    device_blocks, written_blocks, current_cpu, nr_cpus.  sub: phys_base, dump_level, split,
    start_pfn, end_pfn, offset and size of VMCOREINFO, of the notes, of the erase info, then
    start_pfn_64, end_pfn_64, max_mapnr_64.
    """

    bits: int
    header_at: int
    header: struct.Struct
    sub: struct.Struct


_LAYOUTS = (
    _Layout(32, 412, struct.Struct("<IIiIIIIIII"), struct.Struct("<IiiIIQIQIQIQQQ")),
    _Layout(64, 424, struct.Struct("<IIiIIIIIII"), struct.Struct("<QiiQQQQQQQQQQQ")),
)

# Since which header_version each field of the sub header exists; earlier files have zeros or
# whatever was in memory there.
_SINCE = (0, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 6)


@dataclass(frozen=True, slots=True)
class Header:
    """What the two headers say, and where the parts begin (offsets in bytes).

    ``bitmap_size`` is of one bitmap; ``bitmaps`` is 1 where an old file has only the second.
    ``start_pfn`` and ``end_pfn`` bound the frames of one part of a split dump, else all frames.
    """

    bits: int
    version: int
    incomplete: bool
    max_mapnr: int
    bitmap_at: int
    bitmap_size: int
    bitmaps: int
    descriptors_at: int
    start_pfn: int
    end_pfn: int
    split: bool
    dump_level: int | None
    vmcoreinfo: tuple[int, int]
    notes: tuple[int, int]
    machine: str
    release: str
    kernel_version: str
    current_cpu: int


def read_header(file: MappedFile) -> Header:
    """The headers of *file*; raises InputError where they make no sense."""
    head = file.bytes_at(0, 512)
    if len(head) < 512:
        raise InputError(file.name, "kdump: cut off within its header")
    (version,) = struct.unpack_from("<i", head, 8)
    if version < 0 or version > 64:
        raise InputError(file.name, f"kdump: a header of version {version:#x} is not known")
    fitting = [layout for layout in _LAYOUTS if not _objection(layout, head, file.size)]
    machine = _uts(head, 4)
    if len(fitting) == 2:  # a dump of a few MiB can look like both
        wide = machine.endswith("64")
        fitting = [layout for layout in fitting if (layout.bits == 64) == wide]
    if not fitting:
        likely = _LAYOUTS[machine.endswith("64")]
        cause = _objection(likely, head, file.size)
        raise InputError(file.name, f"kdump: its header makes no sense: {cause}")
    return _header(fitting[0], file, head, version)


def _objection(layout: _Layout, head: bytes, size: int) -> str:
    """Why *head* is not of this layout, or ``""``."""
    _, block, sub, blocks, *_ = layout.header.unpack_from(head, layout.header_at)
    if block != BLOCK:
        return f"blocks of {block} bytes; only 4096 are known"
    if not 1 <= sub <= size // BLOCK:
        return f"a sub header of {sub} blocks"
    if not 1 <= blocks <= size // BLOCK - sub:
        return f"bitmaps of {blocks} blocks in a file of {size // BLOCK}"
    return ""


def _header(layout: _Layout, file: MappedFile, head: bytes, version: int) -> Header:
    status, _, sub_blocks, blocks, mapnr, _, _, _, cpu, _ = layout.header.unpack_from(
        head, layout.header_at
    )
    raw = file.bytes_at(BLOCK, layout.sub.size).ljust(layout.sub.size, b"\0")
    sub = [
        value if version >= since else 0
        for value, since in zip(layout.sub.unpack(raw), _SINCE, strict=True)
    ]
    if sub[13]:
        mapnr = sub[13]
    start, end = (sub[11], sub[12]) if version >= 6 else (sub[3], sub[4])
    split = bool(sub[2])
    needed = -(-mapnr // (8 * BLOCK))
    if mapnr > MAX_MAPNR or needed > blocks:
        raise InputError(
            file.name, f"kdump: bitmaps of {blocks} blocks cannot be of {mapnr} frames"
        )
    bitmaps = 2 if blocks >= 2 * needed else 1
    at = (1 + sub_blocks) * BLOCK
    return Header(
        bits=layout.bits,
        version=version,
        incomplete=bool(status & _INCOMPLETE),
        max_mapnr=mapnr,
        bitmap_at=at,
        bitmap_size=blocks // bitmaps * BLOCK,
        bitmaps=bitmaps,
        descriptors_at=at + blocks * BLOCK,
        start_pfn=start if split else 0,
        end_pfn=min(end, mapnr) if split else mapnr,
        split=split,
        dump_level=sub[1] if version >= 1 else None,
        vmcoreinfo=(sub[5], sub[6]),
        notes=(sub[7], sub[8]),
        machine=_uts(head, 4),
        release=_uts(head, 2),
        kernel_version=_uts(head, 3),
        current_cpu=cpu,
    )


def _uts(head: bytes, number: int) -> str:
    """Field *number* of ``struct new_utsname``: sysname, nodename, release, version, machine."""
    field = head[12 + 65 * number : 12 + 65 * (number + 1)]
    return printable(field.partition(b"\0")[0])
