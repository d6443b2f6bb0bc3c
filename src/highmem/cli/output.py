"""What the commands share: where results go and how they get there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, TextIO

import click

from highmem.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["make_console", "open_binary", "open_output", "size_option"]


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
    with _replacing(path) as handle, os.fdopen(handle, "w", encoding="utf-8") as stream:
        yield stream


@contextmanager
def open_binary(path: str) -> Iterator[BinaryIO]:
    """The same for bytes; never standard output."""
    with _replacing(path) as handle, os.fdopen(handle, "wb") as stream:
        yield stream


@contextmanager
def _replacing(path: str) -> Iterator[int]:
    """A new file beside *path* that takes its place at the end; whoever gets the handle has to
    close it."""
    import tempfile  # here: most results go to standard output, and wait for no import
    from pathlib import Path

    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        yield handle
        # mkstemp makes files for the owner only; give the mode that open() would have.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, target)
    except BaseException as error:
        os.unlink(name)
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
        raise


def size_option(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """The bytes that an option like ``--ram 2G`` says, if it was given."""
    if value is None:
        return None
    from highmem.kernel.layout import memparse

    try:
        return memparse(value)
    except UsageError as error:
        raise click.BadParameter(str(error)) from None
