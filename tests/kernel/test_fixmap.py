"""``enum fixed_addresses`` against linux-facts.md sections 9.1 to 9.3."""

from __future__ import annotations

import pytest

from highmem.errors import ProfileError
from highmem.kernel.fixmap import (
    END_OF_FIXED,
    END_OF_PERMANENT,
    GEOMETRIES,
    FixedAddress,
    Geometry,
    fixed_addresses,
)


def enum(
    geometry: Geometry | str, *, s: int = 20, nr_cpus: int = 32, pae: bool = False,
    highmem: bool = True,
) -> dict[str, FixedAddress]:  # fmt: skip
    geometry = GEOMETRIES[geometry] if isinstance(geometry, str) else geometry
    rows = fixed_addresses(geometry, windows_per_cpu=s, nr_cpus=nr_cpus, pae=pae, highmem=highmem)
    found = {row.name: row for row in rows}
    assert len(found) == len(rows)
    return found


def index(geometry: Geometry | str, name: str, **options: int) -> int:
    return enum(geometry, **options)[name].index  # type: ignore[arg-type]


# Section 9.3: (index in Debian's 5.10, in its 6.1), both flavours alike.
DEBIAN_INDICES = {
    "FIX_HOLE": (0, 0),
    "FIX_DBGP_BASE": (1, 1),
    "FIX_EARLYCON_MEM_BASE": (2, 2),
    "FIX_APIC_BASE": (3, 3),
    "FIX_IO_APIC_BASE_0": (4, 4),
    "FIX_IO_APIC_BASE_END": (67, 67),
    "FIX_KMAP_BEGIN": (68, 68),
    "FIX_KMAP_END": (707, 579),
    "FIX_PCIE_MCFG": (708, 580),
    "FIX_APEI_GHES_IRQ": (709, 581),
    "FIX_APEI_GHES_NMI": (710, 582),
    END_OF_PERMANENT: (711, 583),
    "FIX_BTMAP_END": (1024, 1024),
    "FIX_BTMAP_BEGIN": (1535, 1535),
    "FIX_WP_TEST": (1536, 1536),
    END_OF_FIXED: (1537, 1537),
}


@pytest.mark.parametrize("pae", [False, True], ids=["686", "686-pae"])
@pytest.mark.parametrize(("kernel", "s", "column"), [("5.10", 20, 0), ("6.1", 16, 1)])
def test_debian_enum_is_complete_and_in_order(kernel: str, s: int, column: int, pae: bool) -> None:
    found = enum(kernel, s=s, pae=pae)
    assert {name: row.index for name, row in found.items()} == {
        name: indices[column] for name, indices in DEBIAN_INDICES.items()
    }
    assert list(found) == list(DEBIAN_INDICES)


# Section 9.2, column by column, in a typical configuration: the names before the permanent end.
TOP = ["FIX_HOLE"]
EARLY = ["FIX_DBGP_BASE", "FIX_EARLYCON_MEM_BASE"]
APICS = ["FIX_APIC_BASE", "FIX_IO_APIC_BASE_0", "FIX_IO_APIC_BASE_END"]
KMAP = ["FIX_KMAP_BEGIN", "FIX_KMAP_END"]
MCFG = ["FIX_PCIE_MCFG"]
BOOTMAP = ["FIX_PARAVIRT_BOOTMAP"]
POKE = ["FIX_TEXT_POKE1", "FIX_TEXT_POKE0"]
GHES = ["FIX_APEI_GHES_IRQ", "FIX_APEI_GHES_NMI"]
ACPI = ["FIX_ACPI_BEGIN", "FIX_ACPI_END"]
PVCLOCK = ["PVCLOCK_FIXMAP_BEGIN", "PVCLOCK_FIXMAP_END"]
COLUMNS = {
    "2.6.24": [*TOP, "FIX_VDSO", *EARLY, *APICS, *KMAP, *ACPI, *MCFG, *BOOTMAP],
    "2.6.36": [*TOP, "FIX_VDSO", *EARLY, *APICS, *KMAP, *MCFG, *BOOTMAP, *POKE],
    "3.2": [*TOP, "FIX_VDSO", *EARLY, *APICS, *KMAP, *MCFG, *BOOTMAP, *POKE],
    "3.10": [
        *TOP, "FIX_VDSO", *PVCLOCK, *EARLY, *APICS, "FIX_RO_IDT", *KMAP, *MCFG, *BOOTMAP, *POKE,
    ],
    "3.16": [*TOP, *PVCLOCK, *EARLY, *APICS, "FIX_RO_IDT", *KMAP, *MCFG, *BOOTMAP, *POKE],
    "4.4": [*TOP, *PVCLOCK, *EARLY, *APICS, "FIX_RO_IDT", *KMAP, *MCFG, *BOOTMAP, *POKE],
    "4.9": [*TOP, *EARLY, *APICS, "FIX_RO_IDT", *KMAP, *MCFG, *BOOTMAP, *POKE],
    "4.19": [*TOP, *EARLY, *APICS, *KMAP, *MCFG, *BOOTMAP, *POKE, *GHES],
    "5.4": [*TOP, *EARLY, *APICS, *KMAP, *MCFG, *BOOTMAP, *GHES],
    "5.10": [*TOP, *EARLY, *APICS, *KMAP, *MCFG, *GHES],
    "6.1": [*TOP, *EARLY, *APICS, *KMAP, *MCFG, *GHES],
}  # fmt: skip


