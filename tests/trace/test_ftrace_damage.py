"""Damaged, hostile and huge inputs: never a traceback, always a whole account."""

from __future__ import annotations

import gzip
import io
import lzma
import random
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from highmem.errors import InputError
from highmem.trace.ftrace_text import FtraceText
from highmem.trace.schema import Account
from highmem.trace.source import ByteSource
from support.ftrace_writer import STYLES, Call, Event, Lost, Noise, State, Switch, recording
from support.trace_reading import SlowFtraceText, account_holds, read_bytes, rows_of

MAP = Call(
    "m___kmap_local_page_prot",
    "__kmap_local_page_prot+0x0/0x40",
    (("page", "0xf5f74fb0"), ("prot", "0x163")),
)
BACK = Call(
    "r___kmap_local_page_prot", "f+0x12/0x80 <- __kmap_local_page_prot", (("vaddr", "0xfffbb000"),)
)
UNMAP = Call("u_kunmap_local_indexed", "kunmap_local_indexed+0x0/0xf0", (("vaddr", "0xfffbb240"),))
EVENTS: list[tuple[State, Event]] = [
    (State(), MAP),
    (State(preempt=1), BACK),
    (State(), UNMAP),
    (State(), MAP),
    (State(preempt=1, migrate=1), BACK),
    (State(), UNMAP),
    (State(), Switch("S", b"swapper/3", 0)),
    (State(comm=b"<...>"), Noise(b"kmap_high <-copy_strings")),
    (State(), Lost(5)),
]  # fmt: skip
SMALL = [recording(EVENTS, style) for style in STYLES]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def survived(data: bytes) -> Account:
    """Read *data* with and without the short cut; both must agree, and the account hold."""
    accounts = []
    found = []
    for reader in (FtraceText, SlowFtraceText):
        source = read_bytes(data, reader=reader)
        rows = None
        try:
            rows = rows_of(source)
        except InputError as error:
            assert str(error).isprintable()
            assert source.account.events == 0
        account_holds(source.account, data, len(rows or ()))
        found.append(rows)
        accounts.append(source.account)
    assert found[0] == found[1]
    assert accounts[0] == accounts[1]
    return accounts[0]


@given(st.sampled_from(SMALL), st.data())
def test_flipped_bytes(data: bytes, draws: st.DataObject) -> None:
    damaged = bytearray(data)
    places = st.tuples(st.integers(0, len(data) - 1), st.integers(1, 255))
    for place, flip in draws.draw(st.lists(places, min_size=1, max_size=20)):
        damaged[place] ^= flip
    survived(bytes(damaged))


@given(st.sampled_from(SMALL), st.data())
def test_pieces_moved_doubled_and_lost(data: bytes, draws: st.DataObject) -> None:
    place = st.integers(0, len(data))
    cuts = draws.draw(st.lists(st.tuples(place, place), min_size=1, max_size=6))
    pieces = b"".join(data[a:b] for a, b in cuts)
    if pieces:
        survived(pieces)


@given(st.binary(min_size=1, max_size=2000))
def test_random_bytes(data: bytes) -> None:
    survived(b"\n" + data)  # without it the bytes may be the head of a compressed file


@pytest.mark.parametrize("data", SMALL, ids=[str(style) for style in STYLES])
def test_a_text_cut_at_every_offset(data: bytes) -> None:
    whole = rows_of(read_bytes(data))
    for cut in range(1, len(data)):
        source = read_bytes(data[:cut])
        try:
            rows = rows_of(source)
        except InputError:
            rows = []
        account_holds(source.account, data[:cut], len(rows))
        assert rows == whole[: len(rows)]
        assert source.account.truncated == (data[cut - 1] != 10)


@pytest.mark.parametrize("kind", PACKERS)
def test_a_compressed_text_cut_at_every_offset(kind: str) -> None:
    rng = random.Random(5)
    events: list[tuple[State, Event]] = [
        (State(time=rng.randrange(10**12), pid=rng.randrange(9999)), MAP) for _ in range(40)
    ]
    data = recording(events, STYLES[1])
    whole = rows_of(read_bytes(data))
    packed = PACKERS[kind](data)
    most = 0
    for cut in range(16, len(packed)):
        try:
            source = FtraceText(ByteSource("it", io.BytesIO(packed[:cut])))
            rows = rows_of(source)
        except InputError as error:
            assert str(error).isprintable()
            continue
        account = source.account
        assert account.lines == account.events + account.passed_over + account.rejected
        assert rows == whole[: len(rows)]
        assert account.truncated
        assert account.notes
        most = max(most, len(rows))
    assert most > len(whole) // 2 or kind == "zstd"  # one zstd block is all or nothing


def test_a_gigantic_line_is_counted_and_not_held() -> None:
    good = recording(EVENTS, STYLES[0])
    huge = b"x" * (40 << 20)
    data = good + huge + b"\n" + good
    source = read_bytes(data)
    tracemalloc.start()
    try:
        rows = rows_of(source)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert len(rows) == 2 * len(rows_of(read_bytes(good)))
    account_holds(source.account, data, len(rows))
    assert [r.reason for r in source.account.rejections] == ["longer than 65536 bytes"]


def test_lines_that_nobody_wants_do_not_fill_the_memory() -> None:
    lines = b"".join(
        b" t%d-%d [003] .... 9.405284: m_kmap_high: (f%d+0x1/0x2) page=(fault)\n" % (n, n, n)
        for n in range(40_000)
    )
    source = read_bytes(b"# tracer: nop\n" + lines)
    tracemalloc.start()
    try:
        assert rows_of(source) == []
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert source.account.rejected == 40_000


@pytest.mark.parametrize(
    "piece",
    [b" ", b"-1 ", b"[0] ", b"a=( ", b'a=" ', b"{", b"a={a=(", b" [", b"0", b"(", b": ", b"a:a",
     b"-1 [000] .... 1.000000", b" ==> ", b":1 [1] R", b" prev_pid=1", b"\0", b"\xff", b"_-=> "],
)  # fmt: skip
@pytest.mark.parametrize(
    "start",
    [b"", b"#", b"cat-1 [000] .... 1.000000: ", b"cat-1 [000] .... 1.000000: m_kmap_high: ",
     b"cat-1 [000] .... 1.000000: r_kmap_high: (", b"cat-1 [000] .... 1.000000: sched_switch: ",
     b"cat-1 [000] .... 1.000000: r_kmap_high: (f <- g) "],
)  # fmt: skip
@pytest.mark.timeout(20)
def test_no_line_takes_long(start: bytes, piece: bytes) -> None:
    line = (start + piece * 65_536)[:65_536]
    survived(b"# tracer: nop\n" + line + b"\n" + line[:30_000] + b")\n")


def test_a_name_with_a_newline_hides_and_forges_nothing() -> None:
    names = [b"a\n# b", b"a\n => b", b"\nCPU:1 [LOST 1", b"\n", b"a\n-1 [0]"]
    lines = b"".join(
        b"%16b-7     [003] .... 9.405284: u_kunmap_high: (kunmap_high+0x0/0xc0) page=0x%x\n"
        % (name, number)
        for number, name in enumerate(names, 1)
    )
    rows = rows_of(read_bytes(lines))
    assert [(row["pid"], row["cpu"], row["value"]) for row in rows] == [
        (7, 3, number) for number in range(1, len(names) + 1)
    ]
