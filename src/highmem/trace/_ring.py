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

# mypy: disable-error-code="import-untyped, import-not-found, unused-ignore"
# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

try:
    import cython
except ImportError:
    from highmem import _cython as cython  # type: ignore[no-redef]

from highmem.trace.schema import Argument, Kind

__all__ = ["COMPILED", "PIDS", "PLAN_ROW", "REASONS", "Ring"]

COMPILED: bool = bool(cython.compiled)

PIDS = 1 << 22
"""PID_MAX_LIMIT of 64-bit kernels (include/linux/threads.h); task names of larger pids are
not looked up, there are none."""

REASONS = (
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

NOTHING = cython.declare(cython.int, 0)  # table
RECORD = cython.declare(cython.int, 1)  # table
DAMAGE = cython.declare(cython.int, 2)  # table
END = cython.declare(cython.int, 3)  # table
"""What stands at the head of a CPU's stream: nothing yet, a record, damage, the end."""

TABLE = cython.declare(cython.int, 1 << 14)  # table
HALF = cython.declare(cython.int, 1 << 13)  # table
# Literals of more than 31 bits would be Python numbers in the compiled loop.
LOW = cython.declare(cython.ulonglong, 0xFFFFFFFF)  # table
MIX = cython.declare(cython.ulonglong, 0x9E3779B1)  # table


def _view(length: int, dtype: str) -> Any:
    return np.zeros(length, dtype).data


@cython.final
@cython.cclass
class Numbers:
    """Numbers of strings that repeat: a hash from 16 bytes in front of a function.

    It forgets everything when it is half full, so that it stays small whatever it is asked.
    """

    low: cython.ulonglong[::1]
    high: cython.ulonglong[::1]
    values: cython.int[::1]
    used: cython.int
    ask: Any

    def __init__(self, ask: Callable[[int, int], int]) -> None:
        self.low = _view(TABLE, "u8")
        self.high = _view(TABLE, "u8")
        self.values = _view(TABLE, "i4")
        self.used = 0
        self.ask = ask

    @cython.cfunc
    def find(self, low: cython.ulonglong, high: cython.ulonglong) -> cython.int:
        """The number that the function gives for *low* and *high*, or gave."""
        mixed: cython.ulonglong = low ^ (low >> 29) ^ (high >> 7)
        mixed = ((mixed ^ (mixed >> 32)) & LOW) * MIX
        place: cython.int = cython.cast(cython.int, (mixed >> 16) & (TABLE - 1))
        while self.values[place] != 0:
            if self.low[place] == low and self.high[place] == high:
                return self.values[place] - 1
            place = (place + 1) & (TABLE - 1)
        number: cython.int = self.ask(low, high)
        if self.used >= HALF:
            self.values = _view(TABLE, "i4")
            self.used = 0
            place = cython.cast(cython.int, (mixed >> 16) & (TABLE - 1))
        self.low[place] = low
        self.high[place] = high
        self.values[place] = number + 1
        self.used += 1
        return number


@cython.final
@cython.cclass
class Ring:
    """The sub-buffers of several CPUs as one sequence of records, ordered by time.

    Each CPU (a *stream*) has a place of its own in *memory*.  Its driver puts whole
    sub-buffers there and calls :meth:`feed`; :meth:`fill` then writes records into columns
    until those are full or :meth:`hungry` says whose bytes are used up.  Records of equal
    time come in the order of the streams, as trace-cmd has them.
    """

    memory: cython.uchar[::1]
    big: cython.bint
    page_size: cython.longlong
    commit_at: cython.longlong
    commit_size: cython.longlong
    time_at: cython.longlong
    data_at: cython.longlong
    type_at: cython.longlong
    type_size: cython.longlong
    flags_at: cython.longlong
    depth_at: cython.longlong
    migrate_at: cython.longlong
    pid_at: cython.longlong
    head_size: cython.longlong
    plan_of: cython.int[::1]
    plans: cython.longlong[::1]
    flag_bits: cython.uint[::1]
    depth_bits: cython.uint[::1]
    migrate_bits: cython.uint[::1]
    callers: Numbers
    states: Numbers
    names: Numbers
    tasks: cython.int[::1]
    unknown: cython.int
    # Each stream: its CPU, its next sub-buffer, the end of its bytes, and where in the
    # current sub-buffer it is.
    cpus: cython.longlong[::1]
    page: cython.longlong[::1]
    stop: cython.longlong[::1]
    pos: cython.longlong[::1]
    end: cython.longlong[::1]
    ts: cython.longlong[::1]
    head: cython.longlong[::1]
    at: cython.longlong[::1]
    length: cython.longlong[::1]
    lost: cython.longlong[::1]
    inside: cython.longlong[::1]
    heap: cython.longlong[::1]
    heaped: cython.longlong
    want: cython.longlong
    last_time: cython.longlong
    lines: cython.longlong
    passed: cython.longlong
    rejected: cython.longlong
    losses: cython.longlong
    log: list[tuple[int, int, int, int]]
    # The columns that are written to.
    o_line: cython.longlong[::1]
    o_time: cython.longlong[::1]
    o_cpu: cython.int[::1]
    o_pid: cython.int[::1]
    o_comm: cython.int[::1]
    o_kind: cython.uchar[::1]
    o_function: cython.uchar[::1]
    o_argument: cython.uchar[::1]
    o_flags: cython.uint[::1]
    o_value: cython.ulonglong[::1]
    o_prot: cython.ulonglong[::1]
    o_km_type: cython.short[::1]
    o_caller: cython.int[::1]
    o_next_pid: cython.int[::1]
    o_next_comm: cython.int[::1]
    o_state: cython.int[::1]

    def __init__(self, memory: memoryview, cpus: list[int], layout: dict[str, int]) -> None:
        self.memory = memory
        self.big = layout["big"]
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
        count = max(len(cpus), 1)
        self.cpus = np.array(cpus or [0], "i8").data
        self.page = _view(count, "i8")
        self.stop = _view(count, "i8")
        self.pos = _view(count, "i8")
        self.end = _view(count, "i8")
        self.ts = _view(count, "i8")
        self.head = _view(count, "i8")
        self.at = _view(count, "i8")
        self.length = _view(count, "i8")
        self.lost = np.full(count, -1, "i8").data
        self.inside = _view(count, "i8")
        self.heap = _view(count, "i8")
        self.heaped = 0
        self.want = -1
        self.last_time = 0
        self.lines = self.passed = self.rejected = self.losses = 0
        self.log = []

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
        self.plan_of = plan_of
        self.plans = plans
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
        self.tasks = tasks
        self.unknown = unknown

    def gap(self, s: cython.longlong) -> None:
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

    @cython.cfunc
    @cython.exceptval(check=False)
    def word(self, at: cython.longlong) -> cython.longlong:
        """The 32-bit word at *at*."""
        a: cython.longlong = self.memory[at]
        b: cython.longlong = self.memory[at + 1]
        c: cython.longlong = self.memory[at + 2]
        d: cython.longlong = self.memory[at + 3]
        if self.big:
            return a << 24 | b << 16 | c << 8 | d
        return d << 24 | c << 16 | b << 8 | a

    @cython.cfunc
    @cython.exceptval(check=False)
    def number(self, at: cython.longlong, size: cython.longlong) -> cython.ulonglong:
        """The unsigned number of *size* bytes (1, 2, 4 or 8) at *at*."""
        one: cython.ulonglong
        two: cython.ulonglong
        if size == 4:
            return cython.cast(cython.ulonglong, self.word(at))
        if size == 8:
            one = cython.cast(cython.ulonglong, self.word(at))
            two = cython.cast(cython.ulonglong, self.word(at + 4))
            return one << 32 | two if self.big else two << 32 | one
        one = self.memory[at]
        if size == 1:
            return one
        two = self.memory[at + 1]
        return one << 8 | two if self.big else two << 8 | one

    @cython.cfunc
    @cython.exceptval(check=False)
    def damage(self, s: cython.longlong, reason: cython.longlong) -> cython.int:
        """The rest of the sub-buffer of stream *s* cannot be read."""
        self.pos[s] = self.end[s]
        self.head[s] = DAMAGE
        self.at[s] = reason
        return 1

    @cython.cfunc
    @cython.exceptval(check=False)
    def turn(self, s: cython.longlong) -> cython.int:
        """Open the next sub-buffer of stream *s*: 0 without bytes, 1 if it is damaged, else 2."""
        page: cython.longlong = self.page[s]
        limit: cython.longlong = page + self.page_size
        if page + self.data_at > self.stop[s]:
            self.page[s] = self.stop[s]
            return 0
        self.page[s] = limit
        start: cython.longlong = page + self.data_at
        self.pos[s] = start
        self.end[s] = start
        stamp: cython.ulonglong = self.number(page + self.time_at, 8)
        if (stamp >> 62) != 0:
            self.damage(s, R_TIME)
            return 1
        self.ts[s] = cython.cast(cython.longlong, stamp)
        commit: cython.longlong
        commit = cython.cast(
            cython.longlong, self.number(page + self.commit_at, self.commit_size) & LOW
        )
        size: cython.longlong = commit & COMMIT_MASK
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

    @cython.cfunc
    @cython.exceptval(check=False)
    def miss(
        self,
        s: cython.longlong,
        commit: cython.longlong,
        at: cython.longlong,
        limit: cython.longlong,
    ) -> cython.void:
        """Remember that events are missing before the sub-buffer; how many stands at *at*."""
        many: cython.ulonglong = 0
        if self.stop[s] < limit:
            limit = self.stop[s]
        if (commit & MISSED_STORED) != 0 and at + self.commit_size <= limit:
            many = self.number(at, self.commit_size)
            if many >> 62 != 0:
                many = 0
        if self.lost[s] > 0 and many > 0 and self.lost[s] < TIME_LIMIT - TIME_LIMIT // 2:
            many += cython.cast(cython.ulonglong, self.lost[s])
        self.lost[s] = cython.cast(cython.longlong, many)

    @cython.cfunc
    @cython.exceptval(check=False)
    def advance(self, s: cython.longlong) -> cython.int:
        """Find the next record of stream *s*: 0 if its bytes are used up, else 1."""
        word: cython.longlong
        kind: cython.longlong
        delta: cython.longlong
        size: cython.longlong
        opened: cython.int
        pos: cython.longlong = self.pos[s]
        end: cython.longlong = self.end[s]
        ts: cython.longlong = self.ts[s]
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

    @cython.cfunc
    @cython.exceptval(check=False)
    def leap(self, s: cython.longlong, kind: cython.longlong, delta: cython.longlong) -> cython.int:
        """Pass a record of stream *s* that is padding or only time: 1 if it is damaged."""
        pos: cython.longlong = self.pos[s]
        ts: cython.longlong = self.ts[s]
        more: cython.longlong
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

    def feed(self, s: cython.longlong, start: cython.longlong, stop: cython.longlong) -> bool:
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

    @cython.cfunc
    @cython.exceptval(check=False)
    def before(self, a: cython.longlong, b: cython.longlong) -> cython.bint:
        """Whether stream *a* comes before stream *b*."""
        return self.ts[a] < self.ts[b] or (self.ts[a] == self.ts[b] and a < b)

    @cython.cfunc
    @cython.exceptval(check=False)
    def push(self, s: cython.longlong) -> cython.void:
        """Put stream *s* into the heap."""
        at: cython.longlong = self.heaped
        up: cython.longlong
        self.heaped += 1
        self.inside[s] = 1
        while at > 0:
            up = (at - 1) >> 1
            if not self.before(s, self.heap[up]):
                break
            self.heap[at] = self.heap[up]
            at = up
        self.heap[at] = s

    @cython.cfunc
    @cython.exceptval(check=False)
    def sink(self) -> cython.void:
        """Put the stream at the top of the heap where it belongs now."""
        s: cython.longlong = self.heap[0]
        at: cython.longlong = 0
        low: cython.longlong
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

    @cython.cfunc
    @cython.exceptval(check=False)
    def drop(self) -> cython.void:
        """Take the stream at the top out of the heap."""
        self.inside[self.heap[0]] = 0
        self.heaped -= 1
        if self.heaped > 0:
            self.heap[0] = self.heap[self.heaped]
            self.sink()

    @cython.cfunc
    def reject(self, s: cython.longlong, reason: cython.longlong, event: cython.longlong) -> object:
        """Count a rejected record, and keep it if it is one of the first."""
        self.rejected += 1
        if len(self.log) < REASONS_KEPT:
            self.log.append((self.lines, reason, s, event))
        return None

    def into(self, columns: Any) -> None:
        """Write to *columns* from here on: a batch of which each column is a memoryview."""
        self.o_line = columns.line
        self.o_time = columns.time
        self.o_cpu = columns.cpu
        self.o_pid = columns.pid
        self.o_comm = columns.comm
        self.o_kind = columns.kind
        self.o_function = columns.function
        self.o_argument = columns.argument
        self.o_flags = columns.flags
        self.o_value = columns.value
        self.o_prot = columns.prot
        self.o_km_type = columns.km_type
        self.o_caller = columns.caller
        self.o_next_pid = columns.next_pid
        self.o_next_comm = columns.next_comm
        self.o_state = columns.state

    def fill(self, row: cython.longlong, room: cython.longlong) -> int:
        """Write records from *row* on until *room* rows are full; how many are written then.

        Fewer than *room* - 1: a stream is hungry, or all are at their end.
        """
        return self.run(row, room)

    @cython.cfunc
    def run(self, row: cython.longlong, room: cython.longlong) -> cython.longlong:
        """The loop of :meth:`fill`."""
        s: cython.longlong
        while row < room - 1 and self.heaped > 0:
            s = self.heap[0]
            if self.lost[s] >= 0:
                self.lose(s, row)
                row += 1
            if self.head[s] == END:
                self.drop()
                continue
            self.lines += 1
            if self.head[s] == DAMAGE:
                self.reject(s, self.at[s], -1)
                self.lost[s] = 0
            elif self.take(s, row):
                row += 1
            if not self.advance(s):
                self.want = s
                return row
            self.sink()
        return row

    @cython.cfunc
    @cython.exceptval(check=False)
    def lose(self, s: cython.longlong, row: cython.longlong) -> cython.void:
        """Write that events of stream *s* are missing."""
        lost: cython.longlong = self.lost[s]
        self.lost[s] = -1
        self.lines += 1
        self.losses += lost if lost > 0 else 1
        self.begin(s, row)
        self.o_time[row] = self.last_time
        self.o_pid[row] = -1
        self.o_comm[row] = -1
        self.o_kind[row] = K_LOST
        self.o_function[row] = 0
        self.o_argument[row] = ARGUMENT_COUNT
        self.o_flags[row] = 0
        self.o_value[row] = cython.cast(cython.ulonglong, lost)
        self.o_km_type[row] = -1

    @cython.cfunc
    @cython.exceptval(check=False)
    def begin(self, s: cython.longlong, row: cython.longlong) -> cython.void:
        """Fill in what most rows have in common."""
        self.o_line[row] = self.lines
        self.o_cpu[row] = cython.cast(cython.int, self.cpus[s])
        self.o_value[row] = 0
        self.o_prot[row] = 0
        self.o_caller[row] = -1
        self.o_next_pid[row] = -1
        self.o_next_comm[row] = -1
        self.o_state[row] = -1

    @cython.cfunc
    def take(self, s: cython.longlong, row: cython.longlong) -> cython.int:
        """Write the record of stream *s*, if it is one of ours and right: 1, else 0."""
        at: cython.longlong = self.at[s]
        size: cython.longlong = self.length[s]
        event: cython.longlong
        plan: cython.longlong = -1
        if size < self.head_size:
            self.reject(s, R_SHORT, -1)
            return 0
        event = cython.cast(cython.longlong, self.number(at + self.type_at, self.type_size))
        if event < EVENTS:
            plan = self.plan_of[event]
        if plan == 0:
            self.passed += 1
            return 0
        if plan < 0:
            self.reject(s, R_UNKNOWN, event)
            return 0
        plan *= P_ROW
        reason: cython.longlong = self.judge(at, size, plan)
        if reason != 0:
            self.reject(s, reason, event)
            return 0
        self.begin(s, row)
        self.common(s, at, plan, row)
        if self.plans[plan + P_ACTION] == A_CALL:
            self.call(at, plan, row)
        else:
            self.switch(at, plan, row)
        return 1

    @cython.cfunc
    @cython.exceptval(check=False)
    def judge(
        self, at: cython.longlong, size: cython.longlong, plan: cython.longlong
    ) -> cython.longlong:
        """What is wrong with the record at *at*, 0 if nothing is."""
        where: cython.longlong
        pid: cython.longlong
        if size < self.plans[plan + P_LEAST]:
            return R_SHORT
        pid = self.word(at + self.pid_at)
        if pid >= PID_LIMIT:
            return R_PID
        if self.plans[plan + P_ACTION] == A_CALL:
            where = self.plans[plan + P_TYPE]
            if where >= 0 and self.field(at, plan + P_TYPE) >= KM_TYPES:
                return R_KM_TYPE
            return 0
        if self.plans[plan + P_ACTION] != A_SWITCH:
            return R_PLACE
        if self.word(at + self.plans[plan + P_PREV_PID]) != pid:
            return R_SWITCH
        if self.word(at + self.plans[plan + P_NEXT_PID]) >= PID_LIMIT:
            return R_PID
        return 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def common(
        self,
        s: cython.longlong,
        at: cython.longlong,
        plan: cython.longlong,
        row: cython.longlong,
    ) -> cython.void:
        """Fill in the columns that every event has."""
        pid: cython.longlong = self.word(at + self.pid_at)
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
        self.last_time = self.ts[s]
        self.o_time[row] = self.ts[s]
        self.o_pid[row] = cython.cast(cython.int, pid)
        self.o_comm[row] = comm - 1 if comm > 0 else self.unknown
        self.o_flags[row] = bits
        self.o_kind[row] = cython.cast(cython.uchar, self.plans[plan + P_KIND])
        self.o_function[row] = cython.cast(cython.uchar, self.plans[plan + P_FUNCTION])
        self.o_argument[row] = cython.cast(cython.uchar, self.plans[plan + P_ARGUMENT])
        self.o_km_type[row] = -1

    @cython.cfunc
    @cython.exceptval(check=False)
    def field(self, at: cython.longlong, entry: cython.longlong) -> cython.ulonglong:
        """The field of the record at *at* whose place and size are in the plans at *entry*."""
        return self.number(at + self.plans[entry], self.plans[entry + 1])

    @cython.cfunc
    def comm(self, at: cython.longlong, entry: cython.longlong) -> cython.int:
        """The number of the name in that field: 16 bytes of it, or up to a NUL."""
        low: cython.ulonglong = 0
        high: cython.ulonglong = 0
        byte: cython.ulonglong
        length: cython.longlong = 0
        size: cython.longlong = self.plans[entry + 1]
        at += self.plans[entry]
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

    @cython.cfunc
    def call(self, at: cython.longlong, plan: cython.longlong, row: cython.longlong) -> cython.int:
        """Fill in the columns of a map, its return, an unmap or a flush."""
        if self.plans[plan + P_VALUE] >= 0:
            self.o_value[row] = self.field(at, plan + P_VALUE)
        if self.plans[plan + P_PROT] >= 0:
            self.o_prot[row] = self.field(at, plan + P_PROT)
        if self.plans[plan + P_CALLER] >= 0:
            self.o_caller[row] = self.callers.find(self.field(at, plan + P_CALLER), 0)
        if self.plans[plan + P_TYPE] >= 0:
            self.o_km_type[row] = cython.cast(cython.short, self.field(at, plan + P_TYPE))
        return 0

    @cython.cfunc
    def switch(
        self, at: cython.longlong, plan: cython.longlong, row: cython.longlong
    ) -> cython.int:
        """Fill in the columns of a sched_switch, and learn the names of its two tasks."""
        pid: cython.longlong = self.word(at + self.pid_at)
        comm: cython.int = self.comm(at, plan + P_PREV_COMM)
        if self.plans[plan + P_STATE] >= 0:
            self.o_state[row] = self.states.find(self.field(at, plan + P_STATE), 0)
        self.o_comm[row] = comm
        if pid < PID_COUNT and self.tasks[pid] == 0:
            self.tasks[pid] = comm + 1
        comm = self.comm(at, plan + P_NEXT_COMM)
        pid = self.word(at + self.plans[plan + P_NEXT_PID])
        self.o_next_pid[row] = cython.cast(cython.int, pid)
        self.o_next_comm[row] = comm
        if pid < PID_COUNT and self.tasks[pid] == 0:
            self.tasks[pid] = comm + 1
        return 0
