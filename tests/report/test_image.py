"""Images as text where something is missing, strange or wrong; the plain cases are in tests/cli."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from highmem.image.find.candidates import collect_roots
from highmem.image.find.known import read_known
from highmem.image.maps import map_rows
from highmem.image.view import ImageKernel
from highmem.image.vtop import translate
from highmem.image.windows import read_windows
from highmem.report.image import render_info, render_windows
from highmem.report.image_lines import size_text, write_map, write_vtop
from support.image_memory import FrameSource
from support.image_samples import Sample, changed, entry_at, sample, word_at


@pytest.fixture(scope="module")
def one() -> Sample:
    return sample("linux-6.1-686-pae")


def info(kernel: ImageKernel) -> str:
    stream = io.StringIO()
    render_info(kernel, Console(file=stream, width=160))
    return stream.getvalue()


def windows(kernel: ImageKernel) -> str:
    stream = io.StringIO()
    render_windows(kernel, read_windows(kernel), Console(file=stream, width=160))
    return stream.getvalue()


def tables_only(one: Sample, *, lost: int = 0) -> ImageKernel:
    """A kernel of which only page tables are left, and *lost* of these are not."""
    frames = {}
    for address in one.kernel.mappings.address.tolist():
        for step in one.kernel.walk(address).steps:
            assert step.address is not None
            frames[step.address >> 12] = one.kernel.source.read(step.address & ~0xFFF, 4096)
    held = next(iter(one.windows("permanent")))
    for _ in range(lost):
        del frames[(one.kernel.walk(held.address).leaf.address or 0) >> 12]
    source = FrameSource(frames)
    return ImageKernel(source, read_known(source, collect_roots(source, {}), ("", {})))


def test_what_is_not_known_is_said(one: Sample) -> None:
    kernel = tables_only(one)
    text = info(kernel)
    for words in (
        "no banner found", "a guess: no banner found; give --profile", "none found",
        "mem_map not known", "pkmap_count not known", "nothing mapped for user space",
    ):  # fmt: skip
        assert words in text, words
    text = windows(kernel)
    assert "pkmap_count not known, last_pkmap_nr not known" in text
    assert "not known: who runs on the CPUs" in text
    line = next(line for line in text.splitlines() if "0xfffab000" in line)
    assert line.rstrip().endswith("not known")
    held = next(iter(one.windows("permanent")))
    assert next(line for line in text.splitlines() if f"{held.address:#x}" in line).endswith("?")


def test_missing_tables_are_counted(one: Sample) -> None:
    kernel = tables_only(one, lost=1)
    missing = len(kernel.mappings.missing)
    assert missing > 1  # that one, and those of which every entry was empty
    assert f"{missing} tables not in the image" in info(kernel)
    stream = io.StringIO()
    write_map(kernel, map_rows(kernel), stream)
    assert f"{missing} tables not in the image: what is mapped there" in stream.getvalue()
    held = next(iter(one.windows("permanent")))
    stream = io.StringIO()
    write_vtop(kernel, [translate(kernel, held.address)], stream)
    assert "not mapped: physical address" in stream.getvalue()


def test_reserved_bits_are_counted(one: Sample) -> None:
    held = next(iter(one.windows("temporary")))
    kernel = changed(one, entry_at(one, held.address, one.kernel.entry_at(held.address) | 1 << 55))
    assert "1 entry with reserved bits" in info(kernel)
    stream = io.StringIO()
    write_vtop(kernel, [translate(kernel, held.address)], stream)
    assert "page table: reserved bits set" in stream.getvalue()


def test_cpus_that_are_off_and_calls_in_progress(one: Sample) -> None:
    online = one.kernel.symbol("__cpu_online_mask")
    assert online is not None
    layout = one.kernel.layout
    text = windows(
        changed(
            one,
            word_at(one, online, 1) | entry_at(one, layout.window_address(1, 3), 0),
        )
    )
    assert "not online" in text
    assert "slot 3 counted but empty: a call in progress" in text
    assert text.count("error: stale-window") == 3
    assert "3 temporary windows open, 3 permanent mapped; 3 findings" in text


def test_no_windows_at_all(one: Sample) -> None:
    patches: dict[int, bytes] = {}
    for window in one.windows("temporary") | one.windows("permanent"):
        patches |= entry_at(one, window.address, 0)
    assert one.kernel.pkmap_count_at is not None
    for nr in range(8):
        patches |= word_at(one, one.kernel.pkmap_count_at + 4 * nr, 0)
    text = windows(changed(one, patches))
    assert "No temporary window is open." in text
    assert "No permanent window is mapped (pkmap_count at " in text


def test_many_findings_are_cut(one: Sample) -> None:
    patches: dict[int, bytes] = {}
    for cpu in range(2, 6):
        for slot in range(16):
            entry = (0xA000 + 16 * cpu + slot) << 12 | one.kernel.kmap_prot
            patches |= entry_at(one, one.kernel.layout.window_address(cpu, slot), entry)
    text = windows(changed(one, patches))
    assert "… and 24 more findings; --format json has all" in text
    assert text.count("error: stale-window") == 40


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (4096, "4 KiB"),
        (6 << 20, "6 MiB"),
        (1 << 30, "1 GiB"),
        (1025, "1025 B"),
    ],
)
def test_sizes_are_exact(count: int, text: str) -> None:
    assert size_text(count) == text
