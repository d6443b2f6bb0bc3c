from __future__ import annotations

import pytest

from highmem.errors import UsageError
from highmem.kernel.bug import Severity
from support.kernel_machine import ALL, boot, high_pages

COUNTING = tuple(f for f in ALL if f not in ("S3", "S4", "L0", "L1"))


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("counts", [False, True])
def test_pagefault_disable(family: str, counts: bool) -> None:
    """linux-facts 3.4: up to 4.1 the preempt count, whatever the configuration."""
    context = boot(family, preempt_count=counts).context
    context.pagefault_disable()
    assert context.faulthandler_disabled()
    expected = (1, 0) if family in COUNTING else (0, 1)
    assert (context.this.preempt_count, context.this.current.pagefault_disabled) == expected
    assert context.in_atomic() is (family in COUNTING)
    context.pagefault_enable()
    assert not context.faulthandler_disabled()


def test_preempt_disable_without_preempt_count_is_a_barrier() -> None:
    context = boot("S4", preempt_count=False).context
    context.preempt_disable()
    assert context.this.preempt_count == 0
    context.preempt_enable()
    context = boot("S4").context
    context.preempt_disable()
    assert context.in_atomic()
    context.preempt_enable()
    assert not context.in_atomic()


@pytest.mark.parametrize("family", ["T10", "S3", "S4", "L1"])
def test_fault_counter_below_zero(family: str) -> None:
    context = boot(family).context
    context.pagefault_enable()
    # linux-facts 3.4: only early 4.x has the WARN_ON.
    assert [s.function for s in context.log] == ["pagefault_enable"] * (family == "S3")


def test_where_we_are() -> None:
    context = boot("S4").context
    assert not (context.in_irq() or context.in_nmi() or context.in_interrupt())
    context.softirq_enter()
    assert (context.in_interrupt(), context.in_irq(), context.irqs_disabled()) == (1, 0, 0)
    context.irq_enter()
    assert (context.in_interrupt(), context.in_irq(), context.irqs_disabled()) == (1, 1, 1)
    context.irq_exit()
    assert not context.irqs_disabled()
    context.softirq_exit()
    context.this.nmi_count = 1
    assert (context.in_nmi(), context.in_interrupt(), context.in_atomic()) == (1, 1, 1)


def test_return_from_a_nested_interrupt_turns_interrupts_on_again() -> None:
    context = boot("S4").context
    context.irq_enter()
    context.this.cpu.interrupts_enabled = True  # else the second could not come
    context.irq_enter()
    assert context.irqs_disabled()
    context.irq_exit()
    assert not context.irqs_disabled()
    assert context.in_irq()
    context.irq_exit()
    assert not context.in_irq()


@pytest.mark.parametrize("why", ["preempt", "irqs", "softirq"])
def test_might_sleep(why: str) -> None:
    context = boot("S4").context
    context.might_sleep("kmap")
    assert len(context.log) == 0
    if why == "preempt":
        context.preempt_disable()
    elif why == "irqs":
        context.this.cpu.interrupts_enabled = False
    else:
        context.softirq_enter()
    context.might_sleep("kmap")
    assert [(s.severity, s.function) for s in context.log] == [(Severity.SLEEP, "kmap")]


@pytest.mark.parametrize("family", ["T10", "S2", "S3", "L1"])
def test_switching_away_with_an_atomic_window(family: str) -> None:
    """I12: the scheduler complains; the stack era's window is then nobody's."""
    kernel = boot(family)
    page = high_pages(kernel, 1)[0]
    address = kernel.kmap_atomic(page, 3 if family == "T10" else None)
    kernel.run_on(0, kernel.spawn("next"))
    assert [s.severity for s in kernel.log] == [Severity.SCHED]
    assert kernel.context.this.preempt_count == 0
    if family == "L1":  # the task takes it along
        assert kernel.window_entry(0, 0) == 0
    else:
        assert kernel.read32(address) == page.pfn


def test_switching_away_without_preempt_count_goes_unnoticed() -> None:
    kernel = boot("S4", preempt_count=False)
    kernel.kmap_atomic(high_pages(kernel, 1)[0])
    kernel.run_on(0, kernel.spawn("next"))
    assert len(kernel.log) == 0


def test_switching_away_in_an_interrupt() -> None:
    kernel = boot("S4")
    kernel.context.irq_enter()
    kernel.run_on(0, kernel.spawn("next"))
    assert [s.severity for s in kernel.log] == [Severity.SCHED]


def test_tasks_and_their_counts() -> None:
    kernel = boot("S4")
    first, second = kernel.spawn("first"), kernel.spawn("second", pid=500)
    assert (str(first), str(second)) == ("first/2", "second/500")
    kernel.run_on(0, first)
    kernel.run_on(0, first)  # already there
    kernel.context.pagefault_disable()
    kernel.run_on(0, second)
    assert not kernel.context.faulthandler_disabled()
    kernel.run_on(0, first)
    assert kernel.context.faulthandler_disabled()


def test_on_comes_back_to_the_cpu_before() -> None:
    kernel = boot("S4")
    task = kernel.spawn("there")
    with kernel.on(1, task):
        assert kernel.current is task
        assert kernel.context.this.id == 1
    assert kernel.context.this.id == 0
    assert kernel.context.cpus[1].current is task
    with pytest.raises(UsageError, match="no CPU 2: this machine has 2"):
        kernel.run_on(2)
