from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import pytest

from highmem.errors import BusError, InputError, UsageError
from highmem.image import open_image, open_source
from highmem.image.find.candidates import collect_roots
from highmem.image.find.known import UnmappedError, read_known
from highmem.image.find.roots import kernel_text
from highmem.image.find.symbols import load_symbols
from highmem.image.formats.source import Claims, CpuState
from highmem.image.tables import MAY_WRITE
from highmem.image.view import ImageKernel
from highmem.machine.entry import RW
from support.image_memory import FrameSource, Overlay
from support.image_samples import SAMPLES, Sample, sample

MAGIC = 0x57696E64
"""windows.ko writes this plus the slot's number into each window."""


@pytest.fixture(params=SAMPLES)
def one(request: pytest.FixtureRequest) -> Sample:
    return sample(request.param)


def test_reading_goes_through_the_page_tables(one: Sample) -> None:
    kernel = one.kernel
    banner = kernel.known.banner
    assert banner is not None
    assert kernel.read(banner.address, len(banner.text)).decode() == banner.text
    assert kernel.read8(banner.address) == ord("L")
    assert kernel.read32(banner.address) == int.from_bytes(b"Linu", "little")
    assert kernel.read(banner.address, 0) == b""


def test_reading_over_pages_joins_their_frames(one: Sample) -> None:
    kernel = one.kernel
    assert kernel.known.rodata is not None
    chunk, base = kernel.known.rodata
    etext = kernel.symbol("_etext")
    assert etext is not None
    start = (etext & ~0xFFF) + 0x1FF0  # in the read-only data, which the sample holds
    whole = kernel.read(start, 0x3020)
    assert whole == chunk[start - base : start - base + 0x3020].tobytes()
    parts = [kernel.read(start + at, 0x10) for at in range(0, 0x3020, 0x10)]
    assert b"".join(parts) == whole


def test_what_is_not_mapped_and_what_is_not_in_the_image_differ(one: Sample) -> None:
    kernel = one.kernel
    with pytest.raises(UnmappedError, match="0x00000010 is not mapped"):
        kernel.read(0x10, 4)
    with pytest.raises(UnmappedError, match="0xfffff000"):
        kernel.read(0xFFFFF000, 1)  # FIX_HOLE
    with pytest.raises(UnmappedError):
        kernel.read(0xFFFFFFF0, 0x20)
    # The sample leaves out what is not needed: mapped, but without content.
    held = next(w for w in one.windows("temporary"))
    with pytest.raises(BusError, match=f"{held.pfn << 12:#x} is not in the image"):
        kernel.read(held.address, 4)


def test_a_page_has_an_address_if_it_is_low_or_kmapped(one: Sample) -> None:
    kernel = one.kernel
    for window in one.windows("permanent"):
        assert kernel.page_address(window.pfn) == window.address
        page = kernel.pfn_to_page(window.pfn)
        assert page is not None and kernel.page_address(page) == window.address
    for window in one.windows("temporary"):
        assert kernel.page_address(window.pfn) is None
    assert kernel.page_address(0x123) == 0xC0123000
    assert kernel.pfn_to_page(1 << 23) is None
    assert kernel.page_to_pfn((kernel.mem_map or 0) + 1) is None


def test_windows_and_low_memory_lead_to_their_pages(one: Sample) -> None:
    for window in one.windows("permanent") | one.windows("temporary"):
        page = one.kernel.kmap_to_page(window.address + 0x123)
        assert page is not None and (page.pfn, page.address) == (window.pfn, window.page)
    low = next(iter(one.windows("permanent"))).page  # a struct page lies in low memory itself
    page = one.kernel.kmap_to_page(low)
    held = page is None or page.pfn == (low - 0xC0000000) >> 12
    assert held
    layout = one.kernel.layout
    for address in (layout.VMALLOC_START, 0x1000, layout.window_address(0, 0)):
        assert one.kernel.kmap_to_page(address) is None


def test_entries_of_neighbouring_pages_over_several_tables(one: Sample) -> None:
    kernel = one.kernel
    start, count = kernel.layout.PKMAP_BASE - 3 * 4096, kernel.layout.LAST_PKMAP + 6
    entries = kernel.entries_from(start, count).tolist()
    assert entries == [kernel.entry_at(start + n * 4096) for n in range(count)]
    assert tuple(entries[3:-3]) == kernel.pkmap_entries


# What is given instead of found.


