"""The hardware: memory, page tables, TLBs and CPUs of 32-bit x86. It knows no Linux.

Modelled, after the Intel SDM volume 3A chapter 4 and held to the MMU of Unicorn in tests:

* physical memory of any size, sparse, shared by all CPUs;
* 32-bit paging (4 KiB and 4 MiB pages, PSE-36) and PAE paging (4 KiB and 2 MiB pages, NX, the four
  PDPTE registers), with the reserved bits that the features imply;
* access rights with CR0.WP and EFER.NXE, page faults with their exact error codes and CR2;
* accessed and dirty bits, set when and where the silicon sets them;
* one TLB per CPU, with global and large entries, INVLPG, MOV CR3 and CR4 changes, and no other
  coherence with the tables: a missing flush has its effect;
* one place where every operation can be observed (:mod:`highmem.machine.bus`).

Not modelled: instructions, segments, interrupts beyond their flag, memory types (PAT, PWT and PCD
are stored and described only) and caches, paging-structure caches, speculation, SMEP, SMAP,
protection keys, PCIDs, 64-bit paging, and reordering of memory operations between CPUs.
"""

from __future__ import annotations

from highmem.machine.bus import Bus, HardwareOp, OpKind
from highmem.machine.cpu import Cpu, CpuFeatures, GeneralProtection
from highmem.machine.machine import Machine
from highmem.machine.memory import PhysicalMemory
from highmem.machine.paging import PageFault, PagingMode, Walk, walk
from highmem.machine.tlb import Tlb, TlbEntry

__all__ = [
    "Bus",
    "Cpu",
    "CpuFeatures",
    "GeneralProtection",
    "HardwareOp",
    "Machine",
    "OpKind",
    "PageFault",
    "PagingMode",
    "PhysicalMemory",
    "Tlb",
    "TlbEntry",
    "Walk",
    "walk",
]
