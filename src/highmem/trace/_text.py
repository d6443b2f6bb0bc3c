# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"
# mypy: disable-error-code="import-untyped, import-not-found"
"""The scanner of ftrace text: from bytes to columns, without an object for each line.

It knows how lines are put together and nothing of what they mean.  The parts of a line that
repeat it has to be taught (``learn_*``), by somebody who had one whole line read by the pure
reader; then a line that is made of such parts, byte for byte, and of numbers between them is
read here:

=========  =====================================  ==============================================
who        ``    gzip-109     (    109) ``        comm and pid
where      ``[002] d... ``                        a number; the flags are taught
when       ``   11.904703: ``                     numbers
call       ``u_kunmap: (kunmap+0x0/0x9) page=``   event, place and first field's name;
                                                  hexadecimal digits follow, and perhaps the
                                                  protection bits
switch     ``sched_switch: prev_comm=... ==> ``   who leaves and how
next       ``next_comm=...``                      who comes, to the end of the line
whole      all after the time                     a switch as trace-cmd prints it
name       ``timer_start: ``                      an event of no interest
=========  =====================================  ==============================================

Everything else :meth:`Scanner.run` hands back.  That a line cannot be put together in two
ways is shown in :mod:`highmem.trace.ftrace_line`.

Plain Python that Cython compiles (pure Python mode); interpreted it does the same, slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

try:
    import cython
except ImportError:
    from highmem import _cython as cython

from highmem.trace.buffers import Pool, sparse
from highmem.trace.schema import COLUMNS

if cython.compiled:
    from cython.cimports.libc.string import memchr, memcmp, memcpy

__all__ = ["COMPILED", "DONE", "FULL", "ODD", "Scanner"]

COMPILED: bool = bool(cython.compiled)

DONE = 0
"""No further line ends in these bytes; what is left begins at ``at``."""
FULL = 1
"""There is no room for another event: ``take`` them."""
ODD = 2
"""The line from ``start`` to ``end`` has to be read by somebody else."""

# Rows of the tables, each of LANES numbers; row 0 means none.
LANES = cython.declare(cython.int, 16)
HASH = cython.declare(cython.int, 0)
KEY = cython.declare(cython.int, 1)  # where in the arena the key is
LENGTH = cython.declare(cython.int, 2)
LAST = cython.declare(cython.int, 3)  # of a task: the row of its last call
# of a call: the row of what came next in the same task; both only to guess by
SORT = cython.declare(cython.int, 4)
# A task, and the switches:
COMM = cython.declare(cython.int, 5)
PID = cython.declare(cython.int, 6)
STATE = cython.declare(cython.int, 7)
NEXT_COMM = cython.declare(cython.int, 8)
NEXT_PID = cython.declare(cython.int, 9)
# A call:
KIND = cython.declare(cython.int, 5)
FUNCTION = cython.declare(cython.int, 6)
ARGUMENT = cython.declare(cython.int, 7)
CALLER = cython.declare(cython.int, 8)
KM_TYPE = cython.declare(cython.int, 9)
PROT = cython.declare(cython.int, 10)  # where in the arena " prot=0x" is
PROT_LENGTH = cython.declare(cython.int, 11)

# What a row is: its SORT.
TASK = cython.declare(cython.int, 1)
CALL = cython.declare(cython.int, 2)
LEAVE = cython.declare(cython.int, 3)
COME = cython.declare(cython.int, 4)
WHOLE = cython.declare(cython.int, 5)
NAME = cython.declare(cython.int, 6)
_SORTS = {"call": CALL, "leave": LEAVE, "come": COME, "whole": WHOLE, "name": NAME}

SWITCH = cython.declare(cython.int, 4)  # Kind.SWITCH
UNTOLD = -2
"""The comm of a task of which no event was read yet."""
NO_COMM = cython.declare(cython.int, UNTOLD)

_SLOTS = 1 << 14  # rows of a table
_ARENA = 1 << 22  # bytes of all keys
_KEY_MIN = 8  # they are compared and hashed in words
_KEY_MAX = 2048
_FLAG_SLOTS = 256

MIX = cython.declare(cython.ulonglong, 0x9E3779B97F4A7C15)
MASK = cython.declare(cython.longlong, _SLOTS - 1)
PROBES = cython.declare(cython.int, 16)  # rows that are looked at for one key
FLAG_MASK = cython.declare(cython.ulonglong, _FLAG_SLOTS - 1)
LONGEST = cython.declare(cython.int, 4096)  # bytes of a line; no key is longer
WHO_MAX = cython.declare(cython.int, 96)

_NIBBLES = bytes(int(chr(c), 16) if chr(c) in "0123456789abcdef" else 255 for c in range(256))


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _find_byte(
    p: cython.p_uchar, byte: cython.int, at: cython.Py_ssize_t, end: cython.Py_ssize_t
) -> cython.Py_ssize_t:
    """Where *byte* is from *at* on, -1 if it is not."""
    if cython.compiled:
        found: cython.p_uchar = cython.cast(cython.p_uchar, memchr(p + at, byte, end - at))
        return found - p if found != cython.NULL else -1
    return p.find(byte, at, end)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _same(
    p: cython.p_uchar,
    at: cython.Py_ssize_t,
    q: cython.p_uchar,
    other: cython.Py_ssize_t,
    length: cython.Py_ssize_t,
) -> cython.bint:
    """Whether *length* bytes are the same."""
    if cython.compiled:
        return memcmp(p + at, q + other, length) == 0
    return p[at : at + length] == q[other : other + length]


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _word(p: cython.p_uchar, at: cython.Py_ssize_t) -> cython.ulonglong:
    """Eight bytes as a number, in the machine's order: only hashes are made of it."""
    if cython.compiled:
        word: cython.ulonglong = 0
        memcpy(cython.address(word), p + at, 8)
        return word
    return int.from_bytes(p[at : at + 8], "little")


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _hash(p: cython.p_uchar, at: cython.Py_ssize_t, length: cython.Py_ssize_t) -> cython.ulonglong:
    """A hash of at least 8 bytes, never 0."""
    if cython.compiled:
        mixed: cython.ulonglong = cython.cast(cython.ulonglong, length)
        end: cython.Py_ssize_t = at + length - 8
        while at < end:
            mixed = (mixed ^ _word(p, at)) * MIX
            mixed ^= mixed >> 29
            at += 8
        mixed = (mixed ^ _word(p, end)) * MIX
        return (mixed >> 1) | 1
    return (hash(p[at : at + length]) & 0x7FFFFFFFFFFFFFFF) | 1


