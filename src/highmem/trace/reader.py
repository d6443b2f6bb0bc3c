"""Choosing the reader for an input."""

from __future__ import annotations

import os
import re

from highmem.compiled import interpreted
from highmem.errors import InputError

from .probes import ProbeTable
from .schema import TraceSource
from .source import ByteSource, binary_kind, open_source

__all__ = ["is_compiled", "read_trace"]

_PERF = (
    rb"\A# ={8}\n|\.[0-9]{6,20}: +(?:[0-9]{1,19} +)?(?:[\w.-]{1,64}:[\w.-]{1,64}: |PERF_RECORD_)"
)
"""What perf script may have printed: its header, an event with its group, a record."""


def read_trace(path: str | os.PathLike[str], *, probes: ProbeTable | None = None) -> TraceSource:
    """The recording *path*, ``-`` for standard input, ready to be iterated once.

    It may be ftrace text (``trace``, ``trace_pipe``, ``trace-cmd report``), a trace.dat of
    trace-cmd, ``perf script`` text, ``bpftrace -f json`` lines, each plain or compressed with
    gzip, xz or zstd, or a folder of raw buffers (:mod:`highmem.trace.rawpipe`).
    *probes* says which events stand for which kernel functions, by default those of
    DEFAULT_PROBES.  Raises InputError.
    """
    text = os.fspath(path)
    if text != "-" and os.path.isdir(text):
        from .rawpipe import RawPipe  # here and below: a replay imports one reader

        return RawPipe(text, probes)
    source = open_source(path)
    try:
        other = _other_format(source, text, probes)
        if other is not None:
            return other
        _refuse_binary(source)
    except InputError:
        source.close()
        raise
    if is_compiled():
        from .ftrace_fast import FastFtraceText

        return FastFtraceText(source, probes)
    from .ftrace_text import FtraceText

    return FtraceText(source, probes)


def is_compiled() -> bool:
    """Whether text is read by the compiled scanner; without it the pure reader is faster."""
    from . import _text

    return _text.COMPILED and not interpreted()


def _other_format(source: ByteSource, path: str, probes: ProbeTable | None) -> TraceSource | None:
    """A reader of *source* if it is no ftrace text but in a form that is read all the same."""
    if source.head.startswith(b"\x17\x08\x44tracing"):
        from .tracedat import TraceDat

        return TraceDat(source, path, probes)
    if source.head.lstrip()[:1] == b"{":
        from .bpftrace import Bpftrace, is_bpftrace

        return Bpftrace(source, probes) if is_bpftrace(source.head) else None
    if re.search(_PERF, source.head):
        from .perfscript import PerfScript, is_perf_script

        return PerfScript(source, probes) if is_perf_script(source.head) else None
    return None


def _refuse_binary(source: ByteSource) -> None:
    kind = binary_kind(source.head)
    if kind:
        raise InputError(source.name, kind)
    # A text may hold stray NULs (a task's name, a log cut short by a crash), so they only
    # decide where its first whole line is no text either.
    first, newline, _ = source.head[:4096].partition(b"\n")
    if b"\0" in first or (not newline and b"\0" in source.head):
        raise InputError(source.name, "a binary file of an unknown kind, not ftrace text")
