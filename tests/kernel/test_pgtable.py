"""Entries: values (linux-facts 6), order of writing, lazy MMU mode (8)."""

from __future__ import annotations

from typing import Any

import pytest

from highmem.kernel.kernel import Kernel
from support.kernel_machine import ALL, Watch, boot, high_pages, lazy_mmu_mode

NX = 1 << 63
FROM_4_17 = ("S4", "L0", "L1")
WHERE = 0x5000


# linux-facts 6, the table of machines and configurations: (low word, NX) as written.
@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize(
    ("options", "low", "nx"),
    [
        ({"pae": False}, 0x163, False),
        ({"pae": True}, 0x163, True),
        ({"pae": True, "nx": False}, 0x163, False),
        ({"pae": True, "pti": True}, 0x063, True),
        ({"pae": True, "pge": False}, 0x063, True),
        ({"pae": False, "pge": False}, 0x063, False),
    ],
)
def test_what_a_window_is_written_with(
    family: str, options: dict[str, Any], low: int, nx: bool
) -> None:
    kernel = boot(family, **options)
    ptes = kernel.ptes
    written = ptes.pfn_pte(0x40000, ptes.kmap_prot)
    assert written == 0x40000000 | low | (NX if nx else 0)
    # Up to 4.16 the protection may hold bits that are taken away when the entry is made.
    if family in FROM_4_17:
        assert ptes.kmap_prot == low | (NX if nx else 0)
    else:
        assert ptes.kmap_prot == 0x163 | (NX if options["pae"] else 0)


def test_isolation_leaves_an_explicit_global_from_4_17_on() -> None:
    # __supported_pte_mask keeps GLOBAL; only __default_kernel_pte_mask drops it.
    assert boot("S4", True, pti=True).ptes.pfn_pte(1, 0x163) == 0x1163
    assert boot("S3", True, pti=True).ptes.pfn_pte(1, 0x163) == 0x1063


@pytest.mark.parametrize("family", ALL)
def test_not_present_frames_are_inverted_on_pae_from_4_18(family: str) -> None:
    prot = 0x100  # PROT_NONE
    for pae in (False, True):
        ptes = boot(family, pae).ptes
        entry = ptes.pfn_pte(0x12345, prot)
        inverted = pae and family in FROM_4_17
        assert (entry & 0xFFFFF000 == 0x12345000) is not inverted
        if inverted:
            assert entry >> 12 & 0xFFFFFFFF == ~0x12345 & 0xFFFFFFFF
        assert ptes.pte_pfn(entry) == 0x12345
        assert ptes.pfn_pte(0x12345, 0) == 0x12345000  # a zero prot is left alone


@pytest.mark.parametrize("family", ALL)
def test_pte_none(family: str) -> None:
    for pae in (False, True):
        ptes = boot(family, pae).ptes
        ignores = pae and family in ("S3", "S4", "L0", "L1")
        assert ptes.pte_none(0)
        assert [ptes.pte_none(bits) for bits in (0x20, 0x40, 0x60)] == [ignores] * 3
        assert not ptes.pte_none(0x61)
        assert not ptes.pte_none(0x1000)
    assert not ptes.pte_none(NX)


def test_pae_writes_high_then_low_and_clears_low_then_high() -> None:
    kernel = boot("S4", True)
    with Watch(kernel) as watch:
        kernel.ptes.set_pte(WHERE, 0x8000_0001_7F0D_C163)
        assert kernel.ptes.read(WHERE) == 0x8000_0001_7F0D_C163
        kernel.ptes.pte_clear(WHERE)
    assert watch.words == [
        (WHERE + 4, 0x8000_0001),
        (WHERE, 0x7F0D_C163),
        (WHERE, 0),
        (WHERE + 4, 0),
    ]


def test_a_window_is_never_present_with_a_wrong_half() -> None:
    """Another CPU that walks between the two words sees nothing or the whole (6)."""
    kernel = boot("S4", True, ram=5 << 30)
    page = kernel.pfn_to_page(0x123456)
    seen: list[int | None] = []
    address = kernel.layout.window_address(0, 0)

    def look(_: object) -> None:
        seen.append(kernel.walk(address).physical)

    kernel.machine.bus.observer = look
    kernel.kmap_atomic(page)
    kernel.kunmap_atomic(address)
    assert set(seen) == {None, page.pfn << 12}


def test_two_level_entries_are_one_word() -> None:
    kernel = boot("S4")
    with Watch(kernel) as watch:
        kernel.ptes.set_pte(WHERE, 0x7F849163)
        kernel.ptes.pte_clear(WHERE)
    assert watch.words == [(WHERE, 0x7F849163), (WHERE, 0)]


@pytest.mark.parametrize("pti", [False, True])
def test_flush_one_with_isolation_marks_other_address_spaces(pti: bool) -> None:
    kernel = boot("S4", True, pti=pti)
    with Watch(kernel) as watch:
        kernel.ptes.flush_tlb_one_kernel(0xFFFBB000)
    assert watch.brief == [("flush", 0xFFFBB000)]
    assert kernel.context.this.invalidate_other is pti


def queue(kernel: Kernel) -> list[tuple[str, int, int]]:
    return kernel.context.this.lazy_queue


@pytest.mark.parametrize("pae", [False, True])
def test_lazy_mode_keeps_the_order_of_the_queue(pae: bool) -> None:
    kernel = boot("S1", pae, paravirt_lazy=True)
    ptes = kernel.ptes
    with Watch(kernel) as watch, lazy_mmu_mode(kernel):
        ptes.set_pte(kernel.temporary.pte_of(0), 0x1163)
        ptes.flush_tlb_one_kernel(0xFFFBB000)
        ptes.set_pte(kernel.temporary.pte_of(1), 0x2163)
        assert watch.steps == []
        assert len(queue(kernel)) == 3
        ptes.arch_flush_lazy_mmu_mode()
        assert watch.brief == [("set", 0), ("flush", 0xFFFBB000), ("set", 1)]
        ptes.pte_clear(kernel.temporary.pte_of(0))  # the mode goes on after a flush
        assert len(watch.steps) == 3
    assert watch.brief[3:] == [("clear", 0)]
    assert queue(kernel) == []
    ptes.set_pte(kernel.temporary.pte_of(0), 0x1163)
    assert kernel.window_entry(0, 0) == 0x1163


def test_lazy_mode_belongs_to_one_cpu() -> None:
    kernel = boot("S1", paravirt_lazy=True)
    with lazy_mmu_mode(kernel), kernel.on(1):
        kernel.ptes.set_pte(kernel.temporary.pte_of(20), 0x1163)
        assert kernel.window_entry(1, 0) == 0x1163


def test_bare_hardware_has_no_lazy_mode() -> None:
    kernel = boot("S0")
    page = high_pages(kernel, 1)[0]
    with lazy_mmu_mode(kernel):
        assert kernel.read32(kernel.kmap_atomic(page)) == page.pfn
    kernel.ptes.arch_flush_lazy_mmu_mode()
    assert not kernel.context.this.lazy_mode
