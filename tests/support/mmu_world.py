"""The small world in which model and Unicorn are compared: frames, tables, random entries.

Both machines start from the same bytes. The first megabyte holds page tables; every data frame
above it says who it is in each of its readable words and in its code, so that an access tells
which frame it reached.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable

from highmem.machine.cpu import CpuFeatures
from highmem.machine.machine import Machine
from highmem.machine.paging import ACCESSED, DIRTY, GLOBAL, NX, PRESENT, PSE, RW, USER
from support.unicorn_machine import Do, Op, UnicornMachine, code_frame

__all__ = ["CODE_OFFSET", "DATA_FRAMES", "READ_BYTES", "WRITE_OFFSET", "World"]

RAM = 16 << 20
HIGH = 1 << 32
READ_BYTES = 0x400
"""Accesses that read stay below this offset of a page."""
WRITE_OFFSET = 0x400
"""Accesses that write stay between here and CODE_OFFSET."""
CODE_OFFSET = 0xF00
"""Where the code of each data frame is; see ``code_frame``."""
DATA_FRAMES = [n << 12 for n in range(0x400, 0x1000)]
"""Physical addresses of the frames that hold data, 4 MiB and up."""

_DIRECTORIES = 0x2000  # two roots, each with the directories that it needs
_TABLES = 0x10000


class World:
    """A model and a Unicorn machine over equal memories, in one paging mode.

    Two roots share page tables. ``tables`` are the frames that hold tables of any level.
    """

    def __init__(self, *, pae: bool, nx: bool = True) -> None:
        self.pae = pae
        # Unicorn's CPU has 40 physical address bits, and NX as far as EFER.NXE is set.
        features = CpuFeatures(phys_bits=40, nx=nx)
        self.machine = Machine(HIGH + (4 << 20), pae=pae, features=features)
        self.unicorn = UnicornMachine(RAM, pae=pae, high=(HIGH, 4 << 20), nxe=nx)
        self.entry_size = 8 if pae else 4
        self.large_shift = 21 if pae else 22
        self.roots = (0x1000, 0x1020) if pae else (_DIRECTORIES, _DIRECTORIES + 0x1000)
        self.tables = [0x1000, _DIRECTORIES, _DIRECTORIES + 0x1000]
        self.page_tables = [_TABLES + (n << 12) for n in range(4)]
        self.tables += self.page_tables
        for frame in [*DATA_FRAMES, *range(HIGH, HIGH + (4 << 20), 4096)]:
            content = _frame_content(frame)
            self.unicorn.write(frame, content)
            self.machine.memory.write(frame, content)

    def reset(self) -> None:
        """Empty all tables but for the harness, and drop every cached translation."""
        for frame in self.tables:
            self.write(frame, bytes(4096))
        if self.pae:
            for number, root in enumerate(self.roots):
                self.write(root, struct.pack("<Q", _DIRECTORIES + (number << 12) | PRESENT))
        for root in self.roots:
            self.unicorn.install(self._write32, root)

    def start(self, *, pse: bool = True, pge: bool = True, wp: bool = True) -> list[Op]:
        """Operations that give both the same control registers and empty TLBs."""
        cpu = self.machine.cpus[0]
        cpu.tlb.flush_all()
        unicorn = self.unicorn
        return [
            Op(Do.SET_CR4, value=unicorn.cr4(pse=pse, pge=not pge)),
            Op(Do.LOAD_CR3, value=self.roots[0]),
            Op(Do.SET_CR4, value=unicorn.cr4(pse=pse, pge=pge)),
            Op(Do.SET_CR0, value=unicorn.cr0(wp=wp)),
        ]

    def write(self, address: int, data: bytes) -> None:
        """Store bytes in the memories of both."""
        self.unicorn.write(address, data)
        self.machine.memory.write(address, data)

    def write_entry(self, address: int, entry: int) -> None:
        """Store a page-table entry in the memories of both."""
        self.write(address, entry.to_bytes(self.entry_size, "little"))

    def directory_entry(self, root: int, linear: int) -> int:
        """The physical address of the directory entry of ``linear`` under root number ``root``."""
        mask = (4096 // self.entry_size) - 1
        index = (linear >> self.large_shift) & mask
        return _DIRECTORIES + (root << 12) + index * self.entry_size

    def table_entry(self, table: int, linear: int) -> int:
        """The physical address of the entry of ``linear`` in page table number ``table``."""
        mask = (4096 // self.entry_size) - 1
        return self.page_tables[table] + ((linear >> 12) & mask) * self.entry_size

    def pokes(self, address: int, entry: int) -> Iterable[Op]:
        """Operations that write an entry as Linux does: high half first, if it has one."""
        if self.pae:
            yield Op(Do.POKE, address + 4, entry >> 32)
        yield Op(Do.POKE, address, entry & 0xFFFFFFFF)

    def random_leaf(self, rng: random.Random) -> int:
        """A page-table entry with random flags, often present, seldom reserved."""
        entry = rng.choice(DATA_FRAMES) | self._flags(rng)
        if self.pae and rng.random() < 0.1:
            entry |= 1 << rng.randrange(40, 63)
        return entry

    def random_large(self, rng: random.Random) -> int:
        """A directory entry that maps a large page, seldom with reserved bits."""
        size = 1 << self.large_shift
        base = rng.randrange(4 << 20, RAM, size)
        entry = base | self._flags(rng) | PSE
        if rng.random() < 0.3:
            entry = entry - base | (HIGH if self.pae else 1 << 13)
        if rng.random() < 0.1:
            entry |= 1 << (rng.randrange(13, 21) if self.pae else 21)
        return entry

    def random_table(self, rng: random.Random, table: int) -> int:
        """A directory entry that points at page table number ``table``."""
        flags = self._flags(rng) & ~GLOBAL & ~DIRTY
        if rng.random() < 0.7:
            flags |= PRESENT | RW | USER
        if rng.random() < 0.7:
            flags &= ~NX
        return self.page_tables[table] | flags

    def random_access(self, rng: random.Random, page: int, unique: int) -> Op:
        """An access to the 4 KiB page at ``page``; ``unique`` gives a write its own place."""
        user = rng.random() < 0.4
        kind = rng.random()
        if kind < 0.2:
            return Op(Do.FETCH, page + CODE_OFFSET, 0, user)
        if kind < 0.6:
            do = rng.choice((Do.READ8, Do.READ16, Do.READ32, Do.READ32))
            return Op(do, page + rng.randrange(READ_BYTES - 4), 0, user)
        do = rng.choice((Do.WRITE8, Do.WRITE16, Do.WRITE32, Do.WRITE32))
        slots = (CODE_OFFSET - WRITE_OFFSET) // 4
        offset = WRITE_OFFSET + unique % slots * 4
        return Op(do, page + offset, unique * 0x9E3779B1 & 0xFFFFFFFF, user)

    def _flags(self, rng: random.Random) -> int:
        flags = rng.getrandbits(12) & ~(PRESENT | PSE)
        if rng.random() < 0.85:
            flags |= PRESENT
        if rng.random() < 0.5:
            flags |= RW | ACCESSED | DIRTY
        if self.pae and rng.random() < 0.3:
            flags |= NX
        return flags

    def _write32(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(4, "little"))


def _frame_content(frame: int) -> bytes:
    """4 KiB that name ``frame``: distinct words to read, zeros to write, code."""
    words = ((frame >> 12) * 0x9E3779B1 + n * 0x85EBCA6B & 0xFFFFFFFF for n in range(256))
    body = struct.pack("<256I", *words).ljust(CODE_OFFSET, b"\0") + code_frame(frame >> 12)
    return body.ljust(4096, b"\0")
