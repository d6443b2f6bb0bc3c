"""The map of an address space, as text and as plain values."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from highmem.kernel.fixmap import GEOMETRIES
from highmem.kernel.layout import Layout
from highmem.report.layout import layout_document, render_layout

LAYOUT = Layout.of(GEOMETRIES["5.10"], windows_per_cpu=20, nr_cpus=32, pae=False, ram=2 << 30)


def text(layout: Layout = LAYOUT, *, width: int = 200, entries: bool = False) -> str:
    out = io.StringIO()
    render_layout(layout, "a title [not markup]", Console(file=out, width=width), entries=entries)
    return out.getvalue()


def test_text_has_the_title_as_it_is() -> None:
    assert text().splitlines()[0] == "a title [not markup]"


# linux-facts.md 9.3, first column; "to" is the last address.
@pytest.mark.parametrize(
    ("start", "last", "name"),
    [
        ("0xffd3c000", "0xfffbbfff", "temporary windows"),
        ("0xfec00000", "0xfeffffff", "permanent (pkmap)"),
        ("0xf73fe000", "0xfebfdfff", "vmalloc"),
        ("0xc0000000", "0xf6bfdfff", "low memory"),
    ],
)
def test_text_map_rows(start: str, last: str, name: str) -> None:
    rows = [line for line in text().splitlines() if line.startswith(f"{start}  {last}")]
    assert len(rows) == 1
    assert name in rows[0]


def test_text_map_goes_down() -> None:
    starts = [int(line[:10], 16) for line in text().splitlines() if line.startswith("0x")]
    assert starts == [row.start for row in LAYOUT.regions()]
    assert starts == sorted(starts, reverse=True)


def test_text_explains_each_constant() -> None:
    rows = [" ".join(line.split()) for line in text().splitlines()]
    assert "PKMAP_BASE 0xfec00000 (LDT_BASE_ADDR - 4096) & PMD_MASK" in rows
    assert "max_low_pfn 0x36bfe max_pfn, at most MAXMEM >> 12" in rows
    assert "LAST_PKMAP 1024 512 with PAE, else 1024: one page table" in rows


def test_text_lists_the_enum_only_if_asked() -> None:
    assert "__end_of_fixed_addresses" not in text().split("Zones")[1]
    rows = [" ".join(line.split()) for line in text(entries=True).splitlines()]
    assert any(row.startswith("68 0xfffbb000 640 FIX_KMAP_BEGIN temporary") for row in rows)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_text_fits_the_terminal(width: int) -> None:
    assert max(len(line) for line in text(width=width, entries=True).splitlines()) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_addresses_and_names_are_whole_in_a_narrow_terminal(width: int) -> None:
    narrow = text(width=width)
    for row in LAYOUT.regions():
        assert f"{row.start:#010x}  {row.end - 1:#010x}" in narrow
        assert row.name in narrow


def test_sizes_are_exact_or_say_that_they_are_not() -> None:
    rows = {line[24:34].strip() for line in text().splitlines() if line.startswith("0x")}
    assert {"4 KiB", "2560 KiB", "120 MiB", "~876.0 MiB", "3 GiB"} <= rows


def test_text_of_little_ram_says_there_is_no_high_memory() -> None:
    small = Layout.of(GEOMETRIES["6.1"], windows_per_cpu=16, nr_cpus=1, pae=True, ram=512 << 20)
    assert "PAE page tables, NR_CPUS 1, 16 windows per CPU; RAM 512 MiB" in text(small)
    assert "low memory 512 MiB, no high memory" in text(small)


def test_document_survives_json() -> None:
    document = layout_document(LAYOUT, "t", entries=True)
    assert json.loads(json.dumps(document)) == document
    assert document["title"] == "t"


def test_document_addresses_are_strings_and_ends_are_behind() -> None:
    rows = {row["name"]: row for row in layout_document(LAYOUT, "t")["regions"]}
    windows = rows["temporary windows"]
    assert (windows["start"], windows["end"]) == ("0xffd3c000", "0xfffbc000")
    assert windows["size"] == 640 * 4096
    assert rows["FIX_HOLE"]["end"] == "0x100000000"


def test_document_constants() -> None:
    constants = {row["name"]: row["value"] for row in layout_document(LAYOUT, "t")["constants"]}
    assert constants["PKMAP_BASE"] == "0xfec00000"
    assert constants["MAXMEM"] == 0x36BFE000
    assert constants["highstart_pfn"] == 0x36BFE


def test_document_has_the_enum_only_if_asked() -> None:
    assert "fixed_addresses" not in layout_document(LAYOUT, "t")
    entries = layout_document(LAYOUT, "t", entries=True)["fixed_addresses"]
    assert [row["index"] for row in entries] == [row.index for row in LAYOUT.fixed]
    kmap = next(row for row in entries if row["name"] == "FIX_KMAP_BEGIN")
    assert (kmap["address"], kmap["width"]) == ("0xfffbb000", 640)
