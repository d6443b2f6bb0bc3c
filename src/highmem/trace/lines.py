"""Cutting a stream of bytes into lines, with bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .source import CHUNK

__all__ = ["MAX_LINE", "Lines"]

MAX_LINE = CHUNK
"""The longest line that is read, in bytes without its newline.  Not smaller than a chunk:
so a longer line always crosses the end of a chunk, and only the first line of each list
has to be measured."""


class Lines:
    """The lines of *chunks*, a list of them at a time, without their newlines.

    A line longer than MAX_LINE comes as its first MAX_LINE + 1 bytes, and only ever as the
    first of a list.  After the last list ``tail`` holds what followed the last newline.
    """

    __slots__ = ("_chunks", "tail")

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.tail = b""

    def __iter__(self) -> Iterator[list[bytes]]:
        for chunk in self._chunks:
            lines = chunk.split(b"\n")
            if self.tail:
                lines[0] = self.tail + lines[0]
            lines[0] = lines[0][: MAX_LINE + 1]
            self.tail = lines.pop()
            if lines:
                yield lines
