# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"
# mypy: disable-error-code="import-untyped, import-not-found, attr-defined, unused-ignore, no-redef"
"""The fast replay: the same verdict as the reference, from columns, without objects.

What recordings consist of almost entirely (calls that nest and end properly) is judged here
on arrays.  Whatever is not plain (a loss, a misuse, a missing event, anything before the
first complete call) is handed to the reference, which judges that event on the exact model;
its stack and its calls go back to the arrays once they are plain again.  So the two can not
differ in what a finding says, only this file's plain cases have to be right, and a property
test holds both to the same verdict.

Everything is kept in rows of numbers, and a row is known by where it begins.  A task at an
interrupt level (a *context*) is found by its pid, without a search; its row holds the calls
under way.  Open windows are rows of one pool, chained from each stack's top down, so that
the few that are open at a time stay in the processor's cache.

Plain Python that Cython compiles (pure Python mode); interpreted it does the same.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from typing import Any

try:
    import cython
    from cython import (
        Py_ssize_t,
        bint,
        cast,
        cfunc,
        exceptval,
        inline,
        longlong,
        p_longlong,
        unlikely,
    )
except ImportError:
    from highmem import _cython as cython
    from highmem._cython import (
        Py_ssize_t,
        bint,
        cast,
        cfunc,
        exceptval,
        inline,
        longlong,
        p_longlong,
        unlikely,
    )

from highmem.compiled import load, load_source
from highmem.replay import bridge
from highmem.replay.flights import INNER, WINDOW_ONLY
from highmem.replay.mappings import from_rows
from highmem.replay.reference import FIELDS, PERMANENT, Reference
from highmem.replay.state import Event
from highmem.replay.verdict import Verdict
from highmem.trace.schema import (
    FLAG_HARDIRQ,
    FLAG_NMI,
    FLAG_SOFTIRQ,
    Argument,
    Batch,
    Function,
    Kind,
)

if cython.compiled:
    from cython.cimports.cpython.buffer import (
        Py_buffer,
        PyBUF_SIMPLE,
        PyBuffer_Release,
        PyObject_GetBuffer,
    )
    from cython.cimports.libc.stdlib import calloc, free
    from cython.cimports.libc.string import memcpy

__all__ = ["COMPILED", "Engine"]

COMPILED: bool = bool(cython.compiled)

if COMPILED:
    Kmaps = load("highmem.replay._permanent").Kmaps
else:
    Kmaps = load_source("highmem.replay._permanent", "highmem_permanent_interpreted").Kmaps

# Numbers of the schema: written out when compiled, see hatch_build.py.
K_MAP = cython.declare(cython.int, 1)  # table
K_RETURN = cython.declare(cython.int, 2)  # table
K_UNMAP = cython.declare(cython.int, 3)  # table
K_SWITCH = cython.declare(cython.int, 4)  # table
K_LOST = cython.declare(cython.int, 5)  # table
A_PAGE = cython.declare(cython.int, 1)  # table
A_PFN = cython.declare(cython.int, 2)  # table
BIT_HARD = cython.declare(cython.int, 8)  # table
BIT_SOFT = cython.declare(cython.int, 16)  # table
BIT_NMI = cython.declare(cython.int, 32)  # table
LEVELS = cython.declare(cython.int, 56)  # table
assert (K_MAP, K_RETURN, K_UNMAP) == (Kind.MAP, Kind.MAP_RETURN, Kind.UNMAP)
assert (K_SWITCH, K_LOST) == (Kind.SWITCH, Kind.LOST)
assert (A_PAGE, A_PFN) == (Argument.PAGE, Argument.PFN)
assert (BIT_SOFT, BIT_HARD, BIT_NMI) == (FLAG_SOFTIRQ, FLAG_HARDIRQ, FLAG_NMI)
PAGE_MASK = cython.declare(cython.longlong, 0xFFFFF000)  # table
DEEP = cython.declare(cython.int, 40)  # table

# Places of tasks: for each pid, then for the idle task of each CPU.
PIDS = cython.declare(cython.longlong, 1 << 22)  # PID_MAX_LIMIT, include/linux/threads.h  # table
PLACE_ROW = cython.declare(cython.int, 8)  # the contexts of its four levels, its stack  # table
P_STACK = cython.declare(cython.int, 4)  # table
# A context.
C_COUNT = cython.declare(cython.int, 0)  # calls under way: 0 to 2  # table
C_DONE = cython.declare(cython.int, 1)  # which of the two rows returned last, from 1  # table
C_STACK = cython.declare(cython.int, 2)  # the stack that the call done last is on  # table
C_KEY = cython.declare(cython.int, 3)  # the task, as Session.task_key  # table
C_LEVEL = cython.declare(cython.int, 4)  # table
C_PLACE = cython.declare(cython.int, 5)  # table
C_HOME = cython.declare(cython.int, 6)  # the task's stack (local era)  # table
C_COMM = cython.declare(cython.int, 7)  # the name that C_TASK is of  # table
C_TASK = cython.declare(cython.int, 8)  # the task's statistics  # table
C_FIRST = cython.declare(cython.int, 9)  # the two calls  # table
C_ROW = cython.declare(cython.int, 29)  # table
AWAY = cython.declare(cython.int, -1)  # C_COUNT or S_STATE: it is with the reference  # table
# A call under way or done last.
F_WHAT = cython.declare(cython.int, 0)  # function, argument << 8, HIGH  # table
F_LINE = cython.declare(cython.int, 1)  # table
F_TIME = cython.declare(cython.int, 2)  # table
F_VALUE = cython.declare(cython.int, 3)  # table
F_FLAGS = cython.declare(cython.int, 4)  # table
F_CPU = cython.declare(cython.int, 5)  # table
F_PREDICTED = cython.declare(cython.int, 6)  # -1: not done by the model yet  # table
F_DEPTH = cython.declare(cython.int, 7)  # table
F_WINDOW = cython.declare(cython.int, 8)  # windows below its own, -1: it has none  # table
F_CALLER = cython.declare(cython.int, 9)  # table
F_ROW = cython.declare(cython.int, 10)  # table
HIGH = cython.declare(cython.int, 1 << 16)  # table
# A stack; a window is found from its top.
S_STATE = cython.declare(cython.int, 0)  # table
S_DEPTH = cython.declare(cython.int, 1)  # table
S_CPU = cython.declare(cython.int, 2)  # table
S_KNOWN = cython.declare(cython.int, 3)  # table
S_TOUCHED = cython.declare(cython.int, 4)  # table
S_KEY = cython.declare(cython.int, 5)  # table
S_TOP = cython.declare(cython.int, 6)  # table
S_ROW = cython.declare(cython.int, 8)  # table
FREE = cython.declare(cython.int, 0)  # table
PLAIN = cython.declare(cython.int, 1)  # table
# A window.
W_ADDRESS = cython.declare(cython.int, 0)  # table
W_PAGE = cython.declare(cython.int, 1)  # table
W_WHAT = cython.declare(cython.int, 2)  # argument, FRAMED, RETURNED  # table
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
KMAPPED = cython.declare(cython.int, 10)  # W_WHAT's bit of a permanent window  # table
# What Kmaps says of an event.
CALLED = cython.declare(cython.int, 2)  # table
CALLED_LOW = cython.declare(cython.int, 3)  # table
CLOSED = cython.declare(cython.int, 4)  # table
THEIRS = cython.declare(cython.int, 5)  # table
FRAMED = cython.declare(cython.int, 1 << 8)  # table
RETURNED = cython.declare(cython.int, 1 << 9)  # table
assert (DEEP, HIGH, FRAMED, RETURNED) == bridge.NUMBERS
assert (CALLED, CALLED_LOW, CLOSED, THEIRS, KMAPPED) == bridge.OUTCOMES
# A CPU: statistics, the last loss that may concern it, and where its windows begin.
U_LOW = cython.declare(cython.int, 0)  # map calls of low pages  # table
U_UNMAPS = cython.declare(cython.int, 1)  # table
U_LOST = cython.declare(cython.int, 2)  # table
U_FIRST = cython.declare(cython.int, 3)  # table
U_DEPTHS = cython.declare(cython.int, 4)  # how many windows were the n-th of their stack  # table
CPU_ROW = cython.declare(cython.int, 48)  # table
# Statistics of a task.
TASK_ROW = cython.declare(cython.int, 2)  # table
# Those of a caller, with its hold times in buckets: an odd number of cache lines, so that the same
# bucket of two callers is not in one set of the cache.
L_MAPS = cython.declare(cython.int, 0)  # table
L_DEEPEST = cython.declare(cython.int, 1)  # table
L_LONGEST = cython.declare(cython.int, 2)  # table
L_LINE = cython.declare(cython.int, 3)  # table
L_TOTAL = cython.declare(cython.int, 4)  # table
L_HOLDS = cython.declare(cython.int, 8)  # table
BUCKETS = cython.declare(cython.int, 2048)  # table
CALLER_ROW = cython.declare(cython.int, 2056)  # table
MAPPING_ROW = cython.declare(cython.int, 13)  # table
MAPPING_BATCH = cython.declare(cython.int, 8192)  # table
FUNCTIONS = cython.declare(cython.int, 32)  # table
NUMBERS = cython.declare(cython.int, 256)  # table
BUCKET_BIAS = cython.declare(cython.int, 32 * 1023 + 128)  # table
FIRST_ROOM = cython.declare(cython.int, 64)  # table


def _zeros(length: int) -> array[int]:
    return array("q", (0,)) * length


def _more(old: array[int], length: int) -> array[int]:
    """A copy of *old* with room for *length* numbers."""
    new = _zeros(length)
    new_bytes, old_bytes = memoryview(new).cast("B"), memoryview(old).cast("B")
    new_bytes[: len(old_bytes)] = old_bytes
    return new


@cfunc
def _pointer(numbers: Any) -> p_longlong:
    """Where the numbers of an array are; interpreted, a view of it."""
    if cython.compiled:
        view: longlong[::1] = numbers
        return cython.address(view[0])
    return memoryview(numbers)


@cfunc
@exceptval(0)
def _start(column: object, count: Py_ssize_t, size: Py_ssize_t) -> cython.size_t:
    """Where a column of at least *count* numbers of *size* bytes is; who asks keeps it."""
    view = cython.declare(Py_buffer)
    PyObject_GetBuffer(column, cython.address(view), PyBUF_SIMPLE)
    start: cython.size_t = cast(cython.size_t, view.buf)
    right: bint = view.itemsize == size and view.len >= count * size
    PyBuffer_Release(cython.address(view))
    if not right:
        raise TypeError(f"a column is not {count} numbers of {size} bytes")
    return start


@cfunc
@inline
@exceptval(check=False)
def _row(table: p_longlong, at: longlong) -> p_longlong:
    """The row of a table that begins at *at*."""
    return table + at if cython.compiled else table[at:]


@cython.final
@cython.cclass
class Engine:
    """Feed it the batches of one recording (stack or local era), then :meth:`finish`."""

    reference = cython.declare(object, visibility="public")
    session: Any  # table
    bridge: Any  # table
    kmaps = cython.declare(object, visibility="public")
    permanent_at: Any  # table
    closed_kmap: p_longlong  # table
    untouched: bint  # the next event is nothing to what ``kmaps`` has  # table
    event: Any  # table
    verdict: Any  # table
    recorder: Any  # table
    doubts: Any  # table
    window_of_page: Any  # table
    asked: bint  # table

    # What kernel it is.
    local: bint  # table
    forced: bint  # table
    first: longlong  # table
    last: longlong  # table
    apart: longlong  # two windows that follow each other on a stack  # table
    limit: longlong  # table
    max_cpu: longlong  # table
    page_offset: longlong  # table
    high_memory: longlong  # table
    max_low_pfn: longlong  # table
    struct_size: longlong  # table
    base: longlong  # mem_map, -1 while it is not known  # table

    # The state of the recording.
    odd: bint  # the next event is the reference's, whatever it is  # table
    waiting: bint  # table
    # Not 0 once an index has left its CPU's slots (stack era): the reference judges the rest.
    unbounded: longlong  # table

    # The tables, each with the array that holds it and how many rows there are.
    places: cython.p_int  # table
    cpus: p_longlong  # table
    contexts: p_longlong  # table
    stacks: p_longlong  # table
    windows: p_longlong  # table
    context_count: longlong  # table
    context_room: longlong  # table
    stack_count: longlong  # table
    stack_room: longlong  # table
    window_room: longlong  # table
    free_window: longlong  # table
    owned: dict  # type: ignore[type-arg]  # table

    # Statistics, added to the verdict's at the end.
    right: longlong  # table
    low_maps: longlong  # table
    low_unmaps: longlong  # table
    switches: longlong  # table
    first_ns: longlong  # table
    last_ns: longlong  # table
    last_return: longlong  # table
    last_unmap: longlong  # table
    task_rows: dict  # type: ignore[type-arg]  # table
    task_stats: p_longlong  # table
    task_room: longlong  # table
    task_objects: list  # type: ignore[type-arg]  # table
    caller_rows: p_longlong  # table
    caller_numbers: longlong  # table
    caller_stats: p_longlong  # row 0: of windows whose caller was not recorded  # table
    caller_objects: list  # type: ignore[type-arg]  # table
    caller_room: longlong  # table

    # Mappings on their way to the sinks.
    sinks: list  # type: ignore[type-arg]  # table
    mapping_rows: p_longlong  # table
    mapping_count: longlong  # table
    mapping_room: longlong  # 0 without sinks  # table

    # Facts about functions and texts, by their number.
    inner: p_longlong  # table
    what: p_longlong  # table
    plain: p_longlong  # table
    opener: p_longlong  # always answers with a window  # table
    states: p_longlong  # table
    state_count: longlong  # table
    strings: Any  # table

    # The columns of the batch at hand.
    c_line: p_longlong  # table
    c_time: p_longlong  # table
    c_cpu: cython.p_int  # table
    c_pid: cython.p_int  # table
    c_comm: cython.p_int  # table
    c_kind: cython.p_uchar  # table
    c_function: cython.p_uchar  # table
    c_argument: cython.p_uchar  # table
    c_flags: cython.p_uint  # table
    c_value: cython.p_ulonglong  # table
    c_caller: cython.p_int  # table
    c_prot: cython.p_ulonglong  # table
    c_km_type: cython.p_short  # table
    c_next_pid: cython.p_int  # table
    c_next_comm: cython.p_int  # table
    c_state: cython.p_int  # table

    def __init__(self, reference: Reference) -> None:
        session = reference.session
        profile, layout = session.profile, session.layout
        self.owned = {}
        self.reference = reference
        self.session = session
        self.bridge = bridge.Bridge(reference)
        self.kmaps = Kmaps(self.bridge)
        self.closed_kmap = self.own("closed_kmap", self.kmaps.row)
        self.permanent_at, session.permanent_at = session.permanent_at, self.ask_kmap
        self.event = Event()
        self.verdict = session.verdict
        self.recorder = session.recorder
        self.doubts = session.unmap_doubts
        self.strings = session.strings
        self.local = profile.era.value == "local"
        self.forced = profile.maps_low_pages
        self.first = layout.window_address(0, 0)
        self.last = layout.fix_to_virt(layout.FIX_KMAP_END)
        self.apart = (2 if profile.guard_slots else 1) << 12
        self.limit = min(profile.depth_limit, DEEP)
        self.max_cpu = profile.nr_cpus - 1
        self.page_offset = layout.PAGE_OFFSET
        self.high_memory = layout.high_memory
        self.max_low_pfn = layout.max_low_pfn
        self.struct_size = layout.geometry.sizeof_struct_page
        self.base = -1
        self.odd = True
        self.waiting = self.asked = self.untouched = False
        self.unbounded = 0
        self.right = self.low_maps = self.low_unmaps = self.switches = 0
        self.first_ns = self.last_ns = self.last_return = self.last_unmap = 0
        self.mapping_count = 0
        self._make_tables(profile.nr_cpus)
        self._make_statistics()
        for cpu in range(profile.nr_cpus):
            first = layout.window_address(cpu, 1 if profile.guard_slots else 0)
            self.cpus[cpu * CPU_ROW + U_FIRST] = first
        self._make_facts()
        session.gather = self.give_all_stacks
        self.window_of_page = session.window_of_page
        session.window_of_page = self.ask_window

    @cfunc
    def own(self, name: str, numbers: object) -> p_longlong:
        """Keep the array of a table; where its numbers are."""
        self.owned[name] = numbers
        return _pointer(numbers)

    @cfunc
    def grown(self, name: str, length: int) -> p_longlong:
        """Make a table longer; where its numbers are now."""
        return self.own(name, _more(self.owned[name], length))

    def _make_tables(self, cpus: int) -> None:
        if cython.compiled:
            self.places = cast(cython.p_int, calloc((PIDS + cpus) * PLACE_ROW, 4))
            if self.places == cython.NULL:
                raise MemoryError
        else:
            self.places = defaultdict(int)
        self.cpus = self.own("cpus", _zeros(cpus * CPU_ROW))
        # Row 0 of each table stands for none.
        self.context_count = self.stack_count = 1
        self.context_room = FIRST_ROOM
        self.contexts = self.own("contexts", _zeros(FIRST_ROOM * C_ROW))
        self.stack_room = FIRST_ROOM + cpus
        self.stacks = self.own("stacks", _zeros(self.stack_room * S_ROW))
        if not self.local:
            self.stack_count = cpus
            for cpu in range(cpus):
                self.stacks[cpu * S_ROW + S_KEY] = cpu
        self.window_room = self.free_window = 0
        self.windows = self.own("windows", _zeros(W_ROW))
        self.more_windows()

    def _make_statistics(self) -> None:
        self.task_rows = {}
        self.task_room = self.caller_numbers = self.caller_room = FIRST_ROOM
        self.task_stats = self.own("task_stats", _zeros(FIRST_ROOM * TASK_ROW))
        self.task_objects = []
        self.caller_rows = self.own("caller_rows", _zeros(FIRST_ROOM))
        self.caller_stats = self.own("caller_stats", _zeros(FIRST_ROOM * CALLER_ROW))
        self.caller_objects = [None]
        self.sinks = self.recorder.mappings.sinks
        self.mapping_room = MAPPING_BATCH if self.sinks else 0
        rows = _zeros(self.mapping_room * MAPPING_ROW + 1)
        self.mapping_rows = self.own("mapping_rows", rows)

    def _make_facts(self) -> None:
        self.inner = self.own("inner", _zeros(FUNCTIONS * FUNCTIONS))
        self.what = self.own("what", _zeros(NUMBERS))
        self.plain = self.own("plain", _zeros(NUMBERS))
        self.opener = self.own("opener", _zeros(NUMBERS))
        self.states = self.own("states", _zeros(FIRST_ROOM))
        self.state_count = FIRST_ROOM
        for outer, functions in INNER.items():
            for function in functions:
                self.inner[int(outer) * FUNCTIONS + int(function)] = 1
        for number in range(FUNCTIONS):
            high = HIGH if number in WINDOW_ONLY else 0
            self.what[number] = number | high
            self.opener[number] = bool(self.forced or high)
            self.plain[number] = -1 if number in PERMANENT else 1

    def __dealloc__(self) -> None:
        if cython.compiled:
            free(self.places)

    # The loop.

    def feed(self, batch: Batch) -> None:
        """Judge the events of *batch*."""
        count: Py_ssize_t = len(batch)
        i: Py_ssize_t = 0
        if not count:
            return
        if cython.compiled:
            self.point(batch.buffer, count)
        else:
            for name in FIELDS:  # as lists, whose numbers are Python's own
                setattr(self, f"c_{name}", batch.buffer(name).tolist())
        self.kmaps.feed(batch)
        while True:
            i = self.run(i, count)
            if i >= count:
                break
            self.slow(i)
            i += 1
        self.note_last(count - 1)
        self.kmaps.feed(None)

    @cfunc
    def point(self, column: Any, count: Py_ssize_t) -> cython.int:
        """Take the columns of a batch, by name."""
        self.c_line = cast(p_longlong, _start(column("line"), count, 8))
        self.c_time = cast(p_longlong, _start(column("time"), count, 8))
        self.c_cpu = cast(cython.p_int, _start(column("cpu"), count, 4))
        self.c_pid = cast(cython.p_int, _start(column("pid"), count, 4))
        self.c_comm = cast(cython.p_int, _start(column("comm"), count, 4))
        self.c_kind = cast(cython.p_uchar, _start(column("kind"), count, 1))
        self.c_function = cast(cython.p_uchar, _start(column("function"), count, 1))
        self.c_argument = cast(cython.p_uchar, _start(column("argument"), count, 1))
        self.c_flags = cast(cython.p_uint, _start(column("flags"), count, 4))
        self.c_value = cast(cython.p_ulonglong, _start(column("value"), count, 8))
        self.c_caller = cast(cython.p_int, _start(column("caller"), count, 4))
        self.c_prot = cast(cython.p_ulonglong, _start(column("prot"), count, 8))
        self.c_km_type = cast(cython.p_short, _start(column("km_type"), count, 2))
        self.c_next_pid = cast(cython.p_int, _start(column("next_pid"), count, 4))
        self.c_next_comm = cast(cython.p_int, _start(column("next_comm"), count, 4))
        self.c_state = cast(cython.p_int, _start(column("state"), count, 4))
        return 0

    @cfunc
    @exceptval(-1)
    def run(self, i: Py_ssize_t, count: Py_ssize_t) -> Py_ssize_t:
        """Judge events from *i* on; where the first one is that is not plain."""
        kind: cython.int
        done: Py_ssize_t
        back: Py_ssize_t
        first: Py_ssize_t = i
        latest: longlong = self.last_ns
        while i < count and not self.odd:
            kind = self.c_kind[i]
            done = 0
            if kind == K_MAP and i + 4 < count:
                back = i + 1
                if self.c_kind[back] == K_MAP and self.wraps(i):
                    back = i + 2
                if self.c_kind[back] == K_RETURN:
                    done = self.at_once(i, back, 2 * back - i)
            if done == 0:
                done = self.alone(i, kind)
                if unlikely(done == 0):
                    break
            i += done
            latest = max(latest, self.c_time[i - 1])
        self.last_ns = latest
        while first < i and self.first_ns == 0:
            self.first_ns = self.c_time[first]
            first += 1
        return i

    @cfunc
    @inline
    @exceptval(-1)
    def alone(self, i: Py_ssize_t, kind: cython.int) -> cython.int:
        """Judge one event; 0 if it is not plain."""
        cpu: longlong = self.c_cpu[i]
        place: longlong = self.c_pid[i]
        if unlikely(place <= 0 or place >= PIDS):
            place = self.place_of(place, cpu)
            if unlikely(place < 0):
                return 0
        if unlikely(cpu < 0 or cpu > self.max_cpu or self.c_value[i] >> 63):
            return 0
        if unlikely(kind > K_SWITCH):
            return 0
        place *= PLACE_ROW
        level: longlong = self.c_flags[i] & LEVELS
        if level:
            level = level_of(level)
        at: longlong = self.places[place + level]
        if kind == K_SWITCH:
            return self.leaves(i, place, cpu)
        if unlikely(at == 0):
            at = self.new_context(place, level, cpu)
        if unlikely(self.plain[self.c_function[i]] < 1):
            return self.permanent(i, kind, at)
        if kind == K_UNMAP:
            return self.unmaps(i, at, cpu)
        if kind == K_RETURN:
            return self.returns(i, at, cpu)
        return self.enters(i, at)

    @cfunc
    @exceptval(-1)
    def permanent(self, i: Py_ssize_t, kind: cython.int, at: longlong) -> cython.int:
        """The same of an event of a permanent window."""
        key: longlong = self.contexts[at + C_KEY]
        done: cython.int = self.kmaps.takes(i, kind, at // C_ROW, key, self.contexts[at + C_LEVEL])
        self.untouched = done == THEIRS
        if done == CLOSED:
            self.closed(self.closed_kmap, self.c_line[i], self.c_time[i])
        elif done in (CALLED, CALLED_LOW):
            self.called(self.c_caller[i], 1 if done == CALLED else 0)
        return 0 < done < THEIRS

    @cfunc
    @exceptval(check=False)
    def note_last(self, i: Py_ssize_t) -> cython.void:
        """Note the last return, and the last unmap of a temporary window, from *i* back."""
        found: cython.int = 0
        kind: cython.int
        while i >= 0 and found != 3:
            kind = self.c_kind[i]
            if 0 <= self.c_cpu[i] <= self.max_cpu:
                if kind == K_RETURN and not found & 1:
                    self.last_return = self.c_line[i]
                    found |= 1
                elif kind == K_UNMAP and not found & 2 and self.plain[self.c_function[i]] >= 0:
                    self.last_unmap = self.c_line[i]
                    found |= 2
            i -= 1

    # Rows.

    @cfunc
    @exceptval(check=False)
    def place_of(self, pid: longlong, cpu: longlong) -> longlong:
        """The number of a task's place, -1 if its pid is none that a kernel gives."""
        if pid == 0:
            return PIDS + cpu
        if -1 - self.max_cpu <= pid < 0:
            return PIDS - 1 - pid  # such a number stands for an idle task
        return pid if 0 < pid < PIDS else -1

    @cfunc
    @exceptval(-1)
    def new_context(self, place: longlong, level: longlong, cpu: longlong) -> longlong:
        """The row of a context that has none yet: nothing is under way in it."""
        row: longlong = self.context_count
        if row == self.context_room:
            self.context_room *= 2
            self.contexts = self.grown("contexts", self.context_room * C_ROW)
        self.context_count += 1
        at: longlong = row * C_ROW
        key: longlong = place // PLACE_ROW
        self.contexts[at + C_KEY] = key if key < PIDS else PIDS - 1 - key
        self.contexts[at + C_LEVEL] = level
        self.contexts[at + C_PLACE] = place
        self.contexts[at + C_COMM] = -2  # no event's
        self.contexts[at + C_HOME] = self.home(place) if self.local else 0
        self.places[place + level] = cast(cython.int, at)
        return at

    @cfunc
    @exceptval(-1)
    def home(self, place: longlong) -> longlong:
        """The stack of a task (local era), made if new."""
        at: longlong = self.places[place + P_STACK]
        if at:
            return at
        if self.stack_count == self.stack_room:
            self.stack_room *= 2
            self.stacks = self.grown("stacks", self.stack_room * S_ROW)
        at = self.stack_count * S_ROW
        self.stack_count += 1
        key: longlong = place // PLACE_ROW
        self.stacks[at + S_KEY] = key if key < PIDS else PIDS - 1 - key
        self.places[place + P_STACK] = cast(cython.int, at)
        return at

    def more_windows(self) -> None:
        """Twice the room for open windows; the new rows are free."""
        old: longlong = self.window_room
        self.window_room = max(2 * old, FIRST_ROOM)
        self.windows = self.grown("windows", self.window_room * W_ROW)
        i: longlong
        for i in range(max(old, 1), self.window_room):
            self.windows[i * W_ROW + W_BELOW] = self.free_window
            self.free_window = i * W_ROW

    @cfunc
    @inline
    @exceptval(-1)
    def push(self, stack: p_longlong) -> longlong:
        """A new window on top of *stack*; where its row begins."""
        if unlikely(self.free_window == 0):
            self.more_windows()
        slot: longlong = self.free_window
        self.free_window = self.windows[slot + W_BELOW]
        self.windows[slot + W_BELOW] = stack[S_TOP]
        stack[S_TOP] = slot
        stack[S_DEPTH] += 1
        return slot

    @cfunc
    @inline
    @exceptval(check=False)
    def pop(self, stack: p_longlong) -> cython.void:
        """The top window of *stack* goes."""
        slot: longlong = stack[S_TOP]
        stack[S_TOP] = self.windows[slot + W_BELOW]
        stack[S_DEPTH] -= 1
        self.windows[slot + W_BELOW] = self.free_window
        self.free_window = slot

    # A call with its end.

    @cfunc
    @inline
    @exceptval(-1)
    def at_once(self, i: Py_ssize_t, back: Py_ssize_t, after: Py_ssize_t) -> Py_ssize_t:
        """Judge a map call whose return (or two) follows at once, as most do, and its unmap if
        that is next, without writing down what would be read back: how many events these are,
        whose times are in order; 0 if it is not that plain."""
        pid: longlong = self.c_pid[i]
        cpu: longlong = self.c_cpu[i]
        if unlikely(pid <= 0 or pid >= PIDS or cpu < 0 or cpu > self.max_cpu):
            return 0
        function: longlong = self.c_function[back]
        opened: longlong = self.c_time[i]
        if unlikely(self.c_pid[back] != pid or self.c_cpu[back] != cpu):
            return 0
        if unlikely((self.c_flags[i] | self.c_flags[back]) & LEVELS or self.c_time[back] < opened):
            return 0
        if unlikely(self.c_function[back - 1] != function or not self.opener[function]):
            return 0
        at: longlong = self.places[pid * PLACE_ROW]
        context: p_longlong = _row(self.contexts, at)
        row: p_longlong = _row(self.cpus, cpu * CPU_ROW)
        place: longlong = context[C_HOME] if self.local else cpu * S_ROW
        stack: p_longlong = _row(self.stacks, place)
        if unlikely(at == 0 or context[C_COUNT] != 0 or stack[S_STATE] != PLAIN):
            return 0
        lost: bint = row[U_LOST] > stack[S_TOUCHED]
        if unlikely(lost or (stack[S_TOP] and not self.usable(i, stack, context, cpu))):
            return 0
        depth: longlong = stack[S_DEPTH]
        value: longlong = cast(longlong, self.c_value[back])
        if unlikely(value != row[U_FIRST] - depth * self.apart or depth >= self.limit):
            return 0
        depth += 1
        kind: cython.int = 0  # of what follows in this context
        if self.follows(after - 1, after) and self.plain[self.c_function[after]] > 0:
            kind = self.c_kind[after]
        inside: longlong = cast(longlong, self.c_value[after]) - value
        closes: bint = kind == K_UNMAP and 0 <= inside < 4096 and self.mapping_room == 0
        if unlikely(not closes and (self.c_value[i] | self.c_value[back - 1]) >> 63):
            return 0
        stack[S_CPU] = cpu
        stack[S_KNOWN] = 1
        context[C_DONE] = 0
        self.right += after - back
        self.opened(back, context, row, depth)
        caller: longlong = self.c_caller[after - 1]
        by: longlong = self.called(caller, depth)
        if closes:
            stack[S_TOUCHED] = self.c_line[after]
            row[U_UNMAPS] += 1
            self.held(by if caller >= 0 else 0, self.c_line[i], self.c_time[after] - opened)
            if unlikely(self.waiting):
                self.seen()
            return after + 1 - i
        stack[S_TOUCHED] = self.c_line[after - 1]
        self.stays(i, back, self.push(stack), context, depth)
        self.windows[stack[S_TOP] + W_CALLER] = caller
        if kind != K_UNMAP and kind != K_MAP:
            self.note_done(i, context, place, depth, value, caller)
        return after - i

    @cfunc
    @inline
    @exceptval(check=False)
    def follows(self, i: Py_ssize_t, j: Py_ssize_t) -> bint:
        """Whether event *j* is of the same task as *i*, on the same CPU, in no interrupt, not
        earlier, and with a plain value."""
        if unlikely(self.c_pid[j] != self.c_pid[i] or self.c_cpu[j] != self.c_cpu[i]):
            return False
        if unlikely(self.c_time[j] < self.c_time[i]):
            return False
        return not (self.c_flags[j] & LEVELS or self.c_value[j] >> 63)

    @cfunc
    @exceptval(check=False)
    def wraps(self, i: Py_ssize_t) -> bint:
        """Whether a call at *i* and the one inside it return one after the other."""
        inner: Py_ssize_t = i + 1
        outer_return: Py_ssize_t = i + 3
        function: longlong = self.c_function[i]
        if unlikely(
            self.c_kind[outer_return] != K_RETURN or self.c_function[outer_return] != function
        ):
            return False
        known: bint = self.inner[function * FUNCTIONS + self.c_function[inner]] != 0
        if unlikely(not known or self.plain[self.c_function[inner]] < 1):
            return False
        if unlikely(not self.follows(i, inner) or not self.follows(i + 2, outer_return)):
            return False
        if unlikely(self.c_value[outer_return] != self.c_value[i + 2]):
            return False
        if self.c_argument[i] == A_PAGE and self.c_argument[inner] == A_PFN:
            # A page and a frame that do not fit what is known are to be noted.
            size: longlong = cast(longlong, self.c_value[inner]) * self.struct_size
            return self.base >= 0 and cast(longlong, self.c_value[i]) - size == self.base
        return True

    @cfunc
    @inline
    @exceptval(check=False)
    def stays(
        self, i: Py_ssize_t, back: Py_ssize_t, slot: longlong, context: p_longlong, depth: longlong
    ) -> cython.void:
        """Write what is known of the window of a call that was entered at *i* and first returned
        at *back*."""
        window: p_longlong = _row(self.windows, slot)
        named: Py_ssize_t = back - 1
        if self.c_argument[i] == A_PAGE and self.c_argument[named] == A_PFN:
            named = i  # as in enters_inner
        what: longlong = self.c_argument[named] | RETURNED
        window[W_ADDRESS] = cast(longlong, self.c_value[back])
        window[W_PAGE] = cast(longlong, self.c_value[named])
        window[W_WHAT] = what | FRAMED if self.base >= 0 else what
        window[W_TASK] = context[C_KEY]
        window[W_FLAGS] = self.c_flags[i]
        window[W_LINE] = self.c_line[i]
        window[W_TIME] = self.c_time[i]
        window[W_CPU] = self.c_cpu[i]
        window[W_PID] = self.c_pid[i]
        window[W_COMM] = self.c_comm[back]
        window[W_DEPTH] = depth

    @cfunc
    @exceptval(check=False)
    def note_done(
        self,
        i: Py_ssize_t,
        context: p_longlong,
        place: longlong,
        depth: longlong,
        value: longlong,
        caller: longlong,
    ) -> cython.void:
        """Note the call that was entered at *i* as the one that returned last."""
        call: p_longlong = _row(context, C_FIRST)
        self.note_call(i, call)
        call[F_PREDICTED] = value
        call[F_DEPTH] = depth
        call[F_WINDOW] = depth - 1
        call[F_CALLER] = caller
        context[C_STACK] = place
        context[C_DONE] = 1

    # Map calls.

    @cfunc
    @inline
    @exceptval(-1)
    def enters(self, i: Py_ssize_t, at: longlong) -> cython.int:
        """A map function was entered; 0 if the reference has to take it."""
        context: p_longlong = _row(self.contexts, at)
        if context[C_COUNT] != 0:
            return self.enters_inner(i, context)
        context[C_COUNT] = 1
        context[C_DONE] = 0
        self.note_call(i, _row(context, C_FIRST))
        return 1

    @cfunc
    @inline
    @exceptval(check=False)
    def note_call(self, i: Py_ssize_t, call: p_longlong) -> cython.void:
        """Note a call as entered at *i*."""
        call[F_WHAT] = self.what[self.c_function[i]] | self.c_argument[i] << 8
        call[F_LINE] = self.c_line[i]
        call[F_TIME] = self.c_time[i]
        call[F_VALUE] = cast(longlong, self.c_value[i])
        call[F_FLAGS] = self.c_flags[i]
        call[F_CPU] = self.c_cpu[i]
        call[F_PREDICTED] = -1

    @cfunc
    @exceptval(-1)
    def enters_inner(self, i: Py_ssize_t, context: p_longlong) -> cython.int:
        """The same inside another map function."""
        outer: p_longlong = _row(context, C_FIRST)
        call: p_longlong = _row(outer, F_ROW)
        function: longlong = self.c_function[i]
        argument: longlong = self.c_argument[i]
        value: longlong = cast(longlong, self.c_value[i])
        if context[C_COUNT] != 1 or outer[F_PREDICTED] >= 0:
            return 0
        if not self.inner[(outer[F_WHAT] & 255) * FUNCTIONS + function]:
            return 0
        if argument == A_PFN and (outer[F_WHAT] >> 8 & 255) == A_PAGE:
            if self.base < 0 or outer[F_VALUE] - value * self.struct_size != self.base:
                self.learn(outer[F_VALUE], value)
            # Findings name the page that the caller passed.
            value = outer[F_VALUE]
            argument = A_PAGE
        context[C_COUNT] = 2
        context[C_DONE] = 0
        call[F_WHAT] = self.what[function] | argument << 8
        call[F_LINE] = outer[F_LINE]
        call[F_TIME] = outer[F_TIME]
        call[F_VALUE] = value
        call[F_FLAGS] = outer[F_FLAGS]
        call[F_CPU] = self.c_cpu[i]
        call[F_PREDICTED] = -1
        return 1

    def learn(self, page: int, pfn: int) -> None:
        """A page and its frame, of which the second may not fit what is known."""
        self.session.memmap.learn(page, pfn)
        self.refresh_base()

    def refresh_base(self) -> None:
        """Take over what the recording has shown of mem_map."""
        base = self.session.memmap.base
        if base is None:
            self.base = -1
        elif 0 <= base < 1 << 62:
            self.base = base
        elif self.base != -2:
            # No mem_map can begin there: the reference judges the rest of this recording.
            self.base = -2
            self.unbounded += 1
            self.odd = True

    @cfunc
    @inline
    @exceptval(-1)
    def returns(self, i: Py_ssize_t, at: longlong, cpu: longlong) -> cython.int:
        """A map function returned; 0, with nothing changed, if it is not plain."""
        context: p_longlong = _row(self.contexts, at)
        count: longlong = context[C_COUNT]
        function: longlong = self.c_function[i]
        caller: longlong = self.c_caller[i]
        value: longlong = cast(longlong, self.c_value[i])
        if unlikely(count < 1):
            return 0
        first: p_longlong = _row(context, C_FIRST)
        call: p_longlong = _row(first, (count - 1) * F_ROW)
        top: longlong = call[F_WHAT] & 255
        if unlikely(top != function and not self.belongs(first, count, top, function)):
            return 0
        place: longlong = context[C_HOME] if self.local else cpu * S_ROW
        stack: p_longlong = _row(self.stacks, place)
        depth: longlong
        if call[F_PREDICTED] < 0:
            depth = self.opens(i, call, stack, context, cpu)
        else:
            depth = self.again(i, call, stack, context, cpu)
        if unlikely(depth < 0):
            return 0
        self.right += 1
        call[F_CALLER] = caller
        if depth:
            self.windows[stack[S_TOP] + W_CALLER] = caller
        context[C_STACK] = place
        context[C_DONE] = count
        if count == 2 and top == function:
            # The call around shares the result.
            first[F_PREDICTED] = value
            first[F_DEPTH] = depth
            first[F_WINDOW] = call[F_WINDOW]
            first[F_CALLER] = caller
            context[C_COUNT] = 1
            return 1
        context[C_COUNT] = 0
        if count == 2:
            call[F_WHAT] += function - top
        self.called(caller, depth)
        return 1

    @cfunc
    @exceptval(check=False)
    def belongs(
        self, first: p_longlong, count: longlong, top: longlong, function: longlong
    ) -> bint:
        """Whether *function* returns for a call of *top*, whose own probe was not there."""
        if count == 2:
            return first[F_WHAT] & 255 == function
        return self.inner[function * FUNCTIONS + top] != 0

    @cfunc
    @exceptval(check=False)
    def again(
        self, i: Py_ssize_t, call: p_longlong, stack: p_longlong, context: p_longlong, cpu: longlong
    ) -> longlong:
        """The outer return of a call whose window is open already: the same address.  Its depth,
        -1 if it is not plain."""
        if call[F_PREDICTED] != cast(longlong, self.c_value[i]):
            return -1
        if call[F_WINDOW] < 0:
            return 0
        if stack[S_STATE] != PLAIN or call[F_WINDOW] != stack[S_DEPTH] - 1:
            return -1
        if self.windows[stack[S_TOP] + W_LINE] != call[F_LINE]:
            return -1
        if not self.usable(i, stack, context, cpu):
            return -1
        if context[C_LEVEL] == 0:
            stack[S_KNOWN] = 1
        stack[S_CPU] = cpu
        stack[S_TOUCHED] = self.c_line[i]
        return call[F_DEPTH]

    @cfunc
    @inline
    @exceptval(-2)
    def opens(
        self, i: Py_ssize_t, call: p_longlong, stack: p_longlong, context: p_longlong, cpu: longlong
    ) -> longlong:
        """The call takes its window: its depth, or 0 where it answers with the linear address
        of a low page; -1 if it is not plain."""
        value: longlong = cast(longlong, self.c_value[i])
        linear: longlong = -1
        if unlikely(context[C_LEVEL] and self.interrupts(context)):
            return -1
        if not call[F_WHAT] & HIGH and not self.forced:
            linear = self.linear(call)
            if linear == value and linear >= 0:
                return self.opens_low(call, cpu, value)
            if unlikely(linear != -1 or self.page_offset <= value < self.high_memory):
                return -1
        if unlikely(not self.usable(i, stack, context, cpu)):
            return -1
        depth: longlong = stack[S_DEPTH]
        row: p_longlong = _row(self.cpus, cpu * CPU_ROW)
        if unlikely(depth >= self.limit or value != row[U_FIRST] - depth * self.apart):
            return -1
        depth += 1
        self.opened(i, context, row, depth)
        stack[S_STATE] = PLAIN
        stack[S_CPU] = cpu
        if context[C_LEVEL] == 0:
            stack[S_KNOWN] = 1
        stack[S_TOUCHED] = self.c_line[i]
        call[F_PREDICTED] = value
        call[F_WINDOW] = depth - 1
        call[F_DEPTH] = depth
        self.fill(i, self.push(stack), call, context, depth)
        return depth

    @cfunc
    @exceptval(check=False)
    def opens_low(self, call: p_longlong, cpu: longlong, value: longlong) -> longlong:
        """The same of a low page."""
        call[F_PREDICTED] = value
        call[F_DEPTH] = 0
        call[F_WINDOW] = -1
        self.low_maps += 1
        self.cpus[cpu * CPU_ROW + U_LOW] += 1
        return 0

    @cfunc
    @inline
    @exceptval(check=False)
    def fill(
        self, i: Py_ssize_t, slot: longlong, call: p_longlong, context: p_longlong, depth: longlong
    ) -> cython.void:
        """Write what is known of a new window."""
        window: p_longlong = _row(self.windows, slot)
        what: longlong = (call[F_WHAT] >> 8 & 255) | RETURNED
        window[W_ADDRESS] = cast(longlong, self.c_value[i])
        window[W_PAGE] = call[F_VALUE]
        window[W_WHAT] = what | FRAMED if self.base >= 0 else what
        window[W_TASK] = context[C_KEY]
        window[W_FLAGS] = call[F_FLAGS]
        window[W_LINE] = call[F_LINE]
        window[W_TIME] = call[F_TIME]
        window[W_CPU] = self.c_cpu[i]
        window[W_PID] = self.c_pid[i]
        window[W_COMM] = self.c_comm[i]
        window[W_DEPTH] = depth

    @cfunc
    @exceptval(check=False)
    def interrupts(self, context: p_longlong) -> bint:
        """Whether a context may have interrupted a call that has its window already."""
        i: longlong
        below: longlong
        for i in range(context[C_LEVEL]):
            below = self.places[context[C_PLACE] + i]
            if below and self.contexts[below + C_COUNT] != 0:
                return True
        return False

    @cfunc
    @exceptval(check=False)
    def linear(self, call: p_longlong) -> longlong:
        """The linear address of the call's page; -1 if mem_map does not tell, -2 if it tells
        that the page is high."""
        if self.base < 0 or (call[F_WHAT] >> 8 & 255) != A_PAGE:
            return -1
        offset: longlong = call[F_VALUE] - self.base
        if offset < 0 or offset % self.struct_size:
            return -1
        pfn: longlong = offset // self.struct_size
        if pfn >= 1 << 24:
            return -1
        return self.page_offset + (pfn << 12) if pfn < self.max_low_pfn else -2

    @cfunc
    @inline
    @exceptval(check=False)
    def usable(self, i: Py_ssize_t, stack: p_longlong, context: p_longlong, cpu: longlong) -> bint:
        """Whether nothing odd is to be noted about a stack at an event on *cpu*."""
        if stack[S_STATE] != PLAIN:
            if stack[S_STATE] != FREE:
                return False
            stack[S_DEPTH] = stack[S_KNOWN] = 0
            stack[S_CPU] = cpu
            stack[S_TOUCHED] = self.c_line[i]
            return True
        if unlikely(self.cpus[cpu * CPU_ROW + U_LOST] > stack[S_TOUCHED]):
            return False
        slot: longlong = stack[S_TOP]
        if self.local:
            return slot == 0 or stack[S_CPU] == cpu
        while slot and context[C_LEVEL] == 0:
            if (
                self.windows[slot + W_TASK] != context[C_KEY]
                and not self.windows[slot + W_FLAGS] & LEVELS
            ):
                return False
            slot = self.windows[slot + W_BELOW]
        return True

    # Unmaps and switches.

    @cfunc
    @inline
    @exceptval(-1)
    def unmaps(self, i: Py_ssize_t, at: longlong, cpu: longlong) -> cython.int:
        """An unmap function was entered; 0, with nothing changed, if it is not plain."""
        context: p_longlong = _row(self.contexts, at)
        page: longlong = cast(longlong, self.c_value[i]) & PAGE_MASK
        place: longlong = context[C_HOME] if self.local else cpu * S_ROW
        stack: p_longlong = _row(self.stacks, place)
        row: p_longlong = _row(self.cpus, cpu * CPU_ROW)
        top: longlong = row[U_FIRST] - (stack[S_DEPTH] - 1) * self.apart
        if unlikely(context[C_COUNT] != 0):
            return 0
        if page == top and stack[S_TOP] and stack[S_STATE] == PLAIN:
            if unlikely(not self.closes(i, stack, context, cpu)):
                return 0
            row[U_UNMAPS] += 1
        elif self.last <= page <= self.first or not self.low_unmap(i, stack, context, cpu):
            return 0
        context[C_DONE] = 0
        if unlikely(self.waiting):
            self.seen()
        return 1

    def seen(self) -> None:
        """An unmap is here: what waited for one holds."""
        self.doubts.seen()
        self.waiting = False

    @cfunc
    @exceptval(check=False)
    def low_unmap(
        self, i: Py_ssize_t, stack: p_longlong, context: p_longlong, cpu: longlong
    ) -> bint:
        """An address in low memory that is no page of an open window does nothing."""
        value: longlong = cast(longlong, self.c_value[i])
        if unlikely(self.forced or not self.page_offset <= value < self.high_memory):
            return False
        if unlikely(not self.usable(i, stack, context, cpu)):
            return False
        slot: longlong = stack[S_TOP]
        while slot:
            if unlikely(self.windows[slot + W_PAGE] == value):
                return False
            slot = self.windows[slot + W_BELOW]
        stack[S_STATE] = PLAIN
        stack[S_CPU] = cpu
        stack[S_TOUCHED] = self.c_line[i]
        self.low_unmaps += 1
        return True

    @cfunc
    @inline
    @exceptval(-1)
    def closes(
        self, i: Py_ssize_t, stack: p_longlong, context: p_longlong, cpu: longlong
    ) -> cython.int:
        """The top window, by its own address, by its own task."""
        slot: longlong = stack[S_TOP]
        top: p_longlong = _row(self.windows, slot)
        if unlikely(not self.local and top[W_TASK] != context[C_KEY] and not top[W_FLAGS] & LEVELS):
            return 0
        asked: bint = self.local or top[W_BELOW] != 0 or self.cpus[cpu * CPU_ROW + U_LOST] != 0
        if unlikely(asked and not self.usable(i, stack, context, cpu)):
            return 0
        stack[S_CPU] = cpu
        if context[C_LEVEL] == 0:
            stack[S_KNOWN] = 1
        stack[S_TOUCHED] = self.c_line[i]
        self.pop(stack)
        return self.closed(_row(self.windows, slot), self.c_line[i], self.c_time[i])

    @cfunc
    @exceptval(-1)
    def leaves(self, i: Py_ssize_t, place: longlong, cpu: longlong) -> cython.int:
        """``sched_switch``: plain where the task that leaves holds nothing to speak of."""
        what: longlong = self.state_of(self.c_state[i])
        at: longlong = self.places[place + P_STACK] if self.local else cpu * S_ROW
        stack: p_longlong = _row(self.stacks, at)
        if what == 3 or stack[S_STATE] == AWAY:
            return 0
        if stack[S_STATE] == PLAIN:
            if self.cpus[cpu * CPU_ROW + U_LOST] > stack[S_TOUCHED]:
                return 0
            if stack[S_DEPTH] and (not self.local or what != 1):
                return 0
        self.switches += 1
        return 1

    @cfunc
    @exceptval(-1)
    def state_of(self, number: longlong) -> longlong:
        """What a scheduler state means: 1 runnable, 2 asleep, 3 dead."""
        if number < 0:
            return 2
        if number >= self.state_count:
            self.state_count = 2 * (number + 1)
            self.states = self.grown("states", self.state_count)
        if not self.states[number]:
            text = self.strings[number]
            self.states[number] = 3 if text[:1] in ("X", "Z") else 1 if text[:1] == "R" else 2
        return self.states[number]

    # Statistics.

    @cfunc
    @inline
    @exceptval(-1)
    def opened(
        self, i: Py_ssize_t, context: p_longlong, cpu: p_longlong, depth: longlong
    ) -> cython.int:
        """As Recorder.opened, and the count of map calls."""
        if unlikely(context[C_COMM] != self.c_comm[i]):
            self.task_row(context, self.c_comm[i], self.c_pid[i])
        task: p_longlong = _row(self.task_stats, context[C_TASK])
        task[0] += 1
        if depth > task[1]:
            task[1] = depth
        cpu[U_DEPTHS + depth] += 1
        return 1

    @cfunc
    @exceptval(-1)
    def task_row(self, context: p_longlong, comm: cython.int, pid: cython.int) -> cython.int:
        """Find the row of a task's statistics."""
        row = self.task_rows.get((comm, pid))
        if row is None:
            row = self.task_rows[comm, pid] = len(self.task_objects)
            self.task_objects.append(self.recorder.task(f"{self.strings[comm]}-{pid}"))
            if row >= self.task_room:
                self.task_room *= 2
                self.task_stats = self.grown("task_stats", self.task_room * TASK_ROW)
        context[C_TASK] = row * TASK_ROW
        context[C_COMM] = comm
        return 1

    @cfunc
    @inline
    @exceptval(-1)
    def caller_row(self, caller: longlong, make: bint) -> longlong:
        """The row of a caller's statistics, 0 if it has none yet and none is to be made."""
        number: longlong = caller + 1
        if unlikely(number >= self.caller_numbers or self.caller_rows[number] == 0):
            return self.new_caller(caller, make)
        return self.caller_rows[number]

    @cfunc
    @exceptval(-1)
    def new_caller(self, caller: longlong, make: bint) -> longlong:
        """The same of a caller that has not been seen since it has one."""
        number: longlong = caller + 1
        if number >= self.caller_numbers:
            self.caller_numbers = 2 * (number + 1)
            self.caller_rows = self.grown("caller_rows", self.caller_numbers)
        found = self.recorder.caller(self.strings[caller], make)
        if found is None:
            return 0
        count: longlong = len(self.caller_objects)
        for row, known in enumerate(self.caller_objects):
            if known is found:
                self.caller_rows[number] = row * CALLER_ROW
                return row * CALLER_ROW
        self.caller_objects.append(found)
        if count >= self.caller_room:
            self.caller_room *= 2
            self.caller_stats = self.grown("caller_stats", self.caller_room * CALLER_ROW)
        self.caller_rows[number] = count * CALLER_ROW
        return count * CALLER_ROW

    @cfunc
    @inline
    @exceptval(-1)
    def called(self, caller: longlong, depth: longlong) -> longlong:
        """As Recorder.called; the caller's row."""
        row: longlong = self.caller_row(caller, True)
        stats: p_longlong = _row(self.caller_stats, row)
        stats[L_MAPS] += 1
        if unlikely(depth > stats[L_DEEPEST]):
            stats[L_DEEPEST] = depth
        return row

    @cfunc
    @inline
    @exceptval(-1)
    def closed(self, window: p_longlong, line: longlong, time: longlong) -> cython.int:
        """As Recorder.closed."""
        if unlikely(self.mapping_room):
            self.mapping(window, line, time)
        row: longlong = 0
        if window[W_CALLER] >= 0:
            row = self.caller_row(window[W_CALLER], False)
        return self.held(row, window[W_LINE], time - window[W_TIME])

    @cfunc
    @inline
    @exceptval(check=False)
    def held(self, row: longlong, line: longlong, held: longlong) -> cython.int:
        """How long a window was open: of the caller in that row, from *line* on."""
        if unlikely(held < 0):
            held = 0
        stats: p_longlong = _row(self.caller_stats, row)
        stats[L_HOLDS + fast_bucket(held)] += 1
        stats[L_TOTAL] += held
        longest: longlong = stats[L_LONGEST]
        if held >= longest and (held > longest or not 0 < stats[L_LINE] <= line):
            stats[L_LONGEST] = held
            stats[L_LINE] = line
        return 1

    @cfunc
    @exceptval(-1)
    def mapping(self, window: p_longlong, line: longlong, time: longlong) -> cython.int:
        """A row of MAPPING_COLUMNS."""
        at: longlong = self.mapping_count * MAPPING_ROW
        row: p_longlong = self.mapping_rows
        row[at] = window[W_LINE]
        row[at + 1] = window[W_TIME]
        row[at + 2] = line
        row[at + 3] = time
        row[at + 4] = window[W_CPU]
        row[at + 5] = window[W_PID]
        row[at + 6] = window[W_COMM]
        row[at + 7] = window[W_CALLER]
        row[at + 8] = window[W_ADDRESS]
        row[at + 9] = window[W_PAGE]
        row[at + 10] = window[W_WHAT] & 255
        row[at + 11] = window[W_DEPTH]
        row[at + 12] = window[W_WHAT] >> KMAPPED
        self.mapping_count += 1
        if self.mapping_count == self.mapping_room:
            self.hand_on()
        return 0

    def hand_on(self) -> None:
        """Give the sinks what is collected."""
        if not self.mapping_count:
            return
        count, self.mapping_count = self.mapping_count, 0
        mappings = from_rows(self.owned["mapping_rows"], count, self.strings)
        for sink in self.sinks:
            sink.add(mappings)

    # What is not plain.

    def slow(self, i: int) -> None:
        """Let the reference judge event *i*, with the stack and the calls that it concerns."""
        event = self.event
        self.fill_event(i)
        if self.mapping_count:
            self.hand_on()
        kind, cpu, place = event.kind, event.cpu, -1
        if (event.function in APART or kind > K_SWITCH) and not self.untouched:
            self.kmaps.give()
        self.untouched = False
        if kind == K_LOST:
            self.give_all_contexts()
        elif 0 <= cpu <= self.max_cpu:
            first, last = self.first_ns, self.last_ns
            self.first_ns, self.last_ns = first or event.time, max(last, event.time)
            place = self.place_of(event.pid, cpu)
            self.asked = event.function not in APART
            if kind == K_SWITCH and self.idle(place, cpu):
                # Most often a task that ends, and nothing that would be given.
                self.asked = False
                if self.local and event.pid and self.state_of(event.state) == 3:
                    self.stacks[self.home(place * PLACE_ROW) + S_STATE] = FREE
            if kind == K_SWITCH and self.state_of(event.state) == 3 and place >= 0:
                at = self.places[place * PLACE_ROW] // C_ROW
                if self.kmaps.concerns(at, event.pid or -1 - cpu):
                    self.kmaps.give()
            if self.asked:
                self.give(place, cpu)
        self.bridge.event(event)
        if self.sinks:
            self.recorder.mappings.flush()
        self.waiting = bool(self.doubts)
        self.refresh_base()
        if kind == K_LOST:
            self.note_loss(cpu, event.line)
        elif self.asked and 0 <= cpu <= self.max_cpu:
            self.take_back(place, event.pid or -1 - cpu, cpu)
        self.odd = self.session.head or self.unbounded

    @cfunc
    @exceptval(-1)
    def fill_event(self, i: Py_ssize_t) -> cython.int:
        """Write event *i* to the object that the reference is given."""
        event = self.event
        event.line, event.time, event.cpu = self.c_line[i], self.c_time[i], self.c_cpu[i]
        event.pid, event.comm, event.kind = self.c_pid[i], self.c_comm[i], self.c_kind[i]
        event.function, event.argument = self.c_function[i], self.c_argument[i]
        event.flags, event.value, event.prot = self.c_flags[i], self.c_value[i], self.c_prot[i]
        event.km_type, event.caller = self.c_km_type[i], self.c_caller[i]
        event.next_pid, event.next_comm = self.c_next_pid[i], self.c_next_comm[i]
        event.state = self.c_state[i]
        return 0

    def idle(self, place: int, cpu: int) -> bool:
        """Whether nothing of a task is under way, and its stack, or that of its CPU, is empty."""
        at: longlong = place * PLACE_ROW
        for level in range(4 if place >= 0 else 0):
            context: p_longlong = _row(self.contexts, self.places[at + level])
            if context[C_COUNT] or context[C_DONE]:  # row 0, which stands for none, has none
                return False
        where: longlong = self.home(at) if self.local and place >= 0 else cpu * S_ROW
        stack: p_longlong = _row(self.stacks, where)
        lost = self.cpus[cpu * CPU_ROW + U_LOST] > stack[S_TOUCHED]
        plain = stack[S_STATE] == PLAIN and not stack[S_DEPTH] and not lost
        return place >= 0 and (plain or stack[S_STATE] == FREE)

    def ask_window(self, event: Event) -> Any:
        """As Session.window_of_page, which a call of a permanent window's family may ask."""
        if not self.asked:
            self.asked = True
            self.give(self.place_of(event.pid, event.cpu), event.cpu)
        return self.window_of_page(event)

    def ask_kmap(self, address: int) -> Any:
        """As Session.permanent_at."""
        self.kmaps.give()
        return self.permanent_at(address)

    def give(self, place: int, cpu: int) -> None:
        """What an event of a task on a CPU concerns becomes the reference's."""
        at: longlong = place * PLACE_ROW
        stack: longlong = -1
        if place >= 0:
            for level in range(4):
                if self.places[at + level]:
                    self.give_context(self.places[at + level])
        if not self.local:
            stack = cpu * S_ROW
        elif place >= 0:
            stack = self.home(at)
        if stack >= 0:
            self.give_stack(stack)
        if not self.local and self.bridge.at_the_edge(cpu):
            # The next window is the neighbour's: its entries have to be in the model.
            self.give_all_stacks()

    def note_loss(self, cpu: int, line: int) -> None:
        """Stacks that were not touched since are judged by the reference next."""
        for one in range(self.max_cpu + 1):
            if cpu == one or cpu < 0:
                self.cpus[one * CPU_ROW + U_LOST] = line

    def give_context(self, at: longlong) -> None:
        """Calls under way become the reference's."""
        context: p_longlong = _row(self.contexts, at)
        count: longlong = context[C_COUNT]
        if count == AWAY:
            return
        done: longlong = context[C_DONE]
        stack: longlong = context[C_STACK]
        first: longlong = at + C_FIRST
        flights = [self.flight_row(first + i * F_ROW) for i in range(count)]
        last = self.flight_row(first + (done - 1) * F_ROW) if done else ()
        applied: bint = count > 0 and context[C_FIRST + F_PREDICTED] >= 0
        context[C_COUNT] = AWAY
        context[C_DONE] = 0
        if not count and not done:
            return
        if done or applied:
            self.give_stack(stack)
        key, level = context[C_KEY], context[C_LEVEL]
        self.bridge.give_context(key, level, self.stacks[stack + S_KEY], flights, last)

    def flight_row(self, at: longlong) -> tuple[int, ...]:
        """A call as bridge.FlightRow."""
        return tuple([self.contexts[at + i] for i in range(F_ROW)])

    def give_all_contexts(self) -> None:
        """Every call under way becomes the reference's."""
        for row in range(1, self.context_count):
            self.give_context(row * C_ROW)

    def give_stack(self, at: longlong) -> None:
        """A stack becomes the reference's, with the model in the same state."""
        stack: p_longlong = _row(self.stacks, at)
        if stack[S_STATE] == PLAIN:
            rows = []
            while stack[S_TOP]:
                slot = stack[S_TOP]
                rows.append(tuple([self.windows[slot + i] for i in range(W_BELOW)]))
                self.pop(stack)
            known, cpu, touched = bool(stack[S_KNOWN]), stack[S_CPU], stack[S_TOUCHED]
            self.bridge.give_stack(stack[S_KEY], known, cpu, touched, rows[::-1])
        stack[S_STATE] = AWAY

    def give_all_stacks(self) -> None:
        """Every stack that holds windows becomes the reference's."""
        for row in range(self.stack_count):
            at: longlong = row * S_ROW
            if self.stacks[at + S_STATE] == PLAIN and self.stacks[at + S_DEPTH]:
                self.give_stack(at)

    def take_back(self, place: int, task: int, cpu: int) -> None:
        """What is plain again after the reference's event comes back to the arrays."""
        outside = self.bridge.leaves_own_slots(task if self.local else cpu)
        if not self.local and outside:
            # From here on one CPU's calls may have changed another's entries.
            self.unbounded += 1
        at: longlong = place * PLACE_ROW
        context: longlong
        if not self.local:
            self.take_stack(cpu * S_ROW, outside)
        elif place >= 0:
            self.take_stack(self.home(at), outside)
        for level in range(4 if place >= 0 else 0):
            context = self.places[at + level]
            if self.bridge.take_context(task, level):
                if context:
                    self.contexts[context + C_COUNT] = 0
            elif not context:
                context = self.new_context(at, level, cpu)
                self.contexts[context + C_COUNT] = AWAY

    def take_stack(self, at: longlong, outside: bool) -> None:
        """The same of one stack."""
        stack: p_longlong = _row(self.stacks, at)
        key = stack[S_KEY]
        # Entries that another CPU's calls changed are in the model only.
        found = None if outside or self.unbounded else self.bridge.take_stack(key)
        if found is None:
            if not self.bridge.has_stack(key):
                stack[S_STATE] = FREE
            return
        known, cpu, touched, rows = found
        stack[S_STATE] = PLAIN
        stack[S_DEPTH] = stack[S_TOP] = 0
        stack[S_KNOWN], stack[S_CPU], stack[S_TOUCHED] = known, cpu, touched
        slot: longlong
        i: longlong
        for row in rows:
            slot = self.push(stack)
            for i in range(W_BELOW):
                self.windows[slot + i] = row[i]

    # The end.

    def finish(self) -> Verdict:
        """The verdict, once all batches are in."""
        self.hand_on()
        self.kmaps.give()
        self.give_all_contexts()
        self.give_all_stacks()
        session, verdict = self.session, self.verdict
        session.last_return = max(session.last_return, self.last_return)
        session.last_unmap = max(session.last_unmap, self.last_unmap)
        verdict.first_ns, verdict.last_ns = self.first_ns, self.last_ns
        verdict.right += self.right
        verdict.low_maps += self.low_maps
        verdict.unmap_calls += self.low_unmaps
        verdict.low_unmaps += self.low_unmaps
        verdict.switches += self.switches
        self._add_statistics()
        return self.reference.finish()

    def _add_statistics(self) -> None:
        at: longlong
        for number in range(self.max_cpu + 1):
            at = number * CPU_ROW
            depths = counted(_row(self.cpus, at + U_DEPTHS), DEEP + 1)
            self.recorder.add_cpu(number, self.cpus[at + U_LOW], self.cpus[at + U_UNMAPS], depths)
        for row, task in enumerate(self.task_objects):
            task.maps += self.task_stats[row * TASK_ROW]
            task.deepest = max(task.deepest, self.task_stats[row * TASK_ROW + 1])
        for row, caller in enumerate(self.caller_objects):
            at = row * CALLER_ROW
            holds = counted(_row(self.caller_stats, at + L_HOLDS), BUCKETS)
            self.recorder.add_caller(caller, self.owned["caller_stats"][at : at + L_HOLDS], holds)


