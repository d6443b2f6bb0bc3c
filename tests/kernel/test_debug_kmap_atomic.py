"""debug_kmap_atomic of 2.6.25 to 2.6.36: linux-facts section 2.5, rules A, B and C."""

from __future__ import annotations

import pytest

from highmem.kernel.kernel import Kernel
from highmem.kernel.profile import KM_TYPES
from support.kernel_machine import TYPED, Watch, boot, high_pages, km_type, low_page

CHECKED = ("T5", "T6", "T7", "T8", "T9", "T10")
NEW = ("T8", "T9", "T10")
CONTEXTS = (
    "task",
    "task, irqs off",
    "softirq",
    "softirq, irqs off",
    "hardirq",
    "hardirq, irqs on",
    "nmi",
)

A_NMI = {"KM_NMI", "KM_NMI_PTE"}
A_IRQ = {"KM_IRQ0", "KM_IRQ1", "KM_BIO_SRC_IRQ", "KM_BIO_DST_IRQ", "KM_BOUNCE_READ"}
A_SOFT = {"KM_IRQ0", "KM_IRQ1", "KM_SOFTIRQ0", "KM_SOFTIRQ1", "KM_SKB_SUNRPC_DATA"} | {
    "KM_SKB_DATA_SOFTIRQ",
    "KM_BOUNCE_READ",
}
B_IRQ = {"KM_IRQ0", "KM_IRQ1", "KM_BOUNCE_READ", "KM_BIO_SRC_IRQ", "KM_BIO_DST_IRQ"}
B_SOFT = {"KM_SOFTIRQ0", "KM_SOFTIRQ1"}


def enter(kernel: Kernel, context: str) -> None:
    if "softirq" in context:
        kernel.context.softirq_enter()
    if "hardirq" in context:
        kernel.context.irq_enter()
    if context == "nmi":
        kernel.context.this.nmi_count += 1
    kernel.context.this.cpu.interrupts_enabled = context in {
        "task", "softirq", "hardirq, irqs on",
    }  # fmt: skip


def expected(family: str, context: str, name: str) -> int:
    """How many WARNs the rules of section 2.5 give."""
    new = family in NEW
    irqs_on = context in {"task", "softirq", "hardirq, irqs on"}
    in_interrupt = not context.startswith("task")
    rule_a = False
    if new and context == "nmi":
        rule_a = name not in A_NMI
    elif context.startswith("hardirq"):
        rule_a = name not in (A_IRQ | {"KM_IRQ_PTE"} if new else A_IRQ)
    elif in_interrupt and irqs_on:
        rule_a = name not in A_SOFT
    rule_b = False
    if name in (B_IRQ | A_NMI | {"KM_IRQ_PTE"} if new else B_IRQ):
        rule_b = irqs_on
    elif name in B_SOFT:
        rule_b = not in_interrupt and irqs_on
    return rule_a + rule_b


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("family", TYPED)
def test_every_type_in_every_context(family: str, context: str) -> None:
    for number in range(boot(family).profile.features.km_types):
        kernel = boot(family, debug=True)
        page = high_pages(kernel, 1)[0]
        enter(kernel, context)
        name = KM_TYPES[number]
        warnings = expected(family, context, name) if family in CHECKED else 0
        with Watch(kernel) as watch:
            address = kernel.kmap_atomic(page, number)
        assert len(kernel.log) == warnings, name
        assert kernel.read32(address) == page.pfn  # a warning never stops the mapping
        # Step 4 comes before step 7 and after step 1.
        assert watch.steps[0].complaints == warnings
        assert watch.steps[0].preempt_count == 1


@pytest.mark.parametrize("family", CHECKED)
def test_each_rule_is_a_complaint_of_its_own(family: str) -> None:
    kernel = boot(family, debug=True)
    enter(kernel, "hardirq, irqs on")
    kernel.kmap_atomic(high_pages(kernel, 1)[0], km_type("KM_SOFTIRQ0"))
    assert [splat.function for splat in kernel.log] == ["debug_kmap_atomic"]
    kernel.kmap_atomic(high_pages(kernel, 1)[0], km_type("KM_IRQ0"))
    assert len({splat.condition for splat in kernel.log}) == 2


