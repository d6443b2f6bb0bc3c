"""The bits of a page-table entry of 32-bit x86, for both entry sizes.

Source: Intel SDM volume 3A, tables 4-4 to 4-6 (32-bit paging) and 4-8 to 4-11 (PAE). The names are
those of the kernel where it has one. :mod:`highmem.machine.paging` offers them too.
"""

from __future__ import annotations

__all__ = [
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
]

PRESENT = 1 << 0
"""P: the entry maps something; when clear the silicon ignores all other bits."""
RW = 1 << 1
"""R/W: writes are allowed through this entry."""
USER = 1 << 2
"""U/S: user-mode accesses are allowed through this entry."""
PWT = 1 << 3
"""PWT: write-through caching (memory type only; not modelled)."""
PCD = 1 << 4
"""PCD: caching disabled (memory type only; not modelled)."""
ACCESSED = 1 << 5
"""A: set by the silicon when the entry is used for a translation."""
DIRTY = 1 << 6
"""D: set by the silicon in the leaf entry on a write."""
PSE = 1 << 7
"""PS, in a page-directory entry: this entry maps a large page."""
PAT = 1 << 7
"""PAT, in a page-table entry (the place of PS one level up)."""
GLOBAL = 1 << 8
"""G, in a leaf: survives a CR3 load in the TLB when CR4.PGE is set."""
SOFTW1 = 1 << 9
"""First of three bits that the silicon leaves to software."""
SOFTW2 = 1 << 10
"""Second software bit."""
SOFTW3 = 1 << 11
"""Third software bit."""
PAT_LARGE = 1 << 12
"""PAT, in an entry that maps a large page."""
NX = 1 << 63
"""XD, PAE only: no instruction fetch through this entry (reserved while EFER.NXE is clear)."""
