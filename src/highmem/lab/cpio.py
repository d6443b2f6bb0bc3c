"""Writing the archive that Linux unpacks as its first file system.

The format is "newc" (magic ``070701``), as ``Documentation/driver-api/early-userspace/
buffer-format.rst`` of Linux describes it: for each file a header of thirteen numbers in eight
hexadecimal digits, its name and its content, each padded to four bytes; a file named
``TRAILER!!!`` ends it.  Nothing is held in memory: content is copied as it is read.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

from highmem.errors import InputError, UsageError

__all__ = ["CpioWriter"]

_NAME_LIMIT = 4096
"""PATH_MAX of Linux: it passes over entries with longer names."""
_SIZE_LIMIT = (1 << 32) - 1


class CpioWriter:
    """Writes files into the archive *stream*.

    Names are relative to the root and must be written after the directory they are in.
    Everything belongs to root and has the time stamp 0, so equal input gives equal bytes.
    """

    __slots__ = ("_at", "_directories", "_inode", "_stream")

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._inode = 0
        self._at = 0
        self._directories: set[str] = set()

    def directory(self, name: str, mode: int = 0o755) -> None:
        """The directory *name* with those it is in; nothing where it is there already."""
        parts = _clean(name).split("/")
        for end in range(1, len(parts) + 1):
            inside = "/".join(parts[:end])
            if inside and inside not in self._directories:
                self._directories.add(inside)
                own = mode if end == len(parts) else 0o755
                self._entry(inside, stat.S_IFDIR | own, 0)

    def data(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """The file *name* with *content*."""
        self._entry(name, stat.S_IFREG | mode, len(content))
        self._write(content)
        self._pad()

    def link(self, name: str, target: str) -> None:
        """The symbolic link *name* to *target*."""
        content = os.fsencode(target)
        self._entry(name, stat.S_IFLNK | 0o777, len(content))
        self._write(content)
        self._pad()

    def device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        """The character device *name*."""
        self._entry(name, stat.S_IFCHR | mode, 0, major, minor)

    def file(self, name: str, path: Path, mode: int | None = None) -> None:
        """The file *name* with what *path* holds, and its mode.  Raises InputError."""
        try:
            with open(path, "rb") as source:
                about = os.fstat(source.fileno())
                if not stat.S_ISREG(about.st_mode):
                    raise InputError(str(path), "not a regular file")
                if about.st_size > _SIZE_LIMIT:
                    raise InputError(str(path), "4 GiB or more: too large for an initramfs")
                kept = stat.S_IMODE(about.st_mode) if mode is None else mode
                self._entry(name, stat.S_IFREG | kept, about.st_size)
                start = self._stream.tell() if self._stream.seekable() else None
                shutil.copyfileobj(source, self._stream, 1 << 20)
        except OSError as error:
            raise InputError(str(path), error.strerror or "cannot be read") from None
        if start is not None and self._stream.tell() - start != about.st_size:
            raise InputError(str(path), "it changed while it was read")
        self._at += about.st_size
        self._pad()

    def tree(self, folder: Path) -> None:
        """All directories, files and symbolic links below *folder*, under the root."""
        for where, directories, files in os.walk(folder):
            directories.sort()
            inside = os.path.relpath(where, folder)
            if inside != ".":
                self.directory(inside, stat.S_IMODE(os.stat(where).st_mode))
            for name in sorted([*files, *(d for d in directories)]):
                path = Path(where, name)
                target = os.path.normpath(os.path.join(inside, name))
                if path.is_symlink():
                    self.link(target, os.readlink(path))
                elif name in files:
                    self.file(target, path)

    def finish(self) -> None:
        """Write the end of the archive."""
        self._entry("TRAILER!!!", 0, 0)

    def _entry(self, name: str, mode: int, size: int, major: int = 0, minor: int = 0) -> None:
        inside = _clean(name)
        if "/" in inside and stat.S_IFMT(mode) != stat.S_IFDIR:
            self.directory(inside.rpartition("/")[0])
        raw = os.fsencode(inside) + b"\0"
        if len(raw) > _NAME_LIMIT:
            raise UsageError(f"{inside[:40]}...: a name this long cannot be in an initramfs")
        self._inode += 1
        links = 2 if stat.S_ISDIR(mode) else 1
        numbers = (self._inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, len(raw), 0)
        self._write(b"070701" + b"".join(b"%08x" % number for number in numbers) + raw)
        self._pad()

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._at += len(data)

    def _pad(self) -> None:
        self._write(bytes(-self._at % 4))


def _clean(name: str) -> str:
    """*name* without a leading ``/`` or ``./``; it must not climb out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f"{name}: not a name inside an initramfs")
    return "/".join(parts)
