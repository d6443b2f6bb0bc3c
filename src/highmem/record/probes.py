"""Which functions of a kernel to probe, and with which lines.

The kernel has no tracepoint for ``kmap`` and its kin, so each function is probed where it is
entered and where it returns.  Which functions there are changed three times; which of them a
kernel has, its symbols say.  :data:`TABLE` holds all of it once: :func:`probes_for` reads it
here, and the script of :mod:`highmem.record.script` carries it to other machines.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

from highmem.errors import UsageError

__all__ = [
    "ALL_ROWS",
    "GROUP",
    "NO_HIGHMEM",
    "NO_ROW",
    "NO_WINDOWS",
    "OTHER_ARCH",
    "REGISTERS",
    "ROWS",
    "SWITCH",
    "TABLE",
    "ProbeSet",
    "Row",
    "TableLine",
    "all_symbols",
    "probes_for",
]

GROUP = "highmem"
"""The group that the probes are made in: ``events/highmem``.  Its own, so that they are nobody
else's."""
SWITCH = "sched/sched_switch"
"""The tracepoint that is recorded with them: it tells leaks and sleeping."""

REGISTERS = {
    "x86": ("%ax", "%dx"),
    "x86_64": ("%di", "%si"),
    "arm": ("%r0", "%r1"),
}
"""Where a function's first two arguments are when it is entered: ``-mregparm=3`` on 32-bit x86
(arch/x86/Makefile_32.cpu), the System V ABI, the AAPCS."""

NO_WINDOWS = (
    "a 64-bit kernel without CONFIG_DEBUG_KMAP_LOCAL_FORCE_MAP reaches all memory directly: "
    "it has no windows to record"
)
NO_HIGHMEM = (
    "this kernel has no kmap_high: it was built without CONFIG_HIGHMEM and has no windows to record"
)
NO_ROW = "this kernel has kmap_high, but no function that maps for a short time is known in it"
OTHER_ARCH = "probes are known for x86, x86_64 and arm (32-bit)"

_NOTE_64 = (
    "the windows of a 64-bit kernel are recorded, but replay knows the layout of 32-bit x86 "
    "kernels only: it cannot judge their addresses"
)
_NOTE_ARM = (
    "replay knows the layout of 32-bit x86 kernels only: it cannot judge the addresses that an "
    "ARM kernel chooses"
)


@dataclass(frozen=True, slots=True)
class Row:
    """The kernels whose temporary windows are made by one set of functions."""

    key: str
    """The function that only these kernels have."""
    era: str
    """typed, stack or local."""
    kernels: str


ROWS = (
    Row("kunmap_local_indexed", "local", "5.11 and later"),
    Row("kunmap_atomic_high", "stack", "5.8 to 5.10"),
    Row("__kunmap_atomic", "stack", "2.6.37 to 5.7"),
    Row("kunmap_atomic_notypecheck", "typed", "2.6.36"),
    Row("kunmap_atomic", "typed", "up to 2.6.35"),
)
"""In the order in which they are tried; the first whose key the kernel has is its row."""

ALL_ROWS = "*"
"""In place of a row's key: all rows."""


@dataclass(frozen=True, slots=True)
class TableLine:
    """One probe: ``@1`` and ``@2`` in *fetch* stand for the first and the second argument."""

    row: str
    letter: str
    """m: a map function is entered; r: it returns; u: an unmap is entered; f: a flush."""
    symbol: str
    fetch: str

    @property
    def event(self) -> str:
        """The name of its event; :mod:`highmem.trace.probes` knows it."""
        return f"{self.letter}_{self.symbol}"

    def line(self, registers: tuple[str, ...]) -> str:
        """What to write to ``kprobe_events``; no type: a word, in hexadecimal, on any kernel."""
        fetch = self.fetch
        for number, register in enumerate(registers, 1):
            fetch = fetch.replace(f"@{number}", register)
        kind = "r" if self.letter == "r" else "p"
        return f"{kind}:{GROUP}/{self.event} {self.symbol} {fetch}".rstrip()


def _maps(row: str, fetch: str, *symbols: str) -> Iterator[TableLine]:
    for symbol in symbols:
        yield TableLine(row, "m", symbol, fetch)
        yield TableLine(row, "r", symbol, "vaddr=$retval")


