"""Reading what ``perf script`` prints of kprobe events and sched_switch.

::

    cat   107 [003]     9.405284: probe:m_kmap_high: (c1068f00) page=0xf6add488 prot=0x163
    cat   107/107 [003] 9.405291: probe:r_kmap_high: (c1068f00 <- c121d28c) vaddr=0xfec07000
    cat   107 [003]     9.405299: sched:sched_switch: cat:107 [120] S ==> swapper/3:0 [120]
    cat   107 [003]     9.405300: PERF_RECORD_LOST lost 12

That is its default, and that of ``-F comm,pid,tid,cpu,time,event,ip,sym,dso,trace``, where
address, symbol and file follow the fields; lines of a call chain are passed over.  Unlike the
kernel, perf (and trace-cmd) prints the function before the arrow and the caller behind it.
Times of six digits are microseconds; ``--ns`` gives all nine.
"""

from __future__ import annotations

import re

from .ftrace_text import FtraceText
from .probes import ProbeTable
from .source import ByteSource
from .translated import Translated

__all__ = ["PerfScript", "is_perf_script"]

_LINE = re.compile(
    rb" *+(.{0,15}?) +(?:[0-9]{1,10}/ *)?([0-9]{1,10}) +\[([0-9]{1,5})\] +"
    rb"([0-9]{1,10}\.[0-9]{6}(?:[0-9]{3})?): +(?:[0-9]{1,19} +)?"
    rb"([\w.-]+:[\w.-]+|PERF_RECORD_LOST)(?::| +lost) *(.*)",
    re.DOTALL,
)
_PLACE = re.compile(
    rb"\((?:0x)?([0-9a-f]{1,16})(?: +<- +(?:0x)?([0-9a-f]{1,16}))?\)((?: \w+=[^ ]+)*)(.*)",
    re.DOTALL,
)
_CHAIN = re.compile(rb"\s+[0-9a-f]{1,16} (?:[^()]{1,1200} )?\(.{0,4096}\)\s*|\s*")
_LOST = re.compile(rb"([0-9]{1,18})\b.*")


def is_perf_script(head: bytes) -> bool:
    """Whether one of the first whole lines of *head* is of perf's form."""
    lines = head[:4096].split(b"\n")[:20]
    return any(_LINE.fullmatch(line.rstrip(b"\r")) for line in lines)


class PerfScript(FtraceText):
    """The events of *source*, what ``perf script`` printed."""

    format = "perf-script"

    def __init__(self, source: ByteSource, probes: ProbeTable | None = None) -> None:
        super().__init__(Translated(source, _translate), probes)


def _translate(line: bytes) -> bytes:
    """The line of ftrace text for *line*."""
    match = _LINE.fullmatch(line.rstrip(b"\r"))
    if match is None:
        return b"" if _CHAIN.fullmatch(line) else line
    comm, pid, cpu, time, event, rest = match.groups()
    if event == b"PERF_RECORD_LOST":
        lost = _LOST.fullmatch(rest)
        return b"CPU:%b [LOST %b EVENTS]" % (cpu, lost[1]) if lost else line
    place = _PLACE.fullmatch(rest)
    if place is not None:
        function, caller, fields, _ = place.groups()
        where = b"0x" + function if caller is None else b"0x%b <- 0x%b" % (caller, function)
        rest = b"(%b)%b" % (where, fields)
    return b"%b-%b [%b] %b: %b: %b" % (comm, pid, cpu, time, event, rest)
