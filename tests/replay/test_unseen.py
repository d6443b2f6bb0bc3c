"""What a recording leaves out and a verdict still gets right: flushes without a probe, tasks and
permanent windows from before, calls after a BUG that killed only one task."""

from __future__ import annotations

import pytest

from highmem.kernel.bug import KernelBug
from highmem.kernel.profile import load_profile, make_profile
from highmem.replay import replay
from support.recordings import Recorder, rule_names
from support.trace_reading import read_bytes

FAMILIES = ("S1", "S4", "L0", "L1")


def recorder(family: str) -> Recorder:
    rec = Recorder(make_profile(family, nr_cpus=4, nx=False), cpus=3)
    rec.warm_up((0, 1, 2))
    return rec


@pytest.mark.parametrize("family", FAMILIES)
def test_a_flush_without_a_probe_is_no_moved_window(family: str) -> None:
    rec = recorder(family)
    rec.run(0, "victim")
    pages = [rec.page() for _ in range(3)]
    for page in pages:
        rec.kmap(page)
        rec.kunmap(page)
    before = rec.kernel.page_address(pages[0])
    rec.kernel.permanent.kmap_flush_unused()  # as module loading does it
    after = rec.kmap(pages[0])
    assert after != before
    rec.kunmap(pages[0])
    rec.exit()
    rec.go_on()
    verdict = rec.verdict()
    assert rule_names(verdict) == [] and verdict.wrong == 0
    assert verdict.unknown["flushes of permanent windows that were not recorded"] == 1


@pytest.mark.parametrize("symbol", ["kmap_flush_unused", "__kmap_flush_unused"])
@pytest.mark.parametrize("family", FAMILIES)
def test_with_a_probe_on_the_flush_every_window_is_foreseen(family: str, symbol: str) -> None:
    rec = recorder(family)
    rec.run(0, "victim")
    page, other = rec.page(), rec.page()
    for one in (page, other):
        rec.kmap(one)
        rec.kunmap(one)
    before = rec.kernel.page_address(page)
    rec.enter(symbol)
    rec.kernel.permanent.kmap_flush_unused()
    after = rec.kmap(page)
    assert after != before
    rec.kunmap(page)
    rec.exit()
    rec.go_on()
    verdict = rec.verdict()
    assert verdict.permanent.flushes == 1
    assert rule_names(verdict) == [] and verdict.wrong == 0 and verdict.unknown == {}
    assert verdict.permanent.maps == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_window_that_moves_without_reason_is_still_wrong(family: str) -> None:
    rec = recorder(family)
    rec.run(0, "victim")
    page, other = rec.page(), rec.page()
    rec.kmap(page)
    rec.kmap(other)
    rec.kunmap(other)
    address = rec.kernel.page_address(page)
    assert address is not None
    # Still in use: no flush can move it.
    rec.enter("kmap_high", page=page.address)
    rec.leave("kmap_high", address + 0x5000, "do_work")
    rec.exit()
    rec.go_on()
    assert "window-moved" in rule_names(rec.verdict())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dies", [False, True])
def test_a_kunmap_without_a_kmap_is_a_misuse_where_its_task_ends_at_once(
    family: str, dies: bool
) -> None:
    rec = recorder(family)
    rec.run(0, "victim")
    page, other = rec.page(), rec.page()
    with pytest.raises(KernelBug):
        rec.kunmap(page)
    line = rec.line
    if not dies:
        rec.kmap(other)  # it goes on, so it was mapped before the recording
        rec.kunmap(other)
    rec.exit()
    rec.go_on()
    found = rec.verdict().findings
    if dies:
        assert [(f.rule.name, f.where.line) for f in found] == [("unmapped-kunmap", line)]
        assert found[0].confidence.value == "likely"
        assert "kmap_lock" in found[0].kernel_does
    else:
        assert found == []


