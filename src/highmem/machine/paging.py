"""Page-table entries and the page walk of 32-bit x86, as data.

A :class:`PagingMode` is a table of :class:`Level`; :func:`walk` reads that table and knows nothing
of two or three levels. Source of every bit and rule: Intel SDM volume 3A, sections 4.3 (32-bit
paging), 4.4 (PAE paging), 4.6 (access rights) and 4.7 (page-fault exceptions).

The walk only looks: it sets no accessed or dirty bit and consults no TLB. Those are the business
of :class:`~highmem.machine.cpu.Cpu`; a memory image is walked with the same function.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol

from highmem.errors import MachineError
from highmem.machine.entry import (
    ACCESSED,
    DIRTY,
    GLOBAL,
    NX,
    PAT,
    PAT_LARGE,
    PCD,
    PRESENT,
    PSE,
    PWT,
    RW,
    SOFTW1,
    SOFTW2,
    SOFTW3,
    USER,
)

__all__ = [  # table
    "ACCESSED",
    "DIRTY",
    "GLOBAL",
    "NX",
    "PAT",
    "PAT_LARGE",
    "PCD",
    "PRESENT",
    "PSE",
    "PWT",
    "RW",
    "SOFTW1",
    "SOFTW2",
    "SOFTW3",
    "USER",
    "Access",
    "EntryMemory",
    "Level",
    "PageFault",
    "PagingMode",
    "Step",
    "Walk",
    "WalkFailure",
    "describe_flags",
    "pae",
    "page_fault",
    "permits",
    "protection_fault",
    "two_level",
    "walk",
]

_PERMISSIONS = RW | USER
_LEAF_FLAGS = {  # table
    "PRESENT": PRESENT,
    "RW": RW,
    "USER": USER,
    "PWT": PWT,
    "PCD": PCD,
    "ACCESSED": ACCESSED,
    "DIRTY": DIRTY,
    "GLOBAL": GLOBAL,
    "SOFTW1": SOFTW1,
    "SOFTW2": SOFTW2,
    "SOFTW3": SOFTW3,
    "NX": NX,
}
_TABLE_FLAGS = {k: v for k, v in _LEAF_FLAGS.items() if k not in ("DIRTY", "GLOBAL")}
_PDPTE_FLAGS = {k: v for k, v in _TABLE_FLAGS.items() if k not in ("RW", "USER", "ACCESSED", "NX")}


class EntryMemory(Protocol):
    """What a walk reads its entries from: physical memory, of the machine or of an image.

    An address without memory raises :class:`~highmem.errors.BusError`.
    """

    def read32(self, address: int) -> int:
        """The little-endian 32-bit word at physical ``address``."""

    def read64(self, address: int) -> int:
        """The little-endian 64-bit word at physical ``address``."""


class Access(enum.IntFlag):
    """What an access wants; no flag at all is a read by the supervisor."""

    READ = 0
    WRITE = 1
    USER = 2
    FETCH = 4


class Level(NamedTuple):
    """One level of the page tables.

    ``shift`` and ``bits`` cut the index out of the linear address. ``may_be_large`` says that
    PS makes the entry a leaf here; ``has_permissions`` that R/W, U/S, A (and NX in PAE)
    exist, which they do not in a PDPTE. The four masks are bits of a present entry:
    ``table_mask`` the address of the next table (or of the 4 KiB page), ``reserved`` the
    must-be-zero bits of such an entry, ``large_mask`` and ``large_reserved`` the same for a
    large page. ``high_mask`` are the PSE-36 bits, which hold physical address bits 32 and up;
    ``high_shift`` moves them there.
    """

    name: str
    shift: int
    bits: int
    table_mask: int
    reserved: int = 0
    has_permissions: bool = True
    may_be_large: bool = False
    large_mask: int = 0
    large_reserved: int = 0
    high_mask: int = 0
    high_shift: int = 0

    @property
    def entries(self) -> int:
        """Entries in one table of this level."""
        return 1 << self.bits

    @property
    def is_leaf(self) -> bool:
        """Whether an entry here always maps a page."""
        return self.shift == 12


class PagingMode(NamedTuple):
    """A format of page tables, with the features that decide which bits are reserved.

    ``root_mask`` cuts the address of the first table out of CR3. ``nx_enabled`` is EFER.NXE
    (it also decides whether a page fault reports instruction fetches). ``top_in_registers``
    tells that MOV CR3 loads the first level into registers, as PAE does with its PDPTEs.
    """

    name: str
    entry_size: int
    levels: tuple[Level, ...]
    root_mask: int
    large_shift: int
    nx_enabled: bool = False
    top_in_registers: bool = False


def _below(high: int, low: int = 0) -> int:
    """The mask of bits ``high - 1`` down to ``low``."""
    return (1 << high) - (1 << low) if high > low else 0


def two_level(
    *, pse: bool = True, pse36: bool = True, pat: bool = True, phys_bits: int = 36
) -> PagingMode:
    """32-bit paging: 10 + 10 + 12 bits, 4-byte entries, 4 MiB pages with CR4.PSE.

    ``pse`` is CR4.PSE; without it PS is ignored and no bit at all is reserved. ``phys_bits``
    limits PSE-36, which never reaches beyond 40 bits.
    """
    width = min(40, phys_bits)
    high = _below(width - 19, 13) if pse36 else 0
    directory = Level(
        "page directory",
        22,
        10,
        _below(32, 12),
        may_be_large=pse,
        large_mask=_below(32, 22),
        large_reserved=(_below(22, 13) & ~high) | (0 if pat else PAT_LARGE),
        high_mask=high,
        high_shift=32 - 13,
    )
    # SDM 4.3: in 32-bit paging bits are reserved only while CR4.PSE is set.
    table = Level("page table", 12, 10, _below(32, 12), reserved=PAT if pse and not pat else 0)
    return PagingMode("32-bit", 4, (directory, table), _below(32, 12), 22)


def pae(*, nx: bool = True, pat: bool = True, phys_bits: int = 36) -> PagingMode:
    """PAE paging: 2 + 9 + 9 + 12 bits, 8-byte entries, 2 MiB pages whatever CR4.PSE says.

    ``nx`` is EFER.NXE: without it bit 63 is reserved.
    """
    beyond = _below(63, phys_bits) | (0 if nx else NX)
    address = _below(phys_bits, 12)
    pointers = Level(
        "PDPT",
        30,
        2,
        address,
        reserved=_below(3, 1) | _below(9, 5) | _below(64, phys_bits),
        has_permissions=False,
    )
    directory = Level(
        "page directory",
        21,
        9,
        address,
        reserved=beyond,
        may_be_large=True,
        large_mask=_below(phys_bits, 21),
        large_reserved=beyond | _below(21, 13) | (0 if pat else PAT_LARGE),
    )
    table = Level("page table", 12, 9, address, reserved=beyond | (0 if pat else PAT))
    return PagingMode(
        "PAE", 8, (pointers, directory, table), _below(32, 5), 21, nx, top_in_registers=True
    )


class Step(NamedTuple):
    """One entry that a walk read.

    ``address`` is the entry's physical address, or None for a PDPTE that came out of a
    register.
    """

    level: Level
    address: int | None
    entry: int


class WalkFailure(enum.Enum):
    """Why a walk ended without a translation; the last step holds the entry at fault."""

    NOT_PRESENT = "not present"
    RESERVED = "reserved bits set"


class Walk(NamedTuple):
    """What the page tables say about one linear address.

    ``physical`` and ``page_shift`` (log2 of the page size) are None and 0 when ``failure`` is
    set. ``rw``, ``user`` and ``nx`` combine all levels: a right needs every level's consent,
    one NX forbids fetching. ``is_global`` is the leaf's G bit, whatever CR4.PGE says.
    """

    address: int
    steps: tuple[Step, ...]
    failure: WalkFailure | None
    physical: int | None
    page_shift: int
    rw: bool
    user: bool
    nx: bool
    is_global: bool

    @property
    def page_size(self) -> int:
        """Bytes of the page, 0 when nothing is mapped."""
        return 1 << self.page_shift if self.page_shift else 0

    @property
    def leaf(self) -> Step:
        """The last entry read: the one that maps the page, or the one at fault."""
        return self.steps[-1]


class PageFault(MachineError):
    """#PF: the walk, or a TLB entry, refused an access.

    ``address`` is what CR2 gets, ``error_code`` the code that the silicon pushes (bit 0 P: a
    protection was violated, 1 W: write, 2 U: user mode, 3 RSVD: reserved bit, 4 I/D: fetch).
    ``level`` and ``entry`` are the name of the level and the entry that refused; both are None
    when a TLB entry did. ``cause`` says it in words.
    """

    def __init__(
        self, address: int, error_code: int, cause: str, level: str | None, entry: int | None
    ) -> None:
        self.address = address
        self.error_code = error_code
        self.cause = cause
        self.level = level
        self.entry = entry
        where = "" if entry is None else f" ({level} entry {entry:#x})"
        super().__init__(
            f"page fault at {address:#010x}, error code {error_code:#x}: {cause}{where}"
        )


def walk(memory: EntryMemory, mode: PagingMode, root: int | tuple[int, ...], address: int) -> Walk:
    """Walk the tables for the linear ``address``; a failed walk is a result, not an exception.

    ``root`` is CR3, or in PAE the four PDPTE registers. With CR3 the PDPTEs are read from
    memory, and one with a reserved bit (which MOV CR3 would have refused with #GP) is a
    failure. A table beyond the memory raises :class:`~highmem.errors.BusError`.
    """
    if not 0 <= address <= 0xFFFFFFFF:
        raise MachineError(f"{address:#x} is not a 32-bit linear address")
    size = mode.entry_size
    read = memory.read32 if size == 4 else memory.read64
    steps: list[Step] = []
    registers: tuple[int, ...] | None = None
    if isinstance(root, tuple):
        registers, table = root, 0
    else:
        table = root & mode.root_mask
    rights = _PERMISSIONS
    nx = False
    for level in mode.levels:
        index = (address >> level.shift) & ((1 << level.bits) - 1)
        where: int | None
        if registers is not None:
            where, entry, registers = None, registers[index], None
        else:
            where = table + index * size
            entry = read(where)
        steps.append(Step(level, where, entry))
        if not entry & PRESENT:
            return _failed(address, steps, WalkFailure.NOT_PRESENT)
        large = level.may_be_large and entry & PSE
        if entry & (level.large_reserved if large else level.reserved):
            return _failed(address, steps, WalkFailure.RESERVED)
        if level.has_permissions:
            rights &= entry
            nx = nx or entry >= NX
        if large or level.shift == 12:
            break
        table = entry & level.table_mask
    base = entry & level.table_mask
    if large:
        base = (entry & level.large_mask) | ((entry & level.high_mask) << level.high_shift)
    return Walk(
        address,
        tuple(steps),
        None,
        base | (address & ((1 << level.shift) - 1)),
        level.shift,
        bool(rights & RW),
        bool(rights & USER),
        nx,
        bool(entry & GLOBAL),
    )


def _failed(address: int, steps: list[Step], failure: WalkFailure) -> Walk:
    return Walk(address, tuple(steps), failure, None, 0, False, False, False, False)


def permits(rw: bool, user: bool, nx: bool, access: int, wp: bool) -> bool:
    """Whether the combined rights of a translation allow ``access`` (SDM 4.6).

    ``wp`` is CR0.WP: when it is clear the supervisor writes to read-only pages.
    """
    access = int(access)  # arithmetic on the flags themselves is slow
    if access & 2 and not user:
        return False
    if access & 4 and nx:
        return False
    return rw or not access & 1 or not (access & 2 or wp)


def page_fault(walked: Walk, mode: PagingMode, access: int) -> PageFault:
    """The fault for an ``access`` that ``walked`` does not allow."""
    failure = walked.failure
    level, _, entry = walked.leaf
    if failure is not None:
        code = 0b1001 if failure is WalkFailure.RESERVED else 0
        cause = failure.value
    else:
        code = 1
        cause, (level, _, entry) = _refusal(walked, access)
    return PageFault(walked.address, code | _access_code(mode, access), cause, level.name, entry)


def protection_fault(address: int, mode: PagingMode, access: int) -> PageFault:
    """The fault for an ``access`` that the rights in a TLB entry refuse."""
    code = 1 | _access_code(mode, access)
    return PageFault(address, code, "refused by the rights in a TLB entry", None, None)


def _access_code(mode: PagingMode, access: int) -> int:
    """The W, U and I/D bits of an error code; I/D exists only with EFER.NXE."""
    code = (int(access) & 3) << 1
    if access & Access.FETCH and mode.nx_enabled:
        code |= 0b10000
    return code


def _refusal(walked: Walk, access: int) -> tuple[str, Step]:
    """The first entry of a complete walk that refuses ``access``, and why."""
    judged = [step for step in walked.steps if step.level.has_permissions]
    if access & Access.USER:
        for step in judged:
            if not step.entry & USER:
                return "user access to a supervisor page", step
    if access & Access.FETCH:
        for step in judged:
            if step.entry & NX:
                return "instruction fetch from a no-execute page", step
    for step in judged:
        if not step.entry & RW:
            return "write to a read-only page", step
    raise MachineError(f"the walk of {walked.address:#010x} refuses nothing")


def describe_flags(entry: int, level: Level) -> tuple[str, ...]:
    """The names of the bits set in ``entry`` of ``level``, lowest bit first.

    ``()`` for an entry without PRESENT, whose other bits mean nothing to the silicon.
    """
    if not entry & PRESENT:
        return ()
    large = level.may_be_large and bool(entry & PSE)
    table = _LEAF_FLAGS if level.is_leaf or large else _TABLE_FLAGS
    if not level.has_permissions:
        table = _PDPTE_FLAGS
    found = {bit: name for name, bit in table.items() if entry & bit}
    if large:
        found[PSE] = "PSE"
        if entry & PAT_LARGE:
            found[PAT_LARGE] = "PAT_LARGE"
    elif level.is_leaf and entry & PAT:
        found[PAT] = "PAT"
    return tuple(found[bit] for bit in sorted(found))