def test_cr3_can_be_given_and_shows_user_space(one: Sample) -> None:
    with open_image(one.path, cr3=one.cr3(0)) as kernel:
        assert kernel.root.what == "given"
        assert kernel.root.is_pae == one.kernel.root.is_pae
        assert kernel.root.evidence.user > 100
        assert len(kernel.mappings) > len(one.kernel.mappings)
        assert kernel.profile == one.kernel.profile


def test_a_cr3_without_a_direct_mapping_is_refused_unless_its_mode_is_given(one: Sample) -> None:
    with pytest.raises(UsageError, match="no direct mapping"):
        open_image(one.path, cr3=0x1000)
    with pytest.raises(UsageError, match="not a 32-bit address"):
        open_image(one.path, cr3=1 << 40)
    with open_image(one.path, cr3=0x1000, paging="pae") as kernel:
        assert kernel.root.is_pae
        assert len(kernel.mappings.missing) == 1


def test_a_profile_of_the_other_paging_mode_does_not_fit(one: Sample) -> None:
    other = "debian-6.1-686" if one.kernel.root.is_pae else "debian-6.1-686-pae"
    with pytest.raises(UsageError, match="does not fit"):
        open_image(one.path, profile=other)


def test_unknown_paging_is_refused(one: Sample) -> None:
    with pytest.raises(UsageError, match="no paging mode"):
        open_image(one.path, paging="5-level")


def test_a_file_without_a_kernel_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "zeros.raw"
    path.write_bytes(bytes(1 << 20))
    with pytest.raises(InputError, match="no page tables of a 32-bit Linux kernel"):
        open_image(str(path))


def test_without_notes_the_tables_are_found_by_their_structure(one: Sample) -> None:
    source = open_source([one.path])
    roots = collect_roots(source, {})
    assert roots[0].cr3 == one.kernel.root.cr3
    assert roots[0].what == "swapper_pg_dir"
    assert "nothing mapped for user space" in roots[0].reasons
    assert any("read-only part" in reason for reason in roots[0].reasons)
    source.close()


def test_only_the_wanted_mode_counts(one: Sample) -> None:
    wanted, other = ("pae", "32-bit") if one.kernel.root.is_pae else ("32-bit", "pae")
    assert collect_roots(one.kernel.source, one.kernel.known.vmcoreinfo, paging=wanted)
    with pytest.raises(InputError):
        collect_roots(one.kernel.source, one.kernel.known.vmcoreinfo, paging=other)


def test_a_note_that_lies_is_not_believed(one: Sample) -> None:
    lies = {"SYMBOL(swapper_pg_dir)": "c1234000"}
    roots = collect_roots(one.kernel.source, lies)
    assert roots[0].cr3 == one.kernel.root.cr3
    for broken in ({"SYMBOL(swapper_pg_dir)": "zz"}, {"SYMBOL(swapper_pg_dir)": "1" * 40}):
        assert collect_roots(one.kernel.source, broken)[0].cr3 == one.kernel.root.cr3


def test_claimed_registers_count_only_if_the_tables_bear_them_out(one: Sample) -> None:
    source = Overlay(one.kernel.source, {})
    states = (
        CpuState(0, "QEMU", cr3=0x5000, cr4=0x20),
        CpuState(1, "QEMU", cr3=one.cr3(0), cr4=0x20),
    )
    source.claims = dataclasses.replace(Claims(), cpus=states)
    found = {root.cr3 for root in collect_roots(source, one.kernel.known.vmcoreinfo)}
    assert one.cr3(0) in found and 0x5000 not in found


def test_a_kernel_that_protects_nothing_is_searched_where_kernels_lie() -> None:
    one = sample("linux-5.10-686")
    mappings = one.kernel.mappings
    patches = {}
    for address in mappings.address[(mappings.rights & MAY_WRITE) == 0].tolist():
        for step in one.kernel.walk(address).steps:
            assert step.address is not None
            patches[step.address] = (step.entry | RW).to_bytes(4, "little")
    source = Overlay(one.kernel.source, patches)
    source.claims = Claims()  # else the tables of CPU 0 would do, with entries of their own
    for note in ({}, dict(one.kernel.known.vmcoreinfo)):
        known = read_known(source, collect_roots(source, note), ("", note))
        assert kernel_text(known.roots[0].mappings, known.roots[0].evidence) is None
        assert known.banner is not None and known.banner == one.kernel.known.banner
        assert known.exports == one.kernel.known.exports
        assert known.kallsyms is not None
        assert known.kallsyms.names == one.kernel.known.kallsyms.names  # type: ignore[union-attr]


# Symbols from a file.


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "System.map"
    path.write_text(text)
    return str(path)


