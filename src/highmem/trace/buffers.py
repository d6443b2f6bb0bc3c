"""Memory for columns: typed views of bytes, which numpy reads without a copy.

Most replays need no numpy, and importing it takes longer than they do: so columns are plain
buffers, and become arrays where somebody asks for arrays (:class:`highmem.trace.schema.Batch`).
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

__all__ = ["CODES", "Pool", "sparse", "zeros"]

_Code = Literal["q", "Q", "i", "I", "h", "B"]
CODES: dict[str, _Code] = {
    "int64": "q",
    "uint64": "Q",
    "int32": "i",
    "uint32": "I",
    "int16": "h",
    "uint8": "B",
}
"""numpy's names of types and the letters that memoryview has for them."""
_SIZES = {"q": 8, "Q": 8, "i": 4, "I": 4, "h": 2, "B": 1}
_MUCH = 1 << 23
_LINE = 64
"""Columns lie a cache line apart from where they would alias each other."""


def zeros(length: int, dtype: str) -> memoryview:
    """*length* zeros."""
    code = CODES[dtype]
    return memoryview(bytearray(length * _SIZES[code])).cast(code)


def sparse(length: int, dtype: str) -> memoryview:
    """The same for tables of which little is used: only what is touched takes memory."""
    code = CODES[dtype]
    return memoryview(mmap.mmap(-1, max(length * _SIZES[code], 1))).cast(code)


class Pool:
    """Columns for one batch after another; memory that nobody looks at any more is used again,
    with whatever is in it."""

    __slots__ = ("_made", "_places", "_size", "_spare")

    def __init__(self, dtypes: Mapping[str, str], length: int) -> None:
        self._places: dict[str, tuple[slice, _Code]] = dict.fromkeys(dtypes, (slice(0), "B"))
        codes = {name: CODES[dtype] for name, dtype in dtypes.items()}
        at = 0
        for name in sorted(codes, key=lambda name: -_SIZES[codes[name]]):  # so all are aligned
            end = at + length * _SIZES[codes[name]]
            self._places[name] = slice(at, end), codes[name]
            at = -(-end // _LINE) * _LINE + _LINE
        self._size = at
        self._made: list[bytearray] = []
        self._spare = memoryview(b"")

    def take(self) -> dict[str, memoryview]:
        """Columns of the length that was given."""
        for made in self._made:
            if not _looked_at(made):
                return self._views(memoryview(made))
        if len(self._made) < 3:  # one is filled, one read, one on its way
            # The byte at the end is what _looked_at tries to take away.
            self._made.append(bytearray(self._size + 1))
            return self._views(memoryview(self._made[-1]))
        if len(self._spare) < self._size:
            self._spare = memoryview(_huge_pages(max(_MUCH, self._size)))
        whole, self._spare = self._spare[: self._size], self._spare[self._size :]
        return self._views(whole)

    def _views(self, whole: memoryview) -> dict[str, memoryview]:
        return {name: whole[place].cast(code) for name, (place, code) in self._places.items()}


def _huge_pages(size: int) -> mmap.mmap | bytearray:
    """*size* zeros for somebody who holds a lot: a fault for each 4 KiB of it would cost as much
    as to read it, so Linux is asked for pages of 2 MiB."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return bytearray(size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _looked_at(memory: bytearray) -> bool:
    """Whether there is any view of *memory*, of a view's view, or an array: its size is fixed
    as long."""
    try:
        memory.pop()
    except BufferError:
        return True
    memory.append(0)
    return False
