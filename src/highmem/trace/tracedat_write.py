"""Writing a trace.dat, version 6, from a folder of raw ring buffers.

The folder is what :mod:`highmem.trace.rawpipe` reads; the file says the same in one piece, to
trace-cmd and to us.  Sub-buffers are copied as they are, in the byte order and with
the word size of the machine that was recorded (trace-cmd.dat.v6(5)).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from highmem.errors import InputError, UsageError

from .eventformat import event_head
from .printable import printable
from .rawpipe import RawFolder
from .ringbuffer import RingRecording, Stream
from .tracedat_parts import MAGIC

__all__ = ["write_tracedat"]

_PIECE = 1 << 20
_CPUSTAT, _TRACECLOCK, _UNAME, _CPUCOUNT = 2, 4, 5, 8  # options, trace-cmd.dat.v6(5)


def write_tracedat(folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> int:
    """Write the raw recording *folder* as the trace.dat *out*; the bytes that it has.

    *out* gets its name when it is whole, and takes the place of what had that name.  Raises
    InputError for a folder that is no recording, UsageError where *out* cannot be written.
    """
    reader = RawFolder(os.fspath(folder))
    try:
        writer = _Writer(reader, reader.recording())
        with _replacing(Path(out)) as stream:
            return writer.write(stream)
    finally:
        reader.close()


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    """A new file beside *target* that takes its place at the end."""
    name = ""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "w+b") as stream:
            yield stream
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, target)
    except BaseException as error:
        if name:
            os.unlink(name)
        if isinstance(error, OSError):
            shown = printable(os.fsencode(target))
            cause = error.strerror or "input/output error"
            raise UsageError(f"{shown}: cannot be written: {cause}") from None
        raise


class _Writer:
    """The parts of the file, one after the other."""

    def __init__(self, reader: RawFolder, recording: RingRecording) -> None:
        self._read = reader.text
        self._recording = recording

    def _number(self, value: int, size: int) -> bytes:
        return value.to_bytes(size, "big" if self._recording.big_endian else "little")

    def _sized(self, data: bytes, size: int = 8) -> bytes:
        """*data* behind its length, a number of *size* bytes."""
        return self._number(len(data), size) + data

    def write(self, stream: BinaryIO) -> int:
        """Write all of it to *stream*, which can seek; its length."""
        recording = self._recording
        streams = {one.cpu: one for one in recording.streams}
        count = max(streams) + 1
        stream.write(MAGIC + b"6\0")
        stream.write(bytes((recording.big_endian, recording.layout.commit_size)))
        stream.write(self._number(recording.page_size, 4))
        for name in ("header_page", "header_event"):
            stream.write(name.encode() + b"\0" + self._sized(self._read(f"events/{name}")))
        self._formats(stream)
        stream.write(self._sized(recording.kallsyms(), 4))
        stream.write(self._number(0, 4))  # no formats of trace_printk
        stream.write(self._sized(recording.cmdlines))
        stream.write(self._number(count, 4))
        clock = self._read("trace_clock")
        self._options(stream, count, clock)
        table = stream.tell()
        stream.write(bytes(16 * count))
        if clock:
            stream.write(self._sized(clock))
        places = [(0, 0)] * count
        for cpu in sorted(streams):
            places[cpu] = self._data(stream, streams[cpu])
        end = stream.tell()
        stream.seek(table)
        for place, size in places:
            stream.write(self._number(place, 8) + self._number(size, 8))
        stream.seek(end)
        return end

    def _formats(self, stream: BinaryIO) -> None:
        """Those of ftrace's own events, then those of each other system."""
        systems: dict[str, list[bytes]] = {}
        for system, text in self._recording.formats:
            if event_head(text) is not None:
                systems.setdefault(system, []).append(text)
        own = systems.pop("ftrace", [])
        stream.write(self._number(len(own), 4))
        stream.write(b"".join(map(self._sized, own)))
        stream.write(self._number(len(systems), 4))
        for system, texts in systems.items():
            stream.write(os.fsencode(system) + b"\0" + self._number(len(texts), 4))
            stream.write(b"".join(map(self._sized, texts)))

    def _options(self, stream: BinaryIO, count: int, clock: bytes) -> None:
        options = [(_CPUCOUNT, self._number(count, 4))]
        uname = self._read("version").strip()
        if uname:
            options.append((_UNAME, uname + b"\0"))
        for one in self._recording.streams:
            stats = self._read(f"per_cpu/cpu{one.cpu}/stats")
            if stats:
                options.append((_CPUSTAT, b"CPU: %d\n" % one.cpu + stats + b"\0"))
        if clock:
            options.append((_TRACECLOCK, b""))  # its name follows the table of data
        stream.write(b"options  \0")
        for number, data in options:
            stream.write(self._number(number, 2) + self._sized(data, 4))
        stream.write(self._number(0, 2) + b"flyrecord\0")

    def _data(self, stream: BinaryIO, source: Stream) -> tuple[int, int]:
        """Copy the sub-buffers of one CPU; where they lie.  A part of one at the end is left."""
        page = self._recording.page_size
        start = -(-stream.tell() // page) * page
        stream.seek(start)
        size = 0
        while data := source.read(max(_PIECE // page, 1) * page):
            whole = len(data) // page * page
            stream.write(data[:whole])
            size += whole
        if source.problem:
            raise InputError(self._recording.name, f"cpu {source.cpu}: {source.problem}")
        return (start, size) if size else (0, 0)
