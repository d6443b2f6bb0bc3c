"""What a trace.dat holds besides its events: the parts that versions 6 and 7 share."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .printable import printable
from .ringbuffer import Clock, Stream
from .tracedat_file import BrokenError, Cursor

__all__ = ["MAGIC", "MAX_CPUS", "Parts", "event_formats", "ftrace_formats", "header_files"]

MAGIC = b"\x17\x08\x44tracing"
MAX_CPUS = 8192
"""NR_CPUS of the largest kernels."""
_FORMAT_LIMIT = 1 << 20
_OFFSET_LIMIT = 1 << 61  # times are below 1 << 62, so that their sum fits 63 bits
_NANOSECONDS = (b"local", b"global", b"mono", b"mono_raw", b"boot", b"tai", b"perf", b"uptime")

# Options, by number (trace-cmd.dat(5)).
_DATE = 1
_CPUSTAT = 2
_TRACECLOCK = 4
_UNAME = 5
_OFFSET = 7
_TIME_SHIFT = 12
_TSC2NSEC = 14


@dataclass(slots=True, eq=False, repr=False)
class Parts:
    """What a header says, as it is read."""

    order: str
    page_size: int
    header_page: bytes = b""
    header_event: bytes = b""
    formats: list[tuple[str, bytes]] = field(default_factory=list)
    kallsyms: Callable[[], bytes] = bytes
    cmdlines: bytes = b""
    uname: bytes = b""
    clock_name: bytes = b""
    mult: int = 0
    shift: int = 0
    offset: int = 0
    streams: list[Stream] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def clock(self) -> Clock:
        """How times become nanoseconds."""
        return Clock(self.mult, self.shift, self.offset)

    def number(self, data: bytes) -> int:
        """The unsigned number that *data* is."""
        return int.from_bytes(data, "big" if self.order == "big" else "little")

    def option(self, number: int, data: bytes) -> None:
        """Take in an option that both versions have."""
        if number in (_DATE, _OFFSET):
            self._add_offset(data, 1000 if number == _DATE else 1)
        elif number == _CPUSTAT:
            self._statistics(data)
        elif number == _UNAME:
            self.uname = data.strip(b"\0")
        elif number == _TRACECLOCK and data:
            chosen = re.search(rb"\[([^\[\]]{1,40})\]", data[:4096])
            self.clock_name = self.clock_name or (chosen[1] if chosen else b"")
        elif number == _TIME_SHIFT:
            self.notes.append("times of this guest are not shifted to those of its host")
        elif number == _TSC2NSEC and len(data) >= 16:
            mult, shift = (self.number(data[at : at + 4]) for at in (0, 4))
            if mult and shift < 64:
                self.mult, self.shift = mult, shift

    def _add_offset(self, data: bytes, unit: int) -> None:
        text = data.split(b"\0")[0].strip()
        try:
            offset = int(text, 16 if text.lower().lstrip(b"-+").startswith(b"0x") else 10) * unit
        except ValueError:
            offset = 0
        if abs(self.offset + offset) < _OFFSET_LIMIT:
            self.offset += offset

    def _statistics(self, data: bytes) -> None:
        """Note what the kernel counted as lost: its buffer says so only in part."""
        lines = dict(line.split(b":", 1) for line in data[:4096].split(b"\n") if b":" in line)
        cpu = lines.get(b"CPU", b"?").strip()
        for name, what in (
            (b"overrun", "were overwritten before they were read"),
            (b"dropped events", "were dropped for want of room"),
        ):
            count = lines.get(name, b"0").strip()
            if count.isdigit() and len(count) < 19 and int(count):
                self.notes.append(f"cpu {printable(cpu, 10)}: {int(count)} events {what}")

    def add_data(self, used: list[tuple[int, int]], cpu: int, at: int, size: int) -> None:
        """Hold the data of *cpu* against what is *used* already: no byte is of two CPUs.

        Without this a small file could claim to hold any number of events.
        """
        if cpu >= MAX_CPUS:
            raise BrokenError(f"it has data of a cpu {cpu}")
        place = bisect.bisect(used, (at, size))
        before = place > 0 and sum(used[place - 1]) > at
        if before or (place < len(used) and used[place][0] < at + size):
            raise BrokenError(f"the data of cpu {cpu} is that of another one too")
        used.insert(place, (at, size))

    def judge_clock(self) -> None:
        """Note a clock whose times are no nanoseconds."""
        if self.clock_name and self.clock_name not in _NANOSECONDS and not self.mult:
            self.notes.append(
                f"times are counts of the clock {printable(self.clock_name, 40)}, not nanoseconds"
            )


def header_files(cursor: Cursor, parts: Parts) -> None:
    """``header_page`` and ``header_event``; raises BrokenError."""
    for name in (b"header_page\0", b"header_event\0"):
        if cursor.take(len(name)) != name:
            raise BrokenError(f"{name[:-1].decode()} is not where it should be")
        text = cursor.sized(8, _FORMAT_LIMIT)
        if name == b"header_page\0":
            parts.header_page = text
        else:
            parts.header_event = text


def ftrace_formats(cursor: Cursor) -> Iterator[tuple[str, bytes]]:
    """The formats of ftrace's own events; raises BrokenError."""
    for _ in range(cursor.number(4)):
        yield "ftrace", cursor.sized(8, _FORMAT_LIMIT)


def event_formats(cursor: Cursor) -> Iterator[tuple[str, bytes]]:
    """The formats of all other events with their systems; raises BrokenError."""
    for _ in range(cursor.number(4)):
        system = cursor.string().decode("utf-8", "backslashreplace")
        for _ in range(cursor.number(4)):
            yield system, cursor.sized(8, _FORMAT_LIMIT)
