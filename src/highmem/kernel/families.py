"""How the mapping code of each run of releases behaves, as features.

Which release had which feature stands here and nowhere else; the algorithms read
:class:`Features` only.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

from highmem.errors import ProfileError

__all__ = ["FAMILIES", "KM_TYPES", "Era", "Family", "Features"]


class Era(enum.Enum):
    """How the index of a temporary window is chosen."""

    TYPED = "typed"
    """Up to 2.6.36: the caller names a ``km_type``."""
    STACK = "stack"
    """2.6.37 to 5.10: a per-CPU counter, pushed and popped."""
    LOCAL = "local"
    """5.11 and later: a counter in the task, entries saved and restored at context switch."""


KM_TYPES: tuple[str, ...] = (
    "KM_BOUNCE_READ",
    "KM_SKB_SUNRPC_DATA",
    "KM_SKB_DATA_SOFTIRQ",
    "KM_USER0",
    "KM_USER1",
    "KM_BIO_SRC_IRQ",
    "KM_BIO_DST_IRQ",
    "KM_PTE0",
    "KM_PTE1",
    "KM_IRQ0",
    "KM_IRQ1",
    "KM_SOFTIRQ0",
    "KM_SOFTIRQ1",
    "KM_SYNC_ICACHE",
    "KM_SYNC_DCACHE",
    "KM_UML_USERCOPY",
    "KM_IRQ_PTE",
    "KM_NMI",
    "KM_NMI_PTE",
    "KM_KDB",
)
"""``enum km_type`` in order, without fences: the first 13 up to 2.6.30, 19 from 2.6.31, 20
from 2.6.35 (include/asm-generic/kmap_types.h)."""


class Features(NamedTuple):
    """How this kernel's mapping code behaves.  The defaults are those of Linux 5.10."""

    km_types: int = 20
    """Entries of ``enum km_type`` without fences: 13, 19 or 20."""

    # Temporary mappings, typed and stack era.
    busy_check: str = "always"
    """When mapping BUGs on an entry in use: ``always``, ``debug`` (DEBUG_HIGHMEM only, up to
    2.6.18) or ``before-highmem-test`` (2.6.21, 2.6.22: even for a page in low memory)."""
    map_flushes_tlb: bool = False
    """Mapping flushes the window's TLB entry (up to 2.6.18, where unmapping does not)."""
    unmap_clears: str = "own-window"
    """Typed era: which entry unmapping clears: ``debug`` (its own, with DEBUG_HIGHMEM only;
    2.6.12 to 2.6.18), ``always`` (even for a low-memory address; 2.6.19) or ``own-window``
    (if the address is that window; 2.6.20 and later)."""
    lazy_flush_on_map: bool = True
    """``arch_flush_lazy_mmu_mode()`` after an entry is written: 2.6.21 to 2.6.30, 3.2 on."""
    lazy_flush_on_unmap: bool = True
    """The same after one is cleared: 2.6.22 to 2.6.30, 3.2 on."""
    lazy_flush_on_pfn_map: bool = True
    """The same in the pfn variants: 2.6.21 on."""
    context_check: str = "none"
    """``debug_kmap_atomic()`` with DEBUG_HIGHMEM: ``none``, ``pages`` (2.6.25 to 2.6.29) or
    ``pages-and-pfns`` (2.6.30 to 2.6.36)."""
    context_check_new_types: bool = False
    """Its rules know KM_IRQ_PTE and the NMI types, and its budget is signed (2.6.32 on)."""
    context_check_kdb: bool = False
    """Its rule for KM_KDB (2.6.36)."""
    context_check_needs_irqflags: bool = False
    """It is built only with TRACE_IRQFLAGS_SUPPORT (2.6.30 to 2.6.34)."""
    unmap_refuses_page: bool = True
    """``kunmap_atomic`` refuses a ``struct page *`` at compile time (2.6.36 on)."""
    overflow_check: str = "greater-or-equal"
    """Stack era with DEBUG_HIGHMEM: BUG if the slot is ``greater`` than KM_TYPE_NR (up to
    3.16: one too many) or ``greater-or-equal`` (3.18 on)."""
    fault_disable_is_preempt_count: bool = False
    """``pagefault_disable()`` raises the preempt count (up to 4.1) instead of a counter of
    its own in the task (4.2 on)."""
    fault_enable_warns: bool = False
    """``pagefault_enable()`` warns when that counter falls below zero (early 4.x)."""
    explicit_preempt_disable: bool = True
    """``kmap_atomic`` calls ``preempt_disable()`` beside ``pagefault_disable()`` (4.2 on)."""
    inline_front_half: bool = True
    """The low-memory test is inline; only high pages reach ``kmap_atomic_high_prot`` (5.8)."""
    has_kmap_atomic_to_page: bool = False
    """``kmap_atomic_to_page()`` exists (up to 4.2)."""

    lazy_mode_in_interrupt: bool = False
    """Lazy MMU mode also holds for an interrupt's entries (up to 2.6.30)."""

    # Local era.
    rt_branches: bool = False
    """``kmap_atomic`` has a PREEMPT_RT branch (migrate_disable instead of preempt_disable)."""
    kmap_to_page: str = "pkmap"
    """``kmap_to_page()``: ``none``, ``pkmap`` (knows permanent windows, silent) or ``warns``
    (warns for them and knows the task's own local windows; 6.1)."""

    # Permanent mappings.
    kunmap_in_interrupt: str = "might-sleep"
    """What ``kunmap()`` does in interrupt context: ``bug`` (up to 5.7) or ``might-sleep``."""
    flush_always: bool = False
    """``flush_all_zero_pkmaps`` flushes every TLB even if it cleared nothing (up to 2.6.27)."""
    has_kmap_flush_unused: bool = True
    """``kmap_flush_unused()`` exists (2.6.22 on)."""
    address_map_pool: bool = False
    """``page_address_maps`` come from a free list (up to 3.2) instead of by PKMAP_NR."""
    hash_multiplier: int = 0x61C88647
    """``hash_ptr``'s multiplier: 0x9e370001 up to 4.4, 0x61C88647 from 4.9."""

    # Page-table entries.
    pte_none_ignores_accessed_dirty: bool = True
    """On PAE an entry with only A or D set counts as empty (4.9 on)."""
    inverts_absent_frames: bool = True
    """On PAE a not-present, non-zero entry holds its frame bits inverted (L1TF, 4.18 on)."""
    default_kernel_pte_mask: bool = True
    """PAGE_KERNEL is masked at its definition (4.17 on), so ``prot`` shows what is written."""
    modern_oops_text: bool = True
    """The oops names the fault's kind (``#PF: supervisor write access``, 5.x on)."""

    def but(self, **changes: Any) -> Features:
        """These with *changes*, which may come from a file: ProfileError if they make no sense."""
        changed = self._replace(**changes)
        for name, value in changes.items():
            # A profile file can put anything here; bool is an int to Python only.
            wanted = type(self._field_defaults[name])
            if type(value) is not wanted:
                word = {bool: "true or false", int: "a number", str: "a word"}[wanted]
                raise ProfileError(f"{name} must be {word}, not {value!r}")
            allowed = _CHOICES.get(name)
            if allowed and value not in allowed:
                raise ProfileError(f"{name} is {value!r}, must be one of {', '.join(allowed)}")
        if not 0 < changed.km_types <= len(KM_TYPES):
            raise ProfileError(f"km_types is {changed.km_types}, must be 1 to {len(KM_TYPES)}")
        return changed


