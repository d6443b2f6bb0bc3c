"""Reading what ``perf script`` prints of kprobe events and sched_switch.

::

    cat   107 [003]     9.405284: probe:kmap_high: (c1068f00) page=0xf6add488
    cat   107/107 [003] 9.405291: probe:kmap_high__return: (c1068f00 <- c121d28c) vaddr=0xfec07000
    cat   107 [003]     9.405299: sched:sched_switch: prev_comm=cat prev_pid=107 ...
    cat   107 [003]     9.405300: PERF_RECORD_LOST lost 12

That is its default, with ``--show-lost-events`` in the last line, and that of ``-F
comm,pid,tid,cpu,time,event,ip,sym,symoff,dso,trace``, where address, symbol and file follow the
fields.  A period before the event (``-F +period``) and letters before the time (``-F +misc``) are
taken too, and the form of ``-L``, whose CPU has no brackets.  Other events, other records
(``PERF_RECORD_COMM``) and the lines of a call chain are passed over.

Unlike the kernel, perf (and trace-cmd) prints the function before the arrow and the caller behind
it, both as numbers.  Where the sample's own address is the caller's (Linux 6.1, not 5.10), its
symbol names it.

Where an event comes in while ``perf record`` empties a buffer, it may be written twice: what it
takes as read is not all that it wrote (perf_mmap__push, tools/perf/util/mmap.c, Linux 6.1).  A
line that is the same as the last event of its CPU is that event, and passed over.

Times of six digits are microseconds; ``--ns`` gives all nine.  A perf of 32 bits (5.10 and 6.1
for i386) takes the whole seconds off modulo 2**32 nanoseconds there, so what it prints for a
fraction is larger than a second, by a multiple of 2**32 that follows from the seconds.
"""

from __future__ import annotations

import re

from .ftrace_text import FtraceText
from .printable import printable
from .probes import ProbeTable
from .source import ByteSource
from .translated import Translated

__all__ = ["PerfScript", "is_perf_script"]

_WHO = (
    rb" *+(.{0,15}?) +(?:(?:-1|[0-9]{1,10})/ *)?(-1|[0-9]{1,10}) +"
    rb"(?:\[([0-9]{1,5})\]|([0-9]{1,5})) +(?:[A-Za-z/]{1,8} +)?"
    rb"([0-9]{1,10})\.([0-9]{6}|[0-9]{9,20}): +(?:[0-9]{1,19} +)?"
)
_LINE = re.compile(_WHO + rb"([\w.-]+:[\w.-]+): *(.*)", re.DOTALL)
_RECORD = re.compile(
    _WHO + rb"(?:PERF_RECORD_(?:LOST lost +([0-9]{1,18})\b|(?!LOST )[A-Z])|"
    rb"[^\s:]{1,200}(?::[^\s:]{0,40}){0,3}:(?: |$)).*",
    re.DOTALL,
)
"""A record that is no event, or an event without a group; the last group is how many were lost."""
_PLACE = re.compile(
    rb"\((?:0x)?([0-9a-f]{1,16})(?: +<- +(?:0x)?([0-9a-f]{1,16}))?\)((?: \w+=[^ ]+)*)(.*)",
    re.DOTALL,
)
_AT = re.compile(rb" +([0-9a-f]{1,16}) ([^\s()\[\]]{1,600})(?: .*)?", re.DOTALL)
_SWITCH = re.compile(
    rb"( *prev_comm=.{0,15}? prev_pid=([0-9]{1,10}) prev_prio=.* "
    rb"next_pid=[0-9]+ next_prio=-?[0-9]+)(?:  .*)?",
    re.DOTALL,
)
_CHAIN = re.compile(rb"\s+[0-9a-f]{1,16} (?:[^()]{1,1200} )?\(.{0,4096}\)\s*|\s*")
_RELEASE = re.compile(rb"# os release : ([!-~]{1,64})\s*")
_HEADER = b"# ========"
_SECOND = 10**9


