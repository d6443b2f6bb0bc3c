from __future__ import annotations

import pytest

from highmem.errors import UsageError
from highmem.image.diff import diff_images
from highmem.image.maps import Places, map_rows
from highmem.image.vtop import parse_address, translate
from highmem.image.windows import read_windows
from highmem.machine.entry import ACCESSED
from support.image_samples import SAMPLES, Sample, changed, entry_at, sample


@pytest.fixture(params=SAMPLES)
def one(request: pytest.FixtureRequest) -> Sample:
    return sample(request.param)


# The map.


@pytest.mark.parametrize("exact", [False, True])
def test_rows_are_the_pages_that_qemu_lists_merged(one: Sample, exact: bool) -> None:
    assert one.cr3(1) == one.kernel.root.cr3, "CPU 1 ran a kernel thread on the kernel's tables"
    theirs = {line.address: line.physical for line in one.tlb(1)}
    found = {}
    rows = list(map_rows(one.kernel, exact=exact))
    for row in rows:
        for offset in range(0, row.size, row.mapped.page_size):
            found[row.address + offset] = row.mapped.physical + offset
    assert found == theirs
    assert len(rows) < len(theirs) / 3
    assert [row.address for row in rows] == sorted(row.address for row in rows)


def test_flags_and_rights_of_a_row_are_those_of_its_pages(one: Sample) -> None:
    letters = {"GLOBAL": "G", "PSE": "P", "PCD": "C", "PWT": "T", "USER": "U", "RW": "W", "NX": "X"}
    theirs = {line.address: line.flags for line in one.tlb(1)}
    for row in map_rows(one.kernel):
        for offset in range(0, row.size, row.mapped.page_size):
            flags = theirs[row.address + offset]
            assert {letters[f] for f in row.mapped.flags if f in letters} == set(flags) - set("-AD")
        # A kernel page table entry never lends rights that the leaf does not have.
        assert ("w" in row.mapped.rights) <= ("RW" in row.mapped.flags)
        assert row.mapped.rights[0] == "r" and row.mapped.rights[3] == "k"


def test_places_are_named_by_the_layout(one: Sample) -> None:
    places = {row.address: row.place for row in map_rows(one.kernel)}
    for window in one.windows("temporary"):
        assert places[window.address] == f"window: CPU {window.cpu}, slot {window.slot}"
    # linux-facts.md 9.3: the local APIC is entry 3 of the fixmap, the I/O APIC entry 4.
    assert places[0xFFFFC000] == "FIX_APIC_BASE"
    assert places[0xFFFFB000] == "FIX_IO_APIC_BASE_0"
    assert places[0xC0000000] == "low memory"
    assert places[0xFF400000] == "CPU entry area"
    assert any(place == "vmalloc" for place in places.values())
    kept = read_windows(one.kernel).permanent
    name = Places(one.kernel).name
    assert name(kept[0].address) == f"pkmap {kept[0].nr}"
    assert name(kept[0].address, 8192) == f"pkmap {kept[0].nr} to {kept[0].nr + 1}"
    assert name(0xFFFFA000) == "FIX_IO_APIC_BASE_0 + 1"
    assert name(0x1000) == "user space"


def test_every_window_and_fixmap_page_has_a_row_of_its_own(one: Sample) -> None:
    layout = one.kernel.layout
    for row in map_rows(one.kernel, layout.FIXADDR_START):
        assert row.size == 4096


def test_a_range_shows_what_it_touches(one: Sample) -> None:
    everything = list(map_rows(one.kernel))
    start, end = one.kernel.layout.PKMAP_BASE, 1 << 32
    high = list(map_rows(one.kernel, start, end))
    assert high == [row for row in everything if row.address >= start]
    (row,) = map_rows(one.kernel, 0xC0000800, 0xC0000801)
    assert row.address == 0xC0000000
    assert list(map_rows(one.kernel, 0, 0x1000)) == []
    with pytest.raises(UsageError):
        list(map_rows(one.kernel, 2, 1))


# vtop.


def test_vtop_shows_each_level(one: Sample) -> None:
    held = next(iter(one.windows("temporary")))
    found = translate(one.kernel, held.address + 0x123)
    names = [step.level.name for step in found.steps]
    assert names == (["PDPT"] if one.kernel.root.is_pae else []) + ["page directory", "page table"]
    assert found.physical == held.pfn << 12 | 0x123
    assert found.page == held.page
    assert found.page_size == 4096 and found.failure is None
    for step in found.steps:
        size = one.kernel.root.mode.entry_size
        assert step.address is not None
        assert int.from_bytes(one.kernel.source.read(step.address, size), "little") == step.entry


