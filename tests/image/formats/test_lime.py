from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from highmem.errors import InputError
from highmem.image.formats.opening import open_source
from highmem.image.formats.source import ImageSource
from support.image_reading import check_source, content, short_id, spans
from support.image_writers import lime

RANDOM = random.Random(2).randbytes(1 << 16)
LOW, HIGH = RANDOM[:0x9FC], RANDOM[: 6 * 4096]


def opened(tmp_path: Path, data: bytes) -> ImageSource:
    path = tmp_path / "image"
    path.write_bytes(data)
    return open_source([str(path)])


def test_ranges_are_where_their_headers_say(tmp_path: Path) -> None:
    source = opened(tmp_path, lime((0x1000, LOW), (0x1_0000_0000, HIGH)))
    assert source.format == "LiME" and source.notes == () and not source.damaged
    assert content(source) == {0x1000: LOW, 0x1_0000_0000: HIGH}
    assert source.pages([0x100001, 1]).tobytes() == HIGH[4096:8192] + LOW.ljust(4096, b"\0")
    check_source(source)


def test_descending_ranges_are_sorted(tmp_path: Path) -> None:
    source = opened(tmp_path, lime((0x8000, HIGH), (0x1000, LOW)))
    assert list(content(source).items()) == [(0x1000, LOW), (0x8000, HIGH)]


def test_of_overlapping_ranges_the_first_counts(tmp_path: Path) -> None:
    other = bytes(reversed(HIGH))
    source = opened(tmp_path, lime((0x2000, HIGH[:4096]), (0x1000, other[:12288])))
    assert content(source) == {0x1000: other[:4096] + HIGH[:4096] + other[8192:12288]}
    assert source.notes == ("1 overlapping range: the first in the file counts",)


def test_a_range_that_the_file_cuts_off_is_kept_as_far_as_it_goes(tmp_path: Path) -> None:
    source = opened(tmp_path, lime((0, LOW), (0x10000, HIGH))[:-5000])
    assert content(source) == {0: LOW, 0x10000: HIGH[:-5000]}
    assert source.damaged
    assert source.notes == (
        "reading stopped after 2 ranges: the range 0x10000-0x15fff is cut off by the end of the "
        "file: 0x4c78 of 0x6000 bytes are there",
    )


@pytest.mark.parametrize(
    ("tail", "cause"),
    [
        (b"\0" * 64, "no header where one must be, at offset 0x6020"),
        (lime((0x20000, LOW), version=2), "a header of version 2 at offset 0x6020"),
        (struct.pack("<IIQQQ", 0x4C694D45, 1, 9, 8, 0), "0x9-0x8 at offset 0x6020 makes no sense"),
        (struct.pack("<IIQQQ", 0x4C694D45, 1, 0, 2**64 - 1, 0), "makes no sense"),
        (struct.pack("<IIQQQ", 0x4C694D45, 1, 2**64 - 1, 2**64 - 1, 0), "makes no sense"),
    ],
    ids=short_id,
)
def test_what_follows_damage_is_left_out_and_noted(tmp_path: Path, tail: bytes, cause: str) -> None:
    source = opened(tmp_path, lime((0, HIGH)) + tail + lime((0x30000, LOW)))
    assert content(source) == {0: HIGH}
    (note,) = source.notes
    assert cause in note and source.damaged


def test_a_file_that_ends_within_a_header_keeps_what_is_before(tmp_path: Path) -> None:
    source = opened(tmp_path, lime((0, HIGH), (0x20000, LOW))[: 0x6020 + 10])
    assert content(source) == {0: HIGH}
    assert source.notes == ("reading stopped after 1 range: its last 10 bytes are no whole header",)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"EMiL", "its last 4 bytes are no whole header"),
        (lime((0, LOW), version=0), "a header of version 0 at offset 0x0"),
        (lime((0, LOW))[:32], "cut off by the end of the file: 0x0 of 0x9fc bytes"),
    ],
    ids=short_id,
)
def test_a_file_without_one_readable_range_is_refused(
    tmp_path: Path, data: bytes, cause: str
) -> None:
    with pytest.raises(InputError, match=f"LiME: .*{cause}"):
        opened(tmp_path, data)


def test_a_hundred_thousand_ranges_open_and_read(tmp_path: Path) -> None:
    count = 100_000
    header = struct.Struct("<IIQQQ8s")
    data = b"".join(
        header.pack(0x4C694D45, 1, at, at + 7, 0, at.to_bytes(8, "little"))
        for at in range(0, count * 16, 16)
    )
    source = opened(tmp_path, data)
    assert len(source.ranges) == count
    assert spans(source)[-1] == (16 * count - 16, 16 * count - 8)
    page = source.pages([3])[0].tobytes()
    assert page == b"".join(
        at.to_bytes(8, "little") + bytes(8) for at in range(3 * 4096, 4 * 4096, 16)
    )


def test_many_ranges_over_each_other_take_no_square_time(tmp_path: Path) -> None:
    data = b"".join(lime((at, HIGH[:64])) for at in range(40_000, 0, -1))
    source = opened(tmp_path, data)
    assert spans(source) == [(1, 40_064)]
    assert source.read(40_000, 64) == HIGH[:64]
    assert source.read(39_999, 1) == HIGH[:1]  # its own; all behind are of the one before
    assert source.notes == ("39999 overlapping ranges: the first in the file counts",)
