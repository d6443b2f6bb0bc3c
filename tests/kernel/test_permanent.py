"""kmap and kunmap: linux-facts section 5.  Who sleeps is in test_permanent_waiting.py."""

from __future__ import annotations

import pytest

from highmem.errors import UsageError
from highmem.kernel.bug import KernelBug, KernelPageFault, Severity
from highmem.kernel.kernel import Kernel
from support.kernel_machine import (
    ALL,
    Watch,
    boot,
    high_pages,
    low_page,
    variants,
    window_entry,
)

every_variant = pytest.mark.parametrize(("family", "pae", "debug"), variants(ALL))
every_table = pytest.mark.parametrize("pae", [False, True])
BUGS_IN_INTERRUPT = tuple(f for f in ALL if f not in ("S4", "L0", "L1"))
FLUSHES_ALWAYS = ("T0", "T1", "T2", "T3", "T4", "T5")
"""2.6.28 began to flush only if needed; T5 (2.6.25 to 2.6.29) is modelled as its beginning."""


def count(kernel: Kernel, address: int) -> int:
    return kernel.permanent.pkmap_count[kernel.layout.pkmap_nr(address)]


@every_variant
def test_first_kmap(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page = high_pages(kernel, 1)[0]
    with Watch(kernel) as watch:
        address = kernel.kmap(page)
    # 5.1: the first slot ever used is 1.  5.3: neither a flush nor a check.
    assert address == kernel.layout.PKMAP_BASE + 0x1000
    assert watch.brief == [("pkmap set", 1)]
    assert watch.steps[0].value == window_entry(kernel, page.pfn)
    assert (kernel.permanent.last_pkmap_nr, count(kernel, address)) == (1, 2)
    assert kernel.page_address(page) == address
    assert kernel.read32(address) == page.pfn
    assert kernel.layout.LAST_PKMAP == len(kernel.permanent.pkmap_count) == (512 if pae else 1024)
    assert kernel.context.this.preempt_count == kernel.current.pagefault_disabled == 0


@every_variant
def test_use_counts(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page, other = high_pages(kernel, 2)
    address = kernel.kmap(page)
    with Watch(kernel) as watch:
        counts = []
        for call in (kernel.kmap, kernel.kmap, kernel.kunmap, kernel.kunmap, kernel.kunmap):
            assert call(page) in (address, None)
            counts.append(count(kernel, address))
        # 5.6: the same address even after kunmap, until a flush.
        assert kernel.kmap(page) == address
    assert counts == [3, 4, 3, 2, 1]
    assert watch.steps == []
    assert kernel.kmap(other) == address + 0x1000


@every_variant
def test_kunmap_touches_neither_entry_nor_tlb(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page = high_pages(kernel, 1)[0]
    address = kernel.kmap(page)
    with Watch(kernel) as watch:
        kernel.kunmap(page)
    assert watch.steps == []
    assert kernel.page_address(page) == address
    assert kernel.read32(address) == page.pfn


@every_variant
def test_kunmap_too_often(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page, never = high_pages(kernel, 2)
    with pytest.raises(KernelBug, match="!vaddr"):
        kernel.kunmap(never)
    address = kernel.kmap(page)
    kernel.kunmap(page)
    with pytest.raises(KernelBug, match="pkmap_count"):
        kernel.kunmap(page)
    assert count(kernel, address) == 0  # lowered before the BUG
    # kmap_high then finds a page with an address and a count that becomes 1.
    with pytest.raises(KernelBug, match="pkmap_count < 2"):
        kernel.kmap(page)


@every_variant
def test_low_page(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page = low_page(kernel)
    with Watch(kernel) as watch:
        assert kernel.kmap(page) == 0xC0000000 + (page.pfn << 12)
        kernel.kunmap(page)
        kernel.kunmap(page)  # nothing to count
    assert watch.steps == []
    assert kernel.permanent.last_pkmap_nr == len(kernel.addresses) == 0


@every_variant
def test_kunmap_in_an_interrupt(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page = high_pages(kernel, 1)[0]
    address = kernel.kmap(page)
    kernel.context.softirq_enter()
    if family in BUGS_IN_INTERRUPT:  # 5.4: up to 5.7, and before the test for low memory
        for one in (page, low_page(kernel)):
            with pytest.raises(KernelBug, match=r"in_interrupt\(\)"):
                kernel.kunmap(one)
        assert count(kernel, address) == 2
    else:
        kernel.kunmap(page)
        assert [s.severity for s in kernel.log] == [Severity.SLEEP]
        assert count(kernel, address) == 1


@every_variant
def test_kmap_in_atomic_context_complains_and_goes_on(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page = high_pages(kernel, 1)[0]
    kernel.context.preempt_disable()
    address = kernel.kmap(page)
    assert [(s.severity, s.function) for s in kernel.log] == [(Severity.SLEEP, "kmap")]
    assert kernel.read32(address) == page.pfn
    kernel.context.preempt_enable()
    kernel.context.this.cpu.interrupts_enabled = False
    kernel.kmap(low_page(kernel))  # 5.2: might_sleep comes before the test for low memory
    assert len(kernel.log) == 2


@every_variant
def test_wrap(family: str, pae: bool, debug: bool) -> None:
    """5.5: one round of all windows, then the flush, then slot 0."""
    kernel = boot(family, pae, debug, cpus=2)
    last = 512 if pae else 1024
    pages = high_pages(kernel, last + 1)
    for page in pages[: last - 1]:
        address = kernel.kmap(page)
        kernel.read32(address)
    assert address == kernel.layout.PKMAP_BASE + (last - 1 << 12)
    kept = pages[5]
    for page in pages[: last - 1]:
        if page is not kept:
            kernel.kunmap(page)
    with kernel.on(1):
        kernel.read32(kernel.layout.PKMAP_BASE + 0x3000)
    with Watch(kernel) as watch:
        address = kernel.kmap(pages[last])
    assert address == kernel.layout.PKMAP_BASE
    cleared = [("pkmap clear", n) for n in range(1, last) if n != 6]
    flushes = [step for step in watch.steps if step.what == "flush all"]
    rest = [step for step in watch.steps if step.what != "flush all"]
    assert [s.brief for s in rest] == [*cleared, ("pkmap set", 0)]
    assert {s.cpu for s in flushes} == {0, 1}  # every CPU, and after the entries
    assert watch.steps.index(flushes[0]) == len(cleared)
    assert watch.steps[-1].brief == ("pkmap set", 0)
    assert kernel.page_address(kept) == kernel.layout.PKMAP_BASE + 0x6000
    assert kernel.page_address(pages[0]) is None
    assert sorted(kernel.permanent.pkmap_count) == [0] * (last - 2) + [2, 2]
    for cpu in (0, 1):
        with kernel.on(cpu), pytest.raises(KernelPageFault):
            kernel.read32(kernel.layout.PKMAP_BASE + 0x3000)
    # Next comes 1, and 6 is passed over.
    numbers = [kernel.layout.pkmap_nr(kernel.kmap(page)) for page in pages[6:12]]
    assert numbers == [1, 2, 3, 4, 5, 7]


def test_wrap_as_observed() -> None:
    """5.5 [LIVE 5.10]: preset near the end; {1:10, 2:1} -> {0:.., 2:1}, present 11 -> 1."""
    kernel = Kernel.boot("debian-5.10-686", cpus=2)
    kernel.permanent.last_pkmap_nr = 1021 - 9
    pages = high_pages(kernel, 12)
    for page in pages[:11]:
        kernel.kmap(page)
    for page in pages[:10]:
        kernel.kunmap(page)
    counts = kernel.permanent.pkmap_count
    assert (kernel.permanent.last_pkmap_nr, counts.count(1), counts.count(2)) == (1023, 10, 1)

    def present() -> int:
        return sum(kernel.ptes.read(kernel.permanent.pte_of(n)) & 1 for n in range(1024))

    assert present() == 11
    address = kernel.kmap(pages[11])
    assert address == 0xFEC00000
    assert (counts.count(1), counts.count(2), kernel.permanent.last_pkmap_nr) == (0, 2, 0)
    assert counts[1023] == 2
    assert present() == 2  # the kept one and the new one


@pytest.mark.parametrize("family", ALL)
def test_a_flush_that_finds_nothing(family: str) -> None:
    kernel = boot(family, cpus=2)
    page = high_pages(kernel, 1)[0]
    kernel.permanent.last_pkmap_nr = kernel.layout.LAST_PKMAP - 1
    with Watch(kernel) as watch:
        kernel.kmap(page)
    flushed = {s.cpu for s in watch.steps if s.what == "flush all"}
    assert flushed == ({0, 1} if family in FLUSHES_ALWAYS else set())


@every_variant
def test_kmap_flush_unused(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug, cpus=2)
    used, unused = high_pages(kernel, 2)
    kept, gone = kernel.kmap(used), kernel.kmap(unused)
    kernel.read32(gone)
    kernel.kunmap(unused)
    if family in ("T0", "T1", "T2"):  # 5.5: from 2.6.22
        with pytest.raises(UsageError, match="no kmap_flush_unused"):
            kernel.kmap_flush_unused()
        return
    with Watch(kernel) as watch:
        kernel.kmap_flush_unused()
    assert watch.brief[0] == ("pkmap clear", 2)
    assert {s.cpu for s in watch.steps if s.what == "flush all"} == {0, 1}
    assert (count(kernel, kept), count(kernel, gone)) == (2, 0)
    with pytest.raises(KernelPageFault):
        kernel.read32(gone)
    assert kernel.read32(kept) == used.pfn
    assert kernel.permanent.last_pkmap_nr == 2  # it does not move the search


@every_table
def test_flush_without_global_pages(pae: bool) -> None:
    kernel = boot("S4", pae, pge=False)
    page = high_pages(kernel, 1)[0]
    address = kernel.kmap(page)
    kernel.read32(address)
    kernel.kunmap(page)
    kernel.kmap_flush_unused()
    with pytest.raises(KernelPageFault):
        kernel.read32(address)


@every_table
def test_flush_finds_an_entry_that_somebody_cleared(pae: bool) -> None:
    kernel = boot("S4", pae)
    page = high_pages(kernel, 1)[0]
    kernel.kmap(page)
    kernel.kunmap(page)
    kernel.ptes.pte_clear(kernel.permanent.pte_of(1))
    with pytest.raises(KernelBug, match="pte_none"):
        kernel.kmap_flush_unused()
    assert kernel.permanent.pkmap_count[1] == 0  # set before the check


@every_table
def test_flush_of_what_one_cpu_cached(pae: bool) -> None:
    """I23: until the flush the old translation legally stays usable on every CPU."""
    kernel = boot("S4", pae, cpus=2)
    page, other = high_pages(kernel, 2)
    address = kernel.kmap(page)
    with kernel.on(1):
        kernel.read32(address)
    kernel.kunmap(page)
    with kernel.on(1):
        assert kernel.read32(address) == page.pfn
    kernel.kmap_flush_unused()
    kernel.permanent.last_pkmap_nr = 0
    assert kernel.kmap(other) == address
    for cpu in (0, 1):
        assert not kernel.stale(address, cpu)
        with kernel.on(cpu):
            assert kernel.read32(address) == other.pfn


def test_recorded_entry_under_isolation() -> None:
    """6 [LIVE pti=on]: PTE 0x800000007d1e7063, window and pkmap."""
    kernel = boot("S4", True, pti=True)
    page = kernel.pfn_to_page(0x7D1E7)
    kernel.kmap(page)
    kernel.kmap_atomic(page)
    assert kernel.ptes.read(kernel.permanent.pte_of(1)) == 0x800000007D1E7063
    assert kernel.window_entry(0, 0) == 0x800000007D1E7063


def test_kunmap_takes_the_page() -> None:
    kernel = boot("S4")
    address = kernel.kmap(high_pages(kernel, 1)[0])
    with pytest.raises(UsageError, match="takes the page"):
        kernel.kunmap(address)  # type: ignore[arg-type]


@every_table
def test_kmap_high_get_pins_only_what_is_mapped(pae: bool) -> None:
    kernel = boot("S4", pae)
    page, never = high_pages(kernel, 2)
    low = low_page(kernel)
    address = kernel.kmap(page)
    assert kernel.permanent.kmap_high_get(page) == address
    assert count(kernel, address) == 3
    assert kernel.permanent.kmap_high_get(never) is None
    assert kernel.permanent.kmap_high_get(low) == 0xC0000000 + (low.pfn << 12)
    kernel.permanent.pkmap_count[1] = 0
    with pytest.raises(KernelBug, match="pkmap_count < 1"):
        kernel.permanent.kmap_high_get(page)
