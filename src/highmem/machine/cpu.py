"""One CPU: the accesses of a program, the page-table entries that it writes, its interrupt flag.

What an access means is decided by :class:`~highmem.machine.mmu.Mmu`; here it is done.
"""

from __future__ import annotations

from highmem.machine.bus import Bus, OpKind
from highmem.machine.memory import PhysicalMemory, ReadableBuffer
from highmem.machine.mmu import CpuFeatures, GeneralProtection, Mmu

__all__ = ["Cpu", "CpuFeatures", "GeneralProtection"]

_LINEAR_MASK = 0xFFFFFFFF


class Cpu(Mmu):
    """A CPU in supervisor mode unless an access says ``user``; interrupts start enabled.

    Accesses raise :class:`~highmem.machine.paging.PageFault`, and
    :class:`~highmem.errors.BusError` when a translation leads beyond the memory.
    """

    __slots__ = ("_interrupts", "_read8", "_read16", "_read32", "_write8", "_write16")

    def __init__(
        self,
        id: int,
        memory: PhysicalMemory,
        bus: Bus,
        features: CpuFeatures | None = None,
        *,
        pae: bool = False,
        tlb_capacity: int = 64,
    ) -> None:
        super().__init__(id, memory, bus, features, pae=pae, tlb_capacity=tlb_capacity)
        self._interrupts = True
        # Bound once: these are called for every access.
        self._read8, self._write8 = memory.read8, memory.write8
        self._read16, self._write16 = memory.read16, memory.write16
        self._read32 = memory.read32

    @property
    def interrupts_enabled(self) -> bool:
        """EFLAGS.IF."""
        return self._interrupts

    @interrupts_enabled.setter
    def interrupts_enabled(self, value: bool) -> None:
        self._interrupts = value
        if self._bus.observer is not None:
            self._bus.emit(OpKind.INTERRUPT_FLAG, self.id, value=int(value))

    # ---- accesses ------------------------------------------------------------------------

    def read8(self, address: int, user: bool = False) -> int:
        """Load a byte."""
        physical = self.translate(address, False, user)
        value = self._read8(physical)
        if self._bus.observer is not None:
            self._bus.emit(OpKind.MEMORY_READ, self.id, physical, value, 1)
        return value

    def read16(self, address: int, user: bool = False) -> int:
        """Load a 16-bit word; it may cross a page end."""
        if address & 0xFFF > 0xFFE:
            return self._read_split(address, 2, user)
        physical = self.translate(address, False, user)
        value = self._read16(physical)
        if self._bus.observer is not None:
            self._bus.emit(OpKind.MEMORY_READ, self.id, physical, value, 2)
        return value

    def read32(self, address: int, user: bool = False) -> int:
        """Load a 32-bit word; it may cross a page end."""
        if address & 0xFFF > 0xFFC:
            return self._read_split(address, 4, user)
        physical = self.translate(address, False, user)
        value = self._read32(physical)
        if self._bus.observer is not None:
            self._bus.emit(OpKind.MEMORY_READ, self.id, physical, value, 4)
        return value

    def read64(self, address: int, user: bool = False) -> int:
        """Load a 64-bit word as one access (as CMPXCHG8B or MMX do); it may cross a page end."""
        if address & 0xFFF > 0xFF8:
            return self._read_split(address, 8, user)
        physical = self.translate(address, False, user)
        value = self.memory.read64(physical)
        if self._bus.observer is not None:
            self._bus.emit(OpKind.MEMORY_READ, self.id, physical, value, 8)
        return value

    def write8(self, address: int, value: int, user: bool = False) -> None:
        """Store the low byte of ``value``."""
        physical = self.translate(address, True, user)
        self._write8(physical, value)
        if self._bus.observer is not None:
            self._bus.emit(OpKind.MEMORY_WRITE, self.id, physical, value & 0xFF, 1)

    def write16(self, address: int, value: int, user: bool = False) -> None:
        """Store the low 16 bits of ``value``; both pages are checked before any byte changes."""
        if address & 0xFFF > 0xFFE:
            self._write_split(address, (value & 0xFFFF).to_bytes(2, "little"), user)
            return
        physical = self.translate(address, True, user)
        self._write16(physical, value)
        if self._bus.observer is not None:
            self._bus.emit(OpKind.MEMORY_WRITE, self.id, physical, value & 0xFFFF, 2)

    def write32(self, address: int, value: int, user: bool = False) -> None:
        """Store the low 32 bits of ``value``; both pages are checked before any byte changes."""
        if address & 0xFFF > 0xFFC:
            self._write_split(address, (value & _LINEAR_MASK).to_bytes(4, "little"), user)
            return
        physical = self.translate(address, True, user)
        self._write32(physical, value)
        if self._bus.observer is not None:
            self._bus.emit(OpKind.MEMORY_WRITE, self.id, physical, value & _LINEAR_MASK, 4)

    def write64(self, address: int, value: int, user: bool = False) -> None:
        """Store the low 64 bits of ``value``; both pages are checked before any byte changes."""
        value &= 0xFFFFFFFFFFFFFFFF
        if address & 0xFFF > 0xFF8:
            self._write_split(address, value.to_bytes(8, "little"), user)
            return
        physical = self.translate(address, True, user)
        self.memory.write64(physical, value)
        if self._bus.observer is not None:
            self._bus.emit(OpKind.MEMORY_WRITE, self.id, physical, value, 8)

    def read(self, address: int, length: int, user: bool = False) -> bytes:
        """Load ``length`` bytes, page by page; addresses wrap at 4 GiB."""
        return self._load(address, length, user, False)

    def fetch(self, address: int, length: int = 1, user: bool = False) -> bytes:
        """Fetch ``length`` bytes of instructions, page by page."""
        return self._load(address, length, user, True)

    def write(self, address: int, data: ReadableBuffer, user: bool = False) -> None:
        """Store ``data``, page by page in ascending order, as REP MOVSB would.

        A fault leaves the pages before it written.
        """
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            here = (address + done) & _LINEAR_MASK
            count = min(len(view) - done, 0x1000 - (here & 0xFFF))
            self._store(self.translate(here, True, user), view[done : done + count])
            done += count

    def _load(self, address: int, length: int, user: bool, fetch: bool) -> bytes:
        kind = OpKind.INSTRUCTION_FETCH if fetch else OpKind.MEMORY_READ
        pieces = []
        while length > 0:
            count = min(length, 0x1000 - (address & 0xFFF))
            physical = self.translate(address, False, user, fetch)
            piece = self.memory.read(physical, count)
            if self._bus.observer is not None:
                value = int.from_bytes(piece, "little") if count <= 8 and not fetch else 0
                self._bus.emit(kind, self.id, physical, value, count)
            pieces.append(piece)
            address = (address + count) & _LINEAR_MASK
            length -= count
        return b"".join(pieces)

    def _store(self, physical: int, data: memoryview) -> None:
        self.memory.write(physical, data)
        if self._bus.observer is not None:
            count = len(data)
            value = int.from_bytes(data, "little") if count <= 8 else 0
            self._bus.emit(OpKind.MEMORY_WRITE, self.id, physical, value, count)

    def _read_split(self, address: int, length: int, user: bool) -> int:
        return int.from_bytes(self._load(address, length, user, False), "little")

    def _write_split(self, address: int, data: bytes, user: bool) -> None:
        """One store over a page end: both translations come before the first byte."""
        first = 0x1000 - (address & 0xFFF)
        low = self.translate(address, True, user)
        high = self.translate((address + first) & _LINEAR_MASK, True, user)
        view = memoryview(data)
        self._store(low, view[:first])
        self._store(high, view[first:])

    # ---- page-table entries, by physical address -----------------------------------------

    def read_entry(self, physical: int) -> int:
        """The page-table entry at ``physical``, 4 or 8 bytes as the paging mode has it."""
        size = self.mode.entry_size
        entry = self._read32(physical) if size == 4 else self.memory.read64(physical)
        if self._bus.observer is not None:
            self._bus.emit(OpKind.ENTRY_READ, self.id, physical, entry, size)
        return entry

    def write_entry32(self, physical: int, value: int) -> None:
        """Write one 32-bit word of a page-table entry.

        An 8-byte entry takes two of these, in the order that the caller chooses: between them
        the silicon may read the mixture.
        """
        self._write32(physical, value)
        if self._bus.observer is not None:
            self._bus.emit(OpKind.ENTRY_WRITE, self.id, physical, value, 4)
