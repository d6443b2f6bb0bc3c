# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"
# mypy: disable-error-code="import-untyped, import-not-found, unused-ignore"
"""What is done to every byte of a source file: finding names, blanking, pairing braces.

Plain Python that Cython compiles (pure Python mode).  Interpreted it does the same, slowly:
:mod:`highmem.lint.syntax.text` then takes regular expressions, which say the same again.
"""

from __future__ import annotations

from typing import Any

try:
    import cython
except ImportError:
    from highmem import _cython as cython  # type: ignore[no-redef]

if cython.compiled:
    from cython.cimports.libc.string import memcmp

__all__ = ["COMPILED", "Names", "blank", "calls_in", "closing", "directives", "next_brace"]

COMPILED: bool = bool(cython.compiled)

TAB = cython.declare(cython.int, 9)
NEWLINE = cython.declare(cython.int, 10)
SPACE = cython.declare(cython.int, 32)
QUOTE = cython.declare(cython.int, 34)  # "
HASH = cython.declare(cython.int, 35)  # #
TICK = cython.declare(cython.int, 39)  # '
OPEN = cython.declare(cython.int, 40)  # (
CLOSE = cython.declare(cython.int, 41)  # )
STAR = cython.declare(cython.int, 42)  # *
SLASH = cython.declare(cython.int, 47)  # /
ZERO = cython.declare(cython.int, 48)  # 0
SEMICOLON = cython.declare(cython.int, 59)  # ;
BACKSLASH = cython.declare(cython.int, 92)
BEGIN = cython.declare(cython.int, 123)  # {
END = cython.declare(cython.int, 125)  # }
SMALL = cython.declare(cython.int, 256)  # bytes of a text that is searched at one place only
LONGEST = cython.declare(cython.int, 8)  # characters between two ticks

# 1: a digit, 2: a letter or an underscore, 4: white space.
_KINDS = bytes(
    (1 if chr(c).isdigit() else 2 if chr(c).isalpha() or c == 95 else 0) if c < 128 else 0
    for c in range(256)
)
_SPACES = frozenset((9, 10, 11, 12, 13, 28, 29, 30, 31, 32))
_TABLE = bytes(4 if c in _SPACES else _KINDS[c] for c in range(256))


