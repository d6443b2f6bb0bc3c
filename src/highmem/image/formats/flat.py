"""Images whose files hold physical memory as it is: raw, LiME, ELF cores.

Nothing is read but what is asked for, and frames are gathered from the mapped files in one
step of numpy, wherever in the file they begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from highmem.errors import InputError
from highmem.image.formats.mapped import MappedFile
from highmem.image.formats.segments import Segments, as_ranges
from highmem.image.formats.source import (
    FRAME_SHIFT,
    FRAME_SIZE,
    Bytes,
    Claims,
    Flags,
    NotInImageError,
    RamRange,
    counted,
    frame_numbers,
)

__all__ = ["FlatSource", "every_frame"]

_Int = npt.NDArray[np.int64]


class FlatSource:
    """An image of *segments* in *files*.

    ``ram`` are ranges known to be RAM without being in the image; they are joined with what
    the image holds.  Raises InputError where the image holds nothing at all.
    """

    def __init__(
        self,
        kind: str,
        files: Sequence[MappedFile],
        segments: Segments,
        *,
        claims: Claims | None = None,
        notes: Sequence[str] = (),
        ram: tuple[RamRange, ...] = (),
        damaged: bool = False,
    ) -> None:
        self.format = ", ".join((kind, *files[0].wrapping))
        self.path = " ".join(file.name for file in files)
        if not len(segments.starts):
            raise InputError(self.path, "; ".join((f"{kind} without any memory in it", *notes)))
        self.claims = claims or Claims()
        before = tuple(note for file in files for note in file.notes)
        self.damaged = damaged or bool(before)
        overlaps = segments.overlaps
        lost = f"{counted(overlaps, 'overlapping range')}: the first in the file counts"
        self.notes = (*before, *notes, lost) if overlaps else (*before, *notes)
        self._files = tuple(files)
        self._segments = segments
        self._ram = ram
        self._frames = [every_frame(file.data) for file in files]

    @cached_property
    def ranges(self) -> tuple[RamRange, ...]:
        """What the image holds: sorted, disjoint, adjacent ones joined."""
        return as_ranges(self._segments.starts, self._segments.ends)

    @cached_property
    def ram(self) -> tuple[RamRange, ...]:
        """The RAM of the machine as far as the file tells, never less than ``ranges``."""
        if not self._ram:
            return self.ranges
        table = np.array(sorted((*self._ram, *self.ranges)), np.int64)
        return as_ranges(table[:, 0], table[:, 1])

    def read(self, paddr: int, size: int) -> bytes:
        """*size* bytes from physical address *paddr*.  Raises NotInImageError."""
        if size <= 0:
            return b""
        places, at, end = [], paddr, paddr + size
        while at < end:  # all of them are known to be there before the first is copied
            file, offset, length = self._locate(at)
            length = min(length, end - at)
            places.append((self._files[file], offset, length))
            at += length
        return b"".join(file.bytes_at(offset, length) for file, offset, length in places)

    def view(self, start: int, end: int) -> Bytes | None:
        """Bytes *start* to *end* without a copy where they lie in one piece, else None."""
        try:
            file, offset, length = self._locate(start)
        except NotInImageError:
            return None
        if not 0 < end - start <= length:
            return None
        self._files[file].will_need(offset, end - start)
        return self._files[file].data[offset : offset + end - start]

    def present(self, pfns: npt.ArrayLike) -> Flags:
        """For each of *pfns*: does the image hold any byte of that frame?"""
        return self._segments.frames_touched(frame_numbers(pfns))

    def pages(self, pfns: npt.ArrayLike) -> Bytes:
        """The frames *pfns* as rows of 4096 bytes; what the image does not hold is zero."""
        segments, wanted = self._segments, frame_numbers(pfns)
        addresses = wanted << FRAME_SHIFT
        at = segments.find(addresses)
        whole = (at >= 0) & (addresses + FRAME_SIZE <= segments.ends[at])
        offsets = addresses + segments.deltas[at]
        if len(self._files) == 1 and whole.all() and len(whole):
            return self._gathered(0, offsets)
        out = np.empty((len(wanted), FRAME_SIZE), np.uint8)
        out[~whole] = 0
        for number in np.unique(segments.files[at[whole]]).tolist():
            rows = np.flatnonzero(whole & (segments.files[at] == number))
            out[rows] = self._gathered(number, offsets[rows])
        rest = np.flatnonzero(~whole)
        for row in rest[segments.frames_touched(wanted[rest])].tolist():
            self._fill(out[row], int(addresses[row]))
        return out

    def close(self) -> None:
        """Give back the files; reading ends."""
        self._frames = []
        for file in self._files:
            file.close()

    def _gathered(self, file: int, offsets: _Int) -> Bytes:
        """The 4096 bytes at each of *offsets*, a row for each."""
        first = int(offsets.min())
        span = int(offsets.max()) + FRAME_SIZE - first
        if span <= 2 * FRAME_SIZE * len(offsets):
            self._files[file].will_need(first, span)
        return self._frames[file][offsets].view(np.uint8).reshape(-1, FRAME_SIZE)

    def _locate(self, address: int) -> tuple[int, int, int]:
        """File, offset in it, and bytes of the piece from there on.  Raises NotInImageError."""
        segments = self._segments
        at = int(np.searchsorted(segments.starts, address, side="right")) - 1
        if at < 0 or address >= (end := int(segments.ends[at])):
            raise NotInImageError(address)
        return int(segments.files[at]), address + int(segments.deltas[at]), end - address

    def _fill(self, row: Bytes, base: int) -> None:
        """Put what the image has of the frame at *base* into *row*, piece by piece."""
        segments = self._segments
        at = int(np.searchsorted(segments.ends, base, side="right"))
        while at < len(segments.starts) and int(segments.starts[at]) < base + FRAME_SIZE:
            first = max(int(segments.starts[at]), base)
            last = min(int(segments.ends[at]), base + FRAME_SIZE)
            offset = first + int(segments.deltas[at])
            data = self._files[int(segments.files[at])].data
            row[first - base : last - base] = data[offset : offset + last - first]
            at += 1


def every_frame(data: Bytes) -> npt.NDArray[np.void]:
    """Item *i* is the 4096 bytes from offset *i*: a view, so that one index gathers frames from
    anywhere, aligned in the file or not.  (As rows of bytes numpy would copy byte by byte.)"""
    count = max(0, len(data) - FRAME_SIZE + 1)
    return np.ndarray((count,), f"V{FRAME_SIZE}", data if count else None, strides=(1,))
