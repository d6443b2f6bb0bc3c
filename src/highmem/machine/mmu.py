"""The memory management unit of one CPU: control registers, TLB, walks, faults.

Paging is always on and protected mode is flat: a linear address is what a program uses. Source:
Intel SDM volume 3A, sections 2.5 (control registers), 4.1 to 4.10 (paging).

Where the SDM leaves a choice, this MMU takes the one that hides least:

* an access that a cached translation refuses faults from the cache, without another look at the
  tables (the "spurious" fault of SDM 4.10.4.3); the fault drops the entry, so a retry walks;
* a translation is cached only when it is used: there is no prefetch and no speculation;
* there are no paging-structure caches, so a changed upper-level entry is seen by the next walk
  (the four PDPTE registers of PAE excepted, which only MOV CR3 and changes of CR4 reload).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from highmem.errors import MachineError
from highmem.machine.bus import Bus, OpKind
from highmem.machine.memory import PhysicalMemory
from highmem.machine.paging import (
    ACCESSED,
    DIRTY,
    PRESENT,
    PageFault,
    PagingMode,
    Walk,
    pae,
    page_fault,
    permits,
    protection_fault,
    two_level,
    walk,
)
from highmem.machine.tlb import Tlb, TlbEntry

__all__ = ["CpuFeatures", "GeneralProtection", "Mmu"]

_LINEAR_MASK = 0xFFFFFFFF
_CR4_PSE, _CR4_PAE, _CR4_PGE = 1 << 4, 1 << 5, 1 << 7
_EFER_NXE = 1 << 11
_WP_INDEX = 8


class GeneralProtection(MachineError):
    """#GP: a control register was given a value that the silicon refuses."""


@dataclass(frozen=True, slots=True)
class CpuFeatures:
    """What CPUID reports, as far as paging is concerned.

    ``phys_bits`` is MAXPHYADDR. ``pse36`` means something only with ``pse`` and without PAE,
    ``nx`` only with PAE.
    """

    pse: bool = True
    pse36: bool = True
    pge: bool = True
    nx: bool = True
    pat: bool = True
    phys_bits: int = 36

    def __post_init__(self) -> None:
        if not 32 <= self.phys_bits <= 52:
            raise MachineError(f"a CPU has 32 to 52 physical address bits, not {self.phys_bits}")


def _allowed_table() -> tuple[int, ...]:
    """:attr:`TlbEntry.allowed` for each combination rw | user << 1 | nx << 2 | dirty << 3."""
    table = []
    for rights in range(16):
        rw, user, nx, dirty = (bool(rights >> bit & 1) for bit in range(4))
        allowed = 0
        for index in range(16):
            access, wp = index & 7, bool(index & _WP_INDEX)
            if permits(rw, user, nx, access, wp) and (dirty or not access & 1):
                allowed |= 1 << index
        table.append(allowed)
    return tuple(table)


_ALLOWED = _allowed_table()


