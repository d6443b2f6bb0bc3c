from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from highmem.errors import BusError, InputError
from highmem.image.formats.opening import open_source
from highmem.image.formats.source import ImageSource, iter_chunks
from support.image_reading import check_source, content, spans
from support.image_writers import FLAGS, PAGE, Kdump, note, prstatus, qemu_state

RANDOM = random.Random(4)
TEXT = b"the page of which nothing is known " * 200


def page(seed: int) -> bytes:
    return (b"%08d" % seed + RANDOM.randbytes(40) + TEXT)[:PAGE]


PAGES = {number: page(number) for number in (0, 1, 2, 7, 8, 40, 4095, 70_000)} | {3: bytes(PAGE)}

packings = pytest.mark.parametrize("packing", sorted(FLAGS))
both_layouts = pytest.mark.parametrize("bits", [32, 64])


def opened(tmp_path: Path, dump: Kdump | bytes) -> ImageSource:
    path = tmp_path / "dump"
    path.write_bytes(dump if isinstance(dump, bytes) else dump.build())
    return open_source([str(path)])


@packings
@both_layouts
def test_pages_of_every_packing_are_what_was_packed(
    tmp_path: Path, packing: str, bits: int
) -> None:
    source = opened(tmp_path, Kdump(PAGES, packing=packing, bits=bits))
    assert source.format == f"kdump ({packing if packing != 'none' else 'not compressed'})"
    assert spans(source) == [
        (0, 4 * PAGE),
        (7 * PAGE, 9 * PAGE),
        (40 * PAGE, 41 * PAGE),
        (4095 * PAGE, 4096 * PAGE),
        (70_000 * PAGE, 70_001 * PAGE),
    ]  # table
    frames = source.pages([70_000, 2, 5, 3, 2])
    assert [row.tobytes() for row in frames] == [
        PAGES[70_000],
        PAGES[2],
        bytes(PAGE),
        bytes(PAGE),
        PAGES[2],
    ]  # table
    assert source.read(PAGE - 3, PAGE + 6) == PAGES[0][-3:] + PAGES[1] + PAGES[2][:3]
    assert source.notes == () and not source.damaged
    check_source(source)


@pytest.mark.parametrize("version", range(7))
@both_layouts
def test_every_version_of_the_header_is_read(tmp_path: Path, version: int, bits: int) -> None:
    text, notes = b"OSRELEASE=5.10\nPAGESIZE=4096\n", prstatus(77)
    dump = Kdump(PAGES, version=version, bits=bits, vmcoreinfo=text, notes=notes)
    source = opened(tmp_path, dump)
    assert source.read(40 * PAGE, PAGE) == PAGES[40]
    claims = source.claims
    assert claims.dump_level == (1 if version >= 1 else None)
    assert (claims.vmcoreinfo or {}).get("OSRELEASE") == ("5.10" if version >= 3 else None)
    assert [cpu.pid for cpu in claims.cpus] == ([77] if version >= 4 else [])


def test_a_kernels_own_dump_says_who_panicked(tmp_path: Path) -> None:
    claims = opened(tmp_path, Kdump(PAGES, release=b"6.1.0-50-686-pae")).claims
    assert (claims.machine, claims.release) == ("i386", "6.1.0-50-686-pae")
    assert (claims.kernel_version, claims.panic_cpu) == ("#1 SMP", 1)


def test_qemus_dump_gives_cr3_and_does_not_know_who_panicked(tmp_path: Path) -> None:
    notes = qemu_state(0x80000011, 0, 0x12345000, 0x20) + note(b"VMCOREINFO", 0, b"A=1\n")
    claims = opened(tmp_path, Kdump(PAGES, notes=notes)).claims
    assert (claims.release, claims.panic_cpu) == (None, None)
    assert claims.cpus[0].cr3 == 0x12345000
    assert claims.vmcoreinfo == {"A": "1"}


