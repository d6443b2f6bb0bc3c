"""Choosing the reader for an input."""

from __future__ import annotations

import os

from highmem.errors import InputError

from .ftrace_text import FtraceText
from .probes import ProbeTable
from .schema import TraceSource
from .source import ByteSource, binary_kind, open_source

__all__ = ["read_trace"]


def read_trace(path: str | os.PathLike[str], *, probes: ProbeTable | None = None) -> TraceSource:
    """The recording *path*, ``-`` for standard input, ready to be iterated once.

    It may be ftrace text (``trace``, ``trace_pipe``, ``trace-cmd report``), plain or
    compressed with gzip, xz or zstd.  *probes* says which events stand for which kernel
    functions, by default those of DEFAULT_PROBES.  Raises InputError.
    """
    source = open_source(path)
    try:
        _refuse_binary(source)
    except InputError:
        source.close()
        raise
    return FtraceText(source, probes)


def _refuse_binary(source: ByteSource) -> None:
    kind = binary_kind(source.head)
    if kind:
        raise InputError(source.name, kind)
    # A text may hold stray NULs (a task's name, a log cut short by a crash), so they only
    # decide where its first whole line is no text either.
    first, newline, _ = source.head[:4096].partition(b"\n")
    if b"\0" in first or (not newline and b"\0" in source.head):
        raise InputError(source.name, "a binary file of an unknown kind, not ftrace text")
