# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"
# mypy: disable-error-code="import-untyped, import-not-found, attr-defined, unused-ignore, no-redef"
"""The engine's part for permanent windows: ``kmap`` and ``kunmap`` that are plain.

The model's counts, its search and the pages it knows are used as they are; where a page
takes a new window, the model itself hands it out.  Only the calls under way and the windows
that were opened here are kept in rows of numbers.  :meth:`Kmaps.give` hands them to the
reference before it judges an event that is not plain.  They do not come back: a window that
it got is closed by it, and what is opened next is kept here again.

Plain Python that Cython compiles (pure Python mode); interpreted it does the same.
"""

from __future__ import annotations

from typing import Any

try:
    import cython
    from cython import Py_ssize_t, bint, cfunc, exceptval, longlong
except ImportError:
    from highmem import _cython as cython
    from highmem._cython import Py_ssize_t, bint, cfunc, exceptval, longlong

from highmem.replay.bridge import NUMBERS, OUTCOMES, Bridge
from highmem.replay.flights import WINDOW_ONLY
from highmem.trace.buffers import zeros
from highmem.trace.schema import Argument, Batch, Function, Kind

__all__ = ["COMPILED", "Kmaps"]

COMPILED: bool = bool(cython.compiled)

# Numbers of the schema: written out when compiled, see hatch_build.py.
K_MAP = cython.declare(cython.int, 1)  # table
K_RETURN = cython.declare(cython.int, 2)  # table
K_UNMAP = cython.declare(cython.int, 3)  # table
A_PAGE = cython.declare(cython.int, 1)  # table
A_PFN = cython.declare(cython.int, 2)  # table
KMAP = cython.declare(cython.int, 13)  # table
KMAP_HIGH = cython.declare(cython.int, 14)  # table
assert (K_MAP, K_RETURN, K_UNMAP) == (Kind.MAP, Kind.MAP_RETURN, Kind.UNMAP)
assert (A_PAGE, A_PFN) == (Argument.PAGE, Argument.PFN)
assert (KMAP, KMAP_HIGH) == (Function.KMAP, Function.KMAP_HIGH)
assert KMAP_HIGH in WINDOW_ONLY and KMAP not in WINDOW_ONLY
# What became of an event.
ODD = cython.declare(cython.int, 0)  # nothing was changed: the reference has to take it  # table
DONE = cython.declare(cython.int, 1)  # table
CALLED = cython.declare(cython.int, 2)  # a map call is over, with a window  # table
CALLED_LOW = cython.declare(cython.int, 3)  # the same of a low page  # table
CLOSED = cython.declare(cython.int, 4)  # ``row`` was closed  # table
THEIRS = cython.declare(cython.int, 5)  # as ODD, but nothing of what is here concerns it  # table
# The calls of a context, with what is known of each as bridge.FlightRow.
C_COUNT = cython.declare(cython.int, 0)  # calls under way  # table
C_DONE = cython.declare(cython.int, 1)  # which of the two returned last, from 1  # table
C_KEY = cython.declare(cython.int, 2)  # table
C_LEVEL = cython.declare(cython.int, 3)  # table
C_LISTED = cython.declare(cython.int, 4)  # it is in ``busy``  # table
C_FIRST = cython.declare(cython.int, 5)  # table
C_ROW = cython.declare(cython.int, 25)  # table
F_WHAT = cython.declare(cython.int, 0)  # table
F_LINE = cython.declare(cython.int, 1)  # table
F_TIME = cython.declare(cython.int, 2)  # table
F_VALUE = cython.declare(cython.int, 3)  # table
F_FLAGS = cython.declare(cython.int, 4)  # table
F_CPU = cython.declare(cython.int, 5)  # table
F_PREDICTED = cython.declare(cython.int, 6)  # table
F_DEPTH = cython.declare(cython.int, 7)  # table
F_WINDOW = cython.declare(cython.int, 8)  # where its window's row is, -1: it has none  # table
F_CALLER = cython.declare(cython.int, 9)  # table
F_ROW = cython.declare(cython.int, 10)  # table
HIGH = cython.declare(cython.int, 1 << 16)  # table
# A window: bridge.WindowRow, and the one that the same page had before.
W_ADDRESS = cython.declare(cython.int, 0)  # table
W_PAGE = cython.declare(cython.int, 1)  # table
W_WHAT = cython.declare(cython.int, 2)  # table
W_TASK = cython.declare(cython.int, 3)  # table
W_FLAGS = cython.declare(cython.int, 4)  # table
W_LINE = cython.declare(cython.int, 5)  # table
W_TIME = cython.declare(cython.int, 6)  # table
W_CPU = cython.declare(cython.int, 7)  # table
W_PID = cython.declare(cython.int, 8)  # table
W_COMM = cython.declare(cython.int, 9)  # table
W_DEPTH = cython.declare(cython.int, 10)  # table
W_CALLER = cython.declare(cython.int, 11)  # table
W_BELOW = cython.declare(cython.int, 12)  # table
W_ROW = cython.declare(cython.int, 16)  # table
FRAMED = cython.declare(cython.int, 1 << 8)  # table
RETURNED = cython.declare(cython.int, 1 << 9)  # table
KMAPPED = cython.declare(cython.int, 10)  # table
PERMANENT = cython.declare(cython.int, 1 << KMAPPED)  # table
assert NUMBERS[1:] == (HIGH, FRAMED, RETURNED)
assert OUTCOMES == (CALLED, CALLED_LOW, CLOSED, THEIRS, KMAPPED)
FIRST_ROOM = cython.declare(cython.int, 64)  # table


