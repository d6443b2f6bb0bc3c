"""Version 7 of trace.dat: sections that lie anywhere, found by the options."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .ringbuffer import Stream
from .tracedat_file import BrokenError, Codec, CompressedPages, Cursor, Memory, RawPages
from .tracedat_parts import MAX_CPUS, Parts, event_formats, ftrace_formats, header_files

__all__ = ["read_v7"]

_SECTION_LIMIT = 1 << 26
_OPTIONS_LIMIT = 1 << 20
_SECTIONS_LIMIT = 1024
_AHEAD = 1 << 17
_FEW_CPUS = 64
_COMPRESSED = 1
_DONE = 0
_BUFFER = 3
_HEADER_INFO = 16
_FTRACE_EVENTS = 17
_EVENT_FORMATS = 18
_KALLSYMS = 19
_CMDLINES = 21
_BUFFER_TEXT = 22
_POINTERS = (_HEADER_INFO, _FTRACE_EVENTS, _EVENT_FORMATS, _KALLSYMS, _CMDLINES)


def read_v7(cursor: Cursor, parts: Parts) -> None:
    """Read all that stands behind the page size into *parts*; raises BrokenError."""
    name = cursor.string()
    cursor.string()  # the version of the library that compressed it
    _Sections(cursor, parts, Codec(name)).read(cursor.number(8))


class _Pages(NamedTuple):
    cpu: int
    at: int
    size: int
    compressed: bool


class _Sections:
    """The sections of one file."""

    def __init__(self, cursor: Cursor, parts: Parts, codec: Codec) -> None:
        self._region = cursor.region
        self._end = cursor.end
        self._parts = parts
        self._codec = codec
        self._places: dict[int, int] = {}
        self._buffers: list[bytes] = []
        self._used: list[tuple[int, int]] = []
        self._pages: list[_Pages] = []

    def read(self, options: int) -> None:
        parts = self._parts
        for number, data in self._options(options):
            if number in _POINTERS and len(data) >= 8:
                self._places.setdefault(number, self._parts.number(data[:8]))
            elif number == _BUFFER:
                self._buffers.append(data)
            elif number == _BUFFER_TEXT:
                parts.notes.append("a latency recording in it is text and is not read")
            else:
                parts.option(number, data)
        header_files(self._section(_HEADER_INFO), parts)
        if _FTRACE_EVENTS in self._places:
            self._optional(_FTRACE_EVENTS, lambda c: parts.formats.extend(ftrace_formats(c)))
        parts.formats += event_formats(self._section(_EVENT_FORMATS))
        self._optional(_CMDLINES, self._cmdlines)
        parts.kallsyms = self._kallsyms
        for number, data in enumerate(self._buffers[:_SECTIONS_LIMIT]):
            try:
                self._buffer(data, first=number == 0)
            except BrokenError as error:
                parts.notes.append(f"a buffer in it cannot be read: {error}")
        self._streams()
        if self._buffers and not self._codec.known:
            parts.notes.append("it is compressed in a way that is not known")

    def _cursor(self, at: int) -> Cursor:
        return Cursor(self._region, at, self._end, self._parts.order)

    def _open(self, at: int, number: int) -> Cursor:
        """The content of the section with *number* at *at*."""
        cursor = self._cursor(at)
        found, flags = cursor.number(2), cursor.number(2)
        cursor.number(4)
        size = cursor.number(8)
        if found != number:
            raise BrokenError(f"section {number} is not at {at:#x}, where it should be")
        if flags & _COMPRESSED:
            data = self._codec.block(cursor)
            return Cursor(Memory(data), 0, len(data), self._parts.order)
        return Cursor(self._region, cursor.at, min(cursor.at + size, self._end), self._parts.order)

    def _section(self, number: int) -> Cursor:
        if number not in self._places:
            raise BrokenError(f"it has no section {number}")
        return self._open(self._places[number], number)

    def _optional(self, number: int, read: Callable[[Cursor], object]) -> None:
        """A section that events can be read without."""
        try:
            if number in self._places:
                read(self._section(number))
        except BrokenError as error:
            self._parts.notes.append(f"section {number} of it cannot be read: {error}")

    def _cmdlines(self, cursor: Cursor) -> None:
        self._parts.cmdlines = cursor.sized(8)

    def _kallsyms(self) -> bytes:
        found: list[bytes] = []
        self._optional(_KALLSYMS, lambda cursor: found.append(cursor.sized(4)))
        return found[0] if found else b""

    def _options(self, at: int) -> Iterator[tuple[int, bytes]]:
        """All options: each section of them ends with the place of the next."""
        seen: set[int] = set()
        while at:
            if at in seen or len(seen) >= _SECTIONS_LIMIT:
                self._parts.notes.append("its sections of options lead back to each other")
                return
            seen.add(at)
            cursor = self._open(at, _DONE)
            at = 0
            while cursor.at < cursor.end:
                number = cursor.number(2)
                data = cursor.sized(4, _OPTIONS_LIMIT)
                if number == _DONE:
                    at = self._parts.number(data[:8]) if len(data) >= 8 else 0
                    break
                yield number, data

    def _buffer(self, data: bytes, first: bool) -> None:
        """The data of each CPU of one buffer."""
        option = Cursor(Memory(data), 0, len(data), self._parts.order)
        section = self._cursor(option.number(8))
        option.string()
        clock = option.string()
        page_size, count = option.number(4), option.number(4)
        section.number(2)
        compressed = section.number(2) & _COMPRESSED
        if count > MAX_CPUS:
            raise BrokenError(f"it is of {count} CPUs")
        if first:
            self._parts.clock_name = clock
            self._parts.page_size = page_size
        elif page_size != self._parts.page_size:
            raise BrokenError("its sub-buffers have another size than those of the first")
        for _ in range(count):
            cpu, at, size = option.number(4), option.number(8), option.number(8)
            if size:
                # The size of compressed data does not say where it ends: it leaves out the
                # sizes of its chunks.  It begins with their number.
                self._parts.add_data(self._used, cpu, at, 4 if compressed else size)
                self._pages.append(_Pages(cpu, at, size, bool(compressed)))

    def _streams(self) -> None:
        """Make streams of the data that was found; each ends where the next begins."""
        starts = [at for at, _ in self._used]
        for pages in self._pages:
            after = bisect.bisect(starts, pages.at)
            end = starts[after] if after < len(starts) else self._end
            stream: Stream
            if pages.compressed:
                ahead = _AHEAD if len(self._pages) <= _FEW_CPUS else 0
                inner = Cursor(self._region, pages.at, end, self._parts.order, ahead)
                stream = CompressedPages(inner, pages.cpu, self._codec, self._parts.page_size)
            else:
                stream = RawPages(self._region, pages.cpu, pages.at, pages.size)
            self._parts.streams.append(stream)