def test_vtop_of_large_pages_and_of_nothing(one: Sample) -> None:
    large = next(line for line in sorted(one.tlb(1)) if "P" in line.flags)
    found = translate(one.kernel, large.address + 0x12345)
    assert found.physical == large.physical + 0x12345
    assert found.page_size == (2 << 20 if one.kernel.root.is_pae else 4 << 20)
    nothing = translate(one.kernel, 0)
    assert nothing.physical is None and nothing.failure is not None
    assert nothing.failure.endswith("not present")


def test_addresses_may_be_symbols(one: Sample) -> None:
    kernel = one.kernel
    init_task = kernel.symbol("init_task")
    assert init_task is not None
    assert parse_address(kernel, "init_task") == init_task
    assert parse_address(kernel, "init_task+0x40") == init_task + 0x40
    assert parse_address(kernel, "init_task+8") == init_task + 8
    assert parse_address(kernel, "c0000000") == parse_address(kernel, "0xC0000000") == 0xC0000000
    for bad in ("no_such_symbol", "init_task+", "+4", "", "100000000", "a b"):
        with pytest.raises(UsageError):
            parse_address(kernel, bad)


def test_code_has_names(one: Sample) -> None:
    address = one.kernel.symbol("kunmap_high")
    assert address is not None
    assert translate(one.kernel, address + 5).symbol == "kunmap_high+0x5"
    assert translate(one.kernel, one.kernel.layout.PKMAP_BASE).symbol is None


# diff.


def test_an_image_does_not_differ_from_itself(one: Sample) -> None:
    found = diff_images(one.kernel, one.kernel)
    assert not found.changed and not found.windows and not found.mappings


def test_opened_closed_and_changed_windows(one: Sample) -> None:
    temporary = sorted(one.windows("temporary"), key=lambda window: window.slot or 0)
    fresh = one.kernel.layout.window_address(0, 0)
    new_entry = 0xA123 << 12 | one.kernel.kmap_prot
    after = changed(
        one,
        entry_at(one, temporary[3].address, 0)
        | entry_at(one, temporary[1].address, new_entry)
        | entry_at(one, fresh, 0xA124 << 12 | one.kernel.kmap_prot),
    )
    found = diff_images(one.kernel, after)
    kinds = {change.address: change.kind for change in found.windows}
    assert kinds == {
        fresh: "opened",
        temporary[3].address: "closed",
        temporary[1].address: "changed",
    }
    mapped = {change.address: change for change in found.mappings}
    assert {address: change.kind for address, change in mapped.items()} == {
        fresh: "added",
        temporary[3].address: "removed",
        temporary[1].address: "changed",
    }
    other = mapped[temporary[1].address]
    assert other.before is not None and other.before.physical == temporary[1].pfn << 12
    assert other.after is not None and other.after.physical == 0xA123000
    assert other.place == f"window: CPU 1, slot {temporary[1].slot}"
    back = diff_images(after, one.kernel)
    assert {c.address: c.kind for c in back.windows} == {
        fresh: "closed",
        temporary[3].address: "opened",
        temporary[1].address: "changed",
    }


def test_accessed_and_dirty_make_no_difference(one: Sample) -> None:
    held = next(iter(one.windows("temporary")))
    entry = one.kernel.entry_at(held.address)
    found = diff_images(one.kernel, changed(one, entry_at(one, held.address, entry & ~ACCESSED)))
    assert not found.mappings
    assert [change.kind for change in found.windows] == ["changed"], "the window's entry is shown"


def test_a_range_limits_the_mappings(one: Sample) -> None:
    held = next(iter(one.windows("temporary")))
    after = changed(one, entry_at(one, held.address, 0))
    assert diff_images(one.kernel, after, 0, 0xFF000000).mappings == ()
    assert len(diff_images(one.kernel, after, held.address, held.address + 1).mappings) == 1


def test_images_of_different_kernels_are_not_compared() -> None:
    with pytest.raises(UsageError, match="different kernels"):
        diff_images(sample(SAMPLES[0]).kernel, sample(SAMPLES[1]).kernel)
