"""The kernel's own symbol table, read out of an image: CONFIG_KALLSYMS.

``scripts/kallsyms.c`` lays down, for *n* symbols by ascending address (5.10 and 6.1):
``kallsyms_offsets`` (n words) and ``kallsyms_relative_base`` (before 4.6, and without
CONFIG_KALLSYMS_BASE_RELATIVE, ``kallsyms_addresses`` in their place), ``kallsyms_num_syms`` = n,
``kallsyms_names`` (a length byte, then so many tokens; from 6.1 a length of 128 or more takes a
second byte), ``kallsyms_markers`` (where every 256th name begins), in some
``kallsyms_seqs_of_names``, ``kallsyms_token_table`` (256 strings) and ``kallsyms_token_index``.
Nothing says where they are, but each part can be checked against the others, and is.

Without CONFIG_KALLSYMS_ALL (Debian) it has functions only, no data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Kallsyms", "find_kallsyms"]

_FEWEST, _MOST = 1000, 1 << 20
"""How many symbols a kernel has: tens of thousands."""

_SPAN = 64 << 20
"""More than a kernel's image has bytes; what is searched may begin anywhere in it."""

Words = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Kallsyms:
    """The table as it was found."""

    num_syms_at: int
    """Virtual address of kallsyms_num_syms."""
    addresses: npt.NDArray[np.int64]
    """Ascending; for modules' symbols see the modules, they are not in here."""
    types: str
    """One letter for each, as nm has them."""
    names: tuple[str, ...]


def find_kallsyms(rodata: npt.NDArray[np.uint8], base: int) -> Kallsyms | None:
    """Search the kernel's read-only part, whose first byte has virtual address *base*.

    None if there is no table; a damaged one counts as none.
    """
    words = rodata[: len(rodata) & ~3].view("<u4")
    for at in _num_syms(words, base):
        count = int(words[at])
        starts = _names(rodata, (at + 1) * 4, count)
        if starts is None:
            continue
        # Word-aligned behind the names, the markers repeat where every 256th of them begins.
        markers_at = -(-int(starts[-1]) // 4)
        wanted = starts[:-1:256] - starts[0]
        markers = words[markers_at : markers_at + len(wanted)]
        if len(markers) != len(wanted) or not np.array_equal(markers, wanted):
            continue
        tokens = _tokens(rodata, (markers_at + len(wanted)) * 4, count)
        if tokens is None:
            continue
        text = _expand(rodata[starts[0] : starts[-1]], starts[:-1] - starts[0], tokens)
        types = "".join([name[:1] for name in text])
        addresses = _addresses(words, at, count)
        assert addresses is not None
        return Kallsyms(base + at * 4, addresses, types, tuple([name[1:] for name in text]))
    return None


def _num_syms(words: Words, base: int) -> list[int]:
    """Indices of words that count the ascending addresses that stand before them."""
    found = np.flatnonzero((words >= _FEWEST) & (words < _MOST))
    found = found[words[found] + np.uint32(1) < found]
    # Cheap first: a base before the count and offsets from 0 on before that, or addresses.
    count = words[found].astype(np.int64)
    last, first = words[found - 1].astype(np.int64), words[found - count]
    middle = words[found - count // 2].astype(np.int64)
    near = abs(last - base) < _SPAN
    relative = near & (words[found - 1 - count] == 0)
    absolute = near & (first <= middle) & (abs(middle - base) < _SPAN) & (middle <= last)
    chosen = found[relative | absolute].tolist()
    return [at for at in chosen if _addresses(words, at, int(words[at])) is not None]


def _addresses(words: Words, at: int, count: int) -> npt.NDArray[np.int64] | None:
    """The *count* addresses before word *at*, if there are such."""
    relative = words[max(0, at - 1 - count) : at - 1]
    if len(relative) == count and relative[0] < relative[-1] < 1 << 28 and _ascending(relative):
        start = int(words[at - 1])
        if start + int(relative[-1]) < 1 << 32:
            return relative.astype(np.int64) + start
    absolute = words[max(0, at - count) : at]
    if len(absolute) == count and absolute[0] < absolute[-1] and _ascending(absolute):
        # Absolute symbols (per-CPU offsets of an SMP kernel) may come first.
        return absolute.astype(np.int64)
    return None


def _ascending(values: Words) -> bool:
    return bool(np.all(values[1:] >= values[:-1]))


def _names(data: npt.NDArray[np.uint8], start: int, count: int) -> npt.NDArray[np.int64] | None:
    """Where each of *count* names begins, and where the last one ends."""
    # Of one name there are at most 127 tokens with one length byte, far fewer on average.
    window = data[start : start + count * 64].tobytes()
    starts = np.zeros(count + 1, np.int64)
    at = 0
    for number in range(count):
        starts[number] = at
        if at + 2 > len(window):
            return None
        length = window[at]
        at += 1
        if length >= 0x80:
            length = length & 0x7F | window[at] << 7
            at += 1
        if not length:
            return None
        at += length
    starts[count] = at
    return starts + start if at <= len(window) else None


def _tokens(data: npt.NDArray[np.uint8], start: int, count: int) -> list[bytes] | None:
    """The 256 tokens: the first table behind *start* whose index stands right behind it."""
    # Before it there may be kallsyms_seqs_of_names, three bytes for each name.
    window = data[start : start + 3 * count + (1 << 14)]
    words = window[: len(window) & ~1].view("<u2").astype(np.int64)
    rising = words[1:] > words[:-1]
    # 255 rises in a row from a zero on: positions whose next fall is far enough.
    falls = np.append(np.flatnonzero(~rising), len(words) - 1)
    zeros = np.flatnonzero(words[:-255] == 0)
    zeros = zeros[falls[np.searchsorted(falls, zeros)] - zeros >= 255]
    for at in zeros.tolist():
        index = words[at : at + 256]
        raw = window[: at * 2].tobytes()
        # The table ends at most three bytes of padding before its index.
        end = len(raw.rstrip(b"\0")) + 1
        first = raw.rfind(b"\0", 0, end - 1) + 1 - int(index[255])
        for begin in (first, first + 1):
            if begin < 0:
                continue
            parts = raw[begin : end - 1].split(b"\0")
            offsets = np.cumsum([0, *(len(part) + 1 for part in parts[:-1])])
            if len(parts) == 256 and np.array_equal(offsets, index):
                return parts
    return None


def _expand(
    names: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], tokens: list[bytes]
) -> list[str]:
    """The names, each with its type in front; one pass over all their tokens."""
    numbers = names.astype(np.int64)
    numbers[starts] = 256
    # A long name's length takes two bytes.
    numbers[starts[names[starts] >= 0x80] + 1] = 257
    parts = [*tokens, b"\n", b""]
    text = b"".join([parts[number] for number in numbers.tolist()])
    return text.decode("ascii", "backslashreplace").split("\n")[1:]
