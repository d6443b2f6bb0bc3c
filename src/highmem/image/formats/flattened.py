"""makedumpfile's flattened format: a dump as it goes through a pipe, put together again.

====== ===== ==============================================================
offset bytes what (big endian, whatever machine wrote it)
====== ===== ==============================================================
0      16    ``makedumpfile`` and zeros
16     8     type, 1
24     8     version, 1
32     4064  nothing
====== ===== ==============================================================

Then pieces: offset in the dump (8), size (8), so many bytes; a later piece overwrites an earlier
one.  A piece with the offset -1 ends the file (makedumpfile's ``-F``, ``makedumpfile -R``).
QEMU up to 8.1 writes its kdump formats like this even into files.
"""

from __future__ import annotations

import os
import struct

from highmem.errors import InputError
from highmem.image.formats.mapped import MappedFile

__all__ = ["MAGIC", "rearrange"]

MAGIC = b"makedumpfile\0\0\0\0"
_HEAD = struct.Struct(">16sqq")
_PIECE = struct.Struct(">qq")
_HEADER_SIZE = 4096
_STEP = 1 << 22  # bytes that are copied at once
_SIZE_LIMIT = 1 << 44
"""The highest offset that is believed (16 TiB): more cannot be a file on common file systems."""


def rearrange(file: MappedFile, target: int) -> tuple[str, ...]:
    """Write the dump that *file* is in pieces into the empty file *target* (a descriptor).

    Returns what was odd.  Raises InputError where nothing can be written.
    """
    _, kind, version = _HEAD.unpack(file.bytes_at(0, _HEAD.size).ljust(_HEAD.size, b"\0"))
    if (kind, version) != (1, 1):
        raise InputError(
            file.name, f"flattened: type {kind} and version {version} are not known, only 1 and 1"
        )
    at, problem = _HEADER_SIZE, ""
    while not problem:
        piece = file.bytes_at(at, _PIECE.size)
        if len(piece) < _PIECE.size:
            problem = "it ends without its end mark"
            break
        offset, size = _PIECE.unpack(piece)
        if offset == -1:
            break
        start = at + _PIECE.size
        if offset < 0 or size <= 0 or offset + size > _SIZE_LIMIT:
            problem = f"the piece at offset {at:#x} makes no sense"
        else:
            if size > file.size - start:
                problem = f"the piece at offset {at:#x} is cut off"
            _copy(file, start, min(size, file.size - start), target, offset)
        at = start + size
    return (f"flattened: {problem}: what follows is left out",) if problem else ()


def _copy(file: MappedFile, at: int, size: int, target: int, offset: int) -> None:
    while size > 0:
        done = os.pwrite(target, file.bytes_at(at, min(size, _STEP)), offset)
        at, size, offset = at + done, size - done, offset + done
