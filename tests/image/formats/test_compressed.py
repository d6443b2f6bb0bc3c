from __future__ import annotations

import gzip
import io
import lzma
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from highmem.errors import InputError
from highmem.image.formats import compressed
from highmem.image.formats.opening import open_source
from support.image_reading import check_source, content, short_id, spans
from support.image_writers import Kdump, elf_core, flattened, lime

RAW = random.Random(5).randbytes(70_000) + bytes(300_000) + b"end"
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
IMAGES = {
    "raw": RAW,
    "LiME": lime((0, RAW[:4096]), (0x10000, RAW[:10_000])),
    "ELF32 core": elf_core((0, RAW[:4096]), (0x10000, RAW[:10_000])),
    "kdump (zlib)": Kdump({0: RAW[:4096], 9: bytes(4096)}).build(),
    "kdump (zlib), flattened": flattened(Kdump({0: RAW[:4096], 9: bytes(4096)}).build()),
}


@pytest.mark.parametrize("packer", sorted(PACKERS))
@pytest.mark.parametrize("kind", sorted(IMAGES))
def test_an_image_is_the_same_when_it_is_compressed(tmp_path: Path, packer: str, kind: str) -> None:
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.write_bytes(IMAGES[kind])
    packed.write_bytes(PACKERS[packer](IMAGES[kind]))
    source = open_source([str(packed)])
    assert source.format == f"{kind}, {packer}"
    assert content(source) == content(open_source([str(plain)]))
    assert not source.damaged
    check_source(source)


def test_frames_after_each_other_are_one_image(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    pack = PACKERS["zstd"]
    skippable = b"\x50\x2a\x4d\x18\4\0\0\0abcd"  # pzstd begins with one
    packed.write_bytes(skippable + pack(RAW[:100]) + pack(RAW[100:]))
    assert content(open_source([str(packed)])) == {0: RAW}


def test_a_piece_may_be_compressed(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(PACKERS["gzip"](RAW))
    source = open_source([f"{packed}@4G"])
    assert content(source) == {1 << 32: RAW}
    assert source.format == "raw, gzip"


@pytest.mark.parametrize("packer", sorted(PACKERS))
def test_a_truncated_file_is_kept_as_far_as_it_goes(tmp_path: Path, packer: str) -> None:
    packed = tmp_path / "packed"
    data = random.Random(9).randbytes(600_000)  # several blocks of zstd
    packed.write_bytes(PACKERS[packer](data)[:500_000])
    source = open_source([str(packed)])
    ((start, end),) = spans(source)
    assert start == 0 and 100_000 < end <= 500_000
    assert source.read(0, end) == data[:end]
    assert source.damaged
    assert source.notes[0] == (
        f"the {packer} data ends too early (an interrupted copy?): only {end:#x} bytes are there"
    )


def test_zeros_take_no_room(tmp_path: Path) -> None:
    sizes: list[int] = []
    zeros = tmp_path / "zeros"
    zeros.write_bytes(PACKERS["zstd"](bytes(1 << 28)))
    source = open_source([str(zeros)], progress=lambda what, done: sizes.append(done))
    assert spans(source) == [(0, 1 << 28)]
    assert sizes == [(1 << 26) * n for n in range(1, 5)]
    assert not source.pages([(1 << 16) - 1]).any()


def test_what_unpacks_to_more_than_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressed, "SPOOL_LIMIT", 1 << 20)
    bomb = tmp_path / "bomb"
    bomb.write_bytes(PACKERS["zstd"](bytes(1 << 26)))
    with pytest.raises(InputError, match="unpacks to more than 0 GiB"):
        open_source([str(bomb)])


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (PACKERS["gzip"](PACKERS["zstd"](RAW)), "compressed twice; unpack it once"),
        (PACKERS["gzip"](RAW)[:15], "gzip data ends too early|nothing is in it"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 100, "zstd data is damaged"),
        (PACKERS["xz"](b""), "empty"),
    ],
    ids=short_id,
)
def test_what_cannot_be_unpacked_is_refused(tmp_path: Path, data: bytes, cause: str) -> None:
    path = tmp_path / "packed"
    path.write_bytes(data)
    with pytest.raises(InputError, match=cause):
        open_source([str(path)])


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    path = tmp_path / "packed"
    path.write_bytes(PACKERS["gzip"](RAW))
    with pytest.raises(InputError, match=r"cannot be unpacked into .*: No space left on device"):
        open_source([str(path)])


@pytest.mark.parametrize("kind", sorted(IMAGES))
def test_standard_input_is_an_image(kind: str) -> None:
    code = "\n".join(
        (
            "from highmem.image.formats.opening import open_source",
            "import sys",
            "source = open_source(['-'])",
            "sys.stdout.write(f'{source.format} {source.path} {source.ranges[0].end}')",
        )
    )
    result = subprocess.run(
        [sys.executable, "-c", code], input=IMAGES[kind], capture_output=True, check=True
    )
    assert result.stdout.decode() == f"{kind} <stdin> {len(RAW) if kind == 'raw' else 4096}"


def test_an_unpacked_image_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    packed = tmp_path / "packed"
    packed.write_bytes(PACKERS["gzip"](IMAGES["kdump (zlib), flattened"]))
    source = open_source([str(packed)])
    assert list(place.iterdir()) == []
    assert source.pages([0])[0].tobytes() == RAW[:4096]
    assert io.BytesIO(packed.read_bytes()).read(2) == b"\x1f\x8b"  # and the input is as it was
