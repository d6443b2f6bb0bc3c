from __future__ import annotations

import ctypes
import ctypes.util
import random
from collections.abc import Callable
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highmem.compiled import load_source
from highmem.image.formats import _unpack
from support.image_reading import short_id
from support.image_writers import lzo_literals, snappy_literals

INTERPRETED = load_source("highmem.image.formats._unpack", "highmem.image._unpack_interpreted")
both_ways = pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            _unpack,
            id="compiled",
            marks=pytest.mark.skipif(not _unpack.COMPILED, reason="not compiled here"),
        ),
        pytest.param(INTERPRETED, id="interpreted"),
    ],
)
Unpack = Callable[[bytearray, bytearray], int]


def run(unpack: Unpack, packed: bytes, room: int) -> tuple[int, bytes]:
    out = bytearray(room)
    size = unpack(bytearray(packed), out)
    return size, bytes(out[: max(0, size)])


# A byte each: what the tables of lzo.rst and format_description.txt say about it by hand.
LZO = {
    "four first literals": (b"\x15abcd\x11\0\0", b"abcd"),
    "one first literal, then a match of two": (b"\x12a\0\0\x11\0\0", b"aaa"),
    "run of four": (b"\x01abcd\x11\0\0", b"abcd"),
    "run of eighteen": (b"\x0f" + b"abcdefghijklmnopqr" + b"\x11\0\0", b"abcdefghijklmnopqr"),
    "run of nineteen": (b"\0\1" + b"abcdefghijklmnopqrs" + b"\x11\0\0", b"abcdefghijklmnopqrs"),
    "match of three": (b"\x15abcd\x4c\0\x11\0\0", b"abcdabc"),
    "match of four with three literals behind": (b"\x15abcd\x6f\0xyz\x11\0\0", b"abcdabcdxyz"),
    "match of eight": (b"\x15abcd\xec\0\x11\0\0", b"abcdabcdabcd"),
    "match at distance one": (b"\x12a\x20\4\0\0\x11\0\0", b"a" * 38),
    "match of 33 at distance 4": (b"\x15abcd\x3f\x0c\0\x11\0\0", b"abcd" * 9 + b"a"),
    "match of 34 by one more byte": (b"\x15abcd\x20\1\x0c\0\x11\0\0", b"abcd" * 9 + b"ab"),
    "match, a literal, a near match of two": (b"\x15abcd\x4d\0x\0\0\x11\0\0", b"abcdabcxxx"),
}


@both_ways
@pytest.mark.parametrize("name", sorted(LZO))
def test_lzo_by_the_table_of_its_instructions(way: ModuleType, name: str) -> None:
    packed, plain = LZO[name]
    assert run(way.lzo1x, packed, 4096) == (len(plain), plain)
    assert run(way.lzo1x, packed, len(plain)) == (len(plain), plain)
    for room in range(len(plain)):
        assert run(way.lzo1x, packed, room)[0] == way.LONG
    for end in range(len(packed)):
        assert run(way.lzo1x, packed[:end], 4096)[0] == way.SHORT
    assert run(way.lzo1x, packed + b"\0", 4096)[0] == way.TRAILING


@both_ways
def test_lzo_reaches_2048_back_after_literals_and_16_kib_and_more(way: ModuleType) -> None:
    plain = random.Random(6).randbytes(40_000)
    run_of = lzo_literals(plain)[:-3]
    # 0000DDSS after literals: three bytes from 2049 on; 0001HLLL: from 16384 on.
    near = run_of + b"\x04\0\x11\0\0"
    assert run(way.lzo1x, near, 50_000)[1] == plain + plain[-2050:-2047]
    far = run_of + b"\x1a\x08\0\x11\0\0"  # H is set: 16384 + 16384 + 2, length 4
    assert run(way.lzo1x, far, 50_000)[1] == plain + plain[-32770:-32766]


@both_ways
@pytest.mark.parametrize(
    ("packed", "code"),
    [
        (b"\x12a\x40\1\x11\0\0", "FAR"),
        (b"\x12a\x20\1\x04\0\x11\0\0", "FAR"),
        (b"\x15abcd\0\0\x11\0\0", "FAR"),
        (b"\x11\x08\0\x11\0\0", "FAR"),
        (b"\0" * 5000, "SHORT"),
        (b"\x12a\x20" + bytes(5000), "SHORT"),
        (b"", "SHORT"),
        (b"\xff" * 20, "SHORT"),
    ],
    ids=short_id,
)
def test_lzo_that_is_damaged_is_refused(way: ModuleType, packed: bytes, code: str) -> None:
    assert run(way.lzo1x, packed, 4096)[0] == getattr(way, code)


SNAPPY = {
    "nothing": (b"\0", b""),
    "one literal": (b"\1\0a", b"a"),
    "sixty literals": (b"\x3c\xec" + b"ab" * 30, b"ab" * 30),
    "61 literals, a byte of length": (b"\x3d\xf0\x3c" + b"ab" * 30 + b"c", b"ab" * 30 + b"c"),
    "300 literals, two bytes": (b"\xac\2\xf4\x2b\1" + b"abc" * 100, b"abc" * 100),
    "three bytes of length": (b"\1\xf8\0\0\0a", b"a"),
    "four bytes of length": (b"\1\xfc\0\0\0\0a", b"a"),
    "copy of four by one byte": (b"\6\4ab\1\2", b"ababab"),
    "copy of eleven by one byte": (b"\x0d\4ab\x1d\2", b"ab" * 6 + b"a"),
    "copy by two bytes": (b"\7\4ab\x12\1\0", b"abbbbbb"),
    "copy by four bytes": (b"\7\4ab\x13\2\0\0\0", b"abababa"),
}


