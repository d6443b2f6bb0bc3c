from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from highmem.errors import ProfileError, UsageError
from highmem.kernel.fixmap import GEOMETRIES
from highmem.kernel.kernel import Kernel
from highmem.kernel.profile import (
    FAMILIES,
    Era,
    Family,
    Features,
    builtin_profiles,
    load_profile,
    make_profile,
    profile_from_table,
)
from support.kernel_machine import ALL, LOCAL, STACK, TYPED


def parse(text: str) -> Any:
    return profile_from_table(tomllib.loads(text), "mine.toml")


def test_families_are_those_of_the_facts() -> None:
    assert tuple(FAMILIES) == ALL
    eras = {name: family.era for name, family in FAMILIES.items()}
    assert {eras[name] for name in TYPED} == {Era.TYPED}
    assert {eras[name] for name in STACK} == {Era.STACK}
    assert {eras[name] for name in LOCAL} == {Era.LOCAL}
    assert all(family.geometry in GEOMETRIES for family in FAMILIES.values())


# linux-facts 2.1 (KM_TYPE_NR) and 4.1 (KM_MAX_IDX, depth).
@pytest.mark.parametrize(
    ("family", "options", "windows", "depth"),
    [
        ("T0", {}, 13, 13),
        ("T6", {"debug_highmem": True}, 27, 13),
        ("T7", {"debug_highmem": True}, 39, 19),
        ("T10", {"debug_highmem": True}, 41, 20),
        ("S0", {}, 20, 20),
        ("S4", {"debug_highmem": True}, 41, 41),
        ("L0", {}, 16, 15),
        ("L1", {"debug_kmap_local": True}, 33, 16),
        ("L1", {"debug_highmem": True}, 33, 16),
    ],
)
def test_windows_per_cpu(family: str, options: dict[str, Any], windows: int, depth: int) -> None:
    profile = make_profile(family, **options)
    assert (profile.windows_per_cpu, profile.depth_limit) == (windows, depth)


def test_debug_highmem_selects_what_it_does_in_5_11() -> None:
    plain, debug = make_profile("L1"), make_profile("L1", debug_highmem=True)
    assert (plain.guard_slots, plain.maps_low_pages) == (False, False)
    assert (debug.guard_slots, debug.maps_low_pages) == (True, True)
    guards = make_profile("L1", debug_kmap_local=True)
    assert (guards.guard_slots, guards.maps_low_pages) == (True, False)


def test_uniprocessor() -> None:
    assert not make_profile("S4", nr_cpus=1).smp
    assert make_profile("S4", nr_cpus=2).smp


@pytest.mark.parametrize(
    ("family", "options", "why"),
    [
        ("S4", {"nr_cpus": 0}, "must be 1 to 4096"),
        ("S4", {"nr_cpus": 4097}, "must be 1 to 4096"),
        ("S4", {"debug_kmap_local": True}, r"options of 5\.11"),
        ("T0", {"force_map": True}, r"options of 5\.11"),
        ("L1", {"force_map": True}, "needs debug_kmap_local"),
        ("X9", {}, "no family 'X9'; there are T0, T1"),
        ("S4", {"nr_cpu": 4}, "no option 'nr_cpu'; did you mean 'nr_cpus'"),
        ("S4", {"zebra": 4}, "no option 'zebra'$"),
        ("S4", {"features": {"km_typ": 20}}, "no feature 'km_typ'; did you mean 'km_types'"),
        ("S4", {"features": {"km_types": 21}}, "km_types is 21, must be 1 to 20"),
        ("S4", {"features": {"busy_check": "sometimes"}}, "must be one of always, debug"),
    ],
)
def test_contradictions(family: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ProfileError, match=why):
        make_profile(family, **options)


def test_features_override_single_facts_of_a_family() -> None:
    profile = make_profile("T3", features={"lazy_flush_on_unmap": False})
    assert profile.features == FAMILIES["T3"].features._replace(lazy_flush_on_unmap=False)


