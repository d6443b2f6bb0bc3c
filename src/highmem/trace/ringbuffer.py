"""A recording made of ring buffers: what its records mean, and the loop that reads them.

The container (a trace.dat, a folder of raw files) gives a :class:`RingRecording`: the layout
of sub-buffers, the formats of events, one stream of bytes for each CPU.  :class:`RingSource`
makes batches of it; the work on each record is done in :mod:`highmem.trace._ring`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from highmem.compiled import load
from highmem.errors import InputError, UsageError

from .buffers import Pool, sparse, zeros
from .eventformat import EventFormat, Field, PageLayout, event_head, parse_format, state_namer
from .printable import printable
from .probes import DEFAULT_PROBES, Probe, ProbeTable
from .schema import (
    BATCH_LENGTH,
    COLUMNS,
    FLAG_HARDIRQ,
    FLAG_IRQS_OFF,
    FLAG_KNOWN,
    FLAG_MIGRATE_KNOWN,
    FLAG_NEED_RESCHED,
    FLAG_NMI,
    FLAG_SOFTIRQ,
    MIGRATE_SHIFT,
    PREEMPT_SHIFT,
    Account,
    Argument,
    Batch,
    Kind,
    Rejection,
    Strings,
)
from .symbols import Symbols

if TYPE_CHECKING:
    from ._ring import PIDS, PLAN_ROW, REASONS, Ring
else:
    _ring = load("highmem.trace._ring")
    PIDS, PLAN_ROW, REASONS, Ring = _ring.PIDS, _ring.PLAN_ROW, _ring.REASONS, _ring.Ring

__all__ = ["MAX_PAGE", "Clock", "RingRecording", "RingSource", "Stream", "kernel_release"]

MAX_PAGE = 1 << 22
"""The largest sub-buffer that is read, in bytes; kernels make them of 1024 pages at most."""
_SLOT = 1 << 16  # bytes of a stream in memory, if there are few streams
_MEMORY = 1 << 25  # of all streams together, if sub-buffers allow it
_MOST_MEMORY = 1 << 28  # and in any case
_STRINGS_LIMIT = 1 << 18  # callers and names that are kept; the kernel has fewer functions
_TASKS_LIMIT = 1 << 18
_NOTES_LIMIT = 20
_EVENTS = 1 << 16
_NUMBER_SIZES = (1, 2, 4, 8)
_TIME_LIMIT = (1 << 62) - 1

# The ``common_flags`` of a record (include/linux/trace_events.h, enum trace_flag_type).
_TRACE_IRQS_OFF = 0x01
_TRACE_RESCHED_LAZY = 0x02  # since 6.13; before: IRQS_NOSUPPORT, which x86 never sets
_TRACE_RESCHED = 0x04
_TRACE_HARDIRQ = 0x08
_TRACE_SOFTIRQ = 0x10
_TRACE_PREEMPT_RESCHED = 0x20
_TRACE_NMI = 0x40
_MIGRATE_SINCE = (5, 15)
"""From here on the upper half of ``common_preempt_count`` is the migrate-disable depth."""
_LAZY_SINCE = (6, 13)


class Stream(Protocol):
    """The sub-buffers of one CPU."""

    cpu: int
    problem: str
    """Why the bytes broke off, in one sentence; empty if they did not."""
    gap: bool
    """Bytes are missing before those that the last :meth:`read` gave."""

    def read(self, size: int) -> bytes:
        """The next bytes, whole sub-buffers and at most *size*; another number of bytes only where
        it breaks off, none at the end."""


class Clock(NamedTuple):
    """How the times of records become nanoseconds: ``(time * mult >> shift) + offset``."""

    mult: int = 0
    """0: times are nanoseconds already."""
    shift: int = 0
    offset: int = 0

    def apply(self, batch: Batch) -> None:
        """Convert the ``time`` column of *batch* in place."""
        if self.mult:
            import numpy as np  # here: few recordings need it, see buffers.py

            # 64 by 32 bits: as two products, for NumPy has no 96-bit numbers.
            time = batch.time.astype(np.uint64)
            mult, low = np.uint64(self.mult), np.uint64(0xFFFFFFFF)
            high_part = (time >> np.uint64(32)) * mult
            low_part = (time & low) * mult
            if self.shift <= 32:
                high_part <<= np.uint64(32 - self.shift)
            else:
                high_part >>= np.uint64(self.shift - 32)
            total = (low_part >> np.uint64(self.shift)) + high_part
            batch.time[:] = np.minimum(total, np.uint64(_TIME_LIMIT)).astype(np.int64)
        if self.offset:
            nanoseconds = batch.time
            nanoseconds += self.offset


@dataclass(slots=True, eq=False, repr=False)
class RingRecording:
    """Everything that a container says about its ring buffers."""

    name: str
    big_endian: bool
    page_size: int
    layout: PageLayout
    formats: Iterable[tuple[str, bytes]]
    """System and text of each event's format."""
    streams: list[Stream]
    kallsyms: Callable[[], bytes] = bytes
    cmdlines: bytes = b""
    """Lines of a pid and its task's name."""
    uname: bytes = b""
    """What ``uname -a`` or ``-r`` says on the machine, in part or in whole; b"" if not known."""
    clock: Clock = field(default_factory=Clock)
    notes: list[str] = field(default_factory=list)
    close: Callable[[], None] = lambda: None


