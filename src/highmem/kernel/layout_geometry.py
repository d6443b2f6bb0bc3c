"""The configuration facts that decide addresses on 32-bit x86, and presets by kernel.

A :class:`Geometry` says *what* a kernel has (an entry of the fixmap, a rule for the place of
an area, a boot parameter); which release has what stands only in ``GEOMETRIES``.  Sources:
``arch/x86/include/asm/fixmap.h``, ``pgtable_32_areas.h`` (before 5.8 ``pgtable_32_types.h``)
and ``arch/x86/mm/init_32.c`` of each era.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from highmem.errors import ProfileError

__all__ = ["GEOMETRIES", "PAGE_OFFSETS", "PAGE_SHIFT", "PAGE_SIZE", "Geometry"]

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT

PAGE_OFFSETS: dict[str, int] = {
    "3G": 0xC000_0000,
    "3G_OPT": 0xB000_0000,
    "2G": 0x8000_0000,
    "2G_OPT": 0x7800_0000,
    "1G": 0x4000_0000,
}
"""CONFIG_VMSPLIT_*: where the kernel's part of the address space begins."""


class Geometry(NamedTuple):
    """Everything about a kernel's build and command line that moves an address.

    The defaults are a distribution's configuration of Linux 5.10.
    """

    page_offset: int = 0xC000_0000
    """One of PAGE_OFFSETS."""
    fixaddr_top: int = 0xFFFF_F000
    """``__FIXADDR_TOP`` as initialised; ``reservetop=`` lowers it."""

    # Entries of enum fixed_addresses, in its order.
    fix_vdso: bool = False
    """FIX_VDSO, the page of the vsyscall DSO (until 3.10; gone by 3.16)."""
    pvclock: bool = False
    """PVCLOCK_FIXMAP_*, CONFIG_PARAVIRT_CLOCK (3.8 to 4.4)."""
    pvti_size: int = 64
    """Bytes per CPU of the pvclock pages: one cache line (CONFIG_X86_L1_CACHE_SHIFT)."""
    dbgp_earlycon: bool = True
    """FIX_DBGP_BASE and FIX_EARLYCON_MEM_BASE (2.6.23 on)."""
    ohci1394: str = "none"
    """FIX_OHCI1394_BASE, CONFIG_PROVIDE_OHCI1394_DMA_INIT: ``none``; ``at-end`` (2.6.25 to
    2.6.29); ``after-permanent`` (2.6.30 to 2.6.34); ``before-apic``, where it moves every
    window down by a page (2.6.35 on and stable 2.6.32: commit ff30a0543e9)."""
    local_apic: bool = True
    """FIX_APIC_BASE, CONFIG_X86_LOCAL_APIC."""
    io_apic: bool = True
    """FIX_IO_APIC_BASE_0 to END, CONFIG_X86_IO_APIC: MAX_IO_APICS = 64 pages."""
    visws: bool = False
    """Four pages of the SGI Visual Workstation, CONFIG_X86_VISWS_APIC (gone by 3.16)."""
    f00f: bool = False
    """FIX_F00F_IDT, CONFIG_X86_F00F_BUG (gone by 3.10)."""
    cyclone: bool = False
    """FIX_CYCLONE_TIMER, CONFIG_X86_CYCLONE_TIMER (gone by 3.10)."""
    ro_idt: bool = False
    """FIX_RO_IDT (3.10 until the CPU entry area took the IDT in)."""
    kmap_rule: str = "always"
    """When the windows exist: ``highmem`` (with CONFIG_HIGHMEM only, up to 2.6.27) or
    ``always`` (X86_32 from 2.6.28, KMAP_LOCAL from 5.11, which X86_32 selects)."""
    acpi: str = "none"
    """FIX_ACPI_BEGIN to END, 4 pages: ``permanent`` (up to 2.6.26), ``after-btmap`` (2.6.27
    to 2.6.29) or ``none`` (later, or without CONFIG_ACPI)."""
    pcie_mcfg: bool = True
    """FIX_PCIE_MCFG, CONFIG_PCI_MMCONFIG."""
    paravirt_bootmap: bool = False
    """FIX_PARAVIRT_BOOTMAP: CONFIG_PARAVIRT; from 5.10 PARAVIRT_XXL, never on 32 bits."""
    text_poke: str = "none"
    """FIX_TEXT_POKE0 and 1 (2.6.30 to 5.0): ``poke0-first``, ``poke1-first`` or ``none``."""
    lnw_vrtc: bool = False
    """FIX_LNW_VRTC, CONFIG_X86_INTEL_MID (3.x to 5.11)."""
    gdt_remap: bool = False
    """FIX_GDT_REMAP_BEGIN to END, a page per CPU (4.12 to 4.14)."""
    apei_ghes: bool = True
    """FIX_APEI_GHES_IRQ and _NMI, CONFIG_ACPI_APEI_GHES (4.15 or 4.19 on)."""
    tboot: bool = False
    """FIX_TBOOT_BASE, CONFIG_INTEL_TXT (2.6.32 on), after FIX_WP_TEST."""
    btmap_rule: str = "if-crossing-512"
    """Where the boot-time mappings are and how many: ``at-end-16``, ``round-512-256`` (256
    of them from the next multiple of 512), ``round-256``, ``if-crossing-256`` (rounded only if
    they would cross a page table), ``if-crossing-512``."""

    # The areas below the fixmap.
    pkmap_rule: str = "ldt-remap"
    """What lies between the fixmap and the permanent mappings: ``fixaddr-boot-start`` (nothing,
    they start below the boot-time part; up to 3.18), ``fixaddr-start`` (nothing, below the
    permanent part; 3.19 to 4.14), ``cpu-entry-area`` (4.15 to 4.18),
    ``cpu-entry-area-from-start`` (the same counted from FIXADDR_START: KPTI backports) or
    ``ldt-remap`` (CPU entry area and LDT; 4.19 on)."""
    cpu_entry_area_pages_per_cpu: int = 43
    """40 up to 5.4, then ceil(sizeof(struct cpu_entry_area) / 4096): 43 in Debian's 5.10 and
    6.1."""
    vmalloc_rule: str = "below-vmalloc-end"
    """``below-4g`` (up to 2.6.27): MAXMEM counts from the end of the address space, so the
    areas at the top eat into the 128 MiB of vmalloc; ``below-vmalloc-end`` (2.6.28 on, commit
    e621bd18958): it counts from VMALLOC_END."""
    vmalloc_reserve: int = 128 << 20
    """``__VMALLOC_RESERVE`` unless ``vmalloc=`` is given."""
    vmalloc_offset: int = 8 << 20
    """``VMALLOC_OFFSET``, the hole between low memory and vmalloc that catches overruns."""
    reservetop_rule: str = "pmd"
    """What ``reservetop=`` does: ``exact-and-vmalloc`` (up to 2.6.30, also adds to the vmalloc
    reserve), ``exact`` (2.6.31 on) or ``pmd`` (3.16 on, aligned down to PMD_SIZE)."""

    # Boot parameters, in bytes; None is "not given".
    vmalloc_param: int | None = None
    """``vmalloc=``"""
    highmem_param: int | None = None
    """``highmem=``"""
    reservetop_param: int | None = None
    """``reservetop=``"""

    sizeof_struct_page: int = 40
    """Bytes: 40 with CONFIG_MEMCG where the pointer lives in struct page, else 32."""

    def but(self, **changes: Any) -> Geometry:
        """This one with *changes*, which may come from a file or a measurement: ProfileError for
        a value that no kernel has."""
        new = self._replace(**changes)
        for name, value in changes.items():
            _check_type(name, value, self._field_defaults[name])
            allowed = _CHOICES.get(name)
            if allowed and value not in allowed:
                raise ProfileError(f"{name} is {value!r}, must be one of {', '.join(allowed)}")
        if new.page_offset not in PAGE_OFFSETS.values():
            known = ", ".join(f"{value:#x}" for value in PAGE_OFFSETS.values())
            raise ProfileError(f"page_offset is {new.page_offset:#x}, must be one of {known}")
        if new.fixaddr_top % PAGE_SIZE or new.fixaddr_top >= 1 << 32:
            raise ProfileError(f"fixaddr_top {new.fixaddr_top:#x} is not a page of 32 bits")
        if not 32 <= new.pvti_size <= PAGE_SIZE:
            raise ProfileError(f"pvti_size is {new.pvti_size}, must be 32 to 4096")
        if new.reservetop_rule != "pmd" and (new.reservetop_param or 0) % PAGE_SIZE:
            raise ProfileError("reservetop= must be a multiple of 4096: this kernel takes it as is")
        return new


