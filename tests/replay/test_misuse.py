"""Deliberate misuse on the exact kernel of every era, recorded, replayed: the rule that the
replay finds, at which event, and whether it says what that kernel itself said (its log)."""

from __future__ import annotations

import pytest

from highmem.findings import Finding
from highmem.kernel.bug import KernelBug, Splat
from highmem.kernel.profile import Profile, make_profile
from highmem.replay.verdict import Verdict
from support.recordings import Recorder, real_findings, rule_names

STACK = ("S0", "S1", "S2", "S3", "S4")
LOCAL = ("L0", "L1")
NESTING = STACK + LOCAL


def profile_of(family: str, pae: bool = False, debug: bool = False) -> Profile:
    return make_profile(family, nr_cpus=4, pae=pae, nx=pae, debug_highmem=debug)


def recorder(family: str, pae: bool = False, debug: bool = False, outer: bool = True) -> Recorder:
    rec = Recorder(profile_of(family, pae, debug), cpus=3, outer=outer)
    rec.warm_up((0, 1, 2))
    return rec


def variants(families: tuple[str, ...]) -> pytest.MarkDecorator:
    cases = [(f, pae, debug) for f in families for pae in (False, True) for debug in (False, True)]
    return pytest.mark.parametrize(("family", "pae", "debug"), cases)


def only(verdict: Verdict, rule: str, line: int) -> Finding:
    """The one finding, held to its rule and its event; nothing was predicted wrongly."""
    assert rule_names(verdict) == [rule], [(f.rule.name, f.what) for f in verdict.findings]
    found = verdict.findings[0]
    assert found.where.line == line
    assert verdict.wrong == 0
    assert verdict.exit_code == 1
    return found


def agrees(found: Finding, said: list[Splat]) -> None:
    """What the finding says of the kernel is what the kernel *said* in that call."""
    # The balance of page faults is the wrapper's, around the mapping function (linux-facts 3.4).
    said = [splat for splat in said if splat.function != "pagefault_enable"]
    if not said:
        assert found.kernel_does.startswith("nothing")
        return
    assert said[0].severity.value.split()[-1] in found.kernel_does
    for splat in said:
        assert f"{splat.function}(): {splat.condition}" in found.kernel_does


# Windows in the wrong order.


@variants(NESTING)
def test_the_outer_window_unmapped_first(family: str, pae: bool, debug: bool) -> None:
    rec = recorder(family, pae, debug)
    rec.run(0, "victim")
    outer, inner = rec.map(rec.page()), rec.map(rec.page())
    rec.unmap(outer)
    line, said = rec.line, rec.said()
    rec.unmap(inner)
    rec.unmap(rec.map(rec.page()))
    rec.exit()
    rec.go_on()
    found = only(rec.verdict(), "unmap-order", line)
    agrees(found, said)
    assert found.where.task == f"victim-{rec.task('victim').pid}"
    assert found.where.address == outer
    # Both maps and both unmaps are the evidence.
    assert len(found.evidence) == 4


@variants(NESTING)
def test_three_windows_unmapped_in_the_order_of_mapping(
    family: str, pae: bool, debug: bool
) -> None:
    rec = recorder(family, pae, debug)
    rec.run(0, "victim")
    windows = [rec.map(rec.page()) for _ in range(3)]
    lines: list[int] = []
    said: list[Splat] = []
    for window in windows:
        rec.unmap(window)
        lines.append(rec.line)
        said = said or rec.said()
    rec.unmap(rec.map(rec.page()))
    rec.exit()
    rec.go_on()
    verdict = rec.verdict()
    # The one in the middle is unmapped at its own depth, so two calls are out of order at most.
    assert set(rule_names(verdict)) == {"unmap-order"}
    assert verdict.findings[0].where.line == lines[0]
    assert verdict.wrong == 0
    agrees(verdict.findings[0], said)


# Windows unmapped twice.


@variants(NESTING)
def test_a_second_unmap_takes_the_window_below(family: str, pae: bool, debug: bool) -> None:
    rec = recorder(family, pae, debug)
    rec.run(0, "victim")
    below = rec.map(rec.page())
    window = rec.map(rec.page())
    rec.unmap(window)
    rec.unmap(window)
    line, said = rec.line, rec.said()
    # The kernel goes on one window lower than the code thinks.
    other = rec.map(rec.page())
    assert other == below
    rec.unmap(other)
    rec.exit()
    rec.go_on()
    found = only(rec.verdict(), "double-unmap", line)
    agrees(found, said)