class Mmu:
    """What stands between CPU number ``id`` and a memory that it may share with others.

    It starts as a kernel leaves it: CR0.WP set, CR4.PSE, CR4.PGE and EFER.NXE as far as the
    features go; CR3 is 0 until loaded. ``cr2`` is the address of the last page fault.
    """

    __slots__ = (
        "_bus",
        "_nxe",
        "_pge",
        "_pse",
        "_root",
        "_wp",
        "_write32",
        "cr2",
        "cr3",
        "features",
        "id",
        "is_pae",
        "memory",
        "mode",
        "tlb",
    )

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
        self.id = id
        self.memory = memory
        self._bus = bus
        self._write32 = memory.write32  # bound once: called for every entry written
        self.features = features = features or CpuFeatures()
        self.is_pae = pae
        self.cr2 = 0
        self.cr3 = 0
        self._root: int | tuple[int, ...] = (0, 0, 0, 0) if pae else 0
        self._wp = _WP_INDEX
        self._pse = features.pse
        self._pge = features.pge
        self._nxe = features.nx and pae
        self.mode: PagingMode = self._make_mode()
        self.tlb = Tlb(tlb_capacity, large_shift=self.mode.large_shift)

    # ---- control registers ---------------------------------------------------------------

    @property
    def cr0_wp(self) -> bool:
        """CR0.WP: whether read-only pages bind the supervisor too."""
        return self._wp != 0

    @cr0_wp.setter
    def cr0_wp(self, value: bool) -> None:
        self._wp = _WP_INDEX if value else 0
        self._bus.emit(OpKind.CR0_WRITE, self.id, value=int(value))

    @property
    def cr4_pse(self) -> bool:
        """CR4.PSE: whether PS in a 4-byte page-directory entry means a 4 MiB page."""
        return self._pse

    @cr4_pse.setter
    def cr4_pse(self, value: bool) -> None:
        if value and not self.features.pse:
            raise GeneralProtection("CR4.PSE set on a CPU without large pages")
        self._write_cr4(pse=value, pge=self._pge)

    @property
    def cr4_pge(self) -> bool:
        """CR4.PGE: whether global entries survive a CR3 load; see :meth:`set_pge`."""
        return self._pge

    @property
    def cr4_pae(self) -> bool:
        """CR4.PAE; a machine is built with it or without it."""
        return self.is_pae

    @property
    def efer_nxe(self) -> bool:
        """EFER.NXE: whether bit 63 of a PAE entry forbids fetching, instead of being reserved.

        Changing it flushes nothing, as WRMSR does not.
        """
        return self._nxe

    @efer_nxe.setter
    def efer_nxe(self, value: bool) -> None:
        if value and not self.features.nx:
            raise GeneralProtection("EFER.NXE set on a CPU without NX")
        self._nxe = value and self.is_pae
        self.mode = self._make_mode()
        self._bus.emit(OpKind.EFER_WRITE, self.id, value=_EFER_NXE if value else 0)

    def set_pge(self, value: bool) -> None:
        """Write CR4.PGE; a change drops every TLB entry, global ones too."""
        if value and not self.features.pge:
            raise GeneralProtection("CR4.PGE set on a CPU without global pages")
        self._write_cr4(pse=self._pse, pge=value)

    def load_cr3(self, value: int) -> None:
        """MOV CR3: switch to the tables at ``value`` and drop all non-global TLB entries.

        In PAE this reads the four PDPTEs into registers; a present one with a reserved bit
        raises :class:`GeneralProtection` and changes nothing.
        """
        if not 0 <= value <= _LINEAR_MASK:
            raise GeneralProtection(f"CR3 is a 32-bit register, {value:#x} does not fit")
        self._root = self._load_root(value)
        self.cr3 = value
        self._bus.emit(OpKind.CR3_LOAD, self.id, value=value)
        dropped = self.tlb.flush_nonglobal()
        self._bus.emit(OpKind.TLB_FLUSH_NONGLOBAL, self.id, value=dropped)

    @property
    def pdptes(self) -> tuple[int, ...]:
        """The four PDPTE registers of PAE; empty without it."""
        return self._root if isinstance(self._root, tuple) else ()

    def _load_root(self, cr3: int) -> int | tuple[int, ...]:
        if not self.is_pae:
            return cr3
        base = cr3 & self.mode.root_mask
        registers = tuple(self.memory.read64(base + 8 * index) for index in range(4))
        for index, entry in enumerate(registers):
            bad = entry & self.mode.levels[0].reserved
            if entry & PRESENT and bad:
                raise GeneralProtection(
                    f"PDPTE {index} at {base + 8 * index:#x} has reserved bits {bad:#x} set"
                )
        return registers

    def _write_cr4(self, *, pse: bool, pge: bool) -> None:
        changed = (pse, pge) != (self._pse, self._pge)
        if changed:
            # In PAE such a change loads the PDPTEs again (SDM 4.4.1), and may fault on them.
            self._root = self._load_root(self.cr3)
        self._pse, self._pge = pse, pge
        self.mode = self._make_mode()
        value = pse * _CR4_PSE | self.is_pae * _CR4_PAE | pge * _CR4_PGE
        self._bus.emit(OpKind.CR4_WRITE, self.id, value=value)
        if changed:
            self._bus.emit(OpKind.TLB_FLUSH_ALL, self.id, value=self.tlb.flush_all())

    def _make_mode(self) -> PagingMode:
        features = self.features
        if self.is_pae:
            return pae(nx=self._nxe, pat=features.pat, phys_bits=features.phys_bits)
        return two_level(
            pse=self._pse,
            pse36=features.pse36,
            pat=features.pat,
            phys_bits=features.phys_bits,
        )

    # ---- translation ---------------------------------------------------------------------

    def translate(
        self, address: int, write: bool = False, user: bool = False, fetch: bool = False
    ) -> int:
        """The physical address of one access, with all its effects on TLB and A/D bits."""
        entry = self.tlb.lookup(address)
        access = write | user << 1 | fetch << 2
        if entry is None:
            return self._miss(address, access)
        if entry.allowed >> (access | self._wp) & 1:
            return entry.base | (address & entry.mask)
        if permits(entry.rw, entry.user, entry.nx, access, self._wp != 0):
            # The rights are there, so D is what is missing. It has to be set in the table,
            # and only a walk finds the entry; what it finds counts, not what was cached.
            return self._miss(address, access)
        self._fault(protection_fault(address, self.mode, access))

    def walk(self, address: int) -> Walk:
        """What the tables say about ``address`` now: no TLB, no effects."""
        return walk(self.memory, self.mode, self._root, address)

    def invlpg(self, address: int) -> None:
        """Drop what the TLB holds for the page of ``address``, global or large as it may be."""
        dropped = self.tlb.flush_one(address)
        if self._bus.observer is not None:
            self._bus.emit(OpKind.TLB_FLUSH_ONE, self.id, address, dropped)

    def _miss(self, address: int, access: int) -> int:
        """Walk, set the A and D bits, fill the TLB."""
        walked = walk(self.memory, self.mode, self._root, address)
        physical = walked.physical
        steps = walked.steps
        for level, where, entry in steps[:-1]:
            if not entry & ACCESSED and level.has_permissions and where is not None:
                self._set_bits(where, entry, ACCESSED)
        if physical is None or not permits(
            walked.rw, walked.user, walked.nx, access, self._wp != 0
        ):
            self._fault(page_fault(walked, self.mode, access))
        _, where, entry = steps[-1]
        wanted = ACCESSED | DIRTY if access & 1 else ACCESSED
        if entry & wanted != wanted and where is not None:
            self._set_bits(where, entry, wanted)
            entry |= wanted
        self._fill(walked, physical, entry & DIRTY != 0)
        return physical

    def _set_bits(self, where: int, entry: int, bits: int) -> None:
        """Set A or D: both are in the low half of an entry of either size."""
        self._write32(where, (entry | bits) & 0xFFFFFFFF)
        if self._bus.observer is not None:
            size = self.mode.entry_size
            self._bus.emit(OpKind.ACCESSED_DIRTY_SET, self.id, where, entry | bits, size)

    def _fill(self, walked: Walk, physical: int, dirty: bool) -> None:
        mask = (1 << walked.page_shift) - 1
        _, _, _, _, _, rw, user, nx, is_global = walked
        entry = TlbEntry(
            walked.address & ~mask,
            physical & ~mask,
            mask,
            rw,
            user,
            nx,
            is_global and self._pge,
            dirty,
            _ALLOWED[rw | user << 1 | nx << 2 | dirty << 3],
        )
        victim = self.tlb.fill(entry)
        if self._bus.observer is not None:
            if victim is not None:
                self._bus.emit(OpKind.TLB_EVICT, self.id, victim.page, victim.base, victim.mask + 1)
            self._bus.emit(OpKind.TLB_FILL, self.id, entry.page, entry.base, mask + 1)

    def _fault(self, fault: PageFault) -> NoReturn:
        """Deliver ``fault``; the TLB forgets the address (SDM 4.10.4.1)."""
        self.cr2 = fault.address
        self.tlb.discard(fault.address)
        if self._bus.observer is not None:
            self._bus.emit(OpKind.FAULT, self.id, fault.address, fault.error_code)
        raise fault