_CHOICES = {
    "ohci1394": ("none", "at-end", "after-permanent", "before-apic"),
    "kmap_rule": ("highmem", "always"),
    "acpi": ("permanent", "after-btmap", "none"),
    "text_poke": ("none", "poke0-first", "poke1-first"),
    "btmap_rule": (
        "at-end-16", "round-512-256", "round-256", "if-crossing-256", "if-crossing-512",
    ),
    "pkmap_rule": (
        "fixaddr-boot-start", "fixaddr-start", "cpu-entry-area", "cpu-entry-area-from-start",
        "ldt-remap",
    ),
    "vmalloc_rule": ("below-4g", "below-vmalloc-end"),
    "reservetop_rule": ("exact-and-vmalloc", "exact", "pmd"),
}  # fmt: skip


def _check_type(name: str, value: object, default: object) -> None:
    # A profile file can put anything here; bool is an int to Python but not to its author.
    if value is None and default is None:
        return
    wanted = int if default is None else type(default)
    if type(value) is not wanted:
        word = {bool: "true or false", int: "a number", str: "a word"}[wanted]
        raise ProfileError(f"{name} must be {word}, not {value!r}")
    if isinstance(value, int) and not 0 <= value < 1 << 32:
        raise ProfileError(f"{name} is {value}, must fit 32 bits")