_CHOICES = {
    "busy_check": ("always", "debug", "before-highmem-test"),
    "unmap_clears": ("own-window", "always", "debug"),
    "context_check": ("none", "pages", "pages-and-pfns"),
    "overflow_check": ("greater", "greater-or-equal"),
    "kmap_to_page": ("none", "pkmap", "warns"),
    "kunmap_in_interrupt": ("bug", "might-sleep"),
}


class Family(NamedTuple):
    """A run of releases whose mapping code behaves alike."""

    name: str
    versions: str
    era: Era
    features: Features
    geometry: str
    """The key of GEOMETRIES that fits unless a profile says otherwise."""


def _families() -> dict[str, Family]:
    found: dict[str, Family] = {}

    def add(name: str, versions: str, era: Era, geometry: str, features: Features) -> Features:
        found[name] = Family(name, versions, era, features, geometry)
        return features

    t0 = add("T0", "2.6.12 to 2.6.18", Era.TYPED, "2.6.20", Features(
        km_types=13, busy_check="debug", map_flushes_tlb=True, unmap_clears="debug",
        lazy_flush_on_map=False, lazy_flush_on_unmap=False, lazy_flush_on_pfn_map=False,
        unmap_refuses_page=False, fault_disable_is_preempt_count=True,
        explicit_preempt_disable=False, inline_front_half=False, has_kmap_atomic_to_page=True,
        kmap_to_page="none", kunmap_in_interrupt="bug", flush_always=True,
        has_kmap_flush_unused=False, address_map_pool=True, hash_multiplier=0x9E370001,
        pte_none_ignores_accessed_dirty=False, default_kernel_pte_mask=False,
        inverts_absent_frames=False, lazy_mode_in_interrupt=True,
        modern_oops_text=False))  # fmt: skip
    t1 = add("T1", "2.6.19", Era.TYPED, "2.6.20", t0._replace(
        busy_check="always", map_flushes_tlb=False, unmap_clears="always"))  # fmt: skip
    t2 = add("T2", "2.6.20", Era.TYPED, "2.6.20", t1._replace(unmap_clears="own-window"))
    t3 = add("T3", "2.6.21 to 2.6.22", Era.TYPED, "2.6.20", t2._replace(
        busy_check="before-highmem-test", lazy_flush_on_map=True, lazy_flush_on_unmap=True,
        lazy_flush_on_pfn_map=True, has_kmap_flush_unused=True))  # fmt: skip
    t4 = add("T4", "2.6.23 to 2.6.24", Era.TYPED, "2.6.24", t3._replace(busy_check="always"))
    t5 = add("T5", "2.6.25 to 2.6.29", Era.TYPED, "2.6.27", t4._replace(context_check="pages"))
    t6 = add("T6", "2.6.30", Era.TYPED, "2.6.30", t5._replace(
        context_check="pages-and-pfns", context_check_needs_irqflags=True,
        flush_always=False))  # fmt: skip
    t7 = add("T7", "2.6.31", Era.TYPED, "2.6.30", t6._replace(
        km_types=19, lazy_flush_on_map=False, lazy_flush_on_unmap=False,
        lazy_mode_in_interrupt=False))  # fmt: skip
    t8 = add("T8", "2.6.32 to 2.6.34", Era.TYPED, "2.6.32",
             t7._replace(context_check_new_types=True))  # fmt: skip
    t9 = add("T9", "2.6.35", Era.TYPED, "2.6.36",
             t8._replace(km_types=20, context_check_needs_irqflags=False))  # fmt: skip
    t10 = add("T10", "2.6.36", Era.TYPED, "2.6.36",
              t9._replace(context_check_kdb=True, unmap_refuses_page=True))  # fmt: skip
    s0 = add("S0", "2.6.37 to 3.1", Era.STACK, "3.2", t10._replace(
        context_check="none", context_check_kdb=False, context_check_new_types=False,
        overflow_check="greater"))  # fmt: skip
    s1 = add("S1", "3.2 to 3.16", Era.STACK, "3.2", s0._replace(
        lazy_flush_on_map=True, lazy_flush_on_unmap=True, kmap_to_page="pkmap"))  # fmt: skip
    s2 = add("S2", "3.18 to 4.1", Era.STACK, "3.18", s1._replace(
        overflow_check="greater-or-equal", address_map_pool=False))  # fmt: skip
    s3 = add("S3", "4.2 to 5.7", Era.STACK, "4.9", s2._replace(
        fault_disable_is_preempt_count=False, fault_enable_warns=True,
        explicit_preempt_disable=True,
        has_kmap_atomic_to_page=False, hash_multiplier=0x61C88647,
        pte_none_ignores_accessed_dirty=True))  # fmt: skip
    s4 = add("S4", "5.8 to 5.10", Era.STACK, "5.10", s3._replace(
        fault_enable_warns=False, inline_front_half=True, kunmap_in_interrupt="might-sleep",
        default_kernel_pte_mask=True, inverts_absent_frames=True,
        modern_oops_text=True))  # fmt: skip
    l0 = add("L0", "5.11", Era.LOCAL, "6.1", s4._replace(kmap_to_page="pkmap"))
    add("L1", "6.1", Era.LOCAL, "6.1", l0._replace(rt_branches=True, kmap_to_page="warns"))
    return found


FAMILIES: dict[str, Family] = _families()
"""Every family of the typed (T0 to T10), stack (S0 to S4) and local era (L0, L1)."""
