from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from highmem.errors import BusError, InputError, UsageError
from highmem.image.formats.opening import open_source
from highmem.image.formats.source import NotInImageError, iter_chunks
from support.image_reading import check_source, content, short_id, spans

DATA = random.Random(1).randbytes(5 * 4096 + 100)


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def test_one_file_is_memory_from_address_zero(tmp_path: Path) -> None:
    source = open_source([write(tmp_path / "ram", DATA)])
    assert (source.format, spans(source)) == ("raw", [(0, len(DATA))])
    assert source.read(100, 5000) == DATA[100:5100]
    assert source.pages([3, 1]).tobytes() == DATA[3 * 4096 : 4 * 4096] + DATA[4096 : 2 * 4096]
    assert source.claims.machine is None and not source.damaged
    check_source(source)


def test_the_frame_in_which_a_file_ends_is_filled_up_with_zeros(tmp_path: Path) -> None:
    source = open_source([write(tmp_path / "ram", DATA)])
    assert source.pages([5])[0].tobytes() == DATA[5 * 4096 :].ljust(4096, b"\0")
    assert source.present([4, 5, 6]).tolist() == [True, True, False]
    assert source.notes == ("1 of 1 files end within a frame of 4 KiB",)
    with pytest.raises(NotInImageError, match="0x5064 is not in the image"):
        source.read(len(DATA) - 1, 2)


@pytest.mark.parametrize("address", ["0x100000000", "4G", "4294967296"])
def test_pieces_stand_where_their_address_says(tmp_path: Path, address: str) -> None:
    low, high = write(tmp_path / "low", DATA[:8192]), write(tmp_path / "high", DATA[8192:])
    source = open_source([f"{high}@{address}", f"{low}@0"])
    assert spans(source) == [(0, 8192), (1 << 32, (1 << 32) + len(DATA) - 8192)]
    assert content(source) == {0: DATA[:8192], 1 << 32: DATA[8192:]}
    assert (
        source.pages([1 << 20, 2, 1]).tobytes() == DATA[8192:12288] + bytes(4096) + DATA[4096:8192]
    )
    check_source(source)


def test_pieces_that_meet_within_a_frame_are_one_range(tmp_path: Path) -> None:
    first, second = write(tmp_path / "1", DATA[:5000]), write(tmp_path / "2", DATA[5000:9000])
    source = open_source([f"{first}@0x10000", f"{second}@{0x10000 + 5000}"])
    assert spans(source) == [(0x10000, 0x10000 + 9000)]
    assert source.read(0x10000, 9000) == DATA[:9000]
    assert source.pages([0x11]).tobytes() == DATA[4096:8192]
    assert source.view(0x10000, 0x10000 + 9000) is None  # it lies in two files
    view = source.view(0x10000 + 6000, 0x10000 + 6010)
    assert view is not None and view.tobytes() == DATA[6000:6010]


def test_where_pieces_overlap_the_first_given_counts(tmp_path: Path) -> None:
    first, second = write(tmp_path / "1", DATA[:4096]), write(tmp_path / "2", DATA[4096:16384])
    source = open_source([f"{first}@0x1000", f"{second}@0"])
    assert content(source) == {0: DATA[4096:8192] + DATA[:4096] + DATA[12288:16384]}
    assert source.notes == ("1 overlapping range: the first in the file counts",)


def test_a_name_with_an_at_sign_is_found_first(tmp_path: Path) -> None:
    path = write(tmp_path / "dump@0x1000", DATA)
    assert spans(open_source([path])) == [(0, len(DATA))]
    assert spans(open_source([f"{path}@0x1000"])) == [(0x1000, 0x1000 + len(DATA))]


def test_pieces_need_their_addresses(tmp_path: Path) -> None:
    path = write(tmp_path / "ram", DATA)
    with pytest.raises(UsageError, match="each needs its address: FILE@ADDRESS"):
        open_source([f"{path}@0", path])
    with pytest.raises(UsageError, match="no image given"):
        open_source([])
    with pytest.raises(UsageError, match="'there' is not a size"):
        open_source([f"{path}@there"])


