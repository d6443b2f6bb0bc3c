"""The one schema of recorded events, as columns.

Every reader produces :class:`Batch` objects, every consumer takes them.  A batch is a set
of equally long numpy columns; no Python object stands for a single event.  Text that
repeats (task names, callers, scheduler states) is kept once in :class:`Strings` and the
columns hold its number.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .buffers import zeros

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "BATCH_LENGTH",
    "COLUMNS",
    "FLAG_HARDIRQ",
    "FLAG_IRQS_OFF",
    "FLAG_KNOWN",
    "FLAG_MIGRATE_KNOWN",
    "FLAG_NEED_RESCHED",
    "FLAG_NMI",
    "FLAG_SOFTIRQ",
    "MIGRATE_SHIFT",
    "PREEMPT_SHIFT",
    "SYMBOLS",
    "Account",
    "Argument",
    "Batch",
    "Function",
    "Kind",
    "Rejection",
    "Strings",
    "TraceSource",
]


class Kind(enum.IntEnum):
    """What an event says."""

    MAP = 1
    """A map function was entered; ``value`` is its page or page frame number."""
    MAP_RETURN = 2
    """A map function returned; ``value`` is the address it chose."""
    UNMAP = 3
    """An unmap function was entered; ``value`` is its address, or the page for kunmap."""
    SWITCH = 4
    """``sched_switch`` on ``cpu``: from ``pid`` (left in ``state``) to ``next_pid``."""
    LOST = 5
    """Events were lost just before this one; ``value`` is how many (0: unknown number),
    ``cpu`` where (-1: on any CPU)."""
    FLUSH = 6
    """``kmap_flush_unused`` (from 5.11 on ``__kmap_flush_unused``) was entered."""


class Function(enum.IntEnum):
    """Which kernel function an event belongs to; ``SYMBOLS`` gives the kernel's names."""

    NONE = 0
    KMAP_ATOMIC = 1
    KMAP_ATOMIC_PROT = 2
    KMAP_ATOMIC_HIGH_PROT = 3
    KMAP_ATOMIC_PFN = 4
    KMAP_ATOMIC_PROT_PFN = 5
    IOMAP_ATOMIC_PROT_PFN = 6
    KUNMAP_ATOMIC = 7
    KUNMAP_ATOMIC_HIGH = 8
    IOUNMAP_ATOMIC = 9
    KMAP_LOCAL_PAGE_PROT = 10
    KMAP_LOCAL_PFN_PROT = 11
    KUNMAP_LOCAL_INDEXED = 12
    KMAP = 13
    KMAP_HIGH = 14
    KUNMAP = 15
    KUNMAP_HIGH = 16
    KMAP_FLUSH_UNUSED = 17


SYMBOLS: dict[str, Function] = {
    "kmap_atomic": Function.KMAP_ATOMIC,
    "__kmap_atomic": Function.KMAP_ATOMIC,  # 2.6.37 to 3.3
    "kmap_atomic_prot": Function.KMAP_ATOMIC_PROT,
    "kmap_atomic_high_prot": Function.KMAP_ATOMIC_HIGH_PROT,
    "kmap_atomic_pfn": Function.KMAP_ATOMIC_PFN,
    "kmap_atomic_prot_pfn": Function.KMAP_ATOMIC_PROT_PFN,
    "iomap_atomic_prot_pfn": Function.IOMAP_ATOMIC_PROT_PFN,
    "kunmap_atomic": Function.KUNMAP_ATOMIC,
    "__kunmap_atomic": Function.KUNMAP_ATOMIC,  # 2.6.37 to 5.7
    "kunmap_atomic_notypecheck": Function.KUNMAP_ATOMIC,  # 2.6.36
    "kunmap_atomic_high": Function.KUNMAP_ATOMIC_HIGH,
    "iounmap_atomic": Function.IOUNMAP_ATOMIC,
    "__kmap_local_page_prot": Function.KMAP_LOCAL_PAGE_PROT,
    "__kmap_local_pfn_prot": Function.KMAP_LOCAL_PFN_PROT,
    "kunmap_local_indexed": Function.KUNMAP_LOCAL_INDEXED,
    "kmap": Function.KMAP,
    "kmap_high": Function.KMAP_HIGH,
    "kunmap": Function.KUNMAP,
    "kunmap_high": Function.KUNMAP_HIGH,
    "kmap_flush_unused": Function.KMAP_FLUSH_UNUSED,
    "__kmap_flush_unused": Function.KMAP_FLUSH_UNUSED,  # 5.11 on
}
"""The kernel's symbols, by every name that i386 kernels gave them."""


class Argument(enum.IntEnum):
    """What the ``value`` column of an event holds."""

    NONE = 0
    PAGE = 1
    """Address of a ``struct page``."""
    PFN = 2
    """A page frame number."""
    ADDRESS = 3
    """A virtual address."""
    COUNT = 4
    """A number of events."""