@pytest.mark.parametrize("family", FAMILIES)
def test_kunmap_of_a_page_in_a_temporary_window(family: str) -> None:
    rec = recorder(family)
    rec.run(0, "victim")
    page = rec.page()
    window = rec.map(page)
    with pytest.raises(KernelBug):
        rec.kunmap(page)
    line = rec.line
    rec.exit()
    rec.go_on(cpus=(1, 2))
    (found,) = rec.verdict().findings
    assert (found.rule.name, found.where.line) == ("mismatched-pair", line)
    assert f"{window:#010x}" in found.what and "BUG in kunmap_high()" in found.kernel_does


@pytest.mark.parametrize("family", ["S3", "S4"])
def test_a_cpu_whose_windows_lie_in_the_next_one_s_is_predicted(family: str) -> None:
    rec = recorder(family)
    rec.run(1, "neighbour")
    neighbour = rec.map(rec.page())
    rec.run(0, "victim")
    for _ in range(20):  # KM_TYPE_NR
        rec.map(rec.page())
    with pytest.raises(KernelBug):
        rec.map(rec.page())
    rec.exit()
    # The index stays where the BUG left it: the second window of CPU 1 is CPU 0's next.
    rec.run(0, "late")
    right = rec.verdict().right
    late = rec.map(rec.page())
    assert late == neighbour - 0x1000
    rec.unmap(late)
    rec.run(1, "neighbour", "R")
    rec.unmap(neighbour)
    rec.go_on(cpus=(2,))
    verdict = rec.verdict()
    assert rule_names(verdict) == ["busy-entry"]
    assert verdict.wrong == 0 and verdict.right > right


# A task was inside __kmap_local_page_prot and __kmap_local_pfn_prot when events were lost, among
# them the entry of the next __kmap_local_page_prot: as perf recorded it on Debian's 6.1.
LOST_INSIDE = b"""\
cat-134 [000] 1.000001: m___kmap_local_page_prot: (f+0x0/0x1) page=0xf38e9068 prot=0x163
cat-134 [000] 1.000002: m___kmap_local_pfn_prot: (f+0x0/0x1) pfn=0x7f869 prot=0x163
cat-134 [000] 1.000003: r___kmap_local_pfn_prot: (__kmap_local_page_prot+0x3d/0x40 <- \
__kmap_local_pfn_prot) vaddr=0xfffbb000
cat-134 [000] 1.000004: r___kmap_local_page_prot: (copy+0x3d/0x40 <- __kmap_local_page_prot) \
vaddr=0xfffbb000
cat-134 [000] 1.000005: u_kunmap_local_indexed: (f+0x0/0x1) vaddr=0xfffbb000
cat-134 [000] 1.000006: m___kmap_local_page_prot: (f+0x0/0x1) page=0xf38e9068 prot=0x163
cat-134 [000] 1.000007: m___kmap_local_pfn_prot: (f+0x0/0x1) pfn=0x7f869 prot=0x163
CPU:0 [LOST 203 EVENTS]
cat-134 [000] 2.000001: m___kmap_local_pfn_prot: (f+0x0/0x1) pfn=0x7db4f prot=0x163
cat-134 [000] 2.000002: r___kmap_local_pfn_prot: (__kmap_local_page_prot+0x3d/0x40 <- \
__kmap_local_pfn_prot) vaddr=0xfffbb000
cat-134 [000] 2.000003: r___kmap_local_page_prot: (copy+0x3d/0x40 <- __kmap_local_page_prot) \
vaddr=0xfffbb000
cat-134 [000] 2.000004: u_kunmap_local_indexed: (f+0x0/0x1) vaddr=0xfffbb000
"""


def test_a_return_is_that_of_the_call_just_done_and_not_of_one_before_a_loss() -> None:
    verdict = replay(read_bytes(LOST_INSIDE), load_profile("debian-6.1-686"))
    assert verdict.wrong == 0
    assert rule_names(verdict) == []
    assert verdict.right + sum(verdict.not_judged.values()) == 4
