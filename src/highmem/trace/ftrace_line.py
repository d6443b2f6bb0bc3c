"""The grammar of one line of ftrace text.

::

    init-1       (      1) [002] dN..     8.097899: r_kmap_high: (copy_strings+0xa5/0x2a0 <- kmap_high) vaddr=0xfec07000
    ---- -  ------------   ---   ----     --------  -----------  --------------------------------------- ----------------
    comm pid TGID          cpu   flags    time      event        place                                   fields

    prefix = [spaces] comm "-" pid spaces [ "(" tgid ")" spaces ] where spaces
    where  = "[" cpu "]" [ spaces flags ]         (trace, trace_pipe, trace-cmd report)
           | cpu flags                            (the latency format)
    time   = seconds "." six or nine digits | microseconds "us" [ mark ]
    line   = prefix time ":" spaces event ":" [ spaces "(" place ")" ] { " " name "=" value }

The place of a return is ``caller <- function`` in what the kernel prints, and the other way
round in what trace-cmd and perf make of a binary recording: see :func:`caller_of`.

A task chooses its own name, so ``comm`` may hold anything, even what looks like the rest of
a line.  It cannot hold enough of it: the kernel keeps 15 bytes, and the shortest text from
the ``-`` to the end of the time that this grammar takes is longer (the latency format keeps
8 bytes and takes no less than 12).  So ``comm`` is what stands before the only place where
the rest fits, and no column is counted.
"""  # noqa: E501 - the drawing is as wide as the line it shows

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .schema import (
    FLAG_HARDIRQ,
    FLAG_IRQS_OFF,
    FLAG_KNOWN,
    FLAG_MIGRATE_KNOWN,
    FLAG_NEED_RESCHED,
    FLAG_NMI,
    FLAG_SOFTIRQ,
    MIGRATE_SHIFT,
    PREEMPT_SHIFT,
    SYMBOLS,
    Function,
    Kind,
)

__all__ = [
    "CALL",
    "EVENT",
    "FIELD",
    "FIVE_FLAGS",
    "FLAG_COLUMN",
    "FOUR_FLAGS",
    "HEAD",
    "INTERESTLESS",
    "LATENCY_LINE",
    "LINE",
    "LOSS",
    "PLAIN_NUMBER_TIME",
    "PROBE",
    "SWITCH_PARTS",
    "WRITTEN",
    "Prefix",
    "Switch",
    "caller_of",
    "flag_bits",
    "number",
    "prefix_of",
    "switches",
]

_PID: Final = rb"-([0-9]{1,10}) ++(?:\( *+[0-9-]++\) ++)?"
_FLAGS: Final = rb"([.+0-9A-Za-z]{4,8})"
# TASK_COMM_LEN is 16 with its NUL; the latency format cuts to 8.
_NORMAL: Final = rb" *+(.{0,15}?)" + _PID + rb"\[([0-9]{1,5})\](?: ++" + _FLAGS + rb")? ++"
_LATENCY: Final = rb" *+(.{0,8}?)" + _PID + rb"([0-9]{1,5})" + _FLAGS + rb" ++"
_NORMAL_WHOLE, _LATENCY_WHOLE = (
    rb"(" + re.sub(rb"(?<!\\)\((?!\?)", b"(?:", pattern) + rb")" for pattern in (_NORMAL, _LATENCY)
)
_SECONDS: Final = rb"([1-8]?[0-9]{1,9})\.([0-9]{6})([0-9]{3})?"  # fits 63 bits of nanoseconds
_NAME: Final = rb"[\w.-]+(?::[\w.-]+)?"
_PLACE: Final = rb"\(([^()]{0,1200})\)"  # two names of KSYM_NAME_LEN at most
_HEAD: Final = _NAME + rb": +\([^()]{0,1200}\) \w+="
_HEX: Final = rb"0x([0-9a-f]{1,16})"

PROBE: Final = re.compile(
    _NORMAL_WHOLE + _SECONDS + rb": +(" + _HEAD + rb")" + _HEX + rb"(?: (\w+)=" + _HEX + rb")?",
    re.DOTALL,
)
"""The line that recordings are full of, in one go: prefix, seconds, six digits, three more,
head (event, place and first field's name), first value, second name, second value."""

LINE: Final = re.compile(_NORMAL_WHOLE + _SECONDS + rb"(): *(.*)", re.DOTALL)
"""Any event's line: prefix, seconds, six digits, three more, nothing, the rest."""

LATENCY_LINE: Final = re.compile(
    _LATENCY_WHOLE + rb"(?:" + _SECONDS + rb"|([0-9]{1,12})us[!+ #*@$]?): *(.*)", re.DOTALL
)
"""The same for the latency format: prefix, seconds, six digits, three more, microseconds,
the rest.  To be asked only where LINE found nothing."""

PLAIN_NUMBER_TIME: Final = re.compile(_NORMAL_WHOLE + rb"[0-9]+: ", re.DOTALL)
"""A line of which only the time cannot be read: a count without a unit."""

