# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"
# mypy: disable-error-code="import-untyped, import-not-found, attr-defined, unused-ignore, no-redef"
"""Looking through a recording's first events for what shows their kernel.

The one class is driven by :mod:`highmem.replay.detect`, which says what the facts mean.

Plain Python that Cython compiles (pure Python mode); interpreted it does the same.
"""

from __future__ import annotations

try:
    import cython
except ImportError:
    from highmem import _cython as cython

from highmem.trace.buffers import zeros
from highmem.trace.schema import Argument, Batch, Function, Kind

__all__ = ["COMPILED", "Gatherer"]

COMPILED: bool = bool(cython.compiled)

K_MAP = cython.declare(cython.int, 1)  # table
K_RETURN = cython.declare(cython.int, 2)  # table
K_UNMAP = cython.declare(cython.int, 3)  # table
A_PAGE = cython.declare(cython.int, 1)  # table
A_PFN = cython.declare(cython.int, 2)  # table
KMAP_HIGH = cython.declare(cython.int, 14)  # table
assert (K_MAP, K_RETURN, K_UNMAP) == (Kind.MAP, Kind.MAP_RETURN, Kind.UNMAP)
assert (A_PAGE, A_PFN, KMAP_HIGH) == (Argument.PAGE, Argument.PFN, Function.KMAP_HIGH)
PAGE_MASK = cython.declare(cython.ulonglong, 0xFFFFF000)
LOW_64 = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)
SLOTS = cython.declare(cython.int, 1 << 12)  # table
FULL = cython.declare(cython.int, 1 << 11)  # table
MIX = cython.declare(cython.ulonglong, 0x9E3779B97F4A7C15)


@cython.final
@cython.cclass
class Gatherer:
    """What events showed so far.

    ``functions``: those seen.  ``windows``: for each (function, cpu, page address) that a call
    returned, how often; complete after :meth:`settle`.  ``permanent``: what kmap_high returned.
    ``types``: each (cpu, km_type, page address) unmapped by a type.  ``typed``: a km_type was
    seen.  ``frames``: the lowest and highest frame mapped, if any was.  ``a_page``,
    ``pages_apart``: the first struct page, and the greatest common divisor of how far the others
    lie from it.
    """

    functions = cython.declare(set, visibility="public")
    windows = cython.declare(dict, visibility="public")
    permanent = cython.declare(set, visibility="public")
    types = cython.declare(set, visibility="public")
    typed = cython.declare(cython.bint, visibility="public")
    max_cpu = cython.declare(cython.longlong, visibility="public")
    a_page = cython.declare(cython.ulonglong, visibility="public")
    pages_apart = cython.declare(cython.ulonglong, visibility="public")
    _low: cython.ulonglong
    _high: cython.ulonglong
    _any: cython.bint
    _keys: cython.ulonglong[::1]
    _counts: cython.longlong[::1]
    _used: cython.int

    def __init__(self) -> None:
        self.functions, self.permanent, self.types = set(), set(), set()
        self.windows = {}
        self.typed = self._any = False
        self.max_cpu = self.a_page = self.pages_apart = self._low = self._high = self._used = 0
        self._keys = zeros(SLOTS, "uint64")
        self._counts = zeros(SLOTS, "int64")

    @property
    def frames(self) -> tuple[int, int] | None:
        """The lowest and highest frame mapped."""
        return (self._low, self._high) if self._any else None

    def add(self, batch: Batch) -> None:
        """Take in the events of *batch*."""
        kind: cython.uchar[::1] = batch.buffer("kind")
        function: cython.uchar[::1] = batch.buffer("function")
        argument: cython.uchar[::1] = batch.buffer("argument")
        cpu: cython.int[::1] = batch.buffer("cpu")
        km_type: cython.short[::1] = batch.buffer("km_type")
        value: cython.ulonglong[::1] = batch.buffer("value")
        i: cython.Py_ssize_t
        self.functions |= set(bytes(function))
        for i in range(len(batch)):
            self.max_cpu = max(self.max_cpu, cpu[i])
            if km_type[i] >= 0:
                self.typed = True
                if kind[i] == K_UNMAP:
                    self.types.add((cpu[i], km_type[i], value[i] & PAGE_MASK))
            if kind[i] == K_RETURN:
                if function[i] == KMAP_HIGH:
                    self.permanent.add(value[i])
                else:
                    self.returned(function[i], cpu[i], value[i] & PAGE_MASK)
            elif kind[i] == K_MAP and argument[i] == A_PAGE:
                self.page(value[i])
            elif kind[i] == K_MAP and argument[i] == A_PFN:
                self.frame(value[i])

    @cython.cfunc
    def returned(
        self, function: cython.ulonglong, cpu: cython.longlong, page: cython.ulonglong
    ) -> cython.int:
        """A call returned an address in that page."""
        if cpu < 0:
            return 0
        key: cython.ulonglong = page | function << 4 | 1
        key |= cython.cast(cython.ulonglong, cpu) << 32
        place: cython.int = cython.cast(cython.int, (key * MIX & LOW_64) >> 52)
        while self._counts[place] and self._keys[place] != key:
            place = (place + 1) & (SLOTS - 1)
        if not self._counts[place]:
            self._used += 1
            self._keys[place] = key
        self._counts[place] += 1
        if self._used == FULL:
            self.settle()
        return 0

    def settle(self) -> None:
        """Bring ``windows`` up to what was added."""
        place: cython.int
        for place in range(SLOTS):
            if self._counts[place]:
                key = self._keys[place]
                found = (key >> 4 & 0xFF, key >> 32, key & PAGE_MASK)
                self.windows[found] = self.windows.get(found, 0) + self._counts[place]
                self._counts[place] = 0
        self._used = 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def page(self, value: cython.ulonglong) -> cython.void:
        """A struct page was mapped."""
        one: cython.ulonglong = self.pages_apart
        two: cython.ulonglong
        rest: cython.ulonglong
        if self.a_page == 0:
            self.a_page = value
        two = value - self.a_page if value > self.a_page else self.a_page - value
        if one and two % one == 0:
            return
        while one:
            rest = two % one
            two = one
            one = rest
        self.pages_apart = two

    @cython.cfunc
    @cython.exceptval(check=False)
    def frame(self, value: cython.ulonglong) -> cython.void:
        """A frame was mapped."""
        if not self._any or value < self._low:
            self._low = value
        if not self._any or value > self._high:
            self._high = value
        self._any = True