def is_perf_script(head: bytes) -> bool:
    """Whether *head* begins with perf's header, or one of the first whole lines is of its form."""
    if head.startswith(_HEADER):
        return True
    lines = [line for line in head.split(b"\n")[:200] if not line.startswith(b"#")]
    lines = [line.rstrip(b"\r") for line in lines[:20]]
    return any(
        _LINE.fullmatch(line) or (b" PERF_RECORD_" in line and _RECORD.fullmatch(line))
        for line in lines
    )


class PerfScript(FtraceText):
    """The events of *source*, what ``perf script`` printed."""

    format = "perf-script"

    def __init__(self, source: ByteSource, probes: ProbeTable | None = None) -> None:
        super().__init__(Translated(source, self._translate), probes)
        self._latest: dict[bytes, bytes] = {}  # CPU -> its event
        self._twice = 0

    def _translate(self, line: bytes) -> bytes:
        """The line of ftrace text for *line*."""
        match = _LINE.fullmatch(line.rstrip(b"\r"))
        if match is None:
            return self._no_event(line)
        comm, pid, bracketed, plain, second, fraction, event, rest = match.groups()
        cpu = bracketed or plain
        if len(fraction) > 9:
            fraction = _unwrapped(second, fraction)
        if event.endswith(b":sched_switch"):
            switch = _SWITCH.fullmatch(rest)
            if switch is not None:
                rest = switch[1]
                # A task that has been reaped has no number any more; its last switch has.
                pid = switch[2] if pid == b"-1" else pid
        else:
            rest = _placed(rest)
        if (
            pid == b"-1"
        ):  # an interrupt in a task that has been reaped: whose call it is, is unknown
            return event + b": " + rest if self._probes.find(event.decode("ascii")) else b""
        text = b"%b-%b [%b] %b.%b: %b: %b" % (comm, pid, cpu, second, fraction, event, rest)
        if self._latest.get(cpu) == text:
            self._twice += 1
            return b""
        self._latest[cpu] = text
        return text

    def _no_event(self, line: bytes) -> bytes:
        if _CHAIN.fullmatch(line):
            return b""
        if line.startswith(b"#"):
            release = _RELEASE.fullmatch(line)
            if release is not None and not self.account.release:
                self.account.release = printable(release[1])
            return line
        record = _RECORD.fullmatch(line.rstrip(b"\r"))
        if record is None:
            return line
        lost = record[7]
        return b"CPU:%b [LOST %b EVENTS]" % (record[3] or record[4], lost) if lost else b""

    def _finish(self, tail: bytes) -> None:
        super()._finish(tail)
        if self.account.events and not self.account.lost:
            self.account.notes.append(
                "no loss is told; perf script tells of lost events only with --show-lost-events"
            )
        if self._twice:
            self.account.notes.append(
                f"{self._twice} event{'s were' if self._twice > 1 else ' was'} in it twice, to the "
                "same time and value, and taken once: perf record writes some twice"
            )


def _unwrapped(second: bytes, fraction: bytes) -> bytes:
    """The nine digits meant by the *fraction* that a 32-bit perf prints after *second*.

    *fraction* itself where it is none of those: it is then no time.
    """
    meant = int(fraction) - (int(second) * _SECOND >> 32 << 32)
    return b"%09d" % meant if 0 <= meant < _SECOND else fraction


def _placed(rest: bytes) -> bytes:
    """Place and fields of a probe's event as ftrace writes them."""
    place = _PLACE.fullmatch(rest)
    if place is None:
        return rest
    function, caller, fields, behind = place.groups()
    if caller is None:
        return b"(0x%b)%b" % (function, fields)
    at = _AT.fullmatch(behind)
    if at is not None and at[1] == caller:
        # The kernel's order: a name beside a bare address is taken for the caller.
        return b"(%b <- 0x%b)%b" % (at[2], function, fields)
    return b"(0x%b <- 0x%b)%b" % (caller, function, fields)
