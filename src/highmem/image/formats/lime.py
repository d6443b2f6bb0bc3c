"""LiME images, version 1: each range of RAM behind a header of 32 bytes.

====== ===== =========================================================
offset bytes what (little endian)
====== ===== =========================================================
0      4     0x4C694D45, so a file begins with ``EMiL``
4      4     version, 1
8      8     physical address of the first byte
16     8     physical address of the last byte
24     8     reserved
====== ===== =========================================================

The bytes of the range follow, then the next header (LiME's doc/README.md, "LiME Memory Range
Header Version 1").
"""

from __future__ import annotations

import struct

from highmem.errors import InputError
from highmem.image.formats.flat import FlatSource
from highmem.image.formats.mapped import MappedFile
from highmem.image.formats.segments import MAX_SEGMENTS, Segments
from highmem.image.formats.source import PHYSICAL_LIMIT, counted

__all__ = ["MAGIC", "open_lime"]

MAGIC = b"EMiL"
_VERSION = 1
_HEADER = struct.Struct("<4sIQQ8x")


class _Walk:
    """The chain of headers; ``problem`` says why it broke off before the end of the file."""

    def __init__(self, file: MappedFile) -> None:
        self.file = file
        self.rows: list[tuple[int, int, int]] = []  # address, size, offset
        self.problem = ""
        at = 0
        while at < file.size and not self.problem:
            at = self._range(at)

    def _range(self, at: int) -> int:
        header = self.file.bytes_at(at, _HEADER.size)
        if len(header) < _HEADER.size:
            self.problem = f"its last {len(header)} bytes are no whole header"
            return at
        magic, version, first, last = _HEADER.unpack(header)
        if magic != MAGIC:
            self.problem = f"no header where one must be, at offset {at:#x}"
        elif version != _VERSION:
            self.problem = f"a header of version {version} at offset {at:#x}"
        elif last < first or last >= PHYSICAL_LIMIT:
            self.problem = f"the range {first:#x}-{last:#x} at offset {at:#x} makes no sense"
        elif len(self.rows) == MAX_SEGMENTS:
            self.problem = f"more than {MAX_SEGMENTS} ranges"
        if self.problem:
            return at
        return self._body(at + _HEADER.size, first, last + 1 - first)

    def _body(self, at: int, first: int, size: int) -> int:
        here = min(size, self.file.size - at)
        if here:
            self.rows.append((first, here, at))
        if here < size:
            self.problem = (
                f"the range {first:#x}-{first + size - 1:#x} is cut off by the end of the file: "
                f"{here:#x} of {size:#x} bytes are there"
            )
        return at + here


def open_lime(file: MappedFile) -> FlatSource:
    """The image in *file*.  What comes after damage is left out, and a note says so.

    Raises InputError where not one range can be read.
    """
    walk = _Walk(file)
    if not walk.rows:
        raise InputError(file.name, f"LiME: {walk.problem}")
    notes: tuple[str, ...] = ()
    if walk.problem:
        notes = (f"reading stopped after {counted(len(walk.rows), 'range')}: {walk.problem}",)
    starts, sizes, offsets = zip(*walk.rows, strict=True)
    segments = Segments.build(starts, sizes, offsets)
    return FlatSource("LiME", (file,), segments, notes=notes, damaged=bool(walk.problem))
