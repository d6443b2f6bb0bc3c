"""All page tables under one root, read at once: a table of entries is an array.

The meaning of every bit comes from the same :class:`~highmem.machine.paging.Level` values that
:func:`highmem.machine.paging.walk` reads one address with; tests hold both to one answer.  A
linear address space has 2**20 pages, and a level is read once for each entry that leads to it,
so tables that point at themselves cost no more than others.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from highmem.errors import BusError
from highmem.image.formats.source import FRAME_SHIFT, FRAME_SIZE, ImageSource
from highmem.machine.entry import ACCESSED, DIRTY, NX, PAT_LARGE, PRESENT, PSE, RW, USER
from highmem.machine.paging import Level, PagingMode, Walk, pae, two_level, walk

__all__ = [
    "MAY_USE",
    "MAY_WRITE",
    "NO_EXECUTE",
    "Entries",
    "Ints",
    "Mappings",
    "Refusals",
    "Runs",
    "SourceMemory",
    "image_mode",
    "read_mappings",
]

Ints = npt.NDArray[np.int64]
Entries = npt.NDArray[np.uint64]

MAY_WRITE = 1
"""Every level lets writes through."""
MAY_USE = 2
"""Every level lets user mode through."""
NO_EXECUTE = 4
"""Some level forbids instruction fetches."""

_PAGES = 1 << 20
_FLAGS_4K = 0xFFF | NX
_FLAGS_LARGE = 0xFFF | PAT_LARGE | NX


@dataclass(frozen=True, slots=True)
class Refusals:
    """Entries behind which nothing is mapped though they say so; columns of equal length."""

    address: Ints
    """The first linear address that the entry stands for."""
    level: npt.NDArray[np.uint8]
    """Which of the mode's levels it belongs to."""
    entry: Entries
    """The entry; for a missing table the physical address of the table."""

    def __len__(self) -> int:
        return len(self.address)


@dataclass(frozen=True, slots=True)
class Runs:
    """Neighbouring pages that map neighbouring frames with equal flags; columns."""

    address: Ints
    size: Ints
    """Bytes."""
    physical: Ints
    shift: npt.NDArray[np.uint8]
    """log2 of the size of each page in it."""
    entry: Entries
    """The first page's."""
    rights: npt.NDArray[np.uint8]
    """MAY_WRITE, MAY_USE, NO_EXECUTE."""

    def __len__(self) -> int:
        return len(self.address)


@dataclass(frozen=True)
class Mappings:
    """Every page that is mapped under ``root``, by ascending address; columns.

    ``entry`` is the entry of the page itself, ``rights`` combine all levels.  ``reserved`` are
    present entries with a reserved bit, at which the silicon faults; ``missing`` are tables
    that the image does not hold.
    """

    mode: PagingMode
    root: int
    address: Ints
    entry: Entries
    physical: Ints
    shift: npt.NDArray[np.uint8]
    rights: npt.NDArray[np.uint8]
    reserved: Refusals
    missing: Refusals
    tables: int
    """How many different frames the tables below the root take."""

    def __len__(self) -> int:
        return len(self.address)

    @cached_property
    def frames(self) -> Ints:
        """The frame of each of the 2**20 linear pages, -1 where nothing is mapped."""
        found = np.full(_PAGES, -1, np.int64)
        for shift in np.unique(self.shift).tolist():
            here = self.shift == shift
            pages = np.arange(1 << (shift - FRAME_SHIFT))
            linear = (self.address[here] >> FRAME_SHIFT)[:, None] + pages
            found[linear] = (self.physical[here] >> FRAME_SHIFT)[:, None] + pages
        return found

    def translate(self, addresses: npt.ArrayLike) -> Ints:
        """The physical address behind each linear one, -1 where nothing is mapped."""
        linear = np.asarray(addresses, np.int64)
        frame = self.frames[linear >> FRAME_SHIFT]
        return np.where(frame < 0, -1, frame << FRAME_SHIFT | linear & (FRAME_SIZE - 1))

    def index(self, address: int) -> int | None:
        """The row of the page that holds linear *address*."""
        at = int(np.searchsorted(self.address, address, "right")) - 1
        if at < 0 or address >= int(self.address[at]) + (1 << int(self.shift[at])):
            return None
        return at

    def between(self, start: int, end: int) -> slice:
        """The rows of the pages of which some byte lies in ``start <= address < end``."""
        first = int(np.searchsorted(self.address, start, "right"))
        if first and int(self.address[first - 1]) + (1 << int(self.shift[first - 1])) > start:
            first -= 1
        return slice(first, max(first, int(np.searchsorted(self.address, end, "left"))))

    def runs(
        self, rows: slice | None = None, *, cuts: npt.ArrayLike = (), exact: bool = False
    ) -> Runs:
        """*rows* merged where address, frame and flags go on; never over one of *cuts*.

        ACCESSED and DIRTY, which the silicon sets at its leisure, count only with *exact*.
        """
        rows = rows or slice(None)
        address, entry = self.address[rows], self.entry[rows]
        physical, shift, rights = self.physical[rows], self.shift[rows], self.rights[rows]
        size = np.left_shift(np.int64(1), shift.astype(np.int64))
        flags = entry & np.where(
            shift == FRAME_SHIFT, np.uint64(_FLAGS_4K), np.uint64(_FLAGS_LARGE)
        )
        if not exact:
            flags &= np.uint64(~(ACCESSED | DIRTY) & (1 << 64) - 1)
        fresh = np.ones(len(address), bool)
        fresh[1:] = (address[1:] != address[:-1] + size[:-1]) | (
            physical[1:] != physical[:-1] + size[:-1]
        )
        for column in (flags, shift, rights):
            fresh[1:] |= column[1:] != column[:-1]
        fresh |= np.isin(address, np.asarray(cuts, np.int64))
        first = np.flatnonzero(fresh)
        total = np.add.reduceat(size, first) if len(first) else size
        return Runs(
            address[first], total, physical[first], shift[first], entry[first], rights[first]
        )


