"""What the commands share: where results go and how they get there."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from highmem.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["make_console", "open_output"]


def make_console(stream: TextIO, *, width: int | None = None) -> Console:
    """A console that colours on a terminal only, honours NO_COLOR, and never wraps a file's
    lines to a width that nobody has."""
    from rich.console import Console

    if width is None and not stream.isatty():
        width = int(os.environ.get("COLUMNS", "0")) or 100
    return Console(file=stream, width=width, highlight=False, emoji=False, markup=False)


@contextmanager
def open_output(path: str | None) -> Iterator[TextIO]:
    """Standard output, or *path*: written beside it and renamed once whole, so that a file
    under its final name is never half a result.  UsageError where that cannot be."""
    if path is None or path == "-":
        yield sys.stdout
        return
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            yield stream
        # mkstemp makes files for the owner only; give the mode that open() would have.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
