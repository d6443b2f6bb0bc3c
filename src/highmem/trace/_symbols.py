# cython: boundscheck=False, wraparound=False, initializedcheck=False
# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"
# mypy: disable-error-code="import-untyped, import-not-found, unused-ignore"
"""Finding addresses in a copy of ``/proc/kallsyms``; :mod:`highmem.trace.symbols` drives it.

Plain Python that Cython compiles (pure Python mode); interpreted it does the same.
"""

from __future__ import annotations

try:
    import cython
except ImportError:
    from highmem import _cython as cython  # type: ignore[no-redef]

__all__ = ["COMPILED", "index_symbols", "nearest"]

COMPILED: bool = bool(cython.compiled)


def index_symbols(
    text: bytes, width: cython.longlong, addresses: memoryview, starts: memoryview
) -> tuple[int, bool]:
    """The lines of a kallsyms that begin with *width* digits and a space.

    Writes their addresses and where they start; how many, and whether the addresses are in order.
    """
    values: cython.ulonglong[::1] = addresses
    places: cython.longlong[::1] = starts
    p: cython.p_uchar = text
    size: cython.longlong = len(text)
    at: cython.longlong = 0
    i: cython.longlong
    digit: cython.int
    count: cython.longlong = 0
    value: cython.ulonglong
    ordered: cython.bint = True
    while at < size - width - 3:
        value = 0
        digit = 0
        for i in range(at, at + width):
            digit = _digit(p[i])
            if digit < 0:
                break
            value = value << 4 | cython.cast(cython.ulonglong, digit)
        if digit >= 0 and p[at + width] == 32:
            if count > 0 and value < values[count - 1]:
                ordered = False
            values[count] = value
            places[count] = at
            count += 1
        at += width
        while at < size and p[at] != 10:
            at += 1
        at += 1
    return count, ordered


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _digit(letter: cython.int) -> cython.int:
    """A hexadecimal digit's number, below 0 if it is none."""
    if 48 <= letter <= 57:
        return letter - 48
    letter |= 32
    return letter - 87 if 97 <= letter <= 102 else -1


def nearest(addresses: memoryview, count: cython.longlong, address: cython.ulonglong) -> int:
    """The first of the greatest of *count* addresses in any order that is not above *address*; -1
    if all are."""
    values: cython.ulonglong[::1] = addresses
    i: cython.longlong
    best: cython.longlong = -1
    for i in range(count):
        if values[i] <= address and (best < 0 or values[i] > values[best]):
            best = i
    return best
