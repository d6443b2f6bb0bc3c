"""Version 6 of trace.dat: its parts one after the other, nothing compressed."""

from __future__ import annotations

from .tracedat_file import BrokenError, Cursor, RawPages
from .tracedat_parts import MAX_CPUS, Parts, event_formats, ftrace_formats, header_files

__all__ = ["read_v6"]

_SECTION_LIMIT = 1 << 26
_OPTIONS = b"options  \0"
_LATENCY = b"latency  \0"
_FLYRECORD = b"flyrecord\0"
_BUFFER = 3
_TRACECLOCK = 4
_CPUCOUNT = 8
_BUFFERS_LIMIT = 1024


def read_v6(cursor: Cursor, parts: Parts) -> None:
    """Read all that stands behind the page size into *parts*; raises BrokenError."""
    header_files(cursor, parts)
    parts.formats += ftrace_formats(cursor)
    parts.formats += event_formats(cursor)
    _kallsyms(cursor, parts)
    cursor.skip(cursor.number(4))  # formats of trace_printk
    parts.cmdlines = cursor.sized(8)
    cpus = cursor.number(4)
    has_clock, cpus, buffers = _options(cursor, parts, cpus)
    used: list[tuple[int, int]] = []
    _data(cursor, parts, cpus, used)
    if has_clock:
        # An old trace-cmd wrote this part wrong; its time then is that of its own clock.
        try:
            parts.option(_TRACECLOCK, cursor.sized(8, 4096))
        except BrokenError:
            parts.notes.append("the name of the trace clock cannot be read")
    for name, offset in buffers:
        inner = Cursor(cursor.region, offset, cursor.end, parts.order)
        try:
            _, cpus, _ = _options(inner, parts, cpus)
            _data(inner, parts, cpus, used)
        except BrokenError as error:
            shown = name[:40].decode("utf-8", "replace")
            parts.notes.append(f"the buffer {shown!a} cannot be read: {error}")


def _kallsyms(cursor: Cursor, parts: Parts) -> None:
    size = cursor.number(4)
    at = cursor.skip(size)
    region = cursor.region
    if size <= _SECTION_LIMIT:
        parts.kallsyms = lambda: region.read(at, size)
    else:
        parts.notes.append("kallsyms is too long to be read: callers stay numbers")


def _options(cursor: Cursor, parts: Parts, cpus: int) -> tuple[bool, int, list[tuple[bytes, int]]]:
    """The options up to the tables of data: clock, number of CPUs, other buffers."""
    clock = False
    buffers: list[tuple[bytes, int]] = []
    tag = cursor.take(len(_OPTIONS))
    if tag == _OPTIONS:
        while (number := cursor.number(2)) != 0:
            data = cursor.sized(4)
            if number == _CPUCOUNT and len(data) >= 4:
                cpus = parts.number(data[:4])
            elif number == _BUFFER and len(data) >= 8 and len(buffers) < _BUFFERS_LIMIT:
                offset = parts.number(data[:8])
                buffers.append((data[8:].split(b"\0")[0], offset))
            elif number == _TRACECLOCK:
                clock = True
            else:
                parts.option(number, data)
        tag = cursor.take(len(_OPTIONS))
    if tag == _LATENCY:
        raise BrokenError("it is a latency recording, text; read it with `trace-cmd report`")
    if tag != _FLYRECORD:
        raise BrokenError("its tables of data are not where they should be")
    if cpus > MAX_CPUS:
        raise BrokenError(f"it is of {cpus} CPUs")
    return clock, cpus, buffers


def _data(cursor: Cursor, parts: Parts, cpus: int, used: list[tuple[int, int]]) -> None:
    """The table of where the data of each CPU lies."""
    for cpu in range(cpus):
        at, size = cursor.number(8), cursor.number(8)
        if size:
            parts.add_data(used, cpu, at, size)
            parts.streams.append(RawPages(cursor.region, cpu, at, size))
