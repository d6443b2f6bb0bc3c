"""A file of an image, mapped into memory: opening costs the same whatever its size."""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
from typing import Self

import numpy as np

from highmem.errors import InputError
from highmem.image.formats.source import Bytes
from highmem.trace.printable import printable

__all__ = ["MappedFile", "os_cause"]

_RUN = 1 << 16  # bytes from which on reading ahead is worth a call
_AHEAD_STEP = 1 << 18  # the kernel cuts longer requests
_AHEAD_MOST = 1 << 26


def os_cause(error: OSError) -> str:
    """Why the operating system refused, as the end of a sentence."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "is a directory"
    if isinstance(error, PermissionError):
        return "permission denied (dumps of a machine often belong to root)"
    return error.strerror or "cannot be read"


class MappedFile:
    """``data`` is all bytes of the file, read-only and fetched as they are touched.

    ``name`` is the shown name.  ``wrapping`` says what the file came out of (``zstd``,
    ``flattened``) and ``notes`` what was missing there; both are for whoever made it to fill.
    Raises InputError for what is no regular file or is empty.
    """

    wrapping: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(self, name: str, handle: int) -> None:
        self.name = name
        try:
            self._map = mmap.mmap(handle, 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise InputError(name, "empty: there is nothing in it") from None
        except OSError as error:
            raise InputError(name, f"cannot be mapped into memory: {os_cause(error)}") from None
        if hasattr(self._map, "madvise"):
            # Page tables lie anywhere: reading ahead of each would bring 32 pages for one, and for
            # a hole of a sparse file even make them.  Runs are asked for with will_need().
            self._map.madvise(mmap.MADV_RANDOM)
        self.data: Bytes = np.frombuffer(self._map, np.uint8)
        self.size = len(self._map)

    @classmethod
    def open(cls, path: str) -> Self:
        """Map the file at *path*."""
        name = printable(os.fsencode(path))
        try:
            # Without NONBLOCK the opening of a pipe waits for somebody to write into it.
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            raise InputError(name, os_cause(error)) from None
        except ValueError:
            raise InputError(name, "no such file: a NUL byte is in its name") from None
        try:
            mode = os.fstat(handle).st_mode
            if stat.S_ISDIR(mode):
                raise InputError(name, "is a directory")
            if not stat.S_ISREG(mode):
                raise InputError(name, "is a device or a pipe; copy it into a file first")
            return cls(name, handle)
        finally:
            os.close(handle)

    def bytes_at(self, offset: int, size: int) -> bytes:
        """*size* bytes from *offset*, fewer where the file ends (or begins) before."""
        if offset < 0 or size <= 0 or offset >= self.size:
            return b""
        self.will_need(offset, min(size, self.size - offset))
        return self._map[offset : offset + size]

    def will_need(self, offset: int, size: int) -> None:
        """Tell the system that these bytes of the file will be read, if they are many."""
        if size < _RUN or not hasattr(self._map, "madvise"):
            return
        end = min(offset + min(size, _AHEAD_MOST), self.size)
        for at in range(offset & -mmap.PAGESIZE, end, _AHEAD_STEP):
            self._map.madvise(mmap.MADV_WILLNEED, at, min(_AHEAD_STEP, end - at))

    def close(self) -> None:
        """Drop the mapping; arrays that still look into it keep it alive."""
        self.data = np.empty(0, np.uint8)
        with contextlib.suppress(BufferError):
            self._map.close()