@variants(STACK)
@pytest.mark.parametrize("cpu", [0, 1])
def test_a_second_unmap_with_nothing_below(family: str, pae: bool, debug: bool, cpu: int) -> None:
    rec = recorder(family, pae, debug)
    rec.run(cpu, "victim")
    window = rec.map(rec.page())
    rec.unmap(window)
    if debug:
        with pytest.raises(KernelBug):
            rec.unmap(window)
        line, said = rec.line, rec.said()
    else:
        rec.unmap(window)
        line, said = rec.line, rec.said()
        # The index is -1 from here on: every window of the CPU is one lower.
        lower = rec.map(rec.page())
        assert lower == window + 0x1000
        rec.unmap(lower)
    rec.exit()
    rec.go_on(cpus=(2,))
    verdict = rec.verdict()
    # Above CPU 0's windows lies another fixmap entry, which no unmap clears: not the fault of
    # whoever mapped and unmapped there, so that is no finding of its own.
    found = only(verdict, "double-unmap", line)
    agrees(found, said)


@variants(LOCAL)
def test_a_second_unmap_of_a_task_without_windows(family: str, pae: bool, debug: bool) -> None:
    rec = recorder(family, pae, debug)
    rec.run(0, "victim")
    window = rec.map(rec.page())
    rec.unmap(window)
    with pytest.raises(KernelBug):
        rec.unmap(window)
    line = rec.line
    rec.exit()
    rec.go_on()
    found = only(rec.verdict(), "double-unmap", line)
    assert "BUG in kmap_local_idx_pop(): kmap_ctrl.idx < 0" in found.kernel_does


# Windows that stay.


@variants(LOCAL)
def test_a_local_window_held_when_its_task_ends(family: str, pae: bool, debug: bool) -> None:
    rec = recorder(family, pae, debug)
    rec.run(1, "victim")
    page = rec.page()
    rec.kmap_local(page, caller="leaky_function")
    line = rec.line
    rec.exit()
    rec.go_on()
    found = only(rec.verdict(), "leaked-window", line - 3)
    assert f"{page.address:#x}" in found.what and f"{page.pfn:#x}" in found.what
    assert any("leaky_function" in text for text in found.evidence)
    assert found.kernel_does.startswith("nothing that must show")


@variants(STACK)
def test_a_leaked_atomic_window_shifts_what_follows(family: str, pae: bool, debug: bool) -> None:
    rec = recorder(family, pae, debug, outer=False)
    rec.run(1, "victim")
    page = rec.page()
    leaked = rec.kmap_atomic(page, caller="leaky_function")
    line = rec.line - 1  # the entry event
    rec.switch(rec.kernel.context.this.idle, "R")
    for turn in range(3):
        rec.run(1, f"late{turn}")
        window = rec.map(rec.page())
        assert window == leaked - 0x1000
        rec.unmap(window)
    rec.go_on(cpus=(0,))
    found = only(rec.verdict(), "leaked-window", line)
    assert f"{page.address:#x}" in found.what
    assert any("leaky_function" in text for text in found.evidence)
    assert found.kernel_does.startswith("nothing at this call")
    assert "every later window of this CPU is one slot further on" in found.kernel_does
    assert rec.kernel.log.splats == [] or "schedule" in rec.kernel.log.splats[0].function


@pytest.mark.parametrize("family", STACK)
def test_an_atomic_window_held_when_its_task_ends(family: str) -> None:
    rec = recorder(family, outer=False)
    rec.run(1, "victim")
    rec.kmap_atomic(rec.page())
    line = rec.line - 1
    rec.exit()
    rec.run(1, "late")
    rec.unmap(rec.map(rec.page()))
    rec.go_on(cpus=(0,))
    only(rec.verdict(), "leaked-window", line)


# Wrong arguments.