def kernel_release(uname: bytes) -> str:
    """The release in *uname*, printable; nothing if there is none.

    It is the third word, behind the system's and the host's name, or all that there is.
    """
    words = uname[:400].split()
    found = words[2:3] if words[:1] == [b"Linux"] else words[:1]
    match = re.match(rb"[0-9]{1,2}\.[0-9]{1,3}(?![0-9])\S{0,80}", found[0]) if found else None
    return printable(match[0]) if match else ""


def kernel_version(release: str) -> tuple[int, int]:
    """Major and minor of *release*, zeros if it is empty."""
    numbers = re.findall("[0-9]+", release)
    return (int(numbers[0]), int(numbers[1])) if release else (0, 0)


class RingSource:
    """The events of *recording*; iterate to get batches, once."""

    def __init__(self, recording: RingRecording, form: str, probes: ProbeTable | None) -> None:
        self.name = recording.name
        self.format = form
        release = kernel_release(recording.uname)
        self.account = Account(notes=recording.notes, release=release)
        self.strings = Strings()
        self._recording = recording
        self._probes = probes if probes is not None else DEFAULT_PROBES
        self._begun = False
        self._full = False
        self._symbols = Symbols(recording.kallsyms)
        self._state = state_namer(b"")
        self._events: dict[int, str] = {}
        self._layout: dict[str, int] = {}
        self._plan_of = memoryview(bytearray(b"\xff" * (4 * _EVENTS))).cast("i")
        self._plans: list[list[int]] = [[0] * PLAN_ROW]
        self._check_memory()
        self._plan()

    def close(self) -> None:
        """Let go of the input; for a reader that is not read to its end."""
        self._recording.close()

    def __iter__(self) -> Iterator[Batch]:
        if self._begun:
            raise UsageError(f"{self.name}: a recording can be read only once")
        self._begun = True
        return self._batches()

    # -- reading -----------------------------------------------------------------------

    def _check_memory(self) -> None:
        page, count = self._recording.page_size, len(self._recording.streams)
        if not self._recording.layout.data_at < page <= MAX_PAGE:
            raise InputError(self.name, f"its sub-buffers would be {page} bytes long")
        if page * count > _MOST_MEMORY:
            raise InputError(self.name, f"{count} CPUs with sub-buffers of {page} bytes")
        room = min(_SLOT, _MEMORY // max(count, 1))
        self._slot = max(page, room // page * page)

    def _batches(self) -> Iterator[Batch]:
        try:
            ring, memory = self._ring()
            pool = Pool(COLUMNS, BATCH_LENGTH)
            for stream in range(len(self._recording.streams)):
                self._feed(ring, memory, stream)
            more = True
            while more:
                columns = pool.take()
                ring.into(SimpleNamespace(**columns))
                rows, more = self._fill(ring, memory)
                batch = Batch(**columns, strings=self.strings)
                if rows:
                    batch = batch.head(rows)
                    self._recording.clock.apply(batch)
                    self._count(ring, rows)
                    yield batch
            self._count(ring, 0)
            self._reject(ring)
        finally:
            self._recording.close()

    def _ring(self) -> tuple[Ring, memoryview]:
        recording = self._recording
        memory = sparse(self._slot * max(len(recording.streams), 1), "uint8")
        layout = {
            "big": int(recording.big_endian),
            "page_size": recording.page_size,
            "time_at": recording.layout.time_at,
            "commit_at": recording.layout.commit_at,
            "commit_size": recording.layout.commit_size,
            "data_at": recording.layout.data_at,
            **self._layout,
        }
        ring = Ring(memory, [stream.cpu for stream in recording.streams], layout)
        plans = memoryview(array("q", [number for plan in self._plans for number in plan]))
        ring.explain(self._plan_of, plans, _bits(kernel_version(self.account.release)))
        unknown = self.strings.number("<...>")
        ring.name(self._caller, self._state_number, self._comm, self._tasks(), unknown)
        return ring, memory

    def _fill(self, ring: Ring, memory: memoryview) -> tuple[int, bool]:
        """Fill a batch: its rows, and whether there may be more."""
        rows = 0
        while True:
            rows = ring.fill(rows, BATCH_LENGTH)
            stream = ring.hungry()
            if stream < 0:
                return rows, rows >= BATCH_LENGTH - 1
            self._feed(ring, memory, stream)

    def _feed(self, ring: Ring, memory: memoryview, number: int) -> None:
        """Give a stream bytes until it has a record or ends."""
        stream = self._recording.streams[number]
        base = number * self._slot
        while True:
            data = stream.read(self._slot)
            if stream.gap:
                stream.gap = False
                ring.gap(number)
            memory[base : base + len(data)] = data
            if stream.problem:
                self.account.truncated = True
                self._note(f"cpu {stream.cpu}: {stream.problem}")
                stream.problem = ""
            elif len(data) % self._recording.page_size:
                self.account.truncated = True
                self._note(f"cpu {stream.cpu}: its data ends inside a sub-buffer")
            if ring.feed(number, base, base + len(data)):
                return

    def _count(self, ring: Ring, rows: int) -> None:
        account = self.account
        account.events += rows
        account.lines, account.passed_over, account.rejected, account.lost = ring.counts()

    def _reject(self, ring: Ring) -> None:
        for line, reason, stream, event in ring.rejections():
            text = f"cpu {self._recording.streams[stream].cpu}"
            if event >= 0:
                text += f", event {event} {self._events.get(event, '')}".rstrip()
            self.account.rejections.append(Rejection(line, REASONS[reason], printable(text, 200)))

    def _note(self, text: str) -> None:
        if len(self.account.notes) < _NOTES_LIMIT:
            self.account.notes.append(text)

    # -- strings -----------------------------------------------------------------------

    def _text(self, text: str) -> int:
        if len(self.strings) >= _STRINGS_LIMIT:
            if not self._full:
                self._full = True
                self._note(f"more than {_STRINGS_LIMIT} names and callers: the rest is left out")
                self.strings.number("")
            return self.strings.number("")
        return self.strings.number(text)

    def _caller(self, address: int, _: int) -> int:
        return self._text(self._symbols.name(address))

    def _state_number(self, state: int, _: int) -> int:
        return self._text(self._state(state))

    def _comm(self, low: int, high: int) -> int:
        raw = (high << 64 | low).to_bytes(16, "little")
        return self._text(printable(raw.partition(b"\0")[0]))

    def _tasks(self) -> memoryview:
        """For each pid the number of its task's name plus one."""
        tasks = sparse(PIDS, "int32")
        tasks[0] = self.strings.number("<idle>") + 1
        for line in self._recording.cmdlines.split(b"\n", _TASKS_LIMIT)[:_TASKS_LIMIT]:
            pid, _, comm = line.strip(b"\0").partition(b" ")
            if pid.isdigit() and len(pid) <= 7 and 0 < int(pid) < PIDS and comm:
                tasks[int(pid)] = self._text(printable(comm[:15])) + 1
        return tasks

    # -- what records mean -------------------------------------------------------------

    def _plan(self) -> None:
        """Read the formats of those events that concern us, and the numbers of all."""
        described = False
        for system, text in self._recording.formats:
            head = event_head(text)
            if head is None or head[1] >= _EVENTS:
                continue
            name, number = head
            if self._plan_of[number] < 0:
                self._plan_of[number] = 0
            probe = self._probes.find(f"{system}:{name}" if system else name)
            switch = probe is None and name == "sched_switch"
            if described and probe is None and not switch:
                continue
            event = parse_format(text)
            if event is None:
                continue
            described = self._common(event) or described
            if probe is not None or switch:
                self._events[number] = name
                self._plan_of[number] = len(self._plans)
                self._plans.append(self._call(event, probe) if probe else self._switch(event))
        if not described:
            raise InputError(self.name, "no format of an event in it can be read")

    def _common(self, event: EventFormat) -> bool:
        """The fields that all events have; whether they are known now."""
        fields = event.fields
        kind, pid = fields.get("common_type"), fields.get("common_pid")
        if kind is None or pid is None or kind.size not in (1, 2, 4) or pid.size != 4:
            return False
        if self._layout:
            return True
        least = [kind, pid]
        places = {}
        for key, name in (
            ("flags_at", "common_flags"),
            ("depth_at", "common_preempt_count"),
            ("migrate_at", "common_migrate_disable"),
        ):
            one = fields.get(name)
            places[key] = one.offset if one is not None and one.size == 1 else -1
            if one is not None:
                least.append(one)
        size = max(one.end for one in least)
        if size > 64:
            return False
        self._layout = {
            "type_at": kind.offset,
            "type_size": kind.size,
            "pid_at": pid.offset,
            "head_size": size,
            **places,
        }
        return True

    def _call(self, event: EventFormat, probe: Probe) -> list[int]:
        """The plan for a probe's event."""
        fields = {n: f for n, f in event.fields.items() if not n.startswith("common_")}
        entry, back = "__probe_ip" in fields, "__probe_ret_ip" in fields
        caller = fields.get("__probe_ret_ip") if probe.kind is Kind.MAP_RETURN else None
        value, argument = None, Argument.NONE
        if probe.kind is not Kind.FLUSH:
            value = next((f for n, f in fields.items() if n in probe.fields and f.plain), None)
            if value is not None:
                argument = probe.fields[value.name]
            else:
                wanted = ", ".join(printable(one, 40) for one in probe.fields)
                self._note(
                    f"event {printable(event.name, 80)} has none of the fields {wanted}: "
                    f"that it was called is known, but not with what"
                )
        wrong = back if probe.kind is not Kind.MAP_RETURN else entry and not back
        row = [3 if wrong else 1, 0, probe.kind, probe.function, argument]
        used = [value, fields.get(probe.prot), fields.get(probe.km_type), caller]
        used = [one if one is not None and one.plain else None for one in used]
        for one in used:
            row += [one.offset, one.size] if one is not None else [-1, 0]
        return self._row(row, used)

    def _switch(self, event: EventFormat) -> list[int]:
        """The plan for sched_switch."""
        fields = event.fields
        names = ("prev_comm", "prev_pid", "prev_state", "next_comm", "next_pid")
        found = [fields.get(name) for name in names]
        prev_comm, prev_pid, state, next_comm, next_pid = found
        if (
            prev_comm is None
            or next_comm is None
            or prev_pid is None
            or next_pid is None
            or prev_pid.size != 4
            or next_pid.size != 4
        ):
            self._note("sched_switch does not name its tasks: context switches are not known")
            return [4] + [0] * (PLAN_ROW - 1)
        if state is not None and not state.plain:
            state = None
        self._state = state_namer(event.printed)
        row = [2, 0, Kind.SWITCH, 0, 0] + [-1, 0] * 4
        row += [prev_comm.offset, prev_comm.size, prev_pid.offset]
        row += [state.offset, state.size] if state is not None else [-1, 0]
        row += [next_comm.offset, next_comm.size, next_pid.offset]
        return self._row(row, [prev_comm, prev_pid, state, next_comm, next_pid])

    def _row(self, row: list[int], used: list[Field | None]) -> list[int]:
        # A format may name places beyond any record: then no record is long enough.
        ends = [one.end for one in used if one is not None]
        row[1] = max([self._layout.get("head_size", 0), *ends])
        return row + [0] * (PLAN_ROW - len(row))


def _bits(version: tuple[int, int]) -> tuple[memoryview, memoryview, memoryview]:
    """The ``flags`` column for each value of the flags, the depth, the migrate field."""
    flags, depth, migrate = (zeros(256, "uint32") for _ in range(3))
    resched = _TRACE_RESCHED | _TRACE_PREEMPT_RESCHED
    if version >= _LAZY_SINCE:
        resched |= _TRACE_RESCHED_LAZY
    for value in range(256):
        flags[value] = _flag_bits(value, resched)
        low, high = value & 15, value >> 4
        if (0, 0) < version < _MIGRATE_SINCE:
            depth[value] = value << PREEMPT_SHIFT
        else:
            depth[value] = low << PREEMPT_SHIFT | high << MIGRATE_SHIFT
            if high or version >= _MIGRATE_SINCE:
                depth[value] |= FLAG_MIGRATE_KNOWN
        migrate[value] = value << MIGRATE_SHIFT | FLAG_MIGRATE_KNOWN
    return flags, depth, migrate


def _flag_bits(value: int, resched: int) -> int:
    bits = FLAG_KNOWN
    if value & _TRACE_IRQS_OFF:
        bits |= FLAG_IRQS_OFF
    if value & resched:
        bits |= FLAG_NEED_RESCHED
    if value & _TRACE_HARDIRQ:
        bits |= FLAG_HARDIRQ
    if value & _TRACE_NMI:
        bits |= FLAG_NMI  # as the letters of the text: an NMI hides softirq
    elif value & _TRACE_SOFTIRQ:
        bits |= FLAG_SOFTIRQ
    return bits
