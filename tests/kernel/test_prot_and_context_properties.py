"""Random options and contexts: I10 (what a window's entry looks like) and I14 (who may map)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from highmem.kernel.bug import KernelBug, Severity
from highmem.kernel.families import FAMILIES
from highmem.kernel.kernel import Kernel
from highmem.kernel.profile import Era, make_profile
from highmem.machine.paging import NX

UNTYPED = [name for name, family in FAMILIES.items() if family.era is not Era.TYPED]


@given(
    family=st.sampled_from(sorted(FAMILIES)),
    pae=st.booleans(),
    nx=st.booleans(),
    pge=st.booleans(),
    pti=st.booleans(),
    frame=st.integers(0, 0x3FF),
)
def test_i10_low_bits_are_0x163_or_0x063_and_nx_is_only_on_pae(
    family: str, pae: bool, nx: bool, pge: bool, pti: bool, frame: int
) -> None:
    kernel = Kernel.boot(make_profile(family, pae=pae, nx=nx, pge=pge, pti=pti, nr_cpus=2), cpus=2)
    page = kernel.pfn_to_page(kernel.layout.highstart_pfn + frame)
    km_type = 3 if kernel.profile.era is Era.TYPED else None
    with kernel.on(1):
        window = kernel.kmap_atomic(page, km_type)
    found = kernel.layout.window_of(window)
    assert found is not None
    pinned = kernel.kmap(page)
    for entry in (
        kernel.window_entry(*found),
        kernel.ptes.read(kernel.permanent.pte_of(kernel.layout.pkmap_nr(pinned))),
    ):
        assert entry & 0xFFF == (0x163 if pge and not pti else 0x063)
        assert bool(entry & NX) == (pae and nx)
        assert kernel.ptes.pte_pfn(entry) == page.pfn


def enter(kernel: Kernel, context: str) -> None:
    if context.startswith("hardirq"):
        kernel.context.irq_enter()
    elif context == "softirq":
        kernel.context.softirq_enter()
    if context == "hardirq, interrupts on":
        kernel.context.this.cpu.interrupts_enabled = True


CONTEXTS = st.sampled_from(["task", "softirq", "hardirq", "hardirq, interrupts on"])


@given(family=st.sampled_from(UNTYPED), debug=st.booleans(), context=CONTEXTS)
def test_i14_an_atomic_window_in_a_hard_interrupt_with_interrupts_on_is_warned_of(
    family: str, debug: bool, context: str
) -> None:
    kernel = Kernel.boot(make_profile(family, debug_highmem=debug, nr_cpus=2), cpus=2)
    page = kernel.alloc_page()
    enter(kernel, context)
    for _ in range(2):  # WARN_ON_ONCE: the second time is silent
        kernel.kunmap_atomic(kernel.kmap_atomic(page))
    checked = debug or kernel.profile.era is Era.LOCAL
    expected = checked and context == "hardirq, interrupts on"
    warnings = [s for s in kernel.log if s.severity is Severity.WARN]
    assert len(warnings) == (1 if expected else 0)
    assert all("irqs_disabled" in s.condition for s in warnings)


@given(family=st.sampled_from(sorted(FAMILIES)), context=CONTEXTS, high=st.booleans())
def test_i14_permanent_mappings_are_for_tasks_that_may_sleep(
    family: str, context: str, high: bool
) -> None:
    kernel = Kernel.boot(make_profile(family, nr_cpus=2), cpus=2)
    page = kernel.alloc_page(highmem=high)
    kernel.kmap(page)
    assert not list(kernel.log)
    enter(kernel, context)
    bugs = kernel.profile.features.kunmap_in_interrupt == "bug"
    try:
        kernel.kunmap(page)
    except KernelBug:
        assert bugs and context != "task"
    else:
        assert context == "task" or not bugs
        complaints = [s for s in kernel.log if s.severity is Severity.SLEEP]
        assert len(complaints) == (0 if context == "task" else 1)