@variants(NESTING)
def test_the_page_instead_of_the_address(family: str, pae: bool, debug: bool) -> None:
    rec = recorder(family, pae, debug)
    rec.run(0, "victim")
    page = rec.page()
    window = rec.map(page)
    rec.unmap(page.address)
    line, said = rec.line, rec.said()
    rec.unmap(window)
    rec.exit()
    rec.go_on()
    found = only(rec.verdict(), "page-not-address", line)
    agrees(found, said)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("family", NESTING)
@pytest.mark.parametrize("address", [0x12345000, 0xF8123000, 0xFFFFF000])
def test_an_address_that_never_was_a_window(family: str, address: int, debug: bool) -> None:
    rec = recorder(family, False, debug)
    assert not rec.kernel.layout.is_lowmem(address)
    rec.run(0, "victim")
    window = rec.map(rec.page())
    bug = False
    try:
        rec.unmap(address)
    except KernelBug:
        bug = True
    line, said = rec.line, rec.said()
    if bug:
        # Stack era with DEBUG_HIGHMEM: the task dies and its window stays for good.
        rec.exit()
    else:
        rec.unmap(window)
        rec.exit()
    rec.go_on(cpus=(1,))
    verdict = rec.verdict()
    names = rule_names(verdict)
    assert "not-a-window" in names
    # A task that dies in the call leaves its window behind: a consequence.
    assert set(names) <= {"not-a-window"} | ({"leaked-window"} if bug else set())
    found = next(f for f in verdict.findings if f.rule.name == "not-a-window")
    assert found.where.line == line
    agrees(found, said)
    assert verdict.wrong == 0


@pytest.mark.parametrize("family", NESTING)
def test_a_permanent_window_given_to_the_temporary_unmap(family: str) -> None:
    rec = recorder(family)
    rec.run(0, "victim")
    page = rec.page()
    window = rec.kmap(page)
    rec.unmap(window)
    line, said = rec.line, rec.said()
    rec.kunmap(page)
    rec.exit()
    rec.go_on()
    found = only(rec.verdict(), "mismatched-pair", line)
    agrees(found, said)


@pytest.mark.parametrize("family", NESTING)
@pytest.mark.parametrize("cpu", [0, 1])
def test_a_pointer_moved_past_the_page(family: str, cpu: int) -> None:
    rec = recorder(family)
    rec.run(cpu, "victim")
    rec.map(rec.page())
    window = rec.map(rec.page())
    outer = window + 0x1000
    # The page behind a window is the window below it: the depth-2 one's is the depth-1 one.
    rec.unmap(outer)
    line = rec.line
    rec.unmap(outer)
    rec.exit()
    rec.go_on()
    # Unmapping the outer window first looks the same, until the inner one's unmap does not come.
    only(rec.verdict(), "advanced-pointer", line)


@pytest.mark.parametrize("family", NESTING)
@pytest.mark.parametrize("cpu", [0, 1])
def test_a_lone_pointer_moved_past_the_page(family: str, cpu: int) -> None:
    rec = recorder(family)
    rec.run(cpu, "victim")
    window = rec.map(rec.page())
    rec.unmap(window + 0x1000)
    line = rec.line
    if cpu == 0:
        # Behind CPU 0's first window lies another fixmap entry: nothing was unmapped.
        rec.unmap(window)
    rec.unmap(rec.map(rec.page()))
    rec.exit()
    rec.go_on()
    verdict = rec.verdict()
    assert rule_names(verdict)[0] == "advanced-pointer"
    assert verdict.findings[0].where.line == line


# Others' windows.


@variants(STACK)
def test_another_task_unmaps_an_atomic_window(family: str, pae: bool, debug: bool) -> None:
    rec = recorder(family, pae, debug)
    rec.run(0, "giver")
    window = rec.map(rec.page())
    rec.run(0, "taker", "R")
    rec.unmap(window)
    line = rec.line
    rec.exit()
    rec.go_on()
    found = only(rec.verdict(), "foreign-unmap", line)
    assert "taker" in found.what and "giver" in found.what
    assert found.kernel_does.startswith("nothing")