@pytest.mark.parametrize("kernel", COLUMNS)
def test_permanent_entries_of_each_kernel(kernel: str) -> None:
    names = list(enum(kernel))
    assert names[: names.index(END_OF_PERMANENT)] == COLUMNS[kernel]


@pytest.mark.parametrize("kernel", ["4.15", "4.19", "5.4", "5.10", "6.1"])
def test_windows_begin_at_68_since_4_15(kernel: str) -> None:
    assert index(kernel, "FIX_KMAP_BEGIN") == 68


def test_only_entries_above_the_windows_move_them() -> None:
    plain = GEOMETRIES["5.10"]
    assert index(plain.but(ohci1394="before-apic"), "FIX_KMAP_BEGIN") == 69
    below = plain.but(lnw_vrtc=True, gdt_remap=True, tboot=True, paravirt_bootmap=True,
        text_poke="poke1-first", acpi="permanent",
    )  # fmt: skip
    assert index(below, "FIX_KMAP_BEGIN") == 68
    assert index(below, END_OF_PERMANENT) == 711 + 1 + 32 + 1 + 2 + 4


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_the_geometry_of_each_kernel_is_one_that_a_file_could_ask_for(geometry: Geometry) -> None:
    assert Geometry().but(**geometry._asdict()) == geometry


@pytest.mark.parametrize("feature", ["f00f", "cyclone", "ro_idt"])
def test_one_page_entries_before_the_windows(feature: str) -> None:
    changed = GEOMETRIES["2.6.36"].but(**{feature: True})
    plain = index("2.6.36", "FIX_KMAP_BEGIN")
    assert index(changed, "FIX_KMAP_BEGIN") == plain + 1


def test_visual_workstation_takes_four_pages() -> None:
    changed = GEOMETRIES["2.6.36"].but(visws=True)
    assert index(changed, "FIX_KMAP_BEGIN") == index("2.6.36", "FIX_KMAP_BEGIN") + 4


@pytest.mark.parametrize(
    ("pvti_size", "nr_cpus", "pages"),
    [(64, 1, 1), (64, 64, 1), (64, 65, 2), (32, 128, 1), (128, 33, 2), (64, 512, 8)],
)
def test_pvclock_width_is_one_slot_per_cpu(pvti_size: int, nr_cpus: int, pages: int) -> None:
    geometry = GEOMETRIES["3.10"].but(pvti_size=pvti_size)
    assert enum(geometry, nr_cpus=nr_cpus)["PVCLOCK_FIXMAP_BEGIN"].width == pages


# Section 9.1, FIX_BTMAP_END: worked by hand from the rule's words.  With S=1 the permanent end
# of this bare geometry is 1 + NR_CPUS.
BARE = Geometry(
    dbgp_earlycon=False, local_apic=False, io_apic=False, pcie_mcfg=False, apei_ghes=False
)


