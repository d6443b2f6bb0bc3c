"""The same with trace-cmd: the lines that set the probes, record, and remove them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from highmem.errors import InputError
from highmem.trace.printable import printable

from .probes import GROUP, SWITCH, ProbeSet, all_symbols, probes_for
from .script import DEFAULT_BUFFER_KB

__all__ = ["read_kallsyms", "trace_cmd_lines"]

_LINE_LIMIT = 4096


def read_kallsyms(path: str, arch: str | None = None) -> ProbeSet:
    """The probes of the kernel whose ``/proc/kallsyms``, or a copy of it, is *path*.

    *arch* None: 32-bit or 64-bit x86, by the width of its addresses.  Raises InputError for
    what is no kallsyms, UsageError where the kernel has no windows.
    """
    name = printable(os.fsencode(path))
    wanted = {symbol.encode() for symbol in all_symbols()}
    found: set[str] = set()
    width = 0
    try:
        with open(path, "rb") as stream:
            while line := stream.readline(_LINE_LIMIT):
                words = line.split()
                width = width or len(words[0] if words else b"")
                # A fourth word is a module: not the kernel's own.
                if len(words) == 3 and words[1] in b"TtWw" and words[2] in wanted:
                    found.add(words[2].decode("ascii"))
    except OSError as error:
        raise InputError(name, error.strerror or "cannot be read") from None
    if width not in (8, 16):
        raise InputError(name, "no copy of /proc/kallsyms")
    return probes_for(found, arch=arch or ("x86" if width == 8 else "x86_64"))


def trace_cmd_lines(
    probes: ProbeSet,
    out: str,
    *,
    seconds: int | None = None,
    buffer_kb: int | None = None,
    command: Sequence[str] = (),
) -> list[str]:
    """Lines for a root shell: *probes* set, recorded with trace-cmd into *out*, and removed."""
    place = "/sys/kernel/tracing/kprobe_events"
    if not command and seconds is not None:
        command = ("sleep", str(seconds))
    what = ["trace-cmd", "record", "-C", "global", "-b", str(buffer_kb or DEFAULT_BUFFER_KB)]
    what += ["-e", GROUP, "-e", SWITCH.replace("/", ":"), "-o", out, *command]
    return [
        *(f"echo {shlex.quote(line)} >> {place}" for line in probes.lines),
        shlex.join(what),
        *(f"echo '-:{GROUP}/{event}' >> {place}" for event in probes.events),
    ]