@variants(NESTING)
def test_a_window_of_another_cpu(family: str, pae: bool, debug: bool) -> None:
    rec = recorder(family, pae, debug)
    rec.run(0, "giver")
    window = rec.map(rec.page())
    rec.run(1, "taker")
    own = rec.map(rec.page())
    rec.unmap(window)  # clears the taker's own
    line, said = rec.line, rec.said()
    rec.unmap(rec.map(rec.page()))
    assert own != window
    rec.exit()
    rec.run(0)
    rec.unmap(window)
    rec.go_on()
    found = only(rec.verdict(), "foreign-unmap", line)
    agrees(found, said)


@variants(LOCAL)
def test_a_window_of_another_task_on_the_same_cpu(family: str, pae: bool, debug: bool) -> None:
    rec = recorder(family, pae, debug)
    rec.run(0, "giver")
    rec.map(rec.page())
    window = rec.map(rec.page())
    rec.run(0, "taker")
    rec.map(rec.page())
    rec.unmap(window)
    line, said = rec.line, rec.said()
    rec.unmap(rec.map(rec.page()))
    rec.exit()
    rec.run(0, "giver")
    rec.unmap(window)
    rec.unmap(window + 0x1000 * (2 if debug else 1))
    rec.exit()
    rec.go_on()
    found = only(rec.verdict(), "foreign-unmap", line)
    agrees(found, said)


# Too many.


@pytest.mark.parametrize("family", STACK)
def test_one_atomic_window_too_many_without_a_bound(family: str) -> None:
    rec = recorder(family, outer=False)
    rec.run(0, "victim")
    windows = [rec.map(rec.page()) for _ in range(21)]
    line = rec.line
    for window in reversed(windows):
        rec.unmap(window)
    rec.exit()
    rec.go_on()
    found = only(rec.verdict(), "too-deep", line)
    assert rec.kernel.log.splats == [] and found.kernel_does.startswith("nothing")
    assert "21 windows" in found.what


@pytest.mark.parametrize("family", STACK)
def test_one_atomic_window_too_many_on_a_busy_neighbour(family: str) -> None:
    rec = recorder(family, outer=False)
    rec.run(1, "neighbour")
    neighbour = rec.map(rec.page())
    rec.run(0, "victim")
    for _ in range(20):
        rec.map(rec.page())
    with pytest.raises(KernelBug):
        rec.map(rec.page())
    line, said = rec.line, rec.said()
    rec.exit()
    rec.run(1)
    rec.unmap(neighbour)
    rec.go_on(cpus=(1,))
    verdict = rec.verdict()
    names = rule_names(verdict)
    # That the task dies holding twenty windows is a consequence, and no finding of its own.
    assert names == ["busy-entry"]
    busy = verdict.findings[0]
    assert busy.where.line == line
    agrees(busy, said)
    assert verdict.wrong == 0


@pytest.mark.parametrize("family", STACK)
def test_one_atomic_window_too_many_with_debug_highmem(family: str) -> None:
    rec = recorder(family, debug=True, outer=False)
    # linux-facts 3: up to 3.16 the check lets slot KM_TYPE_NR pass.
    limit = 42 if family in ("S0", "S1") else 41
    rec.run(0, "victim")
    for _ in range(limit):
        rec.map(rec.page())
    with pytest.raises(KernelBug):
        rec.map(rec.page())
    line, said = rec.line, rec.said()
    rec.exit()
    rec.go_on(cpus=(2,))
    verdict = rec.verdict()
    assert set(rule_names(verdict)) == {"too-deep"}
    deep = [f for f in verdict.findings if f.rule.name == "too-deep"]
    assert deep[-1].where.line == line
    agrees(deep[-1], said)


@variants(LOCAL)
def test_one_local_window_too_many(family: str, pae: bool, debug: bool) -> None:
    rec = recorder(family, pae, debug)
    rec.run(0, "victim")
    for _ in range(16 if debug else 15):  # linux-facts 4.1
        rec.map(rec.page())
    with pytest.raises(KernelBug):
        rec.map(rec.page())
    said = rec.said()
    rec.exit()
    rec.go_on()
    verdict = rec.verdict()
    assert rule_names(verdict) == ["too-deep"]
    found = verdict.findings[0]
    agrees(found, said)
    assert verdict.wrong == 0


# Sleeping.


