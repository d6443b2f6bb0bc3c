from __future__ import annotations

import gzip
import io
import lzma
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from highmem.errors import InputError
from highmem.trace.source import CHUNK, ByteSource, open_source

# Text with enough variety that no compressor makes it small.
TEXT = "".join(f"{i} {i * i * 2654435761 % 2**32:x}\n" for i in range(30_000)).encode()
Packer = Callable[[bytes], bytes]
PACKERS: dict[str, Packer] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}
packers = pytest.mark.parametrize("kind", PACKERS)


def source_of(data: bytes) -> ByteSource:
    return ByteSource("it", io.BytesIO(data))


def joined(source: ByteSource) -> bytes:
    chunks = list(source)
    assert all(0 < len(chunk) <= CHUNK for chunk in chunks)
    return b"".join(chunks)


@pytest.mark.parametrize("name", ["plain.zst", "it.txt", "it"])
@pytest.mark.parametrize("pack", [bytes, *PACKERS.values()], ids=["plain", *PACKERS])
def test_bytes_decide_and_the_name_does_not(tmp_path: Path, pack: Packer, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(pack(TEXT))
    source = open_source(path)
    assert source.head == TEXT[: len(source.head)]
    assert len(source.head) >= 16
    assert joined(source) == TEXT
    assert source.problem == ""


@packers
def test_several_members_are_one_text(kind: str) -> None:
    packed = PACKERS[kind](TEXT) + PACKERS[kind](b"the second\n") + PACKERS[kind](b"third")
    source = source_of(packed)
    assert joined(source) == TEXT + b"the second\nthird"
    assert source.problem == ""


@pytest.mark.parametrize("kind", ["gzip", "xz"])
def test_zeros_after_the_end_are_padding(kind: str) -> None:
    source = source_of(PACKERS[kind](TEXT) + bytes(512) + PACKERS[kind](b"more") + bytes(512))
    assert joined(source) == TEXT + b"more"
    assert source.problem == ""


def test_zstd_may_begin_with_a_skippable_frame() -> None:
    frame = b"\x5a\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"skipped"
    assert joined(source_of(frame + PACKERS["zstd"](TEXT))) == TEXT


@packers
def test_a_cut_file_gives_what_could_be_read_and_says_so(kind: str) -> None:
    packed = PACKERS[kind](TEXT)
    source = source_of(packed[: len(packed) * 3 // 4])
    text = joined(source)
    assert TEXT.startswith(text)
    assert len(text) > len(TEXT) // 4
    assert f"{kind} data ends too early" in source.problem


@packers
def test_a_cut_at_any_offset_is_either_told_or_without_loss(kind: str) -> None:
    text = TEXT[:400]
    packed = PACKERS[kind](text)
    for cut in range(1, len(packed)):
        try:
            source = source_of(packed[:cut])
            read = joined(source)
        except InputError:
            continue
        if cut >= 16 or source.problem:  # else too short to be known as compressed
            assert text.startswith(read)
            assert source.problem


@packers
def test_damage_in_the_middle_keeps_what_came_before(kind: str) -> None:
    packed = bytearray(PACKERS[kind](TEXT))
    for at in range(len(packed) // 2, len(packed) // 2 + 64):
        packed[at] ^= 0xA5
    source = source_of(bytes(packed))
    text = joined(source)
    assert source.problem
    eighth = len(TEXT) // 8
    assert text[:eighth] == TEXT[:eighth]


@packers
def test_something_else_after_the_end_is_told(kind: str) -> None:
    source = source_of(PACKERS[kind](TEXT) + b"trailing rubbish that is no member at all")
    assert joined(source) == TEXT
    assert "followed by something else" in source.problem


@packers
def test_nothing_readable_is_an_error(kind: str) -> None:
    packed = PACKERS[kind](TEXT)
    with pytest.raises(InputError, match=kind):
        source_of(packed[:12] + b"\xff" * 40)
    with pytest.raises(InputError, match=f"{kind} data ends too early"):
        source_of(packed[:12])


@packers
def test_a_compressed_nothing_is_empty(kind: str) -> None:
    with pytest.raises(InputError, match="empty"):
        source_of(PACKERS[kind](b""))


def test_exploding_input_stays_small_in_memory() -> None:
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(200 << 20))
    assert len(bomb) < 100_000
    source = source_of(bomb)
    tracemalloc.start()
    try:
        size = sum(len(chunk) for chunk in source)
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    assert size == 200 << 20


def test_input_that_begins_to_explode_stays_small_in_memory() -> None:
    packer = zstandard.ZstdCompressor(level=1)
    source = source_of(packer.compress(TEXT * 20) + packer.compress(bytes(200 << 20)))
    tracemalloc.start()
    try:
        size = sum(len(chunk) for chunk in source)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert size == 20 * len(TEXT) + (200 << 20)


def test_a_zstd_frame_that_wants_too_much_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = packer.compress(TEXT) + packer.flush()
    with pytest.raises(InputError, match=r"zstd data is damaged: .*memory"):
        source_of(packed)


def test_a_pipe_that_gives_one_byte_at_a_time_reads_as_well() -> None:
    class Dripping(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            return super().read1(1)

    packed = PACKERS["gzip"](TEXT[:2000])
    assert joined(ByteSource("it", Dripping(packed))) == TEXT[:2000]


def test_standard_input_is_read_and_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO(PACKERS["xz"](TEXT))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
    source = open_source("-")
    assert source.name == "<stdin>"
    assert joined(source) == TEXT
    assert not stream.closed


def test_closed_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        open_source("-")


def test_a_read_error_keeps_what_came_before() -> None:
    class Failing(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            data = super().read1(100)
            if not data:
                raise OSError(5, "Input/output error")
            return data

    source = ByteSource("it", Failing(TEXT[:1000]))
    assert joined(source) == TEXT[:1000]
    assert source.problem == "reading stopped: Input/output error"
    with pytest.raises(InputError, match=r"^it: reading stopped: Input/output error$"):
        ByteSource("it", Failing(b""))


def test_what_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    cases = {
        str(tmp_path): "is a directory",
        str(tmp_path / "absent"): "no such file",
        str(tmp_path / "empty"): "empty",
        "a\0b": "NUL",
        str(tmp_path / "bad\nname\x1b"): r"bad\\nname\\x1b: no such file",
    }
    for path, message in cases.items():
        with pytest.raises(InputError, match=message) as error:
            open_source(path)
        assert str(error.value).isprintable()


def test_no_permission_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refused)
    with pytest.raises(InputError, match="permission denied"):
        open_source("some")


def test_a_gzip_checksum_error_loses_little() -> None:
    packed = bytearray(PACKERS["gzip"](TEXT))
    packed[-8] ^= 1
    source = source_of(bytes(packed))
    text = joined(source)
    assert TEXT.startswith(text)
    assert len(TEXT) - len(text) < 1000
    assert "damaged" in source.problem
    assert zlib.crc32(TEXT) != int.from_bytes(packed[-8:-4], "little")
