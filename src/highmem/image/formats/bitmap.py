"""The bitmap of a kdump: which frames it holds, and how many of them come before each.

Bit *n* (lowest first in each byte) stands for frame *n*.  Set bits are counted once, for words of
64 frames, so that a bitmap in a mapped file costs little beside itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from highmem.image.formats.source import Bytes, Flags

__all__ = ["Bitmap"]

_WORD = 8  # bytes that are counted together
_STRIDE = 1 << 20  # bytes that are looked at at once
_ONES = np.array([byte.bit_count() for byte in range(256)], np.uint8)

_Int = npt.NDArray[np.int64]


class Bitmap:
    """The bits ``first <= pfn < end`` of *data*; what is outside counts as clear.

    ``count`` is how many are set.
    """

    def __init__(self, data: Bytes, first: int, end: int) -> None:
        self.end = max(0, min(end, len(data) * 8))
        self.first = max(0, min(first, self.end))
        self._data = data[: (self.end + 7) // 8]
        words = [
            np.add.reduceat(_ONES[part], np.arange(0, len(part), _WORD), dtype=np.int64)
            for part in self._parts()
        ]
        before = np.append(0, np.cumsum(np.concatenate(words))) if words else np.zeros(1)
        self._before = before.astype(np.int64)  # set bits before each word
        self._skipped = 0
        borders = self.rank(np.array([self.first, self.end]))
        self._skipped = int(borders[0])
        self.count = int(borders[1] - borders[0])

    def rank(self, pfns: _Int) -> _Int:
        """How many set bits are before each of *pfns*, which are between first and end."""
        total: _Int = self._before[pfns >> 6] - self._skipped
        if not len(self._data):
            return total
        places = (pfns >> 6 << 3)[:, None] + np.arange(_WORD)
        # Of the word's bytes those before the frame's count whole, its own one in part.
        bits = np.clip(pfns[:, None] - (places << 3), 0, 8)
        masks = ((1 << bits) - 1).astype(np.uint8)
        inside = np.minimum(places, len(self._data) - 1)  # a mask of 0 hides what is behind
        counted: _Int = total + _ONES[self._data[inside] & masks].sum(axis=1, dtype=np.int64)
        return counted

    def test(self, pfns: _Int) -> Flags:
        """Which of *pfns* are set; any number may be asked."""
        inside = (pfns >= self.first) & (pfns < self.end)
        if not len(self._data):
            return inside
        at = np.where(inside, pfns, 0)
        set_there: Flags = (self._data[at >> 3] >> (at & 7).astype(np.uint8) & 1).astype(bool)
        return inside & set_there

    def runs(self, limit: int) -> _Int | None:
        """The runs of set bits as rows (first frame, frame behind); None if more than *limit*."""
        found: list[_Int] = []
        total, previous, at = 0, 0, 0
        for part in self._parts():
            last = at + 8 * len(part)
            same = part[0] == (255 if previous else 0) and bool((part == part[0]).all())
            if not same or at < self.first or last > self.end:
                bits = self._bits(part, at)
                edges = np.flatnonzero(np.diff(bits, prepend=np.uint8(previous))) + at
                found.append(edges)
                total += len(edges)
                if total > 2 * limit:
                    return None
                previous = int(bits[-1])
            at = last
        if previous:
            found.append(np.array([at]))
        return np.concatenate(found or [np.zeros(0, np.int64)]).reshape(-1, 2)

    def parts(self) -> Iterator[Bytes]:
        """The bits from 0 to the last byte's last, a byte for each, in pieces; yours to change."""
        at = 0
        for part in self._parts():
            yield self._bits(part, at)
            at += 8 * len(part)

    def _bits(self, part: Bytes, at: int) -> Bytes:
        bits = np.unpackbits(part, bitorder="little")
        bits[: max(0, self.first - at)] = 0
        bits[max(0, self.end - at) :] = 0
        return bits

    def _parts(self) -> Iterator[Bytes]:
        return (self._data[at : at + _STRIDE] for at in range(0, len(self._data), _STRIDE))