@cython.final
@cython.cclass
class Kmaps:
    """The plain calls of one recording; ``judged`` counts the events of it that were judged
    here, ``row`` is the window closed last."""

    judged = cython.declare(longlong, visibility="public")
    row = cython.declare(object, visibility="public")
    bridge: Any  # table
    kept: Any  # the reference's part for permanent windows  # table
    model: Any  # table
    context: Any  # table
    address_of: Any  # table
    memmap: Any  # table
    verdict: Any  # table
    stats: Any  # table
    base: longlong  # PKMAP_BASE  # table
    size: longlong  # LAST_PKMAP  # table
    page_offset: longlong  # table
    max_low_pfn: longlong  # table
    maps_low: bint  # table

    # What the reference shares.
    counts: list  # type: ignore[type-arg]  # table
    seen: set  # type: ignore[type-arg]  # table
    owners: dict  # type: ignore[type-arg]  # table
    sleepers: dict  # type: ignore[type-arg]  # table
    complaints: dict  # type: ignore[type-arg]  # table
    theirs: dict  # type: ignore[type-arg]  # table

    windows_at: dict  # type: ignore[type-arg]  # the window of a page, as far as asked for  # table
    calls: longlong[::1]
    call_room: longlong  # table
    busy: list  # type: ignore[type-arg]  # contexts with something in them  # table
    windows: longlong[::1]
    window_room: longlong  # table
    free_window: longlong  # table
    top: longlong[::1]  # the row of who mapped each window last, 0 for none
    since: longlong[::1]  # and since when the window has users that are kept here
    clock: longlong  # table
    open: longlong  # windows with rows here  # table
    alone: longlong  # of them, those with none in ``owners``  # table
    last: longlong[::1]

    # Statistics since the last give().
    right: longlong  # table
    maps: longlong  # table
    low_maps: longlong  # table
    reused: longlong  # table
    unmaps: longlong  # table
    most: longlong  # table
    last_unmap: longlong  # table

    # The columns of the batch at hand, if they were needed.
    batch: Any  # table
    ready: bint  # table
    c_line: longlong[::1]
    c_time: longlong[::1]
    c_cpu: cython.int[::1]
    c_pid: cython.int[::1]
    c_comm: cython.int[::1]
    c_function: cython.uchar[::1]
    c_argument: cython.uchar[::1]
    c_flags: cython.uint[::1]
    c_value: cython.ulonglong[::1]
    c_caller: cython.int[::1]

    def __init__(self, bridge: Bridge) -> None:
        reference = bridge.reference
        session, kept = reference.session, reference.permanent
        layout = session.layout
        self.bridge, self.kept, self.model = bridge, kept, session.kernel.permanent
        self.context, self.address_of = session.kernel.context, session.kernel.page_address
        self.memmap, self.verdict = session.memmap, session.verdict
        self.stats = session.verdict.permanent
        self.base, self.size = layout.PKMAP_BASE, layout.LAST_PKMAP
        self.page_offset, self.max_low_pfn = layout.PAGE_OFFSET, layout.max_low_pfn
        self.maps_low = session.profile.maps_low_pages
        self.counts, self.seen, self.owners = self.model.pkmap_count, kept.seen, kept.owners
        self.sleepers, self.complaints = kept.sleepers, kept.kunmaps.complaints
        self.theirs = reference.kmaps.contexts
        self.windows_at = {}
        self.busy = []
        self.calls = zeros(FIRST_ROOM * C_ROW, "int64")
        self.call_room = self.window_room = FIRST_ROOM
        self.windows = zeros(FIRST_ROOM * W_ROW, "int64")
        self.free_window = 0
        self.link(1)
        self.top, self.since = zeros(self.size, "int64"), zeros(self.size, "int64")
        self.row = zeros(W_ROW, "int64")
        self.last = self.row
        self.clock = self.open = self.alone = self.judged = 0
        self.right = self.maps = self.low_maps = self.reused = self.unmaps = 0
        self.most = self.last_unmap = 0
        self.ready = False

    def feed(self, batch: Batch | None) -> None:
        """The events at hand; None lets go of them."""
        self.batch, self.ready = batch, False
        if batch is None:
            self.c_line = self.c_time = self.c_cpu = self.c_pid = self.c_comm = None
            self.c_function = self.c_argument = self.c_flags = self.c_value = None
            self.c_caller = None

    @cfunc
    @exceptval(-1)
    def point(self) -> cython.int:
        column = self.batch.buffer
        self.c_line, self.c_time = column("line"), column("time")
        self.c_cpu, self.c_pid, self.c_comm = column("cpu"), column("pid"), column("comm")
        self.c_function, self.c_argument = column("function"), column("argument")
        self.c_flags, self.c_value = column("flags"), column("value")
        self.c_caller = column("caller")
        self.ready = True
        return 0

    def takes(self, i: Py_ssize_t, kind: cython.int, number: longlong, key: longlong,
              level: longlong) -> int:  # fmt: skip
        """Judge event *i* of the task *key* at an interrupt level, whose context has that
        *number*; what became of it."""
        at: longlong = number * C_ROW
        done: cython.int = ODD
        if not self.ready:
            self.point()
        while number >= self.call_room:
            self.calls = self.more(self.calls)
            self.call_room *= 2
        if self.sleepers:
            return ODD
        self.calls[at + C_KEY] = key
        self.calls[at + C_LEVEL] = level
        if kind == K_MAP:
            done = self.enters(i, at)
        elif kind == K_RETURN:
            done = self.returns(i, at)
        elif kind == K_UNMAP:
            done = self.closes(i, at)
        if done != ODD and done != THEIRS:
            self.judged += 1
        if self.calls[at + C_COUNT] and not self.calls[at + C_LISTED]:
            self.calls[at + C_LISTED] = 1
            self.busy.append(at)
        return done

    def more(self, old: Any) -> memoryview:
        """Twice the room for rows."""
        new = zeros(2 * len(old), "int64")
        new[: len(old)] = memoryview(old)
        return new

    def link(self, first: int) -> None:
        """Rows of windows from *first* on are free."""
        for i in range(first, self.window_room):
            self.windows[i * W_ROW + W_BELOW] = self.free_window
            self.free_window = i * W_ROW

    @cfunc
    @exceptval(-1)
    def rests(self, at: longlong) -> bint:
        """Whether the reference has no call of a context under way; one that returned last is
        of no interest to an event that is no return."""
        if not self.theirs:
            return True
        return self.bridge.rests(self.calls[at + C_KEY], self.calls[at + C_LEVEL])

    # Maps.

    @cfunc
    @exceptval(-1)
    def enters(self, i: Py_ssize_t, at: longlong) -> cython.int:
        """``kmap`` or ``kmap_high`` was entered."""
        count: longlong = self.calls[at + C_COUNT]
        first: longlong = at + C_FIRST
        call: longlong = first + count * F_ROW
        what: longlong = self.c_function[i]
        if len(self.owners) + self.alone >= self.size:
            return ODD
        if count == 0:
            if not self.rests(at):
                return ODD
            self.calls[call + F_LINE] = self.c_line[i]
            self.calls[call + F_TIME] = self.c_time[i]
            self.calls[call + F_FLAGS] = self.c_flags[i]
        elif (
            (count > 1 or self.calls[first + F_PREDICTED] >= 0 or self.c_argument[i] == A_PFN)
            or what != KMAP_HIGH
            or self.calls[first + F_WHAT] & 255 != KMAP
        ):
            return ODD
        else:
            self.calls[call + F_LINE] = self.calls[first + F_LINE]
            self.calls[call + F_TIME] = self.calls[first + F_TIME]
            self.calls[call + F_FLAGS] = self.calls[first + F_FLAGS]
        if what == KMAP_HIGH:
            what |= HIGH
        self.calls[call + F_WHAT] = what | self.c_argument[i] << 8
        self.calls[call + F_VALUE] = self.c_value[i]
        self.calls[call + F_CPU] = self.c_cpu[i]
        self.calls[call + F_PREDICTED] = -1
        self.calls[at + C_COUNT] = count + 1
        self.calls[at + C_DONE] = 0
        return DONE

    @cfunc
    @exceptval(-1)
    def returns(self, i: Py_ssize_t, at: longlong) -> cython.int:
        """One of them returned."""
        count: longlong = self.calls[at + C_COUNT]
        first: longlong = at + C_FIRST
        call: longlong = first + (count - 1) * F_ROW
        caller: longlong = self.c_caller[i]
        k: longlong
        if count < 1 or self.calls[call + F_WHAT] & 255 != self.c_function[i]:
            return ODD
        if self.calls[call + F_PREDICTED] < 0:
            if not self.opens(i, at, call):
                return ODD
        elif self.calls[call + F_PREDICTED] != self.c_value[i]:
            return ODD
        self.right += 1
        self.calls[call + F_CALLER] = caller
        window: longlong = self.calls[call + F_WINDOW]
        if window >= 0 and self.windows[window + W_LINE] == self.calls[call + F_LINE]:
            self.windows[window + W_CALLER] = caller
        self.calls[at + C_DONE] = count
        self.calls[at + C_COUNT] = count - 1
        if count == 2:
            # The call around shares the result.
            for k in range(F_PREDICTED, F_ROW):
                self.calls[first + k] = self.calls[call + k]
            return DONE
        return CALLED if window >= 0 else CALLED_LOW

    @cfunc
    @exceptval(-1)
    def opens(self, i: Py_ssize_t, at: longlong, call: longlong) -> bint:
        """The call takes its window, or answers with the linear address of a low page; whether
        that is plain."""
        value: longlong = self.c_value[i]
        page: longlong = self.calls[call + F_VALUE]
        nr: longlong
        if self.complaints and self.calls[at + C_KEY] in self.complaints:
            return False
        if not self.calls[call + F_WHAT] & HIGH and not self.maps_low:
            if self.calls[call + F_WHAT] >> 8 != A_PAGE:
                return False
            pfn = self.memmap.pfn(page)
            if pfn is None:
                return False
            if pfn < self.max_low_pfn:
                return self.opens_low(call, value, self.page_offset + (pfn << 12))
        nr = self.window_of(page)
        if nr >= 0:
            if value != self.base + (nr << 12) or self.counts[nr] < 1:
                return False
            self.counts[nr] += 1
            self.reused += 1
        else:
            nr = self.next_window()
            if value != self.base + (nr << 12) or not self.is_new(i, page, nr):
                return False
        self.maps += 1
        self.push(i, at, call, nr)
        self.calls[call + F_PREDICTED] = value
        self.calls[call + F_DEPTH] = 1
        return True

    @cfunc
    @exceptval(-1)
    def opens_low(self, call: longlong, value: longlong, linear: longlong) -> bint:
        if value != linear:
            return False
        self.low_maps += 1
        self.calls[call + F_PREDICTED] = value
        self.calls[call + F_DEPTH] = 0
        self.calls[call + F_WINDOW] = -1
        return True

    @cfunc
    @exceptval(-2)
    def window_of(self, page: longlong) -> longlong:
        """The number of the window that a page has, -1 if none is known."""
        found = self.windows_at.get(page)
        if found is not None:
            return found
        known = self.kept.pages.get(page)
        address = None if known is None else self.address_of(known)
        if address is None or self.bridge.is_address(page):
            return -1
        nr: longlong = (address - self.base) >> 12
        self.windows_at[page] = nr
        return nr

    @cfunc
    @exceptval(-2)
    def next_window(self) -> longlong:
        """The window that the model's search would hand out now, -1 for none."""
        nr: longlong = self.model.last_pkmap_nr
        flushed: bint = False
        for _ in range(1, 2 * self.size):
            nr = (nr + 1) % self.size
            flushed = flushed or nr == 0
            count: longlong = self.counts[nr]
            if count == 0 or (flushed and count == 1):
                return nr
        return -1

    @cfunc
    @exceptval(-1)
    def is_new(self, i: Py_ssize_t, page: longlong, nr: longlong) -> bint:
        """Let the model give a page window *nr*, unless the reference has to judge that."""
        if not self.seen or nr < 0 or self.bridge.is_address(page):
            return False
        if len(self.kept.pages) >= 8 * self.size and page not in self.kept.pages:
            return False
        known = self.kept.page(page)
        if nr <= self.model.last_pkmap_nr:  # the search wraps, and flushes
            self.windows_at.clear()
        self.context.this = self.context.cpus[self.c_cpu[i]]
        self.model.kmap_high(known)
        self.windows_at[page] = nr
        self.kept.last_sure = True
        self.seen.add(nr)
        return True

    @cfunc
    @exceptval(-1)
    def push(self, i: Py_ssize_t, at: longlong, call: longlong, nr: longlong) -> cython.int:
        """Note who mapped window *nr*."""
        if not self.free_window:
            self.windows = self.more(self.windows)
            self.window_room *= 2
            self.link(self.window_room // 2)
        window: longlong = self.free_window
        self.free_window = self.windows[window + W_BELOW]
        what: longlong = (self.calls[call + F_WHAT] >> 8 & 255) | RETURNED | PERMANENT
        self.windows[window + W_ADDRESS] = self.base + (nr << 12)
        self.windows[window + W_PAGE] = self.calls[call + F_VALUE]
        self.windows[window + W_WHAT] = what if self.memmap.base is None else what | FRAMED
        self.windows[window + W_TASK] = self.calls[at + C_KEY]
        self.windows[window + W_FLAGS] = self.calls[call + F_FLAGS]
        self.windows[window + W_LINE] = self.calls[call + F_LINE]
        self.windows[window + W_TIME] = self.calls[call + F_TIME]
        self.windows[window + W_CPU] = self.c_cpu[i]
        self.windows[window + W_PID] = self.c_pid[i]
        self.windows[window + W_COMM] = self.c_comm[i]
        self.windows[window + W_DEPTH] = 1
        self.windows[window + W_BELOW] = self.top[nr]
        self.calls[call + F_WINDOW] = window
        if not self.top[nr]:
            self.clock += 1
            self.since[nr] = self.clock
            if nr not in self.owners:
                self.alone += 1
        self.top[nr] = window
        self.open += 1
        self.most = max(self.most, len(self.owners) + self.alone)
        return 0

    # Unmaps.

    @cfunc
    @exceptval(-1)
    def closes(self, i: Py_ssize_t, at: longlong) -> cython.int:
        """``kunmap`` or ``kunmap_high`` was entered."""
        key: longlong = self.calls[at + C_KEY]
        if self.calls[at + C_COUNT] or not self.rests(at):
            return ODD
        if self.complaints and key in self.complaints:
            return ODD
        nr: longlong = self.window_of(self.c_value[i])
        if nr < 0 or self.counts[nr] < 2:
            return ODD
        before: longlong = 0
        window: longlong = self.top[nr]
        while window and self.windows[window + W_TASK] != key:
            before, window = window, self.windows[window + W_BELOW]
        if not window:
            if nr in self.owners:
                self.calls[at + C_DONE] = 0
                return ODD if self.top[nr] else THEIRS
            before, window = 0, self.top[nr]  # another's
            if not window:
                return ODD
        self.calls[at + C_DONE] = 0
        self.counts[nr] -= 1
        self.unmaps += 1
        self.last_unmap = self.c_line[i]
        self.pop(nr, window, before)
        return CLOSED

    @cfunc
    @exceptval(-1)
    def pop(self, nr: longlong, window: longlong, before: longlong) -> cython.int:
        """A window loses the user at *window*, which is below *before*."""
        below: longlong = self.windows[window + W_BELOW]
        k: longlong
        for k in range(W_BELOW):
            self.last[k] = self.windows[window + k]
        if before:
            self.windows[before + W_BELOW] = below
        else:
            self.top[nr] = below
        if not self.top[nr] and nr not in self.owners:
            self.alone -= 1
        self.open -= 1
        self.windows[window + W_LINE] = 0  # a call that knows it knows it by that
        self.windows[window + W_BELOW] = self.free_window
        self.free_window = window
        return 0

    # What is not plain.

    def concerns(self, number: longlong, key: longlong) -> bool:
        """Whether the end of the task *key*, whose context has that *number*, is of interest to
        what is here: it holds something, or a call of it that the reference has may end with a
        window now, among those that are open."""
        at: longlong = number * C_ROW
        nr: longlong
        window: longlong
        if (key, 0) in self.theirs:
            return True
        if number < self.call_room and (self.calls[at + C_COUNT] or self.calls[at + C_DONE]):
            return True
        for nr in range(self.size if self.open else 0):
            window = self.top[nr]
            while window:
                if self.windows[window + W_TASK] == key:
                    return True
                window = self.windows[window + W_BELOW]
        return False

    def give(self) -> None:
        """Everything becomes the reference's."""
        self.windows_at.clear()
        self.add_statistics()
        made: dict[int, Any] = {}
        held = [nr for nr in range(self.size) if self.top[nr]] if self.open else []
        for nr in sorted(held, key=self.since.__getitem__):
            rows, row = [], self.top[nr]
            while row:
                rows.append(row)
                row = self.windows[row + W_BELOW]
            for row in reversed(rows):
                numbers = tuple([self.windows[row + k] for k in range(W_BELOW)])
                made[row] = self.bridge.give_permanent(nr, numbers)
            self.top[nr] = 0
        if self.open:
            self.free_window = 0
            self.link(1)
        self.open = self.alone = 0
        for at in self.busy:
            self.give_calls(at, made)
        self.busy.clear()

    def give_calls(self, at: longlong, made: dict[int, Any]) -> None:
        """The calls of one context."""
        count, done = self.calls[at + C_COUNT], self.calls[at + C_DONE]
        self.calls[at + C_COUNT] = self.calls[at + C_DONE] = self.calls[at + C_LISTED] = 0
        if not count and not done:
            return
        rows = []
        for first in (at + C_FIRST, at + C_FIRST + F_ROW):
            row = tuple([self.calls[first + k] for k in range(F_ROW)])
            window = made.get(row[F_WINDOW]) if row[F_PREDICTED] >= 0 else None
            rows.append((row, window if window and window.line == row[F_LINE] else None))
        last = rows[done - 1] if done else None
        key, level = self.calls[at + C_KEY], self.calls[at + C_LEVEL]
        self.bridge.give_kmaps(key, level, rows[:count], last)

    def add_statistics(self) -> None:
        """What was counted here."""
        verdict, stats = self.verdict, self.stats
        verdict.right += self.right
        verdict.map_calls += self.maps + self.low_maps
        verdict.low_maps += self.low_maps
        stats.maps += self.maps
        stats.reused += self.reused
        stats.unmaps += self.unmaps
        if self.maps:
            stats.windows = len(self.seen)
            stats.most_in_use = max(stats.most_in_use, self.most)
        self.kept.last_unmap = max(self.kept.last_unmap, self.last_unmap)
        self.right = self.maps = self.low_maps = self.reused = self.unmaps = self.most = 0
