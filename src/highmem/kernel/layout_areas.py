"""The areas between low memory and the fixmap, placed from the top down.

Each rule is one of the kernel's chains of macros (``pgtable_32_areas.h``, before 5.8
``pgtable_32_types.h``, before 2.6.29 ``pgtable_32.h``).
"""

from __future__ import annotations

from typing import NamedTuple

from highmem.errors import ProfileError
from highmem.kernel.layout_geometry import PAGE_SIZE, Geometry

__all__ = ["Areas", "place_areas", "top_of_fixmap", "vmalloc_start"]

_4G = 1 << 32


class Areas(NamedTuple):
    """Virtual addresses; None where this kernel has no such area."""

    CPU_ENTRY_AREA_BASE: int | None
    LDT_BASE_ADDR: int | None
    PKMAP_BASE: int
    VMALLOC_END: int
    VMALLOC_RESERVE: int
    """``__VMALLOC_RESERVE``: bytes that low memory must leave for vmalloc."""
    MAXMEM: int
    """Bytes of RAM that can be mapped directly."""


def top_of_fixmap(geometry: Geometry, pmd_size: int) -> int:
    """``FIXADDR_TOP`` after ``reserve_top_address()``, if ``reservetop=`` asks for it."""
    reserve = geometry.reservetop_param
    if not reserve:
        return geometry.fixaddr_top
    top = _4G - reserve
    if geometry.reservetop_rule == "pmd":
        top &= -pmd_size
    if top <= geometry.page_offset:
        raise ProfileError(f"reservetop={reserve:#x} leaves the kernel no address space")
    return top - PAGE_SIZE


def place_areas(
    geometry: Geometry,
    *,
    start: int,
    tot_start: int,
    pmd_size: int,
    last_pkmap: int,
    nr_cpus: int,
    highmem: bool,
) -> Areas:
    """Everything below the fixmap that does not depend on the RAM.

    *start* is FIXADDR_START, *tot_start* FIXADDR_TOT_START (FIXADDR_BOOT_START up to 3.18).
    Raises ProfileError if the areas leave nothing for low memory.
    """
    rule = geometry.pkmap_rule
    cea = ldt = None
    if rule in {"fixaddr-boot-start", "fixaddr-start"}:
        origin = tot_start if rule == "fixaddr-boot-start" else start
        pkmap = (origin - PAGE_SIZE * (last_pkmap + 1)) & -pmd_size
        below_fixmap = start
    else:
        pages = geometry.cpu_entry_area_pages_per_cpu * nr_cpus
        origin = start if rule == "cpu-entry-area-from-start" else tot_start
        cea = below_fixmap = (origin - PAGE_SIZE * (pages + 1)) & -pmd_size
        if rule == "ldt-remap":
            ldt = below_fixmap = (cea - PAGE_SIZE) & -pmd_size
        pkmap = (below_fixmap - PAGE_SIZE) & -pmd_size
    vmalloc_end = (pkmap if highmem else below_fixmap) - 2 * PAGE_SIZE
    reserve = _vmalloc_reserve(geometry)
    end = _4G if geometry.vmalloc_rule == "below-4g" else vmalloc_end
    maxmem = end - geometry.page_offset - reserve
    if maxmem < PAGE_SIZE:
        raise ProfileError(
            f"the areas above low memory leave nothing for it: VMALLOC_END would be "
            f"{vmalloc_end:#x} with {reserve >> 20} MiB of vmalloc; fewer CPUs or less vmalloc?"
        )
    return Areas(cea, ldt, pkmap, vmalloc_end, reserve, maxmem)


def _vmalloc_reserve(geometry: Geometry) -> int:
    reserve = geometry.vmalloc_reserve
    if geometry.vmalloc_param is not None:
        reserve = geometry.vmalloc_param
        if geometry.vmalloc_rule == "below-vmalloc-end":
            # Since 2.6.28 the hole comes on top, so that all that was asked for is usable.
            reserve += geometry.vmalloc_offset
    if geometry.reservetop_rule == "exact-and-vmalloc":
        # As with "vmalloc= ... reservetop=": the other order would lose the reserve.
        reserve += geometry.reservetop_param or 0
    return reserve


def vmalloc_start(geometry: Geometry, high_memory: int, vmalloc_end: int) -> int:
    """``VMALLOC_START`` for low memory that ends at virtual address *high_memory*.

    Raises ProfileError if it would lie above *vmalloc_end*.
    """
    offset = geometry.vmalloc_offset
    start = high_memory + offset
    if geometry.vmalloc_rule == "below-4g":
        start = (high_memory + 2 * offset - 1) & -offset
    if start > vmalloc_end:
        raise ProfileError(
            f"vmalloc would start at {start:#x}, above its end {vmalloc_end:#x}: reserve more"
        )
    return start
