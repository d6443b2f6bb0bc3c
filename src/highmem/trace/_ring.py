# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The kernel's ring buffer, read and merged: from sub-buffers of all CPUs to columns.

A sub-buffer (a page, as a rule) begins with the time of its first record and a word of which
the low bits say how many bytes follow, the two top bits of its lower half whether events were
lost before it and whether their number is stored after the last record.  A record begins with
a 32-bit word: five bits of type or length, 27 bits of time since the record before it.

==== ===================================================================================
type what follows (include/linux/ring_buffer.h, Linux 2.6.31 to 6.x)
==== ===================================================================================
0    a word with the length of the data and itself, then the data
1-28 so many words of data
29   padding; with time 0 the sub-buffer ends here, else a word with the length to skip
30   time extend: a word with the upper bits of the time since the record before
31   time stamp: the same word, but the time is absolute (59 bits of it)
==== ===================================================================================

Bit fields are allocated from the low end on little endian and from the high end on big
endian machines, so the five bits are the lowest there and the highest here.

Plain Python that Cython compiles (pure Python mode); interpreted it does the same.  The one
class is driven by :mod:`highmem.trace.ringbuffer`, which owns the input and the account.
"""

# mypy: disable-error-code="import-untyped, import-not-found, unused-ignore, no-redef"
# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

try:
    import cython
    from cython import cast, cfunc, exceptval, inline, longlong, p_longlong, ulonglong
except ImportError:
    from highmem import _cython as cython
    from highmem._cython import cast, cfunc, exceptval, inline, longlong, p_longlong, ulonglong

from highmem.trace.buffers import sparse, zeros
from highmem.trace.schema import Argument, Kind

if cython.compiled:
    from cython.cimports.libc.string import memcpy

__all__ = ["COMPILED", "PIDS", "PLAN_ROW", "REASONS", "Ring"]

COMPILED: bool = bool(cython.compiled)

PIDS = 1 << 22
"""PID_MAX_LIMIT of 64-bit kernels (include/linux/threads.h); task names of larger pids are
not looked up, there are none."""

REASONS = (  # table
    "",
    "its length reaches beyond its sub-buffer",
    "the sub-buffer says it holds more than fits into it",
    "its time is out of range",
    "shorter than its event's fields",
    "no format describes its event's number",
    "its pid is no pid",
    "its km_type is out of range",
    "its name stands for the other kind of probe (entry or return) than its fields",
    "its sched_switch is of another task than its own pid",
    "the recording ends inside this sub-buffer",
)
"""Why a record was rejected, by number."""
R_LENGTH = cython.declare(cython.int, 1)  # table
R_COMMIT = cython.declare(cython.int, 2)  # table
R_TIME = cython.declare(cython.int, 3)  # table
R_SHORT = cython.declare(cython.int, 4)  # table
R_UNKNOWN = cython.declare(cython.int, 5)  # table
R_PID = cython.declare(cython.int, 6)  # table
R_KM_TYPE = cython.declare(cython.int, 7)  # table
R_PLACE = cython.declare(cython.int, 8)  # table
R_SWITCH = cython.declare(cython.int, 9)  # table
R_CUT = cython.declare(cython.int, 10)  # table

# A plan: what to take from the records of one event.  A row of so many numbers, each place
# an offset from the start of the record's data, -1 where there is no such field.
P_ACTION = cython.declare(cython.int, 0)  # table
P_LEAST = cython.declare(cython.int, 1)  # table
P_KIND = cython.declare(cython.int, 2)  # table
P_FUNCTION = cython.declare(cython.int, 3)  # table
P_ARGUMENT = cython.declare(cython.int, 4)  # table
P_VALUE = cython.declare(cython.int, 5)  # table
P_PROT = cython.declare(cython.int, 7)  # table
P_TYPE = cython.declare(cython.int, 9)  # table
P_CALLER = cython.declare(cython.int, 11)  # table
P_PREV_COMM = cython.declare(cython.int, 13)  # table
P_PREV_PID = cython.declare(cython.int, 15)  # table
P_STATE = cython.declare(cython.int, 16)  # table
P_NEXT_COMM = cython.declare(cython.int, 18)  # table
P_NEXT_PID = cython.declare(cython.int, 20)  # table
PLAN_ROW = 24
P_ROW = cython.declare(cython.int, PLAN_ROW)  # table
A_CALL = cython.declare(cython.int, 1)  # table
A_SWITCH = cython.declare(cython.int, 2)  # table

K_SWITCH = cython.declare(cython.int, int(Kind.SWITCH))  # table
K_LOST = cython.declare(cython.int, int(Kind.LOST))  # table
ARGUMENT_COUNT = cython.declare(cython.int, int(Argument.COUNT))  # table

COMMIT_MASK = cython.declare(cython.longlong, (1 << 27) - 1)  # table
MISSED = cython.declare(cython.longlong, 1 << 31)  # table
MISSED_STORED = cython.declare(cython.longlong, 1 << 30)  # table
# Times are kept below this, so that a delta (59 bits at most) can be added without a check.
TIME_LIMIT = cython.declare(cython.longlong, 1 << 62)  # table
STAMP_BITS = cython.declare(cython.int, 59)  # table
STAMP_RANGE = cython.declare(cython.longlong, 1 << 59)  # table
PID_LIMIT = cython.declare(cython.longlong, 1 << 31)  # table
KM_TYPES = cython.declare(cython.ulonglong, 256)  # table
EVENTS = cython.declare(cython.longlong, 65536)  # table
PID_COUNT = cython.declare(cython.longlong, PIDS)  # table
REASONS_KEPT = cython.declare(cython.int, 10)  # table
# Tasks that wait for each other, as only damage makes them seem, must not do so for ever.
WAITS = cython.declare(cython.longlong, 16)  # table

NOTHING = cython.declare(cython.int, 0)  # table
RECORD = cython.declare(cython.int, 1)  # table
DAMAGE = cython.declare(cython.int, 2)  # table
END = cython.declare(cython.int, 3)  # table
"""What stands at the head of a CPU's stream: nothing yet, a record, damage, the end."""

