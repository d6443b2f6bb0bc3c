"""Memory for columns: typed views of bytes, which numpy reads without a copy.

Most replays need no numpy, and importing it takes longer than they do: so columns are plain
buffers, and become arrays where somebody asks for arrays (:class:`highmem.trace.schema.Batch`).
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import Literal

__all__ = ["CODES", "Pool", "sparse", "zeros"]

CODES: dict[str, Literal["q", "Q", "i", "I", "h", "B"]] = {
    "int64": "q",
    "uint64": "Q",
    "int32": "i",
    "uint32": "I",
    "int16": "h",
    "uint8": "B",
}
"""numpy's names of types and the letters that memoryview has for them."""
_SIZES = {"q": 8, "Q": 8, "i": 4, "I": 4, "h": 2, "B": 1}


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

    __slots__ = ("_dtypes", "_length", "_made")

    def __init__(self, dtypes: Mapping[str, str], length: int) -> None:
        self._dtypes = dtypes
        self._length = length
        self._made: list[dict[str, bytearray]] = []

    def take(self) -> dict[str, memoryview]:
        """Columns of the length that was given."""
        for made in self._made:
            if not any(map(_looked_at, made.values())):
                return self._views(made)
        # The byte at the end is what _looked_at tries to take away.
        made = {n: bytearray(self._length * _SIZES[CODES[t]] + 1) for n, t in self._dtypes.items()}
        if len(self._made) < 3:  # one is filled, one read, one on its way
            self._made.append(made)
        return self._views(made)

    def _views(self, made: Mapping[str, bytearray]) -> dict[str, memoryview]:
        return {n: memoryview(made[n])[:-1].cast(CODES[t]) for n, t in self._dtypes.items()}


def _looked_at(memory: bytearray) -> bool:
    """Whether there is any view of *memory*, of a view's view, or an array: its size is fixed
    as long."""
    try:
        memory.pop()
    except BufferError:
        return True
    memory.append(0)
    return False