@both_ways
@pytest.mark.parametrize("name", sorted(SNAPPY))
def test_snappy_by_the_table_of_its_elements(way: ModuleType, name: str) -> None:
    packed, plain = SNAPPY[name]
    assert run(way.snappy, packed, 4096) == (len(plain), plain)
    assert run(way.snappy, packed, len(plain)) == (len(plain), plain)
    if plain:
        assert run(way.snappy, packed, len(plain) - 1)[0] == way.LONG
        for end in range(len(packed)):
            assert run(way.snappy, packed[:end], 4096)[0] in (way.SHORT, way.TRAILING)


@both_ways
@pytest.mark.parametrize(
    ("packed", "code"),
    [
        (b"", "SHORT"),
        (b"\xff" * 9, "SHORT"),
        (b"\x80\x80\x80\x80\x80\1", "SHORT"),
        (b"\xff\xff\xff\xff\x0f", "LONG"),
        (b"\5\0a", "TRAILING"),
        (b"\1\0a\0b", "LONG"),
        (b"\x08\0a\1\2", "FAR"),
        (b"\x08\0a\1\0", "FAR"),
        (b"\x08\0a\x13\xff\xff\xff\xff", "FAR"),
        (b"\x08\xfc\xff\xff\xff\xffa", "SHORT"),
        (b"\x08\0a\2\0\0", "FAR"),
        (b"\2\0a\xfe\1\0", "LONG"),
    ],
    ids=short_id,
)
def test_snappy_that_is_damaged_is_refused(way: ModuleType, packed: bytes, code: str) -> None:
    assert run(way.snappy, packed, 4096)[0] == getattr(way, code)


@both_ways
@given(data=st.binary(max_size=200), room=st.integers(0, 300))
def test_any_bytes_give_a_size_or_a_code(way: ModuleType, data: bytes, room: int) -> None:
    for unpack in (way.lzo1x, way.snappy):
        size, _ = run(unpack, data, room)
        assert way.TRAILING <= size <= room


@given(st.binary(max_size=300), st.integers(0, 600))
@pytest.mark.skipif(not _unpack.COMPILED, reason="not compiled here")
def test_compiled_and_interpreted_say_the_same(data: bytes, room: int) -> None:
    for name in ("lzo1x", "snappy"):
        assert run(getattr(_unpack, name), data, room) == run(
            getattr(INTERPRETED, name), data, room
        )


# -- against the libraries themselves -------------------------------------------------


def library(name: str) -> ctypes.CDLL:
    found = ctypes.util.find_library(name)
    if found is None:
        pytest.skip(f"lib{name} is not installed")
    return ctypes.CDLL(found)


def pages(count: int) -> list[bytes]:
    """Pages of all kinds: noise, runs, text that repeats near and far."""
    chance = random.Random(7)
    made = [bytes(4096), b"\xff" * 4096, chance.randbytes(4096)]
    while len(made) < count:
        page = bytearray(chance.randbytes(chance.randrange(1, 60)))
        while len(page) < chance.choice((4096, 4096, 4096, 60_000)):
            start = chance.randrange(len(page))
            page += page[start : start + chance.randrange(1, 90)] * chance.randrange(1, 4)
            page += chance.randbytes(chance.choice((0, 0, 1, 2, 3, 4, 5, 20, 300)))
        made.append(bytes(page))
    return made


@pytest.mark.oracle
@both_ways
@pytest.mark.parametrize(
    "function", ["lzo1x_1_compress", "lzo1x_1_15_compress", "lzo1x_999_compress"]
)
def test_lzo_unpacks_what_the_library_packs(way: ModuleType, function: str) -> None:
    pack = getattr(library("lzo2"), function)
    work = ctypes.create_string_buffer(1 << 20)
    for page in pages(60):
        packed = ctypes.create_string_buffer(len(page) * 2 + 200)
        size = ctypes.c_size_t(len(packed))
        assert pack(page, ctypes.c_size_t(len(page)), packed, ctypes.byref(size), work) == 0
        assert run(way.lzo1x, packed.raw[: size.value], len(page)) == (len(page), page)


@pytest.mark.oracle
@both_ways
def test_snappy_unpacks_what_the_library_packs(way: ModuleType) -> None:
    pack = library("snappy").snappy_compress
    for page in pages(100):
        packed = ctypes.create_string_buffer(len(page) * 2 + 200)
        size = ctypes.c_size_t(len(packed))
        assert pack(page, ctypes.c_size_t(len(page)), packed, ctypes.byref(size)) == 0
        assert run(way.snappy, packed.raw[: size.value], len(page)) == (len(page), page)


@pytest.mark.oracle
def test_the_writers_of_the_tests_are_understood_by_the_libraries() -> None:
    plain = random.Random(8).randbytes(4096)
    out = ctypes.create_string_buffer(5000)
    size = ctypes.c_size_t(len(out))
    packed = lzo_literals(plain)
    unpack = library("lzo2").lzo1x_decompress_safe
    assert unpack(packed, ctypes.c_size_t(len(packed)), out, ctypes.byref(size), None) == 0
    assert out.raw[: size.value] == plain
    packed, size = snappy_literals(plain), ctypes.c_size_t(len(out))
    unpack = library("snappy").snappy_uncompress
    assert unpack(packed, ctypes.c_size_t(len(packed)), out, ctypes.byref(size)) == 0
    assert out.raw[: size.value] == plain
