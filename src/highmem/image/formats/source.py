"""What every memory image offers, whatever its format.

An image is a set of ranges of physical memory with their content, and what the file claims
about the machine besides.  Whether a claim is true is for the caller to find out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from highmem.errors import BusError, MachineError

__all__ = [
    "FRAME_SHIFT",
    "FRAME_SIZE",
    "PHYSICAL_LIMIT",
    "Bytes",
    "Claims",
    "CpuState",
    "Flags",
    "ImageSource",
    "NotInImageError",
    "RamRange",
    "counted",
    "frame_numbers",
    "iter_chunks",
]

FRAME_SHIFT = 12
FRAME_SIZE = 1 << FRAME_SHIFT

PHYSICAL_LIMIT = 1 << 52
"""No physical address of an x86 machine reaches this: an entry has 52 bits for it (Intel SDM
volume 3, section 4.1.4).  What a file places beyond is damage."""

Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]


class NotInImageError(BusError):
    """The image does not hold the byte at ``address`` (a hole, left out, or damaged)."""

    def __init__(self, address: int, cause: str = "") -> None:
        self.address = address
        detail = f": {cause}" if cause else ""
        MachineError.__init__(self, f"physical address {address:#x} is not in the image{detail}")


class RamRange(NamedTuple):
    """Physical bytes ``start <= address < end``."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class CpuState:
    """Registers of one CPU as a note of the image gives them.

    ``source`` names the notes that they are from (``NT_PRSTATUS``, ``QEMU``); ``cr0`` to
    ``cr4`` are in QEMU's only.  ``cpu`` counts the notes: a dump written by a kernel has none of
    a CPU that was offline.  ``registers`` has the general ones under the names of the
    instruction set (``eip``, ``esp``, …), and may be empty.  ``pid`` is the task's that ran, in
    dumps written by a kernel; 0 for an idle CPU.
    """

    cpu: int
    source: str
    cr0: int | None = None
    cr2: int | None = None
    cr3: int | None = None
    cr4: int | None = None
    pid: int | None = None
    registers: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Claims:
    """What the file says about the machine; each may be missing, and none is proven.

    ``machine`` is ``i386``, ``x86_64`` or ELF's number in words.  ``linear_offset`` is the
    virtual minus the physical address of most of the dump's low memory: ``PAGE_OFFSET`` where
    the kernel's own dump says so.  ``vmcoreinfo`` has the lines ``KEY=VALUE`` of that note.
    ``release`` and ``kernel_version`` are what ``uname -r`` and ``-v`` of the dumped kernel say,
    from the header of a kdump.  ``dump_level`` has makedumpfile's bits for what it left out:
    1 zero pages, 2 and 4 page cache, 8 user data, 16 free pages.
    """

    machine: str | None = None
    page_size: int | None = None
    cpus: tuple[CpuState, ...] = ()
    vmcoreinfo: Mapping[str, str] | None = None
    linear_offset: int | None = None
    panic_cpu: int | None = None
    release: str | None = None
    kernel_version: str | None = None
    dump_level: int | None = None


class ImageSource(Protocol):
    """The physical memory that one image holds; read-only.

    Reading never leaves the image: an address that it does not hold raises
    :class:`NotInImageError` (a :class:`~highmem.errors.BusError`).
    """

    @property
    def format(self) -> str:
        """``raw``, ``LiME``, ``ELF32 core``, ``ELF64 core``, ``kdump (zlib)``, …"""

    @property
    def path(self) -> str:
        """The input's name, fit to be shown."""

    @property
    def ranges(self) -> tuple[RamRange, ...]:
        """What the image holds: sorted, disjoint, adjacent ones joined."""

    @property
    def ram(self) -> tuple[RamRange, ...]:
        """The RAM that the machine had as far as the format tells; where a dump left pages out,
        more than ``ranges``, else the same."""

    @property
    def claims(self) -> Claims:
        """What the file says about the machine."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Counted oddities, one sentence each; may grow as damaged parts are met."""

    @property
    def damaged(self) -> bool:
        """Something that the file announces is not there or makes no sense; ``notes`` say what."""

    def read(self, paddr: int, size: int) -> bytes:
        """*size* bytes from physical address *paddr*.  Raises NotInImageError."""

    def pages(self, pfns: npt.ArrayLike) -> Bytes:
        """The frames *pfns* as rows of 4096 bytes; what the image does not hold is zero."""

    def present(self, pfns: npt.ArrayLike) -> Flags:
        """For each of *pfns*: does the image hold (any byte of) that frame?"""

    def view(self, start: int, end: int) -> Bytes | None:
        """Physical bytes *start* to *end* without a copy, where they lie in one piece of a file;
        else None.  Read-only; valid until the image is closed."""

    def close(self) -> None:
        """Give back files and caches; reading ends."""


def counted(number: int, noun: str) -> str:
    """``1 page``, ``2 pages``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def frame_numbers(pfns: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """*pfns* as signed numbers; one that no machine has becomes -1, which no image holds."""
    given = np.atleast_1d(np.asarray(pfns))
    if given.dtype.kind not in "ui":
        given = given.astype(np.int64)
    # Compared before the conversion: 2^64 - 1 must not become a small number.
    possible = (given >= 0) & (
        given < min(PHYSICAL_LIMIT >> FRAME_SHIFT, np.iinfo(given.dtype).max)
    )
    return np.where(possible, given, 0).astype(np.int64) - ~possible


def iter_chunks(source: ImageSource, size: int = 1 << 22) -> Iterator[tuple[int, Bytes]]:
    """All that *source* holds, in order of address: (physical address, bytes).

    A chunk has at most *size* bytes (a multiple of 4096), does not span a hole, and is a view
    where it can be; every chunk but the first of a range begins at the start of a frame.
    """
    waiting: list[tuple[int, int]] = []  # pieces to be fetched together: ranges may be tiny
    total = 0
    for start, end in _pieces(source.ranges, size):
        chunk = source.view(start, end)
        if chunk is None:
            waiting.append((start, end))
            total += end - start + 2 * FRAME_SIZE
        if waiting and (chunk is not None or total >= size):
            yield from _fetched(source, waiting)
            waiting, total = [], 0
        if chunk is not None:
            yield start, chunk
    if waiting:
        yield from _fetched(source, waiting)


def _pieces(ranges: tuple[RamRange, ...], size: int) -> Iterator[tuple[int, int]]:
    for start, end in ranges:
        at = start
        while at < end:
            stop = min(end, (at & -FRAME_SIZE) + size)
            yield at, stop
            at = stop


def _fetched(source: ImageSource, pieces: list[tuple[int, int]]) -> Iterator[tuple[int, Bytes]]:
    spans = [
        np.arange(start >> FRAME_SHIFT, (end + FRAME_SIZE - 1) >> FRAME_SHIFT)
        for start, end in pieces
    ]
    frames = source.pages(np.concatenate(spans)).reshape(-1)
    row = 0
    for (start, end), span in zip(pieces, spans, strict=True):
        base = row * FRAME_SIZE + start % FRAME_SIZE
        yield start, frames[base : base + end - start]
        row += len(span)