@pytest.mark.parametrize("name", builtin_profiles())
def test_every_builtin_profile_boots(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    kernel = Kernel.boot(name)
    page = kernel.alloc_page()
    kernel.write32(kernel.kmap(page), 0x2A)
    address = kernel.kmap_atomic(page)
    assert kernel.read32(address) == 0x2A
    kernel.kunmap_atomic(address)


# linux-facts 9.3.
@pytest.mark.parametrize(
    ("name", "slot0", "cpu1", "pkmap", "high_memory"),
    [
        ("debian-5.10-686", 0xFFFBB000, 0xFFFA7000, 0xFEC00000, 0xF6BFE000),
        ("debian-5.10-686-pae", 0xFFFBB000, 0xFFFA7000, 0xFF000000, 0xF6FFE000),
        ("debian-6.1-686", 0xFFFBB000, 0xFFFAB000, 0xFEC00000, 0xF6BFE000),
        ("debian-6.1-686-pae", 0xFFFBB000, 0xFFFAB000, 0xFF000000, 0xF6FFE000),
    ],
)
def test_the_four_recorded_kernels(
    name: str, slot0: int, cpu1: int, pkmap: int, high_memory: int
) -> None:
    kernel = Kernel.boot(name, cpus=2)
    page = kernel.alloc_page()
    assert page.pfn == (high_memory - 0xC0000000) >> 12
    assert kernel.kmap_atomic(page) == slot0
    with kernel.on(1):
        assert kernel.kmap_atomic(page) == cpu1
        assert kernel.kmap_atomic(page) == cpu1 - 0x1000
    assert kernel.kmap(page) == pkmap + 0x1000
    assert kernel.layout.high_memory == high_memory


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(
        'name = "board"\nfamily = "S2"\nnr_cpus = 2\nkernel = "4.4"\n'
        '[geometry]\nohci1394 = "before-apic"\n[features]\nhas_kmap_atomic_to_page = false\n'
    )
    profile = load_profile(str(path))
    assert (profile.name, profile.title, profile.nr_cpus) == ("board", "board", 2)
    assert profile.geometry == GEOMETRIES["4.4"]._replace(ohci1394="before-apic")
    assert not profile.features.has_kmap_atomic_to_page


HEAD = 'name = "mine"\nfamily = "S4"\n'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('family = "S4"', "has no 'name'"),
        ('name = "x"', "has no 'family'"),
        ('name = "x"\nfamily = "S9"', "no family 'S9'"),
        (HEAD + 'kernel = "5.1"', "no kernel '5.1'; did you mean"),
        (HEAD + "debug_higmem = true", "no option .*; did you mean 'debug_highmem'"),
        (HEAD + "pae = 1", "pae must be true or false"),
        (HEAD + 'nr_cpus = "8"', "nr_cpus must be a number"),
        (HEAD + "nr_cpus = true", "nr_cpus must be a number"),
        (HEAD + "nr_cpus = 0", "must be 1 to 4096"),
        (HEAD + "features = 3", "must be tables"),
        (HEAD + "geometry = []", "must be tables"),
        (HEAD + "[geometry]\nfixaddr_tp = 1", "no geometry key .*did you mean 'fixaddr_top'"),
        (HEAD + '[geometry]\nfixaddr_top = "high"', "fixaddr_top must be a number"),
        (HEAD + '[features]\nkm_types = "many"', "km_types must be a number"),
        (HEAD + '[features]\nlazy_flush_on_map = "no"', "lazy_flush_on_map must be true or false"),
        (HEAD + "[features]\nkm_types = true", "km_types must be a number"),
        (HEAD + "[features]\nbusy_check = 1", "busy_check must be a word"),
        (HEAD + "force_map = true", r"options of 5\.11"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(text: str, why: str) -> None:
    with pytest.raises(ProfileError, match=why) as caught:
        parse(text)
    assert str(caught.value).startswith("mine.toml: ")
    assert "\n" not in str(caught.value)


def test_a_name_that_is_no_profile() -> None:
    with pytest.raises(ProfileError, match=r"no profile 'debian-9'; built in: debian-5\.10-686"):
        load_profile("debian-9")


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", None])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProfileError, match="cannot be read as a profile"):
        load_profile(str(path))


def test_booting_with_more_cpus_than_compiled_for() -> None:
    with pytest.raises(UsageError, match="compiled for 1 to 4 CPUs"):
        Kernel.boot(make_profile("S4", nr_cpus=4), cpus=5)
    with pytest.raises(UsageError):
        Kernel.boot("debian-5.10-686", cpus=0)


def test_the_defaults_of_features_are_5_10() -> None:
    assert Features() == FAMILIES["S4"].features._replace(
        context_check="none", lazy_flush_on_pfn_map=True
    )


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_features_of_each_family_are_ones_that_a_file_could_ask_for(family: Family) -> None:
    assert Features().but(**family.features._asdict()) == family.features
