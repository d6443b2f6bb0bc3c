"""A tiny writer of ftrace text, in every column variant that the reader has to know.

Written after the formats that the kernel's ``trace`` file and trace-cmd print, not after the
reader: the tests hold one against the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "STYLES",
    "Call",
    "Event",
    "Lost",
    "Noise",
    "State",
    "Style",
    "Switch",
    "recording",
    "written",
]


@dataclass(frozen=True)
class Style:
    """How a recording is laid out."""

    program: str = "kernel"  # or "trace-cmd", "latency"
    flags: int = 4  # how many; 0: no such column
    tgid: bool = False
    digits: int = 6  # of the fraction of a second
    newline: bytes = b"\n"
    header: bool = True


STYLES = (
    Style(),
    Style(flags=5),
    Style(flags=5, tgid=True),
    Style(flags=4, tgid=True, header=False),
    Style(flags=0),
    Style(flags=0, tgid=True, newline=b"\r\n"),
    Style(flags=5, digits=9),
    Style(program="trace-cmd", flags=0),
    Style(program="trace-cmd", flags=5),
    Style(program="trace-cmd", flags=4, digits=9, newline=b"\r\n"),
    Style(program="latency", flags=4),
    Style(program="latency", flags=5, header=False),
)


@dataclass(frozen=True)
class State:
    """Who, where, when, and what the flags column says."""

    comm: bytes = b"cat"
    pid: int = 107
    cpu: int = 3
    time: int = 9_405_284_000  # nanoseconds
    irqs_off: bool = False
    need_resched: bool = False
    hardirq: bool = False
    softirq: bool = False
    preempt: int = 0
    migrate: int = 0


@dataclass(frozen=True)
class Call:
    """A probe's event."""

    name: str
    place: str
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Switch:
    """A sched_switch; the task that leaves is that of the State."""

    state: str
    next_comm: bytes
    next_pid: int


@dataclass(frozen=True)
class Lost:
    """Events lost on the State's cpu; count 0: an unknown number."""

    count: int


@dataclass(frozen=True)
class Noise:
    """Any other event."""

    text: bytes


Event = Call | Switch | Lost | Noise

_ARROWS = ("irqs-off/BH-disabled", "need-resched", "hardirq/softirq", "preempt-depth")


def _flags(state: State, count: int) -> bytes:
    context = {(0, 0): ".", (0, 1): "s", (1, 0): "h", (1, 1): "H"}
    depth = [f"{n:x}" if n else "." for n in (state.preempt, state.migrate)]
    letters = [
        "d" if state.irqs_off else ".",
        "N" if state.need_resched else ".",
        context[int(state.hardirq), int(state.softirq)],
        *depth,
    ]
    return "".join(letters[:count]).encode()


def _prefix(state: State, style: Style) -> bytes:
    seconds, nanoseconds = divmod(state.time, 10**9)
    flags = _flags(state, style.flags)
    fraction = b"%09d" % nanoseconds
    if style.program == "latency":
        where = b"%8b-%-7d %3d%b" % (state.comm[:8], state.pid, state.cpu, flags)
        return where + b" %4dus+: " % (state.time // 1000)
    time = b"%5d.%b: " % (seconds, fraction[: style.digits])
    task = b"%16b-%-5d " % (state.comm, state.pid)
    if style.tgid:
        task += b"(%7d) " % state.pid
    return task + b"[%03d] " % state.cpu + (flags + b" " if flags else b"") + time


def _body(state: State, event: Call | Switch | Noise, style: Style) -> bytes:
    padded = style.program == "trace-cmd"
    if isinstance(event, Noise):
        return event.text
    if isinstance(event, Call):
        name = event.name + ":"
        fields = "".join(f" {key}={value}" for key, value in event.fields)
        return (
            f"{name:21} ({event.place}){fields}".encode()
            if padded
            else (f"{name} ({event.place}){fields}".encode())
        )
    names = (state.comm, state.pid, event.state.encode(), event.next_comm, event.next_pid)
    if padded:
        return b"sched_switch:         %b:%d [120] %b ==> %b:%d [98]" % names
    return (
        b"sched_switch: prev_comm=%b prev_pid=%d prev_prio=120 prev_state=%b ==> "
        b"next_comm=%b next_pid=%d next_prio=98" % names
    )


def written(state: State, event: Event, style: Style) -> bytes:
    """The line of *event*, without its newline."""
    if not isinstance(event, Lost):
        return _prefix(state, style) + _body(state, event, style)
    count = b"%d " % event.count if event.count else b""
    if style.program == "trace-cmd":
        return b"CPU:%d [%bEVENTS DROPPED]" % (state.cpu, count)
    return b"CPU:%d [LOST %bEVENTS]" % (state.cpu, count)


def _header(style: Style, kept: int, total: int) -> list[bytes]:
    if style.program == "trace-cmd":
        return [b"version = 7", b"CPU 1 is empty", b"cpus=4"]
    names = [*_ARROWS, "migrate-disable"][: style.flags]
    bars = [b"#" + b" " * 30 + b"_" * 3 + b"--=> " + name.encode() for name in names]
    if style.program == "latency":
        first = b"# latency: 0 us, #%d/%d, CPU#0 | (M:preempt VP:0)" % (kept, total)
        bars.insert(0, b"#                  _------=> CPU#")
    else:
        first = b"# entries-in-buffer/entries-written: %d/%d   #P:4" % (kept, total)
    return [b"# tracer: nop", b"#", first, b"#", *bars, b"#           TASK-PID     CPU#"]


def recording(
    events: Iterable[tuple[State, Event]], style: Style, *, overwritten: int = 0
) -> bytes:
    """A whole recording; *overwritten* events are missing at its beginning (not trace-cmd)."""
    lines = [written(state, event, style) for state, event in events]
    kept = len(lines)
    head = _header(style, kept, kept + overwritten) if style.header else []
    return b"".join(line + style.newline for line in head + lines)
