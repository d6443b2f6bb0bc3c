"""Opening an image: which format it is, its first bytes say, never its name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from highmem.errors import InputError, UsageError
from highmem.image.formats.compressed import Progress, compression, spool, spooled
from highmem.image.formats.mapped import MappedFile
from highmem.image.formats.raw import open_raw
from highmem.image.formats.source import ImageSource
from highmem.kernel.layout_ram import memparse

from . import elfcore, flattened, kdump, lime

__all__ = ["open_source"]

_OPENERS: tuple[tuple[bytes, Callable[[MappedFile], ImageSource]], ...] = (
    (lime.MAGIC, lime.open_lime),
    (elfcore.MAGIC, elfcore.open_elf),
    (kdump.MAGIC, kdump.open_kdump),
)

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"QEVM", "a QEMU migration stream; take the image with dump-guest-memory or pmemsave"),
    (b"PAGEDUMP", "a Windows crash dump"),
    (b"PAGEDU64", "a Windows crash dump"),
    (b"AVML", "an AVML image of version 2; convert it with avml-convert"),
    (b"LVMA", "an AVML image of version 2; convert it with avml-convert"),
    (b"DISKDUMP", "a diskdump of old Red Hat kernels; only its successor kdump is read"),
    (b"BZh", "compressed with bzip2, which is not read; unpack it first"),
    (b"\x04\x22\x4d\x18", "compressed with lz4, which is not read; unpack it first"),
    (flattened.MAGIC, "flattened twice; put it together once with makedumpfile -R"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
)  # table


def open_source(paths: Sequence[str], *, progress: Progress | None = None) -> ImageSource:
    """The image in one file, or in pieces ``FILE@ADDRESS`` of raw memory; ``-`` is standard input.

    An address is written like ``0x100000`` or ``1M``; a file whose name has an ``@`` is found
    under its name first.  Compressed files (zstd, gzip, xz) are unpacked into a temporary file,
    of which *progress* is told.  Raises UsageError for pieces that do not fit together and
    InputError for what cannot be read.
    """
    if not paths:
        raise UsageError("no image given")
    pieces = [_split(path) for path in paths]
    bare = [path for path, address in pieces if address is None]
    if bare and len(pieces) > 1:
        raise UsageError(f"{bare[0]}: of several pieces each needs its address: FILE@ADDRESS")
    files: list[MappedFile] = []
    try:
        for path, _ in pieces:
            files.append(_load(path, progress))
        if not bare:
            placed = [(file, at or 0) for file, (_, at) in zip(files, pieces, strict=True)]
            return open_raw(placed)
        if files[0].bytes_at(0, 16).startswith(flattened.MAGIC):
            files.append(_rearranged(files[0]))
            files.pop(0).close()
        return _recognised(files[0])
    except BaseException:
        for file in files:
            file.close()
        raise


def _split(path: str) -> tuple[str, int | None]:
    """A path and the address behind its last ``@``, if that is one."""
    name, at, address = path.rpartition("@")
    if not at or not name or os.path.lexists(path):
        return path, None
    return name, memparse(address)


def _load(path: str, progress: Progress | None) -> MappedFile:
    """The file at *path*, unpacked if it is compressed."""
    if path == "-":
        return spool(path, "", progress)
    file = MappedFile.open(path)
    packed = compression(file.bytes_at(0, 16))
    if not packed:
        return file
    file.close()
    inner = spool(path, packed, progress)
    if compression(inner.bytes_at(0, 16)):
        inner.close()
        raise InputError(inner.name, "compressed twice; unpack it once")
    return inner


def _rearranged(file: MappedFile) -> MappedFile:
    """The dump that a flattened *file* has in pieces."""
    odd: list[str] = []
    whole = spooled(file.name, lambda target: odd.extend(flattened.rearrange(file, target)))
    whole.notes = (*file.notes, *odd)
    whole.wrapping = ("flattened", *file.wrapping)
    return whole


def _recognised(file: MappedFile) -> ImageSource:
    head = file.bytes_at(0, 16)
    for magic, opener in _OPENERS:
        if head.startswith(magic):
            return opener(file)
    for magic, kind in _OTHERS:
        if head.startswith(magic):
            raise InputError(file.name, kind)
    return open_raw(((file, 0),))
