"""All mappings of an image as rows for a reader, and what changed between two images."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from highmem.errors import UsageError
from highmem.image.formats.source import FRAME_SHIFT
from highmem.image.tables import MAY_USE, MAY_WRITE, NO_EXECUTE, Ints, Mappings
from highmem.image.view import ImageKernel
from highmem.image.windows import slot_name
from highmem.machine.entry import ACCESSED, DIRTY, NX
from highmem.machine.paging import PagingMode, describe_flags

__all__ = ["Change", "MapRow", "Mapped", "Places", "diff_mappings", "map_rows"]

_4G = 1 << 32


class Mapped(NamedTuple):
    """Where addresses lead: the first physical byte, the size of each page, flags and rights."""

    physical: int
    page_size: int
    flags: tuple[str, ...]
    """Of the first page's own entry."""
    rights: str
    """All levels together, like ``rw-k``: read, write, execute, ``u`` user or ``k`` kernel."""


class MapRow(NamedTuple):
    """Neighbouring pages that lead to neighbouring frames with equal flags."""

    address: int
    size: int
    mapped: Mapped
    place: str
    """The name of the region, window or entry of the fixmap."""


@dataclass(frozen=True, slots=True)
class Change:
    """Addresses that lead elsewhere in the second image: None is not mapped."""

    address: int
    size: int
    before: Mapped | None
    after: Mapped | None
    place: str

    @property
    def kind(self) -> str:
        """``added``, ``removed`` or ``changed``."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"


class Places:
    """Names for the addresses of one kernel, and where they begin."""

    def __init__(self, kernel: ImageKernel) -> None:
        self._kernel = kernel
        self._layout = layout = kernel.layout
        regions = sorted(layout.regions(), key=lambda region: region.start)
        self._regions = regions
        self._starts = [region.start for region in regions]
        # Below the permanent windows a region's name says all.
        self._plain = layout.PKMAP_BASE if layout.highmem else layout.FIXADDR_START

    @cached_property
    def cuts(self) -> Ints:
        """Addresses at which a row must end: every region, and every page of the fixmap."""
        layout = self._layout
        fixmap = range(layout.FIXADDR_START, layout.FIXADDR_TOP + 1, 1 << FRAME_SHIFT)
        return np.array(sorted({*self._starts, *fixmap}), np.int64)

    def name(self, address: int, size: int = 1 << FRAME_SHIFT) -> str:
        """What *size* bytes from *address* on are for."""
        layout = self._layout
        if address < self._plain:
            return self._regions[bisect_right(self._starts, address) - 1].name
        window = layout.window_of(address)
        if window is not None:
            return f"window: CPU {window[0]}, slot {slot_name(self._kernel, window[1])}"
        if layout.highmem and layout.is_pkmap(address):
            first, last = layout.pkmap_nr(address), layout.pkmap_nr(address + size - 1)
            return f"pkmap {first}" + (f" to {last}" if last > first else "")
        if layout.FIXADDR_START <= address <= layout.FIXADDR_TOP:
            return self._fixed(layout.virt_to_fix(address))
        region = self._regions[bisect_right(self._starts, address) - 1]
        return region.name

    def _fixed(self, index: int) -> str:
        for row in self._layout.fixed:
            if row.width and row.index <= index < row.index + row.width:
                return row.name + (f" + {index - row.index}" if index > row.index else "")
        return "fixmap"


def _rights(bits: int) -> str:
    write = "w" if bits & MAY_WRITE else "-"
    execute = "-" if bits & NO_EXECUTE else "x"
    return f"r{write}{execute}{'u' if bits & MAY_USE else 'k'}"


def _mapped(mode: PagingMode, physical: int, shift: int, entry: int, rights: int) -> Mapped:
    level = next(level for level in mode.levels if level.shift == shift)
    return Mapped(physical, 1 << shift, describe_flags(entry, level), _rights(rights))


def map_rows(
    kernel: ImageKernel, start: int = 0, end: int = _4G, *, exact: bool = False
) -> Iterator[MapRow]:
    """The mappings of *kernel* with a byte in ``start <= address < end``, merged.

    With *exact* rows differ by ACCESSED and DIRTY too.  A large page that reaches over a border
    is shown whole.
    """
    if not 0 <= start <= end <= _4G:
        raise UsageError(f"{start:#x} to {end:#x} is no range of 32-bit addresses")
    mappings, places = kernel.mappings, Places(kernel)
    runs = mappings.runs(mappings.between(start, end), cuts=places.cuts, exact=exact)
    # There may be a million rows, but only a few kinds of entries and of rights.
    kinds = runs.entry & np.uint64(0x1FFF | NX) | runs.shift.astype(np.uint64) << np.uint64(16)
    kinds |= runs.rights.astype(np.uint64) << np.uint64(24)
    known: dict[int, Mapped] = {}
    columns = (runs.address, runs.size, runs.physical, kinds, runs.entry)
    for address, size, physical, kind, entry in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        like = known.get(kind)
        if like is None:
            shift, rights = kind >> 16 & 0xFF, kind >> 24 & 0xFF
            like = known[kind] = _mapped(mappings.mode, physical, shift, entry, rights)
        mapped = Mapped(physical, like.page_size, like.flags, like.rights)
        yield MapRow(address, size, mapped, places.name(address, size))


def _page_columns(mappings: Mappings) -> tuple[Ints, Ints]:
    """For each of the 2**20 pages its frame, and a number for its flags, size and rights."""
    look = np.zeros(1 << 20, np.int64)
    kept = (~(ACCESSED | DIRTY) & 0x1FFF) if len(mappings) else 0
    flags = (mappings.entry & np.uint64(kept)).astype(np.int64)
    small = mappings.shift == FRAME_SHIFT
    flags[small] &= 0xFFF
    flags |= mappings.shift.astype(np.int64) << 16 | mappings.rights.astype(np.int64) << 24
    for shift in np.unique(mappings.shift).tolist():
        here = mappings.shift == shift
        pages = (mappings.address[here] >> FRAME_SHIFT)[:, None] + np.arange(
            1 << (shift - FRAME_SHIFT)
        )
        look[pages] = flags[here][:, None]
    return mappings.frames, look


def diff_mappings(
    before: ImageKernel, after: ImageKernel, start: int = 0, end: int = _4G
) -> Iterator[Change]:
    """What of *before*'s mappings is otherwise in *after*; ACCESSED and DIRTY do not count."""
    frames_a, look_a = _page_columns(before.mappings)
    frames_b, look_b = _page_columns(after.mappings)
    differ = (frames_a != frames_b) | (look_a != look_b)
    differ[: start >> FRAME_SHIFT] = False
    differ[-(-end >> FRAME_SHIFT) :] = False
    pages = np.flatnonzero(differ)
    if not len(pages):
        return
    places = Places(after)
    fresh = np.ones(len(pages), bool)
    fresh[1:] = pages[1:] != pages[:-1] + 1
    fresh |= np.isin(pages << FRAME_SHIFT, places.cuts)
    for frames, look in ((frames_a, look_a), (frames_b, look_b)):
        here, flags = frames[pages], look[pages]
        follows = (here[1:] == here[:-1] + 1) | (here[1:] < 0) & (here[:-1] < 0)
        fresh[1:] |= ~follows | (flags[1:] != flags[:-1])
    first = np.flatnonzero(fresh)
    counts = np.diff(np.append(first, len(pages)))
    for at, count in zip(pages[first].tolist(), counts.tolist(), strict=True):
        address, size = at << FRAME_SHIFT, count << FRAME_SHIFT
        yield Change(
            address,
            size,
            _page(before.mappings, address),
            _page(after.mappings, address),
            places.name(address, size),
        )


def _page(mappings: Mappings, address: int) -> Mapped | None:
    """How one page is mapped."""
    row = mappings.index(address)
    if row is None:
        return None
    shift = int(mappings.shift[row])
    inside = address - int(mappings.address[row])
    return _mapped(
        mappings.mode,
        int(mappings.physical[row]) + inside,
        shift,
        int(mappings.entry[row]),
        int(mappings.rights[row]),
    )