APART = {*PERMANENT, Function.KMAP_FLUSH_UNUSED}
"""Permanent windows have no part in the stacks and contexts of the temporary ones, unless the
reference asks."""


@cfunc
def counted(numbers: p_longlong, length: Py_ssize_t) -> dict[int, int]:
    """Of *length* numbers those that are not 0, by their place."""
    return {i: numbers[i] for i in range(length) if numbers[i]}


@cfunc
@inline
@exceptval(check=False)
def level_of(flags: longlong) -> longlong:
    """As state.level_of."""
    if flags & BIT_NMI:
        return 3
    if flags & BIT_HARD:
        return 2
    return 1 if flags & BIT_SOFT else 0


@cfunc
@inline
@exceptval(check=False)
def fast_bucket(ns: longlong) -> longlong:
    """As histogram.bucket_of."""
    if cython.compiled and 32 <= ns < 1 << 30:
        # Exponent and first five bits of a double are the bucket but for a constant.
        number: cython.double = ns
        bits: cython.ulonglong = 0
        memcpy(cython.address(bits), cython.address(number), 8)
        return cast(longlong, bits >> 47) - BUCKET_BIAS
    if ns < 64:
        return ns
    return slow_bucket(ns)


@cfunc
@exceptval(check=False)
def slow_bucket(ns: longlong) -> longlong:
    """The same of what is long."""
    shift: longlong = 0
    rest: longlong = ns >> 6
    while rest:
        shift += 1
        rest >>= 1
    return (shift << 5) + (ns >> shift)
