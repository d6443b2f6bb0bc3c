"""Recordings in other tools' text, read by the reader of ftrace text.

Each line becomes one line of ftrace text before that reader sees it: so line numbers, the
account and all rules for broken lines are the same.  What is not of the other tool's form
goes through unchanged and is rejected there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, cast

from .lines import MAX_LINE, Lines
from .source import ByteSource

__all__ = ["Translated"]


class Translated(ByteSource):
    """The bytes of *source* with *translate* applied to each line."""

    def __init__(self, source: ByteSource, translate: Callable[[bytes], bytes]) -> None:
        # Not the other's __init__: nothing is opened here.
        self.name = source.name
        self.head = b""
        self.problem = ""
        self._stream = cast(IO[bytes], None)
        self._owned = False
        self._source = source
        self._translate = translate

    def __iter__(self) -> Iterator[bytes]:
        lines = Lines(self._source)
        translate = self._translate
        try:
            for some in lines:
                if len(some[0]) > MAX_LINE:
                    yield some.pop(0) + b"\n"  # by itself, so that its length is seen
                if some:
                    yield b"\n".join(map(translate, some)) + b"\n"
            if lines.tail:
                yield lines.tail
            self.problem = self._source.problem
        finally:
            self.close()

    def close(self) -> None:
        """Close the input."""
        self._source.close()