TABLE = cython.declare(cython.int, 1 << 14)  # table
HALF = cython.declare(cython.int, 1 << 13)  # table
# Literals of more than 31 bits would be Python numbers in the compiled loop.
LOW = cython.declare(cython.ulonglong, 0xFFFFFFFF)  # table
ONES = cython.declare(cython.ulonglong, 0x0101010101010101)  # table
TOPS = cython.declare(cython.ulonglong, 0x8080808080808080)  # table
MIX = cython.declare(cython.ulonglong, 0x9E3779B1)  # table


def _view(length: int, dtype: str) -> Any:
    return zeros(length, dtype)


@cython.final
@cython.cclass
class Numbers:
    """Numbers of strings that repeat: a hash from 16 bytes in front of a function.

    It forgets everything when it is half full, so that it stays small whatever it is asked.
    """

    low: ulonglong[::1]  # table
    high: ulonglong[::1]  # table
    values: cython.int[::1]  # table
    used: cython.int  # table
    ask: Any  # table

    def __init__(self, ask: Callable[[int, int], int]) -> None:
        self.low = _view(TABLE, "uint64")
        self.high = _view(TABLE, "uint64")
        self.values = _view(TABLE, "int32")
        self.used = 0
        self.ask = ask

    @cfunc
    @exceptval(-1)
    def find(self, low: ulonglong, high: ulonglong) -> cython.int:
        """The number that the function gives for *low* and *high*, or gave."""
        mixed: ulonglong = low ^ (low >> 29) ^ (high >> 7)
        mixed = ((mixed ^ (mixed >> 32)) & LOW) * MIX
        place: cython.int = cast(cython.int, (mixed >> 16) & (TABLE - 1))
        while self.values[place] != 0:
            if self.low[place] == low and self.high[place] == high:
                return self.values[place] - 1
            place = (place + 1) & (TABLE - 1)
        number: cython.int = self.ask(low, high)
        if self.used >= HALF:
            self.values = _view(TABLE, "int32")
            self.used = 0
            place = cast(cython.int, (mixed >> 16) & (TABLE - 1))
        self.low[place] = low
        self.high[place] = high
        self.values[place] = number + 1
        self.used += 1
        return number


_USUAL = {  # table
    "prot": b"\0",
    "km_type": b"\xff",
    "caller": b"\xff",
    "next_pid": b"\xff",
    "next_comm": b"\xff",
    "state": b"\xff",
}
"""The bytes of 0 or -1."""


@cfunc
def _address(numbers: Any) -> cython.size_t:
    """Where the numbers of a view are; who asks keeps it."""
    view: cython.uchar[::1] = numbers.cast("B")
    return cast(cython.size_t, cython.address(view[0]))


@cfunc
def _longs(numbers: Any) -> p_longlong:
    """Where they are; interpreted, the view."""
    if cython.compiled:
        return cast(p_longlong, _address(numbers))
    return numbers


@cfunc
@inline
@exceptval(check=False)
def _row(table: p_longlong, at: longlong) -> p_longlong:
    """The row of a table that begins at *at*."""
    return table + at if cython.compiled else table[at:]


@cfunc
@inline
@exceptval(check=False)
def _after_nul(eight: ulonglong) -> ulonglong:
    """Of eight bytes the top bit of the first that is 0, or 0."""
    found: ulonglong = (eight - ONES) & ~eight & TOPS
    return found & (0 - found)


