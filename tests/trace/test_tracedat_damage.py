"""trace.dat that is cut, flipped or made to lie: counted, or one line, in bounded time."""

from __future__ import annotations

import io
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from highmem.compiled import load_source
from highmem.errors import InputError
from highmem.trace import ringbuffer
from highmem.trace.schema import Account, Kind
from highmem.trace.source import ByteSource
from highmem.trace.tracedat import TraceDat
from support.trace_reading import rows_of
from support.tracedat_writer import SWITCH, Machine, Page, call, dat, switch

T = 10**10
LIE = 0xFFFFFFFF


def pages(machine: Machine, count: int = 3) -> list[Page]:
    made = []
    for number in range(count):
        page = Page(machine, T + number * 1000)
        for n in range(8):
            time = T + number * 1000 + n * 10
            page.record(time, call(machine, "mru"[n % 3], 106, n))
        page.record(T + number * 1000 + 99, switch(machine, 106, b"sh", 1, 12, b"rcu_sched"))
        made.append(page)
    return made


def whole(machine: Machine) -> bytes:
    return dat(machine, {0: pages(machine), 1: pages(machine)})


GOOD = [
    whole(Machine(version=6)),
    whole(Machine("big", 8)),
    whole(Machine(compression="zlib")),
    whole(Machine(compression="zstd")),
]


def read(data: bytes) -> tuple[Account, list[dict]] | None:
    """What comes out of *data*: None if it is refused."""
    try:
        source = TraceDat(ByteSource("bad.dat", io.BytesIO(data)), "-")
        rows = rows_of(source)
    except InputError as error:
        assert str(error).isprintable()
        return None
    account = source.account
    assert account.lines == account.events + account.passed_over + account.rejected
    assert account.events == len(rows)
    assert len(account.rejections) == min(account.rejected, 10)
    return account, rows


@pytest.mark.parametrize("data", GOOD)
def test_cut_anywhere(data: bytes) -> None:
    full = read(data)
    assert full is not None and not full[0].truncated
    for end in range(16, len(data), 512):
        found = read(data[:end])
        if found is not None and found[0].events < full[0].events:
            assert found[0].truncated or found[0].rejected, end


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(GOOD),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_flipped_bytes(data: bytes, flips: list[tuple[int, int]]) -> None:
    changed = bytearray(data)
    for at, value in flips:
        changed[at % len(changed)] = value
    read(bytes(changed))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=400), st.integers(0, 300), st.sampled_from(["little", "big"]))
def test_garbage_in_a_page_is_the_same_compiled_and_interpreted(
    garbage: bytes, at: int, order: str
) -> None:
    machine = Machine(order)
    data = dat(machine, {0: pages(machine), 3: pages(machine, 1)})
    start = data.index(machine.number(T, 8)) + 8
    changed = data[: start + at] + garbage + data[start + at + len(garbage) :]
    compiled = read(changed)
    with pytest.MonkeyPatch.context() as patch:
        ring = load_source("highmem.trace._ring", "interpreted_ring").Ring
        patch.setattr(ringbuffer, "Ring", ring)
        assert read(changed) == compiled


def page_with(machine: Machine, data: bytes) -> dict[int, list[Page]]:
    page = Page(machine, T)
    page.record(T, call(machine, "u", 106, 1))
    page.data += data
    return {0: [page, *pages(machine, 1)]}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((28,), "reaches beyond"),  # 28 words that are not there
        ((0, LIE), "reaches beyond"),
        ((0, 3), "reaches beyond"),
        ((0,), "reaches beyond"),
        ((29 | 1 << 5, LIE), "reaches beyond"),
        ((29 | 1 << 5, 0), "reaches beyond"),
        ((30 | LIE - 31,), "reaches beyond"),
        ((1 | 5 << 5, SWITCH), "shorter than"),
        ((2, 999, 106), "no format describes"),
        ((6, 1401, 1 << 31, 0, 0, 0, 0), "pid"),
    ],
)
def test_a_damaged_record_is_rejected_and_what_follows_is_read(
    words: tuple[int, ...], reason: str
) -> None:
    machine = Machine()
    data = b"".join(machine.number(word) for word in words)
    found = read(dat(machine, page_with(machine, data)))
    assert found is not None
    account, rows = found
    assert account.rejected == 1
    assert reason in account.rejections[0].reason
    assert account.rejections[0].text.startswith("cpu 0")
    if "beyond" in reason:  # how much was lost with it is not known
        assert [row["value"] for row in rows if row["kind"] == Kind.LOST] == [0]
    assert sum(row["kind"] != Kind.LOST for row in rows) == 10


