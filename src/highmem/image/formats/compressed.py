"""Compressed images, and images that come through a pipe: unpacked once, into a file.

Reading an image jumps about, which no compressed stream can; so its bytes go to a temporary
file that has no name (it is gone with the process, even one that is killed) and in which zeros
take no room.  ``TMPDIR`` says where.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

from highmem.errors import InputError
from highmem.image.formats.mapped import MappedFile, os_cause
from highmem.trace import source as streams

__all__ = ["SPOOL_LIMIT", "Progress", "compression", "spool", "spooled"]

SPOOL_LIMIT = 1 << 37
"""An image may unpack to 128 GiB: twice what a 32-bit machine can have.  More is an error, so
that a few bytes made to explode do not fill a disk."""

Progress = Callable[[str, int], None]
"""Told what is done to which file, and how many bytes came out so far."""

_STEP = 1 << 26  # bytes between two words of progress
_ZEROS = bytes(streams.CHUNK)


def compression(head: bytes) -> str:
    """How a file that begins with *head* is compressed, or ``""``."""
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if head.startswith(b"\xfd7zXZ\x00"):
        return "xz"
    skippable = head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5  # pzstd begins with one
    return "zstd" if skippable or head.startswith(b"\x28\xb5\x2f\xfd") else ""


def spool(path: str, how: str, progress: Progress | None = None) -> MappedFile:
    """The unpacked bytes of *path*, or of standard input for ``-``, as a file.

    *how* names the compression.  Raises InputError where nothing comes out, or too much; what
    ends too early is kept as far as it goes, with a note.
    """
    source = streams.open_source(path)
    notes: tuple[str, ...] = ()

    def fill(target: int) -> None:
        nonlocal notes
        size = _copy(source, target, progress)
        if source.problem:
            notes = (f"{source.problem}: only {size:#x} bytes are there",)

    file = spooled(source.name, fill)
    file.notes, file.wrapping = notes, (how,) if how else ()
    return file


def spooled(name: str, fill: Callable[[int], None]) -> MappedFile:
    """The file that *fill* writes through the descriptor that it is given."""
    try:
        with tempfile.TemporaryFile(prefix="highmem-") as target:
            fill(target.fileno())
            return MappedFile(name, target.fileno())
    except OSError as error:
        raise InputError(
            name, f"cannot be unpacked into {tempfile.gettempdir()}: {os_cause(error)}"
        ) from None


def _copy(source: streams.ByteSource, target: int, progress: Progress | None) -> int:
    size, told = 0, _STEP
    for chunk in source:
        if chunk != _ZEROS[: len(chunk)]:
            _write_all(target, chunk, size)
        size += len(chunk)
        if size > SPOOL_LIMIT:
            raise InputError(source.name, f"unpacks to more than {SPOOL_LIMIT >> 30} GiB")
        if progress and size >= told:
            progress(f"unpacking {source.name}", size)
            told = size + _STEP
    os.ftruncate(target, size)
    return size


def _write_all(target: int, data: bytes, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(target, data[done:], offset + done)
