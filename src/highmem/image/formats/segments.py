"""Pieces of physical memory and where a file has them; sorted, disjoint, in arrays.

A dump may have a hundred thousand pieces, so nothing here makes an object per piece.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from highmem.image.formats.source import PHYSICAL_LIMIT, RamRange

__all__ = ["MAX_SEGMENTS", "Segments", "as_ranges", "join_ranges"]

MAX_SEGMENTS = 1 << 20
"""A dump with more pieces than this is damaged: QEMU writes at most one for each mapping of a
page table, and then joins what lies together."""

_Int = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Segments:
    """Piece *i* is physical ``starts[i] <= address < ends[i]``; byte ``address`` of it is at
    ``address + deltas[i]`` in file number ``files[i]``."""

    starts: _Int
    ends: _Int
    deltas: _Int
    files: _Int
    overlaps: int
    """Pieces that claimed bytes of an earlier one with another place in the file."""

    @classmethod
    def build(
        cls,
        starts: npt.ArrayLike,
        sizes: npt.ArrayLike,
        offsets: npt.ArrayLike,
        files: npt.ArrayLike = 0,
    ) -> Segments:
        """From pieces in the order of the file; where two overlap, the first one counts.

        All must lie below PHYSICAL_LIMIT and have a positive size.
        """
        start = np.asarray(starts, np.int64)
        end = start + np.asarray(sizes, np.int64)
        delta = np.asarray(offsets, np.int64) - start
        file = np.broadcast_to(np.asarray(files, np.int64), start.shape)
        if end.size and (int(start.min()) < 0 or int(end.max()) > PHYSICAL_LIMIT):
            raise ValueError("a piece lies beyond the physical addresses")
        order = np.argsort(start, kind="stable")
        columns = (start[order], end[order], delta[order], file[order])
        if not np.any(columns[0][1:] < np.maximum.accumulate(columns[1])[:-1]):
            return cls(*_joined(*columns), 0)
        kept = cls(*_joined(*_first_counts(columns, order)), 0)
        # Whoever lies whole in one piece of its own place lost nothing, even where it is a copy:
        # QEMU names the same bytes once for each virtual address.
        at = kept.find(columns[0])
        intact = (
            (kept.ends[at] >= columns[1])
            & (kept.deltas[at] == columns[2])
            & (kept.files[at] == columns[3])
        )
        return replace(kept, overlaps=int(np.count_nonzero(~intact)))

    def find(self, addresses: _Int) -> _Int:
        """For each address the number of its piece, or -1."""
        at = np.searchsorted(self.starts, addresses, side="right") - 1
        held = (at >= 0) & (addresses < self.ends[at]) if len(self.ends) else np.False_
        return np.where(held, at, -1)

    def frames_touched(self, pfns: _Int) -> npt.NDArray[np.bool_]:
        """For each frame: is a byte of it in some piece?"""
        # The first piece that ends behind the frame's start must begin before the frame's end.
        at = np.searchsorted(self.ends, pfns << 12, side="right")
        found = at < len(self.ends)
        near = np.where(found, at, 0)
        return found & (self.starts[near] < (pfns + 1) << 12) if len(self.starts) else found


def as_ranges(starts: _Int, ends: _Int) -> tuple[RamRange, ...]:
    """Sorted disjoint pieces as ranges, adjacent ones joined."""
    first, last = join_ranges(starts, ends)
    return tuple(map(RamRange, first.tolist(), last.tolist()))


def join_ranges(starts: _Int, ends: _Int) -> tuple[_Int, _Int]:
    """Sorted pieces that may overlap, as disjoint ones with a gap between each two."""
    if not len(starts):
        return starts, ends
    reach = np.maximum.accumulate(ends)
    fresh = np.flatnonzero(np.append(True, starts[1:] > reach[:-1]))
    return starts[fresh], reach[np.append(fresh[1:] - 1, len(reach) - 1)]


def _joined(start: _Int, end: _Int, delta: _Int, file: _Int) -> tuple[_Int, _Int, _Int, _Int]:
    """Neighbours that continue each other in the same file, as one."""
    if len(start) < 2:
        return start, end, delta, file
    same = (start[1:] == end[:-1]) & (delta[1:] == delta[:-1]) & (file[1:] == file[:-1])
    first = np.flatnonzero(np.append(True, ~same))
    last = np.append(first[1:] - 1, len(start) - 1)
    return start[first], end[last], delta[first], file[first]


def _first_counts(
    columns: tuple[_Int, _Int, _Int, _Int], order: _Int
) -> tuple[_Int, _Int, _Int, _Int]:
    """Cut sorted pieces so that each byte belongs to the piece that came first in the file.

    A sweep over the borders with a heap of the pieces that are open, first of the file on top.
    """
    starts, ends, deltas, files = (column.tolist() for column in columns)
    ranks = order.tolist()
    borders = np.unique(np.concatenate((columns[0], columns[1]))).tolist()
    pieces: list[tuple[int, int, int, int]] = []
    candidates: list[tuple[int, int]] = []  # (rank in the file, number)
    following = 0
    for here, there in itertools.pairwise(borders):
        while following < len(starts) and starts[following] <= here:
            heapq.heappush(candidates, (ranks[following], following))
            following += 1
        while candidates and ends[candidates[0][1]] <= here:
            heapq.heappop(candidates)
        if candidates:
            best = candidates[0][1]
            pieces.append((here, there, deltas[best], files[best]))
    table = np.array(pieces, np.int64).T
    return table[0], table[1], table[2], table[3]