def _presets() -> dict[str, Geometry]:
    found: dict[str, Geometry] = {}
    found["2.6.20"] = Geometry(
        fix_vdso=True, dbgp_earlycon=False, kmap_rule="highmem", acpi="permanent",
        paravirt_bootmap=True, apei_ghes=False, btmap_rule="at-end-16",
        pkmap_rule="fixaddr-boot-start", cpu_entry_area_pages_per_cpu=0, vmalloc_rule="below-4g",
        reservetop_rule="exact-and-vmalloc", sizeof_struct_page=32)  # fmt: skip

    def step(name: str, since: str, **changes: Any) -> None:
        found[name] = found[since]._replace(**changes)

    step("2.6.24", "2.6.20", dbgp_earlycon=True)
    step("2.6.25", "2.6.24", btmap_rule="round-512-256")
    step("2.6.27", "2.6.25", btmap_rule="round-256", acpi="after-btmap")
    step("2.6.28", "2.6.27", kmap_rule="always", vmalloc_rule="below-vmalloc-end")
    step("2.6.30", "2.6.28", acpi="none", text_poke="poke0-first")
    step("2.6.32", "2.6.30", text_poke="poke1-first", reservetop_rule="exact")
    step("2.6.36", "2.6.32", btmap_rule="if-crossing-256")
    step("3.2", "2.6.36")
    step("3.10", "3.2", ro_idt=True, pvclock=True)
    step("3.16", "3.10", fix_vdso=False, reservetop_rule="pmd")
    step("3.18", "3.16", btmap_rule="if-crossing-512")
    step("4.4", "3.18", pkmap_rule="fixaddr-start", sizeof_struct_page=40)
    step("4.9", "4.4", pvclock=False)
    step("4.15", "4.9", ro_idt=False, apei_ghes=True, pkmap_rule="cpu-entry-area",
         cpu_entry_area_pages_per_cpu=40)  # fmt: skip
    step("4.19", "4.15", pkmap_rule="ldt-remap")
    step("5.4", "4.19", text_poke="none")
    step("5.10", "5.4", paravirt_bootmap=False, cpu_entry_area_pages_per_cpu=43)
    step("6.1", "5.10")
    return found


GEOMETRIES: dict[str, Geometry] = _presets()
"""Presets by the first kernel that they fit, each a step from the one before.

They assume what distributions set: LOCAL_APIC, IO_APIC, ACPI, PCI_MMCONFIG, PARAVIRT,
PARAVIRT_CLOCK, ACPI_APEI_GHES; and what most leave out: PROVIDE_OHCI1394_DMA_INIT,
X86_VISWS_APIC, X86_F00F_BUG, X86_CYCLONE_TIMER, X86_INTEL_MID, INTEL_TXT.  A profile picks one
and overrides with :meth:`Geometry.but`."""