def test_a_dump_of_16_mib_can_look_like_both_layouts(tmp_path: Path) -> None:
    # max_mapnr of the one is at block_size of the other, and 16 MiB have 4096 frames.
    pages = dict.fromkeys(range(0, 4096, 5), PAGES[7]) | {4095: PAGES[1]}
    # And where the one has the sub header and the bitmaps, the other counts blocks.
    for header in ({}, {"total_ram_blocks": 1, "device_blocks": 2}):
        for bits, machine in ((32, b"i686"), (64, b"x86_64")):
            dump = Kdump(pages, bits=bits, machine=machine, header=header)
            source = opened(tmp_path, dump)
            assert source.read(4095 * PAGE, PAGE) == PAGES[1]
            assert source.claims.machine == ("i386" if bits == 32 else "x86_64")


def test_frames_that_were_left_out_are_ram_all_the_same(tmp_path: Path) -> None:
    source = opened(tmp_path, Kdump({5: page(5)}, ram=[*range(3, 12)]))
    assert spans(source) == [(5 * PAGE, 6 * PAGE)]
    assert [tuple(piece) for piece in source.ram] == [(3 * PAGE, 12 * PAGE)]
    assert source.present([4, 5, 6]).tolist() == [False, True, False]
    check_source(source)


@pytest.mark.parametrize(
    ("paddr", "size", "missing"),
    [
        (4 * PAGE - 1, 2, 4 * PAGE),
        (4 * PAGE + 5, 1, 4 * PAGE + 5),
        (8 * PAGE, 1 << 60, 9 * PAGE),
        (-1, 1, -1),
        (-1, 2, -1),
        (1 << 70, 1, 1 << 70),
    ],
)
def test_the_first_byte_that_is_missing_is_named(
    tmp_path: Path, paddr: int, size: int, missing: int
) -> None:
    source = opened(tmp_path, Kdump(PAGES))
    with pytest.raises(BusError, match=f"physical address {missing:#x} is not in the image"):
        source.read(paddr, size)


def test_one_bitmap_is_enough(tmp_path: Path) -> None:
    source = opened(tmp_path, Kdump(PAGES, version=1, bitmaps=1, ram=[100]))
    assert source.ram == source.ranges
    assert source.read(70_000 * PAGE, PAGE) == PAGES[70_000]


@pytest.mark.parametrize("version", [2, 5, 6])
def test_a_part_of_a_split_dump_has_its_own_frames(tmp_path: Path, version: int) -> None:
    source = opened(tmp_path, Kdump(PAGES, split=(2, 41), version=version))
    assert spans(source) == [(2 * PAGE, 4 * PAGE), (7 * PAGE, 9 * PAGE), (40 * PAGE, 41 * PAGE)]
    assert [source.read(n * PAGE, PAGE) for n in (2, 7, 40)] == [PAGES[2], PAGES[7], PAGES[40]]
    assert source.notes == ("one part of a split dump: frames 0x2 to 0x29",)


