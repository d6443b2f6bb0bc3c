# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Two formats that kdump packs pages with and no library of Python's own unpacks: LZO1X, Snappy.

Both give bytes as they are (literals) or say how far back to copy from.  Every length and
distance is checked against what is there before it is used.

Plain Python that Cython compiles (pure Python mode); interpreted it does the same.
"""

# mypy: disable-error-code="import-untyped, import-not-found, unused-ignore"
# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"

from __future__ import annotations

try:
    import cython
except ImportError:
    from highmem import _cython as cython  # type: ignore[no-redef]

__all__ = ["COMPILED", "FAR", "LONG", "SHORT", "TRAILING", "lzo1x", "snappy"]

COMPILED: bool = bool(cython.compiled)

SHORT = -1
"""The packed bytes end where more must follow."""
LONG = -2
"""They unpack to more than there is room for."""
FAR = -3
"""They copy from before the start."""
TRAILING = -4
"""Something follows their end, or (Snappy) their length is not the announced one."""


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _literals(
    data: cython.uchar[::1],
    source: cython.Py_ssize_t,
    out: cython.uchar[::1],
    to: cython.Py_ssize_t,
    length: cython.Py_ssize_t,
) -> cython.Py_ssize_t:
    """Copy *length* bytes of *data*, which are there and fit."""
    n: cython.Py_ssize_t
    if cython.compiled:
        for n in range(length):
            out[to + n] = data[source + n]
    else:
        out[to : to + length] = data[source : source + length]
    return to + length


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _again(
    out: cython.uchar[::1],
    to: cython.Py_ssize_t,
    distance: cython.Py_ssize_t,
    length: cython.Py_ssize_t,
) -> cython.Py_ssize_t:
    """Copy *length* bytes from *distance* before; where that is less, they repeat."""
    n: cython.Py_ssize_t
    if cython.compiled:
        for n in range(to, to + length):
            out[n] = out[n - distance]
    else:
        unit = out[to - distance : to - distance + min(length, distance)]
        out[to : to + length] = (unit * (length // distance + 1))[:length]
    return to + length


def lzo1x(data: cython.uchar[::1], out: cython.uchar[::1]) -> int:
    """Unpack LZO1X into *out*; the bytes written, or SHORT, LONG, FAR or TRAILING.

    An instruction byte says by its highest bits how it goes on; what the smallest ones
    (below 16) mean depends on the literals before them (``state``: how many came with the last
    instruction, 4 for a run of four or more).  Two low bits of a match are the number of
    literals behind it.  See Documentation/staging/lzo.rst of Linux for the stream.
    """
    first: cython.Py_ssize_t = 0
    if len(data) and data[0] > 17:
        first = data[0] - 17
        if 1 + first > len(data):
            return -1
        if first > len(out):
            return -2
        _literals(data, 1, out, 0, first)
    return _lzo_instructions(data, out, 1 + first if first else 0, first, min(first, 4))


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _last_of_length(data: cython.uchar[::1], at: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Where the first byte from *at* on is that is not 0, or -1."""
    while at < len(data):
        if data[at]:
            return at
        at += 1
    return -1


@cython.cfunc
@cython.exceptval(check=False)
def _lzo_instructions(
    data: cython.uchar[::1],
    out: cython.uchar[::1],
    at: cython.Py_ssize_t,
    to: cython.Py_ssize_t,
    state: cython.int,
) -> cython.Py_ssize_t:
    size: cython.Py_ssize_t = len(data)
    room: cython.Py_ssize_t = len(out)
    code: cython.int
    base: cython.int
    length: cython.Py_ssize_t
    distance: cython.Py_ssize_t
    last: cython.Py_ssize_t
    while at < size:
        code = data[at]
        at += 1
        # A length of 0 in its field is continued: 255 for each zero byte, then the last one.
        base = 15 if code < 16 else (7 if code < 32 else 31)
        length = code & base
        if code < 64 and not length and not (code < 16 and state):
            last = _last_of_length(data, at)
            if last < 0:
                return -1
            length = base + 255 * (last - at) + data[last]
            at = last + 1
        if code < 16 and not state:
            length += 3
            if at + length > size:
                return -1
            if to + length > room:
                return -2
            to = _literals(data, at, out, to, length)
            at += length
            state = 4
            continue
        if at + (1 if 16 <= code < 64 else 0) >= size:
            return -1
        distance = data[at]
        at += 1
        if 16 <= code < 64:
            distance = (distance | data[at] << 8) >> 2
            state = data[at - 1] & 3
            at += 1
            length += 2
            distance += 1 if code >= 32 else 16384 + ((code & 8) << 11)
            if code < 32 and distance == 16384:
                return to if at == size else -4
        else:
            if code >= 64:
                distance = (distance << 3) + (code >> 2 & 7) + 1
                length = (code >> 5) + 1
            else:
                distance = (distance << 2) + (code >> 2) + (2049 if state == 4 else 1)
                length = 3 if state == 4 else 2
            state = code & 3
        if distance > to:
            return -3
        if to + length + state > room:
            return -2
        if at + state > size:
            return -1
        to = _again(out, to, distance, length)
        to = _literals(data, at, out, to, state)
        at += state
    return -1


def snappy(data: cython.uchar[::1], out: cython.uchar[::1]) -> int:
    """Unpack raw Snappy into *out*; the bytes written, or SHORT, LONG, FAR or TRAILING.

    The length of the whole first (seven bits a byte, lowest first), then elements: the low two
    bits of a tag are 0 for literals, else the kind of copy (Snappy's format_description.txt).
    """
    size: cython.Py_ssize_t = len(data)
    # Wide enough for 32 bits of length shifted into place, on any machine.
    room: cython.longlong = 0
    at: cython.Py_ssize_t = 0
    to: cython.Py_ssize_t = 0
    shift: cython.int = 0
    tag: cython.longlong
    extra: cython.longlong
    n: cython.int
    byte: cython.longlong
    length: cython.longlong
    distance: cython.longlong
    while True:
        if at >= size or shift > 28:
            return -1
        tag = data[at]
        at += 1
        room |= (tag & 127) << shift
        shift += 7
        if tag < 128:
            break
    if room > len(out):
        return -2
    while at < size:
        tag = data[at]
        at += 1
        length = (tag >> 2) + 1
        # Bytes behind the tag: a longer length of literals, or the distance of a copy.
        extra = (1 << (tag & 3)) >> 1 if tag & 3 else max(0, length - 60)
        if at + extra > size:
            return -1
        distance = 0
        for n in range(extra):
            byte = data[at + n]
            distance |= byte << (8 * n)
        at += extra
        if not tag & 3:
            if extra:
                length = distance + 1
            if at + length > size:
                return -1
            if to + length > room:
                return -2
            to = _literals(data, at, out, to, length)
            at += length
            continue
        if tag & 3 == 1:
            distance |= (tag >> 5) << 8
            length = (tag >> 2 & 7) + 4
        if not 0 < distance <= to:
            return -3
        if to + length > room:
            return -2
        to = _again(out, to, distance, length)
    return to if to == room else -4