@cython.cclass
class Names:
    """Some names, to be found anywhere in a text: Wu and Manber's skips by pairs of bytes."""

    _packed: bytes
    _skips: bytes
    _first: bytes
    _rows: bytes
    _shortest: cython.int

    def __init__(self, names: tuple[bytes, ...]) -> None:
        """At most 255 names of 2 to 255 bytes; only their first bytes, as many as the shortest
        has, say how far to skip."""
        self._shortest = min(map(len, names))
        skips, first = bytearray([self._shortest - 1]) * 65536, bytearray(65536)
        rows = bytearray()  # start, in two bytes, length, next row of the same last pair
        for number, name in enumerate(names):
            for at in range(self._shortest - 1):
                pair = name[at] | name[at + 1] << 8
                skips[pair] = min(skips[pair], self._shortest - 2 - at)
            pair = name[self._shortest - 2] | name[self._shortest - 1] << 8
            start = sum(map(len, names[:number]))
            rows.extend((start & 255, start >> 8, len(name), first[pair]))
            first[pair] = number + 1
        self._packed, self._rows = b"".join(names), bytes(rows)
        self._skips, self._first = bytes(skips), bytes(first)

    def inside(self, text: bytes) -> bool:
        """Whether one of the names is in *text*."""
        # Four places at once: each step waits for a table, and they need not wait in turn.
        p: cython.p_uchar = text
        skips: cython.p_uchar = self._skips
        size: cython.Py_ssize_t = len(text)
        back: cython.Py_ssize_t = self._shortest - 1
        part: cython.Py_ssize_t = size // 4
        a: cython.Py_ssize_t = back
        b: cython.Py_ssize_t = back + part
        c: cython.Py_ssize_t = back + 2 * part
        d: cython.Py_ssize_t = back + 3 * part
        i: cython.int
        j: cython.int
        k: cython.int
        m: cython.int
        if size < SMALL:
            return self._next(text, size, 0, None) >= 0
        while a < back + part and b < back + 2 * part and c < back + 3 * part and d < size:
            i = skips[p[a - 1] | p[a] << 8]
            j = skips[p[b - 1] | p[b] << 8]
            k = skips[p[c - 1] | p[c] << 8]
            m = skips[p[d - 1] | p[d] << 8]
            if i == 0:
                if self._at(p, a, size, None):
                    return True
                i = 1
            if j == 0:
                if self._at(p, b, size, None):
                    return True
                j = 1
            if k == 0:
                if self._at(p, c, size, None):
                    return True
                k = 1
            if m == 0:
                if self._at(p, d, size, None):
                    return True
                m = 1
            a += i
            b += j
            c += k
            d += m
        return (
            self._next(text, back + part, a - back, None) >= 0
            or self._next(text, back + 2 * part, b - back, None) >= 0
            or self._next(text, back + 3 * part, c - back, None) >= 0
            or self._next(text, size, d - back, None) >= 0
        )

    def which(self, text: bytes) -> set[int]:
        """The numbers of those that are in *text*."""
        found: set[int] = set()
        size: cython.Py_ssize_t = len(text)
        at: cython.Py_ssize_t = 0
        while at >= 0:
            at = self._next(text, size, at, found)
        return found

    @cython.cfunc
    def _next(
        self, text: bytes, stop: cython.Py_ssize_t, begin: cython.Py_ssize_t, found: Any
    ) -> cython.Py_ssize_t:
        """Just past the first byte of the first name from *begin* on, or -1 where none has its
        first part before *stop*; the numbers of those that begin there join *found*, a set."""
        p: cython.p_uchar = text
        skips: cython.p_uchar = self._skips
        size: cython.Py_ssize_t = len(text)
        back: cython.Py_ssize_t = self._shortest - 1
        at: cython.Py_ssize_t = begin + back
        skip: cython.int
        while at < stop:
            skip = skips[p[at - 1] | p[at] << 8]
            if skip > 0:
                at += skip
            elif self._at(p, at, size, found):
                return at - back + 1
            else:
                at += 1
        return -1

    @cython.cfunc
    def _at(
        self, p: cython.p_uchar, at: cython.Py_ssize_t, size: cython.Py_ssize_t, found: Any
    ) -> cython.bint:
        """Whether a name is there whose first part ends at *at*."""
        q: cython.p_uchar = self._packed
        first: cython.p_uchar = self._first
        rows: cython.p_uchar = self._rows
        begin: cython.Py_ssize_t = at - self._shortest + 1
        row: cython.int = first[p[at - 1] | p[at] << 8]
        length: cython.int
        hit: cython.bint = False
        while row:
            row = 4 * row - 4
            length = rows[row + 2]
            if begin + length <= size and _same(
                p, begin, q, rows[row] | rows[row + 1] << 8, length
            ):
                hit = True
                if found is not None:
                    found.add(row >> 2)
            row = rows[row + 3]
        return hit


@cython.cfunc
@cython.inline
def _same(
    p: cython.p_uchar, at: cython.Py_ssize_t, q: cython.p_uchar, start: cython.int, size: cython.int
) -> cython.bint:
    if cython.compiled:
        return memcmp(p + at, q + start, size) == 0
    return p[at : at + size] == q[start : start + size]


def blank(text: bytes) -> bytearray:
    """*text* with its comments and the insides of its strings and characters blanked.

    Line ends stay, but inside of characters; those become zeros.  A string that does not end
    in its line is blanked with its quote.
    """
    out = bytearray(text)
    p: cython.p_uchar = text
    o: cython.uchar[::1] = out
    size: cython.Py_ssize_t = len(text)
    at: cython.Py_ssize_t = 0
    end: cython.Py_ssize_t
    here: cython.Py_ssize_t
    char: cython.uchar
    while at < size:
        char = p[at]
        end = at + 1
        if char == SLASH and end < size and (p[end] == SLASH or p[end] == STAR):
            end = _end_of_line(p, at + 2, size) if p[end] == SLASH else _end_of(p, at + 2, size)
            _wipe(o, at, end)
        elif char == QUOTE:
            end = _end_of_string(p, end, size)
            if end - at > 1 and p[end - 1] == QUOTE:
                _wipe(o, at + 1, end - 1)
            else:
                _wipe(o, at, end)
        elif char == TICK:
            end = _end_of_character(p, end, size)
            for here in range(at + 1, end - 1):
                o[here] = ZERO
        at = end
    return out


