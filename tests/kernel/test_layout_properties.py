"""What must hold of every layout, whatever the configuration."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from highmem.kernel.fixmap import END_OF_FIXED, END_OF_PERMANENT, GEOMETRIES, Geometry
from highmem.kernel.layout import Layout
from highmem.kernel.layout_geometry import PAGE_OFFSETS

BOOLEANS = (
    "pvclock", "visws", "f00f", "cyclone", "ro_idt", "pcie_mcfg", "lnw_vrtc", "gdt_remap",
    "apei_ghes", "tboot", "io_apic", "local_apic",
)  # fmt: skip


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    preset = GEOMETRIES[draw(st.sampled_from(sorted(GEOMETRIES)))]
    return preset.but(
        page_offset=draw(st.sampled_from(sorted(PAGE_OFFSETS.values()))),
        ohci1394=draw(st.sampled_from(["none", "at-end", "after-permanent", "before-apic"])),
        reservetop_param=draw(st.sampled_from([None, 4096, 5 << 20, 64 << 20])),
        vmalloc_param=draw(st.sampled_from([None, 192 << 20, 256 << 20])),
        highmem_param=draw(st.sampled_from([None, 0, 64 << 20, 512 << 20])),
        **{name: draw(st.booleans()) for name in BOOLEANS},
    )


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    return Layout.of(
        draw(geometries()),
        windows_per_cpu=draw(st.sampled_from([13, 16, 19, 20, 27, 33, 39, 41])),
        # NR_CPUS=64 with fences still fits between vmalloc= and the smallest split.
        nr_cpus=draw(st.sampled_from([1, 2, 8, 32, 64])),
        pae=draw(st.booleans()),
        ram=draw(st.integers(1 << 20, 6 << 30)),
        highmem=draw(st.booleans()),
    )


@given(layouts())
def test_regions_cover_4g_from_top_to_bottom(layout: Layout) -> None:
    rows = layout.regions()
    assert rows[0].end == 1 << 32
    assert rows[-1].start == 0
    assert all(row.start < row.end for row in rows)
    assert all(upper.start == lower.end for upper, lower in pairwise(rows))


@given(layouts())
def test_regions_say_what_the_predicates_say(layout: Layout) -> None:
    predicates = {
        "temporary windows": layout.is_window,
        "permanent (pkmap)": layout.is_pkmap,
        "low memory": layout.is_lowmem,
    }
    for row in layout.regions():
        for address in (row.start, row.end - 1):
            said = [name for name, holds in predicates.items() if holds(address)]
            assert said == ([row.name] if row.name in predicates else [])


@given(layouts())
def test_areas_are_aligned_to_page_tables(layout: Layout) -> None:
    for base in (layout.CPU_ENTRY_AREA_BASE, layout.LDT_BASE_ADDR, layout.PKMAP_BASE):
        assert base is None or base % layout.PMD_SIZE == 0
    assert layout.pkmap_address(layout.LAST_PKMAP) == layout.PKMAP_BASE + layout.PMD_SIZE


@given(layouts(), st.data())
def test_fix_to_virt_and_back(layout: Layout, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, layout.fixed[-1].index))
    inside = data.draw(st.integers(0, 4095))
    assert layout.virt_to_fix(layout.fix_to_virt(index) + inside) == index


@given(layouts(), st.data())
def test_window_addresses_and_back(layout: Layout, data: st.DataObject) -> None:
    if layout.FIX_KMAP_END < layout.FIX_KMAP_BEGIN:
        return
    cpu = data.draw(st.integers(0, layout.nr_cpus - 1))
    slot = data.draw(st.integers(0, layout.windows_per_cpu - 1))
    inside = data.draw(st.integers(0, 4095))
    address = layout.window_address(cpu, slot)
    # The rule of section 1, written out.
    index = layout.FIX_KMAP_BEGIN + slot + layout.windows_per_cpu * cpu
    assert address == layout.FIXADDR_TOP - index * 4096
    assert layout.window_of(address + inside) == (cpu, slot)
    assert layout.is_window(address + inside)


@given(layouts())
def test_window_addresses_are_unique_and_descend(layout: Layout) -> None:
    addresses = [
        layout.window_address(cpu, slot)
        for cpu in range(layout.nr_cpus)
        for slot in range(layout.windows_per_cpu)
    ]
    assert all(upper - lower == 4096 for upper, lower in pairwise(addresses))
    if layout.FIX_KMAP_END >= layout.FIX_KMAP_BEGIN:
        assert addresses[-1] == layout.fix_to_virt(layout.FIX_KMAP_END)
        assert layout.window_of(addresses[0] + 4096) is None
        assert layout.window_of(addresses[-1] - 1) is None


@given(layouts(), st.integers(0, 1023), st.integers(0, 4095))
def test_pkmap_addresses_and_back(layout: Layout, nr: int, inside: int) -> None:
    address = layout.pkmap_address(nr) + inside
    assert layout.pkmap_nr(address) == nr
    assert layout.is_pkmap(address) == (layout.highmem and nr < layout.LAST_PKMAP)


@given(layouts())
def test_enum_is_dense_but_for_the_rounded_boot_time_part(layout: Layout) -> None:
    if layout.geometry.ohci1394 == "after-permanent":
        return  # stands in the gap, and in those kernels could even overlap the boot-time part
    rows = layout.fixed
    index = {row.name: row.index for row in rows}
    owned = [row.index + page for row in rows for page in range(row.width)]
    assert len(owned) == len(set(owned))
    permanent, boot = index[END_OF_PERMANENT], index["FIX_BTMAP_END"]
    assert {n for n in owned if n < permanent} == set(range(permanent))
    assert {n for n in owned if n >= permanent} == set(range(boot, index[END_OF_FIXED]))
    assert permanent <= boot


@given(layouts())
def test_boot_time_mappings_share_one_page_table(layout: Layout) -> None:
    if layout.geometry.btmap_rule == "at-end-16":
        return  # the rounding came with 2.6.25
    index = {row.name: row.index for row in layout.fixed}
    table = 512 if layout.pae else 1024
    assert index["FIX_BTMAP_END"] // table == index["FIX_BTMAP_BEGIN"] // table


@given(layouts())
def test_memory_is_split_in_order(layout: Layout) -> None:
    assert 0 < layout.max_low_pfn <= layout.highstart_pfn <= layout.highend_pfn == layout.max_pfn
    assert layout.max_low_pfn << 12 <= layout.MAXMEM
    assert layout.zones[0].start_pfn == 0
    assert all(low.end_pfn == high.start_pfn for low, high in pairwise(layout.zones))
    assert layout.zones[-1].end_pfn == layout.max_pfn
    assert layout.high_memory < layout.VMALLOC_START <= layout.VMALLOC_END


@given(layouts(), st.data())
def test_direct_mapping_and_back(layout: Layout, data: st.DataObject) -> None:
    paddr = data.draw(st.integers(0, (layout.max_low_pfn << 12) - 1))
    assert layout.pa(layout.va(paddr)) == paddr
    assert layout.is_lowmem(layout.va(paddr))
    assert not layout.is_lowmem(layout.va(layout.max_low_pfn << 12))


@given(layouts())
def test_terms_say_what_the_attributes_say(layout: Layout) -> None:
    for term in layout.terms():
        names = {"windows per CPU": "windows_per_cpu", "__VMALLOC_RESERVE": "VMALLOC_RESERVE"}
        assert term.value == getattr(layout, names.get(term.name, term.name))