EVENT: Final = re.compile(rb"(" + _NAME + rb"):(?: +" + _PLACE + rb")?(.*)", re.DOTALL)
"""The rest of a line, if it is an event: name, place, what follows."""

HEAD: Final = re.compile(_HEAD)
"""The head of PROBE by itself."""

CALL: Final = re.compile(rb"\S+(?: \[\S+\])? +<-|<stack trace>|<user stack trace>")
"""The rest of a line of the function tracer, which has no colon and no arguments."""

FIELD: Final = re.compile(rb'(?:^|(?<= ))([A-Za-z_]\w*)=("[^"]*"|\([^()]*\)|\{[^{}]*\}|[^ ]+)')
"""One field; texts in quotes and arrays in braces are one value."""

LOSS: Final = re.compile(
    rb"CPU:([0-9]{1,5}) \[(?:LOST (?:([0-9]{1,18}) )?EVENTS|(?:([0-9]{1,18}) )?EVENTS DROPPED)\] *"
)
"""Events lost, as the kernel says it and as trace-cmd does: cpu, number, number."""

WRITTEN: Final = re.compile(
    rb"# (?:entries-in-buffer/entries-written: ([0-9]{1,18})/([0-9]{1,18})\b"
    rb"|latency: [^,]*, #([0-9]{1,18})/([0-9]{1,18}),)"
)
"""The header's count of events that are in the buffer and that were written to it."""

FLAG_COLUMN: Final = re.compile(rb"#[ |/]*_-*=> *([\w#-]+)")
"""A line of the drawing that names the flags, from the first flag to the last."""

INTERESTLESS: Final = re.compile(
    rb" *+(?:=> "  # stack traces
    rb"|[0-9]{1,5}\) "  # function_graph
    rb"|-{8,} *$"  # and its line above and below a task switch
    rb"|version = [0-9]+ *$|cpus=[0-9]+ *$|CPU [0-9]+ is empty *$)"  # trace-cmd report's header
)
"""Lines that are well formed and hold no event that could concern us."""

_SWITCH_KERNEL: Final = re.compile(
    rb" *prev_comm=(.{0,15}?) prev_pid=([0-9]{1,10}) prev_prio=-?[0-9]+ prev_state=(\S+) ==> "
    rb"next_comm=(.{0,15}?) next_pid=([0-9]{1,10}) next_prio=-?[0-9]+(?: [\w]+=.*)?",
    re.DOTALL,
)
SWITCH_PARTS: Final = re.compile(
    rb"(sched_switch: prev_comm=.{0,15}? prev_pid=[0-9]{1,10} prev_prio=-?[0-9]+ "
    rb"prev_state=\S+ ==> )"
    rb"(next_comm=.{0,15}? next_pid=[0-9]{1,10} next_prio=-?[0-9]+(?: [\w]+=.*)?)",
    re.DOTALL,
)
"""The kernel's text of a sched_switch in two parts that are told apart by nothing else: text
of 15 bytes cannot imitate what either is made of, nor can this be read as trace-cmd's text."""

_TRACE_CMD: Final = (
    rb" *+(.{0,15}%s):([0-9]{1,10}) \[-?[0-9]+\] (\S+) ==> "
    rb"(.{0,15}):([0-9]{1,10}) \[-?[0-9]+\] *"
)
_SWITCH_TRACE_CMD: Final = tuple(re.compile(_TRACE_CMD % lazy, re.DOTALL) for lazy in (b"", b"?"))

_NUMBER: Final = re.compile(rb"(-?)(0[xX])?([0-9a-fA-F]{1,20})")
_SPLIT_PREFIX: Final = tuple(re.compile(p, re.DOTALL) for p in (_NORMAL, _LATENCY))
_CALLER: Final = re.compile(rb"(.*?)(?:/0x[0-9a-f]+)?( \[[^\]]*\])?", re.DOTALL)
_SYMBOL: Final = re.compile(rb" *+([\w$]+)")  # no offset, no module, no suffix of the compiler's
_FORMAT_PLACE: Final = re.compile(rb"(?:[0-9a-f]{8}|[0-9a-f]{16}) <- (?:[0-9a-f]{8}|[0-9a-f]{16})")
# What print fmt "(%lx <- %lx)" gives; for an address without a name the kernel writes 0x.
_NAMES: Final = {
    function: frozenset(name.encode() for name, of in SYMBOLS.items() if of is function)
    for function in Function
}


class Prefix(NamedTuple):
    """What stands before the time."""

    comm: bytes
    pid: int
    cpu: int
    flags: bytes


def prefix_of(prefix: bytes) -> Prefix:
    """Take apart the *prefix* that LINE or PROBE found."""
    match = _SPLIT_PREFIX[0].fullmatch(prefix) or _SPLIT_PREFIX[1].fullmatch(prefix)
    assert match is not None, "LINE, LATENCY_LINE and PROBE find nothing else"
    comm, pid, cpu, flags = match.groups()
    return Prefix(comm, int(pid), int(cpu), flags or b"")


FOUR_FLAGS: Final = ("irqs-off", "need-resched", "hardirq", "preempt-depth")
"""The flags of kernels up to 5.10, in order."""
FIVE_FLAGS: Final = (*FOUR_FLAGS, "migrate-disable")
"""The flags of kernels from 5.11 on."""