def test_a_system_map_is_moved_as_kaslr_moved_the_kernel(one: Sample, tmp_path: Path) -> None:
    lines = "".join(f"{address:08x} B {name}\n" for name, address in one.system_map().items())
    path = written(tmp_path, lines + "c1ffffff b nobody_else_knows\n")
    with open_image(one.path, symbols=path) as kernel:
        said = int(kernel.known.vmcoreinfo["SYMBOL(swapper_pg_dir)"], 16)
        moved = said - one.system_map()["swapper_pg_dir"]
        assert kernel.symbol("nobody_else_knows") == 0xC1FFFFFF + moved
        assert kernel.pkmap_count_at == one.kernel.pkmap_count_at
        assert ("moved by" in kernel.known.given_how) == bool(moved)


def test_symbols_of_another_kernel_are_refused(one: Sample, tmp_path: Path) -> None:
    table = one.system_map()
    table["mem_map"] += 0x40
    lines = "".join(f"{address:08x} B {name}\n" for name, address in table.items())
    with pytest.raises(InputError, match="belongs to another kernel"):
        open_image(one.path, symbols=written(tmp_path, lines))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ffffffffffffffff B The real System.map is in the -dbg package\n", "-dbg package"),
        ("00000000 T _text\n00000000 T kmap_high\n", "shows zeros"),
        ("", "no symbol"),
        ("\0\1\2", "no symbol"),
        ("\x7fELF" + "junk" * 20, "damaged|no 32-bit"),
    ],
)
def test_files_without_symbols_are_refused(
    one: Sample, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        open_image(one.path, symbols=written(tmp_path, text))


def small_elf(symbols: dict[str, int]) -> bytes:
    """An ELF32 file with nothing but a symbol table."""
    names = b"\0" + b"\0".join(name.encode() for name in symbols) + b"\0"
    table = bytes(16)
    for name, address in symbols.items():
        place = names.index(b"\0" + name.encode() + b"\0") + 1
        table += struct.pack("<IIIBBH", place, address, 0, 0x11, 0, 1)
    sections = b"\0.symtab\0.strtab\0.shstrtab\0"
    at = [52, 52 + len(table), 52 + len(table) + len(names)]
    headers = bytes(40)
    headers += struct.pack("<10I", 1, 2, 0, 0, at[0], len(table), 2, 1, 4, 16)
    headers += struct.pack("<10I", 9, 3, 0, 0, at[1], len(names), 0, 0, 1, 0)
    headers += struct.pack("<10I", 17, 3, 0, 0, at[2], len(sections), 0, 0, 1, 0)
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    start = at[2] + len(sections)
    fields = (2, 3, 1, 0, 0, start, 0, 52, 32, 0, 40, 4, 3)
    return ident + struct.pack("<HHIIIIIHHHHHH", *fields) + table + names + sections + headers


def test_a_vmlinux_gives_the_same_symbols_as_its_system_map(one: Sample, tmp_path: Path) -> None:
    pytest.importorskip("elftools", reason="pyelftools reads ELF files")
    path = tmp_path / "vmlinux"
    path.write_bytes(small_elf(one.system_map()))
    found = load_symbols(str(path))
    assert dict(found.addresses) == one.system_map()
    with open_image(one.path, symbols=str(path)) as kernel:
        assert kernel.symbol("pkmap_count") == one.kernel.pkmap_count_at
    for cut in (30, 60, len(path.read_bytes()) - 50):
        path.write_bytes(small_elf(one.system_map())[:cut])
        with pytest.raises(InputError):
            load_symbols(str(path))


def test_a_file_of_symbols_that_is_not_there(one: Sample, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        open_image(one.path, symbols=str(tmp_path / "missing"))


def test_an_image_with_only_page_tables_answers_what_it_can(one: Sample) -> None:
    from highmem.image.windows import read_windows

    tables = {}
    mappings = one.kernel.mappings
    # Every frame that the walk of some mapped address goes through, and nothing else.
    for address in mappings.address.tolist():
        for step in one.kernel.walk(address).steps:
            assert step.address is not None
            tables[step.address >> 12] = one.kernel.source.read(step.address & ~0xFFF, 4096)
    source = FrameSource(tables)
    kernel = ImageKernel(source, read_known(source, collect_roots(source, {}), ("", {})))
    assert kernel.root.cr3 == one.kernel.root.cr3
    assert "guess" in kernel.profile_how
    found = read_windows(kernel)
    assert found.pkmap_count_at is None and kernel.mem_map is None
    assert found.notes
    if kernel.profile.era is one.kernel.profile.era:
        expected = {(w.address, w.entry) for w in read_windows(one.kernel).temporary}
        assert {(w.address, w.entry) for w in found.temporary} == expected
