"""The lines of source files, for those who show them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

__all__ = ["Excerpts"]

_LIMIT = 64 << 20
_FILES = 64


class Excerpts:
    """Lines of files by number, a few files in memory at a time; empty where there is none."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, list[bytes]] = OrderedDict()

    def line(self, path: str, number: int) -> str:
        """Line *number* (from 1) of the file at *path*, without its end."""
        raw = self._raw(path, number)
        return raw.decode("utf-8", "replace").rstrip()

    def character_column(self, path: str, number: int, column: int) -> int:
        """The column in UTF-16 units that the byte *column* is, both from 1."""
        before = self._raw(path, number)[: column - 1]
        if len(before) < column - 1:
            return column
        if before.isascii():
            return column
        return len(before.decode("utf-8", "replace").encode("utf-16-le")) // 2 + 1

    def _raw(self, path: str, number: int) -> bytes:
        lines = self._lines(path)
        return lines[number - 1] if 0 < number <= len(lines) else b""

    def _lines(self, path: str) -> list[bytes]:
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        try:
            with Path(path).open("rb") as stream:
                lines = stream.read(_LIMIT).split(b"\n")
        except OSError:
            # A file that is gone by now costs its excerpt, not its finding.
            lines = []
        self._files[path] = lines
        if len(self._files) > _FILES:
            self._files.popitem(last=False)
        return lines
