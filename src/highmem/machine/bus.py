"""The one point through which every operation of the modelled hardware can be observed.

A stepper shows the operations, an explorer interleaves them and a test counts them, all by setting
:attr:`Bus.observer`. Nobody looking costs one ``is None`` per operation: the record is built only
when there is somebody to hand it to.

The observer is called *after* the operation took effect, so whatever it does (even running
another CPU) falls between two operations of the CPU that it interrupts. A page walk, with the
accessed and dirty bits that it sets, is one operation: the silicon reads each entry at once and
updates it with a locked cycle. A :attr:`OpKind.FAULT` is reported just before it is raised.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Bus", "HardwareOp", "OpKind"]


class OpKind(enum.Enum):
    """What the hardware did; the comment says what ``address``, ``value``, ``size`` hold."""

    MEMORY_READ = "memory read"  # physical address, value read (0 if size > 8), bytes
    MEMORY_WRITE = "memory write"  # physical address, value written (0 if size > 8), bytes
    INSTRUCTION_FETCH = "instruction fetch"  # physical address, 0, bytes
    ENTRY_READ = "entry read"  # physical address, the entry, bytes; by software, not by a walk
    ENTRY_WRITE = "entry write"  # physical address, the 32-bit word written, 4
    ACCESSED_DIRTY_SET = "accessed/dirty set"  # physical address of the entry, its new value, bytes
    TLB_FILL = "TLB fill"  # linear address of the page, physical address, bytes of the page
    TLB_EVICT = "TLB evict"  # linear address of the page, physical address, bytes of the page
    TLB_FLUSH_ONE = "TLB flush one"  # linear address, entries dropped, 0
    TLB_FLUSH_NONGLOBAL = "TLB flush non-global"  # 0, entries dropped, 0
    TLB_FLUSH_ALL = "TLB flush all"  # 0, entries dropped, 0
    CR0_WRITE = "CR0 write"  # 0, value of CR0.WP, 0
    CR3_LOAD = "CR3 load"  # 0, new CR3, 0
    CR4_WRITE = "CR4 write"  # 0, the new CR4 (PSE, PAE and PGE only), 0
    EFER_WRITE = "EFER write"  # 0, the new EFER (NXE only), 0
    INTERRUPT_FLAG = "interrupt flag"  # 0, new EFLAGS.IF as 0 or 1, 0
    FAULT = "page fault"  # linear address, error code, 0


class HardwareOp(NamedTuple):
    """One operation of the hardware, as handed to the observer; fields as in :class:`OpKind`.

    ``cpu`` is the number of the CPU that did it, or None for an agent that is not a CPU.
    """

    kind: OpKind
    cpu: int | None
    address: int = 0
    value: int = 0
    size: int = 0


class Bus:
    """Where the operations of one machine pass by."""

    __slots__ = ("observer",)

    def __init__(self) -> None:
        self.observer: Callable[[HardwareOp], None] | None = None
        """Called with every operation; None (the default) when nobody looks."""

    def emit(
        self, kind: OpKind, cpu: int | None, address: int = 0, value: int = 0, size: int = 0
    ) -> None:
        """Report one operation.

        The hot paths of :class:`~highmem.machine.cpu.Cpu` test :attr:`observer` themselves and
        call this only when it is set.
        """
        observer = self.observer
        if observer is not None:
            observer(HardwareOp(kind, cpu, address, value, size))