@cython.final
@cython.cclass
class Ring:
    """The sub-buffers of several CPUs as one sequence of records, ordered by time.

    Each CPU (a *stream*) has a place of its own in *memory*.  Its driver puts whole
    sub-buffers there and calls :meth:`feed`; :meth:`fill` then writes records into columns
    until those are full or :meth:`hungry` says whose bytes are used up.  Records of equal
    time come in the order of the streams, as trace-cmd has them, but for one thing: a task is
    on one CPU at a time, so where it goes on comes after all that it did elsewhere.
    """

    memory: cython.p_uchar  # table
    big: cython.bint  # table
    native: cython.bint  # its words are as this machine's  # table
    rival: longlong  # when the next record of another stream than the first is  # table
    owned: dict  # type: ignore[type-arg]  # table
    page_size: longlong  # table
    commit_at: longlong  # table
    commit_size: longlong  # table
    time_at: longlong  # table
    data_at: longlong  # table
    type_at: longlong  # table
    type_size: longlong  # table
    flags_at: longlong  # table
    depth_at: longlong  # table
    migrate_at: longlong  # table
    pid_at: longlong  # table
    head_size: longlong  # table
    usual: cython.bint  # little endian, and each record begins as in all kernels so far  # table
    plan_of: cython.p_int  # table
    plans: p_longlong  # table
    flag_bits: cython.p_uint  # table
    depth_bits: cython.p_uint  # table
    migrate_bits: cython.p_uint  # table
    callers: Numbers  # table
    states: Numbers  # table
    names: Numbers  # table
    tasks: cython.p_int  # table
    unknown: cython.int  # table
    # Each stream: its CPU, its next sub-buffer, the end of its bytes, and where in the
    # current sub-buffer it is.
    cpus: p_longlong  # table
    page: p_longlong  # table
    stop: p_longlong  # table
    pos: p_longlong  # table
    end: p_longlong  # table
    ts: p_longlong  # table
    head: p_longlong  # table
    at: p_longlong  # table
    length: p_longlong  # table
    lost: p_longlong  # table
    inside: p_longlong  # table
    task: p_longlong  # what its last record leaves running, -1 if that is not known  # table
    turns: p_longlong  # its place among records of equal time  # table
    waited: p_longlong  # how often its next record let others go first  # table
    stream_of: cython.p_int  # of each task the stream that it was last in, plus one  # table
    late: longlong  # the last place among records of equal time  # table
    heap: p_longlong  # table
    heaped: longlong  # table
    want: longlong  # table
    last_time: longlong  # table
    lines: longlong  # table
    passed: longlong  # table
    rejected: longlong  # table
    losses: longlong  # table
    log: list[tuple[int, int, int, int]]
    # The columns that are written to.
    o_line: p_longlong  # table
    o_time: p_longlong  # table
    o_cpu: cython.p_int  # table
    o_pid: cython.p_int  # table
    o_comm: cython.p_int  # table
    o_kind: cython.p_uchar  # table
    o_function: cython.p_uchar  # table
    o_argument: cython.p_uchar  # table
    o_flags: cython.p_uint  # table
    o_value: cython.p_ulonglong  # table
    o_prot: cython.p_ulonglong  # table
    o_km_type: cython.p_short  # table
    o_caller: cython.p_int  # table
    o_next_pid: cython.p_int  # table
    o_next_comm: cython.p_int  # table
    o_state: cython.p_int  # table

    def __init__(self, memory: memoryview, cpus: list[int], layout: dict[str, int]) -> None:
        self.owned = {"memory": memory}
        if cython.compiled:
            self.memory = cast(cython.p_uchar, _address(memory))
        else:
            self.memory = memory
        self.big = layout["big"]
        self.native = self.big == (sys.byteorder == "big")
        self.rival = -1
        self.page_size = layout["page_size"]
        self.commit_at = layout["commit_at"]
        self.commit_size = layout["commit_size"]
        self.time_at = layout["time_at"]
        self.data_at = layout["data_at"]
        self.type_at = layout["type_at"]
        self.type_size = layout["type_size"]
        self.flags_at = layout["flags_at"]
        self.depth_at = layout["depth_at"]
        self.migrate_at = layout["migrate_at"]
        self.pid_at = layout["pid_at"]
        self.head_size = layout["head_size"]
        begins = (self.type_at, self.type_size, self.flags_at, self.depth_at, self.pid_at)
        self.usual = begins == (0, 2, 2, 3, 4) and self.native and not self.big
        count = max(len(cpus), 1)
        self.cpus = self.table("cpus", count)
        self.page, self.stop = self.table("page", count), self.table("stop", count)
        self.pos, self.end = self.table("pos", count), self.table("end", count)
        self.ts, self.head = self.table("ts", count), self.table("head", count)
        self.at, self.length = self.table("at", count), self.table("length", count)
        self.lost, self.inside = self.table("lost", count), self.table("inside", count)
        self.heap = self.table("heap", count)
        self.task, self.turns = self.table("task", count), self.table("turns", count)
        self.waited = self.table("waited", count)
        streams = self.owned["streams"] = sparse(PIDS, "int32")
        self.stream_of = cast(cython.p_int, _address(streams)) if cython.compiled else streams
        for i, cpu in enumerate(cpus):
            self.cpus[i] = cpu
        for i in range(count):
            self.lost[i] = self.task[i] = -1
            self.turns[i] = i
        self.late = count
        self.heaped = 0
        self.want = -1
        self.last_time = 0
        self.lines = self.passed = self.rejected = self.losses = 0
        self.log = []

    @cfunc
    def table(self, name: str, length: int) -> p_longlong:
        """A new table of zeros."""
        view = self.owned[name] = zeros(length, "int64")
        return _longs(view)

    def explain(
        self,
        plan_of: memoryview,
        plans: memoryview,
        bits: tuple[memoryview, memoryview, memoryview],
    ) -> None:
        """Say what the records mean.

        *plan_of* has for each event's number its plan in *plans*, 0 to pass it over, -1 if
        there is no such event; *bits* have the ``flags`` column for each value of the common
        flags, the preemption depth and the migrate-disable depth.
        """
        self.owned["plans"] = (plan_of, plans, bits)
        self.plans = _longs(plans)
        if cython.compiled:
            self.plan_of = cast(cython.p_int, _address(plan_of))
            self.flag_bits = cast(cython.p_uint, _address(bits[0]))
            self.depth_bits = cast(cython.p_uint, _address(bits[1]))
            self.migrate_bits = cast(cython.p_uint, _address(bits[2]))
        else:
            self.plan_of = plan_of
            self.flag_bits, self.depth_bits, self.migrate_bits = bits

    def name(
        self,
        caller: Callable[[int, int], int],
        state: Callable[[int, int], int],
        comm: Callable[[int, int], int],
        tasks: memoryview,
        unknown: int,
    ) -> None:
        """Say how strings get their numbers, each from two halves of 64 bits.

        Of an address or a state the second is 0, of a task's name the first byte is the
        lowest of the first.
        *tasks* has for each pid the number of its name plus one, or 0: then its name is the
        *unknown* one, until a sched_switch tells.
        """
        self.callers = Numbers(caller)
        self.states = Numbers(state)
        self.names = Numbers(comm)
        self.owned["tasks"] = tasks
        if cython.compiled:
            self.tasks = cast(cython.p_int, _address(tasks))
        else:
            self.tasks = tasks
        self.unknown = unknown

    def gap(self, s: longlong) -> None:
        """Bytes of stream *s* are missing before those that come next."""
        self.lost[s] = 0

    def hungry(self) -> int:
        """The stream whose bytes are used up, -1 if none is."""
        return self.want

    def counts(self) -> tuple[int, int, int, int]:
        """Records so far, and how many were passed over, rejected, lost."""
        return self.lines, self.passed, self.rejected, self.losses

    def rejections(self) -> list[tuple[int, int, int, int]]:
        """The first few rejections: record, reason, stream, the event's number or -1."""
        return self.log

    @cfunc
    @inline
    @exceptval(check=False)
    def word(self, at: longlong) -> longlong:
        """The 32-bit word at *at*."""
        if cython.compiled and self.native:
            return self.own_word(at)
        a: longlong = self.memory[at]
        b: longlong = self.memory[at + 1]
        c: longlong = self.memory[at + 2]
        d: longlong = self.memory[at + 3]
        if self.big:
            return a << 24 | b << 16 | c << 8 | d
        return d << 24 | c << 16 | b << 8 | a

    @cfunc
    @inline
    @exceptval(check=False)
    def own_word(self, at: longlong) -> longlong:
        """The same where the byte order is this machine's."""
        if cython.compiled:
            word: cython.uint = 0
            memcpy(cython.address(word), self.memory + at, 4)
            return word
        return self.word(at)

    @cfunc
    @inline
    @exceptval(check=False)
    def own_field(self, at: longlong, plan: p_longlong, entry: cython.int) -> ulonglong:
        """As :meth:`field`, where the byte order is this machine's."""
        if plan[entry + 1] == 4:
            return cast(ulonglong, self.own_word(at + plan[entry]))
        return self.other_number(at + plan[entry], plan[entry + 1])

    @cfunc
    @inline
    @exceptval(check=False)
    def number(self, at: longlong, size: longlong) -> ulonglong:
        """The unsigned number of *size* bytes (1, 2, 4 or 8) at *at*."""
        if size == 4:
            return cast(ulonglong, self.word(at))
        return self.other_number(at, size)

    @cfunc
    @exceptval(check=False)
    def other_number(self, at: longlong, size: longlong) -> ulonglong:
        """The same where it is no word."""
        one: ulonglong
        two: ulonglong
        if size == 8:
            one = cast(ulonglong, self.word(at))
            two = cast(ulonglong, self.word(at + 4))
            return one << 32 | two if self.big else two << 32 | one
        one = self.memory[at]
        if size == 1:
            return one
        two = self.memory[at + 1]
        return one << 8 | two if self.big else two << 8 | one

    @cfunc
    @exceptval(check=False)
    def damage(self, s: longlong, reason: longlong) -> cython.int:
        """The rest of the sub-buffer of stream *s* cannot be read."""
        self.pos[s] = self.end[s]
        self.head[s] = DAMAGE
        self.at[s] = reason
        return 1

    @cfunc
    @exceptval(check=False)
    def turn(self, s: longlong) -> cython.int:
        """Open the next sub-buffer of stream *s*: 0 without bytes, 1 if it is damaged, else 2."""
        page: longlong = self.page[s]
        limit: longlong = page + self.page_size
        if page + self.data_at > self.stop[s]:
            self.page[s] = self.stop[s]
            return 0
        self.page[s] = limit
        start: longlong = page + self.data_at
        self.pos[s] = start
        self.end[s] = start
        stamp: ulonglong = self.number(page + self.time_at, 8)
        if (stamp >> 62) != 0:
            self.damage(s, R_TIME)
            return 1
        self.ts[s] = cast(longlong, stamp)
        commit: longlong
        commit = cast(longlong, self.number(page + self.commit_at, self.commit_size) & LOW)
        size: longlong = commit & COMMIT_MASK
        if size > limit - start:
            self.damage(s, R_COMMIT)
            return 1
        if (commit & MISSED) != 0 and self.lost[s] != 0:
            self.miss(s, commit, start + size, limit)
        if start + size > self.stop[s]:
            self.end[s] = self.stop[s]
            if start >= self.stop[s]:
                self.damage(s, R_CUT)
                return 1
        else:
            self.end[s] = start + size
        return 2

    @cfunc
    @exceptval(check=False)
    def miss(
        self,
        s: longlong,
        commit: longlong,
        at: longlong,
        limit: longlong,
    ) -> cython.void:
        """Remember that events are missing before the sub-buffer; how many stands at *at*."""
        many: ulonglong = 0
        if self.stop[s] < limit:
            limit = self.stop[s]
        if (commit & MISSED_STORED) != 0 and at + self.commit_size <= limit:
            many = self.number(at, self.commit_size)
            if many >> 62 != 0:
                many = 0
        if self.lost[s] > 0 and many > 0 and self.lost[s] < TIME_LIMIT - TIME_LIMIT // 2:
            many += cast(ulonglong, self.lost[s])
        self.lost[s] = cast(longlong, many)

    @cfunc
    @inline
    @exceptval(check=False)
    def advance(self, s: longlong) -> cython.int:
        """Find the next record of stream *s*: 0 if its bytes are used up, else 1."""
        word: longlong
        kind: longlong
        delta: longlong
        size: longlong
        opened: cython.int
        pos: longlong = self.pos[s]
        end: longlong = self.end[s]
        ts: longlong = self.ts[s]
        self.head[s] = NOTHING
        while True:
            if pos >= end:
                opened = self.turn(s)
                if opened < 2:
                    return opened
                pos = self.pos[s]
                end = self.end[s]
                ts = self.ts[s]
                continue
            if end - pos < 4:
                return self.damage(s, R_LENGTH)
            word = self.word(pos)
            if self.big:
                kind = word >> 27
                delta = word & 0x7FFFFFF
            else:
                kind = word & 31
                delta = word >> 5
            if kind <= 28:
                pos += 4
                size = kind * 4
                if kind == 0:
                    if end - pos < 4:
                        return self.damage(s, R_LENGTH)
                    size = self.word(pos) - 4
                    pos += 4
                    if size < 0:
                        return self.damage(s, R_LENGTH)
                    size = (size + 3) & ~3
                if size > end - pos:
                    return self.damage(s, R_LENGTH)
                ts += delta
                if ts >= TIME_LIMIT:
                    return self.damage(s, R_TIME)
                self.at[s] = pos
                self.length[s] = size
                self.pos[s] = pos + size
                self.ts[s] = ts
                self.head[s] = RECORD
                return 1
            if kind == 29 and delta == 0:
                pos = end
                continue
            self.pos[s] = pos
            self.ts[s] = ts
            if self.leap(s, kind, delta):
                return 1
            pos = self.pos[s]
            ts = self.ts[s]

    @cfunc
    @exceptval(check=False)
    def leap(self, s: longlong, kind: longlong, delta: longlong) -> cython.int:
        """Pass a record of stream *s* that is padding or only time: 1 if it is damaged."""
        pos: longlong = self.pos[s]
        ts: longlong = self.ts[s]
        more: longlong
        if self.end[s] - pos < 8:
            return self.damage(s, R_LENGTH)
        more = self.word(pos + 4)
        pos += 8
        if kind == 29:
            pos += more - 4
            if more < 4 or pos > self.end[s]:
                return self.damage(s, R_LENGTH)
            ts += delta
        elif kind == 30:
            ts += (more << 27) + delta
        else:
            delta += more << 27
            # The bits above the 59 of the stamp are those of the time before it; if that
            # is in the past, they changed since (ring_buffer.c, rb_fix_abs_ts).
            more = ts >> STAMP_BITS << STAMP_BITS
            if more != 0 and (more | delta) < ts:
                more += STAMP_RANGE
            ts = more | delta
        if ts >= TIME_LIMIT:
            return self.damage(s, R_TIME)
        self.pos[s] = pos
        self.ts[s] = ts
        return 0

    def feed(self, s: longlong, start: longlong, stop: longlong) -> bool:
        """Give stream *s* the bytes of memory from *start* to *stop*; True if it has a record.

        False: nothing but time in them, more is wanted.  An empty range ends the stream.
        """
        self.page[s] = start
        self.stop[s] = stop
        ready: cython.int = 0
        if start < stop:
            self.pos[s] = start
            self.end[s] = start
            ready = self.advance(s)
        elif self.lost[s] >= 0:
            self.head[s] = END
            ready = 1
        self.want = -1
        if ready:
            if self.inside[s]:
                self.sink()
            else:
                self.push(s)
        elif start >= stop:
            if self.inside[s]:
                self.drop()
        else:
            return False
        return True

    @cfunc
    @inline
    @exceptval(check=False)
    def before(self, a: longlong, b: longlong) -> cython.bint:
        """Whether stream *a* comes before stream *b*."""
        if self.ts[a] != self.ts[b]:
            return self.ts[a] < self.ts[b]
        return self.turns[a] < self.turns[b]

    @cfunc
    @exceptval(check=False)
    def push(self, s: longlong) -> cython.void:
        """Put stream *s* into the heap."""
        at: longlong = self.heaped
        up: longlong
        self.heaped += 1
        self.inside[s] = 1
        while at > 0:
            up = (at - 1) >> 1
            if not self.before(s, self.heap[up]):
                break
            self.heap[at] = self.heap[up]
            at = up
        self.heap[at] = s
        self.note_rival()

    @cfunc
    @exceptval(check=False)
    def sink(self) -> cython.void:
        """Put the stream at the top of the heap where it belongs now."""
        s: longlong = self.heap[0]
        at: longlong = 0
        low: longlong
        while True:
            low = 2 * at + 1
            if low >= self.heaped:
                break
            if low + 1 < self.heaped and self.before(self.heap[low + 1], self.heap[low]):
                low += 1
            if self.before(s, self.heap[low]):
                break
            self.heap[at] = self.heap[low]
            at = low
        self.heap[at] = s
        self.note_rival()

    @cfunc
    @exceptval(check=False)
    def drop(self) -> cython.void:
        """Take the stream at the top out of the heap."""
        self.inside[self.heap[0]] = 0
        self.heaped -= 1
        if self.heaped > 0:
            self.heap[0] = self.heap[self.heaped]
            self.sink()

    @cfunc
    @exceptval(check=False)
    def note_rival(self) -> cython.void:
        """Note when the next record of another stream than the first is."""
        self.rival = TIME_LIMIT
        if self.heaped > 1:
            self.rival = self.ts[self.heap[1]]
        if self.heaped > 2 and self.ts[self.heap[2]] < self.rival:
            self.rival = self.ts[self.heap[2]]

    @cfunc
    def reject(self, s: longlong, reason: longlong, event: longlong) -> object:
        """Count a rejected record, and keep it if it is one of the first."""
        self.rejected += 1
        if len(self.log) < REASONS_KEPT:
            self.log.append((self.lines, reason, s, event))
        return None

    def into(self, columns: Any) -> None:
        """Write to *columns* from here on: each column of a batch is a memoryview.

        Columns that most events leave as they are, are filled in here.
        """
        for name, byte in _USUAL.items():
            view = getattr(columns, name).cast("B")
            view[:] = byte * len(view)
        self.owned["columns"] = columns
        if not cython.compiled:
            for name, column in vars(columns).items():
                setattr(self, f"o_{name}", column)
            return
        self.o_line, self.o_time = _longs(columns.line), _longs(columns.time)
        self.o_cpu = cast(cython.p_int, _address(columns.cpu))
        self.o_pid = cast(cython.p_int, _address(columns.pid))
        self.o_comm = cast(cython.p_int, _address(columns.comm))
        self.o_kind = cast(cython.p_uchar, _address(columns.kind))
        self.o_function = cast(cython.p_uchar, _address(columns.function))
        self.o_argument = cast(cython.p_uchar, _address(columns.argument))
        self.o_flags = cast(cython.p_uint, _address(columns.flags))
        self.o_value = cast(cython.p_ulonglong, _address(columns.value))
        self.o_prot = cast(cython.p_ulonglong, _address(columns.prot))
        self.o_km_type = cast(cython.p_short, _address(columns.km_type))
        self.o_caller = cast(cython.p_int, _address(columns.caller))
        self.o_next_pid = cast(cython.p_int, _address(columns.next_pid))
        self.o_next_comm = cast(cython.p_int, _address(columns.next_comm))
        self.o_state = cast(cython.p_int, _address(columns.state))

    def fill(self, row: longlong, room: longlong) -> int:
        """Write records from *row* on until *room* rows are full; how many are written then.

        Fewer than *room* - 1: a stream is hungry, or all are at their end.
        """
        return self.run(row, room)

    @cfunc
    @exceptval(-1)
    def run(self, row: longlong, room: longlong) -> longlong:
        """The loop of :meth:`fill`."""
        s: longlong
        while row < room - 1 and self.heaped > 0:
            s = self.heap[0]
            if self.ts[s] >= self.rival and self.waits(s):
                continue
            if self.lost[s] >= 0:
                self.lose(s, row)
                row += 1
            if self.head[s] == END:
                self.drop()
                continue
            if self.usual and self.head[s] == RECORD and self.ts[s] < self.rival:
                row = self.burst(s, row, room)
                if self.head[s] == RECORD and (self.ts[s] >= self.rival or row >= room - 1):
                    self.sink()
                    continue
            if self.head[s] != NOTHING:
                self.lines += 1
                if self.head[s] == DAMAGE:
                    self.reject(s, self.at[s], -1)
                    self.lost[s] = 0
                elif self.take(s, row):
                    row += 1
            if not self.advance(s):
                self.want = s
                return row
            if self.ts[s] >= self.rival:
                self.sink()
        return row

    @cfunc
    @exceptval(-1)
    def burst(self, s: longlong, row: longlong, room: longlong) -> longlong:
        """Write what can be written at a stretch: calls of the task that stream *s* is running,
        one after the other, while no other stream has an earlier record.

        Then the record at the head is still to be taken, or its head is NOTHING.
        """
        fields: p_longlong
        plan: longlong
        word: longlong
        bits: cython.uint
        at: longlong = self.at[s]
        size: longlong = self.length[s]
        pos: longlong = self.pos[s]
        end: longlong = self.end[s]
        ts: longlong = self.ts[s]
        pid: longlong = self.task[s]
        cpu: cython.int = cast(cython.int, self.cpus[s])
        comm: cython.int = 0
        head: longlong = RECORD
        first: longlong = row
        before: longlong = self.lines + 1 - row
        rival: longlong = self.rival
        if 0 <= pid < PID_COUNT:
            comm = self.tasks[pid]
        comm = comm - 1 if comm > 0 else self.unknown
        while row < room - 1 and size >= self.head_size:
            word = self.own_word(at)
            plan = self.easy(self.plan_of[word & 0xFFFF], size)
            if plan == 0 or self.own_word(at + 4) != pid:
                break
            fields = _row(self.plans, plan)
            bits = self.flag_bits[word >> 16 & 0xFF] | self.depth_bits[word >> 24]
            if self.migrate_at >= 0:
                bits |= self.migrate_bits[self.memory[at + self.migrate_at]]
            self.o_line[row] = before + row
            self.o_time[row] = ts
            self.o_cpu[row] = cpu
            self.o_pid[row] = cast(cython.int, pid)
            self.o_comm[row] = comm
            self.o_flags[row] = bits
            self.easy_call(at, fields, row)
            row += 1
            head = NOTHING
            # The next one, if its length is in its first word and it lies in this sub-buffer.
            if end - pos < 4:
                break
            word = self.own_word(pos)
            size = (word & 31) * 4
            if size == 0 or size > 112 or size + 4 > end - pos:
                break
            word = ts + (word >> 5)
            if word >= TIME_LIMIT:
                break
            ts = word
            at = pos + 4
            pos = at + size
            head = RECORD
            if ts >= rival:
                break
        if row > first:
            self.lines += row - first
            self.last_time = self.o_time[row - 1]
            self.head[s] = head
            self.at[s], self.length[s], self.pos[s], self.ts[s] = at, size, pos, ts
        return row

    @cfunc
    @inline
    @exceptval(check=False)
    def easy(self, plan: longlong, size: longlong) -> longlong:
        """Where that plan begins, if it is of a call with a value and nothing that may be wrong,
        and *size* is enough for it; else 0, which is no plan's."""
        if plan <= 0:
            return 0
        fields: p_longlong = _row(self.plans, plan * P_ROW)
        if fields[P_ACTION] != A_CALL or size < fields[P_LEAST]:
            return 0
        if fields[P_VALUE] < 0 or fields[P_TYPE] >= 0:
            return 0
        return plan * P_ROW

    @cfunc
    @inline
    @exceptval(-1)
    def easy_call(self, at: longlong, plan: p_longlong, row: longlong) -> cython.int:
        """As :meth:`call`, of such a plan; and what the call is."""
        if plan[P_PROT] >= 0:
            self.o_prot[row] = self.own_field(at, plan, P_PROT)
        if plan[P_CALLER] >= 0:
            self.o_caller[row] = self.callers.find(self.own_field(at, plan, P_CALLER), 0)
        self.o_value[row] = self.own_field(at, plan, P_VALUE)
        self.o_kind[row] = cast(cython.uchar, plan[P_KIND])
        self.o_function[row] = cast(cython.uchar, plan[P_FUNCTION])
        self.o_argument[row] = cast(cython.uchar, plan[P_ARGUMENT])
        return 0

    @cfunc
    @exceptval(check=False)
    def waits(self, s: longlong) -> cython.bint:
        """Put stream *s* behind the others of its time if one of those has to come first.

        A clock that is coarse or stands still gives records of several CPUs one time, and a
        task may have moved between them: it goes on here once it has left where it was.
        """
        other: longlong
        pid: longlong = self.comes(s)
        if pid > 0 and pid < PID_COUNT and pid != self.task[s] and self.waited[s] < WAITS:
            other = self.stream_of[pid] - 1
            if other >= 0 and other != s and self.task[other] == pid and self.ties(s, other):
                self.waited[s] += 1
                self.late += 1
                self.turns[s] = self.late
                self.sink()
                return True
        self.waited[s] = 0
        self.turns[s] = s
        return False

    @cfunc
    @exceptval(check=False)
    def ties(self, s: longlong, other: longlong) -> cython.bint:
        """Whether the next records of both streams have one time."""
        if not self.inside[other] or self.head[other] != RECORD:
            return False
        return self.ts[s] == self.ts[other]

    @cfunc
    @exceptval(check=False)
    def comes(self, s: longlong) -> longlong:
        """The task that runs after the next record of stream *s*, -1 if it does not tell."""
        at: longlong = self.at[s]
        event: longlong
        plan: longlong
        if self.head[s] != RECORD or self.length[s] < self.head_size:
            return -1
        event = cast(longlong, self.number(at + self.type_at, self.type_size))
        plan = self.plan_of[event] if event < EVENTS else -1
        if plan <= 0:
            return -1
        fields: p_longlong = _row(self.plans, plan * P_ROW)
        if self.judge(at, self.length[s], fields) != 0:
            return -1
        if fields[P_ACTION] == A_CALL:
            return self.word(at + self.pid_at)
        return self.word(at + fields[P_NEXT_PID])

    @cfunc
    @inline
    @exceptval(check=False)
    def runs(self, s: longlong, pid: longlong) -> cython.void:
        """Note that *pid* is the task of stream *s* from here on."""
        self.task[s] = pid
        if pid < PID_COUNT:
            self.stream_of[pid] = cast(cython.int, s + 1)

    @cfunc
    @exceptval(check=False)
    def lose(self, s: longlong, row: longlong) -> cython.void:
        """Write that events of stream *s* are missing."""
        lost: longlong = self.lost[s]
        self.lost[s] = self.task[s] = -1
        self.lines += 1
        self.losses += lost if lost > 0 else 1
        self.o_line[row] = self.lines
        self.o_time[row] = self.last_time
        self.o_cpu[row] = cast(cython.int, self.cpus[s])
        self.o_pid[row] = -1
        self.o_comm[row] = -1
        self.o_flags[row] = 0
        self.o_value[row] = cast(ulonglong, lost)
        self.o_kind[row] = K_LOST
        self.o_function[row] = 0
        self.o_argument[row] = ARGUMENT_COUNT

    @cfunc
    @inline
    @exceptval(-1)
    def take(self, s: longlong, row: longlong) -> cython.int:
        """Write the record of stream *s*, if it is one of ours and right: 1, else 0."""
        at: longlong = self.at[s]
        size: longlong = self.length[s]
        event: longlong
        plan: longlong = -1
        if size < self.head_size:
            self.reject(s, R_SHORT, -1)
            return 0
        event = cast(longlong, self.number(at + self.type_at, self.type_size))
        if event < EVENTS:
            plan = self.plan_of[event]
        if plan == 0:
            self.passed += 1
            return 0
        if plan < 0:
            self.reject(s, R_UNKNOWN, event)
            return 0
        fields: p_longlong = _row(self.plans, plan * P_ROW)
        reason: longlong = self.judge(at, size, fields)
        if reason != 0:
            self.reject(s, reason, event)
            return 0
        if fields[P_ACTION] == A_CALL:
            self.call(at, fields, row)
            self.common(s, at, fields, row)
        else:
            self.common(s, at, fields, row)
            self.runs(s, self.switch(at, fields, row))
        return 1

    @cfunc
    @inline
    @exceptval(check=False)
    def judge(self, at: longlong, size: longlong, plan: p_longlong) -> longlong:
        """What is wrong with the record at *at*, 0 if nothing is."""
        where: longlong
        pid: longlong
        if size < plan[P_LEAST]:
            return R_SHORT
        pid = self.word(at + self.pid_at)
        if pid >= PID_LIMIT:
            return R_PID
        if plan[P_ACTION] == A_CALL:
            where = plan[P_TYPE]
            if where >= 0 and self.field(at, plan, P_TYPE) >= KM_TYPES:
                return R_KM_TYPE
            return 0
        if plan[P_ACTION] != A_SWITCH:
            return R_PLACE
        if self.word(at + plan[P_PREV_PID]) != pid:
            return R_SWITCH
        if self.word(at + plan[P_NEXT_PID]) >= PID_LIMIT:
            return R_PID
        return 0

    @cfunc
    @inline
    @exceptval(check=False)
    def common(
        self,
        s: longlong,
        at: longlong,
        plan: p_longlong,
        row: longlong,
    ) -> cython.void:
        """Fill in the columns that every event has."""
        pid: longlong = self.word(at + self.pid_at)
        bits: cython.uint = 0
        comm: cython.int = 0
        if self.flags_at >= 0:
            bits = self.flag_bits[self.memory[at + self.flags_at]]
        if self.depth_at >= 0:
            bits |= self.depth_bits[self.memory[at + self.depth_at]]
        if self.migrate_at >= 0:
            bits |= self.migrate_bits[self.memory[at + self.migrate_at]]
        if pid < PID_COUNT:
            comm = self.tasks[pid]
        if pid != self.task[s]:
            self.runs(s, pid)
        self.o_line[row] = self.lines
        self.last_time = self.ts[s]
        self.o_time[row] = self.ts[s]
        self.o_cpu[row] = cast(cython.int, self.cpus[s])
        self.o_pid[row] = cast(cython.int, pid)
        self.o_comm[row] = comm - 1 if comm > 0 else self.unknown
        self.o_flags[row] = bits
        # Bytes last: to the C compiler they might be anything, pointers too.
        self.o_kind[row] = cast(cython.uchar, plan[P_KIND])
        self.o_function[row] = cast(cython.uchar, plan[P_FUNCTION])
        self.o_argument[row] = cast(cython.uchar, plan[P_ARGUMENT])

    @cfunc
    @inline
    @exceptval(check=False)
    def field(self, at: longlong, plan: p_longlong, entry: cython.int) -> ulonglong:
        """The field of the record at *at* whose place and size are in its plan at *entry*."""
        return self.number(at + plan[entry], plan[entry + 1])

    @cfunc
    @exceptval(-1)
    def comm(self, at: longlong, plan: p_longlong, entry: cython.int) -> cython.int:
        """The number of the name in that field: 16 bytes of it, or up to a NUL."""
        low: ulonglong = 0
        high: ulonglong = 0
        byte: ulonglong
        length: longlong = 0
        size: longlong = plan[entry + 1]
        at += plan[entry]
        if cython.compiled and size == 16 and self.native and not self.big:
            memcpy(cython.address(low), self.memory + at, 8)
            memcpy(cython.address(high), self.memory + at + 8, 8)
            byte = _after_nul(low)
            if byte:
                return self.names.find(low & ((byte >> 7) - 1), 0)
            byte = _after_nul(high)
            return self.names.find(low, high & ((byte >> 7) - 1) if byte else high)
        while length < size and length < 16:
            byte = self.memory[at + length]
            if byte == 0:
                break
            if length < 8:
                low |= byte << (8 * length)
            else:
                high |= byte << (8 * (length - 8))
            length += 1
        return self.names.find(low, high)

    @cfunc
    @inline
    @exceptval(-1)
    def call(self, at: longlong, plan: p_longlong, row: longlong) -> cython.int:
        """Fill in the columns of a map, its return, an unmap or a flush."""
        self.o_value[row] = self.field(at, plan, P_VALUE) if plan[P_VALUE] >= 0 else 0
        if plan[P_PROT] >= 0:
            self.o_prot[row] = self.field(at, plan, P_PROT)
        if plan[P_CALLER] >= 0:
            self.o_caller[row] = self.callers.find(self.field(at, plan, P_CALLER), 0)
        if plan[P_TYPE] >= 0:
            self.o_km_type[row] = cast(cython.short, self.field(at, plan, P_TYPE))
        return 0

    @cfunc
    @exceptval(-1)
    def switch(self, at: longlong, plan: p_longlong, row: longlong) -> longlong:
        """Fill in the columns of a sched_switch, and learn the names of its two tasks; the pid of
        the one that runs then."""
        pid: longlong = self.word(at + self.pid_at)
        comm: cython.int = self.comm(at, plan, P_PREV_COMM)
        self.o_value[row] = 0
        if plan[P_STATE] >= 0:
            self.o_state[row] = self.states.find(self.field(at, plan, P_STATE), 0)
        self.o_comm[row] = comm
        if pid < PID_COUNT and self.tasks[pid] == 0:
            self.tasks[pid] = comm + 1
        comm = self.comm(at, plan, P_NEXT_COMM)
        pid = self.word(at + plan[P_NEXT_PID])
        self.o_next_pid[row] = cast(cython.int, pid)
        self.o_next_comm[row] = comm
        if pid < PID_COUNT and self.tasks[pid] == 0:
            self.tasks[pid] = comm + 1
        return pid
