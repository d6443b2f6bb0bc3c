"""Names for addresses in the kernel: a copy of ``/proc/kallsyms``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .printable import printable

__all__ = ["Symbols"]

_FARTHEST = 1 << 20
"""An address farther behind the symbol before it is not in it: no function is that long."""
_NAME_LIMIT = 1200  # two names of KSYM_NAME_LEN, as the text reader


class Symbols:
    """Looks addresses up; *load* gives the text of kallsyms and is called at the first one."""

    __slots__ = ("_addresses", "_load", "_starts", "_text", "_width")

    def __init__(self, load: Callable[[], bytes]) -> None:
        self._load: Callable[[], bytes] | None = load
        self._text = b""
        self._width = 0
        self._addresses: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._starts: npt.NDArray[np.int64] = np.zeros(0, np.int64)

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
        key = np.uint64(address)
        at = int(np.searchsorted(self._addresses, key, "right")) - 1
        if at < 0:
            return plain
        base = int(self._addresses[at])
        if base == 0 or address - base >= _FARTHEST:
            return plain
        # Of several names for one address the kernel takes the first.
        at = int(np.searchsorted(self._addresses, self._addresses[at], "left"))
        start = int(self._starts[at]) + self._width + 3
        end = self._text.find(b"\n", start, start + _NAME_LIMIT)
        line = self._text[start : end if end >= 0 else start + _NAME_LIMIT]
        name, _, module = line.partition(b"\t")
        text = f"{printable(name.strip())}+0x{address - base:x}"
        return f"{text} {printable(module.strip())}" if module.strip() else text

    def _index(self, text: bytes) -> None:
        """Find the addresses of all lines, in order."""
        width = text[:20].find(b" ")
        if width not in (8, 16):
            return
        data = np.frombuffer(text, np.uint8)
        starts = np.flatnonzero(data == ord("\n")) + 1
        starts = np.concatenate(([0], starts))
        starts = starts[starts < len(data) - width - 3]
        starts = starts[data[starts + width] == ord(" ")]
        value = np.zeros(len(starts), np.uint64)
        good = np.ones(len(starts), bool)
        for at in range(width):
            digit = _HEX[data[starts + at]]
            good &= digit < 16
            value = (value << np.uint64(4)) | digit
        order = np.argsort(value[good], kind="stable")
        self._text, self._width = text, width
        self._starts = starts[good][order]
        self._addresses = value[good][order]


def _digits() -> npt.NDArray[np.uint64]:
    table = np.full(256, 16, np.uint64)
    for digit in b"0123456789abcdefABCDEF":
        table[digit] = int(chr(digit), 16)
    return table


_HEX = _digits()
