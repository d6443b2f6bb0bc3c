"""The profile found from a recording: it must explain every address, by whatever name."""

from __future__ import annotations

import pytest

from highmem.errors import UsageError
from highmem.kernel.profile import make_profile
from highmem.replay.detect import Evidence, _explain
from highmem.trace.schema import SYMBOLS, Function
from support.recordings import Recorder, body_of, header_of, judge, rule_names, sample

FAMILIES = ("T10", "S0", "S1", "S2", "S3", "S4", "L0", "L1")


def program(rec: Recorder) -> None:
    """Enough of a recording: two CPUs, nesting, a low page, a permanent window."""
    rec.warm_up()
    rec.run(1, "work")
    kinds = (3, 4) if rec.profile.family.startswith("T") else (None, None)
    windows = [rec.kmap_atomic(rec.page(), kind) for kind in kinds]
    for window, kind in zip(reversed(windows), reversed(kinds), strict=True):
        rec.kunmap_atomic(window, kind)
    low = rec.map(rec.page(highmem=False))
    rec.unmap(low)
    page = rec.page()
    rec.kmap(page)
    rec.kunmap(page)
    rec.exit()
    rec.go_on()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pae", [False, True])
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("nr_cpus", [8, 32])
def test_a_detected_profile_predicts_as_the_true_one(
    family: str, pae: bool, debug: bool, nr_cpus: int
) -> None:
    profile = make_profile(family, nr_cpus=nr_cpus, pae=pae, nx=pae, debug_highmem=debug)
    rec = Recorder(profile)
    program(rec)
    told, found = rec.verdict(), rec.verdict(given=False)
    assert found.profile_how.startswith("detected: ")
    assert (found.right, found.wrong, found.unjudged) == (told.right, 0, told.unjudged)
    assert rule_names(found) == []
    assert found.profile.windows_per_cpu == profile.windows_per_cpu
    assert found.profile.era == profile.era


def test_the_reason_has_the_kernel_s_names_of_the_functions() -> None:
    how = judge(sample("misuse/linux-6.1-686.clean")).profile_how
    assert "calls " in how
    calls = how.partition("calls ")[2].partition(";")[0].split(", ")
    assert calls == [
        "__kmap_local_page_prot", "__kmap_local_pfn_prot", "kmap_high", "kunmap_high",
        "kunmap_local_indexed",
    ]  # fmt: skip


@pytest.mark.parametrize("function", [f for f in Function if f is not Function.NONE])
def test_every_function_has_a_name_in_the_reason(function: Function) -> None:
    how = _explain(make_profile("L1"), [], Evidence(functions={int(function)}))
    assert SYMBOLS[how.removeprefix("detected: calls ")] is function


def test_a_recording_that_no_kernel_explains_is_refused() -> None:
    lines = sample("misuse/linux-6.1-686.clean")
    moved = [line.replace(b"vaddr=0xfffbb", b"vaddr=0xff8bb") for line in body_of(lines)]
    with pytest.raises(UsageError, match=r"no known kernel fits this recording .*--profile"):
        judge(header_of(lines) + moved)


def test_a_recording_without_any_call_still_has_a_verdict() -> None:
    lines = sample("misuse/linux-6.1-686.clean")
    verdict = judge(header_of(lines) + [line for line in lines if b"sched_switch" in line])
    assert verdict.map_calls == verdict.judged == 0 and verdict.findings == []
    assert verdict.switches == 525