@variants(LOCAL)
def test_sleeping_in_a_kmap_atomic_section_of_the_local_era(
    family: str, pae: bool, debug: bool
) -> None:
    rec = recorder(family, pae, debug)
    rec.run(0, "victim")
    window = rec.kmap_atomic(rec.page(), caller="kmap_atomic")
    line = rec.line
    rec.run(0, "other", "D")
    rec.run(0, "victim")
    rec.kunmap_atomic(window)
    rec.exit()
    rec.go_on()
    found = only(rec.verdict(), "sleep-in-atomic", line - 3)
    assert "scheduling while atomic" in found.kernel_does
    assert any("scheduling while atomic" in splat.severity.value for splat in rec.kernel.log)


@variants(LOCAL)
def test_sleeping_with_a_local_window_is_allowed(family: str, pae: bool, debug: bool) -> None:
    rec = recorder(family, pae, debug)
    rec.run(0, "careful")
    window = rec.kmap_local(rec.page())
    rec.run(0, "other", "D")
    rec.unmap(rec.map(rec.page()))
    rec.run(0, "careful")
    rec.unmap(window)
    rec.exit()
    rec.go_on()
    verdict = rec.verdict()
    assert rule_names(verdict) == [] and verdict.wrong == 0
    assert rec.kernel.log.splats == []


@variants(LOCAL)
def test_preemption_of_an_atomic_section_is_no_sleep(family: str, pae: bool, debug: bool) -> None:
    # With preemption on inside (PREEMPT_RT, or a window of kmap_local_page opened under a lock
    # that was released since): switched out runnable.
    rec = recorder(family, pae, debug)
    rec.run(0, "careful")
    window = rec.kmap_local(rec.page())
    rec.run(0, "other", "R+")
    rec.run(0, "careful")
    rec.unmap(window)
    rec.exit()
    rec.go_on()
    assert rule_names(rec.verdict()) == []


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("family", STACK)
def test_sleeping_in_an_atomic_section_of_the_stack_era(family: str, counts: bool) -> None:
    profile = make_profile(family, nr_cpus=4, preempt_count=counts)
    rec = Recorder(profile, outer=False)
    rec.warm_up()
    rec.run(0, "victim")
    window = rec.kmap_atomic(rec.page())
    line = rec.line - 1
    rec.run(0, "other", "D")
    rec.unmap(rec.map(rec.page()))
    rec.run(0, "victim")
    rec.kunmap_atomic(window)
    rec.exit()
    rec.go_on()
    found = only(rec.verdict(), "sleep-in-atomic", line)
    if rec.kernel.log.splats:
        assert rec.kernel.log.splats[0].severity.value in found.kernel_does
    else:
        assert found.kernel_does.startswith("nothing")


# Permanent windows.


@pytest.mark.parametrize("family", ["T10", *NESTING])
def test_kunmap_of_a_page_that_has_no_users(family: str) -> None:
    rec = recorder(family)
    rec.run(0, "victim")
    first = rec.page()
    rec.kmap(first)  # may have been there before: its users are not known
    rec.kunmap(first)
    page = rec.page()
    rec.kmap(page)
    rec.kunmap(page)
    with pytest.raises(KernelBug):
        rec.kunmap(page)
    line, said = rec.line, rec.said()
    rec.exit()
    rec.go_on()
    found = only(rec.verdict(), "unmapped-kunmap", line)
    agrees(found, said)


@pytest.mark.parametrize("family", ["T10", *NESTING])
def test_the_address_instead_of_the_page_to_kunmap(family: str) -> None:
    rec = recorder(family)
    rec.run(0, "victim")
    page = rec.page()
    address = rec.kmap(page)
    rec.enter("kunmap_high", page=address)
    line = rec.line
    rec.kunmap(page)
    rec.exit()
    rec.go_on()
    only(rec.verdict(), "address-not-page", line)


@pytest.mark.parametrize("family", ["T10", *NESTING])
def test_a_permanent_window_that_outlives_its_task(family: str) -> None:
    rec = recorder(family)
    rec.run(0, "victim")
    page = rec.page()
    rec.kmap(page, caller="leaky_function")
    line = rec.line - 1
    rec.exit()
    rec.run(0, "late")
    other = rec.page()
    rec.kmap(other)
    rec.kunmap(other)
    rec.exit()
    rec.go_on()
    verdict = rec.verdict()
    found = only(verdict, "leaked-window", line)
    assert found.confidence.value == "likely"
    assert verdict.permanent.in_use_at_end == 1


