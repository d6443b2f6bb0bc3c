# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"
# mypy: disable-error-code="import-untyped, import-not-found, attr-defined, unused-ignore"
"""The fast replay: the same verdict as the reference, from columns, without objects.

What recordings consist of almost entirely (calls that nest and end properly) is judged here
on arrays.  Whatever is not plain (a loss, a misuse, a missing event, anything before the
first complete call) is handed to the reference, which judges that event on the exact model;
its stack and its calls go back to the arrays once they are plain again.  So the two can not
differ in what a finding says, only this file's plain cases have to be right, and a property
test holds both to the same verdict.

Plain Python that Cython compiles (pure Python mode); interpreted it does the same.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

try:
    import cython
except ImportError:
    from highmem import _cython as cython  # type: ignore[no-redef]

from highmem.replay.bridge import MOST_PLAIN, Bridge
from highmem.replay.flights import INNER, WINDOW_ONLY
from highmem.replay.mappings import MAPPING_COLUMNS, Mappings
from highmem.replay.reference import FIELDS, PERMANENT, Reference
from highmem.replay.state import Event
from highmem.replay.verdict import Verdict
from highmem.trace.schema import (
    FLAG_HARDIRQ,
    FLAG_KNOWN,
    FLAG_NMI,
    FLAG_SOFTIRQ,
    PREEMPT_SHIFT,
    Argument,
    Batch,
    Kind,
)

__all__ = ["COMPILED", "Engine"]

COMPILED: bool = bool(cython.compiled)

# Numbers of the enums, so that the loop compares integers.
K_MAP = cython.declare(cython.int, int(Kind.MAP))
K_RETURN = cython.declare(cython.int, int(Kind.MAP_RETURN))
K_UNMAP = cython.declare(cython.int, int(Kind.UNMAP))
K_SWITCH = cython.declare(cython.int, int(Kind.SWITCH))
K_LOST = cython.declare(cython.int, int(Kind.LOST))
A_PAGE = cython.declare(cython.int, int(Argument.PAGE))
A_PFN = cython.declare(cython.int, int(Argument.PFN))
BIT_KNOWN = cython.declare(cython.long, FLAG_KNOWN)
BIT_SOFT = cython.declare(cython.long, FLAG_SOFTIRQ)
BIT_HARD = cython.declare(cython.long, FLAG_HARDIRQ)
BIT_NMI = cython.declare(cython.long, FLAG_NMI)
P_SHIFT = cython.declare(cython.int, PREEMPT_SHIFT)
PAGE_MASK = cython.declare(cython.longlong, 0xFFFFF000)
DEEP = cython.declare(cython.int, MOST_PLAIN)

# Columns of the tables below, each a flat array with a row of so many numbers.
# A stack: state, depth, cpu, known, touched.
S_STATE = cython.declare(cython.int, 0)
S_DEPTH = cython.declare(cython.int, 1)
S_CPU = cython.declare(cython.int, 2)
S_KNOWN = cython.declare(cython.int, 3)
S_TOUCHED = cython.declare(cython.int, 4)
S_KEY = cython.declare(cython.int, 5)
S_ROW = cython.declare(cython.int, 6)
FREE = cython.declare(cython.int, 0)
PLAIN = cython.declare(cython.int, 1)
AWAY = cython.declare(cython.int, 2)
# States of a stack or a context: not used, here, or with the reference.
# A window: as bridge.WindowRow.
W_ADDRESS = cython.declare(cython.int, 0)
W_PAGE = cython.declare(cython.int, 1)
W_ARGUMENT = cython.declare(cython.int, 2)
W_FRAMED = cython.declare(cython.int, 3)
W_TASK = cython.declare(cython.int, 4)
W_LEVEL = cython.declare(cython.int, 5)
W_LINE = cython.declare(cython.int, 6)
W_TIME = cython.declare(cython.int, 7)
W_CPU = cython.declare(cython.int, 8)
W_PID = cython.declare(cython.int, 9)
W_COMM = cython.declare(cython.int, 10)
W_DEPTH = cython.declare(cython.int, 11)
W_CALLER = cython.declare(cython.int, 12)
W_PREEMPT = cython.declare(cython.int, 13)
W_RETURNED = cython.declare(cython.int, 14)
W_ROW = cython.declare(cython.int, 15)
# A call under way: as bridge.FlightRow.
F_FUNCTION = cython.declare(cython.int, 0)
F_LINE = cython.declare(cython.int, 1)
F_TIME = cython.declare(cython.int, 2)
F_VALUE = cython.declare(cython.int, 3)
F_ARGUMENT = cython.declare(cython.int, 4)
F_FLAGS = cython.declare(cython.int, 5)
F_CPU = cython.declare(cython.int, 6)
F_APPLIED = cython.declare(cython.int, 7)
F_PREDICTED = cython.declare(cython.int, 8)
F_DEPTH = cython.declare(cython.int, 9)
F_LOW = cython.declare(cython.int, 10)
F_HIGH = cython.declare(cython.int, 11)
F_WINDOW = cython.declare(cython.int, 12)
F_ANSWER = cython.declare(cython.int, 13)
F_CALLER = cython.declare(cython.int, 14)
F_ROW = cython.declare(cython.int, 15)
# A context: state, calls under way (at most 2), whether the third row is the last call done.
C_STATE = cython.declare(cython.int, 0)
C_FLIGHTS = cython.declare(cython.int, 1)
C_DONE = cython.declare(cython.int, 2)
C_STACK = cython.declare(cython.int, 3)
C_ROW = cython.declare(cython.int, 4)
# Statistics of a CPU, a task, a caller, and buckets of hold times.
CPU_ROW = cython.declare(cython.int, 3)
TASK_ROW = cython.declare(cython.int, 2)
CALLER_ROW = cython.declare(cython.int, 6)
BUCKETS = cython.declare(cython.int, 2048)
MAPPING_ROW = cython.declare(cython.int, 13)
MAPPING_BATCH = cython.declare(cython.int, 8192)
FUNCTIONS = cython.declare(cython.int, 32)
HASH = cython.declare(cython.ulonglong, 0x9E3779B1)
LOW_32 = cython.declare(cython.longlong, 0xFFFFFFFF)


def _zeros(length: int) -> array[int]:
    return array("q", bytes(8 * length))


def _more(old: array[int], length: int) -> array[int]:
    """A copy of *old* with room for *length* numbers."""
    new = _zeros(length)
    new_bytes, old_bytes = memoryview(new).cast("B"), memoryview(old).cast("B")
    new_bytes[: len(old_bytes)] = old_bytes
    return new


@cython.cclass
class Table:
    """A hash from a key (any 64-bit number but the smallest) to a row number, growing."""

    keys = cython.declare(cython.longlong[::1], visibility="public")
    rows = cython.declare(cython.longlong[::1], visibility="public")
    mask = cython.declare(cython.longlong, visibility="public")
    used = cython.declare(cython.longlong, visibility="public")
    last_key = cython.declare(cython.longlong)
    last_row = cython.declare(cython.longlong)

    def __init__(self) -> None:
        self.mask = 1023
        self.keys = _zeros(1024)
        self.rows = _zeros(1024)
        self.used = 0
        self.last_key = 0
        self.last_row = -1

    @cython.cfunc
    def find(self, key: cython.longlong) -> cython.longlong:
        """The row of *key*; a new one, the next number, if it was not there."""
        if self.last_row >= 0 and self.last_key == key:
            return self.last_row
        mixed: cython.ulonglong = cython.cast(cython.ulonglong, key & 0x7FFFFFFFFFFFFFFF)
        mixed = (mixed ^ (mixed >> 29)) * HASH
        place: cython.longlong = cython.cast(cython.longlong, (mixed >> 15) & 0x7FFFFFFF)
        place = place & self.mask
        while self.rows[place] != 0:
            if self.keys[place] == key:
                self.last_key = key
                self.last_row = self.rows[place] - 1
                return self.last_row
            place = (place + 1) & self.mask
        self.keys[place] = key
        self.used += 1
        self.rows[place] = self.used
        self.last_key = key
        self.last_row = self.used - 1
        if self.used * 2 > self.mask:
            self.grow()
        return self.used - 1

    @cython.cfunc
    def grow(self) -> cython.void:
        """Twice the room, every key put in anew."""
        old = [(self.rows[i] - 1, self.keys[i]) for i in range(self.mask + 1) if self.rows[i]]
        self.mask = self.mask * 2 + 1
        self.keys = _zeros(self.mask + 1)
        self.rows = _zeros(self.mask + 1)
        self.used = 0
        self.last_row = -1
        old.sort()
        for _, key in old:
            self.find(key)


@cython.cclass
class Engine:
    """Feed it the batches of one recording (stack or local era), then :meth:`finish`."""

    reference = cython.declare(object, visibility="public")
    session = cython.declare(object)
    bridge = cython.declare(object)
    event = cython.declare(object)
    verdict = cython.declare(object)
    recorder = cython.declare(object)
    doubts = cython.declare(object)

    # What kernel it is.
    local = cython.declare(cython.bint)
    forced = cython.declare(cython.bint)
    first = cython.declare(cython.longlong)
    last = cython.declare(cython.longlong)
    per_cpu = cython.declare(cython.longlong)
    incr = cython.declare(cython.longlong)
    limit = cython.declare(cython.longlong)
    max_cpu = cython.declare(cython.longlong)
    page_offset = cython.declare(cython.longlong)
    high_memory = cython.declare(cython.longlong)
    max_low_pfn = cython.declare(cython.longlong)
    struct_size = cython.declare(cython.longlong)
    base = cython.declare(cython.longlong)  # mem_map, -1 while it is not known

    # The state of the recording.
    head = cython.declare(cython.bint)
    waiting = cython.declare(cython.bint)
    lost_any = cython.declare(cython.longlong)  # the last loss that may concern any CPU
    lost = cython.declare(cython.longlong[::1])  # and that of each CPU
    # Not 0 once an index has left its CPU's slots (stack era): the reference judges the rest.
    unbounded = cython.declare(cython.longlong)

    stack_table = cython.declare(Table)
    context_table = cython.declare(Table)
    stacks = cython.declare(cython.longlong[::1])
    windows = cython.declare(cython.longlong[::1])
    contexts = cython.declare(cython.longlong[::1])
    flights = cython.declare(cython.longlong[::1])
    stack_room = cython.declare(cython.longlong)
    context_room = cython.declare(cython.longlong)

    # Statistics, added to the verdict's at the end.
    right = cython.declare(cython.longlong)
    map_calls = cython.declare(cython.longlong)
    low_maps = cython.declare(cython.longlong)
    unmap_calls = cython.declare(cython.longlong)
    low_unmaps = cython.declare(cython.longlong)
    switches = cython.declare(cython.longlong)
    first_ns = cython.declare(cython.longlong)
    last_ns = cython.declare(cython.longlong)
    last_return = cython.declare(cython.longlong)
    last_unmap = cython.declare(cython.longlong)
    cpu_stats = cython.declare(cython.longlong[::1])
    depths = cython.declare(cython.longlong[::1])
    holds = cython.declare(cython.longlong[::1])
    task_table = cython.declare(Table)
    task_stats = cython.declare(cython.longlong[::1])
    task_objects = cython.declare(list)
    caller_rows = cython.declare(cython.longlong[::1])
    caller_stats = cython.declare(cython.longlong[::1])
    caller_holds = cython.declare(cython.longlong[::1])
    caller_objects = cython.declare(list)
    caller_room = cython.declare(cython.longlong)

    # Mappings on their way to the sinks.
    sinks = cython.declare(list)
    mapping_rows = cython.declare(cython.longlong[::1])
    mapping_count = cython.declare(cython.longlong)

    # Facts about functions and texts, by their number.
    inner = cython.declare(cython.longlong[::1])
    window_only = cython.declare(cython.longlong[::1])
    permanent = cython.declare(cython.longlong[::1])
    states = cython.declare(cython.longlong[::1])
    strings = cython.declare(object)

    def __init__(self, reference: Reference) -> None:
        session = reference.session
        profile, layout = session.profile, session.layout
        self.reference = reference
        self.session = session
        self.bridge = Bridge(reference)
        self.event = Event()
        self.verdict = session.verdict
        self.recorder = session.recorder
        self.doubts = session.unmap_doubts
        self.strings = session.strings
        self.local = profile.era.value == "local"
        self.forced = profile.maps_low_pages
        self.first = layout.window_address(0, 0)
        self.last = layout.fix_to_virt(layout.FIX_KMAP_END)
        self.per_cpu = profile.windows_per_cpu
        self.incr = 2 if profile.guard_slots else 1
        self.limit = min(profile.depth_limit, MOST_PLAIN)
        self.max_cpu = profile.nr_cpus - 1
        self.page_offset = layout.PAGE_OFFSET
        self.high_memory = layout.high_memory
        self.max_low_pfn = layout.max_low_pfn
        self.struct_size = layout.geometry.sizeof_struct_page
        self.base = -1
        self.head = True
        self.waiting = False
        self.lost_any = 0
        self.lost = _zeros(profile.nr_cpus)
        self.unbounded = 0
        self.right = self.map_calls = self.low_maps = 0
        self.unmap_calls = self.low_unmaps = self.switches = 0
        self.first_ns = self.last_ns = self.last_return = self.last_unmap = 0
        self.mapping_count = 0
        self._make_tables(profile.nr_cpus)
        self._make_facts()
        session.gather = self.give_all_stacks

    def _make_tables(self, cpus: int) -> None:
        self.stack_table = Table()
        self.context_table = Table()
        self.task_table = Table()
        self.stack_room = self.context_room = 64
        self.stacks = _zeros(64 * S_ROW)
        self.windows = _zeros(64 * DEEP * W_ROW)
        self.contexts = _zeros(64 * C_ROW)
        self.flights = _zeros(64 * 3 * F_ROW)
        self.cpu_stats = _zeros(cpus * CPU_ROW)
        self.depths = _zeros(DEEP + 1)
        self.holds = _zeros(BUCKETS)
        self.task_stats = _zeros(64 * TASK_ROW)
        self.task_objects = []
        self.caller_rows = _zeros(64)
        self.caller_room = 64
        self.caller_stats = _zeros(64 * CALLER_ROW)
        self.caller_holds = _zeros(64 * BUCKETS)
        self.caller_objects = []
        self.sinks = self.recorder.mappings.sinks
        self.mapping_rows = _zeros(MAPPING_BATCH * MAPPING_ROW if self.sinks else 1)

    def _make_facts(self) -> None:
        self.inner = _zeros(FUNCTIONS * FUNCTIONS)
        self.window_only = _zeros(FUNCTIONS)
        self.permanent = _zeros(FUNCTIONS)
        self.states = _zeros(64)
        for outer, functions in INNER.items():
            for function in functions:
                self.inner[int(outer) * FUNCTIONS + int(function)] = 1
        for function in WINDOW_ONLY:
            self.window_only[int(function)] = 1
        for function in PERMANENT:
            self.permanent[int(function)] = 1

    # The loop.

    def feed(self, batch: Batch) -> None:
        """Judge the events of *batch*."""
        line: cython.longlong[::1]
        time: cython.longlong[::1]
        cpu: cython.int[::1]
        pid: cython.int[::1]
        comm: cython.int[::1]
        kind: cython.uchar[::1]
        function: cython.uchar[::1]
        argument: cython.uchar[::1]
        flags: cython.uint[::1]
        value: cython.ulonglong[::1]
        caller: cython.int[::1]
        state: cython.int[::1]
        line, time, cpu, pid, comm, kind, function, argument, flags, value, caller, state = (
            columns_of(batch)
        )
        i: cython.Py_ssize_t
        k: cython.int
        c: cython.longlong
        f: cython.int
        t: cython.longlong
        task: cython.longlong
        done: cython.bint
        for i in range(len(batch)):
            k = kind[i]
            c = cpu[i]
            if k == K_LOST or c < 0 or c > self.max_cpu:
                self.slow(batch, i, k, c)
                continue
            t = time[i]
            if self.first_ns == 0:
                self.first_ns = t
            if t > self.last_ns:
                self.last_ns = t
            f = function[i]
            task = pid[i] if pid[i] != 0 else -1 - c
            done = False
            if k == K_RETURN:
                self.last_return = line[i]
            elif k == K_UNMAP and not self.permanent[f]:
                self.last_unmap = line[i]
            if self.head or self.unbounded or value[i] >> 63 or f >= FUNCTIONS:
                done = False
            elif k == K_SWITCH:
                done = self.leaves(task, c, state[i])
            elif self.permanent[f]:
                done = False
            elif k == K_MAP:
                done = self.enters(
                    task, c, level_of(flags[i]), f, line[i], t, value[i], argument[i], flags[i]
                )
            elif k == K_RETURN:
                done = self.returns(
                    task, c, level_of(flags[i]), f, line[i], value[i], pid[i], comm[i], caller[i]
                )
            elif k == K_UNMAP:
                done = self.unmaps(task, c, level_of(flags[i]), line[i], t, value[i])
            if not done:
                self.slow(batch, i, k, c)

    @cython.cfunc
    def context(self, task: cython.longlong, level: cython.longlong) -> cython.longlong:
        """The row of a context, made if new."""
        row: cython.longlong = self.context_table.find(task * 4 + level)
        if row >= self.context_room:
            self.context_room *= 2
            self.contexts = _more(self.contexts, self.context_room * C_ROW)
            self.flights = _more(self.flights, self.context_room * 3 * F_ROW)
        if self.contexts[row * C_ROW + C_STATE] == FREE:
            self.contexts[row * C_ROW + C_STATE] = PLAIN
        return row

    @cython.cfunc
    def stack(self, key: cython.longlong) -> cython.longlong:
        """The row of a stack, which may be free."""
        row: cython.longlong = self.stack_table.find(key)
        if row >= self.stack_room:
            self.stack_room *= 2
            self.stacks = _more(self.stacks, self.stack_room * S_ROW)
            self.windows = _more(self.windows, self.stack_room * DEEP * W_ROW)
        self.stacks[row * S_ROW + S_KEY] = key
        return row

    @cython.cfunc
    def enters(
        self,
        task: cython.longlong,
        cpu: cython.longlong,
        level: cython.longlong,
        function: cython.int,
        line: cython.longlong,
        time: cython.longlong,
        value: cython.longlong,
        argument: cython.int,
        flags: cython.longlong,
    ) -> cython.bint:
        """A map function was entered; False if the reference has to take it."""
        context: cython.longlong = self.context(task, level)
        at: cython.longlong = context * C_ROW
        if self.contexts[at + C_STATE] != PLAIN:
            return False
        count: cython.longlong = self.contexts[at + C_FLIGHTS]
        row: cython.longlong = context * 3 * F_ROW
        high: cython.longlong = self.window_only[function]
        if count == 1:
            if self.flights[row + F_APPLIED]:
                return False
            if not self.inner[self.flights[row + F_FUNCTION] * FUNCTIONS + function]:
                return False
            if argument == A_PFN and self.flights[row + F_ARGUMENT] == A_PAGE:
                self.learn(self.flights[row + F_VALUE], value)
                value = self.flights[row + F_VALUE]
                argument = A_PAGE
            line = self.flights[row + F_LINE]
            time = self.flights[row + F_TIME]
            flags = self.flights[row + F_FLAGS]
            row += F_ROW
        elif count:
            return False
        self.contexts[at + C_FLIGHTS] = count + 1
        self.contexts[at + C_DONE] = 0
        self.flights[row + F_FUNCTION] = function
        self.flights[row + F_LINE] = line
        self.flights[row + F_TIME] = time
        self.flights[row + F_VALUE] = value
        self.flights[row + F_ARGUMENT] = argument
        self.flights[row + F_FLAGS] = flags
        self.flights[row + F_CPU] = cpu
        self.flights[row + F_APPLIED] = 0
        self.flights[row + F_PREDICTED] = -1
        self.flights[row + F_DEPTH] = 0
        self.flights[row + F_LOW] = 0
        self.flights[row + F_HIGH] = high
        self.flights[row + F_WINDOW] = -1
        self.flights[row + F_ANSWER] = -1
        self.flights[row + F_CALLER] = -1
        return True

    @cython.cfunc
    def learn(self, page: cython.longlong, pfn: cython.longlong) -> cython.void:
        """A page and its frame: they fit what is known, or the reference's MemMap is told."""
        if self.base < 0 or page - pfn * self.struct_size != self.base:
            self.session.memmap.learn(page, pfn)
            self.refresh_base()

    @cython.cfunc
    def refresh_base(self) -> cython.void:
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

    @cython.cfunc
    def returns(
        self,
        task: cython.longlong,
        cpu: cython.longlong,
        level: cython.longlong,
        function: cython.int,
        line: cython.longlong,
        value: cython.longlong,
        pid: cython.longlong,
        comm: cython.longlong,
        caller: cython.longlong,
    ) -> cython.bint:
        """A map function returned; False, with nothing changed, if it is not plain."""
        context: cython.longlong = self.context(task, level)
        at: cython.longlong = context * C_ROW
        count: cython.longlong = self.contexts[at + C_FLIGHTS]
        if self.contexts[at + C_STATE] != PLAIN or count == 0:
            return False
        first: cython.longlong = context * 3 * F_ROW
        row: cython.longlong = first + (count - 1) * F_ROW
        top: cython.longlong = self.flights[row + F_FUNCTION]
        nested: cython.bint = False
        if top == function:
            nested = count == 2
        elif count == 2:
            # The inner function's return has no probe.
            if self.flights[first + F_FUNCTION] != function:
                return False
        elif not self.inner[function * FUNCTIONS + top]:
            return False
        key: cython.longlong = task if self.local else cpu
        stack: cython.longlong = self.stack(key)
        if self.flights[row + F_APPLIED]:
            if not self.again(row, stack, task, cpu, level, line, value):
                return False
        elif not self.opens(row, stack, task, cpu, level, line, value, pid, comm):
            return False
        self.right += 1
        self.flights[row + F_ANSWER] = value
        self.flights[row + F_CALLER] = caller
        window: cython.longlong = self.flights[row + F_WINDOW]
        depth: cython.longlong = self.flights[row + F_DEPTH]
        if window >= 0:
            slot: cython.longlong = (stack * DEEP + window) * W_ROW
            self.windows[slot + W_CALLER] = caller
            self.windows[slot + W_DEPTH] = depth
            if not self.windows[slot + W_RETURNED]:
                self.windows[slot + W_RETURNED] = 1
                self.opened(cpu, comm, pid, depth)
        if nested:
            self.pass_on(first, row)
            self.contexts[at + C_FLIGHTS] = 1
        else:
            if count == 2:
                self.flights[row + F_FUNCTION] = function
            self.called(caller, depth)
            self.contexts[at + C_FLIGHTS] = 0
        self.contexts[at + C_DONE] = 1
        self.contexts[at + C_STACK] = key
        i: cython.longlong
        last: cython.longlong = first + 2 * F_ROW
        for i in range(F_ROW):
            self.flights[last + i] = self.flights[row + i]
        return True

    @cython.cfunc
    @cython.exceptval(check=False)
    def pass_on(self, outer: cython.longlong, row: cython.longlong) -> cython.void:
        """The call around shares the result."""
        self.flights[outer + F_APPLIED] = 1
        self.flights[outer + F_PREDICTED] = self.flights[row + F_PREDICTED]
        self.flights[outer + F_DEPTH] = self.flights[row + F_DEPTH]
        self.flights[outer + F_LOW] = self.flights[row + F_LOW]
        self.flights[outer + F_WINDOW] = self.flights[row + F_WINDOW]
        self.flights[outer + F_CALLER] = self.flights[row + F_CALLER]

    @cython.cfunc
    @cython.exceptval(check=False)
    def again(
        self,
        row: cython.longlong,
        stack: cython.longlong,
        task: cython.longlong,
        cpu: cython.longlong,
        level: cython.longlong,
        line: cython.longlong,
        value: cython.longlong,
    ) -> cython.bint:
        """The outer return of a call whose window is open already: the same address."""
        at: cython.longlong = stack * S_ROW
        window: cython.longlong = self.flights[row + F_WINDOW]
        if self.flights[row + F_PREDICTED] != value:
            return False
        if self.flights[row + F_LOW]:
            return True
        if self.stacks[at + S_STATE] != PLAIN or window < 0 or window >= self.stacks[at + S_DEPTH]:
            return False
        if not self.usable(stack, task, cpu, level, line):
            return False
        if self.windows[(stack * DEEP + window) * W_ROW + W_LINE] != self.flights[row + F_LINE]:
            return False
        if level == 0:
            self.stacks[at + S_KNOWN] = 1
        self.stacks[at + S_CPU] = cpu
        self.stacks[at + S_TOUCHED] = line
        return True

    @cython.cfunc
    def opens(
        self,
        row: cython.longlong,
        stack: cython.longlong,
        task: cython.longlong,
        cpu: cython.longlong,
        level: cython.longlong,
        line: cython.longlong,
        value: cython.longlong,
        pid: cython.longlong,
        comm: cython.longlong,
    ) -> cython.bint:
        """The call takes its window, or answers with the linear address of a low page."""
        i: cython.longlong
        below: cython.longlong
        for i in range(level):
            # It may have interrupted a call that has its window already.
            below = self.context(task, i) * C_ROW
            if self.contexts[below + C_STATE] != PLAIN or self.contexts[below + C_FLIGHTS]:
                return False
        if not self.flights[row + F_HIGH] and not self.forced:
            linear: cython.longlong = self.linear(row)
            if linear == value and linear >= 0:
                self.flights[row + F_PREDICTED] = value
                self.flights[row + F_LOW] = 1
                self.flights[row + F_APPLIED] = 1
                self.map_calls += 1
                self.low_maps += 1
                self.cpu_stats[cpu * CPU_ROW] += 1
                return True
            if linear != -1 or self.page_offset <= value < self.high_memory:
                return False
        at: cython.longlong = stack * S_ROW
        if not self.usable(stack, task, cpu, level, line):
            return False
        depth: cython.longlong = self.stacks[at + S_DEPTH] if self.stacks[at + S_STATE] else 0
        if depth >= self.limit or value != self.address(cpu, depth):
            return False
        if self.stacks[at + S_STATE] == FREE:
            self.stacks[at + S_STATE] = PLAIN
        self.stacks[at + S_DEPTH] = depth + 1
        self.stacks[at + S_CPU] = cpu
        if level == 0:
            self.stacks[at + S_KNOWN] = 1
        self.stacks[at + S_TOUCHED] = line
        self.flights[row + F_PREDICTED] = value
        self.flights[row + F_DEPTH] = depth + 1
        self.flights[row + F_APPLIED] = 1
        self.flights[row + F_WINDOW] = depth
        self.map_calls += 1
        self.cpu_stats[cpu * CPU_ROW] += 1
        flags: cython.longlong = self.flights[row + F_FLAGS]
        slot: cython.longlong = (stack * DEEP + depth) * W_ROW
        self.windows[slot + W_ADDRESS] = value
        self.windows[slot + W_PAGE] = self.flights[row + F_VALUE]
        self.windows[slot + W_ARGUMENT] = self.flights[row + F_ARGUMENT]
        self.windows[slot + W_FRAMED] = self.base >= 0
        self.windows[slot + W_TASK] = task
        self.windows[slot + W_LEVEL] = level_of(flags)
        self.windows[slot + W_LINE] = self.flights[row + F_LINE]
        self.windows[slot + W_TIME] = self.flights[row + F_TIME]
        self.windows[slot + W_CPU] = cpu
        self.windows[slot + W_PID] = pid
        self.windows[slot + W_COMM] = comm
        self.windows[slot + W_DEPTH] = depth + 1
        self.windows[slot + W_CALLER] = -1
        self.windows[slot + W_PREEMPT] = flags >> P_SHIFT & 0xFF if flags & BIT_KNOWN else -1
        self.windows[slot + W_RETURNED] = 0
        return True

    @cython.cfunc
    @cython.exceptval(check=False)
    def linear(self, row: cython.longlong) -> cython.longlong:
        """The linear address of the call's page; -1 if mem_map does not tell, -2 if it tells
        that the page is high."""
        if self.base < 0 or self.flights[row + F_ARGUMENT] != A_PAGE:
            return -1
        offset: cython.longlong = self.flights[row + F_VALUE] - self.base
        if offset < 0 or offset % self.struct_size:
            return -1
        pfn: cython.longlong = offset // self.struct_size
        if pfn >= 1 << 24:
            return -1
        return self.page_offset + (pfn << 12) if pfn < self.max_low_pfn else -2

    @cython.cfunc
    @cython.exceptval(check=False)
    def address(self, cpu: cython.longlong, depth: cython.longlong) -> cython.longlong:
        """The window above *depth* others on a CPU."""
        slot: cython.longlong = depth * self.incr + self.incr - 1
        return self.first - ((slot + self.per_cpu * cpu) << 12)

    @cython.cfunc
    @cython.exceptval(check=False)
    def was_lost(self, cpu: cython.longlong, since: cython.longlong) -> cython.bint:
        """As Session.lost_since."""
        return self.lost[cpu] > since or self.lost_any > since

    @cython.cfunc
    @cython.exceptval(check=False)
    def usable(
        self,
        stack: cython.longlong,
        task: cython.longlong,
        cpu: cython.longlong,
        level: cython.longlong,
        line: cython.longlong,
    ) -> cython.bint:
        """Whether nothing odd is to be noted about a stack at an event on *cpu*."""
        at: cython.longlong = stack * S_ROW
        if self.stacks[at + S_STATE] == FREE:
            self.stacks[at + S_DEPTH] = 0
            self.stacks[at + S_KNOWN] = 0
            self.stacks[at + S_CPU] = cpu
            self.stacks[at + S_TOUCHED] = line
            return True
        if self.stacks[at + S_STATE] != PLAIN:
            return False
        if self.was_lost(cpu, self.stacks[at + S_TOUCHED]):
            return False
        depth: cython.longlong = self.stacks[at + S_DEPTH]
        if self.local:
            return depth == 0 or self.stacks[at + S_CPU] == cpu
        _i: cython.longlong
        slot: cython.longlong = stack * DEEP * W_ROW
        if level == 0:
            for _i in range(depth):
                if self.windows[slot + W_LEVEL] == 0 and self.windows[slot + W_TASK] != task:
                    return False
                slot += W_ROW
        return True

    @cython.cfunc
    def unmaps(
        self,
        task: cython.longlong,
        cpu: cython.longlong,
        level: cython.longlong,
        line: cython.longlong,
        time: cython.longlong,
        value: cython.longlong,
    ) -> cython.bint:
        """An unmap function was entered; False, with nothing changed, if it is not plain."""
        context: cython.longlong = self.context(task, level)
        at: cython.longlong = context * C_ROW
        if self.contexts[at + C_STATE] != PLAIN or self.contexts[at + C_FLIGHTS]:
            return False
        page: cython.longlong = value & PAGE_MASK
        key: cython.longlong = task if self.local else cpu
        stack: cython.longlong = self.stack(key)
        inside: cython.bint = self.last <= page <= self.first
        plain: cython.bint = False
        if inside:
            plain = self.closes(stack, task, cpu, level, line, time, page)
        else:
            plain = self.low_unmap(stack, task, cpu, level, line, value)
        if not plain:
            return False
        self.unmap_calls += 1
        self.contexts[at + C_DONE] = 0
        if self.waiting:
            self.doubts.seen()
            self.waiting = False
        return True

    @cython.cfunc
    @cython.exceptval(check=False)
    def low_unmap(
        self,
        stack: cython.longlong,
        task: cython.longlong,
        cpu: cython.longlong,
        level: cython.longlong,
        line: cython.longlong,
        value: cython.longlong,
    ) -> cython.bint:
        """An address in low memory that is no page of an open window does nothing."""
        at: cython.longlong = stack * S_ROW
        if self.forced or not self.page_offset <= value < self.high_memory:
            return False
        if not self.usable(stack, task, cpu, level, line):
            return False
        i: cython.longlong
        if self.stacks[at + S_STATE] == PLAIN:
            for i in range(self.stacks[at + S_DEPTH]):
                if self.windows[(stack * DEEP + i) * W_ROW + W_PAGE] == value:
                    return False
        self.stacks[at + S_STATE] = PLAIN
        self.stacks[at + S_CPU] = cpu
        self.stacks[at + S_TOUCHED] = line
        self.low_unmaps += 1
        return True

    @cython.cfunc
    def closes(
        self,
        stack: cython.longlong,
        task: cython.longlong,
        cpu: cython.longlong,
        level: cython.longlong,
        line: cython.longlong,
        time: cython.longlong,
        page: cython.longlong,
    ) -> cython.bint:
        """The top window, by its own address, by its own task."""
        at: cython.longlong = stack * S_ROW
        if self.stacks[at + S_STATE] != PLAIN or self.stacks[at + S_DEPTH] == 0:
            return False
        if not self.usable(stack, task, cpu, level, line):
            return False
        depth: cython.longlong = self.stacks[at + S_DEPTH] - 1
        slot: cython.longlong = (stack * DEEP + depth) * W_ROW
        if page != self.address(cpu, depth):
            return False
        own: cython.bint = self.windows[slot + W_TASK] == task
        if not self.local and self.windows[slot + W_LEVEL] == 0 and not own:
            return False
        self.stacks[at + S_DEPTH] = depth
        self.stacks[at + S_CPU] = cpu
        if level == 0:
            self.stacks[at + S_KNOWN] = 1
        self.stacks[at + S_TOUCHED] = line
        self.cpu_stats[cpu * CPU_ROW + 1] += 1
        self.closed(slot, line, time)
        return True

    @cython.cfunc
    def leaves(
        self, task: cython.longlong, cpu: cython.longlong, state: cython.longlong
    ) -> cython.bint:
        """``sched_switch``: plain where the task that leaves holds nothing to speak of."""
        what: cython.longlong = self.state_of(state)
        if what == 3:
            return False
        stack: cython.longlong = self.stack(task if self.local else cpu)
        at: cython.longlong = stack * S_ROW
        if self.stacks[at + S_STATE] == AWAY:
            return False
        if self.stacks[at + S_STATE] == PLAIN:
            if self.was_lost(cpu, self.stacks[at + S_TOUCHED]):
                return False
            if self.stacks[at + S_DEPTH] and (not self.local or what != 1):
                return False
        self.switches += 1
        return True

    @cython.cfunc
    def state_of(self, number: cython.longlong) -> cython.longlong:
        """What a scheduler state means: 1 runnable, 2 asleep, 3 dead."""
        if number < 0:
            return 2
        if number >= len(self.states):
            self.states = _more(self.states, 2 * (number + 1))
        if not self.states[number]:
            text = self.strings[number]
            self.states[number] = 3 if text[:1] in ("X", "Z") else 1 if text[:1] == "R" else 2
        return self.states[number]

    # Statistics.

    @cython.cfunc
    def opened(
        self,
        cpu: cython.longlong,
        comm: cython.longlong,
        pid: cython.longlong,
        depth: cython.longlong,
    ) -> cython.void:
        """As Recorder.opened."""
        self.depths[depth] += 1
        if depth > self.cpu_stats[cpu * CPU_ROW + 2]:
            self.cpu_stats[cpu * CPU_ROW + 2] = depth
        row: cython.longlong = self.task_table.find((comm << 32) ^ (pid & LOW_32))
        if row >= len(self.task_objects):
            self.task_objects.append(self.recorder.task(f"{self.strings[comm]}-{pid}"))
            if (row + 1) * TASK_ROW > len(self.task_stats):
                self.task_stats = _more(self.task_stats, 2 * (row + 1) * TASK_ROW)
        self.task_stats[row * TASK_ROW] += 1
        if depth > self.task_stats[row * TASK_ROW + 1]:
            self.task_stats[row * TASK_ROW + 1] = depth

    @cython.cfunc
    def caller_row(self, caller: cython.longlong, make: cython.bint) -> cython.longlong:
        """The row of a caller's statistics, -1 if it has none yet and none is to be made."""
        number: cython.longlong = caller + 1
        if number >= len(self.caller_rows):
            self.caller_rows = _more(self.caller_rows, 2 * (number + 1))
        if self.caller_rows[number]:
            return self.caller_rows[number] - 1
        found = self.recorder.caller(self.strings[caller], make)
        if found is None:
            return -1
        for row, known in enumerate(self.caller_objects):
            if known is found:
                self.caller_rows[number] = row + 1
                return row
        self.caller_objects.append(found)
        count: cython.longlong = len(self.caller_objects)
        if count > self.caller_room:
            self.caller_room *= 2
            self.caller_stats = _more(self.caller_stats, self.caller_room * CALLER_ROW)
            self.caller_holds = _more(self.caller_holds, self.caller_room * BUCKETS)
        self.caller_rows[number] = count
        return count - 1

    @cython.cfunc
    def called(self, caller: cython.longlong, depth: cython.longlong) -> cython.void:
        """As Recorder.called."""
        row: cython.longlong = self.caller_row(caller, True) * CALLER_ROW
        self.caller_stats[row] += 1
        if depth > self.caller_stats[row + 1]:
            self.caller_stats[row + 1] = depth

    @cython.cfunc
    def closed(
        self, slot: cython.longlong, line: cython.longlong, time: cython.longlong
    ) -> cython.void:
        """As Recorder.closed."""
        held: cython.longlong = time - self.windows[slot + W_TIME]
        if held < 0:
            held = 0
        if self.sinks:
            self.mapping(slot, line, time)
        bucket: cython.longlong = fast_bucket(held)
        self.holds[bucket] += 1
        caller: cython.longlong = self.windows[slot + W_CALLER]
        if caller < 0:
            return
        row: cython.longlong = self.caller_row(caller, False)
        if row < 0:
            return
        self.caller_holds[row * BUCKETS + bucket] += 1
        row *= CALLER_ROW
        opened: cython.longlong = self.windows[slot + W_LINE]
        longest: cython.longlong = self.caller_stats[row + 3]
        at: cython.longlong = self.caller_stats[row + 4]
        self.caller_stats[row + 2] += 1
        self.caller_stats[row + 5] += held
        if at == 0 or held > longest or (held == longest and opened < at):
            self.caller_stats[row + 3] = held
            self.caller_stats[row + 4] = opened

    @cython.cfunc
    def mapping(
        self, slot: cython.longlong, line: cython.longlong, time: cython.longlong
    ) -> cython.void:
        """A row of MAPPING_COLUMNS."""
        at: cython.longlong = self.mapping_count * MAPPING_ROW
        self.mapping_rows[at] = self.windows[slot + W_LINE]
        self.mapping_rows[at + 1] = self.windows[slot + W_TIME]
        self.mapping_rows[at + 2] = line
        self.mapping_rows[at + 3] = time
        self.mapping_rows[at + 4] = self.windows[slot + W_CPU]
        self.mapping_rows[at + 5] = self.windows[slot + W_PID]
        self.mapping_rows[at + 6] = self.windows[slot + W_COMM]
        self.mapping_rows[at + 7] = self.windows[slot + W_CALLER]
        self.mapping_rows[at + 8] = self.windows[slot + W_ADDRESS]
        self.mapping_rows[at + 9] = self.windows[slot + W_PAGE]
        self.mapping_rows[at + 10] = self.windows[slot + W_ARGUMENT]
        self.mapping_rows[at + 11] = self.windows[slot + W_DEPTH]
        self.mapping_rows[at + 12] = 0
        self.mapping_count += 1
        if self.mapping_count == MAPPING_BATCH:
            self.hand_on()

    def hand_on(self) -> None:
        """Give the sinks what is collected."""
        if not self.mapping_count:
            return
        rows = np.asarray(self.mapping_rows)[: self.mapping_count * MAPPING_ROW]
        table = rows.reshape(-1, MAPPING_ROW)
        columns = {
            name: table[:, index].astype(dtype)
            for index, (name, dtype) in enumerate(MAPPING_COLUMNS.items())
        }
        self.mapping_count = 0
        for sink in self.sinks:
            sink.add(Mappings(columns, self.strings))

    # What is not plain.

    def slow(self, batch: Batch, i: int, kind: int, cpu: int) -> None:
        """Let the reference judge event *i*, with the stack and the calls that it concerns."""
        event = self.event
        for name in FIELDS:
            setattr(event, name, getattr(batch, name)[i].item())
        task = event.pid or -1 - event.cpu
        if self.mapping_count:
            self.hand_on()
        key = task if self.local else event.cpu
        valid = kind != K_LOST and 0 <= cpu <= self.max_cpu
        if kind == K_LOST:
            self.give_all_contexts()
        elif valid:
            for level in range(4):
                self.give_context(task, level)
            self.give_stack(self.stack(key))
            if not self.local and self.bridge.at_the_edge(key):
                # The next window is the neighbour's: its entries have to be in the model.
                self.give_all_stacks()
        self.bridge.event(event)
        self.recorder.mappings.flush()
        self.head = self.session.head
        self.waiting = bool(self.doubts)
        self.refresh_base()
        if kind == K_LOST:
            self.note_loss(event.cpu, event.line)
        elif valid:
            self.take_back(task, key, event.cpu)

    def note_loss(self, cpu: int, line: int) -> None:
        """Stacks that were not touched since are judged by the reference next."""
        if 0 <= cpu <= self.max_cpu:
            self.lost[cpu] = line
        elif cpu < 0:
            self.lost_any = line

    def give_context(self, task: int, level: int) -> None:
        """Calls under way become the reference's."""
        context: cython.longlong = self.context(task, level)
        at: cython.longlong = context * C_ROW
        if self.contexts[at + C_STATE] != PLAIN:
            return
        self.contexts[at + C_STATE] = AWAY
        count: cython.longlong = self.contexts[at + C_FLIGHTS]
        done: cython.longlong = self.contexts[at + C_DONE]
        if not count and not done:
            return
        key: cython.longlong = self.contexts[at + C_STACK]
        if done or (count and self.flights[context * 3 * F_ROW + F_APPLIED]):
            self.give_stack(self.stack(key))
        row: cython.longlong = context * 3 * F_ROW
        flights = [self.flight_row(row + i * F_ROW) for i in range(count)]
        last = self.flight_row(row + 2 * F_ROW) if done else ()
        self.contexts[at + C_FLIGHTS] = 0
        self.contexts[at + C_DONE] = 0
        self.bridge.give_context(task, level, key, flights, last)

    def flight_row(self, row: cython.longlong) -> tuple[int, ...]:
        """A call as bridge.FlightRow."""
        return tuple([self.flights[row + i] for i in range(F_ROW)])

    def give_all_contexts(self) -> None:
        """Every call under way becomes the reference's."""
        for place in range(self.context_table.mask + 1):
            row = self.context_table.rows[place] - 1
            if 0 <= row < self.context_room and self.contexts[row * C_ROW + C_STATE] == PLAIN:
                key = self.context_table.keys[place]
                self.give_context(key >> 2, key & 3)

    def give_stack(self, stack: cython.longlong) -> None:
        """A stack becomes the reference's, with the model in the same state."""
        at: cython.longlong = stack * S_ROW
        if self.stacks[at + S_STATE] == PLAIN:
            rows = []
            for i in range(self.stacks[at + S_DEPTH]):
                slot: cython.longlong = (stack * DEEP + i) * W_ROW
                rows.append(tuple([self.windows[slot + j] for j in range(W_ROW)]))
            self.bridge.give_stack(
                self.stacks[at + S_KEY],
                bool(self.stacks[at + S_KNOWN]),
                self.stacks[at + S_CPU],
                self.stacks[at + S_TOUCHED],
                rows,
            )
        self.stacks[at + S_STATE] = AWAY

    def give_all_stacks(self) -> None:
        """Every stack that holds windows becomes the reference's."""
        for stack in range(min(self.stack_table.used, self.stack_room)):
            at: cython.longlong = stack * S_ROW
            if self.stacks[at + S_STATE] == PLAIN and self.stacks[at + S_DEPTH]:
                self.give_stack(stack)

    def take_back(self, task: int, key: int, cpu: int) -> None:
        """What is plain again after the reference's event comes back to the arrays."""
        stack: cython.longlong = self.stack(key)
        at: cython.longlong = stack * S_ROW
        outside = self.bridge.leaves_own_slots(key)
        if not self.local and outside:
            # From here on one CPU's calls may have changed another's entries.
            self.unbounded += 1
        found = None if outside else self.bridge.take_stack(key)
        if found is not None:
            known, on_cpu, touched, rows = found
            self.stacks[at + S_STATE] = PLAIN
            self.stacks[at + S_DEPTH] = len(rows)
            self.stacks[at + S_CPU] = on_cpu
            self.stacks[at + S_KNOWN] = known
            self.stacks[at + S_TOUCHED] = touched
            for i, row in enumerate(rows):
                slot: cython.longlong = (stack * DEEP + i) * W_ROW
                for j, value in enumerate(row):
                    self.windows[slot + j] = value
        elif not self.bridge.has_stack(key):
            self.stacks[at + S_STATE] = FREE
        for level in range(4):
            if self.bridge.take_context(task, level):
                self.contexts[self.context(task, level) * C_ROW + C_STATE] = PLAIN

    # The end.

    def finish(self) -> Verdict:
        """The verdict, once all batches are in."""
        self.hand_on()
        self.give_all_contexts()
        self.give_all_stacks()
        session, verdict = self.session, self.verdict
        session.last_return = max(session.last_return, self.last_return)
        session.last_unmap = max(session.last_unmap, self.last_unmap)
        verdict.first_ns, verdict.last_ns = self.first_ns, self.last_ns
        verdict.right += self.right
        verdict.map_calls += self.map_calls
        verdict.low_maps += self.low_maps
        verdict.unmap_calls += self.unmap_calls
        verdict.low_unmaps += self.low_unmaps
        verdict.switches += self.switches
        self._add_statistics()
        return self.reference.finish()

    def _add_statistics(self) -> None:
        verdict = self.verdict
        for cpu in range(self.max_cpu + 1):
            maps, unmaps = self.cpu_stats[cpu * CPU_ROW], self.cpu_stats[cpu * CPU_ROW + 1]
            if maps or unmaps:
                stats = self.recorder.cpu(cpu)
                stats.maps += maps
                stats.unmaps += unmaps
                stats.deepest = max(stats.deepest, self.cpu_stats[cpu * CPU_ROW + 2])
        _add_counts(verdict.depths, self.depths, 0, DEEP + 1)
        _add_counts(verdict.holds, self.holds, 0, BUCKETS)
        for row, task in enumerate(self.task_objects):
            task.maps += self.task_stats[row * TASK_ROW]
            task.deepest = max(task.deepest, self.task_stats[row * TASK_ROW + 1])
        for row, caller in enumerate(self.caller_objects):
            at: cython.longlong = row * CALLER_ROW
            caller.maps += self.caller_stats[at]
            caller.deepest = max(caller.deepest, self.caller_stats[at + 1])
            caller.closed += self.caller_stats[at + 2]
            caller.total_ns += self.caller_stats[at + 5]
            if self.caller_stats[at + 4]:
                caller.consider(self.caller_stats[at + 3], self.caller_stats[at + 4])
            _add_counts(caller.holds, self.caller_holds, row * BUCKETS, BUCKETS)


def columns_of(batch: Batch) -> tuple[Any, ...]:
    """The columns that the loop reads: interpreted, as lists, whose numbers are Python's own."""
    names = ("line", "time", "cpu", "pid", "comm", "kind", "function", "argument", "flags",
             "value", "caller", "state")  # fmt: skip
    if cython.compiled:
        return tuple([getattr(batch, name) for name in names])
    return tuple([getattr(batch, name).tolist() for name in names])


def _add_counts(counts: dict[int, int], more: array[int], start: int, length: int) -> None:
    for index in range(length):
        if more[start + index]:
            counts[index] = counts.get(index, 0) + more[start + index]


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def level_of(flags: cython.longlong) -> cython.longlong:
    """As state.level_of."""
    if flags & BIT_NMI:
        return 3
    if flags & BIT_HARD:
        return 2
    return 1 if flags & BIT_SOFT else 0


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def fast_bucket(ns: cython.longlong) -> cython.longlong:
    """As histogram.bucket_of."""
    if ns < 64:
        return ns
    shift: cython.longlong = 0
    rest: cython.longlong = ns >> 6
    while rest:
        shift += 1
        rest >>= 1
    return (shift << 5) + (ns >> shift)
