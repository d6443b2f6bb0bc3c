from __future__ import annotations

import pytest

from highmem.errors import UsageError
from highmem.kernel.bug import KernelBug, KernelPageFault, NotAnAddressError
from highmem.kernel.kernel import Kernel
from highmem.kernel.profile import KM_TYPES
from highmem.kernel.typed import TypedWindows
from support.kernel_machine import (
    TYPED,
    Watch,
    boot,
    high_pages,
    km_type,
    lazy_mmu_mode,
    low_page,
    variants,
    window_entry,
)

USER0, USER1 = km_type("KM_USER0"), km_type("KM_USER1")

# linux-facts 2.1: entries of enum km_type and KM_TYPE_NR (plain, with fences).
TYPE_NR = {
    **dict.fromkeys(("T0", "T1", "T2", "T3", "T4", "T5", "T6"), (13, 13, 27)),
    **dict.fromkeys(("T7", "T8"), (19, 19, 39)),
    **dict.fromkeys(("T9", "T10"), (20, 20, 41)),
}
# linux-facts 2.2 steps 8 and 9 and section 2.3 and 2.4: who flushes the queued entries.
LAZY_FLUSH = ("T3", "T4", "T5", "T6")
LAZY_FLUSH_PFN = TYPED[3:]
every_variant = pytest.mark.parametrize(("family", "pae", "debug"), variants(TYPED))


def slot(kernel: Kernel, number: int) -> int:
    """linux-facts 2.1: type n is slot n, with fences 2n+1."""
    return 2 * number + 1 if kernel.profile.debug_highmem else number


def window(kernel: Kernel, number: int, cpu: int = 0) -> int:
    """linux-facts 1: FIXADDR_TOP - ((FIX_KMAP_BEGIN + slot + S*cpu) << 12)."""
    layout = kernel.layout
    index = slot(kernel, number) + kernel.profile.windows_per_cpu * cpu
    return layout.FIXADDR_TOP - ((layout.FIX_KMAP_BEGIN + index) << 12)


def entry(kernel: Kernel, number: int, cpu: int = 0) -> int:
    return kernel.window_entry(cpu, slot(kernel, number))


def count(kernel: Kernel) -> int:
    return kernel.context.this.preempt_count


@pytest.mark.parametrize("family", TYPED)
def test_number_of_types_and_windows(family: str) -> None:
    types, plain, fenced = TYPE_NR[family]
    assert boot(family).profile.features.km_types == types
    assert boot(family).profile.windows_per_cpu == plain
    assert boot(family, debug=True).profile.windows_per_cpu == fenced


@every_variant
def test_every_type_has_its_own_window_on_every_cpu(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug, cpus=3)
    types = TYPE_NR[family][0]
    page = high_pages(kernel, 1)[0]
    kernel.context.this.cpu.interrupts_enabled = False
    seen = set()
    for cpu in range(3):
        with kernel.on(cpu):
            for number in range(types):
                address = kernel.kmap_atomic(page, number)
                assert address == window(kernel, number, cpu)
                assert entry(kernel, number, cpu) == window_entry(kernel, page.pfn)
                seen.add(address)
            assert kernel.temporary.depth() == types
    assert len(seen) == 3 * types
    guards = [kernel.window_entry(0, s) for s in range(0, kernel.profile.windows_per_cpu, 2)]
    assert not debug or guards == [0] * (types + 1)


