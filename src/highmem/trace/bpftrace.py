r"""Reading what ``bpftrace -f json`` prints of a script that prints our events.

Each line is a document ``{"type": "printf", "data": "..."}``; types other than ``printf``
and ``lost_events`` are passed over.  The text of a printf is::

    EVENT NSECS CPU TID CALLER FIELD=VALUE ... comm=COMM

EVENT is a name of :mod:`highmem.trace.probes` (``m_kmap_high``) or ``sched_switch``, CALLER
is ``-`` or a symbol as ksym() gives it; numbers are decimal or begin with ``0x``.  COMM comes
last, for it may hold anything.  A script for Linux 5.10 on i386, where the first arguments
are in ax and dx (after bpftrace's manual; bpftrace itself is rarely built for i386)::

    kprobe:kmap_high {
        @from[tid] = *(uint32 *)reg("sp");
        printf("m_kmap_high %llu %d %d - page=0x%x prot=0 comm=%s\n",
               nsecs, cpu, tid, reg("ax"), comm);
    }
    kretprobe:kmap_high {
        printf("r_kmap_high %llu %d %d %s vaddr=0x%x comm=%s\n",
               nsecs, cpu, tid, ksym(@from[tid]), retval, comm);
    }
    kprobe:kunmap_high {
        printf("u_kunmap_high %llu %d %d - page=0x%x comm=%s\n",
               nsecs, cpu, tid, reg("ax"), comm);
    }
    tracepoint:sched:sched_switch {
        printf("sched_switch %llu %d %d - prev_state=%d next_pid=%d next_comm=%s comm=%s\n",
               nsecs, cpu, tid, args.prev_state, args.next_pid, args.next_comm, args.prev_comm);
    }

and the same for the other functions that the kernel has.
"""

from __future__ import annotations

import json
import re

from .eventformat import state_namer
from .ftrace_text import FtraceText
from .probes import ProbeTable
from .source import ByteSource
from .translated import Translated

__all__ = ["Bpftrace", "is_bpftrace"]

_DOCUMENT = re.compile(rb'\s*\{\s*"type"\s*:')
_EVENT = re.compile(
    r"([\w.:-]{1,200}) ([0-9]{1,19}) ([0-9]{1,5}) ([0-9]{1,10}) (\S{1,600}) (.*?)\n?", re.DOTALL
)
_FIELDS = re.compile(r"((?:\w+=[^ ]+ )*)comm=(.{0,15})", re.DOTALL)
_SWITCH = re.compile(
    r"prev_state=([0-9]{1,18}) next_pid=([0-9]{1,10}) next_comm=(.{0,15}?) comm=(.{0,15})",
    re.DOTALL,
)
_SYMBOL = re.compile(r"([^()\s]+?)(?:\+(0x[0-9a-f]+|[0-9]{1,18}))?")
_SECOND = 10**9
_state = state_namer(b"")


def is_bpftrace(head: bytes) -> bool:
    """Whether an input that begins with *head* is of bpftrace's documents."""
    return _DOCUMENT.match(head[:200]) is not None


class Bpftrace(FtraceText):
    """The events of *source*, what ``bpftrace -f json`` printed."""

    format = "bpftrace-json"

    def __init__(self, source: ByteSource, probes: ProbeTable | None = None) -> None:
        super().__init__(Translated(source, _translate), probes)


def _translate(line: bytes) -> bytes:
    """The line of ftrace text for *line*; an empty one for what is no event."""
    if not line.strip():
        return b""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return line
    if not isinstance(document, dict) or not isinstance(document.get("type"), str):
        return line
    data = document.get("data")
    if document["type"] == "lost_events":
        return _lost(data) or line
    if document["type"] != "printf":
        return b""
    match = _EVENT.fullmatch(data) if isinstance(data, str) else None
    return (_event(*match.groups()) if match else None) or line


def _lost(data: object) -> bytes | None:
    count = data.get("events") if isinstance(data, dict) else None
    if not isinstance(count, int) or not 0 < count < 1 << 62:
        return None
    # Of which CPU they are is not said: the header's form, which holds for all.
    return b"# entries-in-buffer/entries-written: 0/%d" % count


def _event(event: str, time: str, cpu: str, pid: str, caller: str, rest: str) -> bytes | None:
    if event == "sched_switch":
        switch = _SWITCH.fullmatch(rest)
        if switch is None:
            return None
        state, next_pid, next_comm, comm = switch.groups()
        body = (
            f"prev_comm={comm} prev_pid={pid} prev_prio=0 prev_state={_state(int(state))} ==> "
            f"next_comm={next_comm} next_pid={next_pid} next_prio=0"
        )
    else:
        fields = _FIELDS.fullmatch(rest)
        symbol = _SYMBOL.fullmatch(caller)
        if fields is None or symbol is None:
            return None
        comm = fields[2]
        place = "0x0"
        if caller != "-":
            offset = int(symbol[2], 0) if symbol[2] else 0
            place = f"{symbol[1]}+0x{offset:x} <- 0x0"
        body = f"({place}) {fields[1]}".rstrip()
    seconds, nanoseconds = divmod(int(time), _SECOND)
    text = f"{comm}-{pid} [{int(cpu):03}] {seconds}.{nanoseconds:09}: {event}: {body}"
    return text.replace("\n", " ").encode("utf-8", "surrogatepass")