@dataclass(frozen=True, slots=True)
class SourceMemory:
    """The words of an image, for :func:`highmem.machine.paging.walk`."""

    source: ImageSource

    def read32(self, address: int) -> int:
        """The little-endian 32-bit word at physical *address*."""
        return int.from_bytes(self.source.read(address, 4), "little")

    def read64(self, address: int) -> int:
        """The little-endian 64-bit word at physical *address*."""
        return int.from_bytes(self.source.read(address, 8), "little")

    def walk(self, mode: PagingMode, root: int | tuple[int, ...], address: int) -> Walk:
        """The walk of one linear address.  BusError where a table is not in the image."""
        return walk(self, mode, root, address)


@dataclass(frozen=True, slots=True)
class _Frontier:
    """Tables to read: what they map begins at ``base``, with the rights so far."""

    base: Ints
    table: Ints
    rights: npt.NDArray[np.uint8]


def image_mode(*, is_pae: bool, pse: bool = True) -> PagingMode:
    """The paging mode that an image is walked with; *pse* is CR4.PSE, which PAE ignores.

    An image does not tell how many physical address bits the CPU had, so as many as the
    formats allow count.  In a PDPTE the ACCESSED bit is let through: the silicon would have
    refused to load it, but QEMU's emulation sets it in memory, on every level of its walk.
    """
    if not is_pae:
        return two_level(pse=pse, phys_bits=40)
    mode = pae(phys_bits=52)
    pointers = mode.levels[0]._replace(reserved=mode.levels[0].reserved & ~ACCESSED)
    return mode._replace(levels=(pointers, *mode.levels[1:]))


def read_mappings(
    source: ImageSource, mode: PagingMode, root: int, pdptes: tuple[int, ...] | None = None
) -> Mappings:
    """Walk every table under *root* (CR3).

    *pdptes* stand for the four entries of a PAE root that is not in memory.  Nothing raises:
    what cannot be walked is in ``reserved`` and ``missing``.
    """
    frontier = _Frontier(
        np.zeros(1, np.int64),
        np.array([root & mode.root_mask], np.int64),
        np.full(1, MAY_WRITE | MAY_USE, np.uint8),
    )
    found = _Collected()
    for number, level in enumerate(mode.levels):
        if number == 0 and pdptes is not None:
            entries, held = np.array([pdptes], np.uint64), np.ones(1, bool)
        else:
            entries, held = _read_level(source, level, mode.entry_size, frontier.table, found)
        absent = ~held
        found.missing.append(
            (frontier.base[absent], number, frontier.table[absent].astype(np.uint64))
        )
        frontier = _descend(level, number, entries, frontier, found)
    return found.mappings(mode, root)


