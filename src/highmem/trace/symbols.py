"""Names for addresses in the kernel: a copy of ``/proc/kallsyms``."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING

from highmem.compiled import load

from .buffers import sparse, zeros
from .printable import printable

if TYPE_CHECKING:
    from ._symbols import COMPILED, index_symbols, nearest
else:
    _symbols = load("highmem.trace._symbols")
    COMPILED, index_symbols = _symbols.COMPILED, _symbols.index_symbols
    nearest = _symbols.nearest

__all__ = ["Symbols"]

_FARTHEST = 1 << 16
_FARTHEST_IN_MODULE = 1 << 14
"""An address farther behind the symbol before it is not in it: no function is that long (in
Debian's 6.1 for i386 the longest has 14848 bytes), and behind a module another one may lie."""
_ENDS = (b"_etext", b"_einittext", b"_end")
"""Not functions but where the kernel's text ends (arch/x86/kernel/vmlinux.lds.S)."""
_NAME_LIMIT = 1200  # two names of KSYM_NAME_LEN, as the text reader
_UNSORTED_LOOKUPS = 200 if COMPILED else 0
# Modules come last and lie anywhere: to look through all lines so often takes less time than to
# sort them.


class Symbols:
    """Looks addresses up; *load* gives the text of kallsyms and is called at the first one."""

    __slots__ = (
        "_addresses",
        "_count",
        "_load",
        "_lookups",
        "_sorted",
        "_starts",
        "_text",
        "_width",
    )

    def __init__(self, load: Callable[[], bytes]) -> None:
        self._load: Callable[[], bytes] | None = load
        self._text = b""
        self._width = 0
        self._count = self._lookups = 0
        self._sorted = True
        self._addresses = zeros(0, "uint64")
        self._starts = zeros(0, "int64")

    def name(self, address: int) -> str:
        """*address* as the kernel prints it (``kmap_high+0x1f``, ``[module]`` after it).

        Without a symbol for it, the number: ``0xc121d28c``.
        """
        if self._load is not None:
            load, self._load = self._load, None
            self._index(load())
        plain = f"0x{address:x}"
        if not 0 < address < 1 << 64:
            return plain
        at = self._find(address)
        base = self._addresses[at] if at >= 0 else 0
        if base == 0 or address - base >= _FARTHEST:
            return plain
        start = self._starts[at] + self._width + 3
        end = self._text.find(b"\n", start, start + _NAME_LIMIT)
        line = self._text[start : end if end >= 0 else start + _NAME_LIMIT]
        name, _, module = line.partition(b"\t")
        far = address - base >= _FARTHEST_IN_MODULE
        if name.strip() in _ENDS or (far and module.strip()):
            return plain
        text = f"{printable(name.strip())}+0x{address - base:x}"
        return f"{text} {printable(module.strip())}" if module.strip() else text

    def _find(self, address: int) -> int:
        """The symbol that *address* is in, -1 if there is none.

        Of several names for one address the kernel takes the first.
        """
        if not self._sorted:
            self._lookups += 1
            if self._lookups <= _UNSORTED_LOOKUPS:
                return nearest(self._addresses, self._count, address)
            self._sort()
        at = bisect_right(self._addresses, address, 0, self._count) - 1
        return bisect_left(self._addresses, self._addresses[at], 0, at) if at >= 0 else -1

    def _index(self, text: bytes) -> None:
        """Find the addresses of all lines."""
        width = text[:20].find(b" ")
        if width not in (8, 16):
            return
        most = len(text) // (width + 4) + 1
        self._addresses, self._starts = sparse(most, "uint64"), sparse(most, "int64")
        self._count, self._sorted = index_symbols(text, width, self._addresses, self._starts)
        self._text, self._width = text, width

    def _sort(self) -> None:
        """Put the addresses in order; those that are the same stay in theirs."""
        addresses, starts = self._addresses, self._starts
        order = sorted(range(self._count), key=addresses.__getitem__)
        self._addresses, self._starts = zeros(self._count, "uint64"), zeros(self._count, "int64")
        for to, at in enumerate(order):
            self._addresses[to], self._starts[to] = addresses[at], starts[at]
        self._sorted = True
