"""The index stack, 2.6.37 to 5.10: linux-facts section 3."""

from __future__ import annotations

import pytest

from highmem.errors import UsageError
from highmem.kernel.bug import KernelBug, KernelPageFault, NotAnAddressError, Severity
from highmem.kernel.kernel import Kernel
from highmem.kernel.temporary import StackWindows
from support.kernel_machine import (
    STACK,
    Watch,
    boot,
    high_pages,
    lazy_mmu_mode,
    low_page,
    variants,
    window_entry,
)

# linux-facts 3.4: what one kmap_atomic adds (preempt_count, pagefault_disabled).
COUNTS = {"S0": (1, 0), "S1": (1, 0), "S2": (1, 0), "S3": (1, 1), "S4": (1, 1)}
LAZY_FLUSH = STACK[1:]
every_variant = pytest.mark.parametrize(("family", "pae", "debug"), variants(STACK))
every_table = pytest.mark.parametrize(
    ("family", "pae"), [(f, pae) for f in STACK for pae in (False, True)]
)


def counts(kernel: Kernel) -> tuple[int, int]:
    this = kernel.context.this
    return this.preempt_count, this.current.pagefault_disabled


def stack(kernel: Kernel) -> StackWindows:
    assert isinstance(kernel.temporary, StackWindows)
    return kernel.temporary


def fill(kernel: Kernel, number: int) -> list[int]:
    return [kernel.kmap_atomic(page) for page in high_pages(kernel, number)]


