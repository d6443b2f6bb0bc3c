from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from highmem.errors import InputError
from highmem.image.formats.opening import open_source
from highmem.image.formats.source import ImageSource
from support.image_reading import check_source, content, short_id
from support.image_writers import Kdump, elf_core, flattened, lime

PAGES = {number: random.Random(number).randbytes(4096) for number in range(20)}
DUMP = Kdump(PAGES, packing="none").build()
BIG = struct.Struct(">qq")
TOP = 2**63 - 1


def opened(tmp_path: Path, data: bytes) -> ImageSource:
    path = tmp_path / "flat"
    path.write_bytes(data)
    return open_source([str(path)])


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("piece", [100, 4096, 5000, 10_000_000])
def test_pieces_are_put_together(tmp_path: Path, piece: int, backwards: bool) -> None:
    source = opened(tmp_path, flattened(DUMP, piece=piece, backwards=backwards))
    assert source.format == "kdump (not compressed), flattened"
    assert content(source) == {0: b"".join(PAGES.values())}
    assert source.notes == () and not source.damaged
    check_source(source)


def test_a_flattened_core_is_a_core(tmp_path: Path) -> None:
    source = opened(tmp_path, flattened(elf_core((0, PAGES[3]), (0x8000, PAGES[4]))))
    assert source.format == "ELF32 core, flattened"
    assert content(source) == {0: PAGES[3], 0x8000: PAGES[4]}


def test_a_later_piece_overwrites_an_earlier_one(tmp_path: Path) -> None:
    # makedumpfile writes the header twice: once it is known how much was written.
    again = flattened(DUMP, end=False) + BIG.pack(DUMP.index(PAGES[5]), 4096) + PAGES[6]
    source = opened(tmp_path, again + BIG.pack(-1, -1))
    assert source.read(5 * 4096, 4096) == PAGES[6]


def test_what_follows_the_end_mark_is_nothing(tmp_path: Path) -> None:
    source = opened(tmp_path, flattened(DUMP) + BIG.pack(0, 4096) + PAGES[1])
    assert content(source) == {0: b"".join(PAGES.values())}


@pytest.mark.parametrize(
    ("tail", "cause"),
    [
        (b"", "it ends without its end mark"),
        (b"\0" * 15, "it ends without its end mark"),
        (BIG.pack(60_000, 100) + b"x" * 99, "the piece at offset 0x199b1 is cut off"),
        (BIG.pack(1 << 20, TOP), "the piece at offset 0x199b1 makes no sense"),
        (BIG.pack(TOP, 1) + b"x", "the piece at offset 0x199b1 makes no sense"),
        (BIG.pack(1 << 44, 1) + b"x", "the piece at offset 0x199b1 makes no sense"),
        (BIG.pack(0, 0), "the piece at offset 0x199b1 makes no sense"),
        (BIG.pack(0, -1), "the piece at offset 0x199b1 makes no sense"),
        (BIG.pack(-2, 1), "the piece at offset 0x199b1 makes no sense"),
    ],
    ids=short_id,
)
def test_damage_ends_the_putting_together(tmp_path: Path, tail: bytes, cause: str) -> None:
    whole = flattened(DUMP, end=False)
    data = whole + tail
    source = opened(tmp_path, data)
    expected = cause.replace("0x199b1", hex(len(whole)))
    assert source.notes == (f"flattened: {expected}: what follows is left out",)
    assert source.damaged
    assert source.read(4096, 4096) == PAGES[1]


def test_a_flattened_file_that_was_cut_keeps_its_first_pages(tmp_path: Path) -> None:
    source = opened(tmp_path, flattened(DUMP)[:-30_000])
    held = source.ranges[-1].end
    assert 11 * 4096 <= held < 14 * 4096
    assert content(source) == {0: b"".join(PAGES.values())[:held]}
    assert [note.partition(":")[0] for note in source.notes] == [
        "flattened",
        f"{20 - held // 4096} of 20 pages are beyond the end of the file",
    ]


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"makedumpfile\0\0\0\0" + BIG.pack(2, 1) + bytes(5000), "type 2 and version 1 are not"),
        (b"makedumpfile\0\0\0\0" + BIG.pack(1, 9) + bytes(5000), "type 1 and version 9 are not"),
        (b"makedumpfile\0\0\0\0", "type 0 and version 0 are not known"),
        (flattened(b""), "empty: there is nothing in it"),
        (flattened(flattened(DUMP)), "flattened twice"),
    ],
    ids=short_id,
)
def test_what_cannot_be_put_together_is_refused(tmp_path: Path, data: bytes, cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        opened(tmp_path, data)


def test_a_far_piece_takes_no_room(tmp_path: Path) -> None:
    far = flattened(lime((0, PAGES[1])), end=False) + BIG.pack((1 << 40) - 4, 4) + b"last"
    source = opened(tmp_path, far + BIG.pack(-1, -1))
    assert source.read(0, 4096) == PAGES[1]
    assert "no header where one must be" in source.notes[0]
