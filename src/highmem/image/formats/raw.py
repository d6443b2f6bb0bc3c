"""Raw images: a file is physical memory from some address on, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from highmem.errors import InputError
from highmem.image.formats.flat import FlatSource
from highmem.image.formats.mapped import MappedFile
from highmem.image.formats.segments import Segments
from highmem.image.formats.source import FRAME_SIZE, PHYSICAL_LIMIT

__all__ = ["open_raw"]


def open_raw(pieces: Sequence[tuple[MappedFile, int]]) -> FlatSource:
    """The files at their physical addresses, as one image; where two overlap the first counts.

    Raises InputError for a piece that ends beyond what x86 can address.
    """
    files = [file for file, _ in pieces]
    for file, address in pieces:
        if not 0 <= address <= PHYSICAL_LIMIT - file.size:
            raise InputError(
                file.name, f"{file.size:#x} bytes at {address:#x} end beyond 52 bits of address"
            )
    segments = Segments.build(
        [address for _, address in pieces],
        [file.size for file in files],
        [0] * len(files),
        range(len(files)),
    )
    odd = [file for file in dict.fromkeys(files) if file.size % FRAME_SIZE]
    notes = [f"{len(odd)} of {len(files)} files end within a frame of 4 KiB"] if odd else []
    return FlatSource("raw", files, segments, notes=notes)