def test_a_piece_beyond_52_bits_of_address_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "ram", DATA[:4096])
    assert spans(open_source([f"{path}@{(1 << 52) - 4096}"])) == [((1 << 52) - 4096, 1 << 52)]
    for address in ((1 << 52) - 4095, 1 << 64, 1 << 100):
        with pytest.raises(InputError, match="end beyond 52 bits of address"):
            open_source([f"{path}@{address}"])


def test_what_is_no_image_is_refused_in_one_line(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)  # opening it would wait for somebody to write
    for path, cause in (
        (tmp_path / "none", "no such file"),
        (tmp_path, "is a directory"),
        (Path("/dev/null"), "is a device or a pipe; copy it into a file first"),
        (fifo, "is a device or a pipe; copy it into a file first"),
        (Path(write(tmp_path / "empty", b"")), "empty: there is nothing in it"),
    ):
        with pytest.raises(InputError) as caught:
            open_source([str(path)])
        assert str(caught.value) == f"{path}: {cause}"


@pytest.mark.parametrize(
    ("head", "cause"),
    [
        (b"QEVM\0\0\0\3", "migration stream"),
        (b"PAGEDUMP", "Windows"),
        (b"DISKDUMP", "diskdump"),
        (b"BZh9", "bzip2"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"PK\3\4", "zip archive"),
    ],
    ids=short_id,
)
def test_known_formats_that_are_not_read_are_named(tmp_path: Path, head: bytes, cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        open_source([write(tmp_path / "x", head + DATA)])


def test_frames_that_no_machine_has_are_absent(tmp_path: Path) -> None:
    source = open_source([write(tmp_path / "ram", DATA)])
    strange: list[np.ndarray] = [
        np.array([2**64 - 1, 2**63, 2**52], np.uint64),
        np.array([-1, -(2**63), 2**63 - 1, 2**40], np.int64),
        np.array([-1, 127], np.int8),
        np.array([]),
    ]
    for pfns in strange:
        assert not source.present(pfns).any()
        assert source.pages(pfns).shape == (len(pfns), 4096)
        assert not source.pages(pfns).any()
    with pytest.raises(BusError):
        source.read(-1, 4)
    with pytest.raises(BusError):
        source.read(2**64, 4)
    assert source.read(2**70, 0) == b""


def test_chunks_give_everything_once_and_in_order(tmp_path: Path) -> None:
    low, high = write(tmp_path / "low", DATA[:9000]), write(tmp_path / "high", DATA)
    source = open_source([f"{low}@100", f"{high}@0x100000"])
    chunks = list(iter_chunks(source, 8192))
    assert all(len(chunk) <= 8192 for _, chunk in chunks)
    assert b"".join(chunk.tobytes() for _, chunk in chunks) == DATA[:9000] + DATA
    assert [at for at, _ in chunks] == [100, 8192, 0x100000, 0x102000, 0x104000]


def test_a_closed_image_keeps_views_alive_and_reads_nothing_more(tmp_path: Path) -> None:
    source = open_source([write(tmp_path / "ram", DATA)])
    view = source.view(0, 4096)
    source.close()
    assert view is not None and view.tobytes() == DATA[:4096]


def test_what_leaves_the_image_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    source = open_source([str(path)])
    with pytest.raises(NotInImageError, match=hex(1 << 40)):
        source.read(0, (1 << 40) + 1)  # would not fit into memory


def test_a_sparse_image_of_64_gib_opens_and_reads_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 36)
        file.seek((1 << 36) - 4096)
        file.write(DATA[:4096])
    source = open_source([str(path)])
    assert spans(source) == [(0, 1 << 36)]
    last = (1 << 24) - 1
    assert source.pages([last, 12345]).tobytes() == DATA[:4096] + bytes(4096)
    source.close()