@every_variant
def test_map_raises_the_count_then_writes_the_entry(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page = high_pages(kernel, 1)[0]
    with kernel.on(1), Watch(kernel) as watch:
        address = kernel.kmap_atomic(page, USER0)
        index = slot(kernel, USER0) + kernel.profile.windows_per_cpu
        # linux-facts 2.2: only T0 flushes on map, after the entry is written.
        flush = [("flush", address)] if family == "T0" else []
        assert watch.brief == [("set", index), *flush]
        assert watch.steps[0].value == window_entry(kernel, page.pfn)
        assert {step.preempt_count for step in watch.steps} == {1}
        assert count(kernel) == 1
        assert kernel.read32(address) == page.pfn
    assert len(kernel.log) == 0


@every_variant
def test_unmap_clears_then_flushes_then_lowers_the_count(
    family: str, pae: bool, debug: bool
) -> None:
    kernel = boot(family, pae, debug)
    page = high_pages(kernel, 1)[0]
    address = kernel.kmap_atomic(page, USER1)
    kernel.read32(address)
    with Watch(kernel) as watch:
        kernel.kunmap_atomic(address + 0x8E8, USER1)  # any address in the page does
    assert count(kernel) == 0
    if family == "T0" and not debug:
        assert watch.steps == []
        assert entry(kernel, USER1) == window_entry(kernel, page.pfn)
        assert kernel.read32(address) == page.pfn  # still usable, by mistake only
        return
    assert watch.brief == [("clear", slot(kernel, USER1)), ("flush", address)]
    assert {step.preempt_count for step in watch.steps} == {1}
    assert entry(kernel, USER1) == 0
    with pytest.raises(KernelPageFault):
        kernel.read32(address)


@every_variant
def test_map_over_a_busy_slot(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    first, second = high_pages(kernel, 2)
    address = kernel.kmap_atomic(first, USER0)
    kernel.read32(address)
    if family == "T0" and not debug:
        assert kernel.kmap_atomic(second, USER0) == address
        assert kernel.read32(address) == second.pfn  # the flush of step 8 made it visible
        assert count(kernel) == 2
        return
    with Watch(kernel) as watch, pytest.raises(KernelBug, match="pte_none") as caught:
        kernel.kmap_atomic(second, USER0)
    assert caught.value.splat.state["pte"] == window_entry(kernel, first.pfn)
    assert watch.steps == []
    assert entry(kernel, USER0) == window_entry(kernel, first.pfn)
    assert count(kernel) == 2  # step 1 came before the BUG


@every_variant
def test_low_page_raises_the_count_and_touches_no_entry(
    family: str, pae: bool, debug: bool
) -> None:
    kernel = boot(family, pae, debug)
    page = low_page(kernel)
    with Watch(kernel) as watch:
        address = kernel.kmap_atomic(page, USER0)
    assert address == 0xC0000000 + (page.pfn << 12) < kernel.layout.high_memory
    assert watch.steps == []
    assert count(kernel) == 1
    assert kernel.read32(address) == page.pfn


@every_variant
def test_low_page_over_a_busy_slot_is_a_bug_only_in_t3(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    kernel.kmap_atomic(high_pages(kernel, 1)[0], USER0)
    page = low_page(kernel)
    if family == "T3":  # linux-facts 2.2 step 2
        with pytest.raises(KernelBug, match="pte_none"):
            kernel.kmap_atomic(page, USER0)
    else:
        assert kernel.kmap_atomic(page, USER0) == 0xC0000000 + (page.pfn << 12)
    assert count(kernel) == 2


@every_variant
def test_unmap_of_a_low_address(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    high, low = high_pages(kernel, 1)[0], low_page(kernel)
    window_address = kernel.kmap_atomic(high, USER0)
    address = kernel.kmap_atomic(low, USER1)
    with Watch(kernel) as watch:
        kernel.kunmap_atomic(address, USER0)  # the low address with the type of a live window
    assert count(kernel) == 1
    if family == "T1" and not debug:  # linux-facts 2.3: clears the slot for any pointer
        assert watch.brief == [("clear", slot(kernel, USER0)), ("flush", address)]
        assert entry(kernel, USER0) == 0
    else:
        assert watch.steps == []
        assert entry(kernel, USER0) == window_entry(kernel, high.pfn)
        assert kernel.read32(window_address) == high.pfn
    assert len(kernel.log) == 0


@every_variant
@pytest.mark.parametrize("mistake", ["wrong type", "wrong cpu"])
def test_unmap_of_another_window(family: str, pae: bool, debug: bool, mistake: str) -> None:
    kernel = boot(family, pae, debug)
    page = high_pages(kernel, 1)[0]
    address = kernel.kmap_atomic(page, USER0)
    cpu, number = (0, USER1) if mistake == "wrong type" else (1, USER0)
    kernel.run_on(cpu)
    before = count(kernel)
    if debug:
        # T0 and T1 compare with the own window, T2 and later with the end of low memory.
        why = "fix_to_virt" if family in ("T0", "T1") else "vaddr >= high_memory"
        with Watch(kernel) as watch, pytest.raises(KernelBug, match=why):
            kernel.kunmap_atomic(address, number)
        assert watch.steps == []
        assert count(kernel) == before
    else:
        with Watch(kernel) as watch:
            kernel.kunmap_atomic(address, number)
        index = slot(kernel, number) + kernel.profile.windows_per_cpu * cpu
        wrong = [("clear", index), ("flush", address)] if family == "T1" else []
        assert watch.brief == wrong
        assert len(kernel.log) == 0
        assert count(kernel) == before - 1
    assert entry(kernel, USER0) == window_entry(kernel, page.pfn)
    if not debug and family != "T0":  # the slot left behind stops the next user
        with kernel.on(0), pytest.raises(KernelBug, match="pte_none"):
            kernel.kmap_atomic(page, USER0)


@pytest.mark.parametrize("pae", [False, True])
@pytest.mark.parametrize("family", TYPED)
@pytest.mark.parametrize("where", ["user", "pkmap", "end of low memory"])
def test_debug_unmap_of_no_window(family: str, pae: bool, where: str) -> None:
    kernel = boot(family, pae, True)
    layout = kernel.layout
    address = {
        "user": 0x08048000,
        "pkmap": layout.PKMAP_BASE + 0x3000,
        "end of low memory": layout.high_memory,
    }[where]
    kernel.context.pagefault_disable()
    if family == "T0":  # linux-facts 2.3: everything below FIXADDR_START counts as low memory
        kernel.kunmap_atomic(address, USER0)
        assert count(kernel) == 0
        return
    why = {"user": "vaddr < PAGE_OFFSET"}.get(where, "vaddr >= high_memory")
    with pytest.raises(KernelBug, match="fix_to_virt" if family == "T1" else why):
        kernel.kunmap_atomic(address, USER0)
    assert count(kernel) == 1


@every_variant
def test_pfn_variant_tests_neither_busy_nor_highmem(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    high, low = high_pages(kernel, 1)[0], low_page(kernel)
    address = kernel.kmap_atomic(high, USER0)
    kernel.read32(address)
    with Watch(kernel) as watch:
        assert kernel.kmap_atomic_pfn(low.pfn, USER0) == address
    assert watch.steps[0].brief == ("set", slot(kernel, USER0))
    assert watch.steps[0].value == window_entry(kernel, low.pfn)
    assert watch.steps[0].preempt_count == count(kernel) == 2
    # Only T0 flushes on map; later an overwritten entry leaves the old translation.
    assert kernel.stale(address) is (family != "T0")
    assert kernel.read32(address) == (low if family == "T0" else high).pfn


@every_variant
def test_pfn_variant_with_another_protection(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page = high_pages(kernel, 1)[0]
    address = kernel.kmap_atomic_prot_pfn(page.pfn, 0x161, USER0)
    assert entry(kernel, USER0) == page.pfn << 12 | 0x161
    assert kernel.read32(address) == page.pfn
    with pytest.raises(KernelPageFault, match="0003"):
        kernel.write32(address, 0)
    address = kernel.kmap_atomic_prot(page, 0x161, USER1)
    with pytest.raises(KernelPageFault, match="0003"):
        kernel.write32(address, 0)


@every_variant
def test_iounmap_clears_its_own_window_and_says_nothing_of_others(
    family: str, pae: bool, debug: bool
) -> None:
    kernel = boot(family, pae, debug)
    page = high_pages(kernel, 1)[0]
    address = kernel.kmap_atomic_pfn(page.pfn, USER0)
    kernel.context.pagefault_disable()
    with Watch(kernel) as watch:
        assert isinstance(kernel.temporary, TypedWindows)
        kernel.temporary.iounmap_atomic(address, USER1)
        kernel.temporary.iounmap_atomic(address, USER0)
    assert watch.brief == [("clear", slot(kernel, USER0)), ("flush", address)]
    assert count(kernel) == 0
    assert len(kernel.log) == 0


@every_variant
def test_lazy_mmu_mode_hides_an_entry_where_the_flush_is_missing(
    family: str, pae: bool, debug: bool
) -> None:
    kernel = boot(family, pae, debug, paravirt_lazy=True)
    first, second = high_pages(kernel, 2)
    with lazy_mmu_mode(kernel):
        address = kernel.kmap_atomic(first, USER0)
        assert (entry(kernel, USER0) != 0) is (family in LAZY_FLUSH)
        if family in LAZY_FLUSH:
            assert kernel.read32(address) == first.pfn
        else:  # I24: used before it has reached the hypervisor
            with pytest.raises(KernelPageFault):
                kernel.read32(address)
        other = kernel.kmap_atomic_pfn(second.pfn, USER1)
        assert (entry(kernel, USER1) != 0) is (family in LAZY_FLUSH_PFN)
    assert kernel.read32(address) == first.pfn
    assert kernel.read32(other) == second.pfn
    with lazy_mmu_mode(kernel):
        kernel.kunmap_atomic(address, USER0)
        clears = family != "T0" or debug
        visible = clears and family in LAZY_FLUSH
        assert (entry(kernel, USER0) == 0) is visible
    assert (entry(kernel, USER0) == 0) is clears


@pytest.mark.parametrize("family", TYPED)
def test_lazy_mmu_mode_in_an_interrupt(family: str) -> None:
    kernel = boot(family, paravirt_lazy=True)
    page = high_pages(kernel, 1)[0]
    with lazy_mmu_mode(kernel):
        kernel.context.irq_enter()
        kernel.kmap_atomic(page, km_type("KM_IRQ0"))
        # linux-facts 8: from 2.6.31 (T7) an interrupt does not see the interrupted mode.
        at_once = family in LAZY_FLUSH or family in TYPED[7:]
        assert (entry(kernel, km_type("KM_IRQ0")) != 0) is at_once
        kernel.context.irq_exit()


@pytest.mark.parametrize("family", TYPED)
def test_a_page_instead_of_the_address(family: str) -> None:
    kernel = boot(family, debug=True)
    page = high_pages(kernel, 1)[0]
    address = kernel.kmap_atomic(page, USER0)
    with Watch(kernel) as watch:
        if family == "T10":  # linux-facts 2.3: commit 597781f3e51
            with pytest.raises(NotAnAddressError, match="not the page"):
                kernel.kunmap_atomic(page, USER0)
        elif family == "T1":
            kernel.kunmap_atomic(page, USER0)  # a struct page lies in low memory
        else:
            kernel.kunmap_atomic(page, USER0)
    assert watch.steps == []
    assert kernel.read32(address) == page.pfn


@pytest.mark.parametrize("family", TYPED)
@pytest.mark.parametrize("number", [None, -1, 20])
def test_a_number_that_is_no_type(family: str, number: int | None) -> None:
    kernel = boot(family)
    with pytest.raises(UsageError, match=f"from 0 to {TYPE_NR[family][0] - 1}"):
        kernel.kmap_atomic(high_pages(kernel, 1)[0], number)
    assert count(kernel) == 0


def test_the_types_keep_their_places() -> None:
    # linux-facts 2.1, the ends of the table and the names that copy loops use.
    assert [km_type(n) for n in ("KM_BOUNCE_READ", "KM_USER0", "KM_USER1")] == [0, 3, 4]
    assert [km_type(n) for n in ("KM_PTE0", "KM_IRQ0", "KM_SOFTIRQ1")] == [7, 9, 12]
    assert [km_type(n) for n in ("KM_SYNC_ICACHE", "KM_IRQ_PTE", "KM_NMI_PTE")] == [13, 16, 18]
    assert km_type("KM_KDB") == 19 == len(KM_TYPES) - 1


@every_variant
def test_kmap_atomic_to_page_reads_the_entry(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    high, low = high_pages(kernel, 1)[0], low_page(kernel)
    address = kernel.kmap_atomic(high, USER0)
    assert kernel.kmap_atomic_to_page(address + 5) is high
    assert kernel.kmap_atomic_to_page(kernel.kmap_atomic(low, USER1)) is low
    # linux-facts 3.3: a permanent window lies below FIXADDR_START and is taken for low memory.
    kernel.context.this.preempt_count = 0
    permanent = kernel.kmap(high)
    assert kernel.kmap_atomic_to_page(permanent).pfn == (permanent - 0xC0000000) >> 12 != high.pfn
    with pytest.raises(KernelBug, match="FIXADDR_TOP"):
        kernel.kmap_atomic_to_page(0xFFFFF000)


def test_up_to_2_6_18_the_old_translation_lives_until_the_next_map() -> None:
    kernel = boot("T0")
    first, second = high_pages(kernel, 2)
    address = kernel.kmap_atomic(first, USER0)
    assert kernel.read32(address) == first.pfn
    kernel.kunmap_atomic(address, USER0)
    assert kernel.read32(address) == first.pfn
    assert kernel.kmap_atomic(second, USER0) == address
    assert kernel.read32(address) == second.pfn
