"""Which RAM a 32-bit kernel sees, and where low memory ends.

The steps of ``find_low_pfn_range()`` and ``zone_sizes_init()`` (``arch/x86/mm/init_32.c``,
``init.c``), from the memory map that the firmware reports.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from highmem.errors import UsageError
from highmem.kernel.layout_geometry import PAGE_SHIFT

__all__ = ["Memory", "RamRange", "Zone", "memparse", "pc_ram", "ram_ranges", "split_memory"]

RamRange = tuple[int, int]
"""Physical bytes of RAM: the first, and the first behind."""

_MAX_DMA_PFN = (16 << 20) >> PAGE_SHIFT
_MIN_LOWMEM_PFN = (64 << 20) >> PAGE_SHIFT
_PFN_4G = 1 << 20
_PFN_64G = 1 << 24
_SUFFIXES = {suffix: 10 * (power + 1) for power, suffix in enumerate("KMGTPE")}


class Zone(NamedTuple):
    """A zone's span of page frames, holes included: ``start_pfn <= pfn < end_pfn``."""

    name: str
    start_pfn: int
    end_pfn: int


class Memory(NamedTuple):
    """Where RAM ends and how it splits; all page frame numbers."""

    max_pfn: int
    max_low_pfn: int
    highstart_pfn: int
    highend_pfn: int
    zones: tuple[Zone, ...]


def memparse(text: str) -> int:
    """A size as on the kernel's command line: ``512M``, ``2g``, ``0x1000``; in bytes.

    Base 0 numbers with one suffix of K, M, G, T, P, E (``lib/cmdline.c``).  Raises UsageError.
    """
    found = re.fullmatch(r"(0[xX][0-9a-fA-F]+|[0-9]+)([kKmMgGtTpPeE]?)", text.strip())
    if found is None:
        raise UsageError(f"{text!r} is not a size; write it like 512M, 2G or 0x20000000")
    digits, suffix = found.groups()
    if digits[0] == "0" and digits.isdigit() and len(digits) > 1:
        raise UsageError(f"{text!r}: the kernel reads a leading 0 as octal; write it without")
    return int(digits, 0) << (_SUFFIXES[suffix.upper()] if suffix else 0)


def pc_ram(size: int, *, firmware: int = 0) -> tuple[RamRange, ...]:
    """The RAM of QEMU's ``pc`` machine (i440FX) with *size* bytes.

    From 3.5 GiB on only 3 GiB stay below 4 GiB, and the rest continues above.  *firmware* bytes
    at the top of the lower part are kept by the firmware and not reported as RAM.
    """
    low = size if size < 0xE000_0000 else 0xC000_0000
    high = ((1 << 32, (1 << 32) + size - low),) if size > low else ()
    return ((0, low - firmware), *high)


def ram_ranges(ram: int | Sequence[RamRange]) -> tuple[RamRange, ...]:
    """*ram* in order: a size is one piece from address 0.  Raises UsageError."""
    ranges = ((0, ram),) if isinstance(ram, int) else tuple(sorted((a, b) for a, b in ram))
    if not ranges:
        raise UsageError("no RAM given")
    previous = 0
    for start, end in ranges:
        if start < previous or end <= start:
            raise UsageError(f"RAM from {start:#x} to {end:#x} is empty, negative or overlaps")
        previous = end
    return ranges


def split_memory(
    ranges: Sequence[RamRange], *, MAXMEM: int, pae: bool, highmem: bool, highmem_param: int | None
) -> Memory:
    """Split *ranges* at MAXMEM bytes, as ``find_low_pfn_range()`` does.

    *highmem* is CONFIG_HIGHMEM, *highmem_param* the ``highmem=`` of the command line in bytes.
    Raises UsageError if no whole page is left.
    """
    max_pfn = _end_of_ram_pfn(ranges, _PFN_64G if pae else _PFN_4G)
    asked = None if highmem_param is None else highmem_param >> PAGE_SHIFT
    maxmem_pfn = MAXMEM >> PAGE_SHIFT
    if max_pfn == 0:
        raise UsageError("the RAM given has not one whole page")
    if max_pfn <= maxmem_pfn:
        max_low_pfn = max_pfn - (_high_part_of_low(max_pfn, asked or 0) if highmem else 0)
    else:
        max_low_pfn = maxmem_pfn
        if not highmem:
            max_pfn = maxmem_pfn
        elif asked is not None:  # more than there is: the kernel warns and uses what there is
            max_pfn = min(max_pfn, maxmem_pfn + asked)
    zones = (
        Zone("DMA", 0, min(_MAX_DMA_PFN, max_low_pfn)),
        Zone("Normal", _MAX_DMA_PFN, max_low_pfn),
        Zone("HighMem", max_low_pfn, max_pfn),
    )
    present = tuple(zone for zone in zones if zone.end_pfn > zone.start_pfn)
    # Without high memory both marks stand at the end of RAM, which is the end of low memory.
    return Memory(max_pfn, max_low_pfn, max_low_pfn, max_pfn, present)


def _end_of_ram_pfn(ranges: Sequence[RamRange], limit_pfn: int) -> int:
    # e820_end_pfn(): a range that begins above the limit does not count at all.
    ends = [end >> PAGE_SHIFT for start, end in ranges if start >> PAGE_SHIFT < limit_pfn]
    return min(max(ends, default=0), limit_pfn)


def _high_part_of_low(max_pfn: int, asked: int) -> int:
    # lowmem_pfn_init(): highmem= is ignored if it would leave less than 64 MiB.
    if asked >= max_pfn or max_pfn - asked < _MIN_LOWMEM_PFN:
        return 0
    return asked