class _Collected:
    """What the levels gave so far."""

    def __init__(self) -> None:
        self.leaves: list[tuple[Ints, Entries, Ints, int, npt.NDArray[np.uint8]]] = []
        self.reserved: list[tuple[Ints, int, Entries]] = []
        self.missing: list[tuple[Ints, int, Entries]] = []
        self.tables = 0

    def mappings(self, mode: PagingMode, root: int) -> Mappings:
        """All of it, by address."""
        address = np.concatenate([leaf[0] for leaf in self.leaves])
        shift = np.concatenate([np.full(len(leaf[0]), leaf[3], np.uint8) for leaf in self.leaves])
        order = np.argsort(address, kind="stable")
        return Mappings(
            mode,
            root,
            address[order],
            np.concatenate([leaf[1] for leaf in self.leaves])[order],
            np.concatenate([leaf[2] for leaf in self.leaves])[order],
            shift[order],
            np.concatenate([leaf[4] for leaf in self.leaves])[order],
            _refusals(self.reserved),
            _refusals(self.missing),
            self.tables,
        )


def _refusals(parts: list[tuple[Ints, int, Entries]]) -> Refusals:
    return Refusals(
        np.concatenate([part[0] for part in parts]),
        np.concatenate([np.full(len(part[0]), part[1], np.uint8) for part in parts]),
        np.concatenate([part[2] for part in parts]),
    )


def _read_level(
    source: ImageSource, level: Level, entry_size: int, tables: Ints, found: _Collected
) -> tuple[Entries, npt.NDArray[np.bool_]]:
    """The entries of *tables*, a row each, and which of the tables the image holds."""
    size = level.entries * entry_size
    if size < FRAME_SIZE:
        return _read_small(source, level.entries, size, tables)
    frames, inverse = np.unique(tables >> FRAME_SHIFT, return_inverse=True)
    found.tables += len(frames)
    kind = np.dtype("<u8" if entry_size == 8 else "<u4")
    entries = np.ascontiguousarray(source.pages(frames)).view(kind)
    held = source.present(frames)
    if not np.array_equal(inverse, np.arange(len(frames))):
        entries = entries[inverse]
    return entries, held[inverse]


def _read_small(
    source: ImageSource, count: int, size: int, tables: Ints
) -> tuple[Entries, npt.NDArray[np.bool_]]:
    """The same for tables that are part of a frame: the four PDPTEs."""
    entries = np.zeros((len(tables), count), np.uint64)
    held = np.zeros(len(tables), bool)
    for row, table in enumerate(tables.tolist()):
        try:
            entries[row] = struct.unpack(f"<{count}Q", source.read(table, size))
        except BusError:
            continue
        held[row] = True
    return entries, held


def _descend(
    level: Level, number: int, entries: Entries, frontier: _Frontier, found: _Collected
) -> _Frontier:
    """Sort the present *entries* of one level into pages, refusals and the tables below."""
    flat = entries.reshape(-1)
    at = np.flatnonzero(flat & flat.dtype.type(PRESENT))
    entry = flat[at].astype(np.uint64)
    row = at >> level.bits
    base = frontier.base[row] + ((at & (level.entries - 1)) << level.shift)
    rights = frontier.rights[row]
    if level.has_permissions:
        rights = rights & _rights_of(entry) | (rights | _nx_of(entry)) & np.uint8(NO_EXECUTE)
    large = np.zeros(len(entry), bool)
    if level.may_be_large:
        large = (entry & np.uint64(PSE)) != 0
    must_be_zero = np.where(large, np.uint64(level.large_reserved), np.uint64(level.reserved))
    refused = (entry & must_be_zero) != 0
    found.reserved.append((base[refused], number, entry[refused]))
    leaf = (large | level.is_leaf) & ~refused
    physical = (entry & np.uint64(level.table_mask)).astype(np.int64)
    if level.may_be_large:
        high = (entry & np.uint64(level.high_mask)) << np.uint64(level.high_shift)
        whole = ((entry & np.uint64(level.large_mask)) | high).astype(np.int64)
        physical = np.where(large, whole, physical)
    found.leaves.append((base[leaf], entry[leaf], physical[leaf], level.shift, rights[leaf]))
    below = ~(leaf | refused)
    return _Frontier(base[below], physical[below], rights[below])


def _rights_of(entry: Entries) -> npt.NDArray[np.uint8]:
    """MAY_WRITE and MAY_USE as this entry alone grants them."""
    # RW and USER stand side by side in an entry as MAY_WRITE and MAY_USE do.
    assert (RW, USER) == (MAY_WRITE << 1, MAY_USE << 1)
    return ((entry & np.uint64(RW | USER)) >> np.uint64(1)).astype(np.uint8)


def _nx_of(entry: Entries) -> npt.NDArray[np.uint8]:
    return ((entry >> np.uint64(63)) * np.uint64(NO_EXECUTE)).astype(np.uint8)
