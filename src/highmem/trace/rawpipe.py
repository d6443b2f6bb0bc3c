"""Reading a folder with raw ring buffers: ``trace_pipe_raw`` and what describes it.

::

    FOLDER/per_cpu/cpu0/trace_pipe_raw     copies of tracefs, one for each CPU
    FOLDER/events/header_page              how sub-buffers are laid out
    FOLDER/events/kprobes/NAME/format      what events hold (any group)
    FOLDER/events/sched/sched_switch/format
    FOLDER/saved_cmdlines                  optional: names of tasks
    FOLDER/kallsyms                        optional: a copy of /proc/kallsyms, for callers
    FOLDER/trace_clock, FOLDER/version     optional; version: what uname -a or -r printed

The byte order is nowhere written down; it is the one in which the buffers make sense.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator

from highmem.errors import InputError

from .eventformat import PageLayout, page_layout, parse_fields
from .printable import printable
from .probes import ProbeTable
from .ringbuffer import MAX_PAGE, RingRecording, RingSource, Stream
from .source import os_error
from .tracedat_file import DatFile, RawPages
from .tracedat_parts import MAX_CPUS, Parts

__all__ = ["RawFolder", "RawPipe"]

_FILE_LIMIT = 1 << 26
_FORMAT_LIMIT = 1 << 20
_FORMATS_LIMIT = 20000
_PIECE = 1 << 16
_CPU = re.compile(r"cpu([0-9]{1,4})")
_COMMIT_MASK = (1 << 27) - 1
_PAGES_LOOKED_AT = 16


class RawPipe(RingSource):
    """The events of the *folder*.  Raises InputError where it lacks what is needed."""

    def __init__(self, folder: str | os.PathLike[str], probes: ProbeTable | None = None) -> None:
        reader = RawFolder(os.fspath(folder))
        try:
            super().__init__(reader.recording(), "trace_pipe_raw", probes)
        except BaseException:
            reader.close()
            raise


class RawFolder:
    """The files of a raw recording; *path* is its folder."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._name = printable(os.fsencode(path))
        self._files: list[tuple[int, DatFile]] = []

    def close(self) -> None:
        """Let go of the buffers."""
        for _, file in self._files:
            file.close()

    def recording(self) -> RingRecording:
        """What the folder holds.  Raises InputError where it lacks what is needed."""
        page = self.text("events/header_page")
        if not page:
            raise InputError(self._name, "a folder without events/header_page: not a raw recording")
        layout = page_layout(self._name, page, self.text("events/header_event"))
        page_size = layout.data_at + parse_fields(page)["data"].size
        if page_size > MAX_PAGE:
            raise InputError(self._name, f"its sub-buffers would be {page_size} bytes long")
        self._open_pipes()
        big = self._is_big(layout, page_size)
        parts = Parts("big" if big else "little", page_size)
        parts.option(4, self.text("trace_clock"))
        parts.judge_clock()
        streams: list[Stream] = [RawPages(f, cpu, 0, f.size) for cpu, f in self._files if f.size]
        if not streams:
            raise InputError(self._name, "no per_cpu/cpuN/trace_pipe_raw in it has data")
        return RingRecording(
            name=self._name,
            big_endian=big,
            page_size=page_size,
            layout=layout,
            formats=self._formats(),
            streams=streams,
            kallsyms=lambda: self.text("kallsyms", _FILE_LIMIT),
            cmdlines=self.text("saved_cmdlines", _FILE_LIMIT),
            uname=self.text("version"),
            notes=parts.notes,
            close=self.close,
        )

    def _open(self, inside: str) -> int:
        """A descriptor of a regular file in the folder, -1 if there is none."""
        path = os.path.join(self._path, inside)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return -1
        except OSError as error:
            raise os_error(printable(os.fsencode(path)), error) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return -1
        return descriptor

    def text(self, inside: str, limit: int = _FORMAT_LIMIT) -> bytes:
        """What stands in the file *inside*, nothing if there is none; *limit* bytes of it."""
        descriptor = self._open(inside)
        if descriptor < 0:
            return b""
        pieces = []
        with open(descriptor, "rb") as stream:
            # A read of so many bytes takes memory for all of them first, however few there are.
            while limit > 0 and (piece := stream.read(min(limit, _PIECE))):
                pieces.append(piece)
                limit -= len(piece)
        return b"".join(pieces)

    def _list(self, inside: str) -> list[str]:
        try:
            return sorted(os.listdir(os.path.join(self._path, inside)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise os_error(self._name, error) from None

    def _open_pipes(self) -> None:
        for folder in self._list("per_cpu"):
            match = _CPU.fullmatch(folder)
            if match is None or int(match[1]) >= MAX_CPUS:
                continue
            descriptor = self._open(f"per_cpu/{folder}/trace_pipe_raw")
            if descriptor >= 0:
                self._files.append((int(match[1]), DatFile(self._name, descriptor)))
        self._files.sort(key=lambda one: one[0])

    def _formats(self) -> Iterator[tuple[str, bytes]]:
        count = 0
        for system in self._list("events"):
            for event in self._list(f"events/{system}"):
                text = self.text(f"events/{system}/{event}/format")
                count += bool(text)
                if text and count <= _FORMATS_LIMIT:
                    yield system, text

    def _is_big(self, layout: PageLayout, page_size: int) -> bool:
        """The byte order in which more of the first sub-buffers hold what fits into them."""
        votes = 0
        for _, file in self._files:
            for number in range(_PAGES_LOOKED_AT):
                page = file.read(number * page_size, layout.data_at)
                if len(page) < layout.data_at:
                    break
                word = page[layout.commit_at : layout.commit_at + layout.commit_size]
                sizes = (int.from_bytes(word, "little"), int.from_bytes(word, "big"))
                little, big = (
                    0 <= (size & _COMMIT_MASK) <= page_size - layout.data_at and not size >> 32
                    for size in sizes
                )
                votes += int(big) - int(little)
        return votes > 0