@cython.cfunc
@cython.inline
def _wipe(o: cython.uchar[::1], at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.void:
    here: cython.Py_ssize_t
    for here in range(at, end):
        if o[here] != NEWLINE:
            o[here] = SPACE


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _end_of_line(
    p: cython.p_uchar, at: cython.Py_ssize_t, size: cython.Py_ssize_t
) -> cython.Py_ssize_t:
    """Where a line that backslashes may carry on ends."""
    while at < size and p[at] != NEWLINE:
        if p[at] == BACKSLASH:
            if at + 1 >= size:
                break
            at += 1
        at += 1
    return at


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _end_of(p: cython.p_uchar, at: cython.Py_ssize_t, size: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Just past a comment."""
    while at + 1 < size:
        if p[at] == STAR and p[at + 1] == SLASH:
            return at + 2
        at += 1
    return size


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _end_of_string(
    p: cython.p_uchar, at: cython.Py_ssize_t, size: cython.Py_ssize_t
) -> cython.Py_ssize_t:
    while at < size and p[at] != NEWLINE:
        if p[at] == QUOTE:
            return at + 1
        if p[at] == BACKSLASH:
            if at + 1 >= size:
                break
            at += 1
        at += 1
    return at


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _end_of_character(
    p: cython.p_uchar, at: cython.Py_ssize_t, size: cython.Py_ssize_t
) -> cython.Py_ssize_t:
    """Just past the tick that ends it; what opened it stands alone where none does."""
    alone: cython.Py_ssize_t = at
    count: cython.int
    for count in range(LONGEST + 1):
        if at >= size or p[at] == NEWLINE:
            break
        if p[at] == TICK:
            return at + 1 if count else alone
        if p[at] == BACKSLASH:
            if at + 1 >= size:
                break
            at += 1
        at += 1
    return alone


def directives(text: bytearray) -> list[tuple[int, int]]:
    """Begin and end of every directive of a *text* without comments, which are blanked."""
    p: cython.p_uchar = text
    o: cython.uchar[::1] = text
    size: cython.Py_ssize_t = len(text)
    at: cython.Py_ssize_t = 0
    end: cython.Py_ssize_t
    here: cython.Py_ssize_t
    found: list[tuple[int, int]] = []
    while at < size:
        here = at
        while here < size and (o[here] == SPACE or o[here] == TAB):
            here += 1
        if here < size and o[here] == HASH:
            end = _end_of_line(p, here, size)
            found.append((at, end))
            here = end
        while here < size and o[here] != NEWLINE:
            here += 1
        at = here + 1
    for at, end in found:
        _wipe(o, at, end)
    return found


def next_brace(
    text: bytes, at: cython.Py_ssize_t, chunk: cython.Py_ssize_t, depth: cython.Py_ssize_t
) -> tuple[int, int, int]:
    """The next opening brace from *at* on, or -1; where the declaration before it begins, and
    how many parentheses are open there."""
    p: cython.p_uchar = text
    size: cython.Py_ssize_t = len(text)
    char: cython.uchar
    while at < size:
        char = p[at]
        if char == BEGIN:
            return at, chunk, depth
        if char == OPEN:
            depth += 1
        elif char == CLOSE:
            depth -= depth > 0
        elif char == SEMICOLON or char == END:  # noqa: SIM109 - a C comparison
            chunk, depth = at + 1, 0
        at += 1
    return -1, chunk, depth


def closing(text: bytes, at: cython.Py_ssize_t, deepest: cython.int) -> int:
    """Just past the brace that closes the one at *at*; the end of the text where none does,
    -1 where braces are nested deeper than that."""
    p: cython.p_uchar = text
    size: cython.Py_ssize_t = len(text)
    depth: cython.int = 0
    while at < size:
        if p[at] == BEGIN:
            depth += 1
            if depth > deepest:
                return -1
        elif p[at] == END:
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return size


def calls_in(text: bytes) -> list[str]:
    """Every name before an opening parenthesis, in order."""
    p: cython.p_uchar = text
    kinds: cython.p_uchar = _TABLE
    at: cython.Py_ssize_t = 0
    end: cython.Py_ssize_t = len(text)
    begin: cython.Py_ssize_t
    stop: cython.Py_ssize_t
    found: list[str] = []
    while at < end:
        if not kinds[p[at]] & 3:
            at += 1
            continue
        begin = at
        while at < end and kinds[p[at]] & 3:
            at += 1
        stop = at
        while at < end and kinds[p[at]] == 4:
            at += 1
        if at < end and p[at] == OPEN and kinds[p[begin]] == 2:
            found.append(p[begin:stop].decode("ascii"))
    return found
