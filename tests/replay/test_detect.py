"""The profile found from a recording: it must explain every address, by whatever name."""

from __future__ import annotations

import io

import pytest

from highmem.errors import UsageError
from highmem.kernel.profile import builtin_profiles, load_profile, make_profile
from highmem.replay.detect import Evidence, _explain, detect
from highmem.trace.schema import SYMBOLS, Batch, Function
from highmem.trace.source import ByteSource
from highmem.trace.tracedat import TraceDat
from support.recordings import Recorder, body_of, header_of, judge, rule_names, sample
from support.trace_reading import read_bytes
from support.tracedat_writer import Machine, Page, call, dat

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


DEBIAN = [name for name in builtin_profiles() if name.startswith("debian-")]


def temporary_windows(rec: Recorder) -> list[Batch]:
    # Nothing in it shows PAE: no permanent window, no frame that is low on the other kernel.
    for _ in range(4096):
        rec.page()
    rec.warm_up()
    rec.run(1, "work")
    page = rec.page()
    rec.kunmap_atomic(rec.kmap_atomic(page))
    rec.exit()
    rec.go_on()
    return list(read_bytes(rec.text()))


@pytest.mark.parametrize("name", DEBIAN)
def test_the_release_tells_what_the_addresses_leave_open(name: str) -> None:
    profile = load_profile(name)
    batches = temporary_windows(Recorder(profile))
    release = profile.title.split()[1]
    other = name.removesuffix("-pae") if profile.pae else f"{name}-pae"
    chosen, _, how = detect(batches, release)
    assert chosen == profile
    assert how.endswith(f"; release {release}")
    # Another build of the same kernel is nearer than any other.
    near = release.replace("-50-", "-13-").replace("-32-", "-9-")
    assert detect(batches, near)[0] == profile
    unsure = detect(batches)[2]
    assert "release" not in unsure
    assert "as well" in unsure
    assert (other in unsure) != (name in unsure)


@pytest.mark.parametrize("name", [name for name in DEBIAN if not name.endswith("-pae")])
def test_a_release_does_not_outweigh_the_addresses(name: str) -> None:
    profile = load_profile(name)
    rec = Recorder(profile)
    program(rec)
    batches = list(read_bytes(rec.text()))
    wrong = f"{profile.title.split()[1]}-pae"
    # It maps a frame that is low on every kernel with PAE.
    chosen, _, how = detect(batches, wrong)
    assert chosen == profile
    assert how.endswith(f"; release {wrong}, which the addresses contradict")


def test_a_kernel_that_is_not_built_in_gets_pae_from_its_release() -> None:
    rec = Recorder(make_profile("S1", nr_cpus=8, pae=True, nx=True))
    batches = temporary_windows(rec)
    assert detect(batches, "3.2.0-4-686-pae")[0].pae
    assert not detect(batches, "3.2.0-4-686")[0].pae


@pytest.mark.parametrize(
    ("uname", "release"),
    [
        (b"Linux box 6.1.0-50-686-pae i686", "6.1.0-50-686-pae"),
        (b"Linux 10.0.box 5.10.0-32-686 #1 SMP i686 GNU/Linux\n", "5.10.0-32-686"),
        (b"3.2.0-4-686-pae\n", "3.2.0-4-686-pae"),
        (b"Linux box", ""),
        (b"Linux 6.1", ""),
        (b"", ""),
        (b"FreeBSD box 13.1-RELEASE", ""),
        (b"6.1.0\x1b[31m", "6.1.0\\x1b[31m"),
        (b"6." + b"1" * 4000, ""),
    ],
)
def test_the_release_is_read_out_of_what_uname_says(uname: bytes, release: str) -> None:
    machine = Machine()
    pages = {0: [Page(machine, 1).record(2, call(machine, "u", 1, 2))]}
    data = dat(machine, pages, options=((5, uname),))
    source = TraceDat(ByteSource("test.dat", io.BytesIO(data)), "-")
    assert source.account.release == release


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