def _numbers(length: int) -> Any:
    """A table of so many zeros; a list where numbers are Python's, which do not overflow."""
    return sparse(length, "int64") if cython.compiled else [0] * length


@cython.cfunc
def _address(numbers: memoryview) -> cython.size_t:
    """Where the numbers of a view are; who asks keeps it."""
    view: cython.uchar[::1] = numbers.cast("B")
    return cython.cast(cython.size_t, cython.address(view[0]))


@cython.final
@cython.cclass
class Scanner:
    """Reads chunks of text into columns of *capacity* rows.

    ``line`` counts the lines that were taken from the chunks, ``passed`` those of no
    interest since somebody set it to 0, ``time`` is that of the last event.  ``unknown``
    says of an ODD line whether it might be read if its parts were taught, ``news`` is set when
    something is taught that was not known.
    """

    at = cython.declare(cython.Py_ssize_t, visibility="public")
    start = cython.declare(cython.Py_ssize_t, visibility="public")
    end = cython.declare(cython.Py_ssize_t, visibility="public")
    line = cython.declare(cython.longlong, visibility="public")
    passed = cython.declare(cython.longlong, visibility="public")
    rows = cython.declare(cython.Py_ssize_t, visibility="public")
    time = cython.declare(cython.longlong, visibility="public")
    unknown = cython.declare(cython.bint, visibility="public")
    news = cython.declare(cython.bint, visibility="public")
    _capacity: cython.Py_ssize_t
    _owned: object  # what the pointers below point into
    _pool: Any
    _minus: bytes  # -1 in every row of a column of 32 bits
    _columns: dict  # type: ignore[type-arg]
    _tasks: cython.p_longlong
    _shapes: cython.p_longlong
    _arena: cython.p_uchar
    _arena_used: cython.Py_ssize_t
    _nibbles: cython.p_uchar
    _flag_key: cython.p_ulonglong
    _flag_length: cython.p_longlong
    _flag_bits: cython.p_longlong
    _flags_used: cython.int
    # The line that is being read, as far as it is.
    _p: cython.p_uchar
    _stop: cython.Py_ssize_t
    _task: cython.longlong
    _cpu: cython.longlong
    _flags: cython.longlong
    _now: cython.longlong
    _comm: cython.longlong
    _free: cython.longlong
    _number: cython.ulonglong
    # The columns.
    _c_line: cython.p_longlong  # table
    _c_time: cython.p_longlong  # table
    _c_cpu: cython.p_int  # table
    _c_pid: cython.p_int  # table
    _c_comm: cython.p_int  # table
    _c_kind: cython.p_uchar  # table
    _c_function: cython.p_uchar  # table
    _c_argument: cython.p_uchar  # table
    _c_flags: cython.p_uint  # table
    _c_value: cython.p_ulonglong  # table
    _c_prot: cython.p_ulonglong  # table
    _c_km_type: cython.p_short  # table
    _c_caller: cython.p_int  # table
    _c_next_pid: cython.p_int  # table
    _c_next_comm: cython.p_int  # table
    _c_state: cython.p_int  # table

    def __init__(self, capacity: int) -> None:
        self.at = self.start = self.end = 0
        self.line = self.passed = self.time = 0
        self.unknown = self.news = False
        self._capacity = capacity
        self._stop = self._task = self._cpu = self._flags = self._now = self._number = 0
        self._comm = self._free = 0
        rows = (_SLOTS + 1) * 16
        arena = sparse(_ARENA, "uint8")
        tables = [_numbers(n) for n in (rows, rows, _FLAG_SLOTS, _FLAG_SLOTS, _FLAG_SLOTS)]
        self._owned = (tables, arena)
        if cython.compiled:
            self._tasks = cython.cast(cython.p_longlong, _address(tables[0]))
            self._shapes = cython.cast(cython.p_longlong, _address(tables[1]))
            self._flag_key = cython.cast(cython.p_ulonglong, _address(tables[2]))
            self._flag_length = cython.cast(cython.p_longlong, _address(tables[3]))
            self._flag_bits = cython.cast(cython.p_longlong, _address(tables[4]))
        else:
            self._tasks, self._shapes = tables[:2]
            self._flag_key, self._flag_length, self._flag_bits = tables[2:]
        self._pool = Pool(COLUMNS, capacity)
        self._minus = b"\xff" * (4 * capacity)
        if cython.compiled:
            self._arena = cython.cast(cython.p_uchar, _address(arena))
        else:
            self._arena = bytearray(arena)
        self._arena_used = self._flags_used = 0
        self._nibbles = _NIBBLES
        self._renew()

    def take(self) -> tuple[dict[str, Any], int]:
        """The columns and how many of their rows are filled; new columns take their place."""
        taken = self._columns, self.rows
        self._renew()
        return taken

    def _renew(self) -> None:
        self.rows = 0
        made = self._columns = self._pool.take()
        for name in ("next_pid", "next_comm", "state"):
            made[name].cast("B")[:] = self._minus  # only switches write to them
        if cython.compiled:
            self._point(made)
        else:
            for name, column in made.items():
                setattr(self, f"_c_{name}", column)

    @cython.cfunc
    def _point(self, made: dict) -> cython.void:  # type: ignore[type-arg]
        self._c_line = cython.cast(cython.p_longlong, _address(made["line"]))
        self._c_time = cython.cast(cython.p_longlong, _address(made["time"]))
        self._c_cpu = cython.cast(cython.p_int, _address(made["cpu"]))
        self._c_pid = cython.cast(cython.p_int, _address(made["pid"]))
        self._c_comm = cython.cast(cython.p_int, _address(made["comm"]))
        self._c_kind = cython.cast(cython.p_uchar, _address(made["kind"]))
        self._c_function = cython.cast(cython.p_uchar, _address(made["function"]))
        self._c_argument = cython.cast(cython.p_uchar, _address(made["argument"]))
        self._c_flags = cython.cast(cython.p_uint, _address(made["flags"]))
        self._c_value = cython.cast(cython.p_ulonglong, _address(made["value"]))
        self._c_prot = cython.cast(cython.p_ulonglong, _address(made["prot"]))
        self._c_km_type = cython.cast(cython.p_short, _address(made["km_type"]))
        self._c_caller = cython.cast(cython.p_int, _address(made["caller"]))
        self._c_next_pid = cython.cast(cython.p_int, _address(made["next_pid"]))
        self._c_next_comm = cython.cast(cython.p_int, _address(made["next_comm"]))
        self._c_state = cython.cast(cython.p_int, _address(made["state"]))

    # -- reading --------------------------------------------------------------------------

    def run(self, data: bytes, at: int) -> int:
        """Read the lines of *data* from *at* on: DONE, FULL or ODD says why it stopped."""
        p: cython.p_uchar = data
        size: cython.Py_ssize_t = len(data)
        start: cython.Py_ssize_t = at
        end: cython.Py_ssize_t
        self._p = p
        while self.rows < self._capacity:
            end = _find_byte(p, 10, start, size)
            if end < 0:
                self.at = start
                return DONE
            self.line += 1
            if not self._read(start, end):
                self.start, self.end, self.at = start, end, end + 1
                return ODD
            start = end + 1
        self.at = start
        return FULL

    @cython.cfunc
    @cython.exceptval(check=False)
    def _read(self, at: cython.Py_ssize_t, stop: cython.Py_ssize_t) -> cython.bint:
        """Read one line; every function of these says 0 or False where it cannot."""
        p: cython.p_uchar = self._p
        self.unknown = False
        while stop > at and p[stop - 1] == 13:
            stop -= 1
        if stop - at < 4 or stop - at > LONGEST:
            return False
        self._stop = stop
        if p[at] == 32 and p[at + 1] == 61:
            return self._stack_entry(at)
        at = self._who(at)
        if at:
            at = self._where(at)
            if at:
                at = self._when(at)
                if at:
                    return self._what(at)
        return False

    @cython.cfunc
    @cython.exceptval(check=False)
    def _stack_entry(self, at: cython.Py_ssize_t) -> cython.bint:
        """``" => FUNCTION"``: without a colon it can be nothing else."""
        p: cython.p_uchar = self._p
        if p[at + 2] != 62 or p[at + 3] != 32 or _find_byte(p, 58, at, self._stop) >= 0:
            return False
        self.passed += 1
        return True

    @cython.cfunc
    @cython.exceptval(check=False)
    def _who(self, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Find the task; where the CPU's bracket is, 0 if it is not known."""
        p: cython.p_uchar = self._p
        stop: cython.Py_ssize_t = self._stop
        tasks: cython.p_longlong = self._tasks
        task: cython.longlong = self._task
        length: cython.Py_ssize_t = tasks[task + LENGTH]
        if (
            task
            and at + length < stop
            and p[at + length] == 91
            and _same(p, at, self._arena, tasks[task + KEY], length)
        ):
            return at + length
        return self._another(at)

    @cython.cfunc
    @cython.exceptval(check=False)
    def _another(self, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
        p: cython.p_uchar = self._p
        stop: cython.Py_ssize_t = min(self._stop, at + WHO_MAX)
        found: cython.longlong
        i: cython.Py_ssize_t = at
        while True:
            i = _find_byte(p, 91, i, stop)
            if i < 0:
                self.unknown = True
                return 0
            if i - at >= 8:
                found = self._find(self._tasks, p, at, i - at)
                if found:
                    self._task = found
                    return i
            i += 1

    @cython.cfunc
    @cython.exceptval(check=False)
    def _find(
        self,
        table: cython.p_longlong,
        p: cython.p_uchar,
        at: cython.Py_ssize_t,
        length: cython.Py_ssize_t,
    ) -> cython.longlong:
        """The row of these bytes, 0 if there is none; then ``_free`` is the row to give them."""
        key: cython.longlong = cython.cast(cython.longlong, _hash(p, at, length))
        row: cython.longlong = ((key >> 48) & MASK) * LANES + LANES
        i: cython.int
        self._free = row  # one that is taken, where there is no free one near
        for i in range(PROBES):  # noqa: B007 - typed, as it has to be
            if table[row + HASH] == 0:
                self._free = row
                return 0
            if (
                table[row + HASH] == key
                and table[row + LENGTH] == length
                and _same(p, at, self._arena, table[row + KEY], length)
            ):
                return row
            row = (row & MASK * LANES) + LANES
        return 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def _where(self, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """CPU and flags; where the time begins, 0 if these are none or not known."""
        p: cython.p_uchar = self._p
        stop: cython.Py_ssize_t = self._stop
        first: cython.Py_ssize_t = at + 1
        cpu: cython.longlong = 0
        at += 1
        while at < first + 5 and 48 <= p[at] <= 57:
            cpu = cpu * 10 + (p[at] - 48)
            at += 1
        if at == first or p[at] != 93 or p[at + 1] != 32:
            return 0
        self._cpu = cpu
        at = _spaces(p, at + 1, stop)
        if stop - at < 16:
            return 0
        first = 4
        while p[at + first] != 32:
            first += 1
            if first > 8:
                self._flags = 0  # no such column
                return at
        word: cython.ulonglong = _letters(p, at, first)
        slot: cython.ulonglong = _flag_slot(word)
        while self._flag_key[slot] != word or self._flag_length[slot] != first:
            if self._flag_length[slot] == 0:
                self.unknown = True
                return 0
            slot = (slot + 1) & FLAG_MASK
        self._flags = self._flag_bits[slot]
        return _spaces(p, at + first, stop)

    @cython.cfunc
    @cython.exceptval(check=False)
    def _when(self, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Seconds and their fraction; where the event begins, 0 if these are none."""
        p: cython.p_uchar = self._p
        stop: cython.Py_ssize_t = self._stop
        first: cython.Py_ssize_t = at
        second: cython.longlong = 0
        part: cython.longlong = 0
        while at < first + 9 and 48 <= p[at] <= 57:
            second = second * 10 + (p[at] - 48)
            at += 1
        if at == first or p[at] != 46 or stop - at < 12:
            return 0
        at += 1
        part = _three(p, at) * 1000000 + _three(p, at + 3) * 1000
        at += 6
        if p[at] != 58:
            part += _three(p, at)
            at += 3
        # A digit that is none has made it negative.
        if part < 0 or p[at] != 58 or p[at + 1] != 32:
            return 0
        self._now = second * 1000000000 + part
        return _spaces(p, at + 1, stop)

    @cython.cfunc
    @cython.exceptval(check=False)
    def _what(self, at: cython.Py_ssize_t) -> cython.bint:
        """The event, first guessed from what the task did before."""
        p: cython.p_uchar = self._p
        stop: cython.Py_ssize_t = self._stop
        shapes: cython.p_longlong = self._shapes
        last: cython.longlong = self._tasks[self._task + LAST]
        guess: cython.longlong = shapes[last + LAST]
        length: cython.Py_ssize_t = shapes[guess + LENGTH]
        if (
            shapes[guess + SORT] != CALL
            or at + length >= stop
            or not _same(p, at, self._arena, shapes[guess + KEY], length)
        ):
            guess = self._find_call(at)
            if guess == 0:
                return self._no_call(at)
            length = shapes[guess + LENGTH]
            if last:
                shapes[last + LAST] = guess
        self._tasks[self._task + LAST] = guess
        return self._call(at + length, guess)

    @cython.cfunc
    @cython.exceptval(check=False)
    def _find_call(self, at: cython.Py_ssize_t) -> cython.longlong:
        """The row of a call's head, which ends with the first ``=`` after its place."""
        p: cython.p_uchar = self._p
        stop: cython.Py_ssize_t = self._stop
        found: cython.longlong
        end: cython.Py_ssize_t = _find_byte(p, 41, at, stop)
        if end < 0:
            return 0
        end = _find_byte(p, 61, end, stop)
        if end - at < 8:
            return 0
        found = self._find(self._shapes, p, at, end + 1 - at)
        return found if found and self._shapes[found + SORT] == CALL else 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def _call(self, at: cython.Py_ssize_t, shape: cython.longlong) -> cython.bint:
        """A call whose head is that of *shape* and whose value begins at *at*."""
        p: cython.p_uchar = self._p
        stop: cython.Py_ssize_t = self._stop
        row: cython.p_longlong = self._shapes
        value: cython.ulonglong
        if stop - at < 3 or p[at] != 48 or p[at + 1] != 120:
            return False
        at = self._hexadecimal(at + 2)
        value = self._number
        self._number = 0
        if at != stop:
            if (
                at == 0
                or stop - at <= row[shape + PROT_LENGTH]
                or not _same(p, at, self._arena, row[shape + PROT], row[shape + PROT_LENGTH])
            ):
                return False
            if self._hexadecimal(at + row[shape + PROT_LENGTH]) != stop:
                return False
        self._comm = self._tasks[self._task + COMM]
        if self._comm == NO_COMM:
            self.unknown = True
            return False
        self._add(value, shape)
        return True

    @cython.cfunc
    @cython.exceptval(check=False)
    def _hexadecimal(self, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Read up to 16 digits into ``_number``; where they end, 0 if there are none."""
        p: cython.p_uchar = self._p
        stop: cython.Py_ssize_t = min(self._stop, at + 16)
        first: cython.Py_ssize_t = at
        number: cython.ulonglong = 0
        nibbles: cython.p_uchar = self._nibbles
        while at < stop and nibbles[p[at]] < 16:
            number = (number << 4) | nibbles[p[at]]
            at += 1
        self._number = number
        return at if at > first else 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def _add(self, value: cython.ulonglong, shape: cython.longlong) -> cython.void:
        """Write one row of the columns."""
        at: cython.Py_ssize_t = self.rows
        row: cython.p_longlong = self._shapes
        self.rows = at + 1
        self.time = self._now
        self._c_line[at] = self.line
        self._c_time[at] = self._now
        self._c_value[at] = value
        self._c_prot[at] = self._number
        self._c_cpu[at] = self._cpu
        self._c_pid[at] = self._tasks[self._task + PID]
        self._c_comm[at] = self._comm
        self._c_flags[at] = self._flags
        self._c_caller[at] = row[shape + CALLER]
        self._c_km_type[at] = row[shape + KM_TYPE]
        self._c_kind[at] = row[shape + KIND]
        self._c_function[at] = row[shape + FUNCTION]
        self._c_argument[at] = row[shape + ARGUMENT]

    @cython.cfunc
    @cython.exceptval(check=False)
    def _no_call(self, at: cython.Py_ssize_t) -> cython.bint:
        """A switch, or an event of no interest: its name, a colon and a space are known."""
        p: cython.p_uchar = self._p
        stop: cython.Py_ssize_t = self._stop
        end: cython.Py_ssize_t = _find_byte(p, 32, at, stop)
        found: cython.longlong
        self.unknown = True
        if end >= 0 and p[at] != 60:
            if p[at] == 115 and end - at == 13 and p[at + 6] == 115 and p[end - 1] == 58:
                return self._switch(at)
            stop = end + 1
        # "<stack trace>" is the one rest of a line that is known as a whole.
        if stop - at < 8:
            return False
        found = self._find(self._shapes, p, at, stop - at)
        if found == 0 or self._shapes[found + SORT] != NAME:
            return False
        self.passed += 1
        return True

    @cython.cfunc
    @cython.exceptval(check=False)
    def _switch(self, at: cython.Py_ssize_t) -> cython.bint:
        """A sched_switch, in two parts or, as trace-cmd prints it, as a whole."""
        p: cython.p_uchar = self._p
        stop: cython.Py_ssize_t = self._stop
        row: cython.p_longlong = self._shapes
        leave: cython.longlong
        come: cython.longlong
        middle: cython.Py_ssize_t = at
        while True:
            middle = _find_byte(p, 62, middle + 1, stop)
            if middle < 0:
                return False
            if p[middle - 1] == 61 and p[middle - 2] == 61:
                break
        leave = self._find(row, p, at, middle + 2 - at) if middle + 2 <= stop else 0
        if leave and row[leave + SORT] == LEAVE and stop - middle - 2 >= 8:
            come = self._find(row, p, middle + 2, stop - middle - 2)
            if come == 0 or row[come + SORT] != COME:
                return False
        else:
            leave = come = self._find(row, p, at, stop - at)
            if leave == 0 or row[leave + SORT] != WHOLE:
                return False
        if (
            row[leave + PID] != self._tasks[self._task + PID]
            or self._tasks[self._task + COMM] == NO_COMM
        ):
            return False
        at = self.rows
        self._number = 0
        self._comm = row[leave + COMM]
        self._c_state[at] = row[leave + STATE]
        self._c_next_comm[at] = row[come + NEXT_COMM]
        self._c_next_pid[at] = row[come + NEXT_PID]
        self._add(0, 0)
        self._c_kind[at] = SWITCH
        self._c_caller[at] = -1
        self._c_km_type[at] = -1
        return True

    # -- being taught ---------------------------------------------------------------------

    def learn_task(self, key: bytes, comm: int, pid: int) -> None:
        """Lines that begin with *key* and then ``[`` are of this task."""
        row: cython.longlong = self._claim(self._tasks, key, b"")
        if row and (comm != UNTOLD or self._tasks[row + SORT] == 0):
            self.news = self.news or self._tasks[row + COMM] != comm
            self._tasks[row + SORT] = TASK
            self._tasks[row + COMM] = comm
            self._tasks[row + PID] = pid

    def learn_flags(self, text: bytes, bits: int) -> None:
        """The 4 to 8 letters *text* stand for *bits*."""
        p: cython.p_uchar = text
        word: cython.ulonglong = _letters(p, 0, len(text))
        slot: cython.ulonglong = _flag_slot(word)
        if self._flags_used * 2 > _FLAG_SLOTS:
            self.forget_flags()
        while self._flag_length[slot] and (
            self._flag_key[slot] != word or self._flag_length[slot] != len(text)
        ):
            slot = (slot + 1) & FLAG_MASK
        if self._flag_length[slot] == 0:
            self.news = True
            self._flags_used += 1
        self._flag_key[slot] = word
        self._flag_length[slot] = len(text)
        self._flag_bits[slot] = bits

    def forget_flags(self) -> None:
        """Flags mean something else from now on."""
        i: cython.int
        for i in range(_FLAG_SLOTS):
            self._flag_length[i] = 0
        self._flags_used = 0

    def learn(self, sort: str, key: bytes, values: Sequence[int] = (), prot: bytes = b"") -> None:
        """*key* is of that *sort* (see the module), and *values* are what it stands for.

        For a call kind, function, argument, caller and km_type, and *prot* is the name of the
        field with the protection bits; for the parts of a switch ("leave", "come", "whole")
        comm, pid, state, next comm and next pid; for a name nothing.
        """
        more = b" " + prot + b"=0x" if prot else b""
        row: cython.longlong = self._claim(self._shapes, key, more)
        lane: cython.longlong = row + COMM
        if row:
            self._shapes[row + SORT] = _SORTS[sort]
            for value in values:
                self._shapes[lane] = value
                lane += 1
            self._shapes[row + PROT] = self._shapes[row + KEY] + len(key)
            self._shapes[row + PROT_LENGTH] = len(more)

    @cython.cfunc
    def _claim(self, table: cython.p_longlong, key: bytes, more: bytes) -> cython.longlong:
        """The row of *key*, a new one if it has none; 0 if it cannot have one."""
        length: cython.Py_ssize_t = len(key)
        if not _KEY_MIN <= length <= _KEY_MAX:
            return 0
        whole = key + more
        p: cython.p_uchar = whole
        row: cython.longlong = self._find(table, p, 0, length)
        if row:
            return row
        self.news = True
        if self._arena_used + len(whole) > _ARENA:
            self.forget()
            self._find(table, p, 0, length)
        row = self._free
        i: cython.Py_ssize_t
        for i in range(LANES):
            table[row + i] = 0
        for i in range(len(whole)):
            self._arena[self._arena_used + i] = p[i]
        table[row + HASH] = cython.cast(cython.longlong, _hash(p, 0, length))
        table[row + KEY] = self._arena_used
        table[row + LENGTH] = length
        self._arena_used += len(whole)
        return row

    def forget(self) -> None:
        """Everything but the flags."""
        i: cython.Py_ssize_t
        for i in range((_SLOTS + 1) * 16):
            self._tasks[i] = 0
            self._shapes[i] = 0
        self._arena_used = 0
        self._task = 0

    def put(
        self, line: int, time: int, task: Sequence[int], shape: Sequence[int], value: int, prot: int
    ) -> None:
        """Add an event that somebody else read; *task* and *shape* as in columns.py."""
        comm, pid, cpu, flags = task
        kind, function, argument, caller, km_type, next_pid, next_comm, state, prev_comm = shape
        comm = comm if prev_comm < 0 else prev_comm
        row = (line, time, cpu, pid, comm, kind, function, argument, flags, value, prot, km_type)
        rest = (caller, next_pid, next_comm, state)
        for column, number in zip(self._columns.values(), row + rest, strict=True):
            column[self.rows] = number
        self.rows += 1
        self.time = time


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _spaces(p: cython.p_uchar, at: cython.Py_ssize_t, stop: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Where what is not a space begins."""
    while at < stop and p[at] == 32:
        at += 1
    return at


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _three(p: cython.p_uchar, at: cython.Py_ssize_t) -> cython.longlong:
    """The number of three digits, far below zero if one of them is none."""
    a: cython.int = p[at] - 48
    b: cython.int = p[at + 1] - 48
    c: cython.int = p[at + 2] - 48
    if 0 <= a <= 9 and 0 <= b <= 9 and 0 <= c <= 9:
        return a * 100 + b * 10 + c
    return -1000000000000


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _letters(
    p: cython.p_uchar, at: cython.Py_ssize_t, length: cython.Py_ssize_t
) -> cython.ulonglong:
    """At most 8 bytes as a number."""
    word: cython.ulonglong = 0
    i: cython.Py_ssize_t
    for i in range(length):
        word = (word << 8) | p[at + i]
    return word


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _flag_slot(word: cython.ulonglong) -> cython.ulonglong:
    return ((word * MIX) >> 40) & FLAG_MASK
