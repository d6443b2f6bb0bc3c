"""Recordings of deliberate misuse on real kernels, made by examples/misuse/record: the rule that
finds each, and whether what a finding says of the kernel is what that kernel said.

Expected: what examples/misuse/misuse.c does, by its name, and the kernels' dmesg.
"""

from __future__ import annotations

import re
from functools import cache

import pytest

from highmem.replay import replay
from highmem.replay.verdict import Verdict
from highmem.trace import read_trace
from support.misuse_ways import KERNELS, NOT_KEPT, QUIET, UNSEEN, WAYS, agree, cases, faults
from support.recordings import SAMPLES, dmesg, judge, sample

FOUND = cases((what, way.kernels) for what, way in WAYS.items() if what not in NOT_KEPT)

PAGE_IS_KNOWN = {
    *("leak-atomic", "leak-permanent", "order-atomic", "double-inner"),
    *("page-atomic", "address", "address-quiet", "advanced", "advanced-inner"),
    *("mismatch-kmap-atomic", "mismatch-atomic-kmap", "unmapped", "unmapped-twice"),
    *("foreign-task", "foreign-cpu", "sleep"),
}


def name_of(kernel: str, what: str) -> str:
    return f"misuse/{kernel}.{what}"


@cache
def verdict_of(kernel: str, what: str) -> Verdict:
    return replay(read_trace(SAMPLES / f"{name_of(kernel, what)}.trace.zst"))


def pages(kernel: str, what: str) -> tuple[str, str]:
    found = re.search(r"a=([0-9a-f]{8}) b=([0-9a-f]{8})", dmesg(name_of(kernel, what)))
    assert found is not None
    return found[1], found[2]


@pytest.mark.parametrize(("kernel", "what"), FOUND)
def test_a_misuse_that_leaves_a_trace_is_found_and_nothing_else(kernel: str, what: str) -> None:
    verdict = verdict_of(kernel, what)
    assert [f.rule.name for f in verdict.findings] == [WAYS[what].rule]
    # Without a permanent window nothing shows whether the tables are PAE: the windows are the same.
    assert verdict.profile.name.removesuffix("-pae") == KERNELS[kernel]
    assert verdict.wrong == 0 and verdict.exit_code == 1
    sure = "certain" if kernel in WAYS[what].certain else "likely"
    assert verdict.findings[0].confidence.value == sure


@pytest.mark.parametrize(("kernel", "what"), FOUND)
def test_the_finding_says_what_the_kernel_said(kernel: str, what: str) -> None:
    agree(verdict_of(kernel, what).findings[0], dmesg(name_of(kernel, what)))


@pytest.mark.parametrize(("kernel", "what"), FOUND)
def test_the_evidence_leads_to_the_module(kernel: str, what: str) -> None:
    found = verdict_of(kernel, what).findings[0]
    text = " ".join([found.where.task or "", found.what, *found.evidence])
    assert "misuse-" in text or "[misuse]" in text
    if what in PAGE_IS_KNOWN:
        assert any(page in text for page in pages(kernel, what))


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_module_that_misuses_nothing_is_clean(kernel: str) -> None:
    verdict = verdict_of(kernel, "clean")
    assert verdict.findings == [] and verdict.wrong == 0 and verdict.exit_code == 0
    assert not re.search("WARNING|BUG|Oops", dmesg(name_of(kernel, "clean")))


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_overrun_shows_in_the_fault_event_and_kills_its_task_with_the_window(
    kernel: str,
) -> None:
    name = name_of(kernel, "overrun")
    (found,) = verdict_of(kernel, "overrun").findings
    assert found.rule.name == "leaked-window" and found.where.address is not None
    # The page behind the window of the finding.
    behind = found.where.address + 0x1000
    assert faults(sample(name)) == [behind]
    assert f"unable to handle page fault for address: {behind:08x}" in dmesg(name)


@pytest.mark.parametrize(("kernel", "what"), cases(UNSEEN.items()))
def test_a_wrong_access_shows_in_the_fault_event_and_in_no_call(kernel: str, what: str) -> None:
    name = name_of(kernel, what)
    assert verdict_of(kernel, what).findings == []
    said = re.search(
        r"BUG: (?:unable to handle page fault for|kernel NULL pointer dereference,) "
        r"address: ([0-9a-f]{8})",
        dmesg(name),
    )
    assert said is not None
    assert int(said[1], 16) in faults(sample(name))


@pytest.mark.parametrize(("kernel", "what"), cases(QUIET.items()))
def test_what_no_event_shows_is_not_guessed(kernel: str, what: str) -> None:
    verdict = verdict_of(kernel, what)
    assert verdict.findings == [] and verdict.wrong == 0
    assert faults(sample(name_of(kernel, what))) == []


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("what", "byte"), [("stale-quiet", "3"), ("overrun-quiet", "2")])
def test_a_quiet_access_really_wrote_to_another_page(kernel: str, what: str, byte: str) -> None:
    assert f"byte of the other page: {byte}\n" in dmesg(name_of(kernel, what))


@pytest.mark.parametrize(
    ("kernel", "what"),
    [("6.1-686", "double-atomic"), ("6.1-686", "too-deep"), ("5.10-686", "busy")],
)
def test_a_recording_that_breaks_off_at_the_bug_finds_it_too(kernel: str, what: str) -> None:
    # An oops turns tracing off in the buffers that all share: the recording ends there.
    (whole,) = verdict_of(kernel, what).findings
    assert whole.where.line is not None
    last = whole.where.line
    lines = sample(name_of(kernel, what))
    if b"m___kmap_local_page_prot" in lines[last - 1]:
        last += 1  # the call within it is entered as well
    found = judge(lines[:last]).findings
    assert [(f.rule, f.where.line, f.where.task) for f in found] == [
        (whole.rule, whole.where.line, whole.where.task)
    ]
    assert found[0].confidence.value == "likely"
    # One event less, and nothing is wrong yet.
    assert judge(lines[: whole.where.line - 1]).findings == []


@pytest.mark.parametrize(
    ("kernel", "what", "rule", "said"),
    [
        ("5.10-686", "leak-atomic", "leaked-window", "segfault at"),
        ("6.1-686", "double-atomic", "double-unmap", "Fixing recursive fault"),
        ("6.1-686", "too-deep", "too-deep", "Fixing recursive fault"),
    ],
)
def test_a_user_task_that_dies_of_it_is_one_finding(
    kernel: str, what: str, rule: str, said: str
) -> None:
    # insmod itself does it (thread=0) and goes on using windows while it dies, out of place.
    name = name_of(kernel, f"{what}.insmod")
    verdict = verdict_of(kernel, f"{what}.insmod")
    assert [f.rule.name for f in verdict.findings] == [rule] and verdict.wrong == 0
    found = verdict.findings[0]
    assert found.where.task is not None and found.where.task.startswith("insmod-")
    assert said in dmesg(name)
    if said == "segfault at":
        assert "SIGSEGV" in found.kernel_does
    assert judge(sample(name)).to_dict()["findings"] == verdict.to_dict()["findings"]


@pytest.mark.parametrize(("kernel", "what"), [*FOUND, *[(k, "clean") for k in KERNELS]])
def test_the_slow_reference_says_the_same(kernel: str, what: str) -> None:
    fast = verdict_of(kernel, what)
    slow = judge(sample(name_of(kernel, what)))
    assert [(f.rule, f.where, f.what) for f in slow.findings] == [
        (f.rule, f.where, f.what) for f in fast.findings
    ]
    assert (slow.right, slow.wrong, slow.unknown) == (fast.right, fast.wrong, fast.unknown)