@pytest.mark.parametrize("family", ["T10", "S1", "S4", "L1"])
def test_a_permanent_window_given_back_by_somebody_else_is_fine(family: str) -> None:
    rec = recorder(family)
    rec.run(0, "giver")
    page = rec.page()
    rec.kmap(page)
    rec.exit()
    rec.run(1, "taker")
    rec.kunmap(page)
    rec.exit()
    rec.go_on()
    assert rule_names(rec.verdict()) == []


@pytest.mark.parametrize("pae", [False, True])
@pytest.mark.parametrize("family", ["T10", "S1", "S4", "L1"])
def test_all_permanent_windows_in_use(family: str, pae: bool) -> None:
    rec = recorder(family, pae)
    rec.run(0, "victim")
    size = 512 if pae else 1024  # linux-facts 5.1
    held = [rec.page() for _ in range(size)]
    for page in held[:-1]:
        rec.kmap(page)
    rec.kmap(held[-1])
    # The next one sleeps; somebody gives one back, and it goes on with that window.
    extra = rec.page()
    rec.enter("kmap_high", page=extra.address)
    line = rec.line
    rec.run(0, "other", "D")
    rec.kunmap(held[7])
    rec.run(0, "victim")
    rec.leave("kmap_high", rec.kernel.permanent.kmap_high(extra), "do_work")
    for page in [*held[:7], *held[8:], extra]:
        rec.kunmap(page)
    rec.exit()
    rec.go_on()
    verdict = rec.verdict()
    assert verdict.permanent.most_in_use == size
    found = only(verdict, "pool-exhausted", line)
    assert "sleeps" in found.kernel_does


# The typed era.


@pytest.mark.parametrize("debug", [False, True])
def test_a_km_type_mapped_twice(debug: bool) -> None:
    rec = recorder("T10", debug=debug, outer=False)
    rec.run(0, "victim")
    rec.kmap_atomic(rec.page(), 3)
    with pytest.raises(KernelBug):
        rec.kmap_atomic(rec.page(), 3)
    line, said = rec.line, rec.said()
    rec.exit()
    rec.go_on(cpus=(1,))
    found = only(rec.verdict(), "busy-entry", line)
    agrees(found, said)


@pytest.mark.parametrize("debug", [False, True])
def test_a_window_unmapped_as_another_km_type(debug: bool) -> None:
    rec = recorder("T10", debug=debug, outer=False)
    rec.run(0, "victim")
    window = rec.kmap_atomic(rec.page(), 3)
    if debug:
        with pytest.raises(KernelBug):
            rec.kunmap_atomic(window, 4)
        line, said = rec.line, rec.said()
        rec.exit()
    else:
        rec.kunmap_atomic(window, 4)
        line, said = rec.line, rec.said()
        rec.kunmap_atomic(window, 3)
        rec.exit()
    rec.go_on(cpus=(1,))
    found = only(rec.verdict(), "foreign-unmap", line)
    agrees(found, said)


def test_the_findings_of_two_misuses_stay_apart() -> None:
    rec = recorder("L1")
    rec.run(0, "first")
    outer, inner = rec.map(rec.page()), rec.map(rec.page())
    rec.unmap(outer)
    rec.unmap(inner)
    rec.unmap(rec.map(rec.page()))
    rec.exit()
    rec.run(1, "second")
    outer, inner = rec.map(rec.page()), rec.map(rec.page())
    rec.unmap(outer)
    rec.unmap(inner)
    rec.unmap(rec.map(rec.page()))
    rec.exit()
    rec.go_on()
    verdict = rec.verdict()
    assert rule_names(verdict) == ["unmap-order", "unmap-order"]
    # WARN_ON_ONCE: the second time the kernel is silent (linux-facts 4.3, seen live).
    first, second = (found.kernel_does for found in real_findings(verdict))
    assert first.startswith("WARNING in kunmap_local_indexed()")
    assert second.startswith("nothing: WARN_ON_ONCE already warned")
    assert len(rec.kernel.log.splats) == 1
