"""Windows that are wrong: one byte or entry of a real image changed, one finding more."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from highmem.findings import Confidence, Finding
from highmem.image.find.candidates import collect_roots
from highmem.image.find.known import read_known
from highmem.image.judge import judge_windows
from highmem.image.tasks import CpuTask, per_cpu
from highmem.image.view import ImageKernel
from highmem.image.windows import Windows, read_windows, slot_name
from highmem.kernel.kernel import Kernel
from highmem.kernel.profile import KM_TYPES, make_profile
from support.image_memory import source_of
from support.image_samples import Sample, changed, entry_at, sample, word_at


@pytest.fixture(params=["linux-6.1-686-pae", "linux-5.10-686"])
def one(request: pytest.FixtureRequest) -> Sample:
    return sample(request.param)


def judge(one: Sample, *patches: Mapping[int, bytes]) -> tuple[list[Finding], Windows]:
    together: dict[int, bytes] = {}
    for patch in patches:
        together |= patch
    found = read_windows(changed(one, together))
    return list(found.findings), found


def names(findings: list[Finding]) -> list[str]:
    return [finding.rule.name for finding in findings]


def window(one: Sample, cpu: int, slot: int) -> int:
    return one.kernel.layout.window_address(cpu, slot)


def high_entry(one: Sample, number: int) -> int:
    """An entry as the kernel makes it, for a frame of high memory that nothing maps."""
    return (0xA000 + number) << 12 | one.kernel.kmap_prot


def test_the_samples_themselves_are_clean(one: Sample) -> None:
    findings, _ = judge(one)
    assert findings == []


def test_an_entry_above_the_index_is_stale(one: Sample) -> None:
    address = window(one, 1, 4)
    (finding,), found = judge(one, entry_at(one, address, high_entry(one, 1)))
    assert finding.rule.name == "stale-window"
    assert finding.confidence is Confidence.CERTAIN
    assert (finding.where.address, finding.where.cpu) == (address, 1)
    assert "index of CPU 1 is 4" in finding.what
    assert "0xa001" in finding.evidence[0]
    assert [w.held for w in found.temporary].count(False) == 1


def test_an_entry_on_a_cpu_with_nothing_open_is_stale(one: Sample) -> None:
    findings, _ = judge(one, entry_at(one, window(one, 0, 0), high_entry(one, 1)))
    assert names(findings) == ["stale-window"]


def test_an_entry_of_a_cpu_that_is_not_there_is_stale(one: Sample) -> None:
    findings, found = judge(one, entry_at(one, window(one, 5, 2), high_entry(one, 1)))
    assert names(findings) == ["stale-window"]
    state = next(state for state in found.cpus if state.cpu == 5)
    assert state.index_how == "there is no such CPU" and state.online is False


def test_windows_of_an_idle_cpu_are_stale(one: Sample) -> None:
    # CPU 1 runs the idle task of CPU 0, whose name is all that counts here.
    init_task = one.kernel.known.symbol("init_task")
    current = per_cpu(one.kernel, "current_task", 1)
    assert init_task is not None and current is not None
    patch = word_at(one, current, init_task - (1 << 32))
    findings, found = judge(one, patch)
    assert set(names(findings)) == {"stale-window"} and len(findings) == 4
    assert found.cpus[1].task is not None and found.cpus[1].task.idle
    local = one.name.startswith("linux-6")
    # From 5.11 on the idle task's own index, 0, says that nothing is open.
    wanted = Confidence.CERTAIN if local else Confidence.POSSIBLE
    assert {finding.confidence for finding in findings} == {wanted}


@pytest.mark.parametrize(("family", "expected"), [("T0", []), ("T4", ["stale-window"])])
def test_up_to_2_6_18_an_unmapped_window_stays_in_its_entry(
    family: str, expected: list[str]
) -> None:
    kernel = Kernel.boot(make_profile(family), ram=2 << 30, cpus=1)
    page = kernel.alloc_page()
    address = kernel.kmap_atomic(page, KM_TYPES.index("KM_USER0"))
    source = source_of(kernel.machine.memory)
    known = read_known(source, collect_roots(source, {}), ("", {}))
    image = ImageKernel(source, known, kernel.profile)
    windows = read_windows(image)
    (held,) = windows.temporary
    assert (held.address, held.pfn, held.held) == (address, page.pfn, None)
    assert slot_name(image, held.slot) == "KM_USER0"
    idle = CpuTask(0xC1000000, "swapper", 0, None)
    cpus = tuple(dataclasses.replace(state, task=idle) for state in windows.cpus)
    judged = judge_windows(image, dataclasses.replace(windows, cpus=cpus))
    assert names(list(judged.findings)) == expected


def test_a_window_counted_but_empty_is_a_call_in_progress_and_no_finding(one: Sample) -> None:
    findings, found = judge(one, entry_at(one, window(one, 1, 3), 0))
    assert findings == []
    assert found.cpus[1].missing == (3,)


@pytest.mark.parametrize(
    ("change", "word"), [(0x10, "has PCD"), (0x100, "lacks GLOBAL"), (0x02, "lacks RW")]
)
def test_other_flags_than_kmap_prot(one: Sample, change: int, word: str) -> None:
    held = next(w for w in read_windows(one.kernel).temporary if w.slot == 2)
    (finding,), _ = judge(one, entry_at(one, held.address, held.entry ^ change))
    assert finding.rule.name == "foreign-flags"
    assert word in finding.what
    assert finding.confidence is Confidence.POSSIBLE


def test_a_permanent_window_has_kmap_prot_for_certain(one: Sample) -> None:
    kept = next(w for w in read_windows(one.kernel).permanent if w.count == 2)
    (finding,), _ = judge(one, entry_at(one, kept.address, kept.entry ^ 0x18))
    assert finding.rule.name == "foreign-flags" and finding.confidence is Confidence.CERTAIN
    assert "has PWT, PCD" in finding.what


def test_an_entry_that_is_neither_empty_nor_present(one: Sample) -> None:
    findings, _ = judge(one, entry_at(one, window(one, 0, 7), 0x1234_5000))
    assert names(findings) == ["foreign-flags"]
    assert "not present, and not empty" in findings[0].what


def test_accessed_and_dirty_alone_count_as_empty_with_pae_only() -> None:
    # 4.9 on: pte_none() leaves both out on PAE, for an erratum sets them in empty entries.
    for name, expected in (("linux-6.1-686-pae", []), ("linux-5.10-686", ["foreign-flags"])):
        one = sample(name)
        findings, _ = judge(one, entry_at(one, window(one, 0, 7), 0x60))
        assert names(findings) == expected


def test_a_frame_behind_the_end_of_ram(one: Sample) -> None:
    held = next(w for w in read_windows(one.kernel).temporary if w.slot == 0)
    flags = held.entry & ~0xF_FFFF_F000
    (finding,), _ = judge(one, entry_at(one, held.address, 0xFEC00000 | flags))
    assert finding.rule.name == "frame-outside-ram"
    assert "0xfec00000" in finding.what and finding.confidence is Confidence.LIKELY


def test_a_frame_of_low_memory(one: Sample) -> None:
    kept = next(w for w in read_windows(one.kernel).permanent if w.count == 2)
    flags = kept.entry & ~0xF_FFFF_F000
    (finding,), _ = judge(one, entry_at(one, kept.address, 0x1234 << 12 | flags))
    assert finding.rule.name == "low-frame"
    assert "0x1234" in finding.what


def test_one_frame_in_two_permanent_windows(one: Sample) -> None:
    first, second = [w for w in read_windows(one.kernel).permanent if w.count == 2][:2]
    (finding,), _ = judge(one, entry_at(one, second.address, first.entry))
    assert finding.rule.name == "frame-mapped-twice"
    assert f"{first.nr}, {second.nr}" in finding.what
    assert len(finding.evidence) == 2


def test_one_frame_in_a_permanent_and_a_temporary_window_is_allowed(one: Sample) -> None:
    windows = read_windows(one.kernel)
    kept = next(w for w in windows.permanent if w.count == 2)
    findings, _ = judge(one, entry_at(one, windows.temporary[0].address, kept.entry))
    assert findings == []


def count_at(one: Sample, nr: int, value: int) -> dict[int, bytes]:
    assert one.kernel.pkmap_count_at is not None
    return word_at(one, one.kernel.pkmap_count_at + 4 * nr, value)


def test_a_mapped_window_with_the_count_of_a_free_one(one: Sample) -> None:
    first, second = [w for w in read_windows(one.kernel).permanent if w.count == 2][:2]
    (finding,), _ = judge(one, count_at(one, first.nr, 0))
    assert finding.rule.name == "count-mismatch"
    # kmap() and the flush pass through this state, one window at a time.
    assert finding.confidence is Confidence.POSSIBLE
    findings, _ = judge(one, count_at(one, first.nr, 0), count_at(one, second.nr, 0))
    assert [f.confidence for f in findings] == [Confidence.CERTAIN] * 2


def test_a_count_without_an_entry(one: Sample) -> None:
    (finding,), found = judge(one, count_at(one, 100, 2))
    assert finding.rule.name == "count-mismatch" and finding.confidence is Confidence.CERTAIN
    assert finding.where.address == one.kernel.layout.pkmap_address(100)
    assert any(w.nr == 100 and not w.present for w in found.permanent)


def test_a_negative_count(one: Sample) -> None:
    findings, _ = judge(one, count_at(one, 100, -1))
    assert names(findings) == ["count-mismatch"]
    assert "is -1" in findings[0].what


def test_findings_come_from_the_top_of_the_address_space_down(one: Sample) -> None:
    findings, _ = judge(
        one, count_at(one, 100, 2), entry_at(one, window(one, 0, 0), high_entry(one, 1)),
        entry_at(one, window(one, 1, 9), high_entry(one, 2)),
    )  # fmt: skip
    addresses = [finding.where.address for finding in findings]
    assert addresses == sorted(addresses, key=lambda address: -(address or 0))
    assert len(addresses) == 3
