"""kmap_local, 5.11 on: linux-facts section 4."""

from __future__ import annotations

import pytest

from highmem.errors import UsageError
from highmem.kernel.bug import KernelBug, KernelPageFault, NotAnAddressError, Severity
from highmem.kernel.kernel import Kernel
from highmem.kernel.local import LocalWindows
from support.kernel_machine import (
    LOCAL,
    Watch,
    boot,
    high_pages,
    lazy_mmu_mode,
    low_page,
    variants,
    window_entry,
)

every_variant = pytest.mark.parametrize(("family", "pae", "debug"), variants(LOCAL))


def local(kernel: Kernel) -> LocalWindows:
    assert isinstance(kernel.temporary, LocalWindows)
    return kernel.temporary


def slots(debug: bool, depth: int) -> list[int]:
    """4.1: slots used at depth 1, 2, 3: 0, 1, 2, or with guards 1, 3, 5."""
    return [2 * n + 1 if debug else n for n in range(depth)]


def per_cpu(debug: bool) -> int:
    return 33 if debug else 16


@every_variant
def test_map_order(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    pages = high_pages(kernel, 3)
    with kernel.on(1), Watch(kernel) as watch:
        addresses = [kernel.kmap_local_page(page) for page in pages]
        wanted = [per_cpu(debug) + slot for slot in slots(debug, 3)]
        assert watch.brief == [("set", index) for index in wanted]  # no flush on map
        for step, page in zip(watch.steps, pages, strict=True):
            assert step.value == window_entry(kernel, page.pfn)
            assert step.preempt_count == 1  # off only inside the call
        task = kernel.current
        assert [step.depth for step in watch.steps] == [n * (1 + debug) for n in (1, 2, 3)]
        assert (kernel.context.this.preempt_count, task.pagefault_disabled) == (0, 0)
        assert task.migrate_disabled == 3
        saved = task.kmap_ctrl.pteval
        assert [saved[slot] for slot in slots(debug, 3)] == [step.value for step in watch.steps]
        begin = kernel.layout.FIX_KMAP_BEGIN
        assert addresses == [0xFFFFF000 - ((begin + index) << 12) for index in wanted]
        assert [kernel.read32(address) for address in addresses] == [page.pfn for page in pages]
        assert kernel.temporary.depth() == 3


def test_first_window_with_guards() -> None:
    """9.4 [CC]: 6.1 with DEBUG, first window of CPU 0 is slot 1 = 0xfffba000."""
    kernel = boot("L1", debug=True, nr_cpus=32)
    assert kernel.kmap_local_page(high_pages(kernel, 1)[0]) == 0xFFFBA000


@every_variant
def test_unmap_order(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page, other = high_pages(kernel, 2)
    kernel.kmap_local_page(page)
    address = kernel.kmap_local_page(other)
    kernel.read32(address)
    slot = slots(debug, 2)[1]
    with Watch(kernel) as watch:
        kernel.kunmap_local(address + 0xFFF)
    assert watch.brief == [("clear", slot), ("flush", address)]
    for step in watch.steps:
        assert step.preempt_count == 1
        assert step.depth == 2 * (1 + debug)  # 4.3: the index goes down after both
    task = kernel.current
    assert task.kmap_ctrl.pteval[slot] == 0
    assert (kernel.context.this.preempt_count, task.migrate_disabled) == (0, 1)
    with pytest.raises(KernelPageFault):
        kernel.read32(address)


@every_variant
def test_low_page(family: str, pae: bool, debug: bool) -> None:
    """4.2: no state change at all, unless FORCE_MAP (which DEBUG_HIGHMEM selects)."""
    kernel = boot(family, pae, debug)
    page = low_page(kernel)
    with Watch(kernel) as watch:
        address = kernel.kmap_local_page(page)
        if debug:
            assert kernel.layout.window_of(address) == (0, 1)
            assert kernel.current.migrate_disabled == 1
        else:
            assert address == 0xC0000000 + (page.pfn << 12)
            assert kernel.current.migrate_disabled == 0
        assert kernel.read32(address) == page.pfn
        kernel.kunmap_local(address)
    assert len(watch.steps) == 3 * debug
    assert len(kernel.log) == 0


@every_variant
def test_depth_limit(family: str, pae: bool, debug: bool) -> None:
    """4.1: 15 deep (slot 15 is never used), 16 with guards; the BUG is always compiled in."""
    kernel = boot(family, pae, debug)
    pages = high_pages(kernel, 17)
    limit = 16 if debug else 15
    for page in pages[:limit]:
        address = kernel.kmap_local_page(page)
    assert kernel.layout.window_of(address) == (0, 31 if debug else 14)
    with Watch(kernel) as watch, pytest.raises(KernelBug, match="KM_MAX_IDX"):
        kernel.kmap_local_page(pages[limit])
    assert watch.steps == []
    # BUG in step 3: migration and preemption are off, the index is up.
    assert kernel.current.migrate_disabled == limit + 1
    assert kernel.context.this.preempt_count == 1
    assert kernel.current.kmap_ctrl.idx == per_cpu(debug) + (1 if debug else 0)
    assert kernel.window_entry(1, 0) == 0


@every_variant
def test_busy_slot(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    slot = slots(debug, 1)[0]
    kernel.ptes.set_pte(kernel.temporary.pte_of(slot), 0x1234163)
    with Watch(kernel) as watch, pytest.raises(KernelBug, match="pte_none"):
        kernel.kmap_local_page(high_pages(kernel, 1)[0])
    assert watch.steps == []
    assert kernel.temporary.depth() == 1
    assert kernel.current.kmap_ctrl.pteval[slot] == 0  # step 8 was not reached
    kernel.ptes.set_pte(kernel.temporary.pte_of(per_cpu(debug) + slot), 0x1234163)
    with kernel.on(1), pytest.raises(KernelBug, match="pte_none"):
        kernel.kmap_local_pfn(0x3F000)  # 5.11: the pfn variant checks as well


@every_variant
def test_misordered_unmap(family: str, pae: bool, debug: bool) -> None:
    """4.3 [LIVE 6.1]: the top goes, one warning, the second is silent."""
    kernel = boot(family, pae, debug)
    first, second = high_pages(kernel, 2)
    a, b = kernel.kmap_local_page(first), kernel.kmap_local_page(second)
    kernel.read32(a), kernel.read32(b)
    low, top = slots(debug, 2)
    with Watch(kernel) as watch:
        kernel.kunmap_local(a)
    assert watch.brief == [("clear", top), ("flush", a)]
    assert watch.steps[0].complaints == 1
    assert kernel.window_entry(0, low) == window_entry(kernel, first.pfn)
    assert kernel.stale(b)
    assert (kernel.read32(b), kernel.read32(a)) == (second.pfn, first.pfn)
    kernel.kunmap_local(b)
    assert kernel.stale(a)
    assert kernel.window_entry(0, low) == 0
    assert kernel.current.migrate_disabled == 0
    splat = kernel.log.splats[0]
    assert (splat.severity, splat.function) == (Severity.WARN, "kunmap_local_indexed")
    assert (len(kernel.log), kernel.log.silent_repeats) == (1, 1)


@every_variant
@pytest.mark.parametrize("cpu", [0, 1])
def test_unmap_at_depth_zero(family: str, pae: bool, debug: bool, cpu: int) -> None:
    kernel = boot(family, pae, debug)
    kernel.run_on(cpu)
    address = kernel.layout.window_address(cpu, 0)
    victim = per_cpu(debug) * cpu - 1
    kernel.ptes.set_pte(kernel.temporary.pte_of(victim), 0x1234163)
    with Watch(kernel) as watch, pytest.raises(KernelBug, match=r"kmap_ctrl\.idx < 0"):
        kernel.kunmap_local(address)
    assert watch.brief == [("clear", victim), ("flush", address)]
    assert kernel.current.kmap_ctrl.idx == -(1 + debug)
    assert kernel.context.this.preempt_count == 1
    assert [s.severity for s in kernel.log] == [Severity.WARN, Severity.BUG]


@every_variant
@pytest.mark.parametrize("where", ["user", "lowmem", "vmalloc", "pkmap", "fixmap"])
def test_unmap_of_no_window(family: str, pae: bool, debug: bool, where: str) -> None:
    kernel = boot(family, pae, debug)
    layout = kernel.layout
    address = {
        "user": 0xBFFFF000,
        "lowmem": 0xC0100000,
        "vmalloc": layout.VMALLOC_START,
        "pkmap": layout.PKMAP_BASE,
        "fixmap": layout.fix_to_virt(layout.FIX_KMAP_BEGIN - 1),
    }[where]
    kernel.kmap_local_page(high_pages(kernel, 1)[0])
    with Watch(kernel) as watch:
        kernel.kunmap_local(address)
        kernel.kunmap_local(address)
    assert watch.steps == []
    assert kernel.temporary.depth() == 1
    assert kernel.current.migrate_disabled == 1  # 4.3 step 2 returns before all of it
    warns = debug or where == "user"
    assert (len(kernel.log), kernel.log.silent_repeats) == (warns, warns)


def test_migrate_enable_warns_when_the_task_was_not_pinned() -> None:
    kernel = boot("L1")
    address = kernel.kmap_local_page(high_pages(kernel, 1)[0])
    kernel.current.migrate_disabled = 0
    kernel.kunmap_local(address)
    assert [s.function for s in kernel.log] == ["migrate_enable"]
    assert kernel.current.migrate_disabled == 0


@every_variant
def test_uniprocessor_does_not_count_migration(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug, cpus=1, nr_cpus=1)
    address = kernel.kmap_local_page(high_pages(kernel, 1)[0])
    assert kernel.current.migrate_disabled == 0
    kernel.kunmap_local(address)
    assert len(kernel.log) == 0


@every_variant
def test_hard_interrupt_with_interrupts_on(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page = high_pages(kernel, 1)[0]
    kernel.context.irq_enter()
    kernel.kunmap_local(kernel.kmap_local_page(page))
    assert len(kernel.log) == 0
    kernel.context.this.cpu.interrupts_enabled = True
    with Watch(kernel) as watch:
        for _ in range(2):
            kernel.kunmap_local(kernel.kmap_local_page(page))
    assert watch.steps[0].complaints == 1  # always compiled in
    assert (len(kernel.log), kernel.log.silent_repeats) == (1, 1)


# kmap_atomic on top of it: 3.4 and 4.2.


@every_variant
@pytest.mark.parametrize("rt", [False, True])
def test_kmap_atomic(family: str, pae: bool, debug: bool, rt: bool) -> None:
    kernel = boot(family, pae, debug, preempt_rt=rt)
    page = high_pages(kernel, 1)[0]
    with Watch(kernel) as watch:
        address = kernel.kmap_atomic(page)
    migrates = rt and family == "L1"  # 5.11 has no RT branch
    task = kernel.current
    assert watch.steps[0].pagefault_disabled == 1
    assert watch.steps[0].preempt_count == (1 if migrates else 2)
    assert kernel.context.this.preempt_count == (0 if migrates else 1)
    assert task.migrate_disabled == (2 if migrates else 1)
    assert kernel.context.faulthandler_disabled()
    kernel.kunmap_atomic(address)
    assert (kernel.context.this.preempt_count, task.pagefault_disabled) == (0, 0)
    assert task.migrate_disabled == 0
    assert not kernel.context.faulthandler_disabled()


@every_variant
def test_kmap_atomic_of_a_low_page_still_counts(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    address = kernel.kmap_atomic(low_page(kernel))
    assert (kernel.context.this.preempt_count, kernel.current.pagefault_disabled) == (1, 1)
    kernel.kunmap_atomic(address)
    assert (kernel.context.this.preempt_count, kernel.current.pagefault_disabled) == (0, 0)


@every_variant
def test_pfn_and_prot_variants(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    low, high = low_page(kernel), high_pages(kernel, 1)[0]
    assert kernel.read32(kernel.kmap_local_pfn(low.pfn)) == low.pfn
    address = kernel.kmap_local_page_prot(high, 0x161)
    with pytest.raises(KernelPageFault, match="permissions violation"):
        kernel.write32(address, 1)
    address = kernel.kmap_atomic_prot_pfn(low.pfn, 0x161)
    assert kernel.read32(address) == low.pfn
    address = kernel.kmap_atomic_pfn(low.pfn)
    assert kernel.current.pagefault_disabled == 2
    assert kernel.read32(kernel.kmap_atomic_prot(high, 0x163)) == high.pfn
    assert kernel.temporary.depth() == 5


# Context switch, fork, exit: 4.4.


@every_variant
def test_switch_clears_and_restores(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    pages = high_pages(kernel, 3)
    holder, other = kernel.spawn("holder"), kernel.spawn("other")
    kernel.run_on(0, holder)
    addresses = [kernel.kmap_local_page(page) for page in pages]
    for address in addresses:
        kernel.read32(address)
    saved = list(holder.kmap_ctrl.pteval)
    with Watch(kernel) as watch:
        kernel.run_on(0, other)
    expected = []
    for slot, address in zip(slots(debug, 3), addresses, strict=True):
        expected += [("clear", slot), ("flush", address)]
    assert watch.brief == expected
    assert holder.kmap_ctrl.pteval == saved
    assert holder.kmap_ctrl.idx == 3 * (1 + debug)
    for address in addresses:
        with pytest.raises(KernelPageFault):
            kernel.read32(address)
    same = kernel.kmap_local_page(pages[2])
    assert same == addresses[0]  # two tasks hold one window address
    assert kernel.read32(same) == pages[2].pfn
    with Watch(kernel) as watch:
        kernel.run_on(0, holder)
    # Out: other's window; in: no flush, entries exactly as saved.
    assert watch.brief[:2] == [("clear", slots(debug, 1)[0]), ("flush", same)]
    assert watch.brief[2:] == [("set", slot) for slot in slots(debug, 3)]
    assert [kernel.window_entry(0, s) for s in range(len(saved))] == saved
    assert [kernel.read32(a) for a in addresses] == [page.pfn for page in pages]
    assert {s.severity for s in kernel.log} == {Severity.OOPS}  # the three reads above


def test_switch_with_the_recorded_entry() -> None:
    """4.4 [LIVE 6.1.0-50-686]: slot 0 0x7a800163 -> 0 -> 0x7a800163."""
    kernel = Kernel.boot("debian-6.1-686")
    task = kernel.spawn("dd")
    kernel.run_on(0, task)
    assert kernel.kmap_local_page(kernel.pfn_to_page(0x7A800)) == 0xFFFBB000
    seen = [kernel.window_entry(0, 0)]
    for running in (kernel.context.this.idle, task):
        kernel.run_on(0, running)
        seen.append(kernel.window_entry(0, 0))
    assert seen == [0x7A800163, 0, 0x7A800163]


def test_a_task_with_a_window_stays_on_its_cpu() -> None:
    kernel = boot("L1")
    task = kernel.spawn("pinned")
    kernel.run_on(1, task)
    address = kernel.kmap_local_page(high_pages(kernel, 1)[0])
    kernel.run_on(1, kernel.context.this.idle)
    with pytest.raises(UsageError, match="pinned to CPU 1"):
        kernel.run_on(0, task)
    kernel.run_on(1, task)
    kernel.kunmap_local(address)
    kernel.run_on(1, kernel.context.this.idle)
    kernel.run_on(0, task)
    assert kernel.current is task and task.cpu == 0


@every_variant
def test_switch_with_damaged_state_warns(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    task = kernel.spawn("damaged")
    kernel.run_on(0, task)
    kernel.kmap_local_page(high_pages(kernel, 1)[0])
    task.kmap_ctrl.pteval[slots(debug, 1)[0]] = 0
    if debug:
        task.kmap_ctrl.pteval[0] = 0x1234163  # a guard slot
    with Watch(kernel) as watch:
        kernel.run_on(0, kernel.context.this.idle)
        kernel.run_on(0, task)
    assert watch.steps == []
    functions = [s.function for s in kernel.log]
    each = 2 if debug else 1
    assert functions == ["__kmap_local_sched_out"] * each + ["__kmap_local_sched_in"] * each


@every_variant
def test_fork(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    clean = kernel.fork()
    assert (clean.comm, clean.kmap_ctrl.idx) == (kernel.current.comm, 0)
    assert len(kernel.log) == 0
    kernel.kmap_local_page(high_pages(kernel, 1)[0])
    for _ in range(2):
        child = kernel.fork("child")
        assert child.kmap_ctrl.idx == 0
        assert not any(child.kmap_ctrl.pteval)
    assert [s.function for s in kernel.log] == ["kmap_local_fork"]
    assert kernel.log.silent_repeats == 1
    assert kernel.temporary.depth() == 1  # the parent keeps its own


@every_variant
def test_exit_to_user_mode(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    kernel.exit_to_user_mode()
    assert len(kernel.log) == 0
    address = kernel.kmap_local_page(high_pages(kernel, 1)[0])
    kernel.exit_to_user_mode()
    kernel.exit_to_user_mode()
    assert (len(kernel.log), kernel.log.silent_repeats) == (1, 1)
    kernel.kunmap_local(address)


def test_older_kernels_have_no_such_hooks() -> None:
    kernel = boot("S4")
    address = kernel.kmap_atomic(high_pages(kernel, 1)[0])
    kernel.exit_to_user_mode()
    child = kernel.fork()
    assert len(kernel.log) == 0
    assert child.kmap_ctrl.pteval == []
    kernel.kunmap_atomic(address)
    for call in (kernel.kunmap_local, kernel.kmap_local_pfn):
        with pytest.raises(UsageError, match=r"came in 5\.11"):
            call(0x3F000)


@every_variant
def test_interrupt_nests_on_the_interrupted_tasks_stack(
    family: str, pae: bool, debug: bool
) -> None:
    kernel = boot(family, pae, debug)
    first, second = high_pages(kernel, 2)
    task = kernel.spawn("interrupted")
    kernel.run_on(0, task)
    kernel.kmap_local_page(first)
    kernel.context.irq_enter()
    address = kernel.kmap_local_page(second)
    assert kernel.layout.window_of(address) == (0, slots(debug, 2)[1])
    assert task.kmap_ctrl.idx == 2 * (1 + debug)
    kernel.kunmap_local(address)
    kernel.context.irq_exit()
    assert task.kmap_ctrl.idx == 1 + debug


# kmap_to_page: 4.5.


def test_kmap_to_page_of_6_1() -> None:
    kernel = boot("L1", cpus=2)
    pages = high_pages(kernel, 3)
    slot0, slot1 = kernel.kmap_local_page(pages[0]), kernel.kmap_local_page(pages[1])
    assert kernel.kmap_to_page(slot1 + 9) is pages[1]
    assert [s.function for s in kernel.log] == ["__kmap_to_page"]
    # The upper bound is exclusive: slot 0 of CPU 0 falls through to virt_to_page.
    wrong = (slot0 - 0xC0000000) >> 12
    assert kernel.kmap_to_page(slot0).pfn == wrong != pages[0].pfn
    assert (len(kernel.log), kernel.log.silent_repeats) == (1, 0)
    with kernel.on(1):
        address = kernel.kmap_local_page(pages[2])
        assert kernel.kmap_to_page(address) is pages[2]
    # Of another task's window it knows nothing.
    assert kernel.kmap_to_page(address).pfn == (address - 0xC0000000) >> 12
    permanent = kernel.kmap(pages[2])
    before = len(kernel.log)
    assert kernel.kmap_to_page(permanent + 1) is pages[2]
    assert len(kernel.log) == before + 1
    assert kernel.kmap_to_page(0xC0003004).pfn == 3


@pytest.mark.parametrize("family", ["S1", "S4", "L0"])
def test_kmap_to_page_before_6_1(family: str) -> None:
    kernel = boot(family)
    page = high_pages(kernel, 1)[0]
    assert kernel.kmap_to_page(kernel.kmap(page)) is page
    address = kernel.kmap_atomic(page)
    assert kernel.kmap_to_page(address).pfn == (address - 0xC0000000) >> 12
    assert len(kernel.log) == 0


@pytest.mark.parametrize("family", ["T0", "T10", "S0"])
def test_kmap_to_page_did_not_exist(family: str) -> None:
    with pytest.raises(UsageError, match="no kmap_to_page"):
        boot(family).kmap_to_page(0xC0000000)


# The rest.


@every_variant
def test_page_instead_of_the_address(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    page = high_pages(kernel, 1)[0]
    address = kernel.kmap_local_page(page)
    for call in (kernel.kunmap_local, kernel.kunmap_atomic):
        with pytest.raises(NotAnAddressError, match=call.__name__):
            call(page)
    assert kernel.read32(address) == page.pfn
    assert kernel.temporary.depth() == 1


@every_variant
def test_lazy_mmu_mode(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug, paravirt_lazy=True)
    page = high_pages(kernel, 1)[0]
    task, other = kernel.spawn("a"), kernel.spawn("b")
    kernel.run_on(0, task)
    with lazy_mmu_mode(kernel):
        address = kernel.kmap_local_page(page)
        assert kernel.read32(address) == page.pfn
        kernel.run_on(0, other)
        with pytest.raises(KernelPageFault):
            kernel.read32(address)
        kernel.run_on(0, task)
        assert kernel.read32(address) == page.pfn
        kernel.kunmap_local(address)
        with pytest.raises(KernelPageFault):
            kernel.read32(address)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("pae", [False, True])
def test_guards_without_debug_highmem(pae: bool, force: bool) -> None:
    kernel = boot("L1", pae, debug_kmap_local=True, force_map=force)
    assert kernel.profile.windows_per_cpu == 33
    address = kernel.kmap_local_page(low_page(kernel))
    assert kernel.layout.is_window(address) is force
    address = kernel.kmap_local_page(high_pages(kernel, 1)[0])
    assert kernel.layout.window_of(address) == (0, 3 if force else 1)
    assert local(kernel).km_incr == 2
    with pytest.raises(KernelPageFault):  # a guard above each window catches the overrun
        kernel.read32(address + 0xFFE)


@every_variant
def test_index_of_the_top_window(family: str, pae: bool, debug: bool) -> None:
    kernel = boot(family, pae, debug)
    assert local(kernel).kmap_local_idx() == -1
    for slot in slots(debug, 3):
        kernel.kmap_local_page(high_pages(kernel, 1)[0])
        assert local(kernel).kmap_local_idx() == slot