def test_chunks_of_scattered_frames_come_in_order(tmp_path: Path) -> None:
    pages = {number: page(number) for number in range(0, 600, 3)}
    source = opened(tmp_path, Kdump(pages))
    found = {at // PAGE: chunk.tobytes() for at, chunk in iter_chunks(source, 8 * PAGE)}
    assert found == pages and list(found) == sorted(pages)


def test_more_pages_than_are_kept_read_the_same_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("highmem.image.formats.kdump._KEPT", 3)
    source = opened(tmp_path, Kdump(PAGES))
    for _ in range(2):
        assert source.pages(list(PAGES)).tobytes() == b"".join(PAGES.values())
        assert source.read(0, 4 * PAGE) == b"".join(PAGES[n] for n in range(4))


# -- damage ---------------------------------------------------------------------------

ZSTD = zstandard.ZstdCompressor()
BOMB = bytes(1 << 24)


def stretched(data: bytes) -> bytes:
    """A zstd frame that does not say how much is in it."""
    writer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return writer.compress(data) + writer.flush()


@pytest.mark.parametrize(
    ("packed", "flags"),
    [
        pytest.param(zlib.compress(BOMB)[:8000], FLAGS["zlib"], id="zlib bomb"),
        pytest.param(ZSTD.compress(BOMB), FLAGS["zstd"], id="zstd bomb"),
        pytest.param(stretched(BOMB), FLAGS["zstd"], id="zstd bomb of unknown size"),
        pytest.param(b"\xff\xff\xff\x7f" + b"\xfe\x01\x00" * 99, FLAGS["snappy"], id="snappy bomb"),
        pytest.param(b"\x20" + bytes(5000) + b"\1", FLAGS["lzo"], id="lzo bomb"),
        *(
            pytest.param(data, FLAGS[name], id=f"{name} {what}")
            for name, pack in (("zlib", zlib.compress), ("zstd", ZSTD.compress))
            for what, data in (
                ("short page", pack(TEXT[:4095])),
                ("long page", pack(TEXT[:4097])),
                ("cut off", pack(page(1))[:-5]),
                ("garbage", b"garbage"),
            )
        ),
        pytest.param(TEXT[:4095], 0, id="short page as it is"),
        pytest.param(TEXT[:4097], 0, id="long page as it is"),
        pytest.param(zlib.compress(page(1)), 3, id="two packings at once"),
        pytest.param(zlib.compress(page(1)), FLAGS["lzo"], id="another packing"),
    ],
)
def test_a_page_that_does_not_unpack_is_not_there(
    tmp_path: Path, packed: bytes, flags: int
) -> None:
    source = opened(tmp_path, Kdump(PAGES, packed={2: (packed, flags), 41: (packed, flags)}))
    assert not source.pages([2]).any()
    assert source.damaged and source.notes == ("1 page cannot be unpacked: not there",)
    with pytest.raises(BusError, match="0x29000 is not in the image: its page is damaged"):
        source.read(40 * PAGE, 2 * PAGE)
    assert source.notes == ("2 pages cannot be unpacked: not there",)
    assert source.read(40 * PAGE, PAGE) == PAGES[40]
    assert source.pages([1, 2, 3]).tobytes() == PAGES[1] + bytes(2 * PAGE)


@pytest.mark.parametrize(
    ("at", "size"),
    [
        (2**64 - 1, 100),
        (2**63, 100),
        (2**62, 100),
        (0, 0),
        (0, 2**32 - 1),
        (0, 8193),
        (2**64 - 4096, 4096),
    ],
)
def test_a_wild_descriptor_is_one_page_less(tmp_path: Path, at: int, size: int) -> None:
    def change(entries: list[list[int]]) -> None:
        entries[1][:2] = at, size

    for flags in (1, 0):

        def set_flags(entries: list[list[int]], flags: int = flags) -> None:
            change(entries)
            entries[1][2] = flags

        source = opened(tmp_path, Kdump(PAGES, descriptors=set_flags))
        assert source.pages([0, 1, 2]).tobytes() == PAGES[0] + bytes(PAGE) + PAGES[2]
        assert source.notes[-1:] == ("1 page cannot be unpacked: not there",) or source.notes == (
            "1 of 9 pages are beyond the end of the file: left out",
        )
        check_source(source)


def test_a_truncated_dump_keeps_the_pages_that_are_there(tmp_path: Path) -> None:
    whole = Kdump(PAGES, packing="none").build()
    source = opened(tmp_path, whole[: -PAGE - 100])
    # Pages lie in the order of their frames: 70000 is missing, 4095 cut off.
    assert spans(source)[-1] == (40 * PAGE, 41 * PAGE)
    assert source.notes == ("2 of 9 pages are beyond the end of the file: left out",)
    assert source.damaged and not source.present([4095, 70_000]).any()
    assert content(source)[7 * PAGE] == PAGES[7] + PAGES[8]
    check_source(source)


def test_a_dump_that_ends_within_its_descriptors_holds_nothing_readable(tmp_path: Path) -> None:
    whole = Kdump(PAGES).build()
    table = whole.index(struct.pack("<QI", whole.index(zlib.compress(PAGES[0])), 0)[:8])
    with pytest.raises(InputError, match=r"kdump without any memory; 9 of 9 pages are beyond the"):
        opened(tmp_path, whole[: table + 100])


def test_a_dump_marked_incomplete_says_so(tmp_path: Path) -> None:
    source = opened(tmp_path, Kdump(PAGES, status=8 | 1))
    assert source.damaged
    assert source.notes == ("marked as incomplete: there was no room to write all of it",)


def test_a_bitmap_that_lies_claims_pages_beyond_the_descriptors(tmp_path: Path) -> None:
    dump = Kdump(PAGES)
    data = bytearray(dump.build())
    second = PAGE * (1 + 1 + 3)  # header, sub header, the first bitmap of 70001 frames
    data[second + 2000 : second + 3000] = b"\xff" * 1000
    source = opened(tmp_path, bytes(data))
    # 8000 frames too many shift all behind them; what is not a page there, is not there.
    assert source.read(40 * PAGE, PAGE) == PAGES[40]
    assert source.damaged and source.notes[0].endswith("are beyond the end of the file: left out")
    check_source(source)


def absurd(**changes: Any) -> Callable[[], bytes]:
    return Kdump(PAGES, **changes).build


@pytest.mark.parametrize(
    ("build", "cause"),
    [
        (absurd(version=65), "a header of version 0x41 is not known"),
        (absurd(version=-1), "a header of version -0x1 is not known"),
        (absurd(header={"block_size": 65536}), "blocks of 65536 bytes; only 4096 are known"),
        (absurd(header={"block_size": 0}), "blocks of 0 bytes"),
        (absurd(header={"sub_hdr_size": 0}), "a sub header of 0 blocks"),
        (absurd(header={"sub_hdr_size": 2**31 - 1}), "a sub header of 2147483647 blocks"),
        (absurd(header={"sub_hdr_size": -1}), "a sub header of -1 blocks"),
        (absurd(header={"bitmap_blocks": 0}), "bitmaps of 0 blocks"),
        (absurd(header={"bitmap_blocks": 2**32 - 1}), "bitmaps of 4294967295 blocks in a file"),
        (absurd(header={"bitmap_blocks": 1}), "bitmaps of 1 blocks cannot be of 70001 frames"),
        (absurd(header={"max_mapnr": 2**32 - 1}, version=5), "cannot be of 4294967295 frames"),
        (absurd(sub={"max_mapnr_64": 2**64 - 1}), "cannot be of 18446744073709551615 frames"),
        (absurd(split=(2**64 - 1, 2**64 - 1)), "kdump without any memory"),
        (absurd(split=(41, 41)), "kdump without any memory; one part of a split dump"),
        (lambda: Kdump({}, max_mapnr=100).build(), "kdump without any memory"),
        (lambda: Kdump(PAGES).build()[:400], "cut off within its header"),
        (lambda: Kdump(PAGES).build()[:9000], "its header makes no sense"),
    ],
)
def test_headers_that_make_no_sense_are_refused(
    tmp_path: Path, build: Callable[[], bytes], cause: str
) -> None:
    with pytest.raises(InputError, match=cause):
        opened(tmp_path, build())


def test_wild_places_of_notes_and_vmcoreinfo_are_harmless(tmp_path: Path) -> None:
    wild = {
        "offset_note": 2**64 - 1,
        "size_note": 2**32 - 1,
        "offset_vmcoreinfo": 2**63,
        "size_vmcoreinfo": 2**32 - 1,
    }  # table
    claims = opened(tmp_path, Kdump(PAGES, sub=wild)).claims
    assert claims.cpus == () and claims.vmcoreinfo is None


def test_pages_that_alternate_a_million_times_are_too_many_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("highmem.image.formats.kdump.MAX_SEGMENTS", 100)
    shared = dict.fromkeys(range(0, 202, 2), PAGES[1])
    with pytest.raises(InputError, match="more than 100 separate ranges"):
        opened(tmp_path, Kdump(shared))
    assert len(opened(tmp_path, Kdump(dict(list(shared.items())[1:]))).ranges) == 100