def _table() -> Iterator[TableLine]:
    frames = ("kmap_atomic_pfn", "kmap_atomic_prot_pfn", "iomap_atomic_prot_pfn")
    for row in ROWS:
        if row.era == "local":
            yield from _maps(row.key, "page=@1 prot=@2", "__kmap_local_page_prot")
            yield from _maps(row.key, "pfn=@1 prot=@2", "__kmap_local_pfn_prot")
            yield TableLine(row.key, "u", row.key, "vaddr=@1")
            continue
        # The second argument: a km_type at first, then the protection bits.  Where the function
        # has only one, what is recorded is whatever the register held; nobody reads it.
        second = " type=@2" if row.era == "typed" else " prot=@2"
        if row.kernels == "5.8 to 5.10":
            yield from _maps(row.key, f"page=@1{second}", "kmap_atomic_high_prot")
        else:
            if row.era == "stack":
                yield from _maps(row.key, "page=@1", "__kmap_atomic", "kmap_atomic")
            else:
                yield from _maps(row.key, f"page=@1{second}", "kmap_atomic")
            yield from _maps(row.key, f"page=@1{second}", "kmap_atomic_prot")
        yield from _maps(row.key, f"pfn=@1{second}", *frames)
        for symbol in (row.key, "iounmap_atomic"):
            unmap = "vaddr=@1 type=@2" if row.era == "typed" else "vaddr=@1"
            yield TableLine(row.key, "u", symbol, unmap)
    yield from _maps(ALL_ROWS, "page=@1", "kmap_high")
    yield TableLine(ALL_ROWS, "u", "kunmap_high", "page=@1")
    yield TableLine(ALL_ROWS, "f", "kmap_flush_unused", "")
    yield TableLine(ALL_ROWS, "f", "__kmap_flush_unused", "")  # its name from 5.11 on


TABLE = tuple(_table())
"""Every probe of every row (mm/highmem.c, arch/x86/mm/highmem_32.c and iomap_32.c, 2.6.12 to
6.1)."""


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """What to set on one kernel."""

    era: str
    """typed, stack or local."""
    kernels: str
    """Which kernels have these functions, in words."""
    key: str
    """The function that told it."""
    lines: tuple[str, ...]
    """For ``kprobe_events``, one probe each."""
    events: tuple[str, ...]
    """Their events below ``events/highmem``, in the same order; replay knows them by name."""
    notes: tuple[str, ...] = ()
    """What replay will not be able to say of such a recording."""


def all_symbols() -> tuple[str, ...]:
    """Every symbol that decides what is probed, in a fixed order."""
    named = [row.key for row in ROWS] + [line.symbol for line in TABLE]
    return tuple(dict.fromkeys(named))


def probes_for(symbols: Container[str], *, arch: str = "x86") -> ProbeSet:
    """The probes for the kernel that has *symbols* (the names in its ``/proc/kallsyms``).

    *arch* is a key of :data:`REGISTERS`.  Raises UsageError, in one line, where the kernel has
    no windows to record.
    """
    if arch not in REGISTERS:
        raise UsageError(f"{arch}: {OTHER_ARCH}")
    row = next((row for row in ROWS if row.key in symbols), None)
    if arch == "x86_64":
        if row is None or row.era != "local":
            raise UsageError(NO_WINDOWS)
    elif "kmap_high" not in symbols:
        # From 5.11 on i386 has the kmap_local functions even without CONFIG_HIGHMEM.
        raise UsageError(NO_HIGHMEM)
    elif row is None:
        raise UsageError(NO_ROW)
    chosen = [line for line in TABLE if line.row in (row.key, ALL_ROWS) and line.symbol in symbols]
    registers = REGISTERS[arch]
    notes = {"x86_64": (_NOTE_64,), "arm": (_NOTE_ARM,)}.get(arch, ())
    return ProbeSet(
        era=row.era,
        kernels=row.kernels,
        key=row.key,
        lines=tuple(line.line(registers) for line in chosen),
        events=tuple(line.event for line in chosen),
        notes=notes,
    )