@pytest.mark.parametrize("family", TYPED)
def test_only_high_pages_and_from_t6_frames_are_checked(family: str) -> None:
    kernel = boot(family, debug=True)
    enter(kernel, "hardirq")
    kernel.kmap_atomic(low_page(kernel), km_type("KM_USER0"))
    assert len(kernel.log) == 0
    kernel.kmap_atomic_pfn(high_pages(kernel, 1)[0].pfn, km_type("KM_USER0"))
    assert len(kernel.log) == (family in CHECKED[1:])


@pytest.mark.parametrize("family", TYPED)
def test_no_check_without_debug_highmem(family: str) -> None:
    kernel = boot(family)
    enter(kernel, "hardirq")
    kernel.kmap_atomic(high_pages(kernel, 1)[0], km_type("KM_USER0"))
    assert len(kernel.log) == 0


@pytest.mark.parametrize("family", CHECKED)
def test_built_without_irqflags_tracing(family: str) -> None:
    # linux-facts 2.5 rule 5: 2.6.30 to 2.6.34 need TRACE_IRQFLAGS_SUPPORT.
    kernel = boot(family, debug=True, trace_irqflags=False)
    enter(kernel, "hardirq")
    kernel.kmap_atomic(high_pages(kernel, 1)[0], km_type("KM_USER0"))
    assert len(kernel.log) == (family not in ("T6", "T7", "T8"))


def complain(kernel: Kernel, name: str, context: str, times: int) -> None:
    enter(kernel, context)
    number = km_type(name)
    page = kernel.pfn_to_page(kernel.layout.highstart_pfn)
    for _ in range(times):
        kernel.kunmap_atomic(kernel.kmap_atomic(page, number), number)
    kernel.context.this.hardirq_count = 0


@pytest.mark.parametrize("family", CHECKED)
def test_the_budget_is_ten_and_eleven_when_signed(family: str) -> None:
    kernel = boot(family, debug=True)
    complain(kernel, "KM_USER0", "hardirq", 20)
    assert len(kernel.log) == (11 if family in NEW else 10)


@pytest.mark.parametrize("family", NEW)
def test_a_call_that_passes_the_end_of_the_budget_still_says_all(family: str) -> None:
    kernel = boot(family, debug=True)
    complain(kernel, "KM_NMI", "hardirq, irqs on", 20)  # two each: 10, 8, .. 0, -2
    assert len(kernel.log) == 12


@pytest.mark.parametrize("family", ["T5", "T6", "T7"])
def test_the_unsigned_budget_stops_at_zero_or_not_at_all(family: str) -> None:
    # Rule A and rule B fail together for KM_BIO_SRC_IRQ in a softirq with interrupts on.
    assert expected(family, "softirq", "KM_BIO_SRC_IRQ") == 2
    even = boot(family, debug=True)
    complain(even, "KM_BIO_SRC_IRQ", "softirq", 20)
    assert len(even.log) == 10
    odd = boot(family, debug=True)
    complain(odd, "KM_USER0", "softirq", 1)
    odd.context.softirq_exit()
    complain(odd, "KM_BIO_SRC_IRQ", "softirq", 20)
    assert len(odd.log) == 1 + 40


@pytest.mark.parametrize("family", TYPED[9:])
@pytest.mark.parametrize("kdb", [False, True])
def test_kdb_window_needs_an_active_debugger(family: str, kdb: bool) -> None:
    kernel = boot(family, debug=True, kgdb_kdb=kdb)
    page = high_pages(kernel, 1)[0]
    number = km_type("KM_KDB")
    kernel.kunmap_atomic(kernel.kmap_atomic(page, number), number)
    assert len(kernel.log) == (family == "T10" and kdb)
    kernel.temporary.kgdb_active = True  # type: ignore[union-attr]
    kernel.kunmap_atomic(kernel.kmap_atomic(page, number), number)
    assert len(kernel.log) == (family == "T10" and kdb)
