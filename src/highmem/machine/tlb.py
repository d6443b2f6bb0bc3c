"""The translation lookaside buffer of one CPU.

Fully associative, ``capacity`` entries, replaced first in, first out: the entry filled longest ago
goes, whether or not it was used since. A large page takes one entry. The SDM lets an entry vanish
at any moment; this one keeps what it can, because a translation that stays too long is what shows
a missing flush. Rules: Intel SDM volume 3A, section 4.10.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from highmem.errors import MachineError

__all__ = ["Tlb", "TlbEntry"]


class TlbEntry(NamedTuple):
    """One cached translation.

    ``base`` is the physical address of the page and ``mask`` its size minus one. ``rw``,
    ``user`` and ``nx`` combine all levels; ``dirty`` is the leaf's D bit when the entry was
    filled. ``allowed`` holds one bit per kind of access that needs no further look, bit number
    ``Access | 8 * CR0.WP``: a write is allowed there only when ``dirty`` is set.
    ``page`` is the linear address of the page.
    """

    page: int
    base: int
    mask: int
    rw: bool
    user: bool
    nx: bool
    is_global: bool
    dirty: bool
    allowed: int


class Tlb:
    """The cached translations of one CPU and their counters.

    ``large_shift`` is log2 of the large page of the paging mode in use. Nothing that is not
    present is ever kept: :class:`~highmem.machine.cpu.Cpu` fills only after a complete walk.
    """

    __slots__ = (
        "_entries",
        "_globals",
        "_larges",
        "capacity",
        "evictions",
        "fills",
        "flushes",
        "hits",
        "large_shift",
        "misses",
    )

    def __init__(self, capacity: int = 64, *, large_shift: int = 22) -> None:
        if capacity < 1:
            raise MachineError(f"a TLB of {capacity} entries makes no sense")
        self.capacity = capacity
        self.large_shift = large_shift
        # Small pages under their page number, large ones under the complement of theirs, so
        # that one dictionary, and its insertion order, serves both.
        self._entries: dict[int, TlbEntry] = {}
        self._larges = 0
        self._globals = 0
        self.hits = 0
        """Look-ups that found an entry."""
        self.misses = 0
        """Look-ups that found none."""
        self.fills = 0
        """Entries put in, replacing one for the same page included."""
        self.evictions = 0
        """Entries that had to go for want of room."""
        self.flushes = 0
        """Flush operations of any kind, whether or not they found anything to drop."""

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[TlbEntry]:
        """The entries, the one to be replaced next first."""
        return iter(tuple(self._entries.values()))

    def peek(self, address: int) -> TlbEntry | None:
        """The entry that would translate ``address``, without counting a look-up."""
        entry = self._entries.get(address >> 12)
        if entry is None and self._larges:
            return self._entries.get(~(address >> self.large_shift))
        return entry

    def lookup(self, address: int) -> TlbEntry | None:
        """The entry that translates ``address``, counted as a hit or a miss."""
        entry = self._entries.get(address >> 12)
        if entry is None and self._larges:
            entry = self._entries.get(~(address >> self.large_shift))
        if entry is None:
            self.misses += 1
        else:
            self.hits += 1
        return entry

    def fill(self, entry: TlbEntry) -> TlbEntry | None:
        """Put ``entry`` in; answer the entry that had to make room, or None.

        An entry for the same page is replaced where it stands and keeps its turn.
        """
        self.fills += 1
        entries = self._entries
        large = entry.mask > 0xFFF
        key = ~(entry.page >> self.large_shift) if large else entry.page >> 12
        old = entries.get(key)
        victim = None
        if old is not None:
            self._globals -= old.is_global
        else:
            if len(entries) >= self.capacity:
                victim = self._drop(next(iter(entries)))
                self.evictions += 1
            self._larges += large
        entries[key] = entry
        self._globals += entry.is_global
        return victim

    def flush_one(self, address: int) -> int:
        """Drop every entry that translates ``address``, global ones too (INVLPG).

        A large page goes as a whole. Answers how many entries went.
        """
        self.flushes += 1
        return self.discard(address)

    def discard(self, address: int) -> int:
        """Do as :meth:`flush_one`, for the silicon's own reasons; not counted as a flush."""
        dropped = 0
        if address >> 12 in self._entries:
            self._drop(address >> 12)
            dropped = 1
        if self._larges and ~(address >> self.large_shift) in self._entries:
            self._drop(~(address >> self.large_shift))
            dropped += 1
        return dropped

    def flush_nonglobal(self) -> int:
        """Drop all entries but the global ones (MOV CR3); answers how many went."""
        if not self._globals:
            return self.flush_all()
        self.flushes += 1
        before = len(self._entries)
        self._entries = {key: entry for key, entry in self._entries.items() if entry.is_global}
        self._larges = sum(key < 0 for key in self._entries)
        return before - len(self._entries)

    def flush_all(self) -> int:
        """Drop everything (CR4.PGE toggled); answers how many entries went."""
        self.flushes += 1
        dropped = len(self._entries)
        self._entries.clear()
        self._larges = self._globals = 0
        return dropped

    def _drop(self, key: int) -> TlbEntry:
        entry = self._entries.pop(key)
        self._larges -= key < 0
        self._globals -= entry.is_global
        return entry
