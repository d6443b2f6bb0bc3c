"""Reading trace.dat, the binary recordings of trace-cmd, versions 6 and 7.

Both begin with 17 08 44 "tracing", the version, the byte order, the size of a long and of a
page (trace-cmd.dat(5)).  What follows differs: version 6 is one sequence of parts, version 7
has sections that lie anywhere and are found by its options, and may be compressed.
"""

from __future__ import annotations

from highmem.errors import InputError

from .eventformat import page_layout
from .probes import ProbeTable
from .ringbuffer import RingRecording, RingSource
from .source import ByteSource
from .tracedat_file import BrokenError, Cursor, DatFile
from .tracedat_parts import MAGIC, Parts
from .tracedat_v6 import read_v6
from .tracedat_v7 import read_v7

__all__ = ["TraceDat", "is_trace_dat"]


def is_trace_dat(head: bytes) -> bool:
    """Whether a file that begins with *head* is a trace.dat."""
    return head.startswith(MAGIC)


class TraceDat(RingSource):
    """The events of the trace.dat *path*, of which *source* has the bytes.

    ``line`` is the number of the record: from 1, of all CPUs by time, with the losses.
    Raises InputError for a header that cannot be read; damaged records are counted.
    """

    def __init__(self, source: ByteSource, path: str, probes: ProbeTable | None = None) -> None:
        file = DatFile.of(source, path, MAGIC)
        try:
            recording = _recording(file)
            super().__init__(recording, "trace.dat", probes)
        except BaseException:
            file.close()
            raise
        if file.problem:
            self.account.truncated = True
            self.account.notes.append(f"the input breaks off: {file.problem}")


def _recording(file: DatFile) -> RingRecording:
    try:
        parts = _parts(file)
    except BrokenError as error:
        if file.problem:
            raise InputError(file.name, f"a damaged trace.dat: {file.problem}") from None
        raise InputError(file.name, f"a damaged trace.dat: {error}") from None
    parts.judge_clock()
    if not parts.streams:
        raise InputError(file.name, "a trace.dat without any event: no CPU has data in it")
    parts.streams.sort(key=lambda stream: stream.cpu)
    return RingRecording(
        name=file.name,
        big_endian=parts.order == "big",
        page_size=parts.page_size,
        layout=page_layout(file.name, parts.header_page, parts.header_event),
        formats=parts.formats,
        streams=parts.streams,
        kallsyms=parts.kallsyms,
        cmdlines=parts.cmdlines,
        uname=parts.uname,
        clock=parts.clock,
        notes=parts.notes,
        close=file.close,
    )


def _parts(file: DatFile) -> Parts:
    """The header of *file*; raises BrokenError and InputError."""
    cursor = Cursor(file, len(MAGIC), file.size, "little")
    version = cursor.string()
    order, word = cursor.take(2)
    if order > 1 or word not in (4, 8):
        raise BrokenError(f"its byte order is {order} and its words have {word} bytes")
    name = "big" if order else "little"
    cursor = Cursor(file, cursor.at, file.size, name)
    parts = Parts(name, cursor.number(4))
    if version == b"6":
        read_v6(cursor, parts)
    elif version == b"7":
        read_v7(cursor, parts)
    else:
        shown = version[:20].decode("ascii", "replace")
        if not shown.isdigit():
            raise BrokenError("its version is no number")
        raise InputError(file.name, f"a trace.dat of version {shown}; 6 and 7 are read")
    return parts
