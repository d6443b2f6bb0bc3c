"""What the images of real kernels say of themselves, held to the guest's own words."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import pytest

from highmem.image.find.identify import Measured, fit_layout, fit_profile
from highmem.image.find.kallsyms import find_kallsyms
from highmem.image.find.roots import Evidence
from highmem.image.windows import PermanentWindow, TemporaryWindow, read_windows
from highmem.kernel.layout import Layout
from highmem.kernel.profile import load_profile
from support.image_samples import SAMPLES, LoggedWindow, Sample, sample


@pytest.fixture(params=SAMPLES)
def one(request: pytest.FixtureRequest) -> Sample:
    return sample(request.param)


def moved_by(one: Sample) -> int:
    """KASLR's distance: where the image's own note says that the tables are, less the map."""
    said = int(one.kernel.known.vmcoreinfo["SYMBOL(swapper_pg_dir)"], 16)
    return said - one.system_map()["swapper_pg_dir"]


def test_kallsyms_is_the_guests_proc_kallsyms(one: Sample) -> None:
    rodata = one.kernel.known.rodata
    assert rodata is not None
    table = find_kallsyms(*rodata)
    assert table is not None
    rows = zip(table.addresses.tolist(), table.types, table.names, strict=True)
    text = "".join(f"{address:08x} {kind} {name}\n" for address, kind, name in rows)
    said = re.search(r"([0-9a-f]{32})  /proc/kallsyms", one.log)
    assert said is not None
    assert hashlib.md5(text.encode()).hexdigest() == said[1]
    assert table.num_syms_at == one.system_map()["kallsyms_num_syms"] + moved_by(one)


def test_exported_variables_are_where_the_system_map_has_them(one: Sample) -> None:
    known, moved = one.kernel.known, moved_by(one)
    assert len(known.exports) >= 11
    for name, address in known.exports.items():
        assert address == one.system_map()[name] + moved, name


def test_variables_that_are_not_exported_are_found_in_the_code(one: Sample) -> None:
    # pkmap_count and last_pkmap_nr are static: neither exported nor in this kallsyms.
    kernel, table, moved = one.kernel, one.system_map(), moved_by(one)
    assert kernel.known.symbol("pkmap_count") is None
    assert kernel.pkmap_count_at == table["pkmap_count"] + moved
    assert kernel.symbol("linux_banner") == table["linux_banner"] + moved
    if "last_pkmap_nr" in table:
        assert kernel.last_pkmap_nr == kernel.read32(table["last_pkmap_nr"] + moved)


def test_kaslr_moved_one_of_the_samples_and_not_the_other() -> None:
    assert moved_by(sample("linux-6.1-686-pae")) == 0x7000000
    assert moved_by(sample("linux-5.10-686")) == 0


def test_the_profile_is_the_kernels_own(one: Sample) -> None:
    kernel = one.kernel
    assert kernel.profile == load_profile(f"debian-{one.name.removeprefix('linux-')}")
    assert kernel.known.release is not None and kernel.known.release in kernel.profile_how
    assert any("confirm the windows" in note for note in kernel.profile_notes)


def test_low_and_high_memory_are_as_the_boot_log_says(one: Sample) -> None:
    layout = one.kernel.layout
    low, high = (int(re.search(rf"(\d+)MB {part}", one.log)[1]) for part in ("LOW", "HIGH"))  # type: ignore[index]
    assert layout.max_low_pfn >> 8 == low
    assert (layout.highend_pfn - layout.highstart_pfn) >> 8 == high
    assert any("highmem=98304K was given" in note for note in one.kernel.layout_notes)


def test_paging_and_cr3_are_decided_by_evidence(one: Sample) -> None:
    root = one.kernel.root
    assert root.is_pae == one.name.endswith("-pae")
    assert root.what == "swapper_pg_dir"
    assert root.cr3 == one.system_map()["swapper_pg_dir"] + moved_by(one) - 0xC0000000
    words = " ".join(root.reasons)
    assert "VMCOREINFO" in words and "linearly" in words
    assert {one.cr3(0), one.cr3(1)} <= {other.cr3 for other in one.kernel.roots}


def test_mem_map_leads_from_frames_to_pages_and_back(one: Sample) -> None:
    for window in one.windows("permanent") | one.windows("temporary"):
        page = one.kernel.pfn_to_page(window.pfn)
        assert page is not None and page.address == window.page
        assert page.highmem
        assert one.kernel.page_to_pfn(window.page) == window.pfn


# The windows.


def logged(window: TemporaryWindow | PermanentWindow) -> LoggedWindow:
    assert window.page is not None
    if isinstance(window, TemporaryWindow):
        return LoggedWindow(
            "temporary", window.cpu, window.slot, window.address, window.pfn, window.page
        )
    return LoggedWindow("permanent", None, None, window.address, window.pfn, window.page)


def test_exactly_the_temporary_windows_that_the_module_holds(one: Sample) -> None:
    found = read_windows(one.kernel)
    assert len(one.windows("temporary")) == 4
    assert {logged(window) for window in found.temporary} == one.windows("temporary")
    assert all(window.held for window in found.temporary)
    assert {state.cpu: state.index for state in found.cpus} == {0: 0, 1: 4}
    runs = {state.cpu: state.task.comm if state.task else None for state in found.cpus}
    assert runs[1] == "windows-spin"
    assert all(state.online for state in found.cpus)
    assert not found.findings and not found.notes


def test_the_permanent_windows_that_the_module_holds_are_the_ones_in_use(one: Sample) -> None:
    found = read_windows(one.kernel)
    used = [window for window in found.permanent if window.count == 2]
    assert {logged(window) for window in used} == one.windows("permanent")
    # The others were mapped and given back; their entries wait for the next flush.
    rest = [window for window in found.permanent if window.count != 2]
    assert all(window.count == 1 and window.present for window in rest)
    assert found.last_pkmap_nr == max(window.nr for window in found.permanent)


def test_windows_of_a_sleeping_task_are_kept_with_it() -> None:
    one = sample("linux-6.1-686-pae")
    found = read_windows(one.kernel)
    (task,) = found.asleep
    assert task.comm == "windows-sleep" and task.cpu is None
    frames = {slot: one.kernel.entry_pfn(entry) for slot, entry in enumerate(task.held)}
    assert frames == {window.slot: window.pfn for window in one.windows("asleep")}
    assert len(frames) == 2


# What the image shows otherwise than the profile.


def test_bounds_in_the_code_decide_nr_cpus_and_the_debug_option() -> None:
    # linux-facts.md 9.4: KM_TYPE_NR 41 and KM_MAX_IDX 33 with DEBUG_HIGHMEM.
    profile = load_profile("debian-5.10-686")
    for windows, debug in ((20, False), (41, True)):
        for cpus in (8, 32, 64):
            bounds = (68, 68 + windows * cpus - 1)
            fitted, (note,) = fit_profile(profile, Measured(window_bounds=bounds))
            assert (fitted.nr_cpus, fitted.debug_highmem) == (cpus, debug)
            assert fitted.windows_per_cpu == windows
            assert str(bounds[1]) in note


def test_an_ohci1394_entry_moves_the_windows_down() -> None:
    profile = load_profile("debian-6.1-686")
    fitted, _ = fit_profile(profile, Measured(window_bounds=(69, 580)))
    assert fitted.geometry.ohci1394 == "before-apic"
    # linux-facts.md 9.2: 69 is 0xfffba000 for CPU 0.
    assert fitted.layout(2 << 30).window_address(0, 0) == 0xFFFBA000


def test_bounds_that_fit_nothing_are_said() -> None:
    profile = load_profile("debian-6.1-686")
    fitted, (note,) = fit_profile(profile, Measured(window_bounds=(68, 101)))
    assert fitted == profile
    assert "do not fit" in note


def test_masks_decide_nx_isolation_and_global_pages() -> None:
    profile = load_profile("debian-6.1-686-pae")
    everything = (1 << 64) - 1
    nx, pge = 1 << 63, 1 << 8
    for supported, default, expected in (
        (everything, everything, (True, True, False)),
        (everything & ~nx, everything, (False, True, False)),
        (everything, everything & ~pge, (True, True, True)),
        (everything & ~pge, everything & ~pge, (True, False, False)),
    ):
        measured = Measured(supported_pte_mask=supported, default_kernel_pte_mask=default)
        fitted, _ = fit_profile(profile, measured)
        assert (fitted.nx, fitted.pge, fitted.pti) == expected


# Boot parameters: what the kernels in linux-facts.md 9.4 had, and nonsense.


def layout_notes(values: dict[str, int], low: int = 0x36BFE) -> tuple[Layout, str]:
    """The layout of a 5.10 kernel that maps *low* frames directly and has these variables."""
    one = sample("linux-5.10-686")
    root = replace(one.kernel.root, evidence=Evidence(0xC0000000, low, low, 0))
    measured = Measured(**values)  # type: ignore[arg-type]
    layout, notes = fit_layout(load_profile("debian-5.10-686"), root, measured, 2 << 30)
    return layout, "; ".join(notes)


@pytest.mark.parametrize(
    ("values", "pkmap", "low", "word"),
    [
        ({"high_memory": 0xF6BFE000, "max_mapnr": 0x80000}, 0xFEC00000, 0x36BFE, "confirms"),
        ({"high_memory": 0xEE3FE000, "max_mapnr": 0x80000}, 0xFEC00000, 0x2E3FE, "vmalloc=262144K"),
        ({"high_memory": 0xF5BFE000, "fixaddr_top": 0xFEFFF000}, 0xFDC00000, 0x35BFE,
         "reservetop=0x1000000"),
        ({"high_memory": 0xC9FE0000, "max_mapnr": 0xFFE0}, 0xFEC00000, 0x9FE0, "highmem=98304K"),
        ({}, 0xFEC00000, 0x36BFE, "the direct mapping's end confirms"),
    ],
)  # fmt: skip
def test_boot_parameters_are_seen_by_what_they_move(
    values: dict[str, int], pkmap: int, low: int, word: str
) -> None:
    layout, notes = layout_notes(values, low)
    assert (layout.PKMAP_BASE, layout.max_low_pfn) == (pkmap, low)
    assert word in notes


@pytest.mark.parametrize(
    "values",
    [
        {"fixaddr_top": 0x12345}, {"fixaddr_top": 0}, {"fixaddr_top": 0x80000000},
        {"high_memory": 3}, {"high_memory": 0xFFFFFFFF}, {"high_memory": 0xC0000000},
        {"max_mapnr": 1}, {"max_mapnr": 0xFFFFFFFF},
    ],
)  # fmt: skip
def test_variables_that_make_no_sense_are_left_aside_and_named(values: dict[str, int]) -> None:
    layout, notes = layout_notes(values)
    assert layout.max_low_pfn == 0x36BFE and layout.PKMAP_BASE == 0xFEC00000
    assert "left aside" in notes