@pytest.mark.parametrize(
    ("rule", "pae", "end", "btmap_end", "count"),
    [
        ("at-end-16", False, 180, 180, 16),
        ("round-512-256", False, 180, 512, 256),
        ("round-512-256", False, 512, 1024, 256),
        ("round-256", False, 904, 1024, 256),
        ("round-256", False, 256, 512, 256),
        ("if-crossing-256", False, 700, 700, 256),
        ("if-crossing-256", False, 769, 1024, 256),
        ("if-crossing-256", False, 768, 768, 256),
        ("if-crossing-256", True, 226, 226, 256),
        ("if-crossing-256", True, 300, 512, 256),
        ("if-crossing-512", False, 112, 112, 512),
        ("if-crossing-512", False, 711, 1024, 512),
        ("if-crossing-512", True, 235, 512, 512),
        ("if-crossing-512", True, 512, 512, 512),
    ],
)
def test_boot_time_mappings(rule: str, pae: bool, end: int, btmap_end: int, count: int) -> None:
    found = enum(BARE.but(btmap_rule=rule), s=1, nr_cpus=end - 1, pae=pae)
    assert found[END_OF_PERMANENT].index == end
    assert found["FIX_BTMAP_END"].index == btmap_end
    assert found["FIX_BTMAP_BEGIN"].index == btmap_end + count - 1
    assert found["FIX_WP_TEST"].index == btmap_end + count
    assert found[END_OF_FIXED].index == btmap_end + count + 1


def test_windows_without_highmem() -> None:
    # Section 9.2: CONFIG_HIGHMEM up to 2.6.27, always on X86_32 from 2.6.28.
    assert "FIX_KMAP_BEGIN" not in enum("2.6.27", highmem=False)
    assert "FIX_KMAP_BEGIN" in enum("2.6.28", highmem=False)
    assert "FIX_KMAP_BEGIN" in enum("6.1", highmem=False)


def test_entries_after_the_boot_time_mappings() -> None:
    geometry = GEOMETRIES["2.6.27"].but(ohci1394="at-end")
    names = list(enum(geometry))
    tail = ["FIX_WP_TEST", "FIX_ACPI_BEGIN", "FIX_ACPI_END", "FIX_OHCI1394_BASE", END_OF_FIXED]
    assert names[-5:] == tail
    geometry = GEOMETRIES["6.1"].but(tboot=True)
    assert list(enum(geometry))[-3:] == ["FIX_WP_TEST", "FIX_TBOOT_BASE", END_OF_FIXED]


def test_firewire_after_the_permanent_end_moves_nothing() -> None:
    plain = enum("2.6.32")
    found = enum(GEOMETRIES["2.6.32"].but(ohci1394="after-permanent"))
    firewire = found.pop("FIX_OHCI1394_BASE")
    assert found == plain
    # As in C: the enumerator that follows __end_of_permanent_fixed_addresses is one more.
    assert firewire.index == plain[END_OF_PERMANENT].index + 1


@pytest.mark.parametrize(("s", "nr_cpus"), [(0, 1), (20, 0), (-1, 4)])
def test_counts_below_one_are_refused(s: int, nr_cpus: int) -> None:
    with pytest.raises(ProfileError, match="at least 1"):
        enum("6.1", s=s, nr_cpus=nr_cpus)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pkmap_rule": "below"}, "pkmap_rule is 'below', must be one of fixaddr-boot-start"),
        ({"page_offset": 0xC0001000}, "page_offset is 0xc0001000, must be one of 0xc0000000"),
        ({"fixaddr_top": 0xFFFFF800}, "not a page"),
        ({"f00f": 1}, "f00f must be true or false, not 1"),
        ({"pvti_size": True}, "pvti_size must be a number, not True"),
        ({"acpi": True}, "acpi must be a word, not True"),
        ({"vmalloc_param": "256M"}, "vmalloc_param must be a number, not '256M'"),
        ({"vmalloc_param": -1}, "must fit 32 bits"),
        ({"pvti_size": 0}, "must be 32 to 4096"),
        ({"reservetop_rule": "exact", "reservetop_param": 100}, "multiple of 4096"),
    ],
)
def test_a_geometry_that_no_kernel_has_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        GEOMETRIES["6.1"].but(**changes)