def test_a_switch_of_another_task_is_rejected() -> None:
    machine = Machine()
    data = bytearray(switch(machine, 106, b"sh", 1, 12, b"x"))
    data[4:8] = machine.number(107)
    found = read(dat(machine, {0: [Page(machine, T).record(T, bytes(data))]}))
    assert found is not None and found[0].rejected == 1


def test_a_sub_buffer_that_holds_more_than_fits_is_rejected() -> None:
    machine = Machine()
    data = bytearray(dat(machine, {0: pages(machine)}))
    start = data.index(machine.number(T, 8))
    data[start + 8 : start + 12] = machine.number(4085)
    found = read(bytes(data))
    assert found is not None
    assert "more than fits" in found[0].rejections[0].reason
    data[start + 7] = 0xFF  # and a time that no clock shows
    found = read(bytes(data))
    assert found is not None and "time" in found[0].rejections[0].reason


@pytest.mark.parametrize("size", [0, 1, 11, 12, 13, LIE, 1 << 23, 4095, 8192])
def test_other_page_sizes_are_refused_or_counted(size: int) -> None:
    for machine in (Machine(version=6), Machine(version=7)):
        data = whole(machine).replace(machine.number(4096), machine.number(size))
        tracemalloc.start()
        try:
            read(data)
            assert tracemalloc.get_traced_memory()[1] < 64 << 20
        finally:
            tracemalloc.stop()


def test_sizes_and_counts_that_lie_allocate_nothing() -> None:
    for machine in (Machine(version=6), Machine(version=7), Machine(compression="zlib")):
        data = dat(machine, {0: pages(machine, 1)})
        end = len(data) if machine.version == 7 else 8192
        for at in range(10, min(end, 6000), 13):
            changed = data[:at] + b"\xff\xff\xff\x7f" + data[at + 4 :]
            tracemalloc.start()
            try:
                read(changed)
                assert tracemalloc.get_traced_memory()[1] < 64 << 20, at
            finally:
                tracemalloc.stop()


def test_sections_of_options_that_lead_back_end() -> None:
    machine = Machine(version=7)
    data = dat(machine, {0: pages(machine, 1)})
    first = data.index(b"none\x001.0\0") + len(b"none\x001.0\0")
    options = data[first : first + 8]
    assert data.endswith(machine.number(0, 8))
    found = read(data[:-8] + options)
    assert found is not None
    assert any("lead back" in note for note in found[0].notes)
    assert sum(row["kind"] != Kind.LOST for row in found[1]) == 9


def test_data_of_two_cpus_may_not_overlap() -> None:
    machine = Machine(version=6)
    data = dat(machine, {0: pages(machine, 1), 1: pages(machine, 1)})
    start = data.index(machine.number(T, 8))
    second = machine.number(start + 4096, 8)
    assert data.count(second) == 1
    assert read(data.replace(second, machine.number(start, 8))) is None


def test_a_damaged_chunk_is_a_gap() -> None:
    for compression in ("zlib", "zstd"):
        machine = Machine(compression=compression)
        data = dat(machine, {0: pages(machine, 6)}, pages_in_chunk=2)
        second = machine.packed(b"".join(page.bytes() for page in pages(machine, 6)[2:4]))
        at = data.index(second) + 6
        found = read(data[:at] + bytes(8) + data[at + 8 :])
        assert found is not None
        account, rows = found
        assert account.truncated
        assert [row["kind"] == Kind.LOST for row in rows].count(True) == 1
        assert sum(row["kind"] != Kind.LOST for row in rows) >= 4 * 9


def test_a_bomb_of_empty_pages_is_read_in_little_memory() -> None:
    machine = Machine(compression="zstd")
    data = dat(
        machine, {0: [*pages(machine, 1), *([Page(machine, T)] * 4000)]}, pages_in_chunk=4000
    )
    assert len(data) < 20_000
    tracemalloc.start()
    try:
        found = read(data)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert found is not None and found[0].events == 9