@every_variant
def test_map_order(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page, other = high_pages(kernel, 2)
    preempt, nofault = COUNTS[family]
    per_cpu = 41 if debug else 20
    with kernel.on(1), Watch(kernel) as watch:
        kernel.kmap_atomic(page)
        address = kernel.kmap_atomic(other)
        # 3.1: counts up, then push, then the entry; no TLB flush on map in any of them.
        assert watch.brief == [("set", per_cpu), ("set", per_cpu + 1)]
        last = watch.steps[-1]
        assert last.value == window_entry(kernel, other.pfn)
        assert (last.preempt_count, last.pagefault_disabled) == (2 * preempt, 2 * nofault)
        assert last.depth == 2
        layout = kernel.layout
        assert address == 0xFFFFF000 - ((layout.FIX_KMAP_BEGIN + per_cpu + 1) << 12)
        assert counts(kernel) == (2 * preempt, 2 * nofault)
        assert kernel.read32(address) == other.pfn
    assert len(kernel.log) == 0


@every_variant
def test_unmap_order(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    address = fill(kernel, 1)[0]
    kernel.read32(address)
    preempt, nofault = COUNTS[family]
    with Watch(kernel) as watch:
        kernel.kunmap_atomic(address | 0xFFF)
    # 3.2: clear, flush, pop, and only then the counts.
    assert watch.brief == [("clear", 0), ("flush", address)]
    for step in watch.steps:
        assert (step.preempt_count, step.pagefault_disabled) == (preempt, nofault)
        assert step.depth == 1
    assert counts(kernel) == (0, 0)
    assert kernel.temporary.depth() == 0
    with pytest.raises(KernelPageFault):
        kernel.read32(address)


@every_variant
def test_slots_are_consecutive_even_with_fences(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    addresses = fill(kernel, 20)
    assert addresses == [addresses[0] - (n << 12) for n in range(20)]
    assert addresses[0] == 0xFFFFF000 - (kernel.layout.FIX_KMAP_BEGIN << 12)


@every_variant
def test_low_page_counts_but_takes_no_slot(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page = low_page(kernel)
    with Watch(kernel) as watch:
        address = kernel.kmap_atomic(page)
        assert counts(kernel) == COUNTS[family]
        assert kernel.temporary.depth() == 0
        kernel.kunmap_atomic(address)
    assert watch.steps == []
    assert address == 0xC0000000 + (page.pfn << 12)
    assert counts(kernel) == (0, 0)


def test_without_preempt_count_only_the_fault_counter_moves() -> None:
    # linux-facts 3.4 [BIN]: Debian's 5.10 has no PREEMPT_COUNT.
    kernel = Kernel.boot("debian-5.10-686")
    address = kernel.kmap_atomic(high_pages(kernel, 1)[0])
    assert counts(kernel) == (0, 1)
    kernel.kunmap_atomic(address)
    assert counts(kernel) == (0, 0)


@every_variant
def test_busy_slot_is_a_bug_after_push(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page = high_pages(kernel, 1)[0]
    where = kernel.temporary.pte_of(0)
    kernel.ptes.set_pte(where, 0x1234163)
    with Watch(kernel) as watch, pytest.raises(KernelBug, match="pte_none") as caught:
        kernel.kmap_atomic(page)
    assert watch.steps == []
    assert kernel.ptes.read(where) == 0x1234163
    assert kernel.temporary.depth() == 1
    assert counts(kernel) == COUNTS[family]
    # linux-facts 3.1: from 5.8 the second half is a function of its own.
    name = "kmap_atomic_high_prot" if family == "S4" else "kmap_atomic_prot"
    assert caught.value.splat.function == name


@pytest.mark.parametrize("family", STACK)
def test_accessed_and_dirty_alone_count_as_empty_on_pae_from_4_9(family: str) -> None:
    for pae in (False, True):
        kernel = boot(family, pae)
        kernel.ptes.set_pte(kernel.temporary.pte_of(0), 0x60)
        page = high_pages(kernel, 1)[0]
        if pae and family in ("S3", "S4"):  # linux-facts 6, pte_none
            assert kernel.read32(kernel.kmap_atomic(page)) == page.pfn
        else:
            with pytest.raises(KernelBug, match="pte_none"):
                kernel.kmap_atomic(page)


@every_variant
def test_misordered_unmap(family: str, pae: bool, debug: bool) -> None:
    """3.2 [LIVE 5.10]: the top entry goes, the passed address is flushed."""
    kernel = boot(family, pae, debug)
    first, second = high_pages(kernel, 2)
    a, b = kernel.kmap_atomic(first), kernel.kmap_atomic(second)
    kernel.read32(a), kernel.read32(b)
    with Watch(kernel) as watch:
        kernel.kunmap_atomic(a)
    assert watch.brief == [("clear", 1), ("flush", a)]
    assert watch.steps[0].complaints == debug  # the WARN is before the write
    assert kernel.window_entry(0, 0) == window_entry(kernel, first.pfn)
    assert kernel.window_entry(0, 1) == 0
    assert kernel.stale(b)
    assert not kernel.stale(a)
    assert kernel.read32(b) == second.pfn  # I22: through the translation left behind
    assert kernel.read32(a) == first.pfn
    kernel.kunmap_atomic(b)
    assert kernel.window_entry(0, 0) == 0
    assert kernel.stale(a)
    assert not kernel.stale(b)
    assert kernel.read32(a) == first.pfn
    with pytest.raises(KernelPageFault):
        kernel.read32(b)
    assert counts(kernel) == (0, 0)
    assert kernel.temporary.depth() == 0
    name = "kunmap_atomic_high" if family == "S4" else "__kunmap_atomic"
    warnings = [s for s in kernel.log if s.severity is Severity.WARN]
    assert [s.function for s in warnings] == [name] * debug
    assert kernel.log.silent_repeats == debug


def test_misordered_unmap_with_the_recorded_entry() -> None:
    """3.2 [LIVE 5.10.0-32-686]: PTE(top) 0x7f849163 -> 0, then PTE(low) -> 0."""
    kernel = Kernel.boot("debian-5.10-686")
    low, top = kernel.pfn_to_page(0x7EA02), kernel.pfn_to_page(0x7F849)
    a, b = kernel.kmap_atomic(low), kernel.kmap_atomic(top)
    assert (a, b) == (0xFFFBB000, 0xFFFBA000)
    assert kernel.window_entry(0, 1) == 0x7F849163
    kernel.kunmap_atomic(a)
    assert (kernel.window_entry(0, 0), kernel.window_entry(0, 1)) == (0x7EA02163, 0)
    kernel.kunmap_atomic(b)
    assert (kernel.window_entry(0, 0), kernel.window_entry(0, 1)) == (0, 0)
    assert len(kernel.log) == 0


def test_recorded_entry_with_pae() -> None:
    """6 [LIVE]: PTE 0x800000007f0dc163 with NX, 0x7f69b163 without."""
    kernel = Kernel.boot("debian-5.10-686-pae")
    kernel.kmap_atomic(kernel.pfn_to_page(0x7F0DC))
    assert kernel.window_entry(0, 0) == 0x800000007F0DC163
    kernel = boot("S4", True, nx=False)
    kernel.kmap_atomic(kernel.pfn_to_page(0x7F69B))
    assert kernel.window_entry(0, 0) == 0x7F69B163


@every_table
def test_overflow_without_debug_takes_the_next_cpus_slot(family: str, pae: bool) -> None:
    kernel = boot(family, pae, cpus=2)
    pages = high_pages(kernel, 21)
    for page in pages:
        address = kernel.kmap_atomic(page)
    assert kernel.layout.window_of(address) == (1, 0)
    assert kernel.window_entry(1, 0) == window_entry(kernel, pages[20].pfn)
    assert len(kernel.log) == 0
    with kernel.on(1), pytest.raises(KernelBug, match="pte_none"):
        kernel.kmap_atomic(pages[0])  # the victim is the innocent CPU
    kernel.kunmap_atomic(address)
    assert kernel.window_entry(1, 0) == 0


@every_table
def test_overflow_onto_a_busy_slot_is_caught_by_the_busy_check(family: str, pae: bool) -> None:
    kernel = boot(family, pae, cpus=2)
    pages = high_pages(kernel, 21)
    with kernel.on(1):
        kernel.kmap_atomic(pages[20])
    for page in pages[:20]:
        kernel.kmap_atomic(page)
    with pytest.raises(KernelBug, match="pte_none"):
        kernel.kmap_atomic(pages[20])


@every_table
def test_overflow_of_the_last_cpu_is_not_even_a_window(family: str, pae: bool) -> None:
    kernel = boot(family, pae, cpus=2, nr_cpus=2)
    with kernel.on(1), Watch(kernel) as watch:
        address = fill(kernel, 21)[-1]
        assert watch.steps[-1].brief == ("set", 40)  # FIX_KMAP_END + 1
        assert not kernel.layout.is_window(address)
        kernel.kunmap_atomic(address)  # so it is never cleared, and nothing popped
        assert kernel.temporary.depth() == 21
        assert counts(kernel)[0] == 20


@every_table
def test_overflow_with_debug(family: str, pae: bool) -> None:
    """3: idx > KM_TYPE_NR up to 3.16 lets slot KM_TYPE_NR through; from 3.18 it does not."""
    kernel = boot(family, pae, True, cpus=2)
    pages = high_pages(kernel, 43)
    allowed = 42 if family in ("S0", "S1") else 41
    for page in pages[:allowed]:
        address = kernel.kmap_atomic(page)
    assert kernel.layout.window_of(address) == ((1, 0) if allowed == 42 else (0, 40))
    with Watch(kernel) as watch, pytest.raises(KernelBug, match=r"idx >=? KM_TYPE_NR"):
        kernel.kmap_atomic(pages[42])
    assert watch.steps == []
    assert kernel.temporary.depth() == allowed + 1  # the push came first
    assert counts(kernel)[0] == allowed + 1


@every_table
@pytest.mark.parametrize("cpu", [0, 1])
def test_unmap_at_depth_zero_without_debug(family: str, pae: bool, cpu: int) -> None:
    """3.2: clears fixmap index FIX_KMAP_BEGIN-1+S*cpu; the next map returns slot -1."""
    kernel = boot(family, pae, cpus=2)
    kernel.run_on(cpu)
    victim = kernel.temporary.pte_of(20 * cpu - 1)
    kernel.ptes.set_pte(victim, 0x123163)
    address = kernel.layout.window_address(cpu, 0)
    with Watch(kernel) as watch:
        kernel.kunmap_atomic(address)
    assert watch.brief == [("clear", 20 * cpu - 1), ("flush", address)]
    assert kernel.ptes.read(victim) == 0
    assert kernel.temporary.depth() == -1
    assert counts(kernel)[0] == -1
    assert kernel.kmap_atomic(high_pages(kernel, 1)[0]) == address + 0x1000
    # 3.4: early 4.x warns of the counter below zero, later kernels say nothing at all.
    assert [s.function for s in kernel.log] == ["pagefault_enable"] * (family == "S3")


@every_table
def test_unmap_at_depth_zero_with_debug(family: str, pae: bool) -> None:
    kernel = boot(family, pae, True)
    address = kernel.layout.window_address(0, 0)
    with Watch(kernel) as watch, pytest.raises(KernelBug, match="idx < 0"):
        kernel.kunmap_atomic(address)
    # The entry was cleared and the counter lowered before the check.
    assert watch.brief == [("clear", -1), ("flush", address)]
    assert kernel.temporary.depth() == -1
    assert counts(kernel) == (0, 0)
    assert [s.severity for s in kernel.log] == [Severity.WARN, Severity.BUG]


@every_table
def test_unmap_of_another_cpus_window_clears_the_own_top(family: str, pae: bool) -> None:
    kernel = boot(family, pae)
    first, second = high_pages(kernel, 2)
    address = kernel.kmap_atomic(first)
    with kernel.on(1):
        own = kernel.kmap_atomic(second)
        kernel.read32(own)
        with Watch(kernel) as watch:
            kernel.kunmap_atomic(address)
        assert watch.brief == [("clear", 20), ("flush", address)]
        assert {step.cpu for step in watch.steps} == {1}
        assert kernel.read32(own) == second.pfn  # stale
    assert kernel.window_entry(0, 0) == window_entry(kernel, first.pfn)


@every_variant
@pytest.mark.parametrize("where", ["user", "high memory's start", "pkmap", "above windows"])
def test_unmap_of_no_window(family: str, pae: bool, debug: bool, where: str) -> None:
    kernel = boot(family, pae, debug)
    layout = kernel.layout
    address = {
        "user": 0x1000,
        "high memory's start": layout.high_memory,
        "pkmap": layout.PKMAP_BASE,
        "above windows": layout.fix_to_virt(layout.FIX_KMAP_BEGIN - 1),
    }[where]
    fill(kernel, 1)
    before = counts(kernel)
    with Watch(kernel) as watch:
        if debug:
            why = "vaddr < PAGE_OFFSET" if where == "user" else "vaddr >= high_memory"
            with pytest.raises(KernelBug, match=why):
                kernel.kunmap_atomic(address)
            assert counts(kernel) == before
        else:
            kernel.kunmap_atomic(address)
            assert counts(kernel) == (0, 0)
    assert watch.steps == []
    assert kernel.temporary.depth() == 1


@every_variant
def test_window_area_is_tested_with_both_ends_included(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    layout = kernel.layout
    windows = stack(kernel)
    low = layout.fix_to_virt(layout.FIX_KMAP_END)
    high = layout.fix_to_virt(layout.FIX_KMAP_BEGIN)
    assert [windows.in_windows(x) for x in (low - 0x1000, low, high, high + 0x1000)] == [
        False, True, True, False,
    ]  # fmt: skip


@every_variant
def test_pfn_variant(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    low = low_page(kernel)
    kernel.ptes.set_pte(kernel.temporary.pte_of(0), 0x1234163)
    with Watch(kernel) as watch:
        address = kernel.kmap_atomic_pfn(low.pfn)  # no busy check, no highmem test
    assert watch.brief == [("set", 0)]
    assert watch.steps[0].value == window_entry(kernel, low.pfn)
    assert counts(kernel) == COUNTS[family]
    assert kernel.read32(address) == low.pfn
    kernel.kunmap_atomic(address)
    assert kernel.kmap_atomic_prot_pfn(low.pfn, 0x161) == address
    assert kernel.window_entry(0, 0) == low.pfn << 12 | 0x161


@every_variant
def test_iounmap_pops_but_does_not_check(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    address = kernel.kmap_atomic_pfn(0x3F000)
    with Watch(kernel) as watch:
        stack(kernel).iounmap_atomic(address)
    assert watch.brief == [("clear", 0), ("flush", address)]
    assert counts(kernel) == (0, 0)
    kernel.kmap_atomic_pfn(0x3F000)
    stack(kernel).iounmap_atomic(0x1000)  # step 3 is not there
    kernel.kmap_atomic(low_page(kernel))
    stack(kernel).iounmap_atomic(kernel.pfn_to_page(5))  # a function, not a checking macro
    assert kernel.temporary.depth() == 1
    assert len(kernel.log) == 0


@every_variant
def test_lazy_mmu_mode(family: str, pae: bool, debug: bool) -> None:
    """8: page map and unmap flush the queue from 3.2 on, the pfn variant always; 2.6.37 to
    3.1 hand out an address that is not mapped yet (I24)."""
    kernel = boot(family, pae, debug, paravirt_lazy=True)
    first, second = high_pages(kernel, 2)
    with lazy_mmu_mode(kernel):
        address = kernel.kmap_atomic(first)
        if family in LAZY_FLUSH:
            assert kernel.read32(address) == first.pfn
        else:
            with pytest.raises(KernelPageFault):
                kernel.read32(address)
        other = kernel.kmap_atomic_pfn(second.pfn)
        assert kernel.read32(other) == second.pfn
    assert kernel.read32(address) == first.pfn
    with lazy_mmu_mode(kernel):
        kernel.kunmap_atomic(other)
        assert (kernel.window_entry(0, 1) == 0) is (family in LAZY_FLUSH)
        stack(kernel).iounmap_atomic(address)  # never flushes the queue
        assert kernel.window_entry(0, 0) != 0
    assert kernel.window_entry(0, 0) == kernel.window_entry(0, 1) == 0
    with pytest.raises(KernelPageFault):
        kernel.read32(address)


@every_table
def test_lazy_mmu_mode_does_not_reach_into_interrupts(family: str, pae: bool) -> None:
    kernel = boot(family, pae, paravirt_lazy=True)
    first = high_pages(kernel, 1)[0]
    with lazy_mmu_mode(kernel):
        kernel.ptes.set_pte(kernel.temporary.pte_of(7), 0x1234163)
        kernel.context.irq_enter()
        address = kernel.kmap_atomic(first)
        assert kernel.read32(address) == first.pfn
        assert kernel.window_entry(0, 7) == 0  # what the interrupted code queued waits
        kernel.kunmap_atomic(address)
        kernel.context.irq_exit()
        assert kernel.window_entry(0, 7) == 0
    assert kernel.window_entry(0, 7) == 0x1234163


@every_variant
def test_hard_interrupt_with_interrupts_on(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    kernel.context.irq_enter()
    kernel.kunmap_atomic(fill(kernel, 1)[0])
    assert len(kernel.log) == 0
    kernel.context.this.cpu.interrupts_enabled = True
    for _ in range(2):
        with Watch(kernel) as watch:
            kernel.kunmap_atomic(fill(kernel, 1)[0])
        assert watch.steps[0].complaints == debug
    assert len(kernel.log) == kernel.log.silent_repeats == debug


@every_variant
def test_page_instead_of_the_address(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page = high_pages(kernel, 1)[0]
    kernel.kmap_atomic(page)
    with Watch(kernel) as watch, pytest.raises(NotAnAddressError, match="kunmap_atomic"):
        kernel.kunmap_atomic(page)
    with pytest.raises(TypeError):
        kernel.kunmap_atomic("0xfffbb000")
    assert watch.steps == []
    assert counts(kernel) == COUNTS[family]


@every_variant
def test_kmap_atomic_to_page(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page = high_pages(kernel, 1)[0]
    address = kernel.kmap_atomic(page)
    if family in ("S3", "S4"):  # 3.3: gone by 4.4
        with pytest.raises(UsageError, match="no kmap_atomic_to_page"):
            kernel.kmap_atomic_to_page(address)
        return
    assert kernel.kmap_atomic_to_page(address | 0xABC) is page
    assert kernel.kmap_atomic_to_page(0xC0005678).pfn == 5


@every_table
def test_a_window_used_from_another_cpu_stays_in_its_tlb(family: str, pae: bool) -> None:
    """I23 and 8: windows are flushed on their own CPU only."""
    kernel = boot(family, pae)
    page = high_pages(kernel, 1)[0]
    address = kernel.kmap_atomic(page)
    with kernel.on(1):
        assert kernel.read32(address) == page.pfn
    kernel.kunmap_atomic(address)
    assert not kernel.stale(address)
    assert kernel.stale(address, cpu=1)
    with kernel.on(1):
        assert kernel.read32(address) == page.pfn


@every_table
def test_an_access_past_the_page_reaches_the_previous_window(family: str, pae: bool) -> None:
    """1 and I25: higher addresses are lower slots."""
    kernel = boot(family, pae)
    a, b = fill(kernel, 2)
    assert b + 0x1000 == a
    assert kernel.read32(b + 0x1000) == kernel.read32(a)
    with pytest.raises(KernelPageFault):
        kernel.read32(b - 4)