_LETTERS: Final = {
    # D: bottom halves are off too.
    "irqs-off": dict.fromkeys("dD", FLAG_IRQS_OFF),
    # n and p: only one of the two bits that make N.  The others: lazy need-resched, 6.13 on.
    "need-resched": dict.fromkeys("NnpBbLlGg", FLAG_NEED_RESCHED),
    "hardirq": {
        "h": FLAG_HARDIRQ,
        "H": FLAG_HARDIRQ | FLAG_SOFTIRQ,
        "s": FLAG_SOFTIRQ,
        "z": FLAG_NMI,
        "Z": FLAG_NMI | FLAG_HARDIRQ,
    },
}
_DEPTHS: Final = {"preempt-depth": PREEMPT_SHIFT, "migrate-disable": MIGRATE_SHIFT}


def flag_bits(text: bytes, layout: tuple[str, ...] = ()) -> int:
    """The ``flags`` column for the flags *text*, 0 if it cannot be told what they mean.

    *layout* names the flags in order where the recording's header did; without it there are
    four or five.
    """
    flags = text.decode("ascii", "replace")
    if not layout:
        layout = FIVE_FLAGS if len(flags) == len(FIVE_FLAGS) else FOUR_FLAGS
    letters = list(flags)
    if len(letters) == len(layout) + 1 and layout[-1] == "preempt-depth":
        letters[-2:] = [flags[-2:]]  # a depth above 15, from kernels that print it whole
    if len(letters) != len(layout):
        return 0
    bits = FLAG_KNOWN
    for name, letter in zip(layout, letters, strict=True):
        if name in _DEPTHS:
            try:
                depth = 0 if letter == "." else int(letter, 16)
            except ValueError:
                return 0
            bits |= depth << _DEPTHS[name]
            if name == "migrate-disable":
                bits |= FLAG_MIGRATE_KNOWN
        elif name in _LETTERS:
            bits |= _LETTERS[name].get(letter, 0)
    return bits


def caller_of(place: bytes, kind: Kind, function: Function) -> bytes | None:
    """The caller that the *place* of a return from *function* names, ``b""`` for an entry's.

    None if the place is that of the other kind of probe: ``(caller <- function)`` says that
    a function returned, ``(function+0x0/0x80)`` that it was entered.

    The kernel prints ``(caller <- function)``; the format that it gives with a binary
    recording says ``(function <- caller)``, and so trace-cmd and perf print it.  The caller
    is the side that is not *function*; where names do not tell, the kernel's order holds,
    except for two bare addresses, which only the format gives.
    """
    left, arrow, right = place.partition(b" <- ")
    if bool(arrow) != (kind is Kind.MAP_RETURN):
        return None
    if not arrow:
        return b""
    names = _NAMES[function]
    turned = _symbol(left) in names and _symbol(right) not in names
    match = _CALLER.fullmatch(right if turned or _FORMAT_PLACE.fullmatch(place) else left)
    return match[1] + (match[2] or b"") if match else b""


def _symbol(side: bytes) -> bytes:
    match = _SYMBOL.match(side)
    return match[1] if match else b""


def number(text: bytes, base: int, wide: bool) -> int | None:
    """The number *text* from 0 to 2**64 - 1, None if it is none.

    ``0x`` or a letter say hexadecimal, *base* says it for the rest.  Where *base* is 0, a
    number of digits alone is decimal, but for the *wide* ones, addresses: there up to eight
    digits are hexadecimal, because read as decimal they would lie below 0x5f5e100, where an
    i386 kernel has neither windows nor ``struct page``, and more than eight digits cannot be
    32 bits in hexadecimal.  Negative numbers are 32-bit registers printed as signed.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    minus, prefix, digits = match.groups()
    if prefix:
        base = 16
    elif not digits.isdigit():
        base = 16 if base == 0 else base
    elif base == 0:
        base = 16 if wide and not minus and len(digits) <= 8 else 10
    if base == 10 and not digits.isdigit():
        return None
    value = int(digits, base)
    if minus:
        return (1 << 32) - value if base == 10 and 0 < value <= 1 << 31 else None
    return value if value < 1 << 64 else None


class Switch(NamedTuple):
    """What a ``sched_switch`` event says."""

    prev_comm: bytes
    prev_pid: int
    state: bytes
    next_comm: bytes
    next_pid: int


def switches(fields: bytes) -> list[Switch]:
    """All readings of what follows ``sched_switch:``: none, one, or at most two.

    The kernel's own text has only one reading, as a comm of 15 bytes cannot imitate what
    stands between the two; the short form of trace-cmd can have two.
    """
    found: list[Switch] = []
    for pattern in (_SWITCH_KERNEL, *_SWITCH_TRACE_CMD):
        match = pattern.fullmatch(fields)
        if match is not None:
            comm, pid, state, next_comm, next_pid = match.groups()
            switch = Switch(comm, int(pid), state, next_comm, int(next_pid))
            if switch not in found:
                found.append(switch)
    return found