# The ``flags`` column: ftrace's latency flags, packed.
FLAG_KNOWN = 1 << 0
"""The recording had a flags column; without this bit the others mean nothing."""
FLAG_IRQS_OFF = 1 << 1
FLAG_NEED_RESCHED = 1 << 2
FLAG_HARDIRQ = 1 << 3
FLAG_SOFTIRQ = 1 << 4
FLAG_NMI = 1 << 5
FLAG_MIGRATE_KNOWN = 1 << 6
"""The fifth flag (migrate-disable depth, kernels from 5.11 on) was there."""
PREEMPT_SHIFT = 8
"""Bits 8..15: preempt-disable depth."""
MIGRATE_SHIFT = 16
"""Bits 16..23: migrate-disable depth."""

COLUMNS: dict[str, str] = {
    "line": "int64",
    "time": "int64",
    "cpu": "int32",
    "pid": "int32",
    "comm": "int32",
    "kind": "uint8",
    "function": "uint8",
    "argument": "uint8",
    "flags": "uint32",
    "value": "uint64",
    "prot": "uint64",
    "km_type": "int16",
    "caller": "int32",
    "next_pid": "int32",
    "next_comm": "int32",
    "state": "int32",
}
"""Every column and its type.  ``line`` is the line number in a text file (from 1) or the
event's number in a binary one, ``time`` nanoseconds, ``caller`` the text before ``<-`` of a
return event without the offset's size (``copy_page_range+0x1bf``), ``km_type`` -1 where
there is none, ``next_*`` and ``state`` those of SWITCH events; string columns are -1
where there is no text."""

BATCH_LENGTH = 16384
"""Events after which a reader hands a batch on."""


class Strings:
    """Text that repeats, each kept once and known by its number from 0 on."""

    __slots__ = ("_numbers", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """The number of *text*, a new one if it was not seen before."""
        found = self._numbers.get(text)
        if found is None:
            found = self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return found

    def __getitem__(self, number: int) -> str:
        return self.texts[number] if number >= 0 else ""

    def __len__(self) -> int:
        return len(self.texts)


class Batch:
    """Some consecutive events of one recording: a column for each name of COLUMNS.

    Columns are given as anything that has the buffer protocol.  As attributes they are numpy
    arrays, which share that memory; :meth:`buffer` gives what was given.
    """

    __slots__ = (*COLUMNS, "_buffers", "strings")

    line: npt.NDArray[np.int64]
    time: npt.NDArray[np.int64]
    cpu: npt.NDArray[np.int32]
    pid: npt.NDArray[np.int32]
    comm: npt.NDArray[np.int32]
    kind: npt.NDArray[np.uint8]
    function: npt.NDArray[np.uint8]
    argument: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint32]
    value: npt.NDArray[np.uint64]
    prot: npt.NDArray[np.uint64]
    km_type: npt.NDArray[np.int16]
    caller: npt.NDArray[np.int32]
    next_pid: npt.NDArray[np.int32]
    next_comm: npt.NDArray[np.int32]
    state: npt.NDArray[np.int32]
    strings: Strings

    def __init__(self, *, strings: Strings, **columns: Any) -> None:
        if columns.keys() != COLUMNS.keys():
            raise TypeError(f"a batch has the columns {', '.join(COLUMNS)}")
        self._buffers = columns
        self.strings = strings

    def __len__(self) -> int:
        return len(self._buffers["line"])

    def __getattr__(self, name: str) -> Any:
        """A column that no array was made of yet."""
        if name not in COLUMNS:
            raise AttributeError(f"a batch has no {name!r}")
        import numpy as np  # here: see buffers.py

        column = np.asarray(self._buffers[name])
        setattr(self, name, column)
        return column

    def buffer(self, name: str) -> Any:
        """The column *name* as it was given."""
        return self._buffers[name]

    @classmethod
    def empty(cls, length: int, strings: Strings) -> Batch:
        """*length* rows of zeros, for a reader to fill."""
        columns = {name: zeros(length, dtype) for name, dtype in COLUMNS.items()}
        return cls(**columns, strings=strings)

    def head(self, length: int) -> Batch:
        """The first *length* rows; shares memory with this batch."""
        columns = {name: column[:length] for name, column in self._buffers.items()}
        return Batch(**columns, strings=self.strings)


class Rejection(NamedTuple):
    """A line (or record) that could not be read, and why."""

    line: int
    reason: str
    text: str
    """The start of the line, with anything unprintable escaped."""


@dataclass(slots=True)
class Account:
    """Where every line of an input went: ``lines == events + passed_over + rejected``."""

    lines: int = 0
    events: int = 0
    """Lines that became an event of a batch (LOST events that come from a line count here)."""
    passed_over: int = 0
    """Headers, blank lines, and well-formed events of no interest to us."""
    rejected: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    """The first few of the rejected."""
    lost: int = 0
    """Events that the recording itself says were lost; a loss of unknown size counts 1."""
    truncated: bool = False
    """The input ended in the middle of a line or of a compressed frame."""
    notes: list[str] = field(default_factory=list)
    """What else the reader has to say about this input, one sentence each."""
    release: str = field(default="", compare=False)
    """The recorded kernel's release (``uname -r``), printable, if the recording tells it."""


class TraceSource(Protocol):
    """A recording that is being read: iterate to get its batches, once."""

    name: str
    format: str
    account: Account
    strings: Strings

    def __iter__(self) -> Iterator[Batch]: ...
